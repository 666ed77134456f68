"""The whole mean head as one mesh: skin, eyeballs and teeth, with texture coordinates, landmarks and mirror pairs."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from fitting.studio.features import EYE_WIDTH, LEFT_EYE, MOUTH, MOUTH_WIDTH, SKIN, Sites, at_rest, closed
from fitting.studio.parts import LEFT_BALL, LOWER_TEETH, RIGHT_BALL, UPPER_TEETH, Part, left_eyeball, teeth
from fitting.studio.sampling import Indices, skin_mesh
from fitting.studio.spread import Size
from fitting.studio.surface import EYE, Floats


class HeadMesh(NamedTuple):
    """V vertices: first the skin's, then left and right eyeball, upper and lower teeth."""

    sites: Sites
    """Of all vertices; eyeballs and teeth have patches of their own (``parts``) and their place as ``base``."""
    rest: Floats
    """(V, 3) metres, the mean head at rest."""
    closed: Floats
    """(V, 3) the same with the lids shut: where deformations are evaluated."""
    directions: Floats
    """(S, 3) parameters of the skin's vertices on the sphere."""
    faces: Indices
    """(F, 3) counter-clockwise seen from outside."""
    mirror: Indices
    """(V,) the vertex on the other side."""
    uv: Floats
    """(M, 2) texture coordinates, u to the right and v up."""
    uv_faces: Indices
    """(F, 3) indices of ``uv``."""
    landmarks: Indices
    """(68,) vertices, in iBUG's order."""
    named: dict[str, int]


class Box(NamedTuple):
    """A rectangle of the texture."""

    u0: float
    v0: float
    u1: float
    v1: float

    def place(self, uv: Floats) -> Floats:
        """``uv`` (N, 2) of 0..1 within the rectangle."""
        found: Floats = np.array([self.u0, self.v0]) + uv * np.array([self.u1 - self.u0, self.v1 - self.v0])
        return found


SKIN_BOX = Box(0.0, 0.2, 1.0, 1.0)
MOUTH_BOX = Box(0.01, 0.01, 0.40, 0.185)
LID_BOX = Box(0.41, 0.01, 0.49, 0.185)
EYE_BOX = Box(0.51, 0.01, 0.685, 0.185)
UPPER_TEETH_BOX = Box(0.70, 0.105, 0.99, 0.185)
LOWER_TEETH_BOX = Box(0.70, 0.01, 0.99, 0.09)

_MIDDLE = np.radians(-4.0)  # latitude in the middle of the face
_ACROSS, _DOWN = 2.0, 0.5  # how much more of the texture the middle of the face gets


def skin_uv(directions: Floats) -> Floats:
    """(N, 2) within ``SKIN_BOX`` for ``directions`` (N, 3) on the parameter sphere; the seam is at the back."""
    azimuth = np.arctan2(directions[:, 0], directions[:, 2]) / np.pi
    latitude = np.arcsin(np.clip(directions[:, 1], -1, 1)) - _MIDDLE
    share = latitude / np.where(latitude > 0, np.pi / 2 - _MIDDLE, np.pi / 2 + _MIDDLE)
    return 0.5 + 0.5 * np.stack([_widened(azimuth, _ACROSS), _widened(share, _DOWN)], axis=1)


def skin_direction(uv: Floats) -> Floats:
    """The inverse of ``skin_uv``."""
    azimuth = np.pi * _narrowed(2 * uv[:, 0] - 1, _ACROSS)
    share = _narrowed(2 * uv[:, 1] - 1, _DOWN)
    latitude = _MIDDLE + share * np.where(share > 0, np.pi / 2 - _MIDDLE, np.pi / 2 + _MIDDLE)
    cosine = np.cos(latitude)
    return np.stack([cosine * np.sin(azimuth), np.sin(latitude), cosine * np.cos(azimuth)], axis=1)


def _widened(share: Floats, more: float) -> Floats:
    return share * (1 + more) / (1 + more * np.abs(share))


def _narrowed(share: Floats, more: float) -> Floats:
    return share / (1 + more - more * np.abs(share))


_TEETH_COLUMNS = {"small": 6, "medium": 24, "large": 36}
_EYE_AROUND = {"small": 10, "medium": 20, "large": 32}


