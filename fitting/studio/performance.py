"""One take of a person who speaks: the sound, and the movement that belongs to it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

from fitting.studio.articulation import RATE, articulate
from fitting.studio.controls import EXPRESSIONS, Controls
from fitting.studio.motion import brows, gaze, head_rotation, lids, translation
from fitting.studio.speaker import Speaker
from fitting.studio.speech import Phone, say
from fitting.studio.voice import at_rate, levelled, voice

Floats = NDArray[np.float64]


class Performance(NamedTuple):
    """Sound and movement of one take."""

    sound: NDArray[np.float32]
    """(S,) in [-1, 1], what a microphone hears."""
    clean: NDArray[np.float32]
    """(S,) the voice in it alone."""
    sample_rate: int
    phonemes: list[Phone]
    """They follow each other without gaps from 0 to the end; silence is ``sil``."""
    movement: PchipInterpolator
    """All controls in a row as functions of time in seconds: monotone cubics between moments 5 ms apart (Fritsch and Carlson
    1980), so that nothing overshoots."""

    def at(self, times: NDArray[np.floating]) -> Controls:
        """The controls at ``times`` (T,) in seconds, in any order; before the start and after the end everything stands still."""
        ends = self.movement.x[[0, -1]]
        rows: Floats = self.movement(np.clip(np.asarray(times, np.float64), *ends))
        expression, jaw, neck, head, moved, looking = np.split(rows, len(EXPRESSIONS) + np.arange(0, 15, 3), axis=-1)
        return Controls(expression, jaw, neck, head, moved, looking)


def perform(
    speaker: Speaker,
    seconds: float,
    seed: int | Sequence[int],
    *,
    sample_rate: int = 48_000,
    noise_db: float | None = None,
    gain: float = 1.0,
) -> Performance:
    """What ``speaker`` says and does in a take of ``seconds``; another ``seed`` is another sentence in the same style.

    The sound is the voice times ``gain``, and noise so that the voice is ``noise_db`` decibels above it (mean powers of the whole
    take; half of the noise is white and half pink); where the sum would clip, both are made smaller. The same arguments give the
    same bytes; movement and words do not depend on the sample rate, the noise or the gain. Raises ``ValueError`` for less
    than 0.01 s, for a gain that is not positive and finite, and for a sample rate below 8000 Hz.
    """
    if not (math.isfinite(seconds) and seconds >= 0.01):
        raise ValueError(f"a take of {seconds} s cannot be performed: give at least 0.01 s")
    if not (math.isfinite(gain) and gain > 0):
        raise ValueError(f"gain is {gain}: give a positive number")
    if sample_rate < 8000:
        raise ValueError(f"sample_rate is {sample_rate} Hz: give at least 8000")
    numbers = np.atleast_1d(seed).tolist()
    words, throat, mouth, body, microphone = (np.random.default_rng([*numbers, part]) for part in range(5))
    speech = say(speaker, seconds, words)
    jaw, activations, openness = articulate(speaker, speech, mouth)
    voiced = at_rate(levelled(voice(speaker, speech, openness, throat)), sample_rate, round(seconds * sample_rate))
    clean = gain * voiced
    sound = clean if noise_db is None else clean + _noise(clean, noise_db, sample_rate, microphone)
    loudest = max(float(np.abs(sound).max(initial=0)), float(np.abs(clean).max(initial=0)), 1.0)
    times = np.arange(len(jaw)) / RATE
    rotation = head_rotation(speaker, speech, times, body)
    looking, saccades = gaze(speaker, rotation, times, body)
    activations = activations + lids(speaker, speech, looking, saccades, times, body) + brows(speaker, speech, times, body)
    jaw_rotation = np.stack([jaw, 0 * jaw, 0 * jaw], axis=1)
    rows = np.concatenate(
        [
            np.clip(activations, 0, 1),
            jaw_rotation,
            speaker.neck_share * rotation,
            (1 - speaker.neck_share) * rotation,
            translation(speaker, times, body),
            looking,
        ],
        axis=1,
    )
    return Performance(
        sound=(sound / loudest).astype(np.float32),
        clean=(clean / loudest).astype(np.float32),
        sample_rate=sample_rate,
        phonemes=speech.phones,
        movement=PchipInterpolator(times, rows),
    )


def _noise(clean: Floats, decibels: float, sample_rate: int, rng: np.random.Generator) -> Floats:
    """Noise (S,) so that ``clean`` (S,) is ``decibels`` above it: half of its power white and half pink from 30 Hz on."""
    white = rng.standard_normal(len(clean))
    hertz = np.fft.rfftfreq(len(clean), 1 / sample_rate)
    pink = np.fft.irfft(np.fft.rfft(rng.standard_normal(len(clean))) / np.sqrt(np.maximum(hertz, 30.0)), len(clean))
    noise = white / white.std() + pink / pink.std()
    power = np.mean(clean**2) / 10 ** (decibels / 10)
    return np.asarray(noise * np.sqrt(power / np.mean(noise**2)))
