"""People of the studio who speak, as NPHM is to explain them: clouds of their faces in its space, true codes and true skins."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

from fitting.nphm import Nphm
from fitting.nphm.compose import Subject
from fitting.studio.family import HeadFamily
from fitting.studio.nphm_errors import subject_of, visible
from fitting.studio.nphm_file import nphm_expression, shipped
from fitting.studio.nphm_truth import MM, head_surface, signed_distances
from fitting.studio.people import PICTURED
from fitting.studio.performance import perform
from fitting.studio.speaker import Speaker
from tests.fitting.flame_fit.sequences import speaking

REACH_MM = 8.0
"""Points further from the face's vertices are left out, as the stage does."""

Floats = NDArray[np.float64]


class Spoken(NamedTuple):
    """T frames of a person."""

    head: Nphm
    subject: Subject
    clouds: list[Tensor]
    """T clouds (N, 3) in NPHM's space, of the face, with noise, holes and outliers."""
    codes: Tensor
    """(T, 200) the true ones."""
    skin: Floats
    """(T, V, 3) the true ``head_surface``, in NPHM's space."""


@lru_cache(maxsize=8)
def spoken(
    number: int, frames: int, *, forward: bool = False, points: int = 20_000, start: float = 0.6, noise: float = 0.0002
) -> Spoken:
    """Person ``number`` of the studio, at 24 frames a second; ``noise`` in metres. Poses of the head are the true ones."""
    seen = speaking(frames, points, "medium", number=number, start=start, noise=noise)
    identity = HeadFamily(PICTURED).people(number + 1)[number]
    performance = perform(
        Speaker.draw(np.random.default_rng([0, number, 1])), start + frames / 24 + 0.2, [0, number, 1], sample_rate=8000
    )
    controls = performance.at(start + np.arange(frames) / 24)
    surface = head_surface()
    skin = surface.pose(identity, controls)
    region = surface.region["face"]
    face = region[region < len(surface.sources)]
    clouds = []
    for cloud, world, still in zip(seen.clouds, seen.large.numpy(), skin, strict=True):
        linear, offset = _similarity(world[surface.sources[face]], still[face])
        placed = cloud.points @ linear.T + offset
        near = cKDTree(still[region]).query(placed, distance_upper_bound=REACH_MM / MM)[0] < np.inf
        clouds.append(torch.from_numpy(placed[near]).float())
    networks = shipped()
    head = Nphm(networks.identity, networks.forward if forward else networks.backward)
    codes = torch.from_numpy(nphm_expression(controls.expression, controls.jaw)).float()
    return Spoken(head, subject_of(head, identity), clouds, codes, skin)


def face_errors_mm(truth: Spoken, codes: Tensor, chosen: list[int], resolution: int = 128) -> Floats:
    """(frames,) chamfer distance between the surface that ``codes`` (T, 200) give and the true skin, in the face: the mean of
    the mean over true vertices and the mean over the surface's, millimetres. Of the frames ``chosen``."""
    surface = head_surface()
    region = visible(surface)["face"]
    found = []
    for frame in chosen:
        true = truth.skin[frame]
        lower, upper = true[region].min(axis=0) - 0.05, true[region].max(axis=0) + 0.05
        mesh = truth.head.meshes(
            codes[frame][None], truth.subject, lower=tuple(lower), upper=tuple(upper), resolution=resolution
        )[0]
        vertices, faces = mesh.vertices.double().numpy(), mesh.faces.numpy()
        back = region[cKDTree(true).query(vertices)[1]]
        to_mesh = np.abs(signed_distances(true[region], vertices, faces))
        to_truth = np.abs(signed_distances(vertices[back], true, surface.faces))
        found.append(MM * (to_mesh.mean() + to_truth.mean()) / 2)
    return np.array(found)


def _similarity(points: Floats, target: Floats) -> tuple[Floats, Floats]:
    """[s R] and t that take ``points`` (N, 3) to ``target`` (Umeyama 1991)."""
    a, b = points - points.mean(axis=0), target - target.mean(axis=0)
    left, values, right = np.linalg.svd(b.T @ a)
    signs = np.array([1.0, 1.0, np.sign(np.linalg.det(left @ right))])
    linear = (values * signs).sum() / (a**2).sum() * (left * signs) @ right
    return linear, target.mean(axis=0) - linear @ points.mean(axis=0)
