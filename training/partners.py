"""Which window goes with a sample as its partner: of the same clip, of the same person, or of somebody else.

All windows of a dataset are thought of in one line, people one after the other and the clips of each together. A partner is
drawn from a stretch of that line without a stretch within it; which one follows from a key and the sample's position in the run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from training.order import draw

Integers = NDArray[np.int64]
Kind = Literal["same_clip", "same_person", "other_person"]


class Partners:
    """Partners among N clips that have ``counts`` (N,) windows each, and whose people are ``people`` (N,)."""

    def __init__(self, counts: ArrayLike, people: Sequence[str]) -> None:
        names, person = np.unique(np.array(people, dtype=np.str_), return_inverse=True)
        self.count = len(names)
        """How many people there are."""
        self._clips = np.argsort(person, kind="stable")
        """(N,) the clips as they stand in the line."""
        self._place = np.argsort(self._clips)
        """(N,) where in the line each clip stands."""
        ordered = np.asarray(counts, np.int64)[self._clips]
        self._ends = np.append(0, np.cumsum(ordered))
        """(N + 1,) windows before each place of the line, and all."""
        self._people = np.searchsorted(person[self._clips], np.arange(self.count + 1))
        """(P + 1,) first place of each person in the line, and the end."""
        self._person = person

    def __call__(
        self, kind: Kind, clips: Integers, numbers: Integers, positions: Integers, key: int
    ) -> tuple[Integers, Integers]:
        """Clips (B,), and numbers (B,) in them, of the partners of windows ``numbers`` (B,) of ``clips`` (B,).

        Where a person has one clip, the partner is another window of that; where a clip has one window, that window.
        """
        place, person = self._place[clips], self._person[clips]
        window = self._ends[place] + numbers
        own = (window, window + 1)
        clip = (self._ends[place], self._ends[place + 1])
        body = (self._ends[self._people[person]], self._ends[self._people[person + 1]])
        line = (np.zeros_like(window), np.full_like(window, self._ends[-1]))
        stretches = {"same_clip": [(clip, own)], "same_person": [(clip, own), (body, clip)], "other_person": [(line, body)]}
        found = window
        for (start, stop), (hole, filled) in stretches[kind]:
            room = (stop - start) - (filled - hole)
            drawn = start + draw(positions, np.maximum(room, 1), key)
            found = np.where(room > 0, drawn + (drawn >= hole) * (filled - hole), found)
        place = np.searchsorted(self._ends, found, side="right") - 1
        return self._clips[place], found - self._ends[place]

    def others(self, kind: Kind, clip: int, damaged: int) -> Integers:
        """The clips that may stand in for a ``damaged`` one as a partner of ``clip``, those that follow it in the line first."""
        places = np.roll(np.arange(len(self._clips)), -int(self._place[damaged]) - 1)
        found = self._clips[places]
        same = self._person[found] == self._person[clip]
        allowed = {"same_clip": found == clip, "same_person": same, "other_person": ~same}[kind]
        # Last of all, a clip is its own partner.
        chosen = found[allowed & (found != damaged) & (found != clip)]
        return chosen if kind == "other_person" else np.append(chosen, clip)
