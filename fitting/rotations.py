"""Rotations as matrices, axis-angle vectors, six numbers, Euler angles and quaternions.

A matrix R (..., 3, 3) turns column vectors, y = R x; points kept as rows turn by ``points @ R.mT``. Turns are right-handed,
angles in radians. Leading dimensions are free, dtype and device are the input's, and everything has finite derivatives
wherever the result is unique, at the identity too.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Taylor coefficients in x of sin(√x) / √x and of atan(√x) / √x.
_SINC = (1.0, -1 / 6, 1 / 120, -1 / 5040, 1 / 362880, -1 / 39916800, 1 / 6227020800)
_ATANC = (1.0, -1 / 3, 1 / 5, -1 / 7, 1 / 9, -1 / 11)


def axis_angle_to_matrix(axis_angle: Tensor) -> Tensor:
    """Rotation (..., 3, 3) about the direction of ``axis_angle`` (..., 3) by its length in radians.

    Rodrigues: R = I + (sin θ / θ) [v]× + ((1 - cos θ) / θ²) [v]×². Exact and differentiable (twice too) at v = 0.
    """
    squared = (axis_angle * axis_angle).sum(dim=-1)[..., None, None]
    cross = _cross_matrix(axis_angle)
    # 1 - cos θ = 2 sin²(θ/2) keeps all digits at small angles.
    half = _sinc_of_root(squared / 4)
    identity = torch.eye(3, dtype=axis_angle.dtype, device=axis_angle.device)
    return identity + _sinc_of_root(squared) * cross + 0.5 * half * half * (cross @ cross)


def matrix_to_axis_angle(matrix: Tensor) -> Tensor:
    """Axis-angle vectors (..., 3), no longer than π, of rotations ``matrix`` (..., 3, 3).

    Accurate at every angle. At exactly π both directions of the axis are right: the one whose largest component is positive
    is returned, and the derivative there is that of one side.
    """
    quaternion = matrix_to_quaternion(matrix)
    real, imaginary = quaternion[..., :1], quaternion[..., 1:]
    squared = (imaginary * imaginary).sum(dim=-1, keepdim=True)
    small = squared < 1e-3
    real_small = torch.where(small, real, torch.ones_like(real))
    length = torch.where(small, torch.ones_like(squared), squared).sqrt()
    near_zero = _polynomial(_ATANC, squared / real_small**2) / real_small
    return 2 * imaginary * torch.where(small, near_zero, torch.atan2(length, real) / length)


def rotation_6d_to_matrix(rotation_6d: Tensor) -> Tensor:
    """Rotation (..., 3, 3) from two vectors (..., 6) by Gram-Schmidt: they become the first two *rows*.

    Zhou et al., "On the Continuity of Rotation Representations in Neural Networks", eq. 15, which has columns; PyTorch3D and
    the trackers built on it keep rows, and so do these. Two parallel vectors stand for no rotation.
    """
    first = torch.nn.functional.normalize(rotation_6d[..., :3], dim=-1)
    second = rotation_6d[..., 3:]
    second = second - (first * second).sum(dim=-1, keepdim=True) * first
    second = torch.nn.functional.normalize(second, dim=-1)
    return torch.stack([first, second, torch.linalg.cross(first, second)], dim=-2)


def matrix_to_rotation_6d(matrix: Tensor) -> Tensor:
    """The first two rows (..., 6) of rotations ``matrix`` (..., 3, 3); the inverse of ``rotation_6d_to_matrix``."""
    return matrix[..., :2, :].flatten(start_dim=-2)


def euler_zyx_to_matrix(angles: Tensor) -> Tensor:
    """Rotation (..., 3, 3) Rz(z) · Ry(y) · Rx(x) of ``angles`` (..., 3) in the order x, y, z, in radians.

    Columns turn about the fixed x axis first, then y, then z. Deep3DFaceRecon's pitch, yaw and roll.
    """
    (sx, sy, sz), (cx, cy, cz) = angles.sin().unbind(dim=-1), angles.cos().unbind(dim=-1)
    rows = [
        torch.stack([cz * cy, cz * sy * sx - sz * cx, cz * sy * cx + sz * sx], dim=-1),
        torch.stack([sz * cy, sz * sy * sx + cz * cx, sz * sy * cx - cz * sx], dim=-1),
        torch.stack([-sy, cy * sx, cy * cx], dim=-1),
    ]
    return torch.stack(rows, dim=-2)


def matrix_to_euler_zyx(matrix: Tensor) -> Tensor:
    """Angles (..., 3) x, y, z with y in [-π/2, π/2] for which ``euler_zyx_to_matrix`` gives ``matrix`` (..., 3, 3) back.

    At y = ±π/2 only x ∓ z is known (gimbal lock); the angles returned still give the matrix back.
    """
    x = torch.atan2(matrix[..., 2, 1], matrix[..., 2, 2])
    sx, cx = x.sin(), x.cos()
    # y and z are read from R · Rx(x)ᵀ = Rz Ry, which stays well-conditioned in gimbal lock.
    y = torch.atan2(-matrix[..., 2, 0], sx * matrix[..., 2, 1] + cx * matrix[..., 2, 2])
    z = torch.atan2(sx * matrix[..., 0, 2] - cx * matrix[..., 0, 1], cx * matrix[..., 1, 1] - sx * matrix[..., 1, 2])
    return torch.stack([x, y, z], dim=-1)


def quaternion_to_matrix(quaternion: Tensor) -> Tensor:
    """Rotation (..., 3, 3) of quaternions (..., 4) in the order w, x, y, z; they are normalised first."""
    w, x, y, z = torch.nn.functional.normalize(quaternion, dim=-1).unbind(dim=-1)
    rows = [
        torch.stack([1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)], dim=-1),
        torch.stack([2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)], dim=-1),
        torch.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)], dim=-1),
    ]
    return torch.stack(rows, dim=-2)


def matrix_to_quaternion(matrix: Tensor) -> Tensor:
    """Unit quaternions (..., 4) w, x, y, z with w ≥ 0 of rotations ``matrix`` (..., 3, 3)."""
    m = [[matrix[..., i, j] for j in range(3)] for i in range(3)]
    # 4 q qᵀ is linear in R. Any of its rows is q up to a factor; that of the largest component has all its digits.
    wx, wy, wz = m[2][1] - m[1][2], m[0][2] - m[2][0], m[1][0] - m[0][1]
    xy, xz, yz = m[1][0] + m[0][1], m[0][2] + m[2][0], m[2][1] + m[1][2]
    ww, xx = 1 + m[0][0] + m[1][1] + m[2][2], 1 + m[0][0] - m[1][1] - m[2][2]
    yy, zz = 1 - m[0][0] + m[1][1] - m[2][2], 1 - m[0][0] - m[1][1] + m[2][2]
    rows = [torch.stack(row, dim=-1) for row in ((ww, wx, wy, wz), (wx, xx, xy, xz), (wy, xy, yy, yz), (wz, xz, yz, zz))]
    outer = torch.stack(rows, dim=-2)
    largest = outer.diagonal(dim1=-2, dim2=-1).argmax(dim=-1)[..., None, None]
    row = torch.take_along_dim(outer, largest, dim=-2).squeeze(-2)
    quaternion = torch.nn.functional.normalize(row, dim=-1)
    return torch.where(quaternion[..., :1] < 0, -quaternion, quaternion)


def _cross_matrix(vector: Tensor) -> Tensor:
    """[v]× (..., 3, 3): its product with w is the cross product v × w."""
    x, y, z = vector.unbind(dim=-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))


def _sinc_of_root(squared: Tensor) -> Tensor:
    """sin(√x) / √x, smooth at x = 0 where √x is not."""
    small = squared < 0.25
    root = torch.where(small, torch.ones_like(squared), squared).sqrt()
    return torch.where(small, _polynomial(_SINC, squared), root.sin() / root)


def _polynomial(coefficients: tuple[float, ...], x: Tensor) -> Tensor:
    value = torch.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        value = value * x + coefficient
    return value
