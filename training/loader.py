"""Batches out of shards: exact, whatever the number of ranks and workers.

A run is an endless row of samples, in the order of ``training.order``. Step s of a run with a global batch of G shows samples
s G to (s + 1) G; rank r of W takes the r-th of W parts of them, as even as can be. So a run is resumed from its step alone, and
with another number of ranks or workers sees the same global batches. A clip that cannot be read is replaced by the window that
follows in storage order in another clip, and counted.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from manifests.document import ManifestError
from manifests.reader import Dataset
from manifests.training import Range, Split, Window
from training.order import Order, key_of
from training.split import Part, part_of
from training.windows import Cutter, Place, first_frame, window_counts

_DAMAGE = (OSError, ValueError, pa.ArrowException)
"""What reading a damaged part may raise."""

Batch = dict[str, Any]
"""Columns stacked, (B, ...) tensors; scalars as (B,); ``clip`` (B,) int64 rows and ``first`` (B,) int64 first frames;
``replaced`` counts the samples that stand in for damaged ones."""


@dataclass(frozen=True)
class Samples:
    """The windows of one part of a dataset, numbered in the order in which they are stored."""

    dataset: Dataset
    columns: tuple[str, ...]
    window: Window
    rows: NDArray[np.int64]
    """Clips that have windows, in storage order."""
    counts: NDArray[np.int64]
    """Windows of each of them."""

    def __len__(self) -> int:
        return int(self.counts.sum())

    def place(self, sample: int) -> Place:
        ends = np.cumsum(self.counts)
        block = int(np.searchsorted(ends, sample, side="right"))
        number = sample - int(ends[block] - self.counts[block])
        return Place(int(self.rows[block]), first_frame(number, self.window))


def samples_of(
    dataset: Dataset,
    columns: Sequence[str],
    window: Window,
    *,
    split: Split | None = None,
    part: Part = "train",
    accepted: dict[str, Range] | None = None,
) -> Samples:
    """The samples of ``part`` of the ``split`` whose scores are within ``accepted``.

    Raises ``ManifestError`` for columns that the dataset lacks, and when no clip or no window is left, with what took them away.
    """
    dataset.require(*columns, *(accepted or {}))
    clips = dataset.clips
    kept = np.ones(len(dataset), bool)
    for name, limits in (accepted or {}).items():
        values = np.asarray(clips[name].to_numpy())
        kept &= (values >= (-np.inf if limits.min is None else limits.min)) & (
            values <= (np.inf if limits.max is None else limits.max)
        )
        if not kept.any():
            raise ManifestError(
                f"{dataset.place}: no clip is left by the filter on {name}; it has {values.min()} to {values.max()}"
            )
    if split is not None:
        people = [
            person or take for person, take in zip(*(clips[name].to_pylist() for name in ("person", "take_id")), strict=True)
        ]
        kept &= part_of(people, split) == part
        if not kept.any():
            raise ManifestError(f"{dataset.place}: no person is in the part {part} of the split; give it a larger share")
    rows = np.flatnonzero(kept)
    n_frames = np.asarray(clips["n_frames"].to_numpy())[rows]
    counts = window_counts(n_frames, window)
    if not counts.any():
        raise ManifestError(
            f"{dataset.place}: a window of {window.length} frames is longer than every clip; the longest has {n_frames.max()}"
        )
    return Samples(dataset, tuple(columns), window, rows[counts > 0], counts[counts > 0])


class _Steps(TorchDataset[Batch]):
    """This rank's part of each step's batch, by step."""

    def __init__(self, samples: Samples, order: Order, share: tuple[int, int, int], cache_bytes: int) -> None:
        self.samples, self.order, self.share, self.cache_bytes = samples, order, share, cache_bytes
        self._clips: _Clips | None = None

    def __getitem__(self, step: int) -> Batch:
        # Files are opened where they are read: in a worker, after it was started.
        self._clips = self._clips or _Clips(self.samples, self.cache_bytes)
        batch, rank, ranks = self.share
        mine = np.array_split(np.arange(step * batch, (step + 1) * batch), ranks)[rank]
        shown = [self._clips.sample(int(sample)) for sample in self.order(mine)]
        stacked = {name: _stacked([values[name] for values, _ in shown]) for name in shown[0][0]}
        return stacked | {"replaced": sum(replaced for _, replaced in shown)}


class _Clips:
    """Clips as they were read last, at most so many bytes of them."""

    def __init__(self, samples: Samples, most_bytes: int) -> None:
        self._samples, self._most = samples, most_bytes
        dataset = samples.dataset
        self._cut = Cutter({name: dataset.columns[name] for name in samples.columns}, samples.window)
        self._held: OrderedDict[int, dict[str, Any]] = OrderedDict()
        self._bytes = 0
        clips = dataset.clips
        # Scalars lie together in the index: they are looked up, not read clip by clip.
        self._scalars = {name: clips[name].to_pylist() for name in samples.columns if dataset.columns[name].is_scalar}
        self._arrays = [name for name in samples.columns if name not in self._scalars]
        self._frames, *fps = (clips[name].to_numpy() for name in ("n_frames", "fps_num", "fps_den"))
        self._fps = list(zip(*(part.tolist() for part in fps), strict=True))

    def sample(self, number: int) -> tuple[dict[str, Any], int]:
        """A sample's values, and 1 where it stands in for a damaged one."""
        place = self._samples.place(number)
        try:
            return self._values(place), 0
        except _DAMAGE as error:
            return self._instead(number, place, error), 1

    def _instead(self, number: int, place: Place, error: Exception) -> dict[str, Any]:
        """The first window of the next clip in storage order that can be read."""
        rows = self._samples.rows
        start = int(np.searchsorted(rows, place.clip))
        for row in np.roll(rows, -start - 1)[:-1].tolist():
            try:
                return self._values(Place(row, first_frame(0, self._samples.window)))
            except _DAMAGE:
                continue
        raise ManifestError(f"{self._samples.dataset.place}: no clip can be read ({error}); headloom verify tells more")

    def _values(self, place: Place) -> dict[str, Any]:
        values = self._cut(self._clip(place.clip), place.first, int(self._frames[place.clip]), self._fps[place.clip])
        return values | {"clip": place.clip, "first": place.first}

    def _clip(self, row: int) -> dict[str, Any]:
        if row in self._held:
            self._held.move_to_end(row)
            return self._held[row]
        values = self._samples.dataset.read(row, *self._arrays) if self._arrays else {}
        values |= {name: held[row] for name, held in self._scalars.items()}
        self._held[row] = values
        self._bytes += _size(values)
        while self._bytes > self._most and len(self._held) > 1:
            self._bytes -= _size(self._held.popitem(last=False)[1])
        return values


def _size(values: dict[str, Any]) -> int:
    return sum(getattr(value, "nbytes", 64) for value in values.values())


def _stacked(values: list[Any]) -> Any:
    if isinstance(values[0], str):
        return values
    return torch.from_numpy(np.stack([np.asarray(value) for value in values]))


def loader(
    samples: Samples,
    global_batch: int,
    *,
    seed: int = 0,
    first_step: int = 0,
    last_step: int,
    rank: int = 0,
    ranks: int = 1,
    workers: int = 0,
    cache_mb: int = 256,
) -> Iterator[Batch]:
    """The batches of steps ``first_step`` to ``last_step`` (exclusive), for one rank of several.

    ``cache_mb`` bounds what a worker keeps of clips. Raises ``ManifestError`` for a batch that leaves a rank nothing.
    """
    if global_batch < ranks:
        raise ManifestError(f"a global batch of {global_batch} cannot be shared by {ranks} ranks: make it larger")
    order = Order(samples.counts, key_of(samples.dataset.manifest.digest, seed))
    steps = _Steps(samples, order, (global_batch, rank, ranks), cache_mb << 20)
    return iter(DataLoader(steps, batch_size=None, sampler=range(first_step, last_step), num_workers=workers, pin_memory=False))
