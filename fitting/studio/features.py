"""Nose, lips, lids, ears and hair of the mean head, put on the base surface.

A place on the head is a place on the base, where mouth and eyes are shut slits. From there two shapes are made: the *closed*
head, with lids and lips shut, and the head *at rest*, with open eyes. Whatever deforms the head is a function of the closed one:
points that face each other across a slit are one point there, so that lids which are shut stay shut whoever wears them.

All in metres, in FLAME's axes; see ``surface``.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline, PchipInterpolator

from fitting.studio.surface import EYE, LID_RADIUS, Floats, depth, normals

SKIN, MOUTH, LEFT_EYE, RIGHT_EYE = range(4)
"""Patches: the outside, and the pouches behind lips and lids."""

MOUTH_WIDTH = 0.0250
"""Half the length of the slit of the mouth."""
MOUTH_Y = -0.0440
EYE_WIDTH = 0.0129
"""Half the length of the slit between the lids."""
MARGIN_RADIUS = 0.0129
"""Distance of the lids' inner edges from the centre of the eyeball."""
UPPER_LID, LOWER_LID = 0.0086, 0.0010
"""How far the margins of the lids are raised and lowered at rest, in the middle of the eye."""
LIP_GAP = 0.0001
"""Half the distance between closed lips."""


class Sites(NamedTuple):
    """Where points lie on the head."""

    base: Floats
    """(N, 3) on the base; for a pouch, on the slit from which it goes in."""
    side: NDArray[np.int64]
    """(N,) 1 above a slit, -1 below, 0 at its ends and where there is none."""
    patch: NDArray[np.int64]
    """(N,)."""
    inward: Floats
    """(N,) how deep in a pouch, 0 at the slit and 1 at its far end."""

    def take(self, chosen: NDArray[np.int64]) -> Sites:
        return Sites(self.base[chosen], self.side[chosen], self.patch[chosen], self.inward[chosen])


class Slit(NamedTuple):
    """Coordinates around a slit."""

    along: Floats
    """(N,) -1 at the end nearer to -x (the inner end, of an eye), 1 at the other."""
    across: Floats
    """(N,) metres above the slit."""
    upward: Floats
    """(N,) sine of the elliptic angle about the slit: 1 straight above, 0 level with its ends, -1 below."""
    distance: Floats
    """(N,) metres from the slit, as seen from the front."""


def mouth(sites: Sites) -> Slit:
    """Where points are about the mouth."""
    x, y, _ = sites.base.T
    return _slit(x / MOUTH_WIDTH, y - mouth_line(x), MOUTH_WIDTH, sites.side)


def eye(sites: Sites) -> Slit:
    """Where points are about the nearer eye."""
    along = (np.abs(sites.base[:, 0]) - EYE[0]) / EYE_WIDTH
    across = sites.base[:, 1] - eye_line(along)
    return _slit(along, across, EYE_WIDTH, sites.side)


def mouth_line(x: Floats) -> Floats:
    """y of the line between the lips."""
    t = np.clip(x / MOUTH_WIDTH, -1.4, 1.4)
    found: Floats = MOUTH_Y - 0.0010 * t**2 + 0.0007 * (np.exp(-((t / 0.45) ** 2)) - np.exp(-((t / 0.16) ** 2)))
    return found


def eye_line(along: Floats) -> Floats:
    """y of the line between the shut lids."""
    found: Floats = EYE[1] - 0.0018 + 0.0013 * np.clip(along, -1.5, 1.5) - 0.0032 * np.clip(1 - along**2, 0, None)
    return found


def _slit(along: Floats, across: Floats, half: float, side: NDArray[np.int64]) -> Slit:
    on_it = np.abs(across) < 1e-7
    x, y = along * half, np.where(on_it, 0.0, across)
    near, far = np.hypot(x - half, y), np.hypot(x + half, y)
    cosine = np.clip((far - near) / (2 * half), -1, 1)
    sign = np.where(on_it, side, np.sign(y))
    distance = np.hypot(np.maximum(np.abs(x) - half, 0), y)
    return Slit(along, across, sign * np.sqrt(1 - cosine**2), distance)


