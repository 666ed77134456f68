"""Attributes of vertices at pixels, and vertex normals."""

from __future__ import annotations

import torch
from torch import Tensor

from fitting.raster.fragments import Fragments


def interpolate(fragments: Fragments, faces: Tensor, attributes: Tensor) -> Tensor:
    """``attributes`` (B, V, C) or (V, C), of the corners of ``faces`` (F, 3), at each pixel: (B, H, W, C), 0 where it is missed.

    Perspective-correct, differentiable by the attributes and, through the barycentrics, by the points. ``faces`` need not be
    those of the geometry, only correspond to them: a texture's coordinates come with faces of their own. Raises ``ValueError``
    for other shapes.
    """
    batch = len(fragments.face)
    if attributes.ndim not in (2, 3) or (attributes.ndim == 3 and len(attributes) not in (1, batch)):
        raise ValueError(f"attributes of {batch} images have shape ({batch}, V, C) or (V, C), got {tuple(attributes.shape)}")
    face = fragments.face.flatten()
    pixel = (face >= 0).nonzero()[:, 0]
    corner = faces.index_select(0, face.index_select(0, pixel))
    if attributes.ndim == 3 and len(attributes) > 1:
        corner = corner + (pixel // fragments.face[0].numel() * attributes.shape[1])[:, None]
    table, weight = attributes.reshape(-1, attributes.shape[-1]), fragments.barycentric.flatten(0, 2).index_select(0, pixel)
    first, second, third = (weight[:, k, None] * table.index_select(0, corner[:, k]) for k in range(3))
    value = first + second + third
    return value.new_zeros(len(face), value.shape[-1]).index_copy(0, pixel, value).unflatten(0, fragments.face.shape)


def vertex_normals(vertices: Tensor, faces: Tensor) -> Tensor:
    """Unit normals (..., V, 3) of ``vertices`` (..., V, 3): the mean of the faces around, weighted by their areas.

    They point to where the corners of faces run counter-clockwise. Zero where a vertex has no face, or none with an area.
    """
    first, second, third = (vertices.index_select(-2, faces[:, k]) for k in range(3))
    of_faces = torch.linalg.cross(second - first, third - first, dim=-1)
    total = torch.zeros_like(vertices)
    for k in range(3):
        total = total.index_add(-2, faces[:, k], of_faces)
    # Areas are in square metres, small enough for float32 to make normalize's own limit of 1e-12 matter.
    length = torch.linalg.vector_norm(total.detach(), dim=-1, keepdim=True)
    return torch.nn.functional.normalize(total / torch.where(length > 0, length, 1.0), dim=-1)
