"""Meshes of any fineness on the studio's head: where their vertices lie, and how they are joined.

All meshes share the named points (landmarks and what the joints hang on) and have rings about mouth and eyes; between them the
vertices are spread evenly (``spread``). The parameter sphere's convex hull is their Delaunay
triangulation. The left half is made and the right one is its mirror image. The skin is closed: pouches lie behind lips and lids.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull

from fitting.studio import surface
from fitting.studio.features import (
    EYE_WIDTH,
    LEFT_EYE,
    MOUTH,
    MOUTH_WIDTH,
    RIGHT_EYE,
    SKIN,
    Sites,
    eye,
    eye_line,
    lip_heights,
    mouth,
    mouth_line,
    step,
)
from fitting.studio.spread import FINENESS, Fineness, Size, spread
from fitting.studio.surface import EYE, Floats

__all__ = ["Indices", "Size", "SkinMesh", "skin_mesh"]

Indices = NDArray[np.int64]


class SkinMesh(NamedTuple):
    """The closed skin."""

    sites: Sites
    """Of V vertices: those of the middle and the left half, then the right ones."""
    directions: Floats
    """(V, 3) parameters of the vertices outside the pouches; those of the slit's, there."""
    faces: Indices
    """(F, 3) counter-clockwise seen from outside."""
    mirror: Indices
    """(V,) the vertex on the other side."""
    named: dict[str, int]
    """Vertices that all meshes have."""


# Named points of the left half: by their place as seen from the front, …
_FRONT = {
    "brow_0": (0.0110, 0.0385),
    "brow_1": (0.0195, 0.0425),
    "brow_2": (0.0290, 0.0445),
    "brow_3": (0.0385, 0.0428),
    "brow_4": (0.0465, 0.0375),
    "nose_0": (0.0, 0.0240),
    "nose_1": (0.0, 0.0120),
    "nose_2": (0.0, 0.0010),
    "nose_3": (0.0, -0.0105),
    "nose_5": (0.0125, -0.0222),
    "nose_6": (0.0062, -0.0252),
    "nose_4": (0.0, -0.0256),
    "cheek": (0.0400, -0.0050),
    "forehead": (0.0, 0.0700),
}
# … by a place near the surface, from the middle of the head, …
_AROUND = {
    "contour_8": (0.0, -0.0935, 0.0480),
    "contour_9": (0.0160, -0.0915, 0.0440),
    "contour_10": (0.0310, -0.0850, 0.0310),
    "contour_11": (0.0440, -0.0760, 0.0170),
    "contour_12": (0.0540, -0.0620, 0.0060),
    "contour_13": (0.0610, -0.0440, -0.0010),
    "contour_14": (0.0660, -0.0250, -0.0030),
    "contour_15": (0.0690, -0.0050, -0.0030),
    "contour_16": (0.0700, 0.0160, -0.0020),
    "crown": (0.0, 0.1330, -0.0360),
    "occiput": (0.0, 0.0300, -0.1310),
    "temple": (0.0700, 0.0450, -0.0100),
    "mastoid": (0.0620, -0.0350, -0.0500),
}
# … and on the neck by latitude and azimuth (degrees, 0 to the front) on the parameter sphere.
_NECK = {f"neck_{lat}_{az}": (-lat, az) for lat in (44, 54, 66) for az in (0, 60, 120, 180)}


@lru_cache
def skin_mesh(size: Size) -> SkinMesh:
    """The skin at one of the finenesses. Takes a second or two, once."""
    fineness = FINENESS[size]
    named, points = _named_points()
    rings = _rings(fineness)
    fixed = np.concatenate([points, *(ring.base for ring in rings)])
    fixed_directions = surface.direction(fixed)
    neck_names, neck = _on_neck()
    between = spread(np.concatenate([fixed_directions, neck]), fineness)
    half = np.concatenate([fixed_directions, neck, between])
    names = {**named, **{name: len(fixed) + k for k, name in enumerate(neck_names)}}

    base = surface.point(half)
    base[: len(fixed)] = fixed
    side = np.zeros(len(half), np.int64)
    slit = np.zeros(len(half), np.int64)
    start = len(points)
    for ring in rings:
        stop = start + len(ring.base)
        side[start:stop], slit[start:stop] = ring.side, ring.slit
        names.update({name: start + place for name, place in ring.named.items()})
        start = stop
    return _closed_up(fineness, half, _apart(half, base, side), base, side, slit, names)


def _apart(directions: Floats, base: Floats, side: Indices) -> Floats:
    """Directions where the slits are opened, so that triangles across them are neither flat nor tempting."""
    sites = Sites(base, side, np.zeros_like(side), np.zeros(len(side)))
    apart = directions.copy()
    for slit, chosen in ((mouth(sites), base[:, 1] < -0.01), (eye(sites), base[:, 1] >= -0.01)):
        near = np.nonzero(chosen & (base[:, 2] > 0) & (slit.distance < 0.025))[0]
        shift = 0.0040 * slit.upward * (1 - step(slit.distance, 0.0, 0.025))
        moved = base[near] + shift[near, None] * np.array([0.0, 1.0, 0.0])
        apart[near] = surface.direction(moved)
    return apart