def step(value: Floats, start: float, end: float) -> Floats:
    """0 at ``start`` and before, 1 at ``end`` and after, smooth between; downwards where ``end`` is the smaller."""
    t = np.clip((value - start) / (end - start), 0, 1)
    found: Floats = t * t * t * (t * (6 * t - 15) + 10)
    return found


def bump(points: Floats, centre: tuple[float, ...], widths: tuple[float, ...]) -> Floats:
    """A Gaussian (N,) about ``centre`` in the first coordinates of ``points`` (N, ≥ len(centre)), or of their left halves."""
    scaled = (points[:, : len(centre)] - np.array(centre)) / np.array(widths)
    value: Floats = np.exp(-(scaled**2).sum(axis=1))
    return value


# --- the closed head ---------------------------------------------------------------------------------------------------------


def closed(sites: Sites) -> Floats:
    """Places (N, 3) on the mean head with eyes and mouth shut."""
    base = sites.base.copy()
    folded = np.stack([np.abs(base[:, 0]), base[:, 1], base[:, 2]], axis=1)
    sign = np.where(base[:, 0] < 0, -1.0, 1.0)
    front = folded[:, 2] > 0
    moved = np.zeros_like(base)
    moved += _nose(folded, front)
    moved += _lips(sites, front)
    moved += _ear(folded)
    outside = np.nonzero(sites.patch == SKIN)[0]
    moved[outside] += _hair(folded[outside])
    moved[:, 0] *= sign
    place = base + moved
    lids = np.nonzero(_near_eye(sites))[0]
    place[lids] += _lids(sites.take(lids), 0.0) - base[lids]
    inner = np.nonzero(sites.patch == MOUTH)[0]
    place[inner] = _mouth_pouch(sites.take(inner), place[inner])
    return place


def at_rest(sites: Sites) -> Floats:
    """Places (N, 3) on the mean head with the eyes open."""
    place = closed(sites)
    lids = np.nonzero(_near_eye(sites))[0]
    place[lids] += _lids(sites.take(lids), 1.0) - _lids(sites.take(lids), 0.0)
    return place


_NOSE_Y = np.array([0.0400, 0.0290, 0.0200, 0.0100, 0.0000, -0.0060, -0.0105, -0.0155, -0.0195, -0.0228, -0.0262, -0.0320])
_NOSE_TO = np.array(
    [
        [0.0400, np.nan],
        [0.0290, np.nan],
        [0.0200, 0.0632],
        [0.0100, 0.0702],
        [0.0000, 0.0778],
        [-0.0062, 0.0828],
        [-0.0112, 0.0856],
        [-0.0162, 0.0842],
        [-0.0195, 0.0798],
        [-0.0212, 0.0735],
        [-0.0240, 0.0672],
        [-0.0320, np.nan],
    ]
)
"""Where the midline of the nose goes from each height of the base: y and z. NaN stays."""
_NOSE_WIDTH = np.array([0.012, 0.0110, 0.0105, 0.0115, 0.0140, 0.0165, 0.0180, 0.0190, 0.0190, 0.0170, 0.0140, 0.0120])


