"""FLAME fitted to a whole sequence of point clouds and landmarks (FaceTalk, supplement D)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fitting.flame import Flame, Landmarks, load_regions
from fitting.flame_fit import adam, gauss_newton
from fitting.flame_fit.curve import Curve
from fitting.flame_fit.objective import Cloud, Objective
from fitting.flame_fit.parameters import Parameters, zeros
from fitting.flame_fit.rigid import Start, start
from fitting.flame_fit.settings import Settings
from fitting.rotations import axis_angle_to_matrix, matrix_to_axis_angle
from fitting.similarity import Similarity
from fitting.space import FLAME_TO_NPHM
from manifests.assets import find

REGION = "face"
"""The region whose vertices are drawn to the clouds."""


class FlameFit(NamedTuple):
    """The head of a sequence of T frames, in the world of its clouds: x_world = scale R x_flame + translation."""

    scale: Tensor
    """() float64."""
    rotation: Tensor
    """(T, 3) float64 axis-angle in radians, about FLAME's origin (not its root joint). Neighbours do not jump: where a turn
    passes π the vectors go on growing."""
    translation: Tensor
    """(T, 3) float64 metres."""
    identity: Tensor
    """(I,) float64 standard deviations."""
    expression: Tensor
    """(T, E) float64 standard deviations."""
    jaw: Tensor
    """(T, 3) float64 axis-angle; zeros for a FLAME without jaw."""
    vertices: Tensor
    """(T, V, 3) of the whole head, metres in the world, in FLAME's dtype."""
    residual_mm: Tensor
    """(T,) mean distance to the planes of the matched points; NaN where none is matched."""
    inliers: Tensor
    """(T,) share of the vertices that were drawn to the cloud and found a match."""
    landmark_mm: Tensor
    """(T,) mean distance to the landmarks that were used; NaN where there were none."""
    converged: Tensor
    """(T,) bool: enough vertices had a match. The others are carried by their landmarks and neighbours."""
    curve: Curve
    """How the energy fell."""
    digest: str
    """Of the FLAME file; the codes mean nothing with another."""

    @property
    def similarity(self) -> Similarity:
        """(T,) FLAME's space to the world."""
        return Similarity(self.scale.expand(len(self.rotation)), axis_angle_to_matrix(self.rotation), self.translation)


def fit_sequence(
    flame: Flame,
    clouds: Sequence[Cloud],
    landmarks: Tensor,
    valid: Tensor,
    *,
    settings: Settings | None = None,
    regions: Mapping[str, Tensor] | None = None,
    embedding: Landmarks | None = None,
) -> FlameFit:
    """Fit ``flame`` to the ``clouds`` of T frames and ``landmarks`` (T, 68, 3) in the world, used where ``valid`` (T, 68).

    Only the vertices of ``regions["face"]`` are drawn to the clouds, since clouds show faces only; ``embedding`` are the 68
    landmarks on FLAME. Left out, both are read from the files flame-masks and flame-landmarks of ``manifests.assets``. A frame
    with an empty cloud or without landmarks is carried by its neighbours. Same arguments, same result. Raises ``ValueError``
    for shapes that do not fit, for numbers that are not finite, for no frames, where no frame has landmarks to start from,
    and for a jaw that the model lacks. Everything runs on the CPU.
    """
    settings = settings or Settings()
    if settings.jaw and not flame.has_jaw:
        raise ValueError(f"{flame.name} has no jaw to turn: its expressions open the mouth; leave settings.jaw out")
    regions = load_regions(find("flame-masks")) if regions is None else regions
    embedding = Landmarks.load(find("flame-landmarks"), flame) if embedding is None else embedding
    embedding = _ibug(embedding)
    points, normals = _checked(clouds, landmarks, valid)
    asked = _region(regions, flame)
    template = embedding(flame.v_template).double()
    at = start(template, landmarks[:, embedding.indices], valid[:, embedding.indices], settings.outlier)
    objective = _objective(flame, embedding, asked, points, normals, landmarks, valid, at, settings)
    way = adam.fit if settings.method == "adam" else gauss_newton.fit
    found, curve = way(objective, first(flame, at))
    return _result(flame, objective, found, curve, at.sequence)


def to_nphm(fit: FlameFit) -> Similarity:
    """(T,) from the world of the clouds to NPHM's space, which is FLAME's times 4: x_nphm = 4 Rᵀ (x_world - t) / s."""
    return FLAME_TO_NPHM.compose(fit.similarity.inverse())


def continuous(axis_angle: Tensor) -> Tensor:
    """The same rotations (T, 3), each by the vector that is nearest to the one before: v, or v lengthened by a whole turn."""
    found = axis_angle.clone()
    for t in range(1, len(found)):
        length = found[t].norm().clamp(min=1e-12)
        turns = ((found[t - 1] @ found[t]) / length - length) / (2 * torch.pi)
        found[t] *= 1 + 2 * torch.pi * torch.round(turns) / length
    return found


