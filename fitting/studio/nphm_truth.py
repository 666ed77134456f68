"""The family as NPHM sees heads: one closed skin, its signed distances, and where expressions take its points.

NPHM knows heads as scans, a single surface without teeth or loose eyeballs. So the surface here is the outer skin of the large
mesh with three sheets: over the visible part of each eyeball, and between the lips, bulging inwards by a share of their
distance. Sheets hang on the lids' and the lips' edges: where those meet, a sheet is pressed flat between them. That makes every
pose a deformation of one surface. Teeth and the depth of the mouth are no part of it.

The canonical pose is NPHM's: a neutral face with the mouth a little open, so that the lips are apart; gaze straight, neck and
head not turned. All lengths are in NPHM units, a quarter of a metre.
"""

from __future__ import annotations

from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np
import torch
from scipy.sparse import csr_matrix
from scipy.spatial import cKDTree

from fitting.flame.model import Flame
from fitting.space import NPHM_SCALE
from fitting.studio.controls import EXPRESSIONS, Controls
from fitting.studio.expressions import expression_code
from fitting.studio.family import HeadFamily, still
from fitting.studio.features import MOUTH, SKIN
from fitting.studio.parts import LEFT_BALL, RIGHT_BALL
from fitting.studio.sampling import Indices
from fitting.studio.surface import Floats

MM = 1000 / NPHM_SCALE
"""Millimetres in a unit of NPHM."""

CANONICAL_JAW = 0.08
"""Radians."""
CANONICAL_LIPS = 0.5
"""Of the activation lips_part."""

_LIP_DEPTH = 0.2
"""How deep in the mouth's pouch (``Sites.inward``) the sheet between the lips begins: where their inner sides end."""
_MOUTH_BULGE = 0.6
_MOUTH_ROWS = np.linspace(0, 1, 9)[1:-1]
_EYE_ROWS = np.array([0.06, 0.2, 0.4, 0.6, 0.8, 0.94])


class _Sheet(NamedTuple):
    """A grid of vertices between two edges, C columns, R rows of its own."""

    lower: Indices
    """(C,) vertices of the skin; the first and the last are also ``upper``'s."""
    upper: Indices
    """(C,)."""
    ball: int
    """Patch of the eyeball that it lies on, or -1."""


