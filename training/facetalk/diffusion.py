"""Gaussian diffusion with a network that predicts the clean sequence: adding noise, and three ways of taking it away.

Also how a sequence that is longer than the window is denoised: windows that overlap see the same noisy frames, and their
predictions are blended at each step, so that no seam can come about.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.draws import Draws
from training.facetalk.settings import Sampler

Predict = Callable[[Tensor, int], Tensor]
"""Clean sequences (B, T, D) for noisy ones (B, T, D) at a timestep."""


def cosine_schedule(steps: int) -> NDArray[np.float64]:
    """(steps,) share of the clean signal's power at each timestep, the product of alphas; falls from nearly 1 to nearly 0.

    Nichol and Dhariwal 2021, Eq. 17, with s = 0.008 and betas of at most 0.999.
    """
    at = np.cos((np.arange(steps + 1) / steps + 0.008) / 1.008 * np.pi / 2) ** 2
    shares: NDArray[np.float64] = np.cumprod(np.maximum(at[1:] / at[:-1], 0.001))
    return shares


def noised(clean: Tensor, noise: Tensor, share: Tensor) -> Tensor:
    """q(x_t | x_0) (FaceTalk, Eq. 3): ``clean`` and ``noise`` (B, T, D) mixed, the clean signal's ``share`` (B,) of the power."""
    kept = share[:, None, None]
    return kept.sqrt() * clean + (1 - kept).sqrt() * noise


def denoise(
    predict: Predict, noise: Tensor, shares: NDArray[np.float64], draws: Draws, *, sampler: Sampler, steps: int
) -> Tensor:
    """Clean sequences (B, T, D) from ``noise`` (B, T, D) in ``steps`` steps, at the last timestep of each of as many equal parts.

    ``ddpm``: the posterior of Ho et al. 2020, Eq. 7, for the predicted clean sequence; ``draws`` gives its noise. ``ddim``: Song
    et al. 2021, Eq. 12, without noise. ``dpm``: DPM-Solver++ 2M (Lu et al. 2022, algorithm 2), without noise; it extrapolates
    the prediction from the step before, and is ``ddim`` in its first and last step.
    """
    times = np.ceil(len(shares) * np.arange(steps, 0, -1) / steps).astype(int) - 1
    kept = [*shares[times].tolist(), 1.0]
    moving, before = noise, None
    for number, time in enumerate(times.tolist()):
        now, after = kept[number], kept[number + 1]
        clean = predict(moving, time)
        if sampler == "ddpm":
            fresh = 1 - now / after
            mean = after**0.5 * fresh / (1 - now) * clean + (now / after) ** 0.5 * (1 - after) / (1 - now) * moving
            spread = (fresh * (1 - after) / (1 - now)) ** 0.5
            moving = mean + spread * draws.normal(*noise.shape[1:]) if after < 1 else clean
            continue
        ahead = clean
        if sampler == "dpm" and before is not None and after < 1:
            ahead = clean + (clean - before) * (_log_ratio(after) - _log_ratio(now)) / (
                2 * (_log_ratio(now) - _log_ratio(kept[number - 1]))
            )
        carried = ((1 - after) / (1 - now)) ** 0.5
        moving = carried * moving + (after**0.5 - carried * now**0.5) * ahead
        before = clean
    return moving


def _log_ratio(share: float) -> float:
    """Half the logarithm of signal to noise, lambda of DPM-Solver."""
    return 0.5 * float(np.log(share / (1 - share)))


class Overlap(NamedTuple):
    """How W windows of L frames cover a sequence of T, evenly and each half beyond the one before."""

    frames: Tensor
    """(W, L) int64 frames of each window."""
    sources: Tensor
    """(T, K) int64 places in the W L frames of all windows that show a frame."""
    weights: Tensor
    """(T, K) their weights in the blend: linear cross-fades that add up to 1; 0 where fewer than K windows show a frame."""

    @classmethod
    def of(cls, count: int, window: int, device: torch.device | str = "cpu") -> Overlap:
        """For ``count`` frames and windows of ``window``; a shorter sequence is one window."""
        length = min(window, count)
        starts = np.linspace(0, count - length, 1 + int(np.ceil((count - length) / max(length // 2, 1)))).round().astype(int)
        frames = starts[:, None] + np.arange(length)
        shown = frames.ravel()
        order = np.argsort(shown, kind="stable")
        firsts = np.searchsorted(shown[order], np.arange(count))
        rank = np.arange(len(shown)) - firsts[shown[order]]
        sources, weights = np.zeros((count, rank.max() + 1), int), np.zeros((count, rank.max() + 1))
        hat = np.minimum(np.arange(1, length + 1), np.arange(length, 0, -1))
        sources[shown[order], rank] = order
        weights[shown[order], rank] = hat[order % length]
        weights /= weights.sum(axis=1, keepdims=True)
        return cls(*(torch.from_numpy(part).to(device) for part in (frames, sources, weights.astype(np.float32))))

    def cut(self, sequences: Tensor) -> Tensor:
        """(B W, L, D) the windows of ``sequences`` (B, T, D)."""
        return sequences[:, self.frames].flatten(0, 1)

    def blend(self, windows: Tensor) -> Tensor:
        """(B, T, D) of ``windows`` (B W, L, D)."""
        if len(self.frames) == 1:
            return windows
        flat = windows.reshape(-1, self.frames.numel(), windows.shape[-1])
        return (flat[:, self.sources] * self.weights[..., None]).sum(dim=2)
