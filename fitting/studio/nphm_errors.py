"""How far the NPHM-like networks are from the family, on people and expressions that they were not trained on. Millimetres."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

from fitting.nphm.compose import LOWER, Nphm, Subject
from fitting.nphm.expression import ExpressionNetwork
from fitting.nphm.identity import IdentityNetwork
from fitting.studio.controls import EXPRESSIONS, Controls
from fitting.studio.family import still
from fitting.studio.nphm_codes import nphm_expression, nphm_identity
from fitting.studio.nphm_file import Networks
from fitting.studio.nphm_truth import MM, HeadSurface, head_surface, random_controls, signed_distances
from fitting.studio.surface import Floats


class Spread(NamedTuple):
    """Of many distances."""

    mean: float
    percentile_95: float


def spread_of(distances: Floats) -> Spread:
    return Spread(float(np.mean(distances)), float(np.percentile(distances, 95)))


def surface_errors(
    identity: IdentityNetwork, expression: ExpressionNetwork, people: Floats, controls: Controls, *, resolution: int = 256
) -> dict[str, Spread]:
    """Between the true skins of ``people`` (N, 300) with ``controls``, a moment each, and the networks' meshes of them, both ways
    together: from every true vertex to the mesh, from every vertex of the mesh to the true skin. ``face`` is the face with its
    eyes and lips; ``head`` is all within NPHM's box."""
    surface, head = head_surface(), Nphm(identity, expression)
    truth = surface.posed(people, controls.expression, controls.jaw)
    found: dict[str, list[Floats]] = {"face": [], "head": []}
    regions = visible(surface)
    for person, moment, true in zip(people, _moments(controls), truth, strict=True):
        mesh = head.meshes(moment, subject_of(head, person), resolution=resolution)[0]
        vertices, faces = mesh.vertices.double().numpy(), mesh.faces.numpy()
        to_mesh = np.abs(signed_distances(true, vertices, faces))
        to_truth = np.abs(signed_distances(vertices, true, surface.faces))
        nearest = cKDTree(true).query(vertices)[1]
        within = vertices[:, 1] > LOWER[1] + 5 / MM
        for name, region in regions.items():
            inside = region & (true[:, 1] > LOWER[1] + 5 / MM)
            found[name] += [to_mesh[inside], to_truth[region[nearest] & within]]
    return {name: spread_of(MM * np.concatenate(parts)) for name, parts in found.items()}


def canonical_errors(identity: IdentityNetwork, people: Floats) -> dict[str, Spread]:
    """Distances that the identity network gives at the true canonical skins of ``people`` (N, 300)."""
    surface = head_surface()
    truth = torch.from_numpy(surface.canonical(people)).float()
    regions = visible(surface)
    with torch.no_grad():
        condition = identity.condition(torch.from_numpy(nphm_identity(people)).float())
        distances = MM * identity(truth, condition, floor=0.0).abs().double().numpy()
    inside = (truth[..., 1] > LOWER[1]).numpy()
    return {name: spread_of(distances[inside & region]) for name, region in regions.items()}


def displacement_errors(
    identity: IdentityNetwork, expression: ExpressionNetwork, people: Floats, controls: Controls
) -> dict[str, Spread]:
    """How far from their true places the expression network takes the vertices of ``people`` (N, 300) with ``controls``: posed
    places for a forward network, canonical ones for a backward one. ``unmoved`` is of the face without a network."""
    surface = head_surface()
    canonical, posed = surface.canonical(people), surface.posed(people, controls.expression, controls.jaw)
    forward = expression.direction == "forward"
    start, end = (canonical, posed) if forward else (posed, canonical)
    distance = MM * np.linalg.norm(moved(identity, expression, people, controls, start) - end, axis=-1)
    inside = canonical[..., 1] > LOWER[1]
    regions = visible(surface)
    return {
        **{name: spread_of(distance[inside & region]) for name, region in regions.items()},
        "unmoved": spread_of(MM * np.linalg.norm(start - end, axis=-1)[:, regions["face"]]),
    }


class Openings(NamedTuple):
    """Of mouth and eyes, by the forward network and in truth, (N,) millimetres."""

    mouth: Floats
    true_mouth: Floats
    eyes: Floats
    true_eyes: Floats


