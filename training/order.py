"""In which order samples are seen: a pure function of a key and a position, so that a run is resumed from one integer.

Samples are numbered as they are stored, in blocks (the windows of a clip, say) that are cheap to read together. An epoch deals
the blocks into drawers of a fixed number, in random order, and within a drawer mixes the samples of all its blocks. So a reader
that keeps one drawer's blocks in memory reads each block once an epoch, whatever the number of ranks and workers.

Random order is a permutation computed for single places (a Feistel network over the smallest power of four that holds them all,
walked until it lands among them), never a shuffled list: nothing has to be drawn, kept or replayed.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Integers = NDArray[np.int64]

_ROUNDS = 6


def key_of(*parts: object) -> int:
    """64 bits out of digests, seeds, names and epochs."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "little")


def permute(places: ArrayLike, count: int, key: int) -> Integers:
    """Where a random permutation of ``count`` things, chosen by ``key``, takes ``places`` (...,) of 0 .. count - 1.

    Raises ``ValueError`` for places outside.
    """
    asked = np.asarray(places, np.int64)
    if asked.size and (asked.min() < 0 or asked.max() >= count):
        raise ValueError(f"places are 0 to {count - 1}, got {asked.min()} to {asked.max()}")
    half = np.uint64(max(1, (max(count - 1, 1).bit_length() + 1) // 2))
    found = _feistel(asked.astype(np.uint64).ravel(), half, key)
    # Places that landed beyond the end walk on; the walk comes back, for the network permutes a finite set.
    beyond = np.flatnonzero(found >= count)
    while len(beyond):
        found[beyond] = _feistel(found[beyond], half, key)
        beyond = beyond[found[beyond] >= count]
    return found.astype(np.int64).reshape(asked.shape)


def draw(places: ArrayLike, ends: ArrayLike, key: int) -> Integers:
    """For each of ``places`` (...,) a random number from 0 to its end, one of ``ends`` (...,), exclusive, chosen by ``key``.

    The remainder of 64 bits: no number is favoured by more than its end over 2**64.
    """
    bits = _mix(_mix(np.asarray(places, np.int64).astype(np.uint64) ^ np.uint64(key)) + np.uint64(key))
    found: Integers = (bits % np.asarray(ends, np.int64).astype(np.uint64)).astype(np.int64)
    return found


class Order:
    """The order of the samples of B blocks with ``sizes`` (B,), ``drawer`` blocks mixed at a time, for a ``key``.

    Raises ``ValueError`` when there is no sample.
    """

    def __init__(self, sizes: ArrayLike, key: int, drawer: int = 64) -> None:
        self.sizes = np.asarray(sizes, np.int64)
        self.key, self.drawer = key, drawer
        self.count = int(self.sizes.sum())
        if self.count < 1:
            raise ValueError("there is no sample to put in order")
        self._first = np.concatenate([[0], np.cumsum(self.sizes)[:-1]])
        self._epoch = lru_cache(maxsize=2)(self._dealt)
        # Runs go through a drawer position by position, so all of it is mixed at once.
        self._drawer = lru_cache(maxsize=2)(self._mixed)

    def __reduce__(self) -> tuple[type[Order], tuple[Integers, int, int]]:
        return type(self), (self.sizes, self.key, self.drawer)

    def __call__(self, positions: ArrayLike) -> Integers:
        """The samples (...,) at ``positions`` (...,) of an endless run: position ``count`` begins the second epoch."""
        asked = np.asarray(positions, np.int64)
        flat, found = asked.ravel(), np.empty(asked.size, np.int64)
        epochs, within = np.divmod(flat, self.count)
        for epoch in sorted(set(epochs.tolist())):
            chosen = epochs == epoch
            found[chosen] = self._at(within[chosen], epoch)
        return found.reshape(asked.shape)

    def _at(self, places: Integers, epoch: int) -> Integers:
        bounds = self._epoch(epoch).drawers
        drawers = np.searchsorted(bounds, places, side="right") - 1
        found = np.empty_like(places)
        for drawer in sorted(set(drawers.tolist())):
            own = drawers == drawer
            found[own] = self._drawer(epoch, drawer)[places[own] - bounds[drawer]]
        return found

    def _mixed(self, epoch: int, drawer: int) -> Integers:
        """The samples of a drawer in the order in which they are shown."""
        dealt = self._epoch(epoch)
        start, stop = dealt.drawers[drawer : drawer + 2].tolist()
        mixed = start + permute(np.arange(stop - start), stop - start, key_of(self.key, epoch, drawer))
        slot = np.searchsorted(dealt.starts, mixed, side="right") - 1
        found: Integers = self._first[dealt.blocks[slot]] + mixed - dealt.starts[slot]
        return found

    def _dealt(self, epoch: int) -> _Dealt:
        full = np.flatnonzero(self.sizes)
        blocks = full[permute(np.arange(len(full)), len(full), key_of(self.key, epoch))]
        ends = np.cumsum(self.sizes[blocks])
        starts = ends - self.sizes[blocks]
        return _Dealt(blocks, starts, np.append(starts[:: self.drawer], self.count))


class _Dealt(NamedTuple):
    """How the blocks lie in an epoch."""

    blocks: Integers
    """In their order."""
    starts: Integers
    """Place of each one's first sample before drawers are mixed."""
    drawers: Integers
    """Place of each drawer's first sample, and the end."""


def _feistel(places: NDArray[np.uint64], half: np.uint64, key: int) -> NDArray[np.uint64]:
    mask = np.uint64((1 << int(half)) - 1)
    left, right = places >> half, places & mask
    for turn in range(_ROUNDS):
        left, right = right, left ^ (_mix(right + np.uint64(key_of(key, turn))) & mask)
    return (left << half) | right


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of splitmix64 (Steele, Lea and Flood, 2014): each bit of the result depends on all of the value."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