def _nose(folded: Floats, front: NDArray[np.bool_]) -> Floats:
    moved = np.zeros_like(folded)
    chosen = np.nonzero(front & (folded[:, 0] < 0.04) & (folded[:, 1] < 0.05) & (folded[:, 1] > -0.045))[0]
    if not len(chosen):
        return moved
    points = folded[chosen]
    x, y = points[:, 0], points[:, 1]
    knots = _NOSE_Y[::-1]
    base_z = depth(np.stack([0 * knots, knots], axis=1))
    target = np.where(np.isnan(_NOSE_TO[::-1, 1]), base_z, _NOSE_TO[::-1, 1])
    within = np.clip(y, knots[0], knots[-1])
    forward = PchipInterpolator(knots, target - base_z)(within)
    up = PchipInterpolator(knots, _NOSE_TO[::-1, 0] - knots)(within)
    across = x / CubicSpline(knots, _NOSE_WIDTH[::-1])(within)
    ridge = np.clip(1 - across**2.4, 0, None) ** 2
    moved_here = np.stack([0 * x, up * ridge, forward * ridge], axis=1)
    wing = bump(points, (0.0135, -0.0160), (0.0052, 0.0062))
    moved_here += wing[:, None] * np.array([0.0022, -0.0006, 0.0030])
    moved_here += bump(points, (0.0205, -0.0135), (0.0032, 0.0070))[:, None] * np.array([0.0, 0.0, -0.0016])  # groove behind it
    moved_here += bump(points, (0.0065, -0.0212), (0.0031, 0.0020))[:, None] * np.array([0.0006, 0.0062, -0.0042])  # nostril
    moved_here += bump(points, (0.0, -0.0320), (0.0026, 0.0060))[:, None] * np.array([0.0, 0.0, -0.0011])  # philtrum
    moved_here += bump(points, (0.0055, -0.0325), (0.0022, 0.0055))[:, None] * np.array([0.0, 0.0, 0.0006])
    moved_here[:, 0] *= step(x, 0.0, 0.004)
    moved[chosen] = moved_here
    return moved


_UPPER_LIP = ((0.0, 0.10, 0.30, 0.55, 0.85, 1.05, 1.35, 2.0, 2.8), (-2.2, -0.2, 2.1, 3.6, 3.4, 2.8, 1.8, 0.6, 0.0))
_LOWER_LIP = ((0.0, 0.10, 0.30, 0.55, 0.85, 1.05, 1.40, 1.9, 2.6, 3.4), (-2.2, 0.0, 2.6, 3.9, 3.1, 1.8, -0.4, -1.6, -0.8, 0.0))
"""How far the lips stand out (mm) at multiples of the height of their red."""


def lip_heights(x: Floats) -> tuple[Floats, Floats]:
    """Heights of the red of the upper and of the lower lip at ``x``, in metres."""
    t = np.minimum(np.abs(x) / MOUTH_WIDTH, 1.0)
    fade = np.sqrt(np.clip(1 - t**2, 0, 1))
    bow = 1.0 + 0.16 * np.exp(-(((t - 0.22) / 0.16) ** 2)) - 0.12 * np.exp(-((t / 0.12) ** 2))
    return 0.0074 * bow * fade + 0.0009, 0.0088 * fade**0.9 + 0.0009


def _lips(sites: Sites, front: NDArray[np.bool_]) -> Floats:
    moved = np.zeros_like(sites.base)
    slit = mouth(sites)
    chosen = np.nonzero(front & (slit.distance < 0.035))[0]
    x, t, v = sites.base[chosen, 0], slit.along[chosen], slit.across[chosen]
    upper = slit.upward[chosen] > 0
    heights = lip_heights(x)
    share = np.abs(v) / np.where(upper, *heights)
    out = np.where(upper, _profile(_UPPER_LIP, share), _profile(_LOWER_LIP, share)) * 1e-3
    amount = 1 - step(np.abs(t), 0.30, 1.12) * (0.9 + 0.1 * step(np.abs(t), 1.0, 1.3))
    corner = np.exp(-((((np.abs(t) - 1.0) * MOUTH_WIDTH) / 0.0045) ** 2) - (v / 0.0050) ** 2)
    moved[chosen, 2] = out * amount - 0.0022 * corner
    gap = LIP_GAP * np.sign(slit.upward[chosen]) * np.exp(-((v / 0.002) ** 2)) * np.clip(4 * (1 - np.abs(t)), 0, 1)
    moved[chosen, 1] = gap
    return moved


