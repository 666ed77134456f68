"""Captures become clips at a constant rate, by timestamps."""

from pathlib import Path

import numpy as np
import pytest

from fitting.studio.nersemble import View, begin_sequence, frame_numbers, write_camera
from fitting.studio.rig import sixteen
from manifests.stage import Done, Rejected, Take
from prep.capture import open_capture
from prep.capture_clips import CaptureClips
from tests.prep.test_capture import SOUND, plain

RIG = sixteen()


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second of tiny pictures from two of the sixteen cameras; the others have none."""
    folder = tmp_path_factory.mktemp("second")
    home = begin_sequence(folder, 3, "SEN-01-test", RIG, SOUND, 48_000, "v1")
    numbers = frame_numbers(1.0)
    for camera in (0, 5):
        views = (View(np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.float32)) for _ in numbers)
        write_camera(home, "SEN-01-test", RIG, camera, numbers, views, np.zeros((4, 4, 3), np.uint8), "v1")
    return home / "sequences" / "SEN-01-test"


def take(path: Path, layout: str = "nersemble-v1") -> Take:
    return Take(open_capture(path).digest() if layout else "0" * 64, str(path), str(path / "audio.wav"), 1.0, layout)


def test_24_frames_a_second_show_the_nearest_of_73_thirds(second: Path) -> None:
    outcome = CaptureClips().run(take(second))
    assert isinstance(outcome, Done)
    assert outcome.clips is not None
    (clip,) = outcome.clips
    assert (clip["n_frames"], clip["fps_num"], clip["fps_den"], clip["start_us"]) == (24, 24, 1, 0)
    wanted = np.arange(24) / 24
    shown = clip["frame_pts_us"] / 1e6
    assert np.abs(shown - wanted).max() <= 0.5 / 24 + 1e-6
    np.testing.assert_allclose(shown, 3 * clip["frame_number"] / 73, atol=1e-6)


def test_missing_cameras_are_counted(second: Path) -> None:
    outcome = CaptureClips().run(take(second))
    assert isinstance(outcome, Done)
    assert outcome.clips is not None
    assert outcome.clips[0]["n_cameras"] == 2
    assert outcome.clips[0]["camera_share"] == pytest.approx(2 / 16)


def test_what_is_too_short_or_no_capture_is_rejected(tmp_path: Path) -> None:
    folder = plain(tmp_path / "mine", fps=25)
    assert CaptureClips(min_frames=4).run(take(folder, "plain")) == Rejected("too short", 2.0, 4.0)
    assert CaptureClips().run(take(folder, "")) == Rejected("no capture by several cameras")
