"""How people differ: a Gaussian process over the head, and directions that a face is described by.

A Gaussian-process morphable model (Lüthi, Gerig, Jud, Vetter, Gaussian Process Morphable Models, PAMI 2018, section 3): the
eigenfunctions of kernels of several length scales, most of them symmetric under x → -x, by Nyström's method on points of the head
(their section 3.2, equation 9), together with designed directions. The principal components of all that, by variance, are the
identity's directions; a code is in standard deviations. They are functions on the closed head, so every mesh has the same people.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from fitting.studio.features import EAR, MOUTH, MOUTH_Y, SKIN, Sites, above_hairline, step
from fitting.studio.mesh import HeadMesh, head_mesh
from fitting.studio.parts import LEFT_BALL, RIGHT_BALL, UPPER_TEETH
from fitting.studio.strokes import Stroke, strokes
from fitting.studio.surface import EYE, Floats

N_IDENTITY = 300
PEOPLE = 80
"""People are drawn from the first components; the others are finer than what tells people apart."""

_SCALES = ((0.080, 0.0019), (0.045, 0.0011), (0.026, 0.00050))
"""Length scales of the kernels and the standard deviations at a point, in metres."""
_ASYMMETRIC = 0.22
_MODES = 60
"""Eigenfunctions kept of each of the six scalar kernels."""

# What a face is described by: each a few strokes at one standard deviation.
_DESIGNED: dict[str, tuple[Stroke, ...]] = {
    "jaw width": (Stroke((50, -60, -2), (26, 26, 34), (2.6, 0, 0)),),
    "chin forward": (Stroke((0, -80, 55), (30, 20, 30), (0, 0, 2.6)),),
    "chin length": (Stroke((0, -90, 45), (42, 26, 45), (0, -2.6, 0)),),
    "chin width": (Stroke((16, -84, 48), (14, 16, 24), (1.8, 0, 0)),),
    "cheekbones": (Stroke((50, -4, 24), (24, 18, 26), (1.8, 0.2, 1.0)),),
    "cheeks": (Stroke((42, -36, 28), (24, 26, 32), (2.4, 0, 1.8)), Stroke((0, -96, 20), (45, 22, 45), (0, -1.6, 0))),
    "forehead": (Stroke((0, 85, 45), (60, 30, 60), (0, 0, 2.4)),),
    "brow ridge": (Stroke((24, 43, 54), (22, 10, 22), (0, 0, 1.3)),),
    "brow height": (Stroke((30, 45, 50), (24, 10, 26), (0, 1.3, 0)),),
    "eye distance": (Stroke((32, 23, 38), (22, 22, 30), (1.3, 0, 0)),),
    "eye height": (Stroke((32, 23, 38), (24, 24, 30), (0, 1.3, 0)),),
    "eye depth": (Stroke((32, 23, 38), (22, 20, 30), (0, 0, 1.2)),),
    "nose length": (Stroke((0, -16, 78), (20, 16, 26), (0, -2.0, 0)),),
    "nose forward": (Stroke((0, -10, 84), (14, 18, 24), (0, 0, 2.2)),),
    "nose width": (Stroke((15, -16, 66), (9, 11, 18), (1.5, 0, 0.3)),),
    "nose bridge": (Stroke((0, 14, 66), (14, 16, 24), (0, 0, 1.6)),),
    "nose hump": (Stroke((0, 2, 77), (9, 10, 18), (0, 0.2, 1.3)),),
    "nose tip": (Stroke((0, -11, 86), (10, 9, 14), (0, 1.6, 0.2)),),
    "upper lip": (Stroke((0, -39, 68), (24, 6, 22), (0, 0.5, 1.0)),),
    "lower lip": (Stroke((0, -51, 68), (22, 6, 22), (0, -0.7, 1.1)),),
    "mouth width": (Stroke((25, -45, 57), (15, 15, 22), (2.0, 0, -0.3)),),
    "mouth height": (Stroke((0, -44, 60), (40, 16, 40), (0, 1.5, 0)),),
    "mouth forward": (Stroke((0, -44, 62), (34, 22, 36), (0, 0, 1.6)),),
    "mouth corners": (Stroke((27, -46, 56), (12, 8, 18), (0, 1.0, 0)),),
    "ears out": (Stroke((82, 3, -34), (14, 36, 18), (2.6, 0, 0)),),
    "jaw angle": (Stroke((50, -62, -14), (22, 22, 26), (0, -2.6, -1.2)),),
    "age": (
        Stroke((34, -52, 38), (16, 18, 24), (0.6, -1.6, 0.3)),
        Stroke((28, -24, 50), (10, 14, 18), (0, -0.4, -0.9)),
        Stroke((34, 8, 42), (14, 7, 16), (0, -0.7, 0.5)),
        Stroke((48, 36, 36), (16, 10, 22), (0, -0.9, 0)),
    ),
    "neck": (Stroke((48, -145, -45), (30, 60, 60), (2.5, 0, 0)), Stroke((0, -140, 10), (40, 50, 30), (0, 0, 1.5))),
    "shoulders": (Stroke((110, -195, -45), (60, 40, 60), (4.0, 2.0, 0)),),
}


class _Generators(NamedTuple):
    """Nyström's eigenfunctions, as weights of the kernels about the control points."""

    controls: Floats
    """(K, 3) on the left half."""
    even: Floats
    """(K, m) for functions that are equal on both halves, with unit variance of their codes."""
    odd: Floats
    """(K, m) for functions that change sign."""


