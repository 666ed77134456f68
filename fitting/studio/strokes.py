"""Smooth moves of the head's surface: the hand with which designed shapes and expressions are made."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

import numpy as np

from fitting.studio.features import MOUTH, SKIN, Sites, mouth, step
from fitting.studio.parts import LEFT_BALL
from fitting.studio.surface import Floats

Triple = tuple[float, float, float]


class Stroke(NamedTuple):
    """A Gaussian about a place that moves, and stretches, what is near. Millimetres; given for the left half of the head."""

    at: Triple
    """The middle."""
    reach: Triple
    """exp(-1) at this distance along each axis."""
    move: Triple = (0.0, 0.0, 0.0)
    """In the middle."""
    stretch: Triple = (0.0, 0.0, 0.0)
    """Growth along each axis: -0.1 draws everything a tenth nearer to ``at``."""
    lip: Literal[-1, 0, 1] = 0
    """1 moves only what is above the slit of the mouth, -1 what is below."""
    half: Literal["both", "left", "right", "skew"] = "both"
    """``skew`` moves the right half as the left, not as its mirror image."""


def strokes(places: Floats, sites: Sites, which: Iterable[Stroke]) -> Floats:
    """Displacements (N, 3) in metres by the sum of strokes, of ``places`` (N, 3) on the closed head at ``sites``."""
    moved = np.zeros_like(places)
    slit = mouth(sites)
    above, below = step(slit.upward, 0.0, 0.55), step(-slit.upward, 0.0, 0.55)
    # Deep in the mouth nothing follows the face; eyeballs and teeth never do by themselves.
    follow = np.where(sites.patch == MOUTH, 1 - step(sites.inward, 0.15, 0.6), 1.0) * (sites.patch < LEFT_BALL)
    follow *= (sites.patch == SKIN) | (sites.patch == MOUTH)
    for stroke in which:
        moved += _one(places, stroke) * (follow * (1.0, above, below)[stroke.lip])[:, None]
    return moved


def _one(places: Floats, stroke: Stroke) -> Floats:
    at, reach, move = (1e-3 * np.array(part) for part in (stroke.at, stroke.reach, stroke.move))
    moved = np.zeros_like(places)
    central = stroke.at[0] == 0.0
    for sign in (1.0,) if central else (1.0, -1.0):
        mirror = np.array([sign, 1.0, 1.0])
        offset = places * mirror - at
        weight = np.exp(-((offset / reach) ** 2).sum(axis=1))
        here = weight[:, None] * (move + offset * np.array(stroke.stretch))
        moved += here * (mirror if stroke.half != "skew" else 1.0) * _share(places, stroke.half, sign, central)[:, None]
    return moved


def _share(places: Floats, half: str, sign: float, central: bool) -> Floats:
    if half in ("both", "skew"):
        return np.ones(len(places))
    if not central:
        return np.full(len(places), float((half == "left") == (sign > 0)))
    return step(places[:, 0] * (1 if half == "left" else -1), -0.012, 0.012)
