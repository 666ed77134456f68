"""The fast way: Gauss-Newton steps on the same loss, eight at most instead of 500.

All points of a frame share its code, so one backward pass through the network with a code for each point gives each point's own
derivative. The absolute values of distances are taken as squares weighted by the inverse of their last value (iteratively
reweighted least squares), and Huber's norm likewise; weights are renewed within a step, too, on distances as the derivatives
foretell them. The temporal term ties neighbours entry by entry, so a window's
equations are block-tridiagonal, with diagonal blocks beside the main ones.

Each sample of points is kept for all steps at one distance of the trimming. So the derivatives that a step needs also tell
whether the step before made the loss smaller: points are asked once a step. Derivatives are kept for a step: 4 MB a frame.
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
_REWEIGHTED = 3
"""Times that the weights of squares are renewed within a step: cheap beside asking the points."""
_FIRST_DAMPING, _EASIER, _HARDER = 1e-2, 0.3, 5.0


class _Points(NamedTuple):
    """What F frames' points say where they were asked."""

    sdf: Tensor
    """(F, N)."""
    slope: Tensor
    """(F, N, E) their derivatives by the code."""
    counted: Tensor
    """(F, N) bool."""

    def where(self, better: Tensor, other: _Points) -> _Points:
        """These for the frames (F,) that are ``better``, the ``other`` ones elsewhere."""
        if better.all():
            return self
        return _Points(*(torch.where(better.view(-1, *[1] * (a.ndim - 1)), a, b) for a, b in zip(self, other, strict=True)))

    def only(self, frames: Tensor) -> _Points:
        return _Points(*(part[frames] for part in self))

    def sizes(self, limit: float) -> Tensor:
        """(F,) mean absolute distances of the points within ``limit``; 0 where there are none."""
        kept = self.counted & (self.sdf.abs() <= limit)
        return torch.where(kept, self.sdf.abs(), 0.0).sum(dim=1) / kept.sum(dim=1).clamp(min=1)


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
    part, frames = batch.only(active)
    limit, last_limit = float("nan"), trim_at(settings, 1.0)
    for step in range(settings.newton_steps):
        if trim_at(settings, step / settings.newton_steps) != limit:
            limit = trim_at(settings, step / settings.newton_steps)
            points, present = part.sample(settings.points if limit == last_limit else _rough(settings.points))
            known = _ask(nphm, subjects, part, codes[frames], points, present)
            before = terms(part, codes[frames], known.sizes(limit), settings).total(settings)
        moved = _step(part, codes[frames], known, settings, limit, damping[active])
        tried = _ask(nphm, subjects, part, moved, points, present)
        after = terms(part, moved, tried.sizes(limit), settings).total(settings)
        better = (after < before)[part.window.to(codes.device)]
        codes[frames] = torch.where(better[:, None], moved, codes[frames])
        known = tried.where(better, known)
        settled = []
        for place, window in enumerate(active):
            old, new = float(before[place]), float(after[place])
            curves[window].append(min(old, new))
            damping[window] *= _EASIER if new < old else _HARDER
            # Near the minimum the new weights may make it a little worse: that is the end, too.
            if limit == last_limit and abs(old - new) < settings.patience * old:
                settled.append(window)
        before = torch.minimum(before, after)
        if settled:
            going = [place for place, window in enumerate(active) if window not in settled]
            if not going:
                break
            active = [active[place] for place in going]
            stay = torch.isin(part.window, torch.tensor(going))
            part, frames = batch.only(active)
            points, present, known, before = points[stay], present[stay], known.only(stay), before[going]
    return codes, curves


