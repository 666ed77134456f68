"""The camera that everything here uses: OpenCV's axes, metres, world to camera.

A world point x is seen at y = R x + t in the camera's space (x right, y down, z forward, metres), at (y₀ / y₂, y₁ / y₂) on the
plane z = 1, from there the lens bends it, and at pixel = K (a, b, 1).

The centre of the top-left pixel is at (0.5, 0.5), its corner at (0, 0), as in COLMAP, OpenGL and PyTorch3D. Cropping is
then a subtraction and resizing a multiplication. OpenCV's functions put that centre at (0, 0), half a pixel to the side:
``with_integer_centres`` and ``from_integer_centres`` go between.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fitting.similarity import Similarity, rigid

DISTORTION_LENGTHS = (4, 5, 8)
"""OpenCV's k1, k2, p1, p2; with k3; with k3, k4, k5, k6."""


class Projected(NamedTuple):
    """What a camera sees of points. ``camera.unproject(*projected)`` goes back."""

    pixels: Tensor
    """(..., N, 2) x right, y down. Meaningless where the depth is not positive: those points are behind the camera."""
    depth: Tensor
    """(..., N) metres along the optical axis (z, not the length of the ray)."""


@dataclass(frozen=True, eq=False)
class Camera:
    """One camera, or a batch of them with images of one size. See the module's text for the conventions.

    Leading dimensions (...) are free; those of the three tensors are broadcast against each other when it is made, and
    against those of points when it is used. Results have the dtype and device of the points. Raises ``ValueError`` for
    misshaped tensors.
    """

    intrinsics: Tensor
    """(..., 3, 3) K = [[fx, skew, cx], [0, fy, cy], [0, 0, 1]] in pixels."""
    world_to_camera: Tensor
    """(..., 4, 4) [R t; 0 0 0 1], rigid."""
    width: int
    height: int
    distortion: Tensor | None = None
    """(..., 4 | 5 | 8) OpenCV's coefficients k1, k2, p1, p2, k3, k4, k5, k6, or None for a pinhole."""

    def __post_init__(self) -> None:
        if self.intrinsics.shape[-2:] != (3, 3) or self.world_to_camera.shape[-2:] != (4, 4):
            shapes = f"{tuple(self.intrinsics.shape)} and {tuple(self.world_to_camera.shape)}"
            raise ValueError(f"a camera has intrinsics (..., 3, 3) and world_to_camera (..., 4, 4), got {shapes}")
        batches = [self.intrinsics.shape[:-2], self.world_to_camera.shape[:-2]]
        if self.width < 1 or self.height < 1:
            raise ValueError(f"an image has at least one pixel, got {self.width} x {self.height}")
        if self.distortion is not None:
            if self.distortion.ndim == 0 or self.distortion.shape[-1] not in DISTORTION_LENGTHS:
                raise ValueError(f"distortion has shape (..., 4), (..., 5) or (..., 8), got {tuple(self.distortion.shape)}")
            batches.append(self.distortion.shape[:-1])
        try:
            batch = torch.broadcast_shapes(*batches)
        except RuntimeError:
            raise ValueError(f"the parts of a camera have leading dimensions {[tuple(b) for b in batches]}") from None
        object.__setattr__(self, "intrinsics", self.intrinsics.expand(*batch, 3, 3))
        object.__setattr__(self, "world_to_camera", self.world_to_camera.expand(*batch, 4, 4))
        if self.distortion is not None:
            object.__setattr__(self, "distortion", self.distortion.expand(*batch, -1))

    @property
    def batch(self) -> tuple[int, ...]:
        """The leading dimensions: () for one camera."""
        return tuple(self.intrinsics.shape[:-2])

    @property
    def centre(self) -> Tensor:
        """(..., 3) where the camera stands in the world: -Rᵀ t."""
        return self.pose.inverse().translation

    @property
    def pose(self) -> Similarity:
        """World to camera as a map; its inverse turns a camera's normals into the world's."""
        return rigid(self.world_to_camera[..., :3, :3], self.world_to_camera[..., :3, 3])

    def __getitem__(self, index: Any) -> Camera:
        """Some cameras of a batch: ``index`` is applied to the leading dimensions, ``cameras[3]``, ``cameras[:, 0]``."""
        if not self.batch:
            raise IndexError("this is one camera, not a batch of them")
        return self._map(lambda tensor: tensor[index])

    def to(self, *args: Any, **kwargs: Any) -> Camera:
        """The camera with its tensors on another device or of another dtype; arguments as for ``Tensor.to``."""
        return self._map(lambda tensor: tensor.to(*args, **kwargs))

    def project(self, points: Tensor) -> Projected:
        """Pixels and depths of world ``points`` (..., N, 3), through the lens where there is a distortion.

        A distortion is a polynomial that holds within the image. Far outside it can fold back, so that a point which the
        camera cannot see gets a pixel of the image.
        """
        seen = self.pose.apply(points)
        return Projected(self._to_pixels(self._bend(seen[..., :2] / seen[..., 2:])), seen[..., 2])

    def unproject(self, pixels: Tensor, depth: Tensor) -> Tensor:
        """World points (..., N, 3) at ``pixels`` (..., N, 2) with ``depth`` (..., N) in metres along the optical axis."""
        plane = self._unbend(self._to_plane(pixels))
        seen = torch.cat([plane, torch.ones_like(plane[..., :1])], dim=-1) * depth[..., None]
        return self.pose.inverse().apply(seen)

    def distort(self, pixels: Tensor) -> Tensor:
        """Where the lens shows what a pinhole with the same K sees at ``pixels`` (..., N, 2)."""
        return self._to_pixels(self._bend(self._to_plane(pixels)))

    def undistort(self, pixels: Tensor) -> Tensor:
        """Where a pinhole with the same K sees what the lens shows at ``pixels`` (..., N, 2); see ``undistort_plane``."""
        return self._to_pixels(self._unbend(self._to_plane(pixels)))

    def pinhole(self) -> Camera:
        """The same camera without its distortion: sees ``undistort``-ed pixels."""
        return replace(self, distortion=None)

    def crop(self, left: Tensor | float, top: Tensor | float, width: int, height: int) -> Camera:
        """The camera of the part of the image whose top-left corner is at pixel (``left``, ``top``), each a number or (...)."""
        left, top = (torch.as_tensor(corner).to(self.intrinsics) for corner in (left, top))
        corner = torch.stack(torch.broadcast_tensors(left, top, torch.zeros_like(left)), dim=-1)
        intrinsics = self.intrinsics - corner[..., None] * corner.new_tensor([0.0, 0.0, 1.0])
        return replace(self, intrinsics=intrinsics, width=width, height=height)

    def resize(self, width: int, height: int) -> Camera:
        """The camera of the image resized to ``width`` × ``height``, as by any resizing that keeps the image's border."""
        scale = self.intrinsics.new_tensor([width / self.width, height / self.height, 1.0])
        return replace(self, intrinsics=scale[:, None] * self.intrinsics, width=width, height=height)

    def moved(self, change: Similarity) -> Camera:
        """The same camera in a world whose points went through ``change``: sees them at the same pixels, depths times scale.

        With y = R x + t and x' = s Q x + q: R' = R Qᵀ and t' = s t - R' q.
        """
        scale, turn, shift = (part.to(self.world_to_camera) for part in change)
        rotation = self.world_to_camera[..., :3, :3] @ turn.mT
        translation = scale[..., None] * self.world_to_camera[..., :3, 3] - (rotation @ shift[..., None])[..., 0]
        return replace(self, world_to_camera=rigid(rotation, translation).matrix())

    def with_integer_centres(self) -> Tensor:
        """Intrinsics (..., 3, 3) for OpenCV's functions, where the centre of the top-left pixel is (0, 0)."""
        return _shift_principal_point(self.intrinsics, -0.5)

    @classmethod
    def from_integer_centres(
        cls, intrinsics: Tensor, world_to_camera: Tensor, width: int, height: int, distortion: Tensor | None = None
    ) -> Camera:
        """A camera calibrated by OpenCV, whose ``intrinsics`` put the centre of the top-left pixel at (0, 0)."""
        return cls(_shift_principal_point(intrinsics, 0.5), world_to_camera, width, height, distortion)

    def _map(self, change: Callable[[Tensor], Tensor]) -> Camera:
        distortion = None if self.distortion is None else change(self.distortion)
        return replace(
            self, intrinsics=change(self.intrinsics), world_to_camera=change(self.world_to_camera), distortion=distortion
        )

    def _to_pixels(self, plane: Tensor) -> Tensor:
        k = self.intrinsics.to(plane)
        return plane @ k[..., :2, :2].mT + k[..., None, :2, 2]

    def _to_plane(self, pixels: Tensor) -> Tensor:
        k = self.intrinsics.to(pixels)[..., None, :, :]
        b = (pixels[..., 1] - k[..., 1, 2]) / k[..., 1, 1]
        a = (pixels[..., 0] - k[..., 0, 2] - k[..., 0, 1] * b) / k[..., 0, 0]
        return torch.stack([a, b], dim=-1)

    def _bend(self, plane: Tensor) -> Tensor:
        return plane if self.distortion is None else distort_plane(plane, self.distortion.to(plane)[..., None, :])

    def _unbend(self, plane: Tensor) -> Tensor:
        return plane if self.distortion is None else undistort_plane(plane, self.distortion.to(plane)[..., None, :])


