"""Random numbers that do not depend on how a batch is shared out.

They are drawn for the whole global batch, on the CPU, under a key; a rank, or a part of a rank's batch, takes its own rows. So
one process, eight GPUs and a resumed run see the same noise.
"""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from training.order import key_of


class Draws:
    """Numbers for rows ``start`` to ``stop`` of a batch of ``count``, under ``key``. Each call draws anew."""

    def __init__(self, key: int, count: int, rows: tuple[int, int] | None = None, device: torch.device | str = "cpu") -> None:
        self.count, self._key, self._device = count, key, device
        self._rows = rows or (0, count)
        self._calls = 0

    def normal(self, *shape: int) -> Tensor:
        """(B, *shape) standard normal."""
        return self._own(torch.randn(self.count, *shape, generator=self._generator()))

    def uniform(self, *shape: int) -> Tensor:
        """(B, *shape) in [0, 1)."""
        return self._own(torch.rand(self.count, *shape, generator=self._generator()))

    def integers(self, end: int, *shape: int) -> Tensor:
        """(B, *shape) int64, 0 to ``end`` - 1."""
        return self._own(torch.randint(end, (self.count, *shape), generator=self._generator()))

    def part(self, start: int, stop: int) -> Self:
        """The draws of the own rows ``start`` to ``stop``, from the first call on."""
        first = self._rows[0]
        return type(self)(self._key, self.count, (first + start, first + stop), self._device)

    def _generator(self) -> torch.Generator:
        self._calls += 1
        return torch.Generator().manual_seed(key_of(self._key, self._calls) >> 1)

    def _own(self, drawn: Tensor) -> Tensor:
        return drawn[slice(*self._rows)].to(self._device)