def first(flame: Flame, at: Start) -> Parameters:
    """The mean head where the landmarks are, as seen from the sequence's own place."""
    seen = at.sequence.inverse().compose(at.frames)
    return zeros(flame, len(at.kept))._replace(rotation=matrix_to_axis_angle(seen.rotation), translation=seen.translation)


def _objective(
    flame: Flame,
    embedding: Landmarks,
    asked: Tensor,
    points: list[Tensor],
    normals: list[Tensor],
    landmarks: Tensor,
    valid: Tensor,
    at: Start,
    settings: Settings,
) -> Objective:
    """Everything in FLAME's own size and near its place, where parameters are small and eq. 27 makes sense."""
    back = at.sequence.inverse()
    kept = torch.zeros_like(valid)
    kept[:, embedding.indices] = at.kept
    placed = back.apply(torch.where(kept[..., None], landmarks, 0.0).double())
    near = [back.apply(cloud.double()) for cloud in points]
    turned = [back.apply_normals(cloud.double()) for cloud in normals]
    return Objective(flame, embedding, asked, near, turned, placed, kept, settings)


def _result(flame: Flame, objective: Objective, found: Parameters, curve: Curve, sequence: Similarity) -> FlameFit:
    with torch.no_grad():
        seen = objective.face(found)
        matches = objective.search(seen, objective.settings.last_gate)
        assert matches.normals is not None
        along = ((seen.vertices - matches.points) * matches.normals).sum(dim=-1).abs()
        count = matches.inlier.sum(dim=-1)
        millimetres = 1000 * sequence.scale * found.scale
        residual = millimetres * (along * matches.inlier).sum(dim=-1) / count
        used = objective.landmark_weight > 0
        off = (seen.landmarks - objective.landmarks).norm(dim=-1)
        landmark = millimetres * (off * used).sum(dim=-1) / used.sum(dim=-1)
        own = Similarity(found.scale.expand(objective.frames), axis_angle_to_matrix(found.rotation), found.translation)
        placed = sequence.compose(own)
        given = found.to(flame.template.dtype)
        rest = flame(given.identity, given.expression, jaw=given.jaw if flame.has_jaw else None).vertices
    share = count / len(objective.face.asked)
    return FlameFit(
        scale=placed.scale[0],
        rotation=continuous(matrix_to_axis_angle(placed.rotation)),
        translation=placed.translation,
        identity=found.identity,
        expression=found.expression,
        jaw=found.jaw,
        vertices=placed.apply(rest),
        residual_mm=residual.double(),
        inliers=share.double(),
        landmark_mm=landmark.double(),
        converged=share >= objective.settings.min_inliers,
        curve=curve,
        digest=flame.digest,
    )


def _checked(clouds: Sequence[Cloud], landmarks: Tensor, valid: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Points and normals of each frame."""
    frames = len(clouds)
    if not frames:
        raise ValueError("a sequence has at least one frame, got no clouds")
    if landmarks.shape != (frames, 68, 3) or valid.shape != (frames, 68) or valid.dtype != torch.bool:
        shapes = f"{tuple(landmarks.shape)} and {tuple(valid.shape)} {valid.dtype}"
        raise ValueError(f"{frames} clouds need landmarks ({frames}, 68, 3) and valid ({frames}, 68) torch.bool, got {shapes}")
    if not bool(landmarks[valid].isfinite().all()):
        frame = int((~landmarks.isfinite().all(dim=-1) & valid).any(dim=1).nonzero()[0])
        raise ValueError(f"landmarks of frame {frame} are not all finite: say in valid which are there")
    points, normals = [], []
    for frame, cloud in enumerate(clouds):
        held = [torch.as_tensor(array) for array in (cloud.points, cloud.normals)]
        if held[0].ndim != 2 or held[0].shape[-1] != 3 or held[0].shape != held[1].shape:
            shapes = f"{tuple(held[0].shape)} and {tuple(held[1].shape)}"
            raise ValueError(f"the cloud of frame {frame} has points and normals (N, 3), got {shapes}")
        for name, array in zip(("points", "normals"), held, strict=True):
            if not bool(array.isfinite().all()):
                raise ValueError(f"{name} of frame {frame} are not all finite: leave those points out")
        points.append(held[0])
        normals.append(held[1])
    return points, normals


def _ibug(embedding: Landmarks) -> Landmarks:
    """Those of iBUG's 68, without pupils."""
    if int(embedding.indices.max()) > 69:
        raise ValueError("the embedding's landmarks are not iBUG's 68: give the set full of flame-landmarks")
    kept = embedding.indices < 68
    return Landmarks(embedding.corners[kept], embedding.barycentric[kept], embedding.indices[kept], embedding.n_vertices)


def _region(regions: Mapping[str, Tensor], flame: Flame) -> Tensor:
    if REGION not in regions:
        raise ValueError(f"regions have {', '.join(sorted(regions))} but not {REGION}, whose vertices are drawn to the clouds")
    asked = regions[REGION].to(torch.int64)
    if not len(asked) or int(asked.max()) >= flame.n_vertices or int(asked.min()) < 0:
        raise ValueError(f"region {REGION} is empty or has vertices that {flame.name} with {flame.n_vertices} lacks")
    return asked
