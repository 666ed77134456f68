"""The one place that answers: when is frame k, and which samples, which mel frames belong to it?

All of it is exact: frame rates are rationals (25/1, 30000/1001), positions are computed in integers, so that an hour
of frames lands where a second does. A clip's clock starts at its frame 0; ``start_us`` moves it to the take's clock.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

SAMPLE_RATE = 16000
"""Samples per second of every wave after decoding."""

MEL_RATE = 80
"""Mel frames per second: a hop of 200 samples at 16 kHz."""

MEL_WINDOW = 16
"""Mel frames that Wav2Lip's and SadTalker's audio encoders see at once, 0.2 s."""

Edge = Literal["clamp", "drop"]
Integers = NDArray[np.int64]


class WindowRule(NamedTuple):
    """How a published code base places windows.

    The window of frame f starts at feature frame int(rate * (f + shift) / fps), where int() truncates towards zero.
    ``edge`` says what becomes of a window that leaves the features: ``clamp`` repeats the first or last of them,
    ``drop`` does without the window.
    """

    shift: int
    edge: Edge


RULES: dict[str, WindowRule] = {
    "syncnet": WindowRule(0, "drop"),
    "wav2lip_train": WindowRule(-1, "drop"),
    "wav2lip_sample": WindowRule(0, "clamp"),
    "sadtalker": WindowRule(-2, "clamp"),
}
"""The rules in use. ``syncnet``: the sync expert and the sync window in Wav2Lip's training. ``wav2lip_train``: the
per-frame audio in Wav2Lip's training. ``wav2lip_sample``: Wav2Lip's inference, which hears 40 ms later than training
did; it stops at the first frame whose window leaves the mel, here that frame and those after it repeat the last mel
frame. ``sadtalker``: ExpNet and PoseVAE."""


def frame_time_us(frames: ArrayLike, fps_num: int, fps_den: int, start_us: int = 0) -> Integers:
    """Times (...,) in µs of ``frames`` (...,), to the nearest µs, where frame 0 is at ``start_us``."""
    return start_us + _nearest(_integers(frames) * (1_000_000 * fps_den), fps_num)


def first_sample(frames: ArrayLike, fps_num: int, fps_den: int, rate: int = SAMPLE_RATE) -> Integers:
    """First sample (...,) of each of ``frames`` (...,).

    Frame f owns samples ``first_sample(f)`` up to but without ``first_sample(f + 1)``: every sample belongs to one
    frame, and a clip of T frames has ``first_sample(T)`` of them. Halves round up.
    """
    return _nearest(_integers(frames) * (rate * fps_den), fps_num)


def sample_count(n_frames: int, fps_num: int, fps_den: int, rate: int = SAMPLE_RATE) -> int:
    """Samples of a clip of ``n_frames`` frames: S = round(T * 16000 * fps_den / fps_num)."""
    return int(first_sample(n_frames, fps_num, fps_den, rate))


def window_start(frames: ArrayLike, fps_num: int, fps_den: int, *, rate: int = MEL_RATE, shift: int = 0) -> Integers:
    """Start (...,) of the feature window of each of ``frames`` (...,): int(rate * (f + shift) / fps).

    ``rate`` is feature frames per second (80 for mel, 50 for the filter banks, 16000 for samples), ``shift`` is in
    video frames. Truncates towards zero as Python's int() does, which matters only for starts before the clip.
    """
    numerator = (_integers(frames) + shift) * (rate * fps_den)
    starts: Integers = np.sign(numerator) * (np.abs(numerator) // fps_num)
    return starts


def windows(
    frames: ArrayLike,
    fps_num: int,
    fps_den: int,
    n_features: int,
    *,
    length: int,
    rate: int,
    shift: int = 0,
    edge: Edge = "clamp",
) -> tuple[Integers, NDArray[np.bool_]]:
    """Which feature frames belong to each video frame, for any features of constant rate.

    Returns ``indices`` (..., length), always within 0 .. n_features - 1, and ``kept`` (...,): False for windows that
    leave the features when ``edge`` is ``drop``. Raises ``ValueError`` when there are no features at all.
    """
    if n_features < 1:
        raise ValueError("there are no feature frames to choose a window from")
    wanted = window_start(frames, fps_num, fps_den, rate=rate, shift=shift)[..., None] + np.arange(length)
    inside = (wanted[..., 0] >= 0) & (wanted[..., -1] < n_features)
    return np.clip(wanted, 0, n_features - 1), inside | (edge == "clamp")


def mel_window(
    frames: ArrayLike, fps_num: int, fps_den: int, n_mel: int, rule: str = "syncnet", *, edge: Edge | None = None
) -> tuple[Integers, NDArray[np.bool_]]:
    """Which 16 mel frames belong to each video frame under a named rule (see ``RULES``).

    ``mel[:, indices]`` of a mel (80, n_mel) gives windows (80, ..., 16). ``edge`` overrides the rule's own. Returns
    and raises as ``windows``; an unknown rule raises ``ValueError``.
    """
    if rule not in RULES:
        raise ValueError(f"unknown window rule '{rule}', known are {', '.join(RULES)}")
    chosen = RULES[rule]
    return windows(
        frames, fps_num, fps_den, n_mel, length=MEL_WINDOW, rate=MEL_RATE, shift=chosen.shift, edge=edge or chosen.edge
    )


def _integers(values: ArrayLike) -> Integers:
    numbers = np.asarray(values)
    if numbers.dtype.kind not in "iu":
        raise TypeError(f"frames are counted in integers, got {numbers.dtype}")
    return numbers.astype(np.int64)


def _nearest(numerator: Integers, denominator: int) -> Integers:
    return (2 * numerator + denominator) // (2 * denominator)
