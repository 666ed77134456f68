"""What other views say of the points of one: whether their depth maps have the same surface there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fitting.stereo.views import DepthMaps, Floats, Views, check, check_maps


@dataclass(frozen=True, slots=True)
class Tolerance:
    """When two depth maps have the same surface at a point."""

    depth: float = 0.003
    """The largest difference between the two depths along the view's ray, as a share of the depth: 3 mm at a metre."""
    angle: float = 25.0
    """The largest angle between the two normals, in degrees."""


class Agreement(NamedTuple):
    """What one other view says of N points."""

    agrees: NDArray[np.bool_]
    """(N,)."""
    pixel: NDArray[np.int64]
    """(N,) the other's pixel that sees the point, row by row; 0 where none does."""
    depth: Floats
    """(N,) where the ray to the point meets the plane of that pixel, for the first view; anything where they disagree."""


class Surfaces:
    """The depth maps of all views, prepared to be asked about each other's points."""

    def __init__(self, views: Views, maps: DepthMaps, tolerance: Tolerance | None = None) -> None:
        check_maps(check(views), maps)
        self.tolerance = Tolerance() if tolerance is None else tolerance
        poses, self.intrinsics = views.cameras.pose, views.cameras.intrinsics.double().numpy()
        self.rotation, self.translation = poses.rotation.double().numpy(), poses.translation.double().numpy()
        count, self.height, self.width = maps.depth.shape
        self.depth = maps.depth.reshape(count, -1)
        self.normals = maps.normals.reshape(count, -1, 3)
        self.confidence = maps.confidence.reshape(count, -1)

    def rays(self, view: int, pixel: NDArray[np.int64]) -> Floats:
        """(N, 3) in the camera's axes, 1 along the optical axis, through pixels (N,) counted row by row."""
        plane = np.stack([pixel % self.width + 0.5, pixel // self.width + 0.5, np.ones(len(pixel))], axis=1)
        return (plane @ np.linalg.inv(self.intrinsics[view]).T).astype(np.float32)

    def ask(self, view: int, pixel: NDArray[np.int64], other: int) -> Agreement:
        """What ``other`` says of the points of ``view`` at pixels (N,), which have a depth."""
        rays = self.rays(view, pixel)
        turn = (self.rotation[other] @ self.rotation[view].T).astype(np.float32)
        shift = (self.translation[other] - turn @ self.translation[view]).astype(np.float32)
        depth = self.depth[view, pixel]
        along = rays @ turn.T
        seen = along * depth[:, None] + shift
        plane = seen @ self.intrinsics[other].astype(np.float32).T
        before = plane[:, 2] > 1e-6
        scale = 1 / np.where(before, plane[:, 2], 1)
        column, row = np.floor(plane[:, 0] * scale), np.floor(plane[:, 1] * scale)
        inside = before & (column >= 0) & (column < self.width) & (row >= 0) & (row < self.height)
        there = np.where(inside, row * self.width + column, 0).astype(np.int64)
        theirs = self.depth[other, there]
        normal = self.normals[other, there]
        point = self.rays(other, there) * theirs[:, None]
        # n · (z R d + t - p) = 0 for z.
        facing = (normal * along).sum(axis=1)
        agrees = inside & (theirs > 0) & (facing < -0.1)
        met = (normal * (point - shift)).sum(axis=1) / np.where(agrees, facing, -1)
        agrees &= np.abs(met - depth) <= self.tolerance.depth * depth
        agrees &= np.abs(theirs - seen[:, 2]) <= 4 * self.tolerance.depth * theirs
        alike = (normal * (self.normals[view, pixel] @ turn.T)).sum(axis=1)
        agrees &= alike >= np.cos(np.radians(self.tolerance.angle))
        return Agreement(agrees, there, met.astype(np.float32))


def consistent(views: Views, maps: DepthMaps, *, least: int = 2, tolerance: Tolerance | None = None) -> DepthMaps:
    """The maps without the depths that fewer than ``least`` views have, the view itself counted."""
    surfaces = Surfaces(views, maps, tolerance)
    kept = np.zeros(surfaces.depth.shape, bool)
    centres = views.cameras.centre.double().numpy()
    for view in range(len(kept)):
        pixel = np.flatnonzero(surfaces.depth[view] > 0)
        agreeing = np.ones(len(pixel), np.int64)
        # The nearest first: where enough of them agree, nobody else is asked.
        for other in np.argsort(np.linalg.norm(centres - centres[view], axis=1), kind="stable")[1:]:
            open_ = np.flatnonzero(agreeing < least)
            agreeing[open_] += surfaces.ask(view, pixel[open_], int(other)).agrees
        kept[view, pixel] = agreeing >= least
    return only(maps, kept.reshape(maps.depth.shape))


def only(maps: DepthMaps, kept: NDArray[np.bool_]) -> DepthMaps:
    """The maps where ``kept`` (C, H, W)."""
    zero = np.float32(0)
    return DepthMaps(
        np.where(kept, maps.depth, zero), np.where(kept[..., None], maps.normals, zero), np.where(kept, maps.confidence, zero)
    )