class HeadSurface:
    """The closed surface, the same triangles for all people and poses."""

    def __init__(self) -> None:
        family = HeadFamily("large")
        self.family = family
        sites = family.mesh.sites
        edge = (sites.patch == MOUTH) & (sites.inward < _LIP_DEPTH + 1e-9)
        chosen = np.nonzero((sites.patch == SKIN) | edge)[0]
        balls = [np.nonzero(sites.patch == ball)[0] for ball in (LEFT_BALL, RIGHT_BALL)]
        self._n_skin = len(chosen)
        poles = np.array([pole for ball in balls for pole in (ball[0], ball[-1])])
        self._flame: Flame = family.flame().part(torch.from_numpy(np.concatenate([chosen, poles])))
        place = np.full(len(sites.patch), -1)
        place[chosen] = np.arange(len(chosen))
        self._sheets = [
            _mouth_sheet(place[(sites.patch == MOUTH) & (np.abs(sites.inward - _LIP_DEPTH) < 1e-9)]),
            *_eye_sheets(family, place),
        ]
        self.sources = chosen
        """(S,) vertices of the family's large mesh: the surface's first S; the sheets' follow."""
        skin = place[family.mesh.faces]
        faces, start = [skin[(skin >= 0).all(axis=1)]], len(chosen)
        for sheet in self._sheets:
            count = (len(_rows(sheet)), len(sheet.lower) - 2)
            grid = np.empty((count[0] + 2, len(sheet.lower)), np.int64)
            grid[:] = sheet.lower
            grid[-1] = sheet.upper
            grid[1:-1, 1:-1] = start + np.arange(count[0] * count[1]).reshape(count)
            faces.append(_triangles(grid))
            start += count[0] * count[1]
        self.faces: Indices = np.concatenate(faces)
        """(F, 3) counter-clockwise seen from outside."""
        self.n_vertices = start

    def canonical(self, identity: Floats) -> Floats:
        """(N, V, 3) the canonical heads of people (N, 300). Linear but for the sheets."""
        controls = still(len(identity))
        controls.expression[:, EXPRESSIONS.index("lips_part")] = CANONICAL_LIPS
        controls.jaw[:, 0] = CANONICAL_JAW
        return self.posed(identity, controls.expression, controls.jaw)

    def posed(self, identity: Floats, activations: Floats, jaw: Floats) -> Floats:
        """(T, V, 3) the heads of people (T, 300) with ``activations`` (T, 26) and ``jaw`` (T, 3), radians."""
        code = expression_code(activations)[:, : len(EXPRESSIONS)]
        given = (torch.from_numpy(np.array(values, np.float32)) for values in (identity, code, jaw))
        person, moving, opening = given
        with torch.no_grad():
            points = self._flame(person, moving, jaw=opening).vertices.double().numpy() * NPHM_SCALE
        skin, poles = points[:, : self._n_skin], points[:, self._n_skin :]
        sheets = []
        for sheet in self._sheets:
            edges = skin[:, sheet.lower[1:-1]], skin[:, sheet.upper[1:-1]]
            if sheet.ball < 0:
                rows = _between_lips(*edges)
            else:
                front, back = np.moveaxis(poles.reshape(len(poles), 2, 2, 3)[:, int(sheet.ball == RIGHT_BALL)], 1, 0)
                rows = _over_eyeball(*edges, (front + back) / 2, np.linalg.norm(front - back, axis=-1) / 2)
            sheets.append(rows.reshape(len(rows), -1, 3))
        return np.concatenate([skin, *sheets], axis=1)

    def pose(self, identity: Floats, controls: Controls) -> Floats:
        """``posed`` for a performance by one person (300,) or several (T, 300); neck, head, gaze and translation play no part."""
        people = np.broadcast_to(identity, (len(controls.jaw), identity.shape[-1]))
        return self.posed(people, controls.expression, controls.jaw)

    @cached_property
    def region(self) -> dict[str, Indices]:
        """Vertices by region: those of the family, and ``eye`` and ``mouth`` for the sheets."""
        place = np.full(len(self.family.mesh.sites.patch), -1)
        place[self.sources] = np.arange(len(self.sources))
        found = {name: place[vertices] for name, vertices in self.family.regions.items()}
        found = {name: vertices[vertices >= 0] for name, vertices in found.items()}
        counts = [len(_rows(sheet)) * (len(sheet.lower) - 2) for sheet in self._sheets]
        ends = self._n_skin + np.cumsum(counts)
        return {**found, "mouth": np.arange(self._n_skin, ends[0]), "eye": np.arange(ends[0], ends[-1])}

    @cached_property
    def detailed(self) -> Floats:
        """(V,) 1 where the skin has fine features, else 0."""
        found = np.zeros(self.n_vertices)
        for name in ("eye", "left_eye_region", "right_eye_region", "mouth", "lips", "nose", "left_ear", "right_ear"):
            found[self.region[name]] = 1
        return found


@lru_cache
def head_surface() -> HeadSurface:
    """The surface; made once, in seconds."""
    return HeadSurface()


def random_controls(rng: np.random.Generator, count: int) -> Controls:
    """Random moments: a few activations at once, or many, or one; blinks; the jaw mostly as in speech."""
    sparse = rng.choice([0.05, 0.15, 0.3], count)[:, None]
    active = rng.random((count, len(EXPRESSIONS))) < sparse
    expression = active * rng.uniform(0, 1, active.shape) ** 0.8
    left, right = EXPRESSIONS.index("blink_left"), EXPRESSIONS.index("blink_right")
    blinking = rng.random(count) < 0.3
    shut = np.where(rng.random(count) < 0.5, 1.0, rng.uniform(0, 1, count))
    expression[blinking, left] = expression[blinking, right] = shut[blinking]
    shut_mouth = rng.random(count) < 0.25
    opened = np.where(
        shut_mouth, 0.0, np.where(rng.random(count) < 0.85, rng.uniform(0, 0.3, count), rng.uniform(0.3, 0.45, count))
    )
    jaw = np.stack([opened, *(0.012 * rng.standard_normal((2, count)))], axis=1)
    return still(count)._replace(expression=expression, jaw=jaw)


