"""FaceTalk's data path on a studio capture: from sixteen cameras to NPHM codes, as a user would run it."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from manifests.dataset import DatasetManifest
from manifests.reader import Dataset
from tests.conftest import HEADLOOM, Headloom, environment, facetalk_settings


@pytest.fixture
def models(facetalk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADLOOM_MODELS", str(facetalk / "models"))


def refitted(facetalk: Path, headloom: Headloom, out: Path, **settings: object) -> Path:
    """Build once more, from what the first build stored as far as it is the same."""
    changes = facetalk_settings(facetalk, store=facetalk / "data" / ".store", **settings)
    headloom("build", "facetalk_nphm", *changes, "--out", str(out), "--workers", "1")
    return out


def test_all_families_are_there_and_whole(facetalk: Path, headloom: Headloom) -> None:
    manifest = DatasetManifest.load(facetalk / "data" / "dataset.json")
    assert manifest.families == ["clips", "audio", "landmarks", "flame", "nphm", "meshes", "cloud"]
    assert manifest.clips == 1
    assert manifest.contains_stand_ins
    headloom("verify", str(facetalk / "data"))


def test_the_nphm_surface_lies_on_the_cloud(facetalk: Path) -> None:
    clip = Dataset(facetalk / "data").clips.to_pylist()[0]
    assert clip["nphm_error_mm"] < 1.0
    assert clip["nphm_inlier_share"] > 0.9
    assert clip["landmark_share"] > 0.9
    codes = Dataset(facetalk / "data").read(0, "nphm_expression")["nphm_expression"]
    assert codes.shape == (clip["n_frames"], 200)
    assert np.isfinite(codes).all()


def test_the_given_identity_code_is_in_the_dataset(facetalk: Path) -> None:
    dataset = Dataset(facetalk / "data")
    clip = dataset.clips.to_pylist()[0]
    assert clip["nphm_identity_given"] == 1
    given = np.load(facetalk / "rig" / "identities" / "000.npy")
    np.testing.assert_array_equal(dataset.read(0, "nphm_identity")["nphm_identity"], given)


def test_the_identity_of_a_person_without_a_code_is_fitted(
    facetalk: Path, headloom: Headloom, models: None, tmp_path: Path
) -> None:
    quick = {"stages__identity__frames": 2, "stages__identity__iterations": 60, "stages__identity__points": 300}
    out = refitted(facetalk, headloom, tmp_path / "data", stages__identity__identities="null", **quick)
    clip = Dataset(out).clips.to_pylist()[0]
    known = Dataset(facetalk / "data").clips.to_pylist()[0]
    assert clip["nphm_identity_given"] == 0
    assert clip["nphm_identity_error_mm"] < 1.1 * known["nphm_identity_error_mm"]
    assert clip["nphm_error_mm"] < 1.1 * known["nphm_error_mm"]


def test_a_person_without_an_identity_code_is_set_aside_where_that_is_wanted(
    facetalk: Path, headloom: Headloom, models: None, tmp_path: Path
) -> None:
    (tmp_path / "none").mkdir()
    strict = {"stages__identity__identities": tmp_path / "none", "stages__identity__missing": "reject"}
    out = refitted(facetalk, headloom, tmp_path / "data", **strict)
    refused = DatasetManifest.load(out / "dataset.json").quarantine.read(out)
    assert [(entry.stage, entry.reason) for entry in refused] == [("identity", "no identity code of the person")]


def test_limits_flag_a_bad_fit_without_fitting_again(facetalk: Path, headloom: Headloom, models: None, tmp_path: Path) -> None:
    out = refitted(facetalk, headloom, tmp_path / "data", limits__nphm_error_mm__max=0.001)
    refused = DatasetManifest.load(out / "dataset.json").quarantine.read(out)
    assert [(entry.stage, entry.score_name) for entry in refused] == [("nphm", "nphm_error_mm")]


def test_killed_in_the_middle_of_the_windows_it_goes_on_to_the_same_bytes(
    facetalk: Path, headloom: Headloom, models: None, tmp_path: Path
) -> None:
    slow = facetalk_settings(
        facetalk, store=tmp_path / "store", stages__nphm__method="adam", stages__nphm__iterations=40, stages__nphm__window=3
    )
    shutil.copytree(facetalk / "data" / ".store", tmp_path / "store")
    shutil.copytree(facetalk / "data" / ".store", tmp_path / "other")
    command = [*HEADLOOM, "build", "facetalk_nphm", *slow, "--out", str(tmp_path / "killed"), "--workers", "1"]
    running = subprocess.Popen(command, env=environment(), start_new_session=True, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 120
    while not list((tmp_path / "store").glob("partial/**/window*")):
        assert running.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < end
        time.sleep(0.02)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    kept = list((tmp_path / "store").glob("partial/**/window*"))
    assert kept
    headloom("build", "facetalk_nphm", *slow, "--out", str(tmp_path / "killed"), "--workers", "1")
    slow[slow.index(f"store={tmp_path / 'store'}")] = f"store={tmp_path / 'other'}"
    headloom("build", "facetalk_nphm", *slow, "--out", str(tmp_path / "whole"), "--workers", "1")
    codes = [Dataset(tmp_path / name).read(0, "nphm_expression")["nphm_expression"] for name in ("killed", "whole")]
    np.testing.assert_array_equal(*codes)
    files = [
        [file.sha256 for part in Dataset(tmp_path / name).manifest.parts for file in part.files.values()]
        for name in ("killed", "whole")
    ]
    assert files[0] == files[1]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ray_makes_the_same_dataset(facetalk: Path, headloom: Headloom, models: None, tmp_path: Path) -> None:
    settings = facetalk_settings(facetalk, store=tmp_path / "store")
    headloom("build", "facetalk_nphm", *settings, "--out", str(tmp_path / "data"), "--runner", "ray", "--workers", "1")
    assert DatasetManifest.load(tmp_path / "data" / "dataset.json").digest == Dataset(facetalk / "data").manifest.digest
