"""How many vertices the meshes have, and how they are spread over the head: by Lloyd's relaxation, finer on face and ears.

Everything is about the left half and the midline; the right half is the left one's mirror image.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull, cKDTree

from fitting.studio import surface
from fitting.studio.features import Sites, above_hairline, closed, ear, eye, lip_heights, mouth, step
from fitting.studio.surface import EYE, Floats

Size = Literal["small", "medium", "large"]


class Fineness(NamedTuple):
    skin: int
    """Vertices of the whole skin, pouches included."""
    mouth: int
    """Steps from corner to corner of the mouth along one lip; a multiple of 16."""
    eye: int
    """Likewise of an eye; a multiple of 10."""
    lip_rings: tuple[float, ...]
    """Multiples of the height of the lips' red; 1 must be among them."""
    lid_rings: tuple[float, ...]
    """Metres from the slit."""
    mouth_rings: tuple[float, ...]
    eye_rings: tuple[float, ...]


FINENESS: dict[Size, Fineness] = {
    "small": Fineness(990, 16, 10, (0.45, 1.0), (0.001, 0.0045), (0.1, 0.25, 0.5, 0.8), (0.12, 0.5)),
    "medium": Fineness(
        4053, 32, 20, (0.12, 0.35, 0.65, 1.0, 1.4), (0.001, 0.0026, 0.0048, 0.0075), (0.1, 0.2, 0.3, 0.4, 0.55, 0.75, 0.92),
        (0.06, 0.2, 0.5, 0.8),
    ),
    "large": Fineness(
        9480, 48, 30, (0.1, 0.25, 0.45, 0.7, 1.0, 1.3, 1.7), (0.0005, 0.001, 0.002, 0.0034, 0.0052, 0.0076, 0.0102),
        (0.1, 0.2, 0.3, 0.4, 0.5, 0.65, 0.8, 0.92), (0.06, 0.2, 0.5, 0.8),
    ),
}  # fmt: skip


@lru_cache
def _cloud() -> tuple[Floats, Floats, Floats, Floats]:
    """Directions all over the left half, their places on the base, the areas about them there, and how dense vertices should be
    (relative, along a line)."""
    count = 60000
    index = np.arange(count) + 0.5
    y, azimuth = 1 - 2 * index / count, np.pi * (1 + 5**0.5) * index
    across = np.sqrt(1 - y * y)
    directions = np.stack([across * np.sin(azimuth), y, across * np.cos(azimuth)], axis=1)
    base = surface.point(directions)
    zero = np.zeros(count)
    place = closed(Sites(base, zero.astype(np.int64), zero.astype(np.int64), zero))
    faces = ConvexHull(directions).simplices
    area = np.zeros((2, count))
    for row, corners in enumerate((base[faces], place[faces])):
        size = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1) / 6
        for k in range(3):
            np.add.at(area[row], faces[:, k], size)
    folded = base * np.where(base < 0, np.array([-1.0, 1, 1]), 1.0)
    wish = 0.45 + 0.55 * step(base[:, 2], -0.03, 0.02) * step(base[:, 1], -0.13, -0.09)
    wish *= 1 - 0.25 * step(above_hairline(base), -0.005, 0.02)
    wish += 0.9 * np.exp(-(((folded[:, :2] - EYE[:2]) / 0.022) ** 2).sum(1)) * (base[:, 2] > 0)
    wish += 1.6 * np.exp(-(((folded[:, :2] - [0, -0.040]) / [0.030, 0.020]) ** 2).sum(1)) * (base[:, 2] > 0)
    wish += 1.0 * np.exp(-(((folded[:, :2] - [0.006, -0.014]) / [0.014, 0.016]) ** 2).sum(1)) * (base[:, 2] > 0)
    wish += 0.35 * (1 - step(ear(folded)[0], 1.0, 1.3))
    half = np.nonzero(directions[:, 0] > 0)[0]
    stretch = np.minimum(area[1] / np.maximum(area[0], 1e-12), 6.0)
    return directions[half], base[half], area[0][half], (wish * np.sqrt(stretch))[half]


