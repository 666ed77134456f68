"""Which faces are drawn at all. Every way of finding the visible ones asks here first, so that they agree."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

NEAR = 0.01
"""Metres. A face with a corner at this depth or nearer is not drawn."""

FARTHEST = 1e15
"""Pixels. A face with a corner further from the image's corner is not drawn; float64 would overflow later on."""

THINNEST = 1e-12
"""A face is not drawn where its doubled area is below this share of its extent squared: barycentrics mean nothing there."""


class Corners(NamedTuple):
    """The corners of all faces in float64; the dimension of 3 counts a face's corners."""

    x: Tensor
    """(B, 3, F) pixels."""
    y: Tensor
    """(B, 3, F) pixels."""
    z: Tensor
    """(B, 3, F) metres."""
    doubled_area: Tensor
    """(B, F) pixels², negative where the corners run counter-clockwise in the picture: those faces show their front."""


def corners(points: Tensor, faces: Tensor) -> Corners:
    """The corners of ``faces`` (F, 3) for ``points`` (B, V, 3); no gradient."""
    index = faces.T.flatten()
    # One coordinate after the other, so that all later arithmetic runs over contiguous numbers.
    columns = points.detach().permute(2, 0, 1).double()
    x, y, z = (column.index_select(1, index).unflatten(1, (3, -1)) for column in columns)
    doubled_area = (x[:, 1] - x[:, 0]) * (y[:, 2] - y[:, 0]) - (y[:, 1] - y[:, 0]) * (x[:, 2] - x[:, 0])
    return Corners(x, y, z, doubled_area)


def drawable(seen: Corners, *, near: float, cull_backfaces: bool) -> Tensor:
    """(B, F) bool: in front of the camera, finite, not degenerate, and not seen from behind where those are culled."""
    x_low, x_high, y_low, y_high = lowest(seen.x), highest(seen.x), lowest(seen.y), highest(seen.y)
    # A comparison with NaN is false, so these also leave out what is not finite.
    inside = (x_low > -FARTHEST) & (x_high < FARTHEST) & (y_low > -FARTHEST) & (y_high < FARTHEST)
    inside &= (lowest(seen.z) > near) & (highest(seen.z) < torch.inf)
    area = -seen.doubled_area if cull_backfaces else seen.doubled_area.abs()
    extent = torch.maximum(x_high - x_low, y_high - y_low)
    return inside & (area > THINNEST * extent * extent)


def lowest(corner: Tensor) -> Tensor:
    """(B, F) of (B, 3, F); NaN where one is."""
    return torch.minimum(torch.minimum(corner[:, 0], corner[:, 1]), corner[:, 2])


def highest(corner: Tensor) -> Tensor:
    """(B, F) of (B, 3, F); NaN where one is."""
    return torch.maximum(torch.maximum(corner[:, 0], corner[:, 1]), corner[:, 2])