@lru_cache
def head_mesh(size: Size) -> HeadMesh:
    """The mean head at one of the finenesses; made once, in seconds."""
    skin = skin_mesh(size)
    ball = left_eyeball(_EYE_AROUND[size])
    flip = np.array([-1.0, 1, 1])
    right_ball = ball._replace(vertices=ball.vertices * flip, faces=ball.faces[:, ::-1], uv_faces=ball.uv_faces[:, ::-1])
    rows = [teeth(upper, _TEETH_COLUMNS[size]) for upper in (True, False)]
    n_skin, n_ball = len(skin.mirror), len(ball.vertices)
    uv, uv_faces = _skin_texture(skin.directions, skin.sites, skin.faces)
    vertices, faces, mirror = [], [skin.faces], [skin.mirror]
    patches = [skin.sites.patch]
    n = n_skin
    placed: list[tuple[Part, int, Box]] = [
        (ball, LEFT_BALL, EYE_BOX),
        (right_ball, RIGHT_BALL, EYE_BOX),
        (rows[0], UPPER_TEETH, UPPER_TEETH_BOX),
        (rows[1], LOWER_TEETH, LOWER_TEETH_BOX),
    ]
    for part, patch, box in placed:
        vertices.append(part.vertices)
        faces.append(part.faces + n)
        uv_faces = np.concatenate([uv_faces, part.uv_faces + len(uv)])
        uv = np.concatenate([uv, box.place(part.uv)])
        count = len(part.vertices)
        patches.append(np.full(count, patch))
        if patch >= UPPER_TEETH:
            columns = 2 * _TEETH_COLUMNS[size] + 1
            mirror.append(n + np.arange(count).reshape(columns, -1)[::-1].ravel())
        else:
            mirror.append(n + np.arange(count) + (n_ball if patch == LEFT_BALL else -n_ball))
        n += count
    inside = np.concatenate(vertices)
    sites = Sites(
        np.concatenate([skin.sites.base, inside]),
        np.concatenate([skin.sites.side, np.zeros(len(inside), np.int64)]),
        np.concatenate(patches),
        np.concatenate([skin.sites.inward, np.zeros(len(inside))]),
    )
    return HeadMesh(
        sites=sites,
        rest=np.concatenate([at_rest(skin.sites), inside]),
        closed=np.concatenate([closed(skin.sites), inside]),
        directions=skin.directions,
        faces=np.concatenate(faces),
        mirror=np.concatenate(mirror),
        uv=uv,
        uv_faces=uv_faces,
        landmarks=np.array([skin.named[name] for name in _LANDMARKS]),
        named=skin.named,
    )


_LANDMARKS = (
    *(f"contour_{k}" for k in range(17)),
    *(f"brow_{k}_right" for k in (4, 3, 2, 1, 0)),
    *(f"brow_{k}" for k in range(5)),
    *(f"nose_{k}" for k in range(4)),
    *(f"nose_{k}" for k in (8, 7, 4, 6, 5)),
    *(f"eye_{k}" for k in range(36, 48)),
    *(f"outer_{k}" for k in range(48, 60)),
    *(f"inner_{k}" for k in range(60, 68)),
)


def _skin_texture(directions: Floats, sites: Sites, faces: Indices) -> tuple[Floats, Indices]:
    """Coordinates (M, 2) and for each face their indices. They begin with one for each vertex; those of the seam and of the
    pouches' rims, which lie in two parts of the texture, have another further on."""
    pouch = sites.patch > SKIN
    uv = SKIN_BOX.place(skin_uv(directions))
    uv[pouch] = _pouch_uv(sites.take(np.nonzero(pouch)[0]), sites.patch[pouch])
    # The back of the midline has u = 1 on the left half and u = 0 on the right one.
    seam = np.nonzero((np.abs(directions[:, 0]) < 1e-9) & (directions[:, 2] < 0) & ~pouch)[0]
    uv[seam, 0] = SKIN_BOX.u1
    in_pouch = sites.patch[faces].max(axis=1)
    at_rim = (in_pouch > SKIN)[:, None] & ~pouch[faces]
    rim, first = np.unique(faces[at_rim], return_index=True)
    patch_of_rim = np.broadcast_to(in_pouch[:, None], faces.shape)[at_rim][first]
    second = np.full(len(uv), -1)
    second[seam] = len(uv) + np.arange(len(seam))
    second[rim] = len(uv) + len(seam) + np.arange(len(rim))
    on_right = (directions[faces][..., 0].min(axis=1) < -1e-9)[:, None] & np.isin(faces, seam)
    more = [np.stack([np.full(len(seam), SKIN_BOX.u0), uv[seam, 1]], axis=1), _pouch_uv(sites.take(rim), patch_of_rim)]
    return np.concatenate([uv, *more]), np.where(on_right | at_rim, second[faces], faces)


def _pouch_uv(sites: Sites, patch: Indices) -> Floats:
    """(N, 2) upper and lower half of a box, the rims at its ends, for points in the pouches ``patch`` (N,) and at their rims."""
    middle = np.where(patch == MOUTH, 0.0, np.where(patch == LEFT_EYE, EYE[0], -EYE[0]))
    half = np.where(patch == MOUTH, MOUTH_WIDTH, EYE_WIDTH)
    across = 0.5 + 0.49 * (sites.base[:, 0] - middle) / half
    height = 0.5 + 0.49 * np.where(sites.side >= 0, 1, -1) * (1 - sites.inward)
    within = np.stack([across, height], axis=1)
    return np.where((patch == MOUTH)[:, None], MOUTH_BOX.place(within), LID_BOX.place(within))