def _rough(count: int) -> int:
    """Points while far ones still count: enough for a first guess."""
    return max(count // 4, 1)


def _ask(nphm: Nphm, subjects: Subject, batch: Batch, codes: Tensor, points: Tensor, present: Tensor) -> _Points:
    """What ``points`` (F, N, 3) say at ``codes`` (F, E). A frame at a time: that bounds memory."""
    shape = points.shape[:2]
    found = _Points(
        codes.new_zeros(shape), codes.new_zeros(*shape, codes.shape[1]), torch.zeros(shape, dtype=torch.bool, device=codes.device)
    )
    for frame in (present.cpu() & ~batch.held).nonzero()[:, 0].tolist():
        own = of_frames(subjects, batch.subject[frame : frame + 1])
        for part, value in zip(found, _derivatives(nphm, points[frame], codes[frame], own), strict=True):
            part[frame] = value
    return found


def _derivatives(nphm: Nphm, points: Tensor, code: Tensor, subject: Subject) -> tuple[Tensor, Tensor, Tensor]:
    """Distances (N,) of ``points`` (N, 3), their derivatives by the ``code``, (N, E), and which points count (N,)."""
    codes = code.detach().expand(len(points), -1).clone().requires_grad_()
    with torch.enable_grad():
        sdf, counts = distances(nphm, points[:, None], codes, subject)
        (slope,) = torch.autograd.grad(sdf.sum(), codes)
    return sdf.detach()[:, 0], slope, counts[:, 0]


def _step(batch: Batch, codes: Tensor, known: _Points, settings: Settings, limit: float, damping: Tensor) -> Tensor:
    """(F, E) a step from ``codes`` (F, E), at which the points were asked; they are taken to change in proportion. The weights
    of the reweighted squares are found with it. Frames that are held stay where they are."""
    moved, damping = codes.double(), damping.to(codes.device)[batch.window, None]
    for _ in range(_REWEIGHTED):
        squares, pull = _of_points(known, moved - codes, settings, limit)
        pull = pull - damping * (moved - codes)
        moved = moved + _change(batch, moved, squares, pull, settings, damping)
    return moved.to(codes)


def _of_points(known: _Points, change: Tensor, settings: Settings, limit: float) -> tuple[Tensor, Tensor]:
    """Second derivatives (F, E, E) of the reweighted squares, and minus the first ones (F, E), after a ``change`` of codes."""
    squares, pulls = [], []
    for sdf, slope, counted, step in zip(*known, change.to(known.sdf), strict=True):
        distance = sdf + slope @ step
        kept = counted & (distance.abs() <= limit)
        weight = torch.where(kept, settings.sdf / distance.abs().clamp(min=_SHARPEST), 0.0) / kept.sum().clamp(min=1)
        weighted = slope * weight[:, None]
        squares.append(weighted.T @ slope)
        pulls.append(-(distance @ weighted))
    return torch.stack(squares).double(), torch.stack(pulls).double()


def _change(batch: Batch, codes: Tensor, squares: Tensor, pull: Tensor, settings: Settings, damping: Tensor) -> Tensor:
    """(F, E) float64, what solves the windows' equations at ``codes`` (F, E) float64; ``damping`` is (F, 1)."""
    window, free, first = (which.to(codes.device) for which in (batch.window, ~batch.held, batch.neighbours))
    difference = codes[first + 1] - codes[first]
    tie = 2 * settings.temporal * settings.huber / difference.abs().clamp(min=settings.huber)
    own = 2 * settings.regularization + damping + torch.zeros_like(codes)
    own = own.index_add(0, first, tie).index_add(0, first + 1, tie)
    right = pull - 2 * settings.regularization * codes
    right = right.index_add(0, first, tie * difference).index_add(0, first + 1, -tie * difference)
    # Windows are padded, and held frames kept, by equations that say: no change.
    counts = torch.bincount(window, minlength=batch.n_windows)
    place = torch.arange(len(codes), device=codes.device) - (counts.cumsum(0) - counts)[window]
    shape = batch.n_windows, int(counts.max()), codes.shape[1]
    padded = _Equations(
        torch.eye(shape[2], dtype=codes.dtype, device=codes.device).repeat(*shape[:2], 1, 1),
        codes.new_zeros(shape),
        codes.new_zeros(shape),
    )
    padded.main[window[free], place[free]] = squares[free] + torch.diag_embed(own[free])
    padded.right[window[free], place[free]] = right[free]
    both = free[first] & free[first + 1]
    padded.beside[window[first[both]], place[first[both]]] = -tie[both]
    return _solve(padded)[window, place]


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
