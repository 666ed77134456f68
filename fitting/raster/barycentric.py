"""Where on its visible face a pixel lies, and how deep, with derivatives; the work is that of the pixels that are hit.

With Eₖ, twice the area between the pixel's centre and the side opposite corner k in the picture, and wₖ = Eₖ / zₖ, the
perspective-correct weight of the corner is bₖ = wₖ / Σw and the depth is ΣE / Σw. Everything is computed in float64, since the
sides of a face seen edge-on are all but parallel.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fitting.raster.pieces import at_once, pick


def inside(points: Tensor, faces: Tensor, face: Tensor) -> tuple[Tensor, Tensor]:
    """Barycentrics (B, H, W, 3) and depths (B, H, W) for the visible ``face`` (B, H, W); 0 where that is -1.

    Once differentiable by ``points`` (B, V, 3). Nothing but the arguments is kept for that.
    """
    barycentric, depth = _Inside.apply(points, faces, face)
    return barycentric, depth


class _Inside(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, points: Tensor, faces: Tensor, face: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(points, faces, face)
        barycentric, depth = points.new_zeros(face.numel(), 3), points.new_zeros(face.numel())
        for seen in _pixels(points, faces, face):
            barycentric.index_copy_(0, seen.pixel, torch.stack([w / seen.total for w in seen.weight], dim=1).to(points.dtype))
            depth.index_copy_(0, seen.pixel, (sum(seen.edge) / seen.total).to(points.dtype))
        return barycentric.unflatten(0, face.shape), depth.unflatten(0, face.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_barycentric: Tensor, by_depth: Tensor) -> tuple[Tensor, None, None]:
        points, faces, face = ctx.saved_tensors
        by_barycentric, by_depth = by_barycentric.flatten(0, 2), by_depth.flatten()
        by_point = torch.zeros(3, points.shape[0] * points.shape[1], dtype=torch.float64, device=points.device)
        for corner, pixel, x, y, z, edge, weight, total in _pixels(points, faces, face):
            by_b = by_barycentric.index_select(0, pixel).double().unbind(1)
            by_d = pick(by_depth, pixel).double()
            # The sum of all weights is below every result.
            by_total = -sum(b * w for b, w in zip(by_b, weight, strict=True)) / total - by_d * sum(edge) / total
            by_weight = [(b + by_total) / total for b in by_b]
            by_edge = [w / depth + by_d / total for w, depth in zip(by_weight, z, strict=True)]
            for k, after, last in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
                by_point[0].index_add_(0, corner[k], by_edge[last] * y[after] - by_edge[after] * y[last])
                by_point[1].index_add_(0, corner[k], by_edge[after] * x[last] - by_edge[last] * x[after])
                by_point[2].index_add_(0, corner[k], -by_weight[k] * weight[k] / z[k])
        return by_point.T.to(points.dtype).unflatten(0, points.shape[:2]), None, None


class _Pixels(NamedTuple):
    """Some pixels that are hit: tensors are (P,), lists have one for each corner of the visible face."""

    corner: list[Tensor]
    """Indices of points, through all images."""
    pixel: Tensor
    """int64, through all images."""
    x: list[Tensor]
    """Pixels from the pixel's centre."""
    y: list[Tensor]
    z: list[Tensor]
    edge: list[Tensor]
    """E."""
    weight: list[Tensor]
    """w."""
    total: Tensor
    """Σw."""


def _pixels(points: Tensor, faces: Tensor, face: Tensor) -> Iterator[_Pixels]:
    _, height, width = face.shape
    face = face.flatten()
    columns = [column.flatten().double() for column in points.detach().unbind(-1)]
    corners_of_faces = faces.T.contiguous()
    for pixel in (face >= 0).nonzero()[:, 0].split(at_once(face)):
        line = pixel // width
        visible, first_point = pick(face, pixel), line // height * points.shape[1]
        corner = [pick(corners, visible).add_(first_point) for corners in corners_of_faces]
        x_centre, y_centre = (pixel - line * width).double().add_(0.5), (line % height).double().add_(0.5)
        x = [pick(columns[0], index).sub_(x_centre) for index in corner]
        y = [pick(columns[1], index).sub_(y_centre) for index in corner]
        z = [pick(columns[2], index) for index in corner]
        edge = [x[i] * y[j] - x[j] * y[i] for i, j in ((1, 2), (2, 0), (0, 1))]
        weight = [area / depth for area, depth in zip(edge, z, strict=True)]
        yield _Pixels(corner, pixel, x, y, z, edge, weight, weight[0] + weight[1] + weight[2])
