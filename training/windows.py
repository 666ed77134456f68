"""Which windows a clip has, and what of each column a window shows.

A window is ``length`` frames of one clip; ``context`` frames before and after are read too. Windows of a clip begin every
``stride`` frames from its start on, as long as they fit. Where the context leaves the clip, ``edge`` ``clamp`` repeats the first
or last frame, ``drop`` does without the window. Sound and features follow by the one clock (``manifests.clock``),
``audio_shift_ms`` later than the pictures.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from manifests.clock import sample_count, window_start
from manifests.columns import Column
from manifests.document import ManifestError
from manifests.training import Window

Integers = NDArray[np.int64]


def window_counts(n_frames: NDArray[np.integer[Any]], window: Window) -> Integers:
    """(N,) how many windows clips of ``n_frames`` (N,) have."""
    lost = sum(window.context) if window.edge == "drop" else 0
    room = np.asarray(n_frames, np.int64) - window.length - lost
    counts: Integers = np.where(room >= 0, room // window.stride + 1, 0)
    return counts


class Place(NamedTuple):
    """A window of a clip."""

    clip: int
    """Row in the clip index."""
    first: int
    """Its first frame, without the context."""


def first_frame(number: int, window: Window) -> int:
    """First frame of a clip's window ``number``."""
    return number * window.stride + (window.context[0] if window.edge == "drop" else 0)


def frames_of(first: int, n_frames: int, window: Window) -> Integers:
    """(context + length + context,) the clip's frames that a window shows, clamped to the clip."""
    before, after = window.context
    return np.clip(np.arange(first - before, first + window.length + after), 0, n_frames - 1)


class Cutter:
    """Cuts windows out of a clip's arrays. Rates and axes are looked up once."""

    def __init__(self, columns: dict[str, Column], window: Window) -> None:
        self._columns, self._window = columns, window
        for column in columns.values():
            if column.dtype == "bytes":
                raise ManifestError(f"column {column.name} holds a film: give it to the loader as frames, not as a column")

    def __call__(self, values: dict[str, Any], first: int, n_frames: int, fps: tuple[int, int]) -> dict[str, Any]:
        """The part of a clip's ``values`` that the window from frame ``first`` on shows, by column; ``fps`` is a fraction.

        Frames (L, ...) for columns with a row for each frame; a run of constant length for features at another rate; columns
        without a rate are given whole.
        """
        shown = frames_of(first, n_frames, self._window)
        return {name: self._cut(self._columns[name], value, shown, first, fps) for name, value in values.items()}

    def _cut(self, column: Column, value: Any, shown: Integers, first: int, fps: tuple[int, int]) -> Any:
        if not column.rate:
            return value
        if column.rate == "fps":
            return value[shown]
        rate = rate_of(column)
        axis = next(place for place, length in enumerate(column.shape) if isinstance(length, str))
        start = int(window_start(first - self._window.context[0], *fps, rate=rate))
        start += round(self._window.audio_shift_ms * rate / 1000)
        index = np.arange(start, start + sample_count(len(shown), *fps, rate=rate))
        return np.take(value, np.clip(index, 0, value.shape[axis] - 1), axis=axis)


def rate_of(column: Column) -> int:
    """Features of a ``column`` in a second. Raises ``ManifestError`` where its rate is no whole number a second."""
    number = column.rate.removesuffix("/s")
    if not number.isdecimal():
        raise ManifestError(f"column {column.name} has the rate {column.rate!r}, which no window can be cut from")
    return int(number)
