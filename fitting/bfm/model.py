"""The Basel Face Model with FaceWarehouse expressions, cut to the front of the head, as Deep3DFaceRecon uses it.

Paysan et al. 2009 (shape, texture); Cao et al. 2014 (expression); Deng et al. 2019 (the combination, §3.1).
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fitting.bfm.camera import pose
from fitting.bfm.coefficients import check_last, split
from fitting.bfm.files import BfmFile, load_bfm_file
from fitting.lighting import shade
from fitting.rotations import euler_zyx_to_matrix


class Face(NamedTuple):
    """A posed and lit face; see ``camera`` for its space."""

    vertices: Tensor
    """(..., N, 3) decimetres, y up, z towards the camera."""
    normals: Tensor
    """(..., N, 3) unit length."""
    albedo: Tensor
    """(..., N, 3) red, green, blue, about 0..1."""
    colours: Tensor
    """(..., N, 3) albedo under the lighting, about 0..1."""


class Bfm(nn.Module):
    """The face model. All methods are differentiable and take any leading dimensions; coefficients that all frames share
    (an identity (80,) beside expressions (T, 64)) broadcast.

    float32; ``.double()`` and ``.to(device)`` work as for any module. The model's data are not in ``state_dict()``: they
    belong to others, and a checkpoint of whatever contains the model must not carry them.
    """

    mean_shape: Tensor
    """(N, 3) decimetres, its mean at the origin."""
    identity_basis: Tensor
    """(N, 3, 80)."""
    expression_basis: Tensor
    """(N, 3, 64)."""
    mean_texture: Tensor
    """(N, 3) in 0..255."""
    texture_basis: Tensor
    """(N, 3, 80)."""
    faces: Tensor
    """(F, 3) int64."""
    vertex_faces: Tensor
    """(N, 8) int64 faces around a vertex; F where there are fewer than 8."""
    landmark_vertices: Tensor
    """(68,) int64."""
    front_vertices: Tensor
    """(M,) int64, the part that is compared with pictures."""
    front_faces: Tensor
    """(K, 3) int64, the faces between them; they index all vertices."""
    skin: Tensor
    """(N,) 1 on skin, 0 elsewhere."""

    def __init__(self, file: BfmFile):
        super().__init__()
        recentred = file.mean_shape - file.mean_shape.mean(axis=0, dtype=np.float64)
        for name, array in file._replace(mean_shape=recentred.astype(np.float32))._asdict().items():
            self.register_buffer(name, torch.tensor(array), persistent=False)

    @classmethod
    def load(cls, path: Path | str) -> Bfm:
        """The model of ``BFM_model_front.mat``. Raises ``WrongModelFile``; see ``load_bfm_file``."""
        return cls(load_bfm_file(path))

    @property
    def n_vertices(self) -> int:
        return len(self.mean_shape)

    def shape(self, identity: Tensor, expression: Tensor, vertices: Tensor | None = None) -> Tensor:
        """Unposed shape (..., N, 3) in decimetres for ``identity`` (..., 80) and ``expression`` (..., 64).

        With ``vertices`` (P,), indices, only those are computed: (..., P, 3). That makes landmarks cheap.
        """
        mean, identity_basis, expression_basis = self.mean_shape, self.identity_basis, self.expression_basis
        if vertices is not None:
            mean, identity_basis, expression_basis = mean[vertices], identity_basis[vertices], expression_basis[vertices]
        return mean + _combined("identity", identity, identity_basis) + _combined("expression", expression, expression_basis)

    def texture(self, texture: Tensor) -> Tensor:
        """Albedo (..., N, 3), about 0..1 and not clipped, for coefficients ``texture`` (..., 80)."""
        return (self.mean_texture + _combined("texture", texture, self.texture_basis)) / 255

    def normals(self, shape: Tensor) -> Tensor:
        """Unit normals (..., N, 3), out of the face, of vertices (..., N, 3): the sum of the unit normals of the faces around."""
        first, second, third = (shape[..., self.faces[:, k], :] for k in range(3))
        of_faces = F.normalize(torch.linalg.cross(first - second, second - third, dim=-1), dim=-1)
        # Where a vertex has fewer than eight faces, its list is filled up with one more face, whose normal is zero.
        of_faces = F.pad(of_faces, (0, 0, 0, 1))
        return F.normalize(of_faces[..., self.vertex_faces, :].sum(dim=-2), dim=-1)

    def landmarks(self, coefficients: Tensor) -> Tensor:
        """The 68 landmarks (..., 68, 3) of posed faces for ``coefficients`` (..., 257); nothing else is computed."""
        parts = split(coefficients)
        shape = self.shape(parts.identity, parts.expression, self.landmark_vertices)
        return pose(shape, parts.angles, parts.translation)

    def forward(self, coefficients: Tensor) -> Face:
        """Posed and lit faces for ``coefficients`` (..., 257)."""
        parts = split(coefficients)
        shape = self.shape(parts.identity, parts.expression)
        normals = self.normals(shape) @ euler_zyx_to_matrix(parts.angles).mT
        albedo = self.texture(parts.texture)
        return Face(pose(shape, parts.angles, parts.translation), normals, albedo, shade(albedo, normals, parts.lighting))


def _combined(name: str, coefficients: Tensor, basis: Tensor) -> Tensor:
    """Basis (P, 3, C) times ``coefficients`` (..., C): (..., P, 3). Raises ``ValueError`` for another number of them."""
    check_last(coefficients, basis.shape[-1], name)
    return (coefficients @ basis.flatten(0, 1).mT).unflatten(-1, basis.shape[:2])
