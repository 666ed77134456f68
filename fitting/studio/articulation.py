"""How the jaw and the lips move for speech: coarticulation by dominance functions (Cohen and Massaro 1993).

Every sound has targets and a dominance over each articulator that rises before it and falls after it; the track is the mean of
all targets weighted by dominance. Lips lead the sound, rounding most (Öhman 1967; Perkell and Matthies 1992).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from fitting.studio.controls import EXPRESSIONS
from fitting.studio.phonemes import PHONEMES, Mouth
from fitting.studio.speaker import Speaker
from fitting.studio.speech import Speech

Floats = NDArray[np.float64]

RATE = 200
"""Hz of the tracks; nothing in them is faster than some 15 Hz."""

JAW_IN_SPEECH = 0.165
"""Radians of the jaw at the target of an open vowel by an average speaker; neighbours keep it from getting there."""

_JAW_OPENS, _LIPS_PART = 0.078, 0.0054
"""Metres between the lips for a radian of the jaw, and for ``lips_part`` of 1, on a mean head."""

_REACH = 0.6
"""Seconds from a sound beyond which it has no influence."""

# Seconds by which each articulator leads, and how fast its dominance rises before a sound and falls after it, per second.
_LEAD = Mouth(jaw=0.055, part=0.065, round=0.110, funnel=0.090, spread=0.080, lower_lip_in=0.050)
_RISE = Mouth(jaw=17, part=17, round=9, funnel=11, spread=14, lower_lip_in=24)
_FALL = Mouth(jaw=16, part=16, round=16, funnel=18, spread=18, lower_lip_in=28)
_TURN = 0.6
"""Share of a diphthong after which the mouth aims at its end."""

_SMOOTH = 0.018
"""Seconds; standard deviation of the smoothing of all tracks."""

_SHUTTING, _OPENING = 0.085, 0.075
"""Seconds in which the lips close before p, b and m, and open after."""


class Articulation(NamedTuple):
    """What the mouth does at N moments, ``RATE`` a second from 0 on."""

    jaw: Floats
    """(N,) radians."""
    activations: Floats
    """(N, 26) of the lips, the chin and the cheeks."""
    openness: Floats
    """(N,) how far the mouth is open; 1 is the target of an open vowel by this speaker."""


def articulate(speaker: Speaker, speech: Speech, rng: np.random.Generator) -> Articulation:
    """How ``speaker`` moves the mouth for ``speech``."""
    count = int(np.ceil(speech.phones[-1].end * RATE)) + 2
    times = np.arange(count) / RATE
    sizes = _stress_sizes(speech)
    tracks = {name: _blend(speech, times, name, sizes) for name in Mouth._fields}
    shut = closures(speech, times)
    size = speaker.articulation
    # Closed lips leave little of all that would part them.
    jaw = JAW_IN_SPEECH * size * tracks["jaw"] * (1 - shut)
    lips = np.zeros((count, len(EXPRESSIONS)))

    def move(name: str, track: Floats) -> None:
        lips[:, EXPRESSIONS.index(name)] += track

    part = min(size, 1.2) * tracks["part"] * (1 - shut)
    rounding = np.clip(0.55 + 0.45 * size, 0, 1.2) * speaker.rounding
    move("lips_part", part)
    move("lips_press", 0.55 * shut)
    move("lips_round", np.minimum(0.85 * rounding * tracks["round"], 1) * (1 - 0.6 * shut))
    move("lips_funnel", np.minimum(0.85 * rounding * tracks["funnel"], 1) * (1 - shut))
    move("lips_spread", np.minimum(0.85 * size * tracks["spread"], 1) * (1 - 0.3 * shut))
    move("lower_lip_in", tracks["lower_lip_in"] * (1 - shut))
    move("chin_raise", 0.25 * shut + 0.10 * tracks["lower_lip_in"])
    move("dimple", 0.15 * shut)
    move("cheek_puff", 0.15 * shut)
    # Teeth show: the lower ones in spread sounds, the upper ones in funnelled ones and those of the lower lip.
    move("lower_lip_down", 0.25 * size * tracks["spread"] * (1 - shut))
    move("upper_lip_raise", (0.15 * tracks["funnel"] + 0.20 * tracks["lower_lip_in"]) * (1 - shut))
    move("mouth_left" if speaker.asymmetry > 0 else "mouth_right", abs(speaker.asymmetry) * np.minimum(jaw / JAW_IN_SPEECH, 1))
    # A smile fades while the lips are rounded, and is not the same on both sides.
    smile = speaker.smile * (1 - 0.6 * np.maximum(tracks["round"], tracks["funnel"])) * (1 + 0.15 * _drift(count, rng))
    tilt = 0.3 * speaker.asymmetry
    move("smile_left", smile * (1 + tilt))
    move("smile_right", smile * (1 - tilt))
    move("cheek_raise", 0.4 * smile)
    widest = PHONEMES["aa"].mouth
    widest_opening = _JAW_OPENS * JAW_IN_SPEECH * size * widest.jaw + _LIPS_PART * min(size, 1.2) * widest.part
    return Articulation(jaw, lips, (_JAW_OPENS * jaw + _LIPS_PART * part) / widest_opening)


def closures(speech: Speech, times: Floats) -> Floats:
    """(N,) 1 while the lips are shut for p, b or m, 0 away from it, smooth between."""
    total = np.zeros(len(times))
    for phone in speech.phones:
        sound = PHONEMES[phone.symbol]
        if not sound.lips_shut:
            continue
        begin, end = phone.start - 0.005, phone.start + sound.closure * (phone.end - phone.start)
        first, last = np.searchsorted(times, [begin - _SHUTTING, end + _OPENING])
        near = times[first:last]
        ramp = np.minimum((near - begin) / _SHUTTING, (end - near) / _OPENING) + 1
        bump = 0.5 - 0.5 * np.cos(np.pi * np.clip(ramp, 0, 1))
        total[first:last] = np.maximum(total[first:last], bump)
    # Where one closure's end meets the beginning of the next, the maximum has an edge.
    return np.asarray(gaussian_filter1d(total, 0.008 * RATE, mode="nearest"))


def _blend(speech: Speech, times: Floats, name: str, sizes: Floats) -> Floats:
    """(N,) one articulator's track: targets weighted by dominance, in windows about the sounds so that long takes stay cheap."""
    lead, rise, fall = (getattr(table, name) for table in (_LEAD, _RISE, _FALL))
    kind = {"jaw": "grip_jaw", "part": "grip_lips", "lower_lip_in": "grip_lips"}.get(name, "grip_shape")
    aims = []
    for phone, size in zip(speech.phones, sizes if name in ("jaw", "part") else np.ones(len(sizes)), strict=True):
        sound, (start, end) = PHONEMES[phone.symbol], (phone.start - lead, phone.end - lead)
        turn = start + _TURN * (end - start) if sound.kind == "diphthong" else end
        grip = getattr(sound, kind)
        aims.append((start, turn, size * getattr(sound.mouth, name), grip))
        if turn < end:
            aims.append((turn, end, size * getattr(sound.mouth_end, name), grip))
    above, below = np.zeros(len(times)), np.full(len(times), 1e-9)
    for start, end, target, grip in aims:
        first, last = np.searchsorted(times, [start - _REACH, end + _REACH])
        # Dominance is full in the middle of a short sound, and of a long silence all through but for its ends.
        core = min(0.5 * (end - start), 0.12)
        distance = np.maximum(start + core - times[first:last], 0) * rise + np.maximum(times[first:last] - end + core, 0) * fall
        dominance = grip * np.exp(-distance)
        above[first:last] += dominance * target
        below[first:last] += dominance
    return np.asarray(gaussian_filter1d(above / below, _SMOOTH * RATE, mode="nearest"))


def _stress_sizes(speech: Speech) -> Floats:
    """(P,) stressed sounds are larger."""
    strengths = np.full(len(speech.phones), 0.88)
    starts = np.array([phone.start for phone in speech.phones])
    for time, strength in speech.accents:
        strengths[np.searchsorted(starts, time) - 1] = 0.95 + 0.25 * strength
    return strengths


def _drift(count: int, rng: np.random.Generator) -> Floats:
    """(N,) slow noise of standard deviation about 1."""
    return np.asarray(
        gaussian_filter1d(rng.standard_normal(count), 0.5 * RATE, mode="reflect") * np.sqrt(2 * np.sqrt(np.pi) * 0.5 * RATE)
    )
