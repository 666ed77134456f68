"""The energy of a fit: FaceTalk, supplement D, eq. 20-31, in millimetres.

L = λ_lmk L_lmk + λ_geo (0.1 L_point + 0.9 L_plane) + L_reg + L_smooth. Distances d enter as ρ(d), Huber's function scaled so
that it is |d| less a constant where it is not quadratic. A vertex without a match costs as much as one where ρ stops being
quadratic, so that losing or finding a match at the rim of a cloud changes the energy little.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

from fitting.flame import Flame, Landmarks
from fitting.flame_fit.parameters import FacePart, Parameters, Points
from fitting.flame_fit.settings import Settings
from fitting.nearest import Match, NearestTo, match, pad_clouds

MILLIMETRES = 1000.0
SMOOTHED = 1e-4
"""A plain norm ‖x‖ is sqrt(‖x‖² + this²) - this, so that it has a derivative at 0."""


class Cloud(Protocol):
    """A point cloud of one frame, as multi-view stereo gives it."""

    @property
    def points(self) -> NDArray[np.float32]:
        """(N, 3) metres in the world."""

    @property
    def normals(self) -> NDArray[np.float32]:
        """(N, 3) outwards, length 1; 0 where unknown."""


class Penalty(NamedTuple):
    """λ Σ_i ‖x_i‖² (or ‖x_i‖) over rows of parameters, or over their first differences."""

    name: str
    """Field of ``Parameters``."""
    weight: float
    """λ over the number of rows that the mean is taken of."""
    difference: bool
    unit: float
    """By which the rows are divided: 2π for rotations, eq. 27 and 30."""
    about: float = 0.0


class Objective:
    """The energy of a sequence of T clouds and landmarks.

    ``embedding`` are landmarks of ``flame`` with ``indices`` into the observed ones; ``vertices`` (M,) are those that are drawn
    to the clouds. ``points`` (N_t, 3) and ``normals`` of each frame and ``landmarks`` (T, 68, 3), used where ``kept`` (T, 68),
    are given in the model's own size and near its place, so that parameters are small.
    """

    def __init__(
        self,
        flame: Flame,
        embedding: Landmarks,
        vertices: Tensor,
        points: Sequence[Tensor],
        normals: Sequence[Tensor],
        landmarks: Tensor,
        kept: Tensor,
        settings: Settings,
    ) -> None:
        self.settings = settings
        self.face = FacePart(flame, embedding, vertices)
        self.frames = len(points)
        dtype = flame.template.dtype
        padded, lengths = pad_clouds([cloud.to(dtype) for cloud in points])
        self.cloud = NearestTo(padded, lengths)
        self.spacing = _spacing(points).to(dtype)
        self.cloud_normals = pad_clouds([cloud.to(dtype) for cloud in normals])[0]
        self.landmarks = torch.where(kept[..., None], landmarks, 0.0)[:, embedding.indices].to(dtype)
        of_regions = _landmark_weights(settings)[embedding.indices].to(dtype)
        self.landmark_weight = kept[:, embedding.indices] * of_regions / (self.frames * len(of_regions))
        self.vertex_weight = 1 / (self.frames * len(vertices))
        self.fit_jaw = flame.has_jaw if settings.jaw is None else settings.jaw
        self.penalties = _penalties(settings, self.frames, self.fit_jaw)

    def search(self, points: Points, gate: float) -> Match:
        """The nearest points of the clouds, within ``gate``, with a normal that fits, and not far to the side: there the vertex
        lies over a hole or beyond the rim, and the rim would pull at it."""
        with torch.no_grad():
            found = match(
                points.vertices,
                self.cloud,
                vertex_normals=points.normals,
                cloud_normals=self.cloud_normals,
                max_distance=gate,
                max_angle_deg=self.settings.max_angle_deg,
            )
            assert found.normals is not None
            offset = points.vertices - found.points
            aside = offset - (offset * found.normals).sum(dim=-1, keepdim=True) * found.normals
            over = aside.norm(dim=-1) <= self.settings.side_gate * self.spacing[:, None]
        return found._replace(inlier=found.inlier & over)

    def narrowed(self, matches: Match, points: Points, gate: float) -> Match:
        """Of ``matches`` those within a smaller ``gate``: what a search with it would have found."""
        near = (points.vertices.detach() - matches.points).norm(dim=-1) <= gate
        return matches._replace(inlier=matches.inlier & near)

    def energy(self, parameters: Parameters, points: Points, matches: Match) -> Tensor:
        """Eq. 31, differentiable: () in millimetres."""
        return sum(self.terms(parameters, points, matches).values(), start=points.vertices.new_zeros(()))

    def terms(self, parameters: Parameters, points: Points, matches: Match) -> dict[str, Tensor]:
        """The summands of eq. 31 by name, weights included."""
        settings, found = self.settings, matches
        assert found.normals is not None
        offset = points.vertices - found.points
        lost = _huber(offset.new_tensor(settings.huber), settings.huber)
        along = _huber((offset * found.normals).sum(dim=-1).abs(), settings.huber)
        apart = _huber(_length(offset), settings.huber)
        share = settings.geometry * self.vertex_weight
        point = torch.where(found.inlier, apart, lost).sum() * (settings.point_weight * share)
        plane = torch.where(found.inlier, along, lost).sum() * (settings.plane_weight * share)
        off = _huber(_length(points.landmarks - self.landmarks), settings.huber)
        terms = {"point": point, "plane": plane, "landmarks": settings.landmarks * (self.landmark_weight * off).sum()}
        for penalty in self.penalties:
            squared = rows(parameters, penalty).square().sum(dim=-1)
            value = penalty.weight * phi(squared, settings).sum()
            name = f"{'smooth' if penalty.difference else 'regularise'}_{penalty.name}"
            terms[name] = value.to(point.dtype)
        return terms


def rows(parameters: Parameters, penalty: Penalty) -> Tensor:
    """(rows, size) what a penalty makes small."""
    value: Tensor = getattr(parameters, penalty.name)
    flat = value.reshape(-1, value.shape[-1]) if value.ndim else value.reshape(1, 1)
    return (flat[1:] - flat[:-1] if penalty.difference else flat - penalty.about) / penalty.unit


def phi(squared: Tensor, settings: Settings) -> Tensor:
    """A norm of eq. 25-30 from its square."""
    return squared if settings.norm == "squared" else (squared + SMOOTHED**2).sqrt() - SMOOTHED


def phi_slope(squared: Tensor, settings: Settings) -> Tensor:
    """The derivative of ``phi``."""
    return torch.ones_like(squared) if settings.norm == "squared" else 0.5 / (squared + SMOOTHED**2).sqrt()


def _penalties(settings: Settings, frames: int, jaw: bool) -> list[Penalty]:
    """Eq. 25-30, each mean over the frames, the scale's about 1."""
    rigid, smooth, turn = settings.regularise_rigid / frames, settings.smooth_rigid / frames, 2 * math.pi
    found = [
        Penalty("identity", settings.regularise_identity, False, 1.0),
        Penalty("expression", settings.regularise_expression / frames, False, 1.0),
        Penalty("rotation", rigid, False, turn),
        Penalty("translation", rigid, False, 1.0),
        # Of the frames' mean: the scale is the same in all.
        Penalty("scale", settings.regularise_rigid, False, 1.0, about=1.0),
        Penalty("expression", settings.smooth_expression / frames, True, 1.0),
        Penalty("rotation", smooth, True, turn),
        Penalty("translation", smooth, True, 1.0),
    ]
    if jaw:
        found += [
            Penalty("jaw", settings.regularise_jaw / frames, False, 1.0),
            Penalty("jaw", settings.smooth_jaw / frames, True, 1.0),
        ]
    return found


