"""Where a posed point comes from: the canonical point that a forward deformation moves there.

Broyden's method, batched over points, as SNARF (Chen et al., ICCV 2021, §3.2) and the published NPHM use it, and the gradient
of the root by the implicit function theorem.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fitting.nphm.expression import ExpressionCondition, ExpressionNetwork

MAX_STEPS = 15
TOLERANCE = 1e-6
"""Residual, in NPHM units, below which a root counts as found."""
DIVERGED = 0.2
"""Residual beyond which a point is given up."""


class Roots(NamedTuple):
    """Canonical points for posed ones."""

    points: Tensor
    """(B, N, 3) the best iterate. Where gradients are on, once differentiable by observed points, codes and weights: the inverse
    Jacobian in the derivative counts as constant, as in the published code, so second derivatives would be wrong."""
    converged: Tensor
    """(B, N) bool. The others are no roots: leave them out of a loss."""
    residual: Tensor
    """(B, N) how far from the observed point the deformation takes it, in NPHM units."""
    steps: Tensor
    """(B, N) int64, Broyden steps taken."""


def find_canonical(
    network: ExpressionNetwork,
    observed: Tensor,
    expression: Tensor,
    condition: ExpressionCondition,
    *,
    starts: int = 1,
    spread: float = 0.05,
    generator: torch.Generator | None = None,
) -> Roots:
    """The canonical points that ``network`` moves to ``observed`` (B, N, 3), for ``expression`` (B, E).

    The search starts at the observed point; with ``starts`` > 1 also at that many less one around it, Gaussian with standard
    deviation ``spread`` from ``generator``; of points that did not arrive before, the one with the least residual is kept. A
    search takes at most 15 steps, in which only points that have not arrived are computed on.
    """
    with torch.no_grad():
        found = _search(network, observed, observed, expression, condition)
        for _ in range(starts - 1):
            if found.converged.all():
                break
            drawn_on = generator.device if generator else observed.device
            jitter = torch.randn(observed.shape, generator=generator, device=drawn_on).to(observed)
            other = _search(network, observed + spread * jitter, observed, expression, condition)
            better = ~found.converged & (other.residual < found.residual)
            found = Roots(
                *(
                    torch.where(better[..., None] if new.ndim == 3 else better, new, old)
                    for new, old in zip(other, found, strict=True)
                )
            )
    wanted = (observed, expression, condition.known, *network.parameters())
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in wanted):
        return found._replace(points=_with_gradient(network, found.points, observed, expression, condition))
    return found


def _search(
    network: ExpressionNetwork, start: Tensor, observed: Tensor, expression: Tensor, condition: ExpressionCondition
) -> Roots:
    deformation, jacobian = network.with_jacobian(start, expression, condition)
    inverse = torch.linalg.inv_ex(jacobian).inverse.flatten(0, 1)
    points, target = start.flatten(0, 1).clone(), observed.flatten(0, 1)
    error = points + deformation.offset.flatten(0, 1) - target
    residual = error.norm(dim=-1)
    best, least, steps = points.clone(), residual.clone(), torch.zeros_like(residual, dtype=torch.int64)
    going = (least > TOLERANCE).nonzero()[:, 0]  # a first step is taken from anywhere
    for _ in range(MAX_STEPS):
        if not len(going):
            break
        step = -(inverse[going] @ error[going][..., None])[..., 0]
        points[going] += step
        moved = _moved(network, points, going, observed.shape, expression, condition)
        change = moved - target[going] - error[going]
        error[going] += change
        residual[going] = error[going].norm(dim=-1)
        steps[going] += 1
        better = residual < least
        best[better], least[better] = points[better], residual[better]
        # The inverse is kept up to date by Sherman and Morrison's formula.
        along = (step[:, None] @ inverse[going])[:, 0]
        scale = (along * change).sum(dim=-1)
        scale = torch.where(scale >= 0, scale + 1e-6, scale - 1e-6)
        correction = (step - (inverse[going] @ change[..., None])[..., 0]) / scale[:, None]
        inverse[going] += correction[..., None] * along[:, None]
        going = going[(least[going] > TOLERANCE) & (residual[going] < DIVERGED)]
    shape = observed.shape[:2]
    return Roots(best.view(observed.shape), (least < TOLERANCE).view(shape), least.view(shape), steps.view(shape))


def _moved(
    network: ExpressionNetwork,
    points: Tensor,
    going: Tensor,
    shape: torch.Size,
    expression: Tensor,
    condition: ExpressionCondition,
) -> Tensor:
    """Where the deformation takes those of all points (B · N, 3) that are ``going`` (P,): (P, 3).

    Frames have different numbers of points left; the rows are padded to the longest.
    """
    frame = going.div(shape[1], rounding_mode="floor")
    counts = torch.bincount(frame, minlength=shape[0])
    column = torch.arange(len(going), device=going.device) - (counts.cumsum(0) - counts)[frame]
    padded = points.new_zeros(shape[0], int(counts.max()), 3)
    padded[frame, column] = points[going]
    return (padded + network(padded, expression, condition).offset)[frame, column]


def _with_gradient(
    network: ExpressionNetwork, roots: Tensor, observed: Tensor, expression: Tensor, condition: ExpressionCondition
) -> Tensor:
    """``roots`` unchanged in value, with the derivatives of an implicit function: d root = -J⁻¹ d(x + E(x) - observed)."""
    with torch.no_grad():
        _, jacobian = network.with_jacobian(roots, expression, condition)
        # Where the deformation folds there is no inverse. Infinities would spoil the point itself, and the gradients of
        # all others through what they share, even when a loss leaves the point out.
        inverse = torch.linalg.inv_ex(jacobian).inverse.nan_to_num(0.0, 0.0, 0.0)
    error = roots + network(roots, expression, condition).offset - observed
    return roots - (inverse @ (error - error.detach())[..., None])[..., 0]
