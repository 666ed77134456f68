"""Eyeballs and teeth of the mean head: closed meshes of their own inside the skin's pouches.

Metres, FLAME's axes. Eyeballs move rigidly with their sockets, the upper teeth with the head and the lower ones with the jaw.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fitting.studio.features import MOUTH_Y, SKIN
from fitting.studio.surface import EYE, EYE_RADIUS, Floats

LEFT_BALL, RIGHT_BALL, UPPER_TEETH, LOWER_TEETH = range(SKIN + 4, SKIN + 8)

IRIS_ANGLE = np.radians(29.0)
"""Polar angle of the iris' edge about the axis of the eye."""


PICTURE_POWER = 0.6
"""In the eyes' picture a polar angle β lies (β / π) to this power from the middle: the iris gets more of it."""


class Part(NamedTuple):
    """A closed mesh that is its own mirror image, or whose mirror image is another part's."""

    vertices: Floats
    """(V, 3)."""
    faces: NDArray[np.int64]
    """(F, 3) counter-clockwise seen from outside."""
    uv: Floats
    """(M, 2) in 0..1 within the part's own square."""
    uv_faces: NDArray[np.int64]
    """(F, 3)."""


def left_eyeball(around: int) -> Part:
    """A sphere with its pole at the pupil, ``around`` vertices to a ring, closer rings near the iris."""
    polar = np.concatenate(
        [
            np.linspace(0, 1, max(around // 6, 2), endpoint=False)[1:] * IRIS_ANGLE,
            IRIS_ANGLE + (np.pi - IRIS_ANGLE) * np.linspace(0, 1, max(around // 3, 5))[:-1],
        ]
    )
    azimuth = 2 * np.pi * (np.arange(around) + 0.5) / around
    ring = np.stack([np.cos(azimuth), np.sin(azimuth)], axis=1)
    rows = np.concatenate([np.concatenate([ring * np.sin(b), np.full((around, 1), np.cos(b))], axis=1) for b in polar])
    unit = np.concatenate([[[0.0, 0.0, 1.0]], rows, [[0.0, 0.0, -1.0]]])
    faces = _tube(len(polar), around, closed=True) + 1
    first, last = 1, 1 + (len(polar) - 1) * around
    turn = np.arange(around)
    after = (turn + 1) % around
    faces = np.concatenate(
        [
            np.stack([0 * turn, first + turn, first + after], axis=1),
            faces,
            np.stack([last + turn, np.full(around, len(unit) - 1), last + after], axis=1),
        ]
    )
    spread = (np.concatenate([[0.0], np.repeat(polar, around), [np.pi]]) / np.pi) ** PICTURE_POWER
    sine = np.maximum(np.hypot(unit[:, 0], unit[:, 1]), 1e-12)
    uv = 0.5 + 0.5 * spread[:, None] * unit[:, :2] / sine[:, None]
    # The blind pole would lie on one side of its own picture: nobody sees it, so it stays in the middle of the white.
    uv[-1] = [0.5, 0.99]
    return Part(EYE + EYE_RADIUS * unit, faces, uv, faces)


_ARCH = (0.0265, 0.0370)
"""Half the width and the depth of the upper arch."""
_ARCH_Z = 0.0590
TOOTH_ENDS = np.cumsum([0.0, 8.6, 6.8, 7.8, 7.0, 7.0, 10.0]) / 47.2
"""Where teeth end, from the middle backwards, as shares of half the arch."""


def teeth(upper: bool, columns: int) -> Part:
    """One row of teeth with its gum, a tube along the arch."""
    share = np.linspace(-1, 1, 2 * columns + 1)
    edges = np.abs(np.abs(share)[:, None] - TOOTH_ENDS).min(axis=1)
    notch = 0.0009 * np.exp(-((edges / 0.03) ** 2)) * (np.abs(share) > 0.01) + 0.0005 * np.abs(share)
    angle = share * np.radians(80)
    inner = 0.0 if upper else 0.0026
    width, depth = _ARCH[0] - inner, _ARCH[1] - inner
    # The section: gum outside, neck of the teeth, biting edge, inside. Outwards and up from the edge, in metres.
    height = 0.0105 if upper else 0.0090
    section = np.array(
        [[-0.0005, 1.0], [0.0008, 0.62], [0.0006, 0.25], [-0.0002, 0.0], [-0.0016, 0.02], [-0.0042, 0.5], [-0.005, 1.0]]
    )
    out = np.stack([np.sin(angle) / width, np.cos(angle) / depth], axis=1)
    out /= np.linalg.norm(out, axis=1, keepdims=True)
    line = np.stack([width * np.sin(angle), _ARCH_Z - inner - depth * (1 - np.cos(angle))], axis=1)
    xz = line[:, None] + section[None, :, :1] * out[:, None]
    tip = MOUTH_Y - 0.0026 if upper else MOUTH_Y - 0.0030
    edge = tip + notch if upper else tip - notch
    sign = 1.0 if upper else -1.0
    y = edge[:, None] * (1 - section[:, 1]) + (tip + sign * height) * section[:, 1]
    vertices = np.stack([xz[..., 0], y, xz[..., 1]], axis=-1).reshape(-1, 3)
    n_section = len(section)
    faces = _tube(len(share), n_section, closed=True)
    last = (len(share) - 1) * n_section
    caps = np.array([[0, k, k + 1] for k in range(1, n_section - 1)])
    faces = np.concatenate([faces, caps, last + caps[:, ::-1]])
    corners = vertices[faces]
    volume = (np.cross(corners[:, 0], corners[:, 1]) * corners[:, 2]).sum()
    if volume < 0:
        faces = faces[:, ::-1]
    u = np.repeat((share + 1) / 2, n_section)
    uv = np.stack([u, np.tile(np.linspace(0, 1, n_section), len(share))], axis=1)
    return Part(vertices, faces, uv, faces)


def _tube(rows: int, around: int, closed: bool) -> NDArray[np.int64]:
    """Triangles between consecutive rows of ``around`` vertices, with the normal along the cross product of the directions
    of rows and of columns, in that order."""
    start = (np.arange(rows - 1) * around)[:, None]
    column = np.arange(around if closed else around - 1)
    after = (column + 1) % around
    a, b = (start + column).ravel(), (start + after).ravel()
    return np.concatenate([np.stack([a, a + around, b + around], axis=1), np.stack([a, b + around, b], axis=1)])
