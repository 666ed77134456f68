"""Captures become clips at a constant rate, by timestamps."""

import shutil
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


def copied(second: Path, to: Path) -> Path:
    return Path(shutil.copytree(second.parents[1], to / "017")) / "sequences" / second.name


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


def test_frames_of_which_no_camera_has_a_picture_are_none(second: Path, tmp_path: Path) -> None:
    path = copied(second, tmp_path)
    for picture in path.glob("frame_0000[03]/*/*.png"):
        picture.unlink()
    outcome = CaptureClips().run(take(path))
    assert isinstance(outcome, Done)
    assert outcome.clips is not None
    (clip,) = outcome.clips
    assert clip["start_us"] == open_capture(path).times_us[2]
    assert clip["frame_number"][0] == 2
    for frame in path.glob("frame_*/*/*.png"):
        frame.unlink()
    assert CaptureClips().run(take(path)) == Rejected("no camera has a picture")


def test_pictures_that_are_missing_for_long_are_no_clip(second: Path, tmp_path: Path) -> None:
    path = copied(second, tmp_path)
    for number in (30, 33, 36, 39):
        shutil.rmtree(path / f"frame_{number:05d}")
    outcome = CaptureClips().run(take(path))
    assert isinstance(outcome, Rejected)
    assert outcome.reason == "pictures are missing for too long"
    assert (outcome.score, outcome.threshold) == (pytest.approx(15 / 73, abs=1e-5), 0.2)
    assert isinstance(CaptureClips(max_gap_s=0.21).run(take(path)), Done)
    assert isinstance(CaptureClips(max_frames=8).run(take(path)), Done), "the gap comes later"


def test_which_cameras_are_there_is_known_without_reading_pictures(second: Path, tmp_path: Path) -> None:
    path = copied(second, tmp_path)
    (path / "frame_00003" / "images-2x-73fps" / f"cam_{RIG.serials[5]}.png").unlink()
    (path / "frame_00006" / "images-2x-73fps" / f"cam_{RIG.serials[0]}.png").write_bytes(b"not a picture")
    present = open_capture(path).present([0, 1, 2])
    assert present.shape == (3, 16)
    assert present[:, [0, 5]].tolist() == [[True, True], [True, False], [True, True]]
    assert present.sum() == 5
    mixed = open_capture(plain(tmp_path / "mine"))
    (tmp_path / "mine" / "left" / "002.png").unlink()
    assert mixed.present([0, 2]).tolist() == [[True, True, True], [False, True, True]]
    assert [moment.present.tolist() for moment in mixed.moments([0, 2])] == mixed.present([0, 2]).tolist()


def test_what_is_too_short_or_no_capture_is_rejected(tmp_path: Path) -> None:
    folder = plain(tmp_path / "mine", fps=25)
    assert CaptureClips(min_frames=4).run(take(folder, "plain")) == Rejected("too short", 2.0, 4.0)
    assert CaptureClips().run(take(folder, "")) == Rejected("no capture by several cameras")
