"""Several processes make the steps of one."""

from pathlib import Path

import pytest
import torch
import torch.distributed as distributed
from safetensors.torch import load_file
from torch.multiprocessing import spawn

from tests.training.toy import manifest, training, write_data
from training.log import read_log
from training.loop import train
from training.run import Run, begin


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("toy"))


def work(rank: int, ranks: int, run: Run, meeting: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=ranks)
    train(run, lambda step, steps, figures: None)
    distributed.destroy_process_group()


def trained(data: Path, out: Path, ranks: int, steps: int = 6, *, resume: bool = False) -> dict[str, torch.Tensor]:
    how = training(steps=steps, ema=0.9)
    run = begin(manifest(data, out, model="Players", training=how), resume=resume)
    if ranks == 1:
        train(run, lambda step, steps, figures: None)
    else:
        spawn(work, (ranks, run, str(out.with_name(f"{out.name}-{ranks}-{steps}"))), ranks)
    return load_file(out / "last" / "weights.safetensors")


def test_three_processes_make_the_steps_of_one(data: Path, tmp_path: Path) -> None:
    alone, together = trained(data, tmp_path / "one", 1), trained(data, tmp_path / "three", 3)
    for name, values in alone.items():
        torch.testing.assert_close(together[name], values)
    losses = [[line.get("loss") for line in read_log(tmp_path / name) if line["kind"] == "val"] for name in ("one", "three")]
    assert losses[0] == pytest.approx(losses[1])


def test_a_run_goes_on_with_another_number_of_processes(data: Path, tmp_path: Path) -> None:
    whole = trained(data, tmp_path / "whole", 1)
    trained(data, tmp_path / "cut", 2, steps=3)
    for name, values in trained(data, tmp_path / "cut", 1, resume=True).items():
        torch.testing.assert_close(values, whole[name])
