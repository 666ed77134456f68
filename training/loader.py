"""Batches out of shards: exact, whatever the number of ranks and workers.

A run is an endless row of samples, in the order of ``training.mixture``. Step s of a run with a global batch of G shows positions
s G to (s + 1) G; rank r of W takes the r-th of W parts of them, as even as can be. So a run is resumed from its step alone, and
with another number of ranks or workers sees the same global batches. A clip that cannot be read is replaced by the window that
follows in storage order in another clip, and counted.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from manifests.document import ManifestError
from training.films import Film, Group, is_film
from training.mixture import Mixture
from training.order import key_of
from training.partners import Kind
from training.samples import DAMAGE, Samples, is_damage
from training.windows import Cutter, Windows, first_frames

Integers = NDArray[np.int64]

Batch = dict[str, Any]
"""Columns stacked, (B, ...) tensors, scalars (B,), texts a list; ``dataset``, ``clip`` (its row there) and ``first`` (its first
frame, without the context), (B,) int64. Partners' the same as ``<partner>.<name>``, but without ``dataset``, which is the
sample's. ``rows``: which of the global batch's rows these are, from and to; ``replaced``: how many windows stand in for damaged
ones."""


_ASKED = 4096
"""Positions whose place in the order is computed at once."""


def loader(
    mixture: Mixture,
    global_batch: int,
    *,
    first_step: int = 0,
    last_step: int,
    rank: int = 0,
    ranks: int = 1,
    workers: int = 0,
    cache_mb: int = 256,
) -> Iterator[Batch]:
    """The batches of steps ``first_step`` to ``last_step`` (exclusive), for one rank of several.

    ``cache_mb`` bounds what each of the ``workers`` processes (none: this process) keeps of clips; each reads every clip once an
    epoch if it has room for 64 clips, which the order mixes at a time, and decodes every film once if it has room for their
    frames, 0.1 MB each at 256². Raises ``ManifestError`` for a batch that leaves a rank nothing, and in a run when a dataset has
    no clip that can be read in a damaged one's place.
    """
    if global_batch < ranks:
        raise ManifestError(f"a global batch of {global_batch} cannot be shared by {ranks} ranks: make it larger")
    steps = _Steps(mixture, global_batch, _share(global_batch, rank, ranks), cache_mb << 20)
    shown = range(first_step, last_step)
    if not workers:
        return map(steps.batch, shown)
    return map(_whole, DataLoader(steps, batch_size=None, sampler=shown, num_workers=workers, collate_fn=_unchanged))


def _unchanged(batch: Batch | ManifestError) -> Batch | ManifestError:
    return batch


def _whole(batch: Batch | ManifestError) -> Batch:
    if isinstance(batch, ManifestError):
        raise batch
    return batch


def _share(global_batch: int, rank: int, ranks: int) -> tuple[int, int]:
    """A rank's rows of a global batch: the first ranks have one more where it does not come out even."""
    each, more = divmod(global_batch, ranks)
    start = rank * each + min(rank, more)
    return start, start + each + (rank < more)


