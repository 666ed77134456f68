"""What is behind the person: a room out of focus."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray


def backdrop(width: int, height: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """A picture (H, W, 3) of light from 0 to 1: a wall with a gradient and a few blurred things of other colours."""
    shorter = min(width, height)
    tint = rng.uniform(0.15, 0.45) * (1 + 0.08 * rng.standard_normal(3))
    slope = rng.uniform(-0.3, 0.3, 2)
    x, y = np.meshgrid(np.linspace(-0.5, 0.5, width), np.linspace(-0.5, 0.5, height))
    picture = (tint * (1 + slope[0] * x + slope[1] * y)[..., None]).astype(np.float32)
    for _ in range(6):
        colour = rng.uniform(0.05, 0.45) * (1 + 0.12 * rng.standard_normal(3))
        corner = rng.uniform(-0.1, 0.9, 2) * (width, height)
        size = rng.uniform(0.08, 0.4, 2) * shorter
        left, top = (int(c) for c in corner)
        right, bottom = (int(c + s) for c, s in zip(corner, size, strict=True))
        cv2.rectangle(picture, (left, top), (right, bottom), colour.tolist(), cv2.FILLED)
    blurred = cv2.GaussianBlur(picture, (0, 0), 0.025 * shorter, borderType=cv2.BORDER_REPLICATE)
    return np.asarray(np.clip(blurred, 0.01, 1), np.float32)
