"""Planes fitted to maps of inverse depth.

On a plane the inverse depth is an affine function of the pixel: with n · X = d, w = 1 / z and X = z K⁻¹ (x, y, 1), it is
w = (n / d) · K⁻¹ (x, y, 1). So a plane is fitted by linear least squares, and its normal is Kᵀ times the three coefficients.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from fitting.stereo.views import Floats


class Planes(NamedTuple):
    """A plane at each pixel of a map (H, W)."""

    inverse: Floats
    """1 / m at the pixel, 0 where there is none."""
    along_x: Floats
    """Its change from pixel to pixel to the right."""
    along_y: Floats
    """And downwards."""


def fit_planes(inverse: Floats, weight: Floats, tolerance: float, *, radius: int = 4, stride: int = 2, least: int = 6) -> Planes:
    """Planes through the pixels around each pixel of ``inverse`` (H, W), by weighted least squares.

    Pixels to ``radius``, every ``stride``-th, take part with their ``weight`` (H, W), where it is positive, unless they are
    further than ``tolerance`` from the median of the 5 x 5 around the pixel itself: an edge in depth stays one. Where fewer
    than ``least`` of them take part there is no plane.
    """
    height, width = inverse.shape
    known = weight > 0
    centre = _median(inverse, known)
    padded = np.pad(inverse, radius)
    weights = np.pad(np.where(known, weight, 0).astype(np.float32), radius)
    sums = np.zeros((9, height, width), np.float32)
    number = np.zeros((height, width), np.float32)
    for down in range(-radius, radius + 1, stride):
        for right in range(-radius, radius + 1, stride):
            part = (slice(radius + down, radius + down + height), slice(radius + right, radius + right + width))
            offset = padded[part] - centre
            share = weights[part] * (np.abs(offset) <= tolerance)
            number += share > 0
            weighted = share * offset
            terms = (share, right * share, down * share, right**2 * share, right * down * share, down**2 * share)
            for index, term in enumerate((*terms, weighted, right * weighted, down * weighted)):
                sums[index] += term
    one, x, y, xx, xy, yy, v, vx, vy = sums
    ok = (number >= least) & (centre > 0)
    one = np.where(ok, one, 1)
    mean_x, mean_y, mean_v = x / one, y / one, v / one
    # A little stiffness: a row of pixels says nothing about the slope across it.
    var_x, var_y, cov = xx / one - mean_x**2 + 0.1, yy / one - mean_y**2 + 0.1, xy / one - mean_x * mean_y
    rise_x, rise_y = vx / one - mean_v * mean_x, vy / one - mean_v * mean_y
    determinant = var_x * var_y - cov**2
    along_x = (var_y * rise_x - cov * rise_y) / determinant
    along_y = (var_x * rise_y - cov * rise_x) / determinant
    fitted = centre + mean_v - along_x * mean_x - along_y * mean_y
    return Planes(*(np.where(ok, part, 0).astype(np.float32) for part in (fitted, along_x, along_y)))


def plane_normals(planes: Planes, intrinsics: NDArray[np.float64], corner: tuple[int, int] = (0, 0)) -> Floats:
    """Unit normals (H, W, 3) in the camera's axes that face it, 0 where there is no plane.

    ``corner`` is where the map's top-left pixel is in the picture that ``intrinsics`` (3, 3) are for: x, y.
    """
    height, width = planes.inverse.shape
    x = (np.arange(width) + 0.5 + corner[0]).astype(np.float32)
    y = (np.arange(height) + 0.5 + corner[1]).astype(np.float32)[:, None]
    constant = planes.inverse - planes.along_x * x - planes.along_y * y
    normals = -np.stack([planes.along_x, planes.along_y, constant], axis=-1) @ intrinsics.astype(np.float32)
    length = np.linalg.norm(normals, axis=-1, keepdims=True)
    known = (planes.inverse > 0)[..., None] & (length > 0)
    return np.where(known, normals / np.where(known, length, 1), 0).astype(np.float32)


def fill(inverse: Floats, known: NDArray[np.bool_]) -> Floats:
    """The map with a value everywhere: holes get the mean of what is known around them, the nearer the earlier.

    Zero everywhere where nothing is known.
    """
    value, weight = np.where(known, inverse, 0).astype(np.float32), known.astype(np.float32)
    pyramid = [(value, weight)]
    while max(pyramid[-1][0].shape) > 1:
        above, size = pyramid[-1], tuple((side + 1) // 2 for side in pyramid[-1][0].shape[::-1])
        pyramid.append(tuple(cv2.resize(part, size, interpolation=cv2.INTER_AREA) for part in above))
    total, share = pyramid[-1]
    found = total / np.maximum(share, 1e-12)
    for value, weight in reversed(pyramid[:-1]):
        larger = cv2.resize(found, value.shape[::-1], interpolation=cv2.INTER_LINEAR)
        found = np.where(weight > 1e-3, value / np.maximum(weight, 1e-3), larger)
    return np.asarray(found, np.float32)


def _median(inverse: Floats, known: NDArray[np.bool_]) -> Floats:
    """The median of 5 x 5 pixels where the pixel is known, else the mean of its surroundings."""
    return np.asarray(cv2.medianBlur(fill(inverse, known), 5), np.float32)
