"""Datasets in the layouts of other programs."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import trimesh

from fitting.nphm.compose import LOWER, UPPER
from manifests.document import ManifestError
from manifests.reader import Dataset
from pipelines.export import export
from tests.conftest import Headloom


def silent(line: str) -> None:
    pass


@pytest.fixture(autouse=True)
def models(facetalk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADLOOM_MODELS", str(facetalk / "models"))


@pytest.fixture(scope="module")
def exported(facetalk: Path, headloom: Headloom, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exported")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADLOOM_MODELS", str(facetalk / "models"))
        headloom("export", str(facetalk / "data"), "--format", "facetalk-npz", "--out", str(out))
    return out / "000_SEN-01-studio"


def test_facetalks_folders_hold_the_codes_of_all_frames(facetalk: Path, exported: Path) -> None:
    held = Dataset(facetalk / "data").read(0, "nphm_expression", "nphm_identity", "world_to_nphm")
    paths = sorted((exported / "nphm_tracking" / "nphm_expressions").iterdir())
    assert [path.name for path in paths] == [f"frame_{frame:05d}.npz" for frame in range(len(held["nphm_expression"]))]
    for frame, path in enumerate(paths):
        with np.load(path) as archive:
            np.testing.assert_array_equal(archive["expression"], held["nphm_expression"][frame])
            np.testing.assert_array_equal(archive["world_to_nphm"], held["world_to_nphm"][frame])
            assert archive["time_s"] == pytest.approx(frame / 24)
    with np.load(exported / "nphm_tracking" / "nphm_identity.npz") as archive:
        np.testing.assert_array_equal(archive["identity"], held["nphm_identity"])


def test_meshes_of_nphm_are_in_nphms_space(exported: Path) -> None:
    paths = sorted((exported / "nphm_tracking" / "nphm_meshes").iterdir())
    assert paths
    for path in paths:
        mesh = trimesh.load(io.BytesIO(path.read_bytes()), file_type="ply", process=False)
        assert len(mesh.faces) > 1000
        assert (mesh.vertices >= np.array(LOWER) - 0.01).all()
        assert (mesh.vertices <= np.array(UPPER) + 0.01).all()


def test_flame_is_exported_without_head_motion(facetalk: Path, exported: Path) -> None:
    folder = exported / "flame_2023_tracking"
    template = trimesh.load(io.BytesIO((folder / "flame_2023_template.ply").read_bytes()), file_type="ply", process=False)
    frames = [trimesh.load(path, process=False) for path in sorted((folder / "flame_meshes").iterdir())]
    moved = np.stack([mesh.vertices - template.vertices for mesh in frames])
    assert np.abs(moved).max() < 0.04
    assert np.abs(moved).max() > 0.0005


def test_the_sound_is_as_long_as_the_clip(facetalk: Path, exported: Path) -> None:
    wave, rate = soundfile.read(exported / "audio" / "cleaned_audio.wav", dtype="int16")
    assert rate == 16000
    np.testing.assert_array_equal(wave, Dataset(facetalk / "data").read(0, "wave_clean")["wave_clean"])


def test_every_folder_says_where_it_comes_from(facetalk: Path, exported: Path) -> None:
    origin = json.loads((exported / "headloom.json").read_text())
    dataset = Dataset(facetalk / "data")
    assert origin["dataset"]["digest"] == dataset.manifest.digest
    assert origin["stand_in"] is True
    assert {"flame2020", "nphm-identity", "nphm-backward"} <= set(origin["models"])


def test_what_the_dataset_lacks_is_said(facetalk: Path, tmp_path: Path) -> None:
    said: list[str] = []
    assert export(facetalk / "data", "facetalk-npz", tmp_path, said.append) == 1
    assert any("wave2vec_audio_feats.pkl" in line for line in said)


def test_an_export_goes_on_where_it_was_ended(facetalk: Path, tmp_path: Path) -> None:
    half = tmp_path / "000_SEN-01-studio.headloom-unfinished"
    half.mkdir()
    (half / "rubbish").write_text("")
    for _ in range(2):
        export(facetalk / "data", "facetalk-npz", tmp_path, silent)
    assert [path.name for path in tmp_path.iterdir()] == ["000_SEN-01-studio"]
    assert not (tmp_path / "000_SEN-01-studio" / "rubbish").exists()


def test_what_is_there_of_another_dataset_stays(facetalk: Path, exported: Path, tmp_path: Path) -> None:
    shutil.copytree(exported, tmp_path / exported.name)
    path = tmp_path / exported.name / "headloom.json"
    path.write_text(path.read_text().replace(Dataset(facetalk / "data").manifest.digest, "0" * 64))
    with pytest.raises(ManifestError, match="is not this dataset's"):
        export(facetalk / "data", "facetalk-npz", tmp_path, silent)


def test_codes_are_exported_only_with_the_flame_that_they_are_for(
    facetalk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(facetalk / "models", tmp_path / "models")
    (tmp_path / "models" / "generic_model.pkl").write_bytes(b"another")
    monkeypatch.setenv("HEADLOOM_MODELS", str(tmp_path / "models"))
    with pytest.raises(ManifestError, match="is not the FLAME"):
        export(facetalk / "data", "facetalk-npz", tmp_path / "out", silent)


def test_identities_are_those_that_the_stage_reads(facetalk: Path, headloom: Headloom, tmp_path: Path) -> None:
    headloom("export", str(facetalk / "data"), "--format", "nphm-identities", "--out", str(tmp_path))
    code = np.load(tmp_path / "000.npy")
    np.testing.assert_array_equal(code, Dataset(facetalk / "data").read(0, "nphm_identity")["nphm_identity"])
    np.save(tmp_path / "000.npy", code + 1)
    refused = headloom("export", str(facetalk / "data"), "--format", "nphm-identities", "--out", str(tmp_path), check=False)
    assert refused.returncode == 2
    assert "another code is there already" in refused.stderr


def test_a_dataset_without_codes_is_refused(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="nphm_expression"):
        export(dataset, "facetalk-npz", tmp_path, silent)
