"""``headloom studio``: takes that can be built at once, and a line for what it cannot record."""

from pathlib import Path

import numpy as np
import pytest

from manifests.source import SourceManifest
from tests.conftest import Headloom


def test_takes_come_with_a_source_manifest_that_can_be_built(tmp_path: Path, headloom: Headloom) -> None:
    folder = tmp_path / "captures"
    headloom("studio", str(folder), "--takes", "2", "--people", "2", "--seconds", "2.4", "--seed", "5")
    manifest = SourceManifest.load(folder / "source.yaml")
    items = manifest.items(folder)
    assert [item.person for item in items] == ["person000", "person001"]
    assert all(item.stand_in for item in items)
    out = tmp_path / "data"
    headloom("build", "talking_clips", "--set", f"source={folder / 'source.yaml'}", "--out", str(out), "--strict")
    assert "contains stand-ins" in (out / "report.html").read_text() if (out / "report.html").exists() else True


def test_sixteen_cameras_are_laid_out_as_nersemble_does(tmp_path: Path, headloom: Headloom) -> None:
    headloom(
        *("studio", str(tmp_path), "--takes", "1", "--cameras", "16", "--layout", "nersemble"),
        *("--seconds", "0.2", "--size", "66x96"),
    )
    assert len(list((tmp_path / "000" / "sequences" / "SEN-01-studio" / "images").glob("cam_*.mp4"))) == 16


def test_noise_and_loudness_are_as_asked(tmp_path: Path, headloom: Headloom) -> None:
    options = ("--takes", "1", "--people", "1", "--seconds", "1", "--size", "64x64")
    headloom("studio", str(tmp_path / "loud"), *options)
    headloom("studio", str(tmp_path / "low"), *options, "--gain", "0.1")
    loud, low = (np.load(tmp_path / name / "person000" / "take00.truth.npz")["sound_clean"] for name in ("loud", "low"))
    np.testing.assert_allclose(low, 0.1 * loud, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--cameras", "16"), "16 with --layout nersemble or nersemble-v1"),
        (("--cameras", "2"), "--cameras 2 --layout plain: one camera is recorded with --layout plain"),
        (("--layout", "nersemble"), "one camera is recorded with --layout plain"),
        (("--size", "300"), "--size 300: a size is WIDTHxHEIGHT in pixels, as in 256x256"),
        (("--size", "129x128"), "129x128 cannot be encoded: give even sizes from 64 on"),
        (("--seconds", "0"), "a take of 0.0 s is too short"),
        (("--gain", "3"), "a gain of 3.0"),
    ],
)
def test_what_cannot_be_recorded_is_refused_in_one_line(
    options: tuple[str, ...], says: str, tmp_path: Path, headloom: Headloom
) -> None:
    done = headloom("studio", str(tmp_path / "captures"), *options, check=False)
    assert done.returncode == 2
    assert says in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "captures").exists()
