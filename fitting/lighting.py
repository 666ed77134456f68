"""Light from far away on a matt surface: three bands of spherical harmonics (Ramamoorthi and Hanrahan, 2001)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

AMBIENT = 0.8
"""Added to the first coefficient of each channel, so that coefficients of 0 give white light from everywhere."""

_BANDS = [math.pi * 1 / math.sqrt(4 * math.pi)]
_BANDS += [2 * math.pi / math.sqrt(3) * math.sqrt(3) / math.sqrt(4 * math.pi)]
_BANDS += [2 * math.pi / math.sqrt(8) * 3 * math.sqrt(5) / math.sqrt(12 * math.pi)]
"""What a matt surface keeps of each band, times the norm of the band's basis functions."""


def spherical_harmonics(normals: Tensor) -> Tensor:
    """The nine functions (..., 9) at unit ``normals`` (..., 3), with Deep3DFaceRecon's constants, signs and order."""
    x, y, z = normals.unbind(dim=-1)
    constant, linear, quadratic = _BANDS
    return torch.stack(
        [
            constant * torch.ones_like(x),
            -linear * y,
            linear * z,
            -linear * x,
            quadratic * x * y,
            -quadratic * y * z,
            quadratic * (3 * z * z - 1) / (2 * math.sqrt(3)),
            -quadratic * x * z,
            quadratic * (x * x - y * y) / 2,
        ],
        dim=-1,
    )


def shade(albedo: Tensor, normals: Tensor, lighting: Tensor) -> Tensor:
    """Colours (..., N, 3) of ``albedo`` (..., N, 3) with ``normals`` (..., N, 3) under ``lighting`` (..., 27); not clipped.

    ``lighting`` are nine coefficients for red, nine for green, nine for blue; 0.8 is added to the first of each.
    """
    channels = lighting.unflatten(-1, (3, 9))
    channels = torch.cat([channels[..., :1] + AMBIENT, channels[..., 1:]], dim=-1)
    return albedo * (spherical_harmonics(normals) @ channels.mT)
