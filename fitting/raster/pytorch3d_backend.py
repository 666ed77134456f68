"""Finding the visible faces with PyTorch3D, where it is installed.

PyTorch3D looks at x to the left and y up, from -1 to 1 along the image's shorter side. It computes in float32, passes over faces
smaller than about 10⁻⁸ of that square and leaves out pixels whose centre lies on a side; a hair's breadth of blur closes
the latter gaps. Only the face's index is taken from it: barycentrics and depth come from ``fitting.raster.fragments``.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from fitting.raster.faces import corners, drawable

HAIR = 1e-12
"""Squared distance from a face, in PyTorch3D's units, at which a pixel still counts as inside: about 10⁻⁴ pixels."""


@cache
def available() -> bool:
    """Whether PyTorch3D imports; not where it is missing or was built for another torch."""
    try:
        import pytorch3d.renderer.mesh.rasterize_meshes
        import pytorch3d.structures  # noqa: F401
    except (ImportError, OSError):
        return False
    return True


def visible_faces(points: Tensor, faces: Tensor, size: tuple[int, int], *, near: float, cull_backfaces: bool) -> Tensor:
    """(B, H, W) int64, the face nearest to the camera at each pixel centre or -1; see ``rasterize``."""
    from pytorch3d.renderer.mesh.rasterize_meshes import rasterize_meshes
    from pytorch3d.structures import Meshes

    kept = drawable(corners(points, faces), near=near, cull_backfaces=cull_backfaces)
    face = torch.full((len(points), *size), -1, dtype=torch.int64, device=points.device)
    drawn = kept.any(dim=1).nonzero()[:, 0]
    if len(drawn) == 0:
        return face
    which = [kept[image].nonzero()[:, 0] for image in drawn.tolist()]
    meshes = Meshes(list(to_ndc(points[drawn], size).float()), [faces[index] for index in which])
    found = rasterize_meshes(meshes, image_size=size, blur_radius=HAIR, faces_per_pixel=1, perspective_correct=True)[0][..., 0]
    # It counts the faces of all meshes through.
    original = torch.cat(which)
    face[drawn] = torch.where(found >= 0, original[found.clamp(min=0)], -1)
    return face


def to_ndc(points: Tensor, size: tuple[int, int]) -> Tensor:
    """``points`` (B, V, 3), pixels and depth, in PyTorch3D's normalised device coordinates."""
    height, width = size
    half = min(size) / 2
    x, y, z = points.unbind(dim=-1)
    return torch.stack([(width / 2 - x) / half, (height / 2 - y) / half, z], dim=-1)
