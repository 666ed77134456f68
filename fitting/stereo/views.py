"""What goes into multi-view stereo and what comes out: pictures with cameras, depth maps, a cloud."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fitting.cameras import Camera

Floats = NDArray[np.float32]


class Views(NamedTuple):
    """One moment as C calibrated cameras see it."""

    pictures: NDArray[np.uint8]
    """(C, H, W, 3) RGB, in true colours."""
    cameras: Camera
    """A batch (C,) for pictures of that size, without distortion."""
    masks: NDArray[np.bool_] | None = None
    """(C, H, W) where the person is; None is everywhere."""


class DepthMaps(NamedTuple):
    """A depth and a normal for each pixel of each view, at the pixel's centre."""

    depth: Floats
    """(C, H, W) metres along the optical axis, 0 where there is none."""
    normals: Floats
    """(C, H, W, 3) unit, in the camera's axes, facing the camera; 0 where there is none."""
    confidence: Floats
    """(C, H, W) 0 to 1: the normalised cross-correlation with the neighbours; 0 where there is no depth."""


class Cloud(NamedTuple):
    """N points of a surface."""

    points: Floats
    """(N, 3) metres in the world."""
    normals: Floats
    """(N, 3) unit, in the world, out of the surface."""
    colours: NDArray[np.uint8]
    """(N, 3) RGB."""
    confidence: Floats
    """(N,) how many views agree."""


def check(views: Views) -> Views:
    """The views. Raises ``ValueError`` where pictures, cameras and masks do not belong together or a lens still bends."""
    pictures, cameras, masks = views
    if pictures.ndim != 4 or pictures.shape[-1] != 3 or pictures.dtype != np.uint8:
        raise ValueError(f"pictures are (C, H, W, 3) uint8, got {pictures.shape} {pictures.dtype}")
    count, height, width, _ = pictures.shape
    if count < 2:
        raise ValueError(f"stereo takes at least two views, got {count}")
    if cameras.batch != (count,) or (cameras.width, cameras.height) != (width, height):
        have = f"{cameras.batch} cameras of {cameras.width}x{cameras.height}"
        raise ValueError(f"{count} pictures of {width}x{height} want as many cameras of that size, got {have}: see Camera.resize")
    if cameras.distortion is not None:
        raise ValueError("stereo takes pinholes: undistort the pictures and give cameras.pinhole()")
    if masks is not None and (masks.shape != (count, height, width) or masks.dtype != np.bool_):
        raise ValueError(f"masks are {(count, height, width)} bool, got {masks.shape} {masks.dtype}")
    return views


def check_maps(views: Views, maps: DepthMaps) -> DepthMaps:
    """The maps. Raises ``ValueError`` where they are not those of the ``views``."""
    size = views.pictures.shape[:3]
    shapes = (maps.depth.shape, maps.normals.shape, maps.confidence.shape)
    if shapes != (size, (*size, 3), size):
        raise ValueError(f"depth maps of views {size} have that shape, normals three more channels; got {shapes}")
    return maps
