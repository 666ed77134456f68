"""How far mouths are open: by landmarks, or on the heads that codes make."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from manifests.assets import MissingAsset, find

if TYPE_CHECKING:
    from fitting.nphm import Nphm

UPPER_LIP, LOWER_LIP = 62, 66
"""Middles of the inner lips among iBUG's 68 landmarks."""


def landmark_opening(landmarks: NDArray[np.floating]) -> NDArray[np.floating]:
    """(T,) distance of the inner lips of ``landmarks`` (T, 68, 3), in their unit."""
    found: NDArray[np.floating] = np.linalg.norm(landmarks[:, UPPER_LIP] - landmarks[:, LOWER_LIP], axis=-1)
    return found


def mean_lips() -> Tensor:
    """(2, 3) about where the inner lips of NPHM's heads are: those of FLAME's mean head, out of the model files."""
    import torch

    from fitting.flame import Flame
    from fitting.flame.landmarks import Landmarks
    from training.facetalk.animate import flame_lips

    flame = Flame.load(find("flame2020"))
    return flame_lips(flame, Landmarks.load(find("flame-landmarks-static"), flame), torch.zeros(1))


class MeanHead:
    """NPHM's mean head, which codes move: by the forward network where its file is here, for it is exact and quick, else by the
    backward one. Raises ``MissingAsset`` for other files that are not here."""

    def __init__(self) -> None:
        self._head, self._lips = _networks(), mean_lips()

    def opening(self, codes: Tensor) -> NDArray[np.float64]:
        """(T,) millimetres between the inner lips with ``codes`` (T, 200)."""
        import torch

        from training.facetalk.animate import mouth_opening_mm

        return mouth_opening_mm(codes, torch.zeros(1344), self._head, self._lips)


def _networks() -> Nphm:
    from fitting.nphm_networks import load_networks

    with suppress(MissingAsset):
        return load_networks("forward")
    return load_networks("backward")
