"""Talking takes made from one public-domain portrait, for tests of the loom that need a photographed face.

The portrait is the one that ships with scikit-image (NASA's of Eileen Collins). A held camera drifts, the head nods
and tilts within the picture, and jaw and lips open with a synthetic voice; so there is one true face, and sound that
goes with it, but no speech that anybody could understand.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import signal

from prep.write import Rate, frame_times, write_take

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]

RATES: tuple[Rate, ...] = (Fraction(25), Fraction(30000, 1001), Fraction(24000, 1001), "vfr")
"""Frame rates of successive takes."""

SIZES = ((640, 480), (512, 512), (480, 640))
"""Width and height in pixels of successive takes."""

FLASH_S = Fraction(8, 100)
"""How long each flash and each beep of ``flash_and_beep`` lasts."""

_SOUND_RATES = (48000, 44100)


class Person(NamedTuple):
    """How one of the "people" differs from the portrait; gains are for red, green and blue, pitch in Hz."""

    mirrored: bool
    width: float
    gains: tuple[float, float, float]
    gamma: float
    pitch: float


PEOPLE = (
    Person(False, 1.0, (1.0, 1.0, 1.0), 1.0, 190.0),
    Person(True, 1.04, (0.9, 0.97, 1.06), 1.12, 125.0),
    Person(False, 0.93, (1.05, 0.99, 0.88), 0.9, 225.0),
)


def make_takes(
    folder: Path, takes: int = 4, seed: int = 0, seconds: float = 4.0, size: tuple[int, int] | None = None
) -> list[Path]:
    """Write ``take00-person0.mp4``, ``take01-person1.mp4``, … into ``folder`` (made if need be); returns their paths.

    Each is ``seconds`` long, h264 and stereo AAC. Rates, sizes and people take turns (``RATES``, ``SIZES`` unless
    ``size`` says width and height, ``PEOPLE``); "vfr" means 30 frames a second of which about a fifth are missing,
    the others at their true times. The same arguments give the same bytes on one machine.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(takes):
        who = number % len(PEOPLE)
        path = folder / f"take{number:02d}-person{who}.mp4"
        rng = np.random.default_rng([seed, number])
        rate = _SOUND_RATES[number % len(_SOUND_RATES)]
        voice, openness = _speech(rng, seconds, rate, PEOPLE[who].pitch)
        times = frame_times(RATES[number % len(RATES)], seconds, rng)
        pictures = _talking(rng, PEOPLE[who], times, size or SIZES[number % len(SIZES)], openness)
        write_take(path, pictures, times, np.stack([voice, 0.9 * voice]), rate)
        paths.append(path)
    return paths


