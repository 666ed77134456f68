"""The head family: people, and what their heads do, as vertices of any of its meshes.

One description (``surface``, ``features``, ``identity``, ``expressions``, ``skeleton``) is sampled at several finenesses, so a
code means the same head on every mesh and in every file that is written of it.
"""

from __future__ import annotations

from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fitting.flame.files import REGIONS, ModelFile
from fitting.flame.model import Flame, FlameMesh
from fitting.studio.controls import EXPRESSIONS, Controls
from fitting.studio.expressions import N_EXPRESSION, expression_code, expression_directions
from fitting.studio.features import SKIN, above_hairline, ear, eye, mouth
from fitting.studio.identity import N_IDENTITY, PEOPLE, identity_directions
from fitting.studio.mesh import HeadMesh, head_mesh
from fitting.studio.parts import LEFT_BALL, RIGHT_BALL
from fitting.studio.sampling import Indices
from fitting.studio.skeleton import pose_correctives, regressor, skinning
from fitting.studio.spread import Size
from fitting.studio.surface import Floats


class Openings(NamedTuple):
    """How far mouth and eyes are open, in metres."""

    mouth: Floats
    """(...) between the inner edges of the lips, in the middle."""
    left_eye: Floats
    """(...) between the lids' edges, the mean of two places."""
    right_eye: Floats


class HeadFamily:
    """The family on one mesh. ``size`` is small (about 1,300 vertices), medium (5,023, as FLAME) or large (11,300)."""

    def __init__(self, size: Size = "medium"):
        self.size: Size = size
        self.mesh: HeadMesh = head_mesh(size)

    @cached_property
    def model(self) -> ModelFile:
        """All numbers, as a FLAME file has them."""
        return model_of(self.size)

    def flame(self, dtype: torch.dtype = torch.float32) -> Flame:
        """The family as a differentiable function; its expressions are codes (``expression_code``)."""
        return _flame(self.size, dtype)

    @property
    def faces(self) -> Indices:
        """(F, 3)."""
        return self.mesh.faces

    def people(self, count: int, seed: int = 0) -> Floats:
        """Codes (count, 300) of random people. Person k is the same for every ``count``."""
        codes = np.zeros((count, N_IDENTITY))
        for person in range(count):
            draw = np.random.default_rng([seed, person]).standard_normal(PEOPLE)
            codes[person, :PEOPLE] = np.clip(draw, -2.2, 2.2)
        return codes

    def pose(self, identity: Floats, controls: Controls, dtype: torch.dtype = torch.float32) -> FlameMesh:
        """A performance of T moments by the person with ``identity`` (300,), or of T people (T, 300)."""

        def tensor(values: Floats) -> Tensor:
            return torch.as_tensor(np.asarray(values), dtype=dtype)

        code = tensor(expression_code(controls.expression))[..., : len(EXPRESSIONS)]
        with torch.no_grad():
            posed: FlameMesh = self.flame(dtype)(
                tensor(identity),
                code,
                rotation=tensor(controls.head),
                neck=tensor(controls.neck),
                jaw=tensor(controls.jaw),
                eyes=tensor(np.concatenate([controls.gaze, controls.gaze], axis=-1)),
                translation=tensor(controls.translation),
            )
        return posed

    def vertices(self, identity: Floats, controls: Controls, dtype: torch.dtype = torch.float32) -> Tensor:
        """(T, V, 3) metres; see ``pose``."""
        return self.pose(identity, controls, dtype).vertices

    def landmarks(self, vertices: Tensor) -> Tensor:
        """iBUG's 68 landmarks (..., 68, 3) of vertices (..., V, 3)."""
        return vertices[..., torch.from_numpy(self.mesh.landmarks), :]

    def openings(self, vertices: Tensor) -> Openings:
        """How far mouth and eyes of vertices (..., V, 3) are open."""
        points = self.landmarks(vertices).double().numpy()

        def between(upper: int, lower: int) -> Floats:
            distance: Floats = np.linalg.norm(points[..., upper, :] - points[..., lower, :], axis=-1)
            return distance

        return Openings(between(62, 66), (between(43, 47) + between(44, 46)) / 2, (between(37, 41) + between(38, 40)) / 2)

    @cached_property
    def regions(self) -> dict[str, Indices]:
        """Vertices of FLAME's regions, by name. They overlap."""
        mesh = self.mesh
        x, y, z = mesh.closed.T
        skin = mesh.sites.patch == SKIN
        folded = np.abs(mesh.sites.base) * np.array([1, 0, 0]) + mesh.sites.base * np.array([0, 1, 1])
        at_ear = skin & (ear(folded)[0] < 1.15)
        lids, lips = eye(mesh.sites), mouth(mesh.sites)
        hair = skin & (above_hairline(mesh.sites.base) > 0.002) & ~at_ear
        at_eye = skin & (z > 0) & (lids.distance < 0.018)
        below_chin = y + 0.35 * (z + 0.03) < -0.080
        face = skin & (z > -0.02) & ~below_chin & ~hair & ~at_ear
        found = {
            "face": face,
            "forehead": face & (y > 0.050),
            "nose": face & (np.abs(x) < 0.020) & (y > -0.027) & (y < 0.030) & (z > 0.045),
            "lips": face & (lips.distance < 0.013) & (np.abs(lips.along) < 1.15),
            "scalp": hair,
            "neck": skin & below_chin & (y > -0.165),
            "boundary": skin & (y < -0.195),
            "eye_region": at_eye | (mesh.sites.patch == LEFT_BALL) | (mesh.sites.patch == RIGHT_BALL),
            "left_eye_region": at_eye & (x > 0),
            "right_eye_region": at_eye & (x < 0),
            "left_ear": at_ear & (x > 0),
            "right_ear": at_ear & (x < 0),
            "left_eyeball": mesh.sites.patch == LEFT_BALL,
            "right_eyeball": mesh.sites.patch == RIGHT_BALL,
        }
        return {name: np.nonzero(found[name])[0] for name in REGIONS}


@lru_cache
def model_of(size: Size) -> ModelFile:
    """The numbers of the family on a mesh."""
    mesh = head_mesh(size)
    identity = identity_directions(mesh)
    arrays = (
        mesh.rest,
        identity,
        expression_directions(mesh, identity),
        pose_correctives(mesh),
        regressor(mesh),
        skinning(mesh),
    )
    template, identity, expression, pose, joints, weights = (np.asarray(array, np.float64) for array in arrays)
    return ModelFile(template, identity, expression, pose, joints, weights, mesh.faces, digest="")


@lru_cache
def _flame(size: Size, dtype: torch.dtype) -> Flame:
    return Flame(model_of(size), identity=N_IDENTITY, expression=N_EXPRESSION, name=f"studio-{size}", dtype=dtype)


def still(count: int = 1) -> Controls:
    """A performance of ``count`` moments in which nothing moves."""
    return Controls(np.zeros((count, len(EXPRESSIONS))), *(np.zeros((count, 3)) for _ in range(5)))
