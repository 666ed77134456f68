"""What is fitted, and the head in it: FaceTalk's F = [s, R, t, θ_shape, θ_exp], and the jaw."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fitting.flame import Flame, Landmarks
from fitting.raster.interpolate import vertex_normals
from fitting.rotations import axis_angle_to_matrix


class Parameters(NamedTuple):
    """Of a sequence of T frames. A point y of the head, its jaw turned, lies at s R y + t; R turns about FLAME's origin."""

    scale: Tensor
    """() of the whole sequence."""
    identity: Tensor
    """(I,) of the whole sequence."""
    rotation: Tensor
    """(T, 3) axis-angle."""
    translation: Tensor
    """(T, 3)."""
    jaw: Tensor
    """(T, 3) axis-angle; zeros where it is not fitted."""
    expression: Tensor
    """(T, E)."""

    def to(self, dtype: torch.dtype) -> Parameters:
        return Parameters(*(value.to(dtype) for value in self))

    def moved(self, vertices: Tensor) -> Tensor:
        """Points (T, N, 3) of the head at rest, where the parameters put them."""
        return self.scale * vertices @ axis_angle_to_matrix(self.rotation).mT + self.translation[:, None]


class Points(NamedTuple):
    """What of the head is compared with what was seen."""

    vertices: Tensor
    """(T, M, 3)."""
    landmarks: Tensor
    """(T, L, 3)."""
    normals: Tensor
    """(T, M, 3) of the vertices, length 1, without derivatives."""


class FacePart:
    """The part of a head that is fitted: ``asked`` vertices (M,) of it, and what the landmarks need."""

    def __init__(self, flame: Flame, embedding: Landmarks, asked: Tensor) -> None:
        needed = torch.cat([asked, embedding.vertices]).unique()
        self.flame = flame.part(needed)
        self.landmarks = embedding.among(needed)
        self.asked = torch.searchsorted(needed, asked.contiguous())
        """(M,) places of the asked vertices among those of ``flame``."""

    def __call__(self, parameters: Parameters) -> Points:
        """Differentiable, in the dtype of the head."""
        given = parameters.to(self.flame.template.dtype)
        jaw = given.jaw if self.flame.has_jaw else None
        vertices = given.moved(self.flame(given.identity, given.expression, jaw=jaw).vertices)
        with torch.no_grad():
            normals = vertex_normals(vertices.detach(), self.flame.faces)[:, self.asked]
        return Points(vertices[:, self.asked], self.landmarks(vertices), normals)


def zeros(flame: Flame, frames: int, dtype: torch.dtype = torch.float64) -> Parameters:
    """The mean head, at rest at the origin."""
    sizes = (flame.n_identity, (frames, 3), (frames, 3), (frames, 3), (frames, flame.n_expression))
    return Parameters(torch.ones((), dtype=dtype), *(torch.zeros(size, dtype=dtype) for size in sizes))
