"""The depth maps that NeRSemble's first release ships: COLMAP's, as 16-bit steps."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fitting.stereo.planes import fit_planes, plane_normals
from fitting.stereo.views import DepthMaps, Views, check
from prep.capture import DEPTH_STEPS

_EDGE = 0.01
"""Depths that differ by more, as a share, do not belong to one plane."""


def from_shipped(views: Views, steps: NDArray[np.uint16], *, depth_range: tuple[float, float] = (0.8, 1.4)) -> DepthMaps:
    """Depth maps out of the shipped ``steps`` (C, H, W) uint16, 0 for views without one; normals from the depth around each.

    Depths outside ``depth_range`` in metres are left out, as the release's own reader does, and so are single pixels that
    have no plane. Confidence is 1. Raises ``ValueError`` for maps of another size or type.
    """
    if steps.shape != check(views).pictures.shape[:3] or steps.dtype != np.uint16:
        raise ValueError(f"shipped depth is {views.pictures.shape[:3]} uint16, got {steps.shape} {steps.dtype}")
    depth = (steps.astype(np.float32) - 1) / DEPTH_STEPS
    depth[(steps == 0) | (depth < depth_range[0]) | (depth > depth_range[1])] = 0
    normals = np.zeros((*depth.shape, 3), np.float32)
    intrinsics = views.cameras.intrinsics.double().numpy()
    for view, held in enumerate(depth):
        known = held > 0
        if known.any():
            inverse = np.where(known, 1 / np.where(known, held, 1), 0).astype(np.float32)
            planes = fit_planes(inverse, known.astype(np.float32), _EDGE * float(np.median(inverse[known])))
            normals[view] = plane_normals(planes, intrinsics[view]) * known[..., None]
    known = (depth > 0) & normals.any(axis=-1)
    return DepthMaps(np.where(known, depth, np.float32(0)), normals, known.astype(np.float32))