def signed_distances(points: Floats, vertices: Floats, faces: Indices) -> Floats:
    """Exact distances (P,) of ``points`` (P, 3) to a closed triangle mesh, negative inside.

    The nearest triangle is looked for among those about the four nearest vertices, which holds where triangles are even. Its
    side decides the sign; of triangles that are equally near, at an edge or a corner, that which the point lies most squarely
    above.
    """
    around = _faces_about(faces, len(vertices))
    near = cKDTree(vertices).query(points, 4)[1]
    candidates = around[near].reshape(len(points), -1)
    corners = np.concatenate([vertices[faces], np.full((1, 3, 3), 1e6)])  # the last one fills rows up
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    normals = np.divide(normals, lengths, out=np.zeros_like(normals), where=lengths > 1e-14)
    found = np.empty(len(points))
    for start in range(0, len(points), 20_000):
        rows = slice(start, start + 20_000)
        offset = points[rows, None] - _nearest_on_triangles(points[rows, None], corners[candidates[rows]])
        distance = np.linalg.norm(offset, axis=-1)
        least = distance.min(axis=1, keepdims=True)
        above = (offset * normals[candidates[rows]]).sum(axis=-1)
        above[distance > least + 1e-9] = 0
        side = np.take_along_axis(above, np.abs(above).argmax(axis=1)[:, None], axis=1)
        found[rows] = (np.where(side < 0, -1.0, 1.0) * least)[:, 0]
    return found


def vertex_normals(vertices: Floats, faces: Indices) -> Floats:
    """Unit normals (T, V, 3) of meshes (T, V, 3), weighted by the triangles' areas; 0 where all triangles are flat."""
    corners = vertices[:, faces]
    area = np.cross(corners[:, :, 1] - corners[:, :, 0], corners[:, :, 2] - corners[:, :, 0])
    index = np.arange(len(faces)).repeat(3)
    touches = csr_matrix((np.ones(faces.size), (faces.ravel(), index)), (vertices.shape[1], len(faces)))
    normals = np.stack([touches @ of_faces for of_faces in area])
    length = np.linalg.norm(normals, axis=-1, keepdims=True)
    unit: Floats = np.divide(normals, length, out=np.zeros_like(normals), where=length > 1e-12)
    return unit


def _nearest_on_triangles(points: Floats, corners: Floats) -> Floats:
    """The points (..., 3) of triangles (..., 3, 3) that are nearest to ``points`` (..., 3).

    The point's foot on the plane, where it is inside; else the nearest of the feet on the three edges.
    """
    a, b, c = np.moveaxis(corners, -2, 0)
    ab, ac, ap = b - a, c - a, points - a
    d00, d01, d11 = _dot(ab, ab), _dot(ab, ac), _dot(ac, ac)
    d20, d21 = _dot(ap, ab), _dot(ap, ac)
    determinant = d00 * d11 - d01 * d01
    safe = np.where(determinant > 1e-20, determinant, 1.0)
    v, w = (d11 * d20 - d01 * d21) / safe, (d00 * d21 - d01 * d20) / safe
    inside = (determinant > 1e-20) & (v >= 0) & (w >= 0) & (v + w <= 1)
    best = a + v[..., None] * ab + w[..., None] * ac
    least = np.where(inside, 0.0, np.inf)
    for start, end in ((a, b), (b, c), (c, a)):
        edge = end - start
        share = np.clip(_dot(points - start, edge) / np.maximum(_dot(edge, edge), 1e-20), 0, 1)
        foot = start + share[..., None] * edge
        squared = _dot(points - foot, points - foot)
        better = squared < least
        best = np.where(better[..., None], foot, best)
        least = np.where(better, squared, least)
    found: Floats = best
    return found


