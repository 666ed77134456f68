"""The pixels of aligned crops: one resampling from the frame, filtered against aliasing, at any sub-pixel place.

A crop is the frame scaled and moved, so resampling is a weighted sum along rows, then one along columns. The weights are
those of the bicubic kernel, widened when the frame is made smaller (as Pillow does), taken at the exact place.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fitting.bfm.alignment import Alignment
from fitting.bfm.camera import SIZE

BLOCK = 8
"""Frames resampled at once: bounds the memory to some hundred MB with large frames."""

SUPPORT = 2.0
"""Reach of the kernel to each side, in pixels of the coarser of frame and crop."""


def cut(frames: Tensor, alignment: Alignment) -> Tensor:
    """Crops (T, 3, 224, 224) float32 in 0..1, which is what the network takes, of RGB ``frames`` (T, H, W, 3) uint8.

    ``alignment`` is that of T frames; what lies outside a frame is black. In mode ``deep3d`` the crops are those of the
    published code, which resizes with Pillow and rounds to whole numbers after the rows and after the columns. Raises
    ``ValueError`` where frames are of another size than those that were aligned.
    """
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != torch.uint8:
        raise ValueError(f"frames are (T, H, W, 3) of type uint8, got {tuple(frames.shape)} of {frames.dtype}")
    if alignment.scale.shape != (len(frames), 2):
        raise ValueError(f"{len(frames)} frames need an alignment each, got {tuple(alignment.scale.shape[:-1])}")
    height, width = frames.shape[1:3]
    aligned = alignment.trans_params[:, :2]
    if bool((aligned != aligned.new_tensor([width, height])).any()):
        raise ValueError(f"frames are {width} × {height}, but were aligned as {aligned.unique(dim=0).int().tolist()}")
    crops = torch.empty((len(frames), 3, SIZE, SIZE), device=frames.device)
    for start in range(0, len(frames), BLOCK):
        some = slice(start, start + BLOCK)
        scale, offset = (value[some].to(frames.device) for value in (alignment.scale, alignment.offset))
        crops[some] = _resampled(frames[some], scale, offset, alignment.mode == "deep3d")
    return crops.clamp_(0, 255).div_(255)


def _resampled(frames: Tensor, scale: Tensor, offset: Tensor, as_pillow: bool) -> Tensor:
    columns, across = _weights(scale[:, 0], offset[:, 0], frames.shape[2], as_pillow)
    rows, down = _weights(scale[:, 1], offset[:, 1], frames.shape[1], as_pillow)
    region = frames[:, rows, columns].permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
    if as_pillow:
        return _rounded(down[:, None] @ _rounded(region @ across.mT[:, None]))
    return down[:, None] @ (region @ across.mT[:, None])


def _weights(scale: Tensor, offset: Tensor, length: int, as_pillow: bool) -> tuple[slice, Tensor]:
    """Along an axis of ``length`` pixels: those that any of T crops depends on, and their weights (T, 224, pixels).

    Weights of a crop's pixel sum to 1. Beyond the frame's edge there is black, so near it the picture fades out within the
    kernel's reach and moves smoothly; Pillow spreads the weight over what is inside.
    """
    centres = (torch.arange(SIZE, dtype=torch.float64, device=scale.device) + 0.5 - offset[:, None]) / scale[:, None]
    shrink = scale.clamp(max=1)[:, None, None]
    reach = SUPPORT / shrink
    taps = (centres[..., None] - reach).floor() + torch.arange(int(2 * reach.max()) + 2, device=scale.device)
    weights = _bicubic((taps + 0.5 - centres[..., None]) * shrink)
    inside = weights * ((taps >= 0) & (taps < length))
    if as_pillow:
        seen = ((centres > 0) & (centres < length))[..., None]
        inside = torch.where(seen, inside / inside.sum(dim=-1, keepdim=True), 0.0)
    else:
        inside = inside / weights.sum(dim=-1, keepdim=True)
    first = int(taps.min().clamp(0, length - 1))
    end = int(taps.max().clamp(first, length - 1)) + 1
    # Taps outside the frame have no weight: any column may take them.
    columns = taps.clamp(first, end - 1).long() - first
    dense = torch.zeros((*centres.shape, end - first), device=scale.device)
    return slice(first, end), dense.scatter_add_(-1, columns, inside.float())


def _bicubic(x: Tensor) -> Tensor:
    """Keys' kernel with a = -1/2, 1981, eq. 15."""
    x = x.abs()
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, torch.where(x < SUPPORT, far, 0.0))


def _rounded(values: Tensor) -> Tensor:
    return (values + 0.5).floor().clamp(0, 255)