def spread(fixed: Floats, fineness: Fineness, rounds: int = 14) -> Floats:
    """Further directions on the left half and the midline that keep their distance from the ``fixed`` ones."""
    directions, base, area, density = _cloud()
    outside = fineness.skin - _in_pouches(fineness)
    middle = _midline(fixed, np.sqrt(0.5 * outside / (area * density**2).sum()))
    aside = np.abs(fixed[:, 0]) > 1e-9
    left = outside - len(middle) - (~aside).sum() - 2 * aside.sum()
    if left % 2:  # those beside the midline come in pairs
        middle, left = middle[1:], left + 1
    count = int(left) // 2
    fixed = np.concatenate([fixed, middle])
    rng = np.random.default_rng(7)
    density = density * ~_within_rings(base, fineness)
    share = area * density**2
    centres = directions[rng.choice(len(directions), count, replace=False, p=share / share.sum())]
    # Lloyd's centres settle with the square root of the mass on a plane (Gersho).
    mass = area * density**4
    anchored = surface.point(fixed)
    for _ in range(rounds):
        nearest = cKDTree(np.concatenate([anchored, surface.point(centres)])).query(base)[1]
        sums = np.stack([np.bincount(nearest, mass * axis, len(anchored) + count) for axis in directions.T], axis=1)
        sums = sums[len(anchored) :]
        length = np.linalg.norm(sums, axis=1, keepdims=True)
        centres = np.where(length > 0, sums / np.maximum(length, 1e-300), centres)
    return np.concatenate([middle, _off_midline(centres, fixed)])


def _in_pouches(fineness: Fineness) -> int:
    """Vertices in the three pouches, rims excluded."""
    return 2 * fineness.mouth * len(fineness.mouth_rings) + 1 + 2 * (2 * fineness.eye * len(fineness.eye_rings) + 1)


def _within_rings(base: Floats, fineness: Fineness) -> NDArray[np.bool_]:
    none = np.zeros(len(base), np.int64)
    sites = Sites(base, none, none, np.zeros(len(base)))
    lips, lids = mouth(sites), eye(sites)
    heights = np.where(lips.across > 0, *lip_heights(base[:, 0]))
    beyond = (fineness.lip_rings[-1] + 0.25) * np.maximum(heights, 0.0015)
    in_lips = (np.abs(lips.across) < beyond) & (np.abs(lips.along) < 1.0 + 0.1 * fineness.lip_rings[-1])
    return (base[:, 2] > 0) & (in_lips | (lids.distance < fineness.lid_rings[-1] + 0.0006))


def _off_midline(centres: Floats, fixed: Floats) -> Floats:
    """The centres so far from the midline that no triangle crosses it: outside the circles over its pieces."""
    on_line = fixed[np.abs(fixed[:, 0]) < 1e-9]
    turns = np.sort(np.arctan2(on_line[:, 1], on_line[:, 2]))
    turns = np.concatenate([[turns[-1] - 2 * np.pi], turns, [turns[0] + 2 * np.pi]])
    at = np.arctan2(centres[:, 1], centres[:, 2])
    after = np.clip(np.searchsorted(turns, at), 1, len(turns) - 1)
    least = np.sin(0.6 * (turns[after] - turns[after - 1]))
    x = np.maximum(centres[:, 0], np.minimum(least, 0.5))
    scale = np.sqrt((1 - x**2) / np.maximum(1 - centres[:, 0] ** 2, 1e-12))
    return np.stack([x, centres[:, 1] * scale, centres[:, 2] * scale], axis=1)


def _midline(fixed: Floats, scale: float) -> Floats:
    """Directions on the midline, spaced as the others are, between the fixed ones there."""
    turn = np.linspace(-np.pi / 2, 3 * np.pi / 2, 20001)  # from below over face, crown and nape
    line = np.stack([0 * turn, np.sin(turn), np.cos(turn)], axis=1)
    places = surface.point(line)
    _, base, _, density = _cloud()
    steps = np.linalg.norm(np.diff(places, axis=0), axis=1) * scale * density[cKDTree(base).query(places[1:])[1]]
    position = np.concatenate([[0.0], np.cumsum(steps)])
    on_line = fixed[np.abs(fixed[:, 0]) < 1e-9]
    angle = np.arctan2(on_line[:, 1], on_line[:, 2])
    taken = np.sort(np.interp(np.where(angle < -np.pi / 2, angle + 2 * np.pi, angle), turn, position))
    chosen = [0.0]
    for start, end in zip([0.0, *taken], [*taken, position[-1]], strict=True):
        parts = max(int(np.rint(end - start)), 1)
        chosen += [start + (end - start) * k / parts for k in range(1, parts)]
    angle = np.interp(np.array(chosen), position, turn)
    return np.stack([0 * angle, np.sin(angle), np.cos(angle)], axis=1)
