"""What is wrong with a manifest is said before step 0, in one line that tells the mend."""

from pathlib import Path
from typing import Any

import pytest

from manifests.document import ManifestError
from tests.manifests.datasets import clip, write_clips
from tests.training.toy import manifest, write_data
from training.run import MANIFEST, begin


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
        ({"window": {"length": 10_000}}, "longer than every clip"),
        ({"window": {"length": 3, "context": (1, 0)}}, r"window.context: .* reads \(0, 0\) frames beside one; leave"),
        ({"split": {"train": 0, "val": 1}}, "of 3 people none is in the part train"),
        ({"launch": {"workers": 7, "device": "cpu"}}, "cannot be shared by launch.workers=7: make it larger"),
    ],
)
def test_a_bad_manifest_is_refused(data: Path, tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ManifestError, match=said) as caught:
        begin(manifest(data, tmp_path / "run", **changes))
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
    again = type(run.manifest).load(run.folder / MANIFEST)
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
