"""How a person moves while speaking, besides the mouth: head, gaze, lids, brows and breath."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from fitting.studio.articulation import RATE
from fitting.studio.controls import EXPRESSIONS
from fitting.studio.speaker import Speaker
from fitting.studio.speech import Speech

Floats = NDArray[np.float64]

_CLOSING, _SHUT, _OPENING = 0.090, 0.050, 0.170
"""Seconds of a blink's parts. It is shut for longer than a frame of 25 a second."""

_COMPENSATION = 0.75
"""Share of the head's rotation that the eyes undo to stay with what they look at."""


def head_rotation(speaker: Speaker, speech: Speech, times: Floats, rng: np.random.Generator) -> Floats:
    """(N, 3) axis-angle vectors: posture, restless movement and nods on stressed syllables."""
    restless = _noise(len(times), speaker.head_tempo, 3, rng) * speaker.head_motion * np.array(speaker.head_axes)
    nods = np.zeros((len(times), 3))
    for time, strength in speech.accents:
        size = speaker.nod * strength**1.5 * rng.uniform(0.4, 1.0)
        # Down on the vowel, with a smaller rise before it and after it.
        since = (times - time) / 0.11
        nods[:, 0] += size * (1 - 0.5 * since**2) * np.exp(-0.5 * since**2)
        nods[:, 2] += 0.25 * size * rng.uniform(-1, 1) * np.exp(-0.5 * since**2)
    return np.asarray(np.array(speaker.posture) + restless + nods)


def translation(speaker: Speaker, times: Floats, rng: np.random.Generator) -> Floats:
    """(N, 3) metres: sway in proportion to the head's restlessness, and breathing."""
    sway = _noise(len(times), 0.5 * speaker.head_tempo, 3, rng) * (0.08 * speaker.head_motion) * np.array([1, 0.5, 1])
    breath = np.sin(2 * np.pi * (rng.uniform(0.22, 0.32) * times + rng.random()))
    return np.asarray(sway + 0.0006 * breath[:, None] * np.array([0, 1, 0.4]))


