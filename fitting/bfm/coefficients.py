"""The 257 coefficients that Deep3DFaceRecon predicts for a frame, and the 73 of them that SadTalker and PIRender store."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Coefficients(NamedTuple):
    """Coefficients of the model by name, in the order of the vector of 257."""

    identity: Tensor
    """(..., 80), in standard deviations."""
    expression: Tensor
    """(..., 64)."""
    texture: Tensor
    """(..., 80), in standard deviations."""
    angles: Tensor
    """(..., 3) rotations about x, y, z (pitch, yaw, roll) in radians; R = Rz Ry Rx."""
    lighting: Tensor
    """(..., 27) spherical harmonics, 9 for red, 9 for green, 9 for blue; 0 is white light from everywhere."""
    translation: Tensor
    """(..., 3) in decimetres."""


SIZES = (80, 64, 80, 3, 27, 3)
N_COEFFICIENTS = sum(SIZES)


def split(vector: Tensor) -> Coefficients:
    """The parts of ``vector`` (..., 257), as views."""
    check_last(vector, N_COEFFICIENTS)
    return Coefficients(*vector.split(SIZES, dim=-1))


def join(coefficients: Coefficients) -> Tensor:
    """The vector (..., 257). Leading dimensions broadcast: an identity (80,) serves all frames of a clip."""
    for name, part, size in zip(Coefficients._fields, coefficients, SIZES, strict=True):
        check_last(part, size, name)
    return _joined(*coefficients)


class Semantics(NamedTuple):
    """What SadTalker's and PIRender's renderers are driven by."""

    expression: Tensor
    """(..., 64)."""
    angles: Tensor
    """(..., 3) in radians."""
    translation: Tensor
    """(..., 3) in decimetres."""
    crop: Tensor | None
    """(..., 3) scale, t0, t1 of the alignment; None in vectors of 70."""


def semantics(coefficients: Tensor, trans_params: Tensor) -> Tensor:
    """SadTalker's ``coeff_3dmm`` (..., 73) of ``coefficients`` (..., 257) and ``trans_params`` (..., 5).

    Expression, angles, translation, then the last three of the alignment's parameters: scale, t0, t1. The first 70 are what
    SadTalker's default renderer and its ExpNet take. These t0 and t1 are pixels of the frame that was aligned, which
    SadTalker and PIRender first make 256×256.
    """
    check_last(trans_params, 5, "trans_params")
    parts = split(coefficients)
    return _joined(parts.expression, parts.angles, parts.translation, trans_params[..., 2:])


def split_semantics(vector: Tensor) -> Semantics:
    """The parts of SadTalker's ``vector`` (..., 73) or (..., 70), as views."""
    if vector.shape[-1:] != (70,):
        check_last(vector, 73)
    expression, angles, translation = vector[..., :70].split((64, 3, 3), dim=-1)
    return Semantics(expression, angles, translation, vector[..., 70:] if vector.shape[-1] == 73 else None)


def full_coefficients(semantics: Tensor, reference: Tensor) -> Tensor:
    """Coefficients (..., 257) with the motion of ``semantics`` (..., 73) or (..., 70) and all else from ``reference`` (..., 257).

    SadTalker's files store ``full_3dmm`` for the first frame only: as ``reference`` it gives identity, texture and lighting.
    """
    motion = split_semantics(semantics)
    return join(split(reference)._replace(expression=motion.expression, angles=motion.angles, translation=motion.translation))


def _joined(*parts: Tensor) -> Tensor:
    lead = torch.broadcast_shapes(*(part.shape[:-1] for part in parts))
    return torch.cat([part.expand(*lead, part.shape[-1]) for part in parts], dim=-1)


def check_last(vector: Tensor, size: int, name: str = "coefficients") -> None:
    """Raises ``ValueError`` where the last dimension of ``vector`` has not ``size`` numbers."""
    if vector.shape[-1:] != (size,):
        raise ValueError(f"{name} have shape (..., {size}), got {tuple(vector.shape)}")
