"""The processes that train together, and what they tell each other. One process alone is the common case and sends nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as distributed
from torch import Tensor, nn


@dataclass(frozen=True)
class Ranks:
    """Which of how many processes this is."""

    rank: int = 0
    count: int = 1

    @classmethod
    def current(cls) -> Ranks:
        """Of the process group that was begun, if there is one."""
        return cls(distributed.get_rank(), distributed.get_world_size()) if distributed.is_initialized() else cls()

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """``values`` (N,) of all processes, added up."""
        if self.count > 1:
            distributed.all_reduce(values)
        return values

    def gather(self, value: Any) -> list[Any]:
        """The ``value`` of every process."""
        found: list[Any] = [value] * self.count
        if self.count > 1:
            distributed.all_gather_object(found, value)
        return found

    def share(self, model: nn.Module) -> None:
        """Give all processes the weights and buffers of the first one."""
        if self.count > 1:
            for values in model.state_dict().values():
                distributed.broadcast(values, 0)

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Add up gradients in one message. Parameters that had no part in the loss get gradients of zero, as they do alone."""
        chosen = [parameter for parameter in parameters if parameter.requires_grad]
        for parameter in chosen:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        if self.count > 1:
            gradients = [parameter.grad for parameter in chosen if parameter.grad is not None]
            together = self.sum(torch.cat([gradient.flatten() for gradient in gradients]))
            for gradient, part in zip(gradients, together.split([gradient.numel() for gradient in gradients]), strict=True):
                gradient.copy_(part.view_as(gradient))

    def wait(self) -> None:
        """Until all processes have come here."""
        if self.count > 1:
            distributed.barrier()