def flash_and_beep(
    path: Path, fps: Rate = Fraction(25), seconds: float = 5.0, size: tuple[int, int] = (512, 512), seed: int = 0
) -> tuple[Fraction, ...]:
    """Write a take for tests of synchrony; returns the times of its events, in seconds from the first frame.

    At each event the whole picture turns bright and, at the very sample, a beep of 1 kHz begins; both last
    ``FLASH_S``, and there is no other sound. Events are on the first frames at or after 0.5 s, 1.5 s, and so on.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    times = frame_times(fps, seconds, rng)
    wanted = [Fraction(2 * k + 1, 2) for k in range(int(seconds))]
    events = tuple(next(t for t in times if t >= w) for w in wanted if w + FLASH_S < times[-1])
    rate = 48000
    clock = np.arange(round(seconds * rate)) / rate
    sound = np.zeros_like(clock)
    for event in events:
        beep = (clock >= float(event)) & (clock < float(event + FLASH_S))
        sound[beep] = 0.5 * np.sin(2 * np.pi * 1000 * (clock[beep] - float(event)))
    pictures = _talking(rng, PEOPLE[0], times, size, lambda _: 0.0)
    lit = (any(e <= t < e + FLASH_S for e in events) for t in times)
    flashed = ((picture // 5 + 204) if on else picture for picture, on in zip(pictures, lit, strict=True))
    write_take(path, flashed, times, np.stack([sound, 0.9 * sound]), rate)
    return events


# --- voice


def _wander(rng: np.random.Generator, slowest: float, fastest: float, waves: int = 3) -> Callable[[float], float]:
    """A smooth random function of time in about [-1, 1], of ``waves`` sines between the two frequencies in Hz."""
    hertz = rng.uniform(slowest, fastest, waves)
    phase = rng.uniform(0, 2 * np.pi, waves)
    return lambda time: float(np.sin(2 * np.pi * hertz * time + phase).sum() / waves**0.5 / 1.2)


_VOWELS = np.array([[730, 1090, 2440], [530, 1840, 2480], [270, 2290, 3010], [570, 840, 2410], [300, 870, 2240]], float)
"""First three formants in Hz of the vowels in "father", "bed", "see", "law", "boot" (Peterson and Barney 1952, men)."""

_CONTROL_HZ = 200


def _speech(rng: np.random.Generator, seconds: float, rate: int, pitch: float) -> tuple[Floats, Callable[[float], float]]:
    """Speech-like sound (S,) in [-1, 1], and how far the mouth is open, 0 to 1, as a function of time in seconds.

    A voiced source whose pitch wanders, formants that glide from vowel to vowel, a burst of noise where a syllable
    starts with a consonant, about four syllables a second, and a pause every two seconds or so.
    """
    control = np.arange(int(seconds * _CONTROL_HZ) + 2) / _CONTROL_HZ
    loud, hiss = np.zeros_like(control), np.zeros_like(control)
    places, vowels = [0.0], [_VOWELS[0]]
    time, next_pause = rng.uniform(0.1, 0.3), rng.uniform(1.2, 2.0)
    while time < seconds:
        length = rng.uniform(0.14, 0.28)
        phase = (control - time) / length
        inside = (phase >= 0) & (phase <= 1)
        loud[inside] = rng.uniform(0.6, 1.0) * np.sin(np.pi * phase[inside] ** 0.7) ** 1.2
        if rng.random() < 0.5:
            hiss += rng.uniform(0.05, 0.2) * np.exp(-(((control - time) / 0.025) ** 2))
        places.append(time + length / 2)
        vowels.append(_VOWELS[rng.integers(len(_VOWELS))])
        time += length * rng.uniform(0.9, 1.15)
        if time > next_pause:
            time += rng.uniform(0.2, 0.5)
            next_pause = time + rng.uniform(1.2, 2.5)
    formants = np.stack([np.interp(control, places, column) for column in np.array(vowels).T], axis=1)
    wandering = _wander(rng, 0.3, 2.0)
    hertz = pitch * np.exp2(0.22 * np.array([wandering(t) for t in control]))
    clock = np.arange(round(seconds * rate)) / rate
    cycles = np.cumsum(np.interp(clock, control, hertz)) / rate
    harmonics = np.arange(1, int(5000 / pitch))[:, None]
    # Each formant is a resonance 90 Hz wide, on a source that falls by 12 dB for each octave.
    frequency = harmonics * hertz
    resonances = 1 / (1 + ((frequency[..., None] - formants) / 90) ** 2) @ np.array([1.0, 0.5, 0.25])
    gains = (resonances + 0.01) / (1 + (frequency / 200) ** 2)
    # Open vowels, those with a high first formant, are the loud ones.
    wide = loud * (0.35 + 0.65 * (formants[:, 0] - 270) / 460)
    gains *= wide / np.linalg.norm(gains, axis=0)
    voice = np.zeros_like(clock)
    for harmonic, gain in zip(harmonics[:, 0], gains, strict=True):
        voice += np.interp(clock, control, gain) * np.sin(2 * np.pi * harmonic * cycles)
    noise = signal.sosfilt(signal.butter(2, 3500, "highpass", fs=rate, output="sos"), rng.standard_normal(len(clock)))
    voice = 0.5 * voice / np.abs(voice).max() + 0.4 * np.interp(clock, control, hiss) * noise
    voice += 1e-3 * rng.standard_normal(len(clock))
    # Jaws are slower than voices.
    jaw = signal.sosfiltfilt(signal.butter(2, 7, fs=_CONTROL_HZ, output="sos"), wide)
    return np.clip(voice, -1, 1), lambda time: float(np.clip(np.interp(time, control, jaw), 0, 1))


# --- pictures


_OVERSAMPLED = 2
_MARGIN = 128
_HEAD = (224.0, 105.0)
_NECK = (224.0, 185.0)
_PATCH = (56, -80, 392, 290)
"""The part of the portrait that moves with the head, x0 y0 x1 y1 in its pixels; beyond its top it is mirrored."""
_MOUTH = (155, 125, 292, 212)
_JAW_DROP = 6.0


@lru_cache(maxsize=1)
def _portrait() -> NDArray[np.uint8]:
    """The portrait with mirrored margins, enlarged, RGB."""
    from skimage import data

    picture = np.asarray(data.astronaut(), np.uint8)
    framed = cv2.copyMakeBorder(picture, *(_MARGIN,) * 4, cv2.BORDER_REFLECT_101)
    return np.asarray(cv2.resize(framed, None, fx=_OVERSAMPLED, fy=_OVERSAMPLED, interpolation=cv2.INTER_CUBIC), np.uint8)


def _enlarged(x: float, y: float) -> tuple[float, float]:
    """Where a point of the portrait lies in ``_portrait``, in samples (whose centres are whole numbers)."""
    return (x + 0.5 + _MARGIN) * _OVERSAMPLED - 0.5, (y + 0.5 + _MARGIN) * _OVERSAMPLED - 0.5


@dataclass(frozen=True, slots=True)
class _Grid:
    """A rectangle of ``_portrait`` as slices, and the portrait's coordinates of its pixels."""

    rows: slice
    columns: slice
    x: Singles
    y: Singles

    @classmethod
    def of(cls, box: tuple[int, int, int, int]) -> _Grid:
        x0, y0, x1, y1 = ((edge + _MARGIN) * _OVERSAMPLED for edge in box)
        x, y = ((np.arange(a, b) + 0.5) / _OVERSAMPLED - 0.5 - _MARGIN for a, b in ((x0, x1), (y0, y1)))
        grid_x, grid_y = np.meshgrid(x.astype(np.float32), y.astype(np.float32))
        return cls(slice(y0, y1), slice(x0, x1), grid_x, grid_y)