def _profile(knots: tuple[tuple[float, ...], tuple[float, ...]], at: Floats) -> Floats:
    value: Floats = PchipInterpolator(*knots)(np.minimum(at, knots[0][-1]))
    return value


# Depth of the rings of the mouth's pouch: half width, how far up, how far down and back from the slit (mm).
_POUCH = np.array(
    [
        [0.00, 25.0, 0.1, 0.1, 0.0],
        [0.10, 24.6, 0.1, 0.1, 1.2],
        [0.20, 24.4, 0.2, 0.2, 2.6],
        [0.30, 25.0, 5.0, 5.0, 3.6],
        [0.40, 26.5, 10.5, 11.0, 4.4],
        [0.50, 27.5, 13.0, 14.0, 8.0],
        [0.65, 28.0, 13.5, 14.0, 17.0],
        [0.80, 26.0, 13.0, 12.0, 30.0],
        [0.92, 18.0, 10.0, 9.0, 44.0],
        [1.00, 0.0, 0.0, 0.0, 50.0],
    ]
)


def _mouth_pouch(sites: Sites, rim: Floats) -> Floats:
    """The lips' inner sides and the cavity. ``rim`` is where the pouch's slit points are."""
    slit = mouth(sites)
    half, up, down, back = (PchipInterpolator(_POUCH[:, 0], 1e-3 * _POUCH[:, k])(sites.inward) for k in range(1, 5))
    height = np.where(slit.upward > 0, up, down) * np.abs(slit.upward) ** 0.7 * np.sign(slit.upward)
    deep = step(sites.inward, 0.15, 0.6)
    arch = 0.022 * slit.along**2 * (half / MOUTH_WIDTH) ** 2
    flat_z = 0.0665 - back - arch * (1 - 0.6 * step(sites.inward, 0.6, 1.0))
    tongue = 0.007 * np.where(slit.upward < 0, -slit.upward, 0) * step(sites.inward, 0.55, 0.75) * step(sites.inward, 1.0, 0.8)
    flat_y = MOUTH_Y + height + tongue * (1 - slit.along**2)
    # Closed lips meet along a bent sheet, so that nobody looks through the gap between them.
    bend = -0.0011 * step(sites.inward, 0.0, 0.16) * np.clip(3 * (1 - np.abs(slit.along)), 0, 1)
    near = np.stack([slit.along * half, rim[:, 1] + height + bend, rim[:, 2] - back], axis=1)
    far = np.stack([slit.along * half, flat_y, np.minimum(flat_z, rim[:, 2] - back)], axis=1)
    found: Floats = near + deep[:, None] * (far - near)
    return found


# --- eyes --------------------------------------------------------------------------------------------------------------------


def _near_eye(sites: Sites) -> NDArray[np.bool_]:
    near = (sites.patch == SKIN) & (sites.base[:, 2] > 0.0) & (eye(sites).distance < 0.024)
    found: NDArray[np.bool_] = near | (sites.patch >= LEFT_EYE)
    return found


def lid_shift(slit: Slit) -> Floats:
    """How far (N,) the skin about an eye slides up where the lids open to rest, in metres."""
    reach = np.where(slit.upward > 0, 0.0165, 0.0110)
    width = np.sqrt(1 + (1.1 * slit.across / EYE_WIDTH) ** 2)
    profile = np.clip(1 - (slit.along / width) ** 2, 0, None) ** 0.8
    most = np.where(slit.upward > 0, UPPER_LID, np.where(slit.upward < 0, -LOWER_LID, 0))
    found: Floats = most * profile * (1 - step(np.abs(slit.across) / reach, 0.0, 1.0))
    return found