def _landmark_weights(settings: Settings) -> Tensor:
    """(68,) by region: jaw line 0-16, brows and nose 17-35, eyes 36-47, mouth 48-67."""
    sizes = ((17, settings.jaw_line), (19, settings.brows_and_nose), (12, settings.eyes), (20, settings.mouth))
    return torch.cat([torch.full((size,), weight) for size, weight in sizes])


def _huber(distance: Tensor, delta: float) -> Tensor:
    """ρ in millimetres: d² / 2δ up to δ, then d - δ / 2."""
    near = distance.clamp(max=delta)
    return MILLIMETRES * (near * near / (2 * delta) + (distance - near))


def _spacing(clouds: Sequence[Tensor]) -> Tensor:
    """(T,) how far the points of each cloud are apart: the median distance to the fourth nearest, of a few hundred of them."""
    found = []
    for cloud in clouds:
        held = cloud.numpy()
        asked = held[:: max(1, len(held) // 300)]
        found.append(float(np.median(cKDTree(held).query(asked, [5])[0])) if len(held) > 5 else 0.0)
    return torch.tensor(found)


def _length(vectors: Tensor) -> Tensor:
    """Lengths with a derivative of 0 at 0."""
    squared = (vectors * vectors).sum(dim=-1)
    return torch.where(squared > 0, squared, 1.0).sqrt() * (squared > 0)
