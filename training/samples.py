"""The windows of one dataset: which clips of it are trained on, and which window each sample is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from manifests.document import ManifestError
from manifests.reader import Dataset
from manifests.training import Range
from training.model import Needs
from training.partners import Partners
from training.windows import window_counts

Integers = NDArray[np.int64]

DAMAGE = (OSError, ValueError, pa.ArrowException)
"""What reading a damaged part may raise, if ``is_damage``."""


def is_damage(error: Exception) -> bool:
    """Whether what was read is to blame, and would be again: not a disk, a network or a file that is not there."""
    return not (isinstance(error, OSError) and error.errno is not None)


@dataclass(frozen=True)
class Samples:
    """The windows of some clips of a dataset, numbered in the order in which they are stored."""

    dataset: Dataset
    needs: Needs
    rows: Integers
    """(N,) clips that have windows, in storage order."""
    counts: Integers
    """(N,) windows of each of them."""
    people: tuple[str, ...]
    """(N,) who they show; the take where that is unknown."""

    def __len__(self) -> int:
        return int(self._ends[-1])

    def places(self, samples: Integers) -> tuple[Integers, Integers]:
        """Which of the N clips (B,), and which of its windows (B,), each of ``samples`` (B,) is."""
        clips = np.searchsorted(self._ends, samples, side="right") - 1
        return clips, samples - self._ends[clips]

    @property
    def all_columns(self) -> tuple[str, ...]:
        """The columns that are asked for, with those of the partners."""
        return columns_of(self.needs)

    @cached_property
    def partners(self) -> Partners:
        """Who goes with whom."""
        return Partners(self.counts, self.people)

    def of_index(self, name: str) -> NDArray[Any]:
        """(N,) the values of a column of the clip index."""
        return np.asarray(self.dataset.clips[name].take(pa.array(self.rows)).to_numpy())

    @cached_property
    def _ends(self) -> Integers:
        return np.append(0, np.cumsum(self.counts))


def columns_of(needs: Needs) -> tuple[str, ...]:
    """The columns that are asked for, with those of the partners, each once."""
    wanted = [*needs.columns, *(name for partner in needs.partners.values() for name in partner.columns)]
    return tuple(dict.fromkeys(wanted))


def samples_of(
    dataset: Dataset,
    needs: Needs,
    *,
    among: Set[str] | None = None,
    accepted: Mapping[str, Range] | None = None,
) -> Samples:
    """The samples of the people ``among`` whom (None: of all) it is to be, in clips whose scores are within ``accepted``.

    Raises ``ManifestError`` for columns that the dataset lacks, when no clip or no window is left, with what took them away, and
    for partners that nobody can be.
    """
    dataset.require(*columns_of(needs), *(accepted or {}))
    clips = dataset.clips
    kept = np.ones(len(dataset), bool)
    for name, limits in (accepted or {}).items():
        if name not in clips.column_names or dataset.columns[name].dtype in ("string", "bool"):
            raise ManifestError(f"{dataset.place}: a filter is on a number of the clip index, {name} is none")
        values = np.asarray(clips[name].to_numpy())
        kept &= (values >= (-np.inf if limits.min is None else limits.min)) & (
            values <= (np.inf if limits.max is None else limits.max)
        )
        if not kept.any():
            raise ManifestError(
                f"{dataset.place}: no clip is left by the filter on {name}; it has {values.min()} to {values.max()}"
            )
    people = people_of(dataset)
    if among is not None:
        kept &= np.array([person in among for person in people])
    rows = np.flatnonzero(kept)
    if not len(rows):
        raise ManifestError(
            f"{dataset.place}: the filter leaves no clip of the {len(among or ())} people of this part of the split; widen it, "
            "or deal people anew with another split.seed"
        )
    n_frames = np.asarray(clips["n_frames"].to_numpy())[rows]
    counts = window_counts(n_frames, needs.window)
    if not counts.any():
        length, longest = needs.window.length, n_frames.max()
        raise ManifestError(f"{dataset.place}: a window of {length} frames is longer than every clip; the longest has {longest}")
    rows, counts = rows[counts > 0], counts[counts > 0]
    samples = Samples(dataset, needs, rows, counts, tuple(people[row] for row in rows.tolist()))
    for name, partner in needs.partners.items():
        if partner.kind == "other_person" and samples.partners.count < 2:
            raise ManifestError(
                f"{dataset.place}: partner {name} is another person, and there is only {samples.people[0]}; give it more people"
            )
    return samples


def people_of(dataset: Dataset) -> Sequence[str]:
    """Who each clip shows; the take where that is unknown."""
    named = zip(*(dataset.clips[name].to_pylist() for name in ("person", "take_id")), strict=True)
    return [person or take for person, take in named]
