"""Codes of the NPHM-like networks: linear in the family's, so they need not be learned.

NPHM finds codes by auto-decoding (Giebenhain et al. 2023, section 3.4). Here what makes people and expressions is known. The
global part of an identity code is the beginning of the family's code. A local part is what the identity does about that anchor,
beyond moving the anchor itself: its leading principal components over the population. The two anchors of a pair share their
components, the right one seeing its side in a mirror, as they share weights. An expression code is the face's 26 activations and
the jaw's rotation, turned into 200 numbers by a fixed orthonormal matrix, so that none of them is dead.

The published embedding shortens codes that are longer than 1; the scales are such that none of the studio's is.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy.spatial import cKDTree

from fitting.space import NPHM_SCALE
from fitting.studio.controls import EXPRESSIONS
from fitting.studio.expressions import activation_directions
from fitting.studio.identity import N_IDENTITY, PEOPLE, areas
from fitting.studio.nphm_truth import head_surface
from fitting.studio.sampling import Indices
from fitting.studio.surface import Floats

PAIRS, ANCHORS, GLOBAL, LOCAL = 16, 39, 64, 32
MEMBERS = ANCHORS + 1
IDENTITY_CODE = GLOBAL + MEMBERS * LOCAL
EXPRESSION_CODE = 200
N_CONTROLS = len(EXPRESSIONS) + 3
KNOWN = 32
"""Numbers of the identity that an expression network is told."""

GLOBAL_SCALE = 0.06
"""Of the global part for a standard deviation of the family's code."""
LOCAL_SCALE = 5.0
"""Of a local part for a displacement in NPHM units."""
_JAW = 3.0
"""A jaw opened by a third of a radian counts as much as a full activation."""
EXPRESSION_SCALE = 0.18

_NAMED_PAIRS = (
    *("outer_54", "nose_5", "eye_42", "eye_45", "brow_1", "brow_4", "cheek", "contour_9", "contour_11", "contour_13"),
    *("temple", "mastoid", "neck_44_120"),
)
_PLACED_PAIRS = ((0.086, 0.010, -0.032), (0.062, 0.095, -0.030), (0.060, 0.050, -0.100))
"""Ear and scalp: the vertices nearest to these places (metres, left half)."""
_NAMED_MIDDLE = ("nose_0", "nose_3", "outer_51", "outer_57", "forehead", "crown", "occiput")
_REACH = 0.15
"""Vertices count for a local code by exp(-(d / reach)²)."""


class Anchors(NamedTuple):
    """The anchors of canonical heads, linear in the global part of the family's code."""

    vertices: Indices
    """(39,) of the canonical surface, left and right in turn, then those in the middle."""
    mean: Floats
    """(39, 3)."""
    directions: Floats
    """(64, 39, 3) for a standard deviation."""


def nphm_identity(identity: Floats) -> Floats:
    """Codes (..., 1344) of the family's ``identity`` codes (..., 300). Its first 80 numbers count, which tell people apart."""
    given = np.asarray(identity, np.float64)
    if given.shape[-1:] != (N_IDENTITY,):
        raise ValueError(f"an identity code has {N_IDENTITY} numbers, got {given.shape}")
    people = given[..., :PEOPLE]
    local = (people @ _local_map().reshape(-1, PEOPLE).T) * LOCAL_SCALE
    return np.concatenate([GLOBAL_SCALE * people[..., :GLOBAL], local], axis=-1)


def nphm_expression(activations: Floats, jaw: Floats) -> Floats:
    """Codes (T, 200) of ``activations`` (T, 26), in the order of ``EXPRESSIONS``, and ``jaw`` (T, 3), axis-angle in radians."""
    given = np.asarray(activations, np.float64), np.asarray(jaw, np.float64)
    if given[0].shape != (len(given[1]), len(EXPRESSIONS)) or given[1].shape[1:] != (3,):
        raise ValueError(f"activations are (T, {len(EXPRESSIONS)}) and jaws (T, 3), got {given[0].shape} and {given[1].shape}")
    found: Floats = EXPRESSION_SCALE * controls_vector(*given) @ spread().T
    return found


def controls_vector(activations: Floats, jaw: Floats) -> Floats:
    """(T, 29) activations and jaw on one scale."""
    return np.concatenate([activations, _JAW * np.asarray(jaw)], axis=-1)


