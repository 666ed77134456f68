"""Who is trained on, validated on, tested on: people are dealt out whole, so no split has seen another's faces or voices."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

import numpy as np

from manifests.training import Split
from training.order import key_of

Part = Literal["train", "val", "test"]
PARTS: tuple[Part, ...] = ("train", "val", "test")


def parts_of(people: Collection[str], split: Split) -> dict[str, Part]:
    """The part of each of ``people``.

    They are put in an order that depends on the split's seed and on their names alone, and cut by its shares, each part
    that has a share getting at least one of them where there are enough. So a person who joins later moves few others.
    """
    names = sorted(set(people), key=lambda name: key_of("split", split.seed, name))
    shares = np.array([split.train, split.val, split.test])
    counts = np.floor(len(names) * shares).astype(int)
    asked = shares > 0
    # What rounding left goes to the parts that lack most, first of all to those with nobody.
    for _ in range(len(names) - int(counts.sum())):
        lack = len(names) * shares - counts + asked * (counts == 0)
        counts[int(lack.argmax())] += 1
    return dict(zip(names, (part for part, count in zip(PARTS, counts, strict=True) for _ in range(count)), strict=True))