def _dot(first: Floats, second: Floats) -> Floats:
    product: Floats = np.einsum("...i,...i->...", first, second)
    return product


def _faces_about(faces: Indices, n_vertices: int) -> Indices:
    """(V, most) the faces about each vertex, filled up with the number of faces."""
    order = np.argsort(faces.ravel(), kind="stable")
    vertex = faces.ravel()[order]
    nth = np.arange(len(vertex)) - np.searchsorted(vertex, vertex)
    found = np.full((n_vertices, nth.max() + 1), len(faces))
    found[vertex, nth] = order // 3
    return found


def _mouth_sheet(ring: Indices) -> _Sheet:
    """From the left corner of the mouth to the right one; ``ring`` begins in the middle of the lower lip and goes left."""
    quarter = len(ring) // 4
    turned = np.roll(ring, -quarter)
    return _Sheet(np.concatenate([turned[:1], turned[: 2 * quarter - 1 : -1]]), turned[: 2 * quarter + 1], -1)


def _eye_sheets(family: HeadFamily, place: Indices) -> list[_Sheet]:
    mesh = family.mesh
    start = mesh.named["eye_45"]
    count = 5 * (mesh.named["eye_43"] - mesh.named["eye_44"]) * 2
    ring = start + np.arange(count)
    found = []
    for vertices, ball in ((ring, LEFT_BALL), (mesh.mirror[ring], RIGHT_BALL)):
        turned = place[vertices]
        upper, lower = turned[: count // 2 + 1], np.concatenate([turned[:1], turned[: count // 2 - 1 : -1]])
        if ball == RIGHT_BALL:
            upper, lower = upper[::-1], lower[::-1]
        found.append(_Sheet(lower, upper, ball))
    return found


def _rows(sheet: _Sheet) -> Floats:
    return _MOUTH_ROWS if sheet.ball < 0 else _EYE_ROWS


def _triangles(grid: Indices) -> Indices:
    """Two triangles for each square of a grid whose rows go up and whose columns go from the person's left to the right."""
    a, b, c, d = (part.ravel() for part in (grid[:-1, :-1], grid[:-1, 1:], grid[1:, 1:], grid[1:, :-1]))
    faces = np.concatenate([np.stack([a, d, c], axis=1), np.stack([a, c, b], axis=1)])
    whole = (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])
    found: Indices = faces[whole]
    return found


def _between_lips(lower: Floats, upper: Floats) -> Floats:
    """(T, R, C, 3) a sheet between edges (T, C, 3) that bulges backwards."""
    share = _MOUTH_ROWS[:, None, None]
    gap = np.linalg.norm(upper - lower, axis=-1)[:, None]
    rows = lower[:, None] + share * (upper - lower)[:, None]
    rows[..., 2] -= _MOUTH_BULGE * gap * np.sqrt(4 * share * (1 - share))[..., 0]
    found: Floats = rows
    return found


def _over_eyeball(lower: Floats, upper: Floats, centre: Floats, radius: Floats) -> Floats:
    """(T, R, C, 3) a sheet on the eyeball (T, 3), (T,) between the lids' edges (T, C, 3), which stand off from it."""
    share = _EYE_ROWS[:, None, None]
    centre, ball = centre[:, None, None], radius[:, None, None]
    rows = lower[:, None] + share * (upper - lower)[:, None] - centre
    from_centre = np.linalg.norm(lower[:, None] - centre, axis=-1), np.linalg.norm(upper[:, None] - centre, axis=-1)
    edge = from_centre[0] + share[..., 0] * (from_centre[1] - from_centre[0])
    gap = np.linalg.norm(upper - lower, axis=-1)[:, None]
    down = gap / (gap + 1 / MM) * (1 - np.abs(2 * share[..., 0] - 1) ** 6)
    length = edge + down * (ball - edge)
    found: Floats = centre + rows / np.linalg.norm(rows, axis=-1, keepdims=True) * length[..., None]
    return found