def pixel_grid(width: int, height: int, like: Tensor) -> Tensor:
    """Centres (height · width, 2) of an image's pixels row by row, (0.5, 0.5) first; dtype and device of ``like``.

    ``camera.unproject(pixel_grid(w, h, depth), depth.flatten(-2))`` is a depth map's cloud.
    """
    x = torch.arange(width, dtype=like.dtype, device=like.device) + 0.5
    y = torch.arange(height, dtype=like.dtype, device=like.device) + 0.5
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).flatten(0, 1)


def distort_plane(plane: Tensor, distortion: Tensor) -> Tensor:
    """Where a lens moves ``plane`` (..., 2), points of the plane z = 1; ``distortion`` (..., 4 | 5 | 8), broadcast.

    OpenCV's model: radially by (1 + k1 r² + k2 r⁴ + k3 r⁶) / (1 + k4 r² + k5 r⁴ + k6 r⁶), and tangentially by
    (2 p1 a b + p2 (r² + 2 a²), p1 (r² + 2 b²) + 2 p2 a b).
    """
    return _bend_with_slope(plane, distortion)[0]


def undistort_plane(plane: Tensor, distortion: Tensor, *, max_steps: int = 30) -> Tensor:
    """The inverse of ``distort_plane``: points (..., 2) that the lens moves to ``plane`` (..., 2).

    Newton's method to the dtype's precision, where OpenCV makes five rounds of a fixed-point iteration. Once differentiable
    with respect to both arguments by the implicit function theorem. NaN where there is no such point: a lens with
    negative k1 shows nothing beyond a certain radius.
    """
    with torch.no_grad():
        found = plane.expand(torch.broadcast_shapes(plane.shape, (*distortion.shape[:-1], 2)))
        tolerance = 8 * torch.finfo(plane.dtype).eps
        for _ in range(max_steps):
            bent, slope = _bend_with_slope(found, distortion)
            step = _solve(slope, bent - plane)
            found = found - step
            if bool((step.abs() <= tolerance * (1 + found.abs())).all()):
                break
        bent, slope = _bend_with_slope(found, distortion)
        converged = ((bent - plane).abs() <= 8 * tolerance * (1 + plane.abs())).all(dim=-1, keepdim=True)
        # Behind the fold of the polynomial there is a second solution, a mirror image that no lens shows.
        seen = (slope[0] > 0) & (slope[0] * slope[2] > slope[1] ** 2)
        found = torch.where(converged & seen[..., None], found, torch.nan)
    if plane.requires_grad or distortion.requires_grad:
        # A step of length zero that carries the derivatives.
        residual = distort_plane(found, distortion) - plane
        found = found - _solve(slope, residual - residual.detach())
    return found


