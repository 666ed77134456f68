"""Takes made from a portrait: what tests of the loom run on."""

from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from manifests.source import STAND_IN
from prep.probe import probe
from prep.sound import decode_sound
from prep.video import Video
from tests.portrait import FLASH_S, RATES, SIZES, flash_and_beep, make_takes

SECONDS = 2.0


@pytest.fixture(scope="module")
def takes(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return make_takes(tmp_path_factory.mktemp("portrait") / "takes", takes=4, seconds=SECONDS)


def faces_in(grey: np.ndarray) -> np.ndarray:
    cascade = cv2.CascadeClassifier(cv2.data.haarcascades + "haarcascade_frontalface_alt2.xml")
    return np.asarray(cascade.detectMultiScale(grey, 1.15, 3, minSize=(90, 90))).reshape(-1, 4)


def greys(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="gray") for frame in container.decode(video=0)]


def test_takes_differ_in_rate_and_size_and_say_so(takes: list[Path]) -> None:
    assert len(takes) == len(list(takes[0].parent.iterdir())) == 4
    for number, path in enumerate(takes):
        facts = probe(str(path))
        assert facts.video
        assert facts.audio
        assert (facts.video.width, facts.video.height) == SIZES[number % len(SIZES)]
        assert facts.video.codec == "h264"
        assert facts.video.variable_rate == (RATES[number] == "vfr")
        if RATES[number] != "vfr":
            assert facts.video.fps == pytest.approx(float(RATES[number]), abs=1e-3)
        assert facts.video.duration_s == pytest.approx(SECONDS, abs=0.05)
        assert (facts.audio.codec, facts.audio.channels) == ("aac", 2)
        assert facts.audio.duration_s == pytest.approx(SECONDS, abs=0.05)
        assert facts.audio.offset_ms == 0
    assert {probe(str(path)).audio.rate for path in takes} == {44100, 48000}


def test_a_variable_rate_leaves_frames_out_and_the_others_at_their_times(takes: list[Path]) -> None:
    times = np.array([picture.pts_us for picture in Video(str(takes[3]))])
    slots = np.rint(times * 30e-6)
    np.testing.assert_allclose(times, slots / 30e-6, atol=1)
    assert slots[0] == 0
    assert slots[-1] == 30 * SECONDS - 1
    assert set(np.diff(slots)) > {1.0}


def test_one_face_is_found_in_nearly_every_frame(takes: list[Path]) -> None:
    found = [len(faces_in(grey)) for path in takes for grey in greys(path)[::5]]
    assert np.mean(np.array(found) == 1) >= 0.95


def test_the_head_moves(takes: list[Path]) -> None:
    for path in takes[:2]:
        boxes = [box for grey in greys(path)[::8] for box in faces_in(grey)]
        assert np.ptp(boxes, axis=0)[:2].max() > 5


def test_the_mouth_opens_with_the_voice(takes: list[Path]) -> None:
    """Inside of the mouth is the darkest that there is in the lower half of a face."""
    opened, heard = [], []
    for path in takes[1:3]:
        dark, loud = [], []
        track = decode_sound(str(path))
        for picture in Video(str(path)):
            boxes = faces_in(np.ascontiguousarray(picture.planes[0]))
            if len(boxes) == 1:
                x, y, w, h = boxes[0]
                mouth = picture.planes[0][y + h * 7 // 10 : y + h * 19 // 20, x + w * 35 // 100 : x + w * 65 // 100]
                dark.append(np.mean(mouth < 70))
                loud.append(np.sqrt(np.mean(track.cut(picture.pts_us - 40_000, 1280) ** 2)))
        opened += list((dark - np.mean(dark)) / np.std(dark))
        heard += list((loud - np.mean(loud)) / np.std(loud))
    assert np.corrcoef(opened, heard)[0, 1] > 0.5


def test_the_sound_is_loud_enough_and_has_pauses(takes: list[Path]) -> None:
    for path in takes:
        wave = decode_sound(str(path)).wave()
        levels = np.sqrt(np.mean(wave[: len(wave) // 800 * 800].reshape(-1, 800) ** 2, axis=1))
        assert 0.3 < np.abs(wave).max() < 1
        assert levels.min() < 0.02 * levels.max()


def test_takes_are_marked_as_stand_ins(takes: list[Path]) -> None:
    for path in takes:
        with av.open(str(path)) as container:
            assert container.metadata["comment"] == STAND_IN


def test_the_same_seed_gives_the_same_bytes_and_another_seed_another_take(tmp_path: Path) -> None:
    made = [make_takes(tmp_path / str(k), 1, seed, 0.5, (160, 120))[0].read_bytes() for k, seed in enumerate([0, 0, 1])]
    assert made[0] == made[1] != made[2]


@pytest.mark.parametrize("fps", [Fraction(25), Fraction(30000, 1001), "vfr"])
def test_flashes_and_beeps_begin_at_the_times_returned(tmp_path: Path, fps: Fraction | str) -> None:
    path = tmp_path / "sync.mp4"
    events = flash_and_beep(path, fps, seconds=3.0, size=(160, 160))
    assert len(events) == 3
    pictures = [(picture.pts_us, float(picture.planes[0].mean())) for picture in Video(str(path))]
    rises = [time for (_, before), (time, after) in pairwise(pictures) if after - before > 40]
    assert rises == [round(event * 1_000_000) for event in events]
    track = decode_sound(str(path))
    loud = np.flatnonzero(np.abs(track.wave()) > 0.1) / 16000 + track.start_us / 1e6
    for event in events:
        during = loud[(loud > event - Fraction(1, 5)) & (loud < event + Fraction(1, 5))]
        assert during[0] == pytest.approx(float(event), abs=0.001)
        assert during[-1] == pytest.approx(float(event + FLASH_S), abs=0.002)
