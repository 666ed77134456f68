"""Data of codes: from the studio's folders to a dataset, out of it again, and in once more, as a user would run it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from manifests.dataset import DatasetManifest
from manifests.pickles import load_pickle
from manifests.reader import Dataset
from manifests.source import SourceManifest
from prep.codes import EXPRESSIONS, IDENTITY, SOUND
from tests.conftest import Headloom
from tests.prep.test_speech import write_checkpoint


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, headloom: Headloom) -> Path:
    """A folder with ``studio``, two takes by two people, and ``codes``, the dataset of it."""
    folder = tmp_path_factory.mktemp("codes")
    options = ("--layout", "facetalk", "--takes", "2", "--people", "2", "--seconds", "2")
    headloom("studio", str(folder / "studio"), *options, "--workers", "1")
    build(headloom, folder / "studio" / "source.yaml", folder / "codes")
    return folder


def build(headloom: Headloom, source: Path, out: Path, *settings: str) -> Dataset:
    changes = [part for setting in (f"source={source}", *settings) for part in ("--set", setting)]
    headloom("build", "facetalk_codes", *changes, "--out", str(out), "--workers", "1")
    return Dataset(out)


def by_source(dataset: Dataset) -> dict[str, str]:
    """Clips by the names of their folders."""
    return {Path(clip["source_uri"]).name: clip["clip_id"] for clip in dataset.clips.to_pylist()}


def true_codes(folder: Path) -> np.ndarray:
    return np.stack([np.load(path)["expression"] for path in sorted((folder / EXPRESSIONS).iterdir())])


def test_the_dataset_has_the_true_codes(data: Path) -> None:
    dataset = Dataset(data / "codes")
    assert len(dataset) == 2
    for name, clip in by_source(dataset).items():
        folder = data / "studio" / name
        held = dataset.read(clip, "nphm_expression", "nphm_identity", "wave", "mel")
        np.testing.assert_array_equal(held["nphm_expression"], true_codes(folder))
        np.testing.assert_array_equal(held["nphm_identity"], np.load(folder / IDENTITY)["identity"])
        np.testing.assert_array_equal(held["wave"], soundfile.read(folder / SOUND, dtype="int16")[0])
        assert held["mel"].shape == (80, 161)


def test_people_and_stand_ins_are_known(data: Path, headloom: Headloom) -> None:
    clips = Dataset(data / "codes").clips.to_pylist()
    assert {clip["person"] for clip in clips} == {"000", "001"}
    assert all(clip["stand_in"] and clip["n_frames"] == 48 for clip in clips)
    headloom("verify", str(data / "codes"))


def test_what_is_exported_is_read_again_as_the_same_codes(data: Path, headloom: Headloom, tmp_path: Path) -> None:
    said = headloom("export", str(data / "codes"), "--format", "facetalk-npz", "--out", str(tmp_path / "out")).stderr
    assert "wave2vec_audio_feats.pkl is left out" in said
    assert "cleaned_audio.wav is the sound as it was given" in said
    headloom("scan", str(tmp_path / "out"), "--layout", "facetalk", "-o", str(tmp_path / "again.yaml"))
    first, again = Dataset(data / "codes"), build(headloom, tmp_path / "again.yaml", tmp_path / "again")
    assert set(by_source(again)) == {"000_SEN-01-studio", "001_SEN-01-studio"}
    for name, clip in by_source(again).items():
        names = ("nphm_expression", "nphm_identity", "wave", "person", "stand_in", "fps_num", "fps_den")
        was, now = first.read(by_source(first)[name], *names), again.read(clip, *names)
        for column in names:
            np.testing.assert_array_equal(now[column], was[column])


def test_features_of_speech_are_built_and_exported(data: Path, headloom: Headloom, tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "tiny")
    settings = (
        f"stages.wav2vec.checkpoint={checkpoint}",
        "families=[clips, audio, nphm, speech]",
        f"store={data / 'codes/.store'}",
    )
    dataset = build(headloom, data / "studio" / "source.yaml", tmp_path / "data", *settings)
    features = dataset.read(0, "wav2vec")["wav2vec"]
    assert features.shape == (48, 768)
    assert len({tuple(row) for row in features}) == 48
    said = headloom("export", str(tmp_path / "data"), "--format", "facetalk-npz", "--out", str(tmp_path / "out")).stderr
    assert "wave2vec" not in said
    for name, clip in by_source(dataset).items():
        exported = load_pickle(tmp_path / "out" / name / "audio" / "wave2vec_audio_feats.pkl")
        np.testing.assert_array_equal(exported, dataset.read(clip, "wav2vec")["wav2vec"])


def test_a_folder_that_has_changed_since_it_was_scanned_is_set_aside(data: Path, headloom: Headloom, tmp_path: Path) -> None:
    shutil.copytree(data / "studio", tmp_path / "studio")
    (tmp_path / "studio" / "001_SEN-01-studio" / EXPRESSIONS / "frame_00007.npz").unlink()
    dataset = build(headloom, tmp_path / "studio" / "source.yaml", tmp_path / "data")
    assert set(by_source(dataset)) == {"000_SEN-01-studio"}
    (refused,) = DatasetManifest.load(tmp_path / "data" / "dataset.json").quarantine.read(tmp_path / "data")
    assert "has changed since it was scanned" in refused.message


def test_faults_are_set_aside_with_their_reasons(data: Path, headloom: Headloom, tmp_path: Path) -> None:
    shutil.copytree(data / "studio", tmp_path / "studio")
    (tmp_path / "studio" / "000_SEN-01-studio" / IDENTITY).unlink()
    (tmp_path / "studio" / "001_SEN-01-studio" / EXPRESSIONS / "frame_00007.npz").unlink()
    headloom("scan", str(tmp_path / "studio"), "--layout", "facetalk", "-o", str(tmp_path / "codes.yaml"))
    build(headloom, tmp_path / "codes.yaml", tmp_path / "data")
    refused = DatasetManifest.load(tmp_path / "data" / "dataset.json").quarantine.read(tmp_path / "data")
    assert {(entry.stage, entry.reason) for entry in refused} == {
        ("codes", "frames are missing"),
        ("codes_identity", "no identity code"),
    }


def test_pictures_are_not_asked_of_a_layout_that_has_none(headloom: Headloom, tmp_path: Path) -> None:
    refused = headloom("studio", str(tmp_path), "--layout", "facetalk", "--cameras", "16", check=False)
    assert refused.returncode == 2
    assert "--cameras 16 --layout facetalk" in refused.stderr


def test_the_source_of_the_studio_lists_folders_of_codes(data: Path) -> None:
    items = SourceManifest.load(data / "studio" / "source.yaml").items(data / "studio")
    assert [(item.layout, item.person, item.stand_in) for item in items] == [("facetalk", "000", True), ("facetalk", "001", True)]
    assert json.loads((data / "studio" / items[0].uri / "headloom.json").read_text())["fps"] == [24, 1]
