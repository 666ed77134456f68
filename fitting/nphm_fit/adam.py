"""The paper's way: Adam, 500 iterations, fresh points at each."""

from __future__ import annotations

import torch
from torch import Tensor

from fitting.nphm.compose import Nphm, Subject
from fitting.nphm_fit.batch import Batch, data, terms
from fitting.nphm_fit.objective import Settings, trim_at

_CHECK_EVERY = 25
_BETAS = (0.9, 0.999)
_TINY = 1e-8


def fit_with_adam(nphm: Nphm, subjects: Subject, batch: Batch, settings: Settings) -> tuple[Tensor, list[list[float]]]:
    """The fitted codes (F, E), and for each window the loss at each iteration.

    A window whose loss has stopped falling is frozen, and only the others are computed on.
    """
    codes, first, second = batch.codes.clone(), torch.zeros_like(batch.codes), torch.zeros_like(batch.codes)
    curves: list[list[float]] = [[] for _ in range(batch.n_windows)]
    active = list(range(batch.n_windows))
    part, frames = batch.only(active)
    for iteration in range(settings.iterations):
        free = ~part.held
        current = codes[frames].requires_grad_()
        points, present = part.sample(settings.points)
        limit = trim_at(settings, iteration / settings.iterations)
        sizes, slopes = data(nphm, subjects, part, current, points, present, limit)
        loss = terms(part, current, sizes, settings).total(settings)
        (gradient,) = torch.autograd.grad(loss.sum(), current)
        gradient = gradient + settings.sdf * slopes
        for window, value in zip(active, loss.tolist(), strict=True):
            curves[window].append(value)
        moved = frames[free]
        slope = gradient[free]
        first[moved] = _BETAS[0] * first[moved] + (1 - _BETAS[0]) * slope
        second[moved] = _BETAS[1] * second[moved] + (1 - _BETAS[1]) * slope.square()
        size = settings.step_size if iteration < settings.late else settings.late_step_size
        mean = first[moved] / (1 - _BETAS[0] ** (iteration + 1))
        scale = (second[moved] / (1 - _BETAS[1] ** (iteration + 1))).sqrt() + _TINY
        codes[moved] -= size * mean / scale
        if settings.patience and iteration >= settings.late and (iteration + 1) % _CHECK_EVERY == 0:
            active = [window for window in active if not _settled(curves[window], settings.patience)]
            if not active:
                break
            part, frames = batch.only(active)
    return codes, curves


def _settled(curve: list[float], patience: float) -> bool:
    before, after = sum(curve[-2 * _CHECK_EVERY : -_CHECK_EVERY]), sum(curve[-_CHECK_EVERY:])
    return after > (1 - patience) * before