@lru_cache
def spread() -> Floats:
    """(200, 29) with orthonormal columns."""
    drawn = np.random.default_rng(200).standard_normal((EXPRESSION_CODE, N_CONTROLS))
    columns, triangle = np.linalg.qr(drawn)
    found: Floats = columns * np.sign(np.diag(triangle))
    return found


@lru_cache
def known_map() -> Floats:
    """(32, 64) what an expression network is told of the identity, in NPHM units, of the global part of the family's code: its
    principal components where expressions move the skin."""
    surface = head_surface()
    skin = surface.sources
    moves = activation_directions(surface.family.mesh)[skin]
    weight = areas(surface.family.mesh)[skin] * np.sqrt((moves**2).sum(axis=(1, 2)))
    fields = NPHM_SCALE * surface.family.model.identity[skin, :, :GLOBAL]
    return _components(weight, [fields])[0]


@lru_cache
def anchors() -> Anchors:
    """Those of the mean canonical head, and how people move them."""
    surface = head_surface()
    mesh = surface.family.mesh
    placed = mesh.closed[surface.sources]
    near = surface.sources[cKDTree(placed).query(np.array(_PLACED_PAIRS))[1]]
    left = np.concatenate([[mesh.named[name] for name in _NAMED_PAIRS], near])
    sides = np.stack([left, mesh.mirror[left]], axis=1).ravel()
    middle = np.array([mesh.named[name] for name in _NAMED_MIDDLE])
    vertices = np.searchsorted(surface.sources, np.concatenate([sides, middle]))
    people = np.concatenate([np.zeros((1, N_IDENTITY)), np.eye(GLOBAL, N_IDENTITY)])
    heads = surface.canonical(people)[:, vertices]
    return Anchors(vertices, heads[0], heads[1:] - heads[0])


@lru_cache
def _local_map() -> Floats:
    """(40, 32, 80) local codes, in NPHM units, of the family's codes; the last is the global member's."""
    surface, places = head_surface(), anchors()
    mesh = surface.family.mesh
    skin = surface.sources
    rest = NPHM_SCALE * mesh.rest[skin]
    fields = NPHM_SCALE * surface.family.model.identity[skin, :, :PEOPLE]
    area = areas(mesh)[skin]
    mirror = np.searchsorted(skin, mesh.mirror[skin])
    mirrored = fields[mirror] * np.array([-1.0, 1, 1])[:, None]
    # What the network's anchors leave of the movement: they follow the global part only.
    moved = np.zeros((ANCHORS, 3, PEOPLE))
    moved[:, :, :GLOBAL] = np.moveaxis(places.directions, 0, -1)
    moved[1 : 2 * PAIRS : 2, 0] *= -1
    found = np.empty((MEMBERS, LOCAL, PEOPLE))
    for first in [*range(0, 2 * PAIRS, 2), *range(2 * PAIRS, ANCHORS)]:
        at = rest[places.vertices[first]]
        weight = area * np.exp(-((rest - at) ** 2).sum(axis=1) / _REACH**2)
        seen = [fields - moved[first]]
        if first < 2 * PAIRS:
            seen.append(mirrored - moved[first + 1])
        for k, code in enumerate(_components(weight, seen)):
            found[first + k] = code
    found[-1] = _components(area, [fields])[0]
    return found


def _components(weight: Floats, fields: list[Floats]) -> list[Floats]:
    """For displacements (S, 3, C) weighted by (S,): their coordinates (32, C) on their common principal directions."""
    kept = np.nonzero(weight > 1e-4 * weight.max())[0]
    share = np.sqrt(weight[kept] / weight[kept].sum())[:, None, None]
    flat = [(share * field[kept]).reshape(-1, field.shape[2]) for field in fields]
    both = np.concatenate(flat, axis=1)
    # Directions as sums of the fields' columns: there are fewer of those than of coordinates.
    values, vectors = np.linalg.eigh(both.T @ both)
    vectors, values = vectors[:, ::-1][:, :LOCAL], values[::-1][:LOCAL]
    vectors = vectors * np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(LOCAL)])
    directions = both @ vectors / np.sqrt(values)
    return [directions.T @ field for field in flat]