def openings(identity: IdentityNetwork, forward: ExpressionNetwork, people: Floats, controls: Controls) -> Openings:
    """How far apart the forward network leaves the edges of lips and lids of ``people`` (N, 300) with ``controls``."""
    surface = head_surface()
    canonical, posed = surface.canonical(people), surface.posed(people, controls.expression, controls.jaw)
    landmarks = np.searchsorted(surface.sources, surface.family.mesh.landmarks)
    found = moved(identity, forward, people, controls, canonical)[:, landmarks]
    truth = posed[:, landmarks]

    def between(points: Floats, *pairs: tuple[int, int]) -> Floats:
        distances = [np.linalg.norm(points[:, first] - points[:, second], axis=-1) for first, second in pairs]
        mean: Floats = MM * np.mean(distances, axis=0)
        return mean

    lids = (43, 47), (44, 46), (37, 41), (38, 40)
    return Openings(between(found, (62, 66)), between(truth, (62, 66)), between(found, *lids), between(truth, *lids))


def moved(identity: IdentityNetwork, expression: ExpressionNetwork, people: Floats, controls: Controls, points: Floats) -> Floats:
    """Where the expression network takes ``points`` (N, P, 3)."""
    codes = torch.from_numpy(nphm_identity(people)).float()
    start = torch.from_numpy(points).float()
    with torch.no_grad():
        condition = expression.condition(codes, identity.condition(codes).anchors)
        found: Floats = (start + expression(start, torch.cat(_moments(controls)), condition).offset).double().numpy()
    return found


def subject_of(head: Nphm, person: Floats) -> Subject:
    return head.subject(torch.from_numpy(nphm_identity(person[None])).float())


def visible(surface: HeadSurface) -> dict[str, NDArray[np.bool_]]:
    """(V,) bool for the surface's vertices, by the names of errors."""
    face = np.zeros(surface.n_vertices, np.bool_)
    face[surface.region["face"]] = True
    face[surface.region["eye"]] = True
    return {"face": face, "head": np.ones(surface.n_vertices, np.bool_)}


def _moments(controls: Controls) -> list[Tensor]:
    codes = torch.from_numpy(nphm_expression(controls.expression, controls.jaw)).float()
    return list(codes[:, None])


HELD_OUT = 2001
"""Seed of people and expressions that no training sees."""


def held_out_errors(networks: Networks, count: int = 4, resolution: int = 128) -> dict[str, object]:
    """All of the above for ``count`` people, each with an expression of their own."""
    people = head_surface().family.people(count, HELD_OUT)
    controls = random_controls(np.random.default_rng(HELD_OUT), count)
    many = random_controls(np.random.default_rng([HELD_OUT, 1]), 25 * count)
    others = head_surface().family.people(25 * count, HELD_OUT + 1)
    found: dict[str, object] = {"canonical": _rounded(canonical_errors(networks.identity, people))}
    for network in (networks.forward, networks.backward):
        name = network.direction.value
        found[f"{name} displacement"] = _rounded(displacement_errors(networks.identity, network, others, many))
        found[f"{name} surface"] = _rounded(surface_errors(networks.identity, network, people, controls, resolution=resolution))
    gaps = openings(networks.identity, networks.forward, others, many)
    found["mouth opening kept"] = round(float(np.polyfit(gaps.true_mouth, gaps.mouth, 1)[0]), 3)
    shut = openings(networks.identity, networks.forward, others, blinks(len(others)))
    wrong = {
        "mouth": gaps.mouth - gaps.true_mouth,
        "eyes": gaps.eyes - gaps.true_eyes,
        "shut eyes": shut.eyes - shut.true_eyes,
    }
    found["openings"] = _rounded({name: spread_of(np.abs(difference)) for name, difference in wrong.items()})
    return found


def blinks(count: int) -> Controls:
    """``count`` moments with both eyes shut and nothing else."""
    controls = still(count)
    controls.expression[:, [EXPRESSIONS.index("blink_left"), EXPRESSIONS.index("blink_right")]] = 1
    return controls


def _rounded(spreads: dict[str, Spread]) -> dict[str, list[float]]:
    return {name: [round(value, 3) for value in spread] for name, spread in spreads.items()}
