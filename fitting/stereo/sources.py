"""Which neighbours each view is matched with."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fitting.cameras import Camera

BEST_ANGLE = 15.0
"""Degrees between the rays of two views to one point: less is less exact in depth, more looks less alike."""

FLAT = 1.0
"""Levels of 255: a picture with a smaller deviation shows nothing (a camera that failed)."""


def choose_sources(
    cameras: Camera, distance: float, count: int = 4, *, angles: tuple[float, float] = (4.0, 40.0), usable: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """For each of C ``cameras`` up to ``count`` others to match it with, best first: (C, count), -1 where there are fewer.

    Others are judged by the angle in degrees that they make with the camera as seen from the point at ``distance`` metres on
    its axis: within ``angles``, the nearer to 15 the better. Of cameras that are not ``usable`` (C,) nobody is a neighbour.
    """
    centres = cameras.centre.double().numpy()
    axes = cameras.world_to_camera[:, 2, :3].double().numpy()
    targets = centres + distance * axes
    to_camera = centres[None] - targets[:, None]
    to_camera /= np.linalg.norm(to_camera, axis=-1, keepdims=True)
    own = to_camera[np.arange(len(centres)), np.arange(len(centres))]
    angle = np.degrees(np.arccos((own[:, None] * to_camera).sum(axis=-1).clip(-1, 1)))
    possible = (angle >= angles[0]) & (angle <= angles[1]) & usable & ~np.eye(len(centres), dtype=bool)
    cost = np.where(possible, np.abs(angle - BEST_ANGLE), np.inf)
    order = np.argsort(cost, axis=1, kind="stable")[:, :count]
    chosen = np.where(np.isfinite(np.take_along_axis(cost, order, axis=1)), order, -1)
    return np.pad(chosen, ((0, 0), (0, count - chosen.shape[1])), constant_values=-1)


def shows_something(pictures: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which of ``pictures`` (C, H, W, 3) are not all of one colour: (C,)."""
    return np.array([picture[::4, ::4].astype(np.float32).std(axis=(0, 1)).max() > FLAT for picture in pictures])
