"""What a run is made of: the windows of one or more datasets, their shares, and the order in which a run shows them.

A run is an endless row of positions. Which dataset a position is of follows from a fixed cycle of positions, dealt out by
weight; each dataset has its own order (``training.order``). So what stands at a position is computed, never replayed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from manifests.document import ManifestError
from training.films import is_film
from training.order import Order, key_of, permute
from training.samples import DAMAGE, Samples, is_damage

Integers = NDArray[np.int64]

CYCLE = 4096
"""Positions in which every dataset has its share."""


class Mixture:
    """``samples`` of several datasets, position by position as ``weights`` say, in an order that ``seed`` chooses.

    Raises ``ManifestError`` when the clips have several frame rates, or a column is not of one kind in all datasets.
    """

    def __init__(self, samples: Sequence[Samples], weights: Sequence[float] = (1.0,), seed: int = 0) -> None:
        self.samples = tuple(samples)
        self.fps = _one_rate(self.samples)
        """The frame rate of all clips, a fraction."""
        _one_kind(self.samples)
        digests = [part.dataset.manifest.digest for part in self.samples]
        self.key = key_of("mixture", digests, seed)
        self._orders = [Order(part.counts, key_of(digest, seed)) for part, digest in zip(self.samples, digests, strict=True)]
        self._shares = _shares(weights)
        dealt = np.repeat(np.arange(len(weights)), self._shares)
        self._cycle: Integers = dealt[permute(np.arange(CYCLE), CYCLE, self.key)]
        """(CYCLE,) which dataset each position of a cycle is of."""
        self._before: Integers = np.empty(CYCLE, np.int64)
        """(CYCLE,) positions of the same dataset that come before, in a cycle."""
        for number, share in enumerate(self._shares.tolist()):
            self._before[self._cycle == number] = np.arange(share)

    def __len__(self) -> int:
        """Windows of all datasets."""
        return sum(map(len, self.samples))

    def __call__(self, positions: Integers) -> tuple[Integers, Integers]:
        """The datasets (B,) and their samples (B,) at ``positions`` (B,) of a run."""
        cycles, within = np.divmod(positions, CYCLE)
        dataset = self._cycle[within]
        place = cycles * self._shares[dataset] + self._before[within]
        sample = np.empty_like(place)
        for number in sorted(set(dataset.tolist())):
            own = dataset == number
            sample[own] = self._orders[number](place[own])
        return dataset, sample

    def steps_per_epoch(self, global_batch: int) -> int:
        """Steps that show as many samples as there are windows."""
        return -(-len(self) // global_batch)

    def clip_ids(self, batch: Mapping[str, Any]) -> list[str]:
        """``clip_id`` of a batch's clips."""
        places = zip(batch["dataset"].tolist(), batch["clip"].tolist(), strict=True)
        return [self.samples[dataset].dataset.clips["clip_id"][clip].as_py() for dataset, clip in places]

    def whole_clips(self) -> Iterator[dict[str, Any]]:
        """All clips once, in storage order: for each the whole columns asked for, except films. Damaged clips are left out."""
        for part in self.samples:
            names = [name for name in part.all_columns if not is_film(part.dataset.columns[name])]
            for row in part.rows.tolist():
                try:
                    yield part.dataset.read(row, *names) if names else {}
                except DAMAGE as error:
                    if not is_damage(error):
                        raise


def _shares(weights: Sequence[float]) -> Integers:
    """(D,) positions of a cycle for each dataset: one each, the others by weight, the largest remainders rounded up."""
    spare = np.asarray(weights, float) / np.sum(weights) * (CYCLE - len(weights))
    shares: Integers = 1 + np.floor(spare).astype(np.int64)
    shares[np.argsort(np.floor(spare) - spare, kind="stable")[: CYCLE - int(shares.sum())]] += 1
    return shares


def _one_rate(samples: Sequence[Samples]) -> tuple[int, int]:
    columns = [np.stack([part.of_index(name) for name in ("fps_num", "fps_den")], axis=1) for part in samples]
    rates = {Fraction(*rate) for rate in np.unique(np.concatenate(columns), axis=0).tolist()}
    if len(rates) > 1:
        listed = ", ".join(f"{float(rate):g}" for rate in sorted(rates))
        places = ", ".join(dict.fromkeys(part.dataset.place for part in samples))
        raise ManifestError(f"{places}: clips have {listed} frames a second; choose one by a filter on fps_num")
    return rates.pop().as_integer_ratio()


def _one_kind(samples: Sequence[Samples]) -> None:
    for name in samples[0].all_columns:
        kinds = {(c.dtype, c.shape, c.rate): part for part in samples for c in [part.dataset.columns[name]]}
        if len(kinds) > 1:
            one, other = list(kinds)[:2]
            raise ManifestError(
                f"column {name} is {one} in {kinds[one].dataset.place} and {other} in {kinds[other].dataset.place};"
                " no batch can hold both: rebuild one of them"
            )
