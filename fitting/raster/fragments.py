"""What a camera sees of a triangle mesh at each pixel: which face, where on it, how far away.

Finding the visible face has no derivative and is done by one of two backends, ``torch`` and ``pytorch3d``. Barycentrics and
depth are then computed here for the visible faces alone, differentiably, so that the work of a backward pass is that of
the pixels, whatever the number of faces.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from fitting.raster import pytorch3d_backend, torch_backend
from fitting.raster.barycentric import inside
from fitting.raster.faces import NEAR

Backend = Literal["auto", "torch", "pytorch3d"]


class Fragments(NamedTuple):
    """One face for each pixel, the nearest."""

    face: Tensor
    """(B, H, W) int64, index of the face; -1 where there is none."""
    barycentric: Tensor
    """(B, H, W, 3) perspective-correct weights of the face's corners at the pixel's centre, with sum 1; 0 where it is missed."""
    depth: Tensor
    """(B, H, W) metres along the optical axis; 0 where it is missed."""

    @property
    def hit(self) -> Tensor:
        """(B, H, W) bool, where there is a face."""
        return self.face >= 0


def rasterize(
    points: Tensor,
    faces: Tensor,
    size: tuple[int, int],
    *,
    cull_backfaces: bool = False,
    near: float = NEAR,
    backend: Backend = "auto",
) -> Fragments:
    """The nearest of ``faces`` (F, 3) at each pixel of images of ``size`` (height, width), for ``points`` (B, V, 3).

    Points are x and y in pixels of the image (x right, y down, the centre of the top-left pixel at (0.5, 0.5)) and depth in
    metres along the optical axis; ``image_points`` makes them from a camera. Barycentrics and depth are once differentiable by
    them; which face is visible is not.

    - A pixel belongs to a face that its centre lies in. A centre on a side that two faces share belongs to one of them.
    - Front faces show their corners counter-clockwise in the picture; with ``cull_backfaces`` no others are drawn.
    - Not drawn are faces with a corner at depth ``near`` or nearer (they are not clipped), with one that is not finite, and
      degenerate ones.
    - Depths are compared in float32; of faces equally near, the first in ``faces`` is visible.

    ``backend`` ``auto`` is ``torch`` on the CPU; on a GPU ``pytorch3d`` where it imports, else ``torch``. Raises
    ``ValueError`` for other shapes, for faces that name points which are not there, and for a backend that cannot be used.
    """
    _check(points, faces, size)
    chosen = choose_backend(points, backend)
    find = torch_backend.visible_faces if chosen == "torch" else pytorch3d_backend.visible_faces
    with torch.no_grad():
        face = find(points.detach(), faces, size, near=near, cull_backfaces=cull_backfaces)
    return Fragments(face, *inside(points, faces, face))


def choose_backend(points: Tensor, backend: Backend = "auto") -> Backend:
    """The backend that ``auto`` stands for with ``points``. Raises ``ValueError`` for one that cannot be used."""
    if backend == "auto":
        return "pytorch3d" if points.device.type == "cuda" and pytorch3d_backend.available() else "torch"
    if backend not in ("torch", "pytorch3d"):
        raise ValueError(f"there is no backend {backend!r} for rasterizing: choose auto, torch or pytorch3d")
    if backend == "pytorch3d" and not pytorch3d_backend.available():
        raise ValueError("PyTorch3D does not import here: choose backend auto or torch")
    return backend


def _check(points: Tensor, faces: Tensor, size: tuple[int, int]) -> None:
    if points.ndim != 3 or points.shape[-1] != 3 or not points.is_floating_point():
        raise ValueError(f"points to rasterize are floats of shape (B, V, 3), got {points.dtype} {tuple(points.shape)}")
    if faces.ndim != 2 or faces.shape[-1] != 3 or faces.dtype != torch.int64:
        raise ValueError(f"faces to rasterize are int64 of shape (F, 3), got {faces.dtype} {tuple(faces.shape)}")
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"the size of an image is (height, width), at least one pixel each, got {size}")
    if len(faces) and (int(faces.min()) < 0 or int(faces.max()) >= points.shape[1]):
        named = f"{int(faces.min())} to {int(faces.max())}"
        raise ValueError(f"faces name points {named}, but there are {points.shape[1]}: they count from 0")
