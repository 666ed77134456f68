"""Picture and sound stay together: flashes and beeps that were simultaneous are so after resampling to 25 fps."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from manifests.stage import Done, Outcome, Take
from prep.crop import Crop
from prep.cut import Cut
from prep.encode import decode_mp4
from prep.faces import Faces
from prep.sound import Sound
from tests.portrait import Rate, flash_and_beep

LIMIT_S = 0.020


def columns(outcome: Outcome) -> dict:
    assert isinstance(outcome, Done), outcome
    return dict(outcome.columns)


def onsets(signal: np.ndarray, rate: float, apart_s: float = 0.5) -> list[float]:
    """Times at which a signal rises over half of its range, those that follow within ``apart_s`` left out."""
    high = signal > (signal.min() + signal.max()) / 2
    rises = np.flatnonzero(high & ~np.r_[False, high[:-1]]) / rate
    return [t for n, t in enumerate(rises) if n == 0 or t - rises[n - 1] > apart_s]


@pytest.mark.parametrize("fps", [Fraction(25), Fraction(30000, 1001), Fraction(60), Fraction(24000, 1001), "vfr"], ids=str)
def test_flash_and_beep_stay_within_20_ms_over_the_whole_length(tmp_path: Path, fps: Rate) -> None:
    events = flash_and_beep(tmp_path / "flash.mp4", fps, seconds=10.0, size=(320, 240))
    assert len(events) >= 9
    take = Take(take_id=f"flash {fps}", path=str(tmp_path / "flash.mp4"), sound_path=str(tmp_path / "flash.mp4"), duration_s=10.0)
    seen = columns(Faces().run(take=take)) | {"take": take, "take_id": take.take_id}
    # The flashes are hard cuts to white and back; one shot and one box make one clip of the whole take.
    frames = len(seen["take_pts_us"])
    seen["take_shot"] = np.zeros(frames, np.int32)
    seen["take_face_box"] = np.tile(np.float32([80, 40, 240, 200]), (frames, 1))
    cut = Cut().run(**{name: seen[name] for name in Cut.reads()})
    assert isinstance(cut, Done)
    (clip,) = cut.clips or ()
    given = dict(clip) | {"take": take}
    video = columns(Crop().run(**{name: given[name] for name in Crop.reads()}))["video256"]
    wave = columns(Sound().run(**{name: given[name] for name in Sound.reads()}))["wave"]
    assert len(wave) == clip["n_frames"] * 640
    flashes = onsets(decode_mp4(video).mean(axis=(1, 2, 3)), 25)
    envelope = np.abs(wave.astype(float)).reshape(-1, 16).max(axis=1)
    beeps = onsets(envelope, 1000)
    assert len(flashes) == len(beeps) == len(events)
    apart = np.subtract(flashes, beeps)
    assert np.abs(apart).max() <= LIMIT_S + 0.001, apart
    # And no drift: the first half is as well in sync as the second.
    assert abs(apart[: len(apart) // 2].mean() - apart[len(apart) // 2 :].mean()) < LIMIT_S
    assert np.abs(np.subtract(beeps, [float(e) - clip["start_us"] / 1e6 for e in events])).max() < 0.003


def test_what_a_frame_shows_is_never_far_from_its_time(tmp_path: Path) -> None:
    flash_and_beep(tmp_path / "v.mp4", "vfr", seconds=4.0, size=(320, 240))
    take = Take(take_id="v", path=str(tmp_path / "v.mp4"), sound_path=str(tmp_path / "v.mp4"), duration_s=4.0)
    seen = columns(Faces().run(take=take))
    times = np.sort(seen["take_pts_us"])
    assert np.diff(times).max() > 60_000, "the rate really varies"
