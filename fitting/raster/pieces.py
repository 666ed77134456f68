"""Work that differs in size from item to item, as one list without loops: faces to rows, rows to pixels."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

AT_ONCE = 2**15
"""Faces, rows or pixels in one piece of work on a CPU. It bounds memory, stays in a processor's cache, and is the most that torch
does in one thread: with more, each step would wait for threads that a busy machine does not run."""

AT_ONCE_ON_GPU = 2**22


def at_once(like: Tensor) -> int:
    """How much is in one piece of work on the device of ``like``."""
    return AT_ONCE if like.device.type == "cpu" else AT_ONCE_ON_GPU


def expand(counts: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """``counts`` (N,) int64 written out: item n as many times as it counts, each with its number from 0 on.

    Yields pairs of (M,) int64 that belong together, items and numbers, M at most ``at_once`` or the count of one item.
    """
    ends = counts.cumsum(0)
    starts = ends - counts
    begin, done, total, limit = 0, 0, int(ends[-1]) if len(ends) else 0, at_once(counts)
    while done < total:
        end = len(counts) if total - done <= limit else int(torch.searchsorted(ends, done + limit, right=True))
        end = max(end, begin + 1)
        item = torch.repeat_interleave(counts[begin:end]).add_(begin)
        yield item, torch.arange(done, done + len(item), device=counts.device).sub_(pick(starts, item))
        begin, done = end, done + len(item)


def first_centre(position: Tensor, count: int) -> Tensor:
    """The first of ``count`` pixels whose centre is at ``position`` or beyond; ``count`` where there is none, 0 for NaN."""
    return (position - 0.5).ceil_().nan_to_num_(0.0).clamp_(0, count).long()


def pick(values: Tensor, index: Tensor) -> Tensor:
    """``values`` (N,) at ``index`` (M,); on a CPU several times as fast as ``values[index]``."""
    return values.index_select(0, index)
