"""Curves of true and generated tracks as a picture."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from skimage.draw import line

TRUE, MADE, AXIS, PAPER = (40, 40, 40), (214, 84, 38), (220, 220, 220), (255, 255, 255)
"""Colours: the truth dark, what was made orange."""


def curves(true: NDArray[np.floating], made: NDArray[np.floating], size: tuple[int, int] = (640, 120)) -> NDArray[np.uint8]:
    """(N H, W, 3) for N ``true`` tracks (N, T) and K ``made`` ones of each (N, K, T): a row of ``size`` (W, H) pixels each, all
    on one scale, true ones drawn last."""
    width, height = size
    everything = np.concatenate([true[:, None], made], axis=1)
    low, high = everything.min(), everything.max()
    across = np.linspace(4, width - 5, true.shape[-1]).round().astype(int)
    down = (4 + (height - 9) * (high - everything) / max(high - low, 1e-12)).round().astype(int)
    rows = np.full((len(true), height, width, 3), PAPER, np.uint8)
    rows[:, -1] = AXIS
    for picture, places in zip(rows, down, strict=True):
        for track, colour in [(places[k], MADE) for k in range(1, len(places))] + [(places[0], TRUE)]:
            for k in range(len(across) - 1):
                at = line(track[k], across[k], track[k + 1], across[k + 1])
                picture[at] = colour
                picture[at[0] + 1, at[1]] = colour
    return rows.reshape(-1, width, 3)
