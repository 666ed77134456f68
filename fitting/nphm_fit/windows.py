"""Cutting a sequence into windows that overlap, as FaceTalk fits them (§5: 10 frames, overlap 2)."""

from __future__ import annotations

from typing import Literal, NamedTuple

Overlap = Literal["frozen", "refitted", "blended"]
"""What happens to the frames that a window shares with the one before. ``frozen``: they keep their codes, and the temporal term
ties the next ones to them. ``refitted``: they start from their codes and are fitted again. ``blended``: as refitted, then mixed
with the codes of the window before, from all of that one to all of this one."""


class Window(NamedTuple):
    """Frames ``first`` to ``stop`` (exclusive) of a sequence; ``shared`` of them are also in the window before."""

    first: int
    stop: int
    shared: int


def windows(n_frames: int, length: int = 10, overlap: int = 2) -> list[Window]:
    """The windows of ``n_frames``, in order. The last one may be shorter. Raises ``ValueError`` for an overlap of all frames."""
    if not 0 <= overlap < length:
        raise ValueError(f"windows of {length} frames cannot overlap by {overlap}: give an overlap from 0 to {length - 1}")
    starts = range(0, max(n_frames - overlap, 1), length - overlap)
    return [Window(first, min(first + length, n_frames), overlap if first else 0) for first in starts if n_frames]
