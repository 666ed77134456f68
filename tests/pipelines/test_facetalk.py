"""FaceTalk's data path on a studio capture: from sixteen cameras to NPHM codes, as a user would run it."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fitting.flame import Flame, load_regions
from fitting.rotations import axis_angle_to_matrix
from fitting.studio.controls import Controls
from fitting.studio.family import HeadFamily
from fitting.studio.models import write_models
from fitting.studio.nphm_file import nphm_identity
from fitting.studio.people import person
from manifests.assets import find
from manifests.dataset import DatasetManifest
from manifests.reader import Dataset
from tests.conftest import Headloom


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, headloom: Headloom) -> Path:
    folder = tmp_path_factory.mktemp("facetalk")
    models, identities = folder / "models", folder / "identities"
    write_models(models)
    identities.mkdir()
    np.save(identities / "000.npy", nphm_identity(person(0, 1).identity).astype(np.float32))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADLOOM_MODELS", str(models))
        options = ("--takes", "1", "--people", "1", "--cameras", "16", "--layout", "nersemble-v1", "--seconds", "0.2")
        headloom("studio", str(folder / "rig"), *options, "--size", "198x290", "--seed", "1")
        settings = {
            "source": folder / "rig" / "source.yaml",
            "stages.clouds.points": 8000,
            "stages.landmarks.noise_px": 0.3,
            "stages.nphm.identities": identities,
            "stages.nphm.points": 500,
            "stages.nphm.window": 4,
        }
        changes = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
        headloom("build", "facetalk_nphm", *changes, "--out", str(folder / "data"), "--workers", "1")
    return folder


@pytest.fixture
def models(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADLOOM_MODELS", str(built / "models"))


def truth(built: Path) -> dict:
    return dict(np.load(built / "rig" / "000" / "sequences" / "SEN-01-studio.truth.npz"))


def test_all_families_are_there_and_whole(built: Path, headloom: Headloom) -> None:
    manifest = DatasetManifest.load(built / "data" / "dataset.json")
    assert manifest.families == ["clips", "audio", "landmarks", "flame", "nphm", "cloud"]
    assert manifest.clips == 1
    assert manifest.contains_stand_ins
    headloom("verify", str(built / "data"))


def test_flame_lies_on_the_true_face(built: Path, models: None) -> None:
    dataset = Dataset(built / "data")
    scale = dataset.clips.to_pylist()[0]["flame_scale"]
    held = dataset.read(0, "flame_identity", "flame_expression", "flame_jaw", "flame_rotation", "flame_translation")
    tensors = {name: torch.from_numpy(np.array(column)) for name, column in held.items()}
    flame = Flame.load(find("flame2020"))
    rest = flame(tensors["flame_identity"][None], tensors["flame_expression"], jaw=tensors["flame_jaw"]).vertices
    rotation = axis_angle_to_matrix(tensors["flame_rotation"])
    fitted = scale * (rest @ rotation.mT) + tensors["flame_translation"][:, None]
    known = truth(built)
    controls = Controls(*(known[name] for name in ("activations", "jaw", "neck", "head", "translation", "gaze")))
    true = HeadFamily("medium").vertices(known["identity"], controls)[: len(fitted)]
    face = load_regions(find("flame-masks"))["face"]
    assert 1000 * float((fitted - true).norm(dim=-1)[:, face].mean()) < 0.7


def test_the_nphm_surface_lies_on_the_cloud(built: Path) -> None:
    clip = Dataset(built / "data").clips.to_pylist()[0]
    assert clip["nphm_error_mm"] < 1.0
    assert clip["landmark_share"] > 0.9
    codes = Dataset(built / "data").read(0, "nphm_expression")["nphm_expression"]
    assert codes.shape == (clip["n_frames"], 200)
    assert np.isfinite(codes).all()


def test_a_person_without_an_identity_code_is_set_aside(built: Path, headloom: Headloom, models: None, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    out = tmp_path / "data"
    settings = {
        "source": built / "rig" / "source.yaml",
        "stages.clouds.points": 8000,
        "stages.landmarks.noise_px": 0.3,
        "stages.nphm.identities": tmp_path / "none",
        "store": built / "data" / ".store",
    }
    changes = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
    headloom("build", "facetalk_nphm", *changes, "--out", str(out), "--workers", "1")
    refused = DatasetManifest.load(out / "dataset.json").quarantine.read(out)
    assert [(entry.stage, entry.reason) for entry in refused] == [("nphm", "no identity code of the person")]
