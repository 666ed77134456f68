"""On what a stage computes. A parameter of stages, not a guess: results differ in their last digits from device to device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

Device = Literal["cpu", "cuda"]

GPU_SHARE = 0.1
"""Of a GPU, that a worker with ``device`` ``cuda`` takes: small networks alone do not fill one."""


def device_of(name: Device) -> torch.device:
    """The device, which is there. Raises ``OSError`` where it is not: the machine lacks it, and the next build tries again."""
    import torch

    if name == "cuda" and not torch.cuda.is_available():
        raise OSError("device cuda was asked for, and PyTorch finds no GPU here: run where there is one, or set device to cpu")
    return torch.device(name)
