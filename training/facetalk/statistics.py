"""Mean and covariance of frames, clip by clip, and linear measures that follow from them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from manifests.document import ManifestError

Floats = NDArray[np.float64]


class Moments:
    """Of frames of ``width`` numbers."""

    def __init__(self, width: int) -> None:
        self.count, self._sum, self._square = 0, np.zeros(width), np.zeros((width, width))

    def add(self, frames: ArrayLike) -> None:
        """``frames`` (T, width)."""
        values = np.asarray(frames, np.float64)
        self.count += len(values)
        self._sum += values.sum(axis=0)
        self._square += values.T @ values

    @property
    def mean(self) -> Floats:
        """(width,). Raises ``ManifestError`` when there was no frame."""
        if not self.count:
            raise ManifestError("there is no frame to take statistics of: no training clip could be read")
        found: Floats = self._sum / self.count
        return found

    @property
    def covariance(self) -> Floats:
        """(width, width)."""
        return self._square / self.count - np.outer(self.mean, self.mean)

    def strongest(self) -> Floats:
        """(width,) unit vector along which frames differ most; its largest number is positive."""
        found: Floats = np.linalg.eigh(self.covariance)[1][:, -1]
        found *= np.sign(found[np.abs(found).argmax()])
        return found

    def regression(self, ridge: float = 1e-4) -> Floats:
        """(width - 1,) weights of all numbers but the last that best give the last; ``ridge`` is a share of their variance."""
        own, other = self.covariance[:-1, :-1], self.covariance[:-1, -1]
        found: Any = np.linalg.solve(own + (ridge * np.trace(own) / len(own) + 1e-12) * np.eye(len(own)), other)
        return np.asarray(found)
