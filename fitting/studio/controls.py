"""What moves a head of the studio: named activations of the face, and the poses of its joints."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

EXPRESSIONS = (
    # The lips. The numbers of the Facial Action Coding System (Ekman and Friesen) are given where there is one.
    "lips_part",  # 25: upper lip up and lower lip down, the jaw at rest
    "lips_press",  # 24: the red of both lips rolled in and pressed
    "lips_round",  # 18: corners inwards, lips forward, as in "oo"
    "lips_funnel",  # 22: lips forward and turned out, as in "sh"
    "lips_spread",  # 20: corners outwards and back, as in "ee"
    "lower_lip_in",  # 28: the lower lip under the upper teeth, as in "f"
    "upper_lip_raise",  # 10
    "lower_lip_down",  # 16
    "mouth_left",
    "mouth_right",
    "smile_left",  # 12
    "smile_right",
    "frown",  # 15: corners down
    "dimple",  # 14
    # Chin, cheeks and nose.
    "chin_raise",  # 17
    "cheek_puff",  # 34
    "cheek_raise",  # 6
    "nose_wrinkle",  # 9
    # Brows.
    "brow_inner_up",  # 1
    "brow_outer_up_left",  # 2
    "brow_outer_up_right",
    "brow_down",  # 4
    # Lids.
    "blink_left",  # 45: 1 is shut
    "blink_right",
    "lids_wide",  # 5
    "squint",  # 7
)
"""Activations, 0 at rest and 1 at full strength; left and right are the person's own."""

JAW_OPEN = 0.45
"""Radians of a jaw that is wide open; speech seldom passes half of it."""


class Controls(NamedTuple):
    """A performance at T moments. Rotations are axis-angle vectors in radians, in FLAME's axes (x to the person's left, y up,
    z out of the face): a jaw opens, and a head nods down, by positive x; a head turns to its left by positive y."""

    expression: Floats
    """(T, 26) activations in the order of ``EXPRESSIONS``."""
    jaw: Floats
    """(T, 3)."""
    neck: Floats
    """(T, 3)."""
    head: Floats
    """(T, 3) rotation of the whole, about the root joint."""
    translation: Floats
    """(T, 3) metres."""
    gaze: Floats
    """(T, 3) rotation of both eyes in the head."""
