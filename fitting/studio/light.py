"""The studio's light: a sky, a key lamp and a fill lamp, as spherical harmonics; and the sensor's noise."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fitting.lighting import AMBIENT, spherical_harmonics

_ORDER = torch.tensor([0] + 3 * [1] + 5 * [2])
_KEPT = torch.tensor([math.pi, 2 * math.pi / 3, math.pi / 4], dtype=torch.float64)[_ORDER]
"""What a matt surface keeps of each band (Ramamoorthi and Hanrahan, 2001)."""

_FACTOR = torch.tensor([math.pi, 2 * math.pi / math.sqrt(3), 2 * math.pi / math.sqrt(8)], dtype=torch.float64)[_ORDER]
"""What ``spherical_harmonics``, after Deep3DFaceRecon, multiplies the orthonormal functions of each band with instead."""


def lamp(direction: Tensor, colour: Tensor) -> Tensor:
    """Coefficients (..., 27) of light of ``colour`` (..., 3) from far away in ``direction`` (..., 3), a unit vector to the lamp.

    A matt surface that faces it shines with its albedo times ``colour`` (about: three bands are not all of it).
    """
    functions = spherical_harmonics(direction.double()) * _KEPT / _FACTOR**2
    return (colour[..., :, None].double() * functions[..., None, :]).flatten(-2)


def light(times: NDArray[np.floating[Any]], rng: np.random.Generator, change: float = 1.0) -> Tensor:
    """Lighting (T, 27), float64, for ``fitting.lighting.shade``, in the world: from ahead, above and one side.

    ``change`` says how much it wanders over the take: 0 is not at all, 1 is a cloud passing and a lamp that swings by some
    degrees.
    """
    side = rng.choice([-1.0, 1.0])
    warmth = 0.05 * rng.standard_normal()
    white = torch.tensor([1 + warmth, 1.0, 1 - warmth], dtype=torch.float64)
    swing = 0.25 * change * np.sin(2 * np.pi * (rng.uniform(0.05, 0.2) * times + rng.random()))
    level = 1 + 0.12 * change * np.sin(2 * np.pi * (rng.uniform(0.05, 0.25) * times + rng.random()))
    azimuth, elevation = side * rng.uniform(0.2, 0.9) + swing, rng.uniform(0.3, 0.8)
    key = _direction(azimuth, np.full_like(times, elevation))
    fill = _direction(np.full_like(times, -side * 0.8), np.full_like(times, 0.1))
    sky = _direction(np.zeros_like(times), np.full_like(times, np.pi / 2))
    strength = torch.from_numpy(level)[:, None] * white
    total = lamp(key, 0.55 * strength) + lamp(fill, 0.22 * strength / white) + lamp(sky, 0.12 * strength)
    # Light from everywhere, so that no shadow is black; ``shade`` adds the ambient light that is taken off here.
    total = total.unflatten(-1, (3, 9))
    total[..., 0] += 0.45 * strength - AMBIENT
    return total.flatten(-2)


def sensor_noise(pictures: NDArray[np.uint8], rng: np.random.Generator, gain: float = 1.0) -> NDArray[np.uint8]:
    """Pictures (..., 3) with the noise of a camera: about 1.5 levels of 255 times ``gain``, less where it is dark."""
    if gain == 0:
        return pictures
    noise = rng.standard_normal(pictures.shape, dtype=np.float32)
    noisy = pictures + gain * np.sqrt(0.3 + pictures.astype(np.float32) / 64) * noise
    return np.asarray(np.clip(np.rint(noisy), 0, 255), np.uint8)


def _direction(azimuth: NDArray[np.float64], elevation: NDArray[np.float64]) -> Tensor:
    """Unit vectors (T, 3): azimuth 0 is ahead of the face, positive to the person's left."""
    flat = np.cos(elevation)
    return torch.from_numpy(np.stack([flat * np.sin(azimuth), np.sin(elevation), flat * np.cos(azimuth)], axis=-1))
