"""Ray's processes make the numbers of one process, and go on when one of them is killed."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.multiprocessing import spawn

from manifests.document import ManifestError
from tests.training.test_ranks import work
from tests.training.toy import manifest, training, write_data
from training.checkpoint import WEIGHTS
from training.run import Run, begin, train

ray = pytest.importorskip("ray")
pytest.importorskip("ray.train")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


def begun(data: Path, out: Path, **settings: object) -> Run:
    launch = {"workers": 2, "device": "cpu"}
    return begin(manifest(data, out, settings=settings, training=training(save_every=2), launch=launch))


@pytest.mark.timeout(240)
def test_a_worker_that_is_killed_changes_nothing_in_the_numbers(data: Path, tmp_path: Path) -> None:
    told: list[int] = []
    killed = train(begun(data, tmp_path / "killed", dies_at=7, folder=str(tmp_path)), lambda step, *others: told.append(step))
    assert (tmp_path / "died").exists()
    whole = begun(data, tmp_path / "whole", dies_at=7, folder=str(tmp_path))
    spawn(work, (2, whole, str(tmp_path / "meeting")), 2)
    expected = load_file(whole.folder / "last" / WEIGHTS)
    for name, values in load_file(killed / WEIGHTS).items():
        assert torch.equal(values, expected[name])
    assert told[-1] == 10
    assert len(told) > 10  # steps after the last checkpoint were made again


@pytest.mark.timeout(120)
def test_an_error_of_the_first_process_alone_is_said_at_once_and_not_tried_again(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="these data cannot be looked at"):
        train(begun(data, tmp_path / "run", unprepared=True), lambda step, steps, figures: None)


def test_more_processes_than_there_is_room_for_are_refused(data: Path, tmp_path: Path) -> None:
    asked = manifest(data, tmp_path / "run", global_batch=64, launch={"workers": 9, "device": "cpu"})
    with pytest.raises(ManifestError, match=r"launch.workers=9 want 4.5 CPUs, the cluster has 4; set launch.workers lower"):
        train(begin(asked), lambda step, steps, figures: None)
