"""Turning, moving and scaling points, vectors, normals: x ↦ s R x + t."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Similarity(NamedTuple):
    """The map x ↦ s R x + t of column vectors. With ``scale`` 1 it is a rigid motion.

    Leading dimensions (...) are free and broadcast against those of what is mapped: one map for each frame, say. Results have
    the dtype and device of what is mapped.
    """

    scale: Tensor
    """(...) s > 0."""
    rotation: Tensor
    """(..., 3, 3) R, det R = 1."""
    translation: Tensor
    """(..., 3) t, in units of the target space."""

    @classmethod
    def scaling(cls, factor: float) -> Similarity:
        """A change of unit and nothing else, in float64: x ↦ factor · x."""
        return cls(
            torch.tensor(factor, dtype=torch.float64), torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
        )

    @classmethod
    def from_matrix(cls, matrix: Tensor) -> Similarity:
        """The map of a homogeneous ``matrix`` (..., 4, 4) [s R | t] that multiplies columns from the left.

        The scale is the cube root of the determinant. Raises ``ValueError`` where the matrix shears, mirrors or projects.
        """
        if matrix.shape[-2:] != (4, 4):
            raise ValueError(f"a homogeneous matrix has shape (..., 4, 4), got {tuple(matrix.shape)}")
        linear, exact = matrix[..., :3, :3], matrix.detach().double()
        # A mirror's determinant is clamped too, and then its scale does not fit its columns.
        scale = torch.linalg.det(linear).clamp(min=torch.finfo(matrix.dtype).tiny) ** (1 / 3)
        square = scale.detach().double()[..., None, None] ** 2
        gram = exact[..., :3, :3] @ exact[..., :3, :3].mT
        turned = (gram - square * torch.eye(3).to(exact)).abs() <= 1e-3 * square
        affine = (exact[..., 3, :] - exact.new_tensor([0.0, 0.0, 0.0, 1.0])).abs() <= 1e-6
        if not (turned.all() and affine.all()):
            raise ValueError("not a rotation, scale and translation: the matrix shears, mirrors or projects (or is transposed)")
        return cls(scale, linear / scale[..., None, None], matrix[..., :3, 3])

    def matrix(self) -> Tensor:
        """(..., 4, 4) [s R | t; 0 0 0 1], which multiplies columns from the left."""
        linear, translation = torch.broadcast_tensors(self.scale[..., None, None] * self.rotation, self.translation[..., None])
        upper = torch.cat([linear, translation[..., :1]], dim=-1)
        return torch.cat([upper, upper.new_tensor([0.0, 0.0, 0.0, 1.0]).expand_as(upper[..., :1, :])], dim=-2)

    def inverse(self) -> Similarity:
        """The map back: x ↦ Rᵀ (x - t) / s."""
        scale, rotation = 1 / self.scale, self.rotation.mT
        return Similarity(scale, rotation, -scale[..., None] * (rotation @ self.translation[..., None])[..., 0])

    def compose(self, first: Similarity) -> Similarity:
        """One map for ``first`` and then this one. The wider dtype of the two wins."""
        device, dtype = first.rotation.device, torch.promote_types(self.rotation.dtype, first.rotation.dtype)
        scale, rotation, translation = (part.to(device, dtype) for part in self)
        moved = (rotation @ first.translation.to(dtype)[..., None])[..., 0]
        return Similarity(
            scale * first.scale.to(dtype), rotation @ first.rotation.to(dtype), scale[..., None] * moved + translation
        )

    def apply(self, points: Tensor) -> Tensor:
        """Mapped ``points`` (..., N, 3)."""
        return self.apply_vectors(points) + self.translation.to(points)[..., None, :]

    def apply_vectors(self, vectors: Tensor) -> Tensor:
        """Mapped differences of points ``vectors`` (..., N, 3): turned and scaled, not moved."""
        return self.scale.to(vectors)[..., None, None] * self.apply_normals(vectors)

    def apply_normals(self, normals: Tensor) -> Tensor:
        """Mapped ``normals`` or directions (..., N, 3): turned only, so what has length 1 keeps it."""
        return normals @ self.rotation.to(normals).mT


def rigid(rotation: Tensor, translation: Tensor) -> Similarity:
    """The rigid motion x ↦ R x + t of ``rotation`` (..., 3, 3) and ``translation`` (..., 3)."""
    return Similarity(torch.ones_like(translation[..., 0]), rotation, translation)
