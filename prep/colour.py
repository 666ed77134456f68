"""Colours: sRGB values and light, and bringing the cameras of a rig to one colour."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]


def to_linear(srgb: Floats) -> Floats:
    """Light of sRGB values, both from 0 to 1 (IEC 61966-2-1)."""
    return np.where(srgb <= 0.04045, srgb / 12.92, ((np.maximum(srgb, 0.04045) + 0.055) / 1.055) ** 2.4)


def to_srgb(light: Floats) -> Floats:
    """sRGB values of light, both from 0 to 1; light beyond is clipped (IEC 61966-2-1)."""
    light = np.clip(light, 0, 1)
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * np.maximum(light, 1e-9) ** (1 / 2.4) - 0.055)


def encode(light: Floats) -> NDArray[np.uint8]:
    """``to_srgb`` in 255 steps, by a table: half a step off at most where it is darkest, and many times as fast."""
    steps: NDArray[np.uint8] = _ENCODED[np.rint(np.clip(light, 0, 1) * (len(_ENCODED) - 1)).astype(np.int32)]
    return steps


def mix(srgb: NDArray[np.uint8], matrix: Floats) -> NDArray[np.uint8]:
    """Pictures (..., 3) with their light multiplied by ``matrix`` (3, 3): NeRSemble v2's colour correction."""
    light = _LINEAR[srgb] @ matrix.astype(np.float32).T
    return encode(light)


def affine(srgb: NDArray[np.uint8], matrix: Floats) -> NDArray[np.uint8]:
    """Pictures (..., 3) with sRGB values from 0 to 1 sent through ``matrix`` (3, 4): NeRSemble v1's colour correction."""
    moved = srgb @ matrix[:, :3].T.astype(np.float32) + (255 * matrix[:, 3]).astype(np.float32)
    rounded: NDArray[np.uint8] = np.rint(np.clip(moved, 0, 255)).astype(np.uint8)
    return rounded


_LINEAR = to_linear(np.arange(256) / 255).astype(np.float32)
_ENCODED = np.rint(255 * to_srgb(np.linspace(0, 1, 1 << 14))).astype(np.uint8)