def _lids(sites: Sites, openness: float) -> Floats:
    """Skin and pouches about the eyes, shut at 0 and at rest at 1. The skin slides along the base and, near the slit, on a
    sphere about the eyeball."""
    slit = eye(sites)
    x = np.abs(sites.base[:, 0])
    y = sites.base[:, 1] + openness * lid_shift(slit)
    on_base = sites.base[:, 2] + 0.0
    slid = np.nonzero(np.abs(y - sites.base[:, 1]) > 0)[0]
    on_base[slid] = depth(np.stack([x[slid], y[slid]], axis=1))
    outer = step(slit.distance, 0.0, 0.0010)
    radius = MARGIN_RADIUS + (LID_RADIUS - MARGIN_RADIUS) * outer
    aside, above = 0.88 * (x - EYE[0]), y - EYE[1]
    on_sphere = EYE[2] + np.sqrt(np.maximum(radius**2 - aside**2 - above**2, 1e-8))
    near = 1 - step(slit.distance, 0.0015, 0.0085)
    # A fold above the upper lid, where the skin that the open lid has pushed up goes in.
    fold = 0.0016 * np.exp(-(((slit.across - 0.0072) / 0.0022) ** 2)) * np.clip(1 - 0.8 * slit.along**2, 0, 1) * (slit.upward > 0)
    z = on_base + near * (on_sphere - on_base) - fold * (0.35 + 0.65 * openness)
    place = np.stack([np.where(near > 0, x - 0.06 * near * (x - EYE[0]), x), y, z], axis=1)
    pouch = np.nonzero(sites.patch >= LEFT_EYE)[0]
    if len(pouch):
        place[pouch] = _eye_pouch(sites.take(pouch), openness)
    place[:, 0] *= np.where(sites.base[:, 0] < 0, -1.0, 1.0)
    return place


def _eye_pouch(sites: Sites, openness: float) -> Floats:
    """Behind the lids, around the eyeball: from the margin outwards over the sphere to its back."""
    rim = Sites(sites.base, sites.side, np.zeros_like(sites.patch), np.zeros_like(sites.inward))
    opened = np.abs(_lids(rim, 1.0) * np.array([1.0, 0, 0])) + _lids(rim, 1.0) * np.array([0, 1.0, 1.0]) - EYE
    shut = np.abs(_lids(rim, 0.0) * np.array([1.0, 0, 0])) + _lids(rim, 0.0) * np.array([0, 1.0, 1.0]) - EYE
    across = np.hypot(opened[:, 0], opened[:, 1])
    polar = np.arctan2(across, opened[:, 2])
    polar = polar + (np.pi - polar) * sites.inward
    radius = np.linalg.norm(opened, axis=1) * (1 - sites.inward) + (MARGIN_RADIUS + 0.0004) * sites.inward
    around = np.stack([opened[:, 0] / across, opened[:, 1] / across], axis=1) * np.sin(polar)[:, None]
    place = np.concatenate([around, np.cos(polar)[:, None]], axis=1)
    if openness < 1:
        follow = (1 - openness) * (1 - step(sites.inward, 0.0, 0.35))
        place = place + (follow / radius)[:, None] * (shut - opened)
        place = place / np.linalg.norm(place, axis=1, keepdims=True)
    found: Floats = EYE + place * radius[:, None]
    return found


# --- ears and hair -----------------------------------------------------------------------------------------------------------

EAR = np.array([0.0700, 0.0030, -0.0220])
_EAR_UP = np.array([0.0, 0.975, -0.222])
_EAR_BACK = np.array([0.05, -0.221, -0.974])
_EAR_OUT = np.array([0.985, 0.05, 0.10])
_EAR_SIZE = (0.0165, 0.0290)
# From the rim's foot (1) to the ear's hole (0): how far from the middle, and how far out (shares of the ear's height).
_EAR_AT = (0.0, 0.14, 0.28, 0.40, 0.52, 0.62, 0.70, 0.80, 0.92, 1.05, 1.5)
_EAR_RADIUS = (0.0, 0.20, 0.42, 0.58, 0.78, 0.98, 1.06, 0.98, 0.90, 1.05, 1.5)
_EAR_RISE = (0.10, 0.16, 0.40, 0.82, 0.74, 0.92, 0.88, 0.55, 0.12, 0.0, 0.0)


