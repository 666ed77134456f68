"""Taking away what is not to be believed or not wanted: from depth maps, and from clouds."""

from __future__ import annotations

import math

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from fitting.stereo.agreement import only
from fitting.stereo.views import Cloud, DepthMaps, Views, check, check_maps


def clean_maps(
    views: Views,
    maps: DepthMaps,
    *,
    depth_range: tuple[float, float] | None = None,
    max_slant_deg: float | None = 80.0,
    least_patch: int = 0,
) -> DepthMaps:
    """The maps without what lies outside the views' masks or the ``depth_range`` in metres, what is seen at a flatter angle
    than ``max_slant_deg`` between ray and normal, and patches of fewer than ``least_patch`` pixels that nothing joins to others.

    Raises ``ValueError`` for maps of other views.
    """
    check_maps(check(views), maps)
    kept = maps.depth > 0
    if views.masks is not None:
        kept &= views.masks
    if depth_range is not None:
        kept &= (maps.depth >= depth_range[0]) & (maps.depth <= depth_range[1])
    if max_slant_deg is not None:
        kept &= _facing(views, maps) >= math.cos(math.radians(max_slant_deg))
    if least_patch > 0:
        for held in kept:
            _, labels, found, _ = cv2.connectedComponentsWithStats(held.astype(np.uint8), connectivity=4)
            held &= found[labels, cv2.CC_STAT_AREA] >= least_patch
    return only(maps, kept)


def clean(
    cloud: Cloud,
    *,
    views: Views | None = None,
    least_views: int = 1,
    inside_share: float = 0.9,
    plane: tuple[float, float, float, float] | None = None,
) -> Cloud:
    """The points that at least ``least_views`` agree on; that lie in the masks of ``views``, and before a ``plane``.

    A point of the person is in the mask of every view that has it in its picture, seen or hidden: a share of ``inside_share``
    of those must say so, to a pixel. A ``plane`` (a, b, c, d) keeps a x + b y + c z + d ≥ 0 in the world's metres: with the
    throat's, what is below is cut off. Raises ``ValueError`` for views without masks, and a plane without direction.
    """
    kept = cloud.confidence >= least_views
    if plane is not None:
        normal = np.array(plane[:3])
        if not np.isfinite(plane).all() or not normal.any():
            raise ValueError(f"a plane is (a, b, c, d), not all of a, b, c zero, got {plane}")
        kept &= cloud.points @ normal + plane[3] >= 0
    if views is not None:
        if check(views).masks is None:
            raise ValueError("views without masks do not say what is the person: leave views out")
        kept &= _share_inside(cloud, views) >= inside_share
    return Cloud(cloud.points[kept], cloud.normals[kept], cloud.colours[kept], cloud.confidence[kept])


def _share_inside(cloud: Cloud, views: Views) -> NDArray[np.float64]:
    """(N,) the share of the views that have the point in the picture whose masks, a pixel wider, hold it; 0 where none has it."""
    assert views.masks is not None
    masks = np.stack([cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8)) for mask in views.masks]) > 0
    pixels, depth = (part.numpy() for part in views.cameras.project(torch.from_numpy(cloud.points).double()))
    size = np.array([views.cameras.width, views.cameras.height])
    pictured = (depth > 0) & (pixels >= 0).all(axis=-1) & (pixels < size).all(axis=-1)
    column, row = np.where(pictured[..., None], pixels, 0).astype(np.int64).transpose(2, 0, 1)
    inside = pictured & masks[np.arange(len(row))[:, None], row, column]
    share: NDArray[np.float64] = inside.sum(axis=0) / np.maximum(pictured.sum(axis=0), 1)
    return share


def _facing(views: Views, maps: DepthMaps) -> NDArray[np.float32]:
    """(C, H, W) cosine of the angle between the way to the camera and the normal."""
    height, width = maps.depth.shape[1:]
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    inverse = np.linalg.inv(views.cameras.intrinsics.double().numpy())
    rays = np.einsum("cij,jhw->chwi", inverse, np.stack([x, y, np.ones_like(x)])).astype(np.float32)
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    cosine: NDArray[np.float32] = -(rays * maps.normals).sum(axis=-1)
    return cosine
