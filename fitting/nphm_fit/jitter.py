"""How much codes change from frame to frame: FaceTalk's table 4 and figure 9."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Jitter(NamedTuple):
    """Of neighbouring frames' codes."""

    mae: float
    """Mean absolute difference."""
    rmse: float
    """Root of the mean squared difference."""
    autocorrelation: float
    """Correlation of each code's track with itself one frame later, mean over the entries that change at all."""


def jitter_of(codes: Tensor) -> Jitter:
    """The jitter of ``codes`` (T, E). All zero, and correlation 1, for fewer than three frames."""
    if len(codes) < 3:
        return Jitter(0.0, 0.0, 1.0)
    codes = codes.detach().double()
    steps = codes.diff(dim=0)
    before, after = (part - part.mean(dim=0) for part in (codes[:-1], codes[1:]))
    scale = (before.square().sum(dim=0) * after.square().sum(dim=0)).sqrt()
    moving = scale > 1e-12
    correlation = float(((before * after).sum(dim=0)[moving] / scale[moving]).mean()) if moving.any() else 1.0
    return Jitter(float(steps.abs().mean()), float(steps.square().mean().sqrt()), correlation)
