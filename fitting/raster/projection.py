"""Points of the world as ``rasterize`` takes them: pixels and depth."""

from __future__ import annotations

import torch
from torch import Tensor

from fitting.cameras import Camera, distort_plane


def image_points(camera: Camera, vertices: Tensor) -> Tensor:
    """(B, V, 3) pixels and depth of world ``vertices`` (B, V, 3) or (V, 3), in metres, seen by one camera or by B of them.

    ``rasterize(image_points(camera, vertices), faces, (camera.height, camera.width))`` is what the camera sees. Differentiable.

    A lens bends the vertices; sides between them stay straight, so a picture of large faces is wrong between their
    corners. Far outside the image the formula of a lens can fold back into it: such points become NaN, and their faces are not
    drawn. Raises ``ValueError`` where camera and vertices have other leading dimensions.
    """
    if vertices.ndim not in (2, 3) or len(camera.batch) > 1:
        batches = f"{tuple(vertices.shape)} and cameras {camera.batch}"
        raise ValueError(f"vertices are (V, 3) or (B, V, 3), cameras one or (B,), got {batches}: flatten leading dimensions")
    pixels, depth = camera.project(vertices)
    points = torch.cat([pixels, depth[..., None]], dim=-1)
    if camera.distortion is not None:
        seen = camera.pose.apply(vertices.detach())
        points = torch.where(_unfolded(seen[..., :2] / seen[..., 2:], camera.distortion.to(seen))[..., None], points, torch.nan)
    return points if points.ndim == 3 else points[None]


def _unfolded(plane: Tensor, distortion: Tensor) -> Tensor:
    """(..., N) bool, whether what is a little further out than ``plane`` (..., N, 2) is seen further out."""
    here, further = (distort_plane(scale * plane, distortion[..., None, :]) for scale in (1.0, 1.001))
    return ((further - here) * plane).sum(dim=-1) >= 0
