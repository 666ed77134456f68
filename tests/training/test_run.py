"""What is wrong with a manifest is said before step 0, in one line that tells the mend."""

from pathlib import Path
from typing import Any

import pytest

from manifests.document import ManifestError
from manifests.training import RUN_MANIFEST
from tests.manifests.datasets import clip, write_clips
from tests.training.toy import manifest, write_data
from training.run import begin, train


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("toy"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": "Nobody"}, "module:class"),
        ({"settings": {"widht": 3}}, "settings of the model .*unknown key 'widht'; did you mean 'width'"),
        ({"settings": {"width": 0}}, "'width': Input should be greater than or equal to 1"),
        ({"filter": {"sharpness": {"min": 1e9}}}, "no clip is left by the filter on sharpness; it has"),
        ({"filter": {"sharpnes": {"min": 0}}}, "did you mean 'sharpness'"),
        ({"settings": {"length": 10_000}}, "longer than every clip"),
        ({"filter": {"mel": {"min": 0}}}, "a filter is on a number of the clip index, mel is none"),
        ({"filter": {"person": {"min": 0}}}, "person is none"),
        ({"filter": {"start_us": {"max": 0}}}, "the filter leaves no clip of the . people of this part"),
        ({"model": "Toy:x"}, "module:class"),
        ({"model": "ToySettings"}, "is no subclass of"),
        ({"out": "s3://bucket/run"}, "a run's folder is a local one"),
        ({"window": {"length": 4}}, r"window: length of the model .* follow from its settings: length=3 .*; change those"),
        ({"split": {"train": 0, "val": 1}}, "of 3 people none is in the part train"),
        ({"launch": {"workers": 7, "device": "cpu"}}, "cannot be shared by launch.workers=7: make it larger"),
    ],
)
def test_a_bad_manifest_is_refused(data: Path, tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ManifestError, match=said) as caught:
        begin(manifest(data, **{"out": tmp_path / "run", **changes}))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_an_unknown_model_is_refused(data: Path, tmp_path: Path) -> None:
    asked = manifest(data, tmp_path / "run").model_copy(update={"model": "facetolk"})
    with pytest.raises(ManifestError, match="did you mean 'facetalk'"):
        begin(asked)


def test_a_dataset_of_another_digest_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="the manifest asks for 000000000000; build that one again"):
        begin(manifest(data, tmp_path / "run", datasets=[{"path": str(data), "digest": "0" * 64}]))
    with pytest.raises(ManifestError, match=r"has no dataset\.json"):
        begin(manifest(tmp_path, tmp_path / "run"))


def test_the_folder_keeps_the_manifest_with_places_and_digests(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(data.parent)
    run = begin(manifest(Path(data.name), Path("runs/toy")))
    assert run.folder == data.parent / "runs" / "toy"
    again = type(run.manifest).load(run.folder / RUN_MANIFEST)
    assert again.datasets[0].path == str(data)
    assert again.datasets[0].digest
    assert begin(again).manifest.content() == run.manifest.content()


def test_somebody_in_two_datasets_is_in_one_part(tmp_path: Path) -> None:
    folders = [write_data(tmp_path / name) for name in ("one", "two")]
    run = begin(manifest(folders[0], tmp_path / "run", datasets=[{"path": str(folder)} for folder in folders]))
    seen = [{person for part in run.data(name).samples for person in part.people} for name in ("train", "val")]
    assert seen[0]
    assert seen[1]
    assert not seen[0] & seen[1]


def test_a_dataset_without_people_of_a_part_has_none_of_it(tmp_path: Path) -> None:
    folder = write_data(tmp_path / "one")
    write_clips(tmp_path / "two", [clip(0) | {"person": "a"}])
    run = begin(manifest(folder, tmp_path / "run", datasets=[{"path": str(folder)}, {"path": str(tmp_path / "two")}]))
    assert sorted(len(run.data(part).samples) for part in ("train", "val")) == [1, 2]


def test_a_windows_stride_is_the_manifests(data: Path, tmp_path: Path) -> None:
    runs = [begin(manifest(data, tmp_path / f"{stride}", window={"length": 3, "stride": stride})) for stride in (1, 2)]
    assert len(runs[1].data("train")) < len(runs[0].data("train"))


def test_a_run_that_died_before_its_first_checkpoint_is_not_taken_over(data: Path, tmp_path: Path) -> None:
    run = begin(manifest(data, tmp_path / "run"))
    (run.folder / "log.jsonl").write_text('{"step": 1, "kind": "train", "loss": 1}\n')
    with pytest.raises(ManifestError, match="holds a run already"):
        begin(manifest(data, tmp_path / "run", seed=5))
    with pytest.raises(ManifestError, match="seed is 0, now 5"):
        begin(manifest(data, tmp_path / "run", seed=5), resume=True)
    assert begin(manifest(data, tmp_path / "run"), resume=True).manifest.seed == 0


def test_a_link_to_nothing_is_said(data: Path, tmp_path: Path) -> None:
    run = begin(manifest(data, tmp_path / "run"))
    (run.folder / "last").symlink_to("checkpoints/step-00000009")
    with pytest.raises(ManifestError, match="points at nothing; let it point at a folder of"):
        begin(manifest(data, tmp_path / "run"), resume=True)


def test_two_processes_do_not_train_in_one_folder(data: Path, tmp_path: Path) -> None:
    run = begin(manifest(data, tmp_path / "run"))

    def meddle(step: int, steps: int, figures: dict[str, float]) -> None:
        with pytest.raises(ManifestError, match="another process trains there"):
            train(run, meddle)

    train(run, meddle)


def test_a_dataset_may_have_moved_meanwhile(tmp_path: Path) -> None:
    run = begin(manifest(write_data(tmp_path / "here"), tmp_path / "run"))
    train(run, lambda *_: None)
    (tmp_path / "here").rename(tmp_path / "there")
    assert begin(manifest(tmp_path / "there", tmp_path / "run"), resume=True).folder == run.folder