class _Steps(TorchDataset[Batch | ManifestError]):
    """This rank's part of each step's batch, by step."""

    def __init__(self, mixture: Mixture, global_batch: int, rows: tuple[int, int], cache_bytes: int) -> None:
        self._mixture, self._global_batch, self._rows = mixture, global_batch, rows
        self._cache = _Cache(cache_bytes)
        self._asked = global_batch * max(1, _ASKED // global_batch)
        self._first, self._known = -1, (np.zeros(0, np.int64),) * 2
        self._readers = [_Reader(part, number, mixture, self._cache) for number, part in enumerate(mixture.samples)]

    def __getitem__(self, step: int) -> Batch | ManifestError:
        """For worker processes, whose errors would come with their traceback: handed over instead."""
        try:
            return self.batch(step)
        except ManifestError as error:
            return error

    def batch(self, step: int) -> Batch:
        positions = step * self._global_batch + np.arange(*self._rows)
        dataset, sample = self._places(positions)
        parts, replaced = [], 0
        for number in sorted(set(dataset.tolist())):
            own = dataset == number
            values, stand_ins = self._readers[number].read(sample[own], positions[own])
            parts.append(values)
            replaced += stand_ins
        # Parts lie one after the other: back to the order of positions.
        order = np.argsort(np.argsort(dataset, kind="stable")).tolist() if len(parts) > 1 else None
        batch = {name: _stacked([part[name] for part in parts], order) for name in parts[0]}
        return batch | {"dataset": torch.from_numpy(dataset), "rows": self._rows, "replaced": replaced}

    def _places(self, positions: Integers) -> tuple[Integers, Integers]:
        """The mixture's answer for ``positions``, asked for many batches at once."""
        first = positions[0] // self._asked * self._asked
        if first != self._first:
            self._first, self._known = first, self._mixture(np.arange(first, first + self._asked))
        dataset, sample = (part[positions - first] for part in self._known)
        return dataset, sample


class _Cache:
    """Columns of clips and groups of films as they were read last, at most so many bytes of them."""

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._held: OrderedDict[Hashable, dict[str, Any]] = OrderedDict()
        self._bytes = 0

    def held(self, key: Hashable) -> dict[str, Any]:
        """What is kept of ``key``. Raises ``KeyError`` where that is nothing."""
        self._held.move_to_end(key)
        return self._held[key]

    def get(self, key: Hashable, names: Iterable[str], read: Callable[[list[str]], dict[str, Any]]) -> dict[str, Any]:
        """At least the values ``names`` of what ``key`` stands for; ``read`` gives those that are lacking."""
        held = self._held.get(key, {})
        if lacking := [name for name in names if name not in held]:
            values = read(lacking)
            held = self._held[key] = held | values
            self._bytes += _size(values)
            while self._bytes > self._most and len(self._held) > 1:
                self._bytes -= _size(self._held.popitem(last=False)[1])
        self._held.move_to_end(key)
        return held


class _Reader:
    """Windows of one dataset of a mixture, with their partners."""

    def __init__(self, samples: Samples, number: int, mixture: Mixture, cache: _Cache) -> None:
        self._samples, self._number, self._cache = samples, number, cache
        self._key = mixture.key
        columns = [samples.dataset.columns[name] for name in samples.all_columns]
        self._cutter = Cutter(columns, samples.needs.window, mixture.fps)
        self._films = {column.name for column in columns if is_film(column)}
        self._frame_axes = [column.name for column in columns if column.rate == "fps"]
        self._first = int(first_frames(np.zeros((), np.int64), samples.needs.window))
        """First frame of every clip's first window."""
        self._lengths = samples.of_index("n_frames")
        # Scalars of the clip index lie together: they are looked up, not read clip by clip.
        self._index = {column.name: samples.of_index(column.name) for column in columns if column.family == "clips"}

    def read(self, samples: Integers, positions: Integers) -> tuple[dict[str, Any], int]:
        """The values of ``samples`` (B,), and of their partners, by column; and how many windows are not those asked for."""
        needs, partners = self._samples.needs, self._samples.partners
        clips, numbers = self._samples.places(samples)
        count = len(self._samples.rows)
        values, replaced = self._windows(needs.columns, clips, numbers, lambda _, bad: np.arange(bad + 1, bad + count) % count)
        for name, partner in needs.partners.items():
            # Drawn after stand-ins were found, so that they are the partners of what is shown.
            mates = partners(partner.kind, clips, numbers, positions, key_of(self._key, name))
            others = partial(self._other_partners, partner.kind, clips)
            theirs, stand_ins = self._windows(partner.columns, *mates, others)
            values |= {f"{name}.{column}": value for column, value in theirs.items()}
            replaced += stand_ins
        return values, replaced

    def _other_partners(self, kind: Kind, clips: Integers, at: int, damaged: int) -> Integers:
        return self._samples.partners.others(kind, int(clips[at]), damaged)

    def _windows(
        self, names: Sequence[str], clips: Integers, numbers: Integers, others: Callable[[int, int], Integers]
    ) -> tuple[dict[str, Any], int]:
        """Columns ``names`` of windows ``numbers`` (B,) of ``clips`` (B,), which are changed where another stands in.

        ``others(at, clip)`` are the clips that may stand in for the damaged ``clip`` of sample ``at``.
        """
        arrays = [name for name in names if name not in self._index]
        firsts = first_frames(numbers, self._samples.needs.window)
        windows = self._cutter.windows(arrays, firsts)
        shown: list[list[Any]] = []
        replaced = 0
        for at, clip in enumerate(clips.tolist() if arrays else []):
            try:
                shown.append(self._cut(clip, arrays, windows, at))
            except DAMAGE as error:
                if not is_damage(error):
                    raise
                clips[at], window = self._instead(arrays, others(at, clip), error)
                numbers[at], firsts[at] = 0, self._first
                shown.append(window)
                replaced += 1
        values: dict[str, Any] = dict(zip(arrays, zip(*shown, strict=True), strict=True))
        values |= {name: self._index[name][clips] for name in names if name in self._index}
        return values | {"clip": self._samples.rows[clips], "first": firsts}, replaced

    def _cut(self, clip: int, arrays: Sequence[str], windows: Windows, at: int) -> list[Any]:
        key = self._number, clip
        try:
            return windows.cut(self._cache.held(key), at)
        except KeyError:
            return windows.cut(self._cache.get(key, arrays, lambda names: self._whole(clip, names)), at)

    def _instead(self, arrays: Sequence[str], others: Integers, error: Exception) -> tuple[int, list[Any]]:
        """The first window of the first of the ``others`` that can be read."""
        windows = self._cutter.windows(arrays, np.array([self._first]))
        for clip in others.tolist():
            try:
                return clip, self._cut(clip, arrays, windows, 0)
            except DAMAGE as other:
                if not is_damage(other):
                    raise
        place = self._samples.dataset.place
        raise ManifestError(f"{place}: no clip can be read that may stand in for a damaged one ({error}); see headloom verify")

    def _whole(self, clip: int, names: Sequence[str]) -> dict[str, Any]:
        """Whole columns of a clip, films ready to be decoded. Raises ``ValueError`` where their length is not the clip's."""
        values = self._samples.dataset.read(int(self._samples.rows[clip]), *names)
        for name in self._films.intersection(names):
            values[name] = Film(values[name], partial(self._kept_group, clip, name))
        for name in self._frame_axes:
            if name in values and values[name].shape[0] != self._lengths[clip]:
                raise ValueError(f"{name} has {values[name].shape[0]} frames, its clip {self._lengths[clip]}")
        return values

    def _kept_group(self, clip: int, name: str, group: int, decode: Callable[[], Group]) -> Group:
        kept: Group = self._cache.get((self._number, clip, name, group), {"group"}, lambda _: {"group": decode()})["group"]
        return kept


def _size(values: dict[str, Any]) -> int:
    return sum(getattr(value, "nbytes", 64) for value in values.values())


def _stacked(parts: list[Sequence[Any]], order: list[int] | None) -> Any:
    """The values of all ``parts`` in a tensor (B, ...), or a list for texts, in the ``order`` of batch positions if given."""
    if order is None and isinstance(parts[0], np.ndarray) and parts[0].dtype != object:
        return torch.from_numpy(parts[0])
    values = [value for part in parts for value in part]
    if order is not None:
        values = [values[place] for place in order]
    return list(values) if isinstance(values[0], str) else torch.from_numpy(np.stack(values))
