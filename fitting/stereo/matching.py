"""How alike two views are where a surface is supposed to be: normalised cross-correlation of windows.

The neighbour is warped into the view through a whole map of inverse depths, one for each pixel, and then windows are compared by
box filters. So a window is warped as the surface in it is bent, not as if it faced the camera.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from fitting.cameras import Camera
from fitting.stereo.views import Floats


class Box(NamedTuple):
    """A part of a picture, in pixels; right and bottom are behind the last."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """What cuts it out of a picture (H, W)."""
        return slice(self.top, self.bottom), slice(self.left, self.right)


class Windows:
    """The view's own side of the comparison: a grey picture (H, W) whose windows of ``2 radius + 1`` pixels are compared.

    Only pixels of ``mask`` (H, W) count in a window. ``noise`` is the deviation in levels below which a window shows nothing.
    """

    def __init__(self, grey: Floats, mask: NDArray[np.bool_] | None, radius: int, noise: float) -> None:
        self.size = (2 * radius + 1, 2 * radius + 1)
        self.floor = noise**2
        self.weight = None if mask is None else mask.astype(np.float32)
        self.scale = None if self.weight is None else 1 / np.maximum(cv2.blur(self.weight, self.size), 1e-6)
        # Seen from its mean, so that squares keep their digits.
        self.centre = float(grey.mean())
        self.grey = grey - self.centre
        self.mean = self._mean(self.grey)
        self.sharpness = 1 / np.sqrt(np.maximum(self._mean(self.grey**2) - self.mean**2, 0) + self.floor)

    def correlation(self, other: Floats) -> Floats:
        """(H, W) from -1 to 1, of each window with the same of ``other`` (H, W), a neighbour's picture warped here."""
        other = other - self.centre
        mean = self._mean(other)
        variance = np.maximum(self._mean(other * other) - mean * mean, 0)
        variance += self.floor
        covariance = self._mean(self.grey * other) - self.mean * mean
        covariance *= self.sharpness
        covariance /= np.sqrt(variance)
        return covariance

    def _mean(self, values: Floats) -> Floats:
        if self.weight is None or self.scale is None:
            return np.asarray(cv2.blur(values, self.size), np.float32)
        return np.asarray(cv2.blur(values * self.weight, self.size) * self.scale, np.float32)


class Warp:
    """From the pixels of a ``box`` of one camera's picture to another's: p = (A (x, y, 1) + b w) up to scale, w = 1 / depth."""

    def __init__(self, camera: Camera, other: Camera, box: Box) -> None:
        between = other.pose.compose(camera.pose.inverse())
        onto = other.intrinsics.double() @ between.rotation @ camera.intrinsics.double().inverse()
        x, y = np.meshgrid(np.arange(box.left, box.right) + 0.5, np.arange(box.top, box.bottom) + 0.5)
        pixels = np.stack([x, y, np.ones_like(x)])
        at_infinity = np.tensordot(onto.numpy(), pixels, axes=1)
        self.middle = at_infinity[:, at_infinity.shape[1] // 2, at_infinity.shape[2] // 2]
        self.moves = (other.intrinsics.double() @ between.translation).numpy()
        # OpenCV's centres are at integers: x - 0.5 = ((a - a₂ / 2) + (b - b₂ / 2) w) / (a₂ + b₂ w).
        shift = np.array([0.5, 0.5, 0.0])
        self._a = (at_infinity - shift[:, None, None] * at_infinity[2]).astype(np.float32)
        self._b = (self.moves - shift * self.moves[2]).astype(np.float32)

    def pixels(self, inverse: Floats) -> tuple[Floats, Floats]:
        """x and y in the other picture, centres of pixels at integers as OpenCV wants them; far outside where behind it."""
        x, y, depth = (start + move * inverse for start, move in zip(self._a, self._b, strict=True))
        behind = depth <= 1e-6
        if behind.any():
            depth[behind], x[behind], y[behind] = 1, -1e4, -1e4
        x /= depth
        y /= depth
        return x, y

    def __call__(self, picture: Floats, inverse: Floats, interpolation: int = cv2.INTER_LINEAR) -> Floats:
        """The other ``picture`` as the camera would see it if its pixels had these ``inverse`` depths."""
        x, y = self.pixels(inverse)
        return np.asarray(cv2.remap(picture, x, y, interpolation, borderMode=cv2.BORDER_REPLICATE), np.float32)

    def speed(self, inverse: float) -> float:
        """Pixels that the middle of the box moves for a change of inverse depth by 1 / m."""
        seen = self.middle + self.moves * inverse
        b = self.moves
        return float(np.hypot(*((b[:2] * seen[2] - seen[:2] * b[2]) / seen[2] ** 2)))
