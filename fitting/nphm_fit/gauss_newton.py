"""The fast way: Gauss-Newton steps on the same loss, a dozen instead of 500.

All points of a frame share its code, so one backward pass through the network with a code for each point gives each point's own
derivative. The absolute values of distances are taken as squares weighted by the inverse of their last value (iteratively
reweighted least squares), and Huber's norm likewise. The temporal term ties neighbours entry by entry, so a window's
equations are block-tridiagonal, with diagonal blocks beside the main ones.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fitting.nphm.compose import Nphm, Subject
from fitting.nphm_fit.batch import Batch, terms
from fitting.nphm_fit.objective import Settings, distances, of_frames, trim_at

_SHARPEST = 2e-4
"""NPHM units, 0.05 mm: smaller distances weigh no more than this one."""
_FIRST_DAMPING, _EASIER, _HARDER = 1e-2, 0.3, 5.0


class _Equations(NamedTuple):
    """Of W windows, padded to L frames."""

    main: Tensor
    """(W, L, E, E)."""
    beside: Tensor
    """(W, L, E): the diagonal of the block between a frame and the next."""
    right: Tensor
    """(W, L, E)."""


def fit_with_gauss_newton(nphm: Nphm, subjects: Subject, batch: Batch, settings: Settings) -> tuple[Tensor, list[list[float]]]:
    """The fitted codes (F, E), and for each window the loss after each step (on that step's points)."""
    codes = batch.codes.clone()
    curves: list[list[float]] = [[] for _ in range(batch.n_windows)]
    damping = torch.full((batch.n_windows,), _FIRST_DAMPING, dtype=torch.float64)
    active = list(range(batch.n_windows))
    for step in range(settings.newton_steps):
        part, frames = batch.only(active)
        now = codes[frames]
        limit = trim_at(settings, step / settings.newton_steps)
        points, present = part.sample(settings.points)
        moved = _step(nphm, subjects, part, now, points, present, settings, limit, damping[active])
        with torch.no_grad():
            before, after = (
                terms(nphm, subjects, part, tried, points, present, settings, limit).total(settings) for tried in (now, moved)
            )
        better = after < before
        codes[frames] = torch.where(better[part.window][:, None], moved, now)
        settled = []
        for place, window in enumerate(active):
            curves[window].append(float(torch.minimum(before, after)[place]))
            damping[window] *= _EASIER if better[place] else _HARDER
            late = step / settings.newton_steps >= settings.trimming[-1][0] if settings.trimming else True
            if late and better[place] and before[place] - after[place] < settings.patience * before[place]:
                settled.append(window)
        active = [window for window in active if window not in settled]
        if not active:
            break
    return codes, curves


def _step(
    nphm: Nphm,
    subjects: Subject,
    batch: Batch,
    codes: Tensor,
    points: Tensor,
    present: Tensor,
    settings: Settings,
    limit: float,
    damping: Tensor,
) -> Tensor:
    """The codes (F, E) one step further."""
    n_frames, size = codes.shape
    counts = torch.bincount(batch.window, minlength=batch.n_windows)
    place = torch.arange(n_frames) - (counts.cumsum(0) - counts)[batch.window]
    longest = int(counts.max())
    exact = codes.detach().double()
    main = torch.eye(size, dtype=torch.float64, device=codes.device).repeat(batch.n_windows, longest, 1, 1)
    beside, right = exact.new_zeros(batch.n_windows, longest, size), exact.new_zeros(batch.n_windows, longest, size)
    of_frame = of_frames(subjects, batch.subject)
    diagonal = torch.arange(size)
    free = ~batch.held
    for frame in range(n_frames):
        at = batch.window[frame], place[frame]
        if not free[frame]:
            continue
        main[at] = 0
        if present[frame]:
            own = of_frames(of_frame, torch.tensor([frame])) if len(of_frame.expression.known) > 1 else of_frame
            sdf, slope, counted = _derivatives(nphm, points[frame], codes[frame], own)
            kept = counted & (sdf.abs() <= limit)
            weight = torch.where(kept, settings.sdf / sdf.abs().clamp(min=_SHARPEST), 0.0) / kept.sum().clamp(min=1)
            main[at] = ((slope * weight[:, None]).T @ slope).double()
            right[at] = -(slope.T @ (weight * sdf)).double()
        main[*at, diagonal, diagonal] += 2 * settings.regularization + damping[batch.window[frame]]
        right[at] -= 2 * settings.regularization * exact[frame]
    for frame in batch.neighbours.tolist():
        difference = exact[frame + 1] - exact[frame]
        weight = settings.temporal * (settings.huber / difference.abs().clamp(min=settings.huber))
        here, there = (batch.window[frame], place[frame]), (batch.window[frame], place[frame] + 1)
        for at, is_free, sign in ((here, free[frame], 1), (there, free[frame + 1], -1)):
            if is_free:
                main[*at, diagonal, diagonal] += weight
                right[at] += sign * weight * difference
        if free[frame] and free[frame + 1]:
            beside[here] = -weight
    change = _solve(_Equations(main, beside, right))
    return codes + change[batch.window, place].to(codes)


def _derivatives(nphm: Nphm, points: Tensor, code: Tensor, subject: Subject) -> tuple[Tensor, Tensor, Tensor]:
    """Distances (N,) of ``points`` (N, 3), their derivatives by the ``code``, (N, E), and which points count (N,)."""
    codes = code.detach().expand(len(points), -1).clone().requires_grad_()
    with torch.enable_grad():
        sdf, counts = distances(nphm, points[:, None], codes, subject)
        (slope,) = torch.autograd.grad(sdf.sum(), codes)
    return sdf.detach()[:, 0], slope, counts[:, 0]


def _solve(equations: _Equations) -> Tensor:
    """(W, L, E) by elimination frame after frame; all blocks that are inverted are symmetric and positive definite."""
    factors, right = [], [equations.right[:, 0]]
    factors.append(torch.linalg.cholesky(equations.main[:, 0]))
    for frame in range(1, equations.main.shape[1]):
        beside = equations.beside[:, frame - 1]
        inverse = torch.cholesky_inverse(factors[-1])
        reduced = equations.main[:, frame] - beside[:, :, None] * inverse * beside[:, None]
        factors.append(torch.linalg.cholesky(reduced))
        right.append(equations.right[:, frame] - beside * (inverse @ right[-1][..., None])[..., 0])
    found = [torch.cholesky_solve(right[-1][..., None], factors[-1])[..., 0]]
    for frame in range(len(factors) - 2, -1, -1):
        known = right[frame] - equations.beside[:, frame] * found[-1]
        found.append(torch.cholesky_solve(known[..., None], factors[frame])[..., 0])
    return torch.stack(found[::-1], dim=1)