def ear(folded: Floats) -> tuple[Floats, Floats]:
    """Elliptic distance (N,) from the middle of the left ear, 1 about its foot, and angle: 0 to the back, π/2 up."""
    offset = folded - EAR
    back, up = offset @ _EAR_BACK / _EAR_SIZE[0], offset @ _EAR_UP / _EAR_SIZE[1]
    # Narrower towards the lobe.
    back = back / (1 - 0.22 * np.clip(-up, 0, 1))
    return np.where(folded[:, 0] > 0.035, np.hypot(back, up), 9.0), np.arctan2(up, back)


def _ear(folded: Floats) -> Floats:
    moved = np.zeros_like(folded)
    distance, angle = ear(folded)
    chosen = np.nonzero(distance < 1.5)[0]
    rho, phi = distance[chosen], angle[chosen]
    radius = PchipInterpolator(_EAR_AT, _EAR_RADIUS)(rho)
    rise = PchipInterpolator(_EAR_AT, _EAR_RISE)(rho)
    backness = 0.5 + 0.5 * np.cos(phi)
    height = 0.004 + 0.0125 * backness**0.8 + 0.002 * np.clip(np.sin(phi), 0, 1)
    # In front the shell runs into the cheek: no overhang there.
    radius = rho + (radius - rho) * (0.25 + 0.75 * step(backness, 0.1, 0.6))
    stretch = radius / np.maximum(rho, 1e-6)
    offset = folded[chosen] - EAR
    back, up = offset @ _EAR_BACK, offset @ _EAR_UP
    fade = (1 - step(rho, 0.95, 1.4))[:, None]
    moved[chosen] = fade * (
        ((stretch - 1) * back)[:, None] * _EAR_BACK
        + ((stretch - 1) * up)[:, None] * _EAR_UP
        + (rise * height)[:, None] * _EAR_OUT
    )
    return moved


_HAIRLINE = (
    np.radians([0, 12, 26, 40, 54, 64, 72, 79, 84, 96, 104, 112, 122, 135, 150, 180]),
    np.array(
        [
            0.0860,
            0.0870,
            0.0880,
            0.0830,
            0.0700,
            0.0520,
            0.0250,
            0.0120,
            0.0380,
            0.0400,
            0.0360,
            0.0180,
            -0.0200,
            -0.0450,
            -0.0560,
            -0.0580,
        ]
    ),
)


def above_hairline(base: Floats) -> Floats:
    """Metres (N,) by which places (N, 3) on the base lie above the line where hair begins."""
    azimuth = np.arctan2(np.abs(base[:, 0]), base[:, 2] + 0.020)
    line = PchipInterpolator(*_HAIRLINE)(azimuth)
    line = line + 0.0016 * np.sin(14 * azimuth) * np.sin(5 * azimuth)
    found: Floats = base[:, 1] - line
    return found


def _hair(folded: Floats) -> Floats:
    moved = np.zeros_like(folded)
    over = above_hairline(folded)
    chosen = np.nonzero(over > 0)[0]
    points = folded[chosen]
    azimuth = np.arctan2(points[:, 0], points[:, 2] + 0.02)
    thickness = 0.0065 + 0.0065 * step(points[:, 1], 0.05, 0.13)
    wave = 1 + 0.08 * np.sin(9 * azimuth + 60 * points[:, 1]) + 0.05 * np.sin(23 * azimuth - 90 * points[:, 1])
    moved[chosen] = normals(points) * (thickness * wave * step(over[chosen], -0.001, 0.016))[:, None]
    return moved


def below_collar(base: Floats) -> Floats:
    """(N,) metres below the collar of what the person wears, negative above it, at places (N, 3) on the base."""
    below: Floats = -0.158 - 0.25 * (base[:, 2] + 0.05) - base[:, 1]
    return below