def _talking(
    rng: np.random.Generator,
    person: Person,
    times: Sequence[Fraction],
    size: tuple[int, int],
    openness: Callable[[float], float],
) -> Iterator[NDArray[np.uint8]]:
    """RGB pictures (H, W, 3) of ``person`` at these times in seconds."""
    width, height = size
    still = _portrait()
    head, mouth = _Grid.of(_PATCH), _Grid.of(_MOUTH)
    # The head moves as one; around it the picture gives way smoothly, so that there is no seam.
    away = np.hypot((head.x - _HEAD[0]) / 95, (head.y - _HEAD[1]) / 105)
    weight = np.clip((1.75 - away) / 0.75, 0, 1)
    weight = weight * weight * (3 - 2 * weight)
    basis = np.stack([head.x, head.y, weight, weight * (head.x - _NECK[0]), weight * (head.y - _NECK[1])]).reshape(5, -1)
    inner = (
        slice(mouth.rows.start - head.rows.start, mouth.rows.stop - head.rows.start),
        slice(mouth.columns.start - head.columns.start, mouth.columns.stop - head.columns.start),
    )
    across, down, tilt, nearer = (_wander(rng, 0.15, 0.7) for _ in range(4))
    pan, rise, roll, zoom = (_wander(rng, 0.05, 0.25) for _ in range(4))
    visible = rng.uniform(275, 310)
    tones = np.linspace(0, 1, 256) ** person.gamma * 255
    table = np.clip(np.rint(np.outer(tones, person.gains)), 0, 255).astype(np.uint8)[None]
    canvas = still.copy()
    for exact in times:
        time = float(exact)
        # For each place of the patch, where the picture that is shown there comes from: turned about the neck
        # and shifted by (dx, dy) where the weight is 1, itself where it is 0.
        angle, size_change = math.radians(5.0 * tilt(time)), 0.025 * nearer(time)
        cosine, sine = math.cos(angle) * (1 - size_change), math.sin(angle) * (1 - size_change)
        dx, dy = 5 * across(time), 3 * down(time)
        along_x = [1, 0, -cosine * dx - sine * dy, cosine - 1, sine]
        along_y = [0, 1, sine * dx - cosine * dy, -sine, cosine - 1]
        turn = np.array([along_x, along_y], np.float32)
        # Not @: BLAS would keep all cores busy over so small a product.
        from_x, from_y = np.einsum("ij,jk->ik", turn, basis).reshape(2, *weight.shape)
        from_y[inner], hollow = _open_mouth(from_x[inner], from_y[inner], _JAW_DROP * openness(time))
        patch = cv2.remap(
            still,
            (from_x + (0.5 + _MARGIN)) * _OVERSAMPLED - 0.5,
            (from_y + (0.5 + _MARGIN)) * _OVERSAMPLED - 0.5,
            cv2.INTER_LINEAR,
        )
        patch[inner] = patch[inner] * (1 - hollow[..., None]) + hollow[..., None] * np.array([62, 24, 26])
        canvas[head.rows, head.columns] = patch
        scale = height / visible * (1 + 0.03 * zoom(time)) / _OVERSAMPLED
        centre = _enlarged(_HEAD[0] + 6 * pan(time), visible / 2 + 4 + 4 * rise(time))
        camera = cv2.getRotationMatrix2D(centre, 1.5 * roll(time), scale)
        camera[:, 2] += (width / 2 - centre[0], height / 2 - centre[1])
        camera[0] = person.width * camera[0] + (0, 0, (1 - person.width) * width / 2)
        shown = cv2.warpAffine(canvas, camera, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
        yield np.asarray(cv2.LUT(shown[:, ::-1] if person.mirrored else shown, table), np.uint8)


def _open_mouth(x: Singles, y: Singles, drop: float) -> tuple[Singles, Singles]:
    """Let the jaw down by ``drop`` portrait pixels: new rows to take pixels from, and where the mouth is hollow (0 to 1).

    The mouth of the portrait smiles and shows the upper teeth; their lower edge, a parabola, is where it opens.
    """
    bend = ((x - 223.5) / 19) ** 2
    edge = 149.0 - 6.0 * np.minimum(bend, 2)
    gap = drop * np.clip(1 - bend, 0, None)
    below = y - edge - gap
    jaw = drop * np.exp(-(((x - 223.5) / 38) ** 2)) * np.clip((205 - y) / 26, 0, 1)
    blend = np.clip(below / 10, 0, 1)
    shift = gap + (jaw - gap) * blend * blend * (3 - 2 * blend)
    hollow = (np.clip(y - edge, 0, 1) * np.clip(-below, 0, 1)).astype(np.float32)
    return np.where(below > 0, y - shift, np.minimum(y, edge)).astype(np.float32), hollow
