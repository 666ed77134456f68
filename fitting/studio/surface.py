"""The smooth base of the studio's head: a closed surface over a sphere of directions, without nose, lips and ears.

Rounded bodies (skull, jaw, cheekbones, neck …) are melted together into one function that is negative inside, and the surface
is found on rays that leave an axis of the head, one for each point of the parameter sphere. So a place on the head has a name,
its direction, whatever mesh samples it. Eyes and mouth are shut here; ``features`` puts the rest on.

All in metres, in FLAME's axes: x to the person's left, y up, z out of the face.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]

EYE = np.array([0.0315, 0.0235, 0.0310])
"""Centre of the left eyeball; the right one is its mirror image."""
EYE_RADIUS = 0.0118
LID_RADIUS = 0.0142
"""Of the front of the lids."""
CENTRE = np.array([0.0, 0.005, -0.020])
"""Where the rays to skull and face begin."""
_LOWEST_CENTRE = np.array([0.0, -0.165, -0.042])
_TURN = np.radians(-35.0)  # latitude on the sphere below which rays begin further and further down the neck
_STEEPEST = np.radians(-58.0)  # elevation of the rays there
_CAP = np.radians(-72.0)  # latitude below which rays begin at _LOWEST_CENTRE
BOTTOM = -0.203
"""Where the bust is cut off."""

# Centre and radii of the bodies, the left ones for two, and how far each melts into what is there already.
_BODIES = (
    ((0.0, 0.043, -0.036), (0.0760, 0.0900, 0.0955), 0.0),  # skull
    ((0.0, 0.062, 0.003), (0.060, 0.056, 0.052), 0.02),  # forehead
    ((0.0, -0.022, 0.002), (0.0610, 0.0720, 0.0580), 0.02),  # face
    ((0.035, -0.048, -0.006), (0.0190, 0.0290, 0.0230), 0.02),  # angles of the jaw
    ((0.024, -0.066, 0.022), (0.0210, 0.0180, 0.0270), 0.02),  # body of the jaw
    ((0.0, -0.043, 0.036), (0.0290, 0.0280, 0.0285), 0.022),  # the part that bears the teeth
    ((0.0, -0.0770, 0.0480), (0.0190, 0.0150, 0.0150), 0.016),  # chin
    ((0.044, -0.005, 0.0190), (0.0210, 0.0150, 0.0190), 0.02),  # cheekbones
    ((0.051, 0.0260, 0.0060), (0.0140, 0.0240, 0.0180), 0.02),  # outer rims of the orbits
    ((0.025, 0.0420, 0.0380), (0.0230, 0.0080, 0.0120), 0.014),  # brow ridges
    ((0.0, 0.0200, 0.0390), (0.0090, 0.0260, 0.0140), 0.012),  # root of the nose
)
_SOCKET = ((0.0315, 0.0230, 0.0570), (0.0155, 0.0100, 0.0180), 0.014)
_NECK = ((0.0, -0.02, -0.045), (0.0, -0.23, -0.050), (0.0500, 0.0550), 0.035)
_SHOULDERS = ((0.0, -0.236, -0.050), (0.1500, 0.0560, 0.0660), 0.05)


def inside(points: Floats) -> Floats:
    """(...) negative inside the base, positive outside, about the distance near the surface, for points (..., 3)."""
    folded = np.stack([np.abs(points[..., 0]), points[..., 1], points[..., 2]], axis=-1)
    value = _ellipsoid(folded, *_BODIES[0][:2])
    for centre, radii, melt in _BODIES[1:]:
        value = _union(value, _ellipsoid(folded, centre, radii), melt)
    first, second, (r0, r1), melt = _NECK
    value = _union(value, _round_cone(folded, np.array(first), np.array(second), r0, r1), melt)
    centre, radii, melt = _SHOULDERS
    value = _union(value, _ellipsoid(folded, centre, radii), melt)
    centre, radii, melt = _SOCKET
    value = -_union(-value, _ellipsoid(folded, centre, radii), melt)
    value = _union(value, np.linalg.norm(folded - EYE, axis=-1) - LID_RADIUS, 0.005)
    return -_union(-value, folded[..., 1] - BOTTOM, 0.006)


def point(directions: Floats) -> Floats:
    """Places (N, 3) on the base for ``directions`` (N, 3), unit vectors of the parameter sphere."""
    origins, rays = _rays(directions)
    reach = _root(lambda t: inside(origins + t[:, None] * rays), np.full(len(rays), 0.001), np.full(len(rays), 0.32))
    return origins + reach[:, None] * rays


def direction(points: Floats) -> Floats:
    """The parameters (N, 3) of places (N, 3) on the head above the neck."""
    rays = points - CENTRE
    horizontal = np.hypot(rays[:, 0], rays[:, 2])
    elevation = np.arctan2(rays[:, 1], horizontal)
    scale = (np.pi / 2 - _TURN) / (np.pi / 2 - _STEEPEST)
    latitude = np.pi / 2 - (np.pi / 2 - elevation) * scale
    if (latitude < _TURN - 1e-9).any():
        raise ValueError("only places above the neck are found by their position")
    cosine = np.cos(latitude) / np.maximum(horizontal, 1e-12)
    return np.stack([rays[:, 0] * cosine, np.sin(latitude), rays[:, 2] * cosine], axis=-1)


def depth(xy: Floats) -> Floats:
    """z (...) of the front of the base at ``xy`` (..., 2)."""
    flat = xy.reshape(-1, 2)

    def along(z: Floats) -> Floats:
        return inside(np.concatenate([flat, z[:, None]], axis=-1))

    return _root(along, np.full(len(flat), -0.02), np.full(len(flat), 0.12)).reshape(xy.shape[:-1])


def normals(points: Floats, step: float = 1e-5) -> Floats:
    """Unit normals (N, 3) of the base, outwards."""
    shifts = step * np.eye(3)
    gradient = np.stack([inside(points + shift) - inside(points - shift) for shift in shifts], axis=-1)
    unit: Floats = gradient / np.linalg.norm(gradient, axis=-1, keepdims=True)
    return unit


def _rays(directions: Floats) -> tuple[Floats, Floats]:
    latitude = np.arcsin(np.clip(directions[:, 1], -1, 1))
    upper = np.pi / 2 - (np.pi / 2 - latitude) * (np.pi / 2 - _STEEPEST) / (np.pi / 2 - _TURN)
    down = np.clip((_TURN - latitude) / (_TURN - _CAP), 0, 1)  # along the neck
    under = np.clip((_CAP - latitude) / (_CAP + np.pi / 2), 0, 1)  # across the cut
    shallow = np.radians(-18.0)
    elevation = np.where(latitude >= _TURN, upper, _STEEPEST + (shallow - _STEEPEST) * down**1.25)
    elevation = np.where(under > 0, shallow + (-np.pi / 2 - shallow) * under, elevation)
    origins = CENTRE + (_LOWEST_CENTRE - CENTRE) * down[:, None]
    horizontal = np.maximum(np.hypot(directions[:, 0], directions[:, 2]), 1e-12)
    cosine = np.cos(elevation) / horizontal
    return origins, np.stack([directions[:, 0] * cosine, np.sin(elevation), directions[:, 2] * cosine], axis=-1)


def _root(function: Callable[[Floats], Floats], low: Floats, high: Floats, steps: int = 26) -> Floats:
    """Where ``function`` turns positive between ``low`` and ``high`` (N,): bisection, then Illinois' false position."""
    f_low, f_high = function(low), function(high)
    for step in range(steps):
        middle = (low + high) / 2 if step < 5 else low - f_low * (high - low) / np.where(f_high == f_low, 1, f_high - f_low)
        value = function(middle)
        negative = value < 0
        # An end that stays twice loses half its value, or the bracket would shrink from one side only.
        f_high = np.where(negative, f_high * (0.5 if step >= 5 else 1.0), value)
        f_low = np.where(negative, value, f_low * (0.5 if step >= 5 else 1.0))
        low, high = np.where(negative, middle, low), np.where(negative, high, middle)
        if step > 8 and (np.abs(value) < 1e-12).all():
            break
    return middle


def _ellipsoid(points: Floats, centre: tuple[float, float, float], radii: tuple[float, float, float]) -> Floats:
    scaled = (points - np.array(centre)) / np.array(radii)
    squares = scaled * scaled
    first = np.sqrt(squares @ np.ones(3))
    second = np.sqrt(squares @ (1 / np.array(radii)) ** 2)
    value: Floats = first * (first - 1) / np.maximum(second, 1e-9)
    return value


def _round_cone(points: Floats, first: Floats, second: Floats, r0: float, r1: float) -> Floats:
    axis = second - first
    along = np.clip((points - first) @ axis / (axis @ axis), 0, 1)
    value: Floats = np.linalg.norm(points - first - along[..., None] * axis, axis=-1) - (r0 + (r1 - r0) * along)
    return value


def _union(first: Floats, second: Floats, melt: float) -> Floats:
    """The smaller of the two, rounded where they differ by less than ``melt``."""
    if not melt:
        return np.minimum(first, second)
    near = np.maximum(melt - np.abs(first - second), 0) / melt
    return np.minimum(first, second) - near * near * melt / 4