def gaze(speaker: Speaker, rotation: Floats, times: Floats, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Rotation (N, 3) of the eyes in the head, and the times of large saccades: fixations about the camera, which the eyes
    keep to while the head turns by ``rotation`` (N, 3)."""
    end = times[-1]
    starts = np.cumsum(rng.gamma(2.0, 0.45, int(4 * end) + 8))
    starts = starts[starts < end]
    # Four of ten fixations are on the camera itself.
    places = rng.standard_normal((len(starts) + 1, 2)) * speaker.wandering * np.array([0.6, 1.0])
    places = np.clip(places, -0.3, 0.3) * (rng.random(len(places)) < 0.6)[:, None]
    steps = np.diff(places, axis=0)
    sizes = np.linalg.norm(steps, axis=1)
    lasting = 0.021 + 0.126 * sizes  # seconds; 2.2 ms a degree (Carpenter 1988)
    looking = np.zeros((len(times), 3))
    looking[:, :2] = places[0]
    for start, step, length in zip(starts, steps, lasting, strict=True):
        looking[:, :2] += _ease((times - start) / length)[:, None] * step
    steady = np.clip(looking - _COMPENSATION * rotation * np.array([1, 1, 0]), -0.35, 0.35)
    return steady, starts[sizes > 0.10]


def lids(speaker: Speaker, speech: Speech, looking: Floats, saccades: Floats, times: Floats, rng: np.random.Generator) -> Floats:
    """Activations (N, 26) of the lids: blinks, of which some go with large ``saccades`` and with the ends of phrases, drooping,
    and the lids that follow a gaze ``looking`` (N, 3) up and down."""
    shut = np.zeros(len(times))
    for time in blink_times(speaker, speech, saccades, float(times[-1]), rng):
        since = times - time
        shut = np.maximum(shut, _ease(since / _CLOSING) * (1 - _ease((since - _CLOSING - _SHUT) / _OPENING)))
    activations = np.zeros((len(times), len(EXPRESSIONS)))
    # Positive x looks down.
    upward, downward = np.maximum(-looking[:, 0], 0), np.maximum(looking[:, 0], 0)
    hanging = speaker.droop + 0.9 * downward
    activations[:, EXPRESSIONS.index("blink_left")] = shut + (1 - shut) * hanging
    activations[:, EXPRESSIONS.index("blink_right")] = shut + (1 - shut) * hanging
    activations[:, EXPRESSIONS.index("lids_wide")] = np.minimum(2.0 * upward, 0.8) * (1 - shut)
    activations[:, EXPRESSIONS.index("squint")] = 0.35 * speaker.smile * (1 - shut)
    return activations


def blink_times(speaker: Speaker, speech: Speech, saccades: Floats, end: float, rng: np.random.Generator) -> Floats:
    """When blinks begin, in order: intervals are log-normal, and a blink waits for the end of a phrase or a saccade nearby."""
    mean = 60 / speaker.blink_rate
    spread = 0.6
    gaps = mean * np.exp(spread * rng.standard_normal(int(3 * end / mean) + 20) - spread**2 / 2)
    gaps[0] *= rng.random()
    planned = np.cumsum(gaps)
    planned = planned[planned < end - 0.1]
    occasions = np.sort(np.concatenate([[phrase[1] for phrase in speech.phrases], saccades]))
    if len(occasions) and len(planned):
        nearest = occasions[np.abs(planned[:, None] - occasions).argmin(axis=1)]
        taken = (np.abs(nearest - planned) < 0.6) & (rng.random(len(planned)) < 0.7)
        planned = np.unique(np.where(taken, nearest + 0.02, planned))
    # The lids open before they shut again.
    apart = np.concatenate([[True], np.diff(planned) > 0.4])[: len(planned)]
    return np.asarray(np.maximum(planned[apart & (planned < end - 0.1)], 0))


def brows(speaker: Speaker, speech: Speech, times: Floats, rng: np.random.Generator) -> Floats:
    """Activations (N, 26): brows raised on some stressed words, and a little movement of brows, nose and corners at all times."""
    raised = np.zeros((len(times), 2))
    for time, strength in speech.accents:
        if rng.random() < 0.2 + speaker.brow * strength:
            size = speaker.brow * strength * rng.uniform(0.5, 1.2)
            shape = _ease((times - time + 0.22) / 0.24) * (1 - _ease((times - time - rng.uniform(0.05, 0.25)) / 0.35))
            raised = np.maximum(raised, size * shape[:, None] * rng.uniform(0.8, 1.0, 2))
    small = np.abs(_noise(len(times), 0.7, 4, rng)) * 0.03
    found = np.zeros((len(times), len(EXPRESSIONS)))
    for name, track in (
        ("brow_outer_up_left", raised[:, 0]),
        ("brow_outer_up_right", raised[:, 1]),
        ("brow_inner_up", 0.8 * raised.mean(axis=1) + small[:, 0]),
        ("brow_down", small[:, 1] * (1 - raised.mean(axis=1))),
        ("nose_wrinkle", small[:, 2]),
        ("frown", small[:, 3]),
    ):
        found[:, EXPRESSIONS.index(name)] = gaussian_filter1d(track, 0.03 * RATE, mode="nearest")
    return np.clip(found, 0, 1)


def _ease(share: Floats) -> Floats:
    """0 before 0, 1 after 1, with no jump in speed (a cubic)."""
    clipped = np.clip(share, 0, 1)
    return np.asarray(clipped**2 * (3 - 2 * clipped))


def _noise(count: int, corner: float, columns: int, rng: np.random.Generator) -> Floats:
    """(N, columns) noise of variance 1 whose spectrum is flat from 0.12 Hz to ``corner`` and falls by 18 dB an octave above it.

    It is drawn for a longer time and cut out, so that its ends are not alike.
    """
    size = 2 ** int(np.ceil(np.log2(count + 10 * RATE)))
    hertz = np.fft.rfftfreq(size, 1 / RATE)
    shape = (hertz / 0.12) ** 2 / (1 + (hertz / 0.12) ** 2) / (1 + (hertz / corner) ** 2) ** 1.5
    shape /= np.sqrt(2 * np.sum(shape**2) / size)
    spectrum = np.fft.rfft(rng.standard_normal((size, columns)), axis=0) * shape[:, None]
    return np.asarray(np.fft.irfft(spectrum, size, axis=0)[:count])
