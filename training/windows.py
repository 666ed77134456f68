"""Which windows a clip has, and what of each column a window shows.

A window is ``length`` frames of one clip; ``context`` frames before and after are read too. Windows of a clip begin every
``stride`` frames from its start on, as long as they fit. Where the context leaves the clip, ``edge`` ``clamp`` repeats the first
or last frame, ``drop`` does without the window. Sound and features follow by the one clock (``manifests.clock``),
``audio_shift_ms`` later than the pictures.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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


def first_frames(numbers: Integers, window: Window) -> Integers:
    """(N,) first frames, without the context, of the windows with these ``numbers`` (N,) in their clips."""
    return numbers * window.stride + (window.context[0] if window.edge == "drop" else 0)


class Span(NamedTuple):
    """What windows show of a column: ``length`` places of ``axis``."""

    length: int
    axis: int
    rate: int
    """Places in a second; 0: a place is a frame."""


class _Cuts(NamedTuple):
    """Of one column."""

    name: str
    span: Span | None
    """None for a column that is shown whole."""
    starts: list[int]
    slices: list[tuple[slice, ...]]


_NOTHING = slice(0, 0)


class Windows:
    """Where in clips some windows lie, column by column."""

    def __init__(self, plan: list[_Cuts]) -> None:
        self._plan = plan

    def cut(self, values: Mapping[str, Any], number: int) -> list[Any]:
        """What window ``number`` shows of each column of the clip with these whole ``values``, clamped to the clip.

        Raises ``KeyError`` for a column that is not among them.
        """
        shown = []
        for name, span, starts, slices in self._plan:
            whole = values[name]
            if span is not None:
                window = whole[slices[number]]
                if window.shape[span.axis] != span.length:
                    index = np.arange(starts[number], starts[number] + span.length)
                    window = whole.take(np.clip(index, 0, whole.shape[span.axis] - 1), axis=span.axis)
                whole = window
            shown.append(whole)
        return shown


class Cutter:
    """Cuts windows out of the ``columns`` of clips at ``fps``, a fraction.

    Shown are frames (L, ...) of columns with a row for each frame and of films, a run of constant length of features at another
    rate, and columns without a rate whole. Raises ``ManifestError`` for columns that windows cannot be cut from or batches
    cannot be made of.
    """

    def __init__(self, columns: Iterable[Column], window: Window, fps: tuple[int, int]) -> None:
        self._window, self._fps = window, fps
        self._frames = window.length + sum(window.context)
        self._spans = {column.name: self._span(column) for column in columns}

    def windows(self, names: Iterable[str], first: Integers) -> Windows:
        """How the columns ``names`` are cut in windows with the first frames ``first`` (B,)."""
        shown = first - self._window.context[0]
        plan: list[_Cuts] = []
        for name in names:
            span = self._spans[name]
            if span is None:
                plan.append(_Cuts(name, None, [], []))
                continue
            starts = shown
            if span.rate:
                starts = window_start(shown, *self._fps, rate=span.rate) + round(self._window.audio_shift_ms * span.rate / 1000)
            before = (slice(None),) * span.axis
            # A window that begins before the clip is none that a slice shows: an empty one stands for it.
            spans = (slice(start, start + span.length) if start >= 0 else _NOTHING for start in starts.tolist())
            slices: list[tuple[slice, ...]] = [(*before, own) for own in spans]
            plan.append(_Cuts(name, span, starts.tolist(), slices))
        return Windows(plan)

    def _span(self, column: Column) -> Span | None:
        free = [axis for axis, length in enumerate(column.shape) if isinstance(length, str)]
        if column.rate == "fps":
            return Span(self._frames, axis=0, rate=0)
        if column.rate:
            rate = rate_of(column)
            return Span(sample_count(self._frames, *self._fps, rate=rate), free[0], rate)
        if free or column.dtype == "bytes":
            raise ManifestError(f"column {column.name} {column.shape_text} has another length in each clip: no batch can hold it")
        return None


def rate_of(column: Column) -> int:
    """Features of a ``column`` in a second. Raises ``ManifestError`` where its rate is no whole number a second."""
    number = column.rate.removesuffix("/s")
    if not number.isdecimal():
        raise ManifestError(f"column {column.name} has the rate {column.rate!r}, which no window can be cut from")
    return int(number)