def identity_directions(mesh: HeadMesh) -> Floats:
    """(V, 3, 300) metres for a standard deviation, ordered by variance over the skin."""
    generated = _fields(mesh) - _rigid(mesh.closed) @ _basis().rigid
    return (generated.reshape(-1, generated.shape[2]) @ _basis().components).reshape(len(mesh.closed), 3, N_IDENTITY)


class _Basis(NamedTuple):
    rigid: Floats
    """(6, G) the rigid motion in each generator: it is none of the shape's business."""
    components: Floats
    """(G, 300) the principal components as sums of the generators."""


@lru_cache
def _basis() -> _Basis:
    """Found at the skin of one mesh, weighted by area."""
    mesh = head_mesh("small")
    fields = _fields(mesh)
    weight = np.sqrt(areas(mesh))[:, None, None]
    n_generators = fields.shape[2]
    moves = _rigid(mesh.closed)
    rigid = np.linalg.lstsq((weight * moves).reshape(-1, 6), (weight * fields).reshape(-1, n_generators), rcond=None)[0]
    fields = weight * (fields - moves @ rigid)
    return _Basis(rigid, principal(fields.reshape(-1, n_generators), N_IDENTITY))


def _rigid(places: Floats) -> Floats:
    """(V, 3, 6) the displacements of small translations and rotations."""
    shifts = np.broadcast_to(np.eye(3), (len(places), 3, 3))
    turns = np.stack([np.cross(axis, places) for axis in np.eye(3)], axis=2)
    return np.concatenate([shifts, turns], axis=2)


def principal(columns: Floats, count: int) -> Floats:
    """Combinations (G, count) of ``columns`` (N, G), whose coefficients are independent with variance 1: uncorrelated over N,
    ordered by variance. The largest weight of each is positive."""
    _, vectors = np.linalg.eigh(columns.T @ columns)
    chosen: Floats = vectors[:, ::-1][:, :count]
    found: Floats = chosen * np.sign(chosen[np.abs(chosen).argmax(axis=0), np.arange(count)])
    return found


def areas(mesh: HeadMesh) -> Floats:
    """(V,) shares of the visible head; shoulders count little, pouches, eyeballs and teeth nothing."""
    corners = mesh.rest[mesh.faces]
    size = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1) / 6
    area = np.bincount(mesh.faces.ravel(), np.repeat(size, 3), len(mesh.rest))
    area *= (mesh.sites.patch == SKIN) * (0.05 + 0.95 * step(mesh.rest[:, 1], -0.14, -0.09))
    shares: Floats = area / area.sum()
    return shares


def _fields(mesh: HeadMesh) -> Floats:
    """(V, 3, G) of the generators, with the regions about eyes and in the mouth made to move as one."""
    skin = mesh.sites.patch < LEFT_BALL
    eyes = np.stack([EYE + 0.017 * offset for offset in _AROUND_EYE])
    eyes = np.concatenate([eyes, eyes * np.array([-1.0, 1, 1])])
    jaws = np.array([0.0, MOUTH_Y, 0.040]) + 0.028 * _AROUND_MOUTH
    probes = np.concatenate([eyes, jaws])
    none = np.zeros(len(probes), np.int64)
    probe_sites = Sites(probes, none, none, np.zeros(len(probes)))
    raw = _raw_fields(np.concatenate([mesh.closed, probes]), _joined(mesh.sites, probe_sites))
    fields, probed = raw[: len(mesh.closed)], raw[len(mesh.closed) :]
    n = len(_AROUND_EYE)
    for k, x in enumerate((1.0, -1.0)):
        centre = EYE * np.array([x, 1, 1])
        distance = np.linalg.norm(mesh.closed - centre, axis=1)
        weight = np.where(skin, 1 - step(distance, 0.0185, 0.034), mesh.sites.patch == (LEFT_BALL if x > 0 else RIGHT_BALL))
        fields = _as_one(fields, mesh.closed, weight, probes[k * n : (k + 1) * n], probed[k * n : (k + 1) * n], centre)
    inner = np.where(mesh.sites.patch == MOUTH, step(mesh.sites.inward, 0.1, 0.55), mesh.sites.patch >= UPPER_TEETH)
    return _as_one(fields, mesh.closed, inner * 1.0, probes[2 * n :], probed[2 * n :], jaws.mean(0))


_AROUND_EYE = np.array(
    [[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0.7, 0.7, 0], [-0.7, 0.7, 0], [0.7, -0.7, 0], [-0.7, -0.7, 0]]
)
_AROUND_MOUTH = np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0.6], [0, -1, 0.6], [0.6, 0.6, 0.4], [-0.6, 0.6, 0.4]])