def _bend_with_slope(plane: Tensor, distortion: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
    """Distorted points and the derivative, a symmetric matrix [[aa, ab], [ab, bb]]."""
    a, b = plane.unbind(dim=-1)
    missing = DISTORTION_LENGTHS[-1] - distortion.shape[-1]
    k1, k2, p1, p2, k3, k4, k5, k6 = torch.nn.functional.pad(distortion, (0, missing)).unbind(dim=-1)
    squared = a * a + b * b
    above, below = 1 + squared * (k1 + squared * (k2 + squared * k3)), 1 + squared * (k4 + squared * (k5 + squared * k6))
    above_slope, below_slope = k1 + squared * (2 * k2 + 3 * squared * k3), k4 + squared * (2 * k5 + 3 * squared * k6)
    radial = above / below
    radial_slope = 2 * (above_slope - radial * below_slope) / below
    bent_a = a * radial + 2 * p1 * a * b + p2 * (squared + 2 * a * a)
    bent_b = b * radial + p1 * (squared + 2 * b * b) + 2 * p2 * a * b
    aa = radial + radial_slope * a * a + 2 * p1 * b + 6 * p2 * a
    ab = radial_slope * a * b + 2 * p1 * a + 2 * p2 * b
    bb = radial + radial_slope * b * b + 6 * p1 * b + 2 * p2 * a
    return torch.stack([bent_a, bent_b], dim=-1), (aa, ab, bb)


def _solve(slope: tuple[Tensor, Tensor, Tensor], right: Tensor) -> Tensor:
    aa, ab, bb = slope
    determinant = aa * bb - ab * ab
    x, y = right.unbind(dim=-1)
    return torch.stack([(bb * x - ab * y) / determinant, (aa * y - ab * x) / determinant], dim=-1)


def _shift_principal_point(intrinsics: Tensor, shift: float) -> Tensor:
    return intrinsics + shift * intrinsics.new_tensor([[0.0, 0.0, 1.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