class _Ring(NamedTuple):
    base: Floats
    side: Indices
    upward: Floats
    slit: Indices
    """1 for the slit of the mouth, 2 of the left eye, 0 for rings about them."""
    named: dict[str, int]


def _named_points() -> tuple[dict[str, int], Floats]:
    xy = np.array(list(_FRONT.values()))
    front = np.concatenate([xy, surface.depth(xy)[:, None]], axis=1)
    around = surface.point(surface.direction(np.array(list(_AROUND.values()))))
    return {name: k for k, name in enumerate([*_FRONT, *_AROUND])}, np.concatenate([front, around])


def _on_neck() -> tuple[list[str], Floats]:
    angles = np.radians(np.array(list(_NECK.values()), np.float64))
    latitude, azimuth = angles.T
    cosine = np.cos(latitude)
    x = np.where(np.abs(np.sin(azimuth)) < 1e-9, 0.0, np.sin(azimuth))
    return list(_NECK), np.stack([cosine * x, np.sin(latitude), cosine * np.cos(azimuth)], axis=1)


def _rings(fineness: Fineness) -> list[_Ring]:
    """Rings about mouth (its left half) and left eye, the slits first."""
    found = []
    angles = np.pi * np.arange(-fineness.mouth // 2, fineness.mouth // 2 + 1) / fineness.mouth  # lower lip to upper lip
    names = {f"inner_{k}": fineness.mouth // 2 + step_ * fineness.mouth // 16 for k, step_ in _INNER_LIP.items()}
    outer = {f"outer_{k}": fineness.mouth // 2 + step_ * fineness.mouth // 16 for k, step_ in _OUTER_LIP.items()}
    for share in (0.0, *fineness.lip_rings):
        x = (MOUTH_WIDTH + 0.0022 * share) * np.where(np.abs(angles) > np.pi / 2 - 1e-9, 0.0, np.cos(angles))
        upper, lower = lip_heights(MOUTH_WIDTH * np.cos(angles))
        height = np.where(angles > 0, upper, lower) - 0.0009 * (1 - np.abs(np.sin(angles)))
        y = mouth_line(x) + share * height * np.sign(angles) * (angles != 0)
        found.append(
            _ring(x, y, np.sign(angles), np.sin(angles), 0 if share else 1, outer if share == 1 else names if not share else {})
        )
    around = 2 * np.pi * np.arange(2 * fineness.eye) / (2 * fineness.eye)
    names = {f"eye_{k}": step_ * fineness.eye // 10 for k, step_ in _LIDS.items()}
    for distance in (0.0, *fineness.lid_rings):
        along = (1 + 0.8 * distance / EYE_WIDTH) * np.cos(around)
        sine = np.where(np.abs(np.sin(around)) < 1e-9, 0.0, np.sin(around))
        y = eye_line(along) + distance * np.sign(sine) * np.abs(sine) ** 0.7
        ring_names = {} if distance else names
        found.append(_ring(EYE[0] + EYE_WIDTH * along, y, np.sign(sine), sine, 0 if distance else 2, ring_names))
    return found


# Steps of a sixteenth of the way from the left corner along the upper lip (below zero: the lower one) to its middle, …
_INNER_LIP = {"64": 0, "63": 6, "62": 8, "65": -6, "66": -8}
_OUTER_LIP = {"54": 0, "53": 5, "52": 7, "51": 8, "55": -5, "56": -7, "57": -8}
# … and of a tenth from the outer end of the left eye along the upper lid to its inner end and back.
_LIDS = {"45": 0, "44": 4, "43": 6, "42": 10, "47": 14, "46": 16}


def _ring(x: Floats, y: Floats, side: Floats, upward: Floats, slit: int, named: dict[str, int]) -> _Ring:
    base = np.stack([x, y, surface.depth(np.stack([x, y], axis=1))], axis=1)
    return _Ring(base, side.astype(np.int64), upward, np.full(len(x), slit), named)


def _closed_up(
    fineness: Fineness, half: Floats, apart: Floats, base: Floats, side: Indices, slit: Indices, names: dict[str, int]
) -> SkinMesh:
    """Mirror the left half, join the vertices, and hang the pouches into the slits."""
    n_half = len(half)
    on_middle = np.abs(base[:, 0]) < 1e-9
    for array in (half, apart, base):
        array[on_middle, 0] = 0.0
    partner = np.where(on_middle, np.arange(n_half), n_half + np.cumsum(~on_middle) - 1)
    flip = np.array([-1.0, 1, 1])
    faces = _hull(np.concatenate([apart, apart[~on_middle] * flip]), n_half)
    faces = faces[(slit[faces] == 0).any(1) | (slit[faces] != slit[faces[:, :1]]).any(1)]
    faces = np.concatenate([faces, partner[faces][:, ::-1]])
    mirror = np.concatenate([partner, np.nonzero(~on_middle)[0]])

    directions = np.concatenate([half, half[~on_middle] * flip])
    sites = Sites(
        np.concatenate([base, base[~on_middle] * flip]),
        np.concatenate([side, side[~on_middle]]),
        np.full(len(mirror), SKIN),
        np.zeros(len(mirror)),
    )
    mesh = SkinMesh(sites, directions, faces, mirror, {})
    lip = np.nonzero(slit == 1)[0]  # from the middle of the lower lip over the left corner to that of the upper one
    mesh = _with_pouch(mesh, np.concatenate([lip, partner[lip[1:-1]][::-1]]), MOUTH, fineness.mouth_rings, mirrored=None)
    lid = np.nonzero(slit == 2)[0]
    mesh = _with_pouch(mesh, lid, LEFT_EYE, fineness.eye_rings, mirrored=None)
    before = len(mesh.mirror) - len(fineness.eye_rings) * len(lid) - 1
    mesh = _with_pouch(mesh, partner[lid], RIGHT_EYE, fineness.eye_rings, mirrored=before)
    right = {_other_side(name): int(mesh.mirror[vertex]) for name, vertex in names.items()}
    return mesh._replace(named={**right, **names})


def _hull(directions: Floats, n_half: int) -> Indices:
    """The left half of the Delaunay triangles on the sphere, counter-clockwise seen from outside."""
    faces = ConvexHull(directions).simplices.astype(np.int64)
    faces = faces[(faces < n_half).all(1)]
    first, second, third = (directions[faces[:, k]] for k in range(3))
    inwards = (np.cross(second - first, third - first) * first).sum(1) < 0
    faces[inwards] = faces[inwards][:, ::-1]
    found: Indices = faces[np.lexsort(faces.T)]
    return found


def _with_pouch(mesh: SkinMesh, rim: Indices, patch: int, depths: tuple[float, ...], mirrored: int | None) -> SkinMesh:
    """Rings of vertices from the ``rim`` of a slit inwards, and one vertex at the end. ``mirrored`` is the first vertex of the
    pouch of which this one is the mirror image."""
    count, n_before = len(rim), len(mesh.mirror)
    rings = [rim, *(n_before + k * count + np.arange(count) for k in range(len(depths)))]
    end = n_before + len(depths) * count
    outer, inner = np.concatenate(rings[:-1]), np.concatenate(rings[1:])
    outer_next, inner_next = (np.concatenate([np.roll(ring, -1) for ring in part]) for part in (rings[:-1], rings[1:]))
    faces = np.concatenate(
        [
            np.stack([outer, outer_next, inner_next], axis=1),
            np.stack([outer, inner_next, inner], axis=1),
            np.stack([rings[-1], np.roll(rings[-1], -1), np.full(count, end)], axis=1),
        ]
    )
    edges = {
        (int(a), int(b)) for face in mesh.faces for a, b in zip(face, np.roll(face, -1), strict=True) if a in (rim[0], rim[1])
    }
    if (int(rim[0]), int(rim[1])) in edges:  # each edge is walked once in each direction
        faces = faces[:, ::-1]
    n_new = end + 1 - n_before
    base = np.concatenate([np.tile(mesh.sites.base[rim], (len(depths), 1)), mesh.sites.base[rim].mean(0, keepdims=True)])
    sites = Sites(
        np.concatenate([mesh.sites.base, base]),
        np.concatenate([mesh.sites.side, np.tile(mesh.sites.side[rim], len(depths)), [0]]),
        np.concatenate([mesh.sites.patch, np.full(n_new, patch)]),
        np.concatenate([mesh.sites.inward, np.repeat(depths, count), [1.0]]),
    )
    new = np.arange(n_before, end + 1)
    if patch == MOUTH:
        place = {int(mesh.mirror[vertex]): k for k, vertex in enumerate(rim)}
        back = np.array([place[int(vertex)] for vertex in rim])
        mirror = np.concatenate([*(ring[back] for ring in rings[1:]), [end]])
    else:
        mirror = new if mirrored is None else mirrored + np.arange(n_new)
    mirror_all = np.concatenate([mesh.mirror, mirror])
    if mirrored is not None:
        mirror_all[mirrored + np.arange(n_new)] = new
    directions = np.concatenate([mesh.directions, mesh.directions[rim][np.arange(n_new - 1) % count], mesh.directions[rim[:1]]])
    return SkinMesh(sites, directions, np.concatenate([mesh.faces, faces]), mirror_all, {})


_OTHER = {
    **{f"contour_{k}": f"contour_{16 - k}" for k in range(8, 17)},
    **{f"nose_{k}": f"nose_{k}" for k in range(5)},
    **{"nose_5": "nose_8", "nose_6": "nose_7"},
    **{"inner_64": "inner_60", "inner_63": "inner_61", "inner_65": "inner_67"},
    **{"outer_54": "outer_48", "outer_53": "outer_49", "outer_52": "outer_50", "outer_55": "outer_59", "outer_56": "outer_58"},
    **{"eye_45": "eye_36", "eye_44": "eye_37", "eye_43": "eye_38", "eye_42": "eye_39", "eye_47": "eye_40", "eye_46": "eye_41"},
}


def _other_side(name: str) -> str:
    return _OTHER.get(name, f"{name}_right")