def _as_one(fields: Floats, places: Floats, weight: Floats, probes: Floats, probed: Floats, centre: Floats) -> Floats:
    """``fields`` (V, 3, G) replaced, as far as ``weight`` (V,) says, by the shift and half the growth of the ``probes``."""
    chosen = np.nonzero(weight)[0]
    shift = probed.mean(axis=0)
    offset = probes - centre
    growth = 0.5 * ((probed - shift) * offset[:, :, None]).sum((0, 1)) / (offset**2).sum()
    together = shift + (places[chosen] - centre)[:, :, None] * growth
    fields[chosen] += weight[chosen, None, None] * (together - fields[chosen])
    return fields


def _joined(first: Sites, second: Sites) -> Sites:
    return Sites(*(np.concatenate([a, b]) for a, b in zip(first, second, strict=True)))


def _raw_fields(places: Floats, sites: Sites) -> Floats:
    """(V, 3, G): designed directions, then the Gaussian process."""
    designed = [*_large(places, sites), *(strokes(places, _as_skin(sites), which) for which in _DESIGNED.values())]
    generators = _generators()
    same, mirrored = _kernels(places, generators.controls)
    even, odd = (same + mirrored) @ generators.even, (same - mirrored) @ generators.odd
    none = np.zeros_like(even)
    process = [
        np.stack([odd, none, none], axis=1),
        np.stack([none, even, none], axis=1),
        np.stack([none, none, even], axis=1),
        _ASYMMETRIC * np.stack([even, none, none], axis=1),
        _ASYMMETRIC * np.stack([none, odd, none], axis=1),
        _ASYMMETRIC * np.stack([none, none, odd], axis=1),
    ]
    return np.concatenate([np.stack(designed, axis=2), *process], axis=2)


def _as_skin(sites: Sites) -> Sites:
    return sites._replace(patch=np.zeros_like(sites.patch))


def _large(places: Floats, sites: Sites) -> list[Floats]:
    """The whole head's proportions."""
    x, y, z = (places - np.array([0.0, 0.0, -0.030])).T
    none = 0 * x
    lower, upper = step(y, 0.04, -0.05), step(y, 0.03, 0.10)
    hair = np.where(sites.patch == SKIN, step(above_hairline(sites.base), 0.002, 0.018), 0.0)
    out = places - np.array([0.0, 0.02, -0.03])
    out /= np.linalg.norm(out, axis=1, keepdims=True)
    folded = places * np.where(places < 0, np.array([-1.0, 1, 1]), 1.0)
    at_ear = np.exp(-(((folded - EAR - np.array([0.008, 0, -0.006])) / np.array([0.022, 0.038, 0.026])) ** 2).sum(1))
    ear = (folded - EAR) * np.where(places < 0, np.array([-1.0, 1, 1]), 1.0)
    bust = 1 - step(y, -0.16, -0.10)
    head = 1 - bust
    return [
        0.021 * np.stack([x, y, z], axis=1),  # size
        0.030 * np.stack([x * head, none, none], axis=1),  # width
        0.024 * np.stack([none, none, np.where(z < 0, z, 0.5 * z) * head], axis=1),  # length
        0.026 * np.stack([none, (y - 0.03) * lower * head, none], axis=1),  # length of the face
        0.032 * np.stack([x * lower * head * step(z, -0.03, 0.03), none, none], axis=1),  # width of the face
        0.030 * np.stack([none, (y - 0.03) * upper, none], axis=1),  # height of the skull
        (0.0024 * hair * (1 + 8 * np.clip(places[:, 1] - 0.05, 0, None)))[:, None] * out,  # hair
        (0.08 * at_ear)[:, None] * ear,  # size of the ears
    ]


@lru_cache
def _generators() -> _Generators:
    mesh = head_mesh("small")
    chosen = (mesh.sites.patch == SKIN) & (mesh.closed[:, 0] > -1e-9) & (mesh.closed[:, 1] > -0.17)
    controls = mesh.closed[chosen]
    area = np.maximum(areas(mesh)[chosen], 1e-9)
    area = area / area.sum()
    found = []
    same, mirrored = _kernels(controls, controls)
    for kernel in ((same + mirrored) / 2, (same - mirrored) / 2):
        root = np.sqrt(area)
        values, vectors = np.linalg.eigh(root[:, None] * kernel * root)
        values, vectors = values[::-1][:_MODES], vectors[:, ::-1][:, :_MODES]
        # Of the mirrored pair of kernels half belongs to each half of the head.
        found.append(0.5 * root[:, None] * vectors / np.sqrt(values))
    return _Generators(controls, *found)


def _kernels(places: Floats, controls: Floats) -> tuple[Floats, Floats]:
    """(N, K) the kernel between the places and the controls, and their mirror images."""
    found = []
    for mirror in (1.0, -1.0):
        there = controls * np.array([mirror, 1, 1])
        squared = (places**2).sum(1)[:, None] + (there**2).sum(1) - 2 * places @ there.T
        kernel = np.zeros_like(squared)
        for length, deviation in _SCALES:
            kernel += deviation**2 * np.exp(squared / (-2 * length**2))
        found.append(kernel)
    return found[0], found[1]
