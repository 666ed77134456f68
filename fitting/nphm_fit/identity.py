"""One person's identity code out of clouds of nearly neutral frames, where nobody gave one, and where NPHM's head is in them.

NPHM's own way of fitting (Giebenhain et al., CVPR 2023, §4), for several frames at once: with S = I ∘ E the networks, an identity
code z = mean + std · u and a small expression code θ_i for each frame i,

    L = λ_sdf / N Σ_i mean_k |SDF(S_i^k; z, θ_i)| + λ_id ‖u‖² / C + λ_reg / N Σ_i ‖θ_i‖²

over the points k of a fresh sample of each of N clouds. Points beyond the schedule of ``trimming`` are left out. A fit of FLAME
puts the clouds in NPHM's space only about right, for the size of its head and its shape are hard to tell apart. So the points are
moved by a similarity that is the same for all frames and is found along with the codes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from fitting.nphm.compose import Nphm
from fitting.nphm_fit.objective import Settings, distances, trim_at
from fitting.rotations import axis_angle_to_matrix
from fitting.similarity import Similarity

_MILLIMETRES = 250.0
"""In a unit of NPHM's."""
_BETAS = (0.9, 0.99)


@dataclass(frozen=True, slots=True)
class IdentitySettings:
    """All that a fit of an identity code may be told; docs/facetalk_data.md has what they gain."""

    iterations: int = 120
    points: int = 400
    """Drawn afresh from each frame's cloud at every iteration."""
    step_size: float = 0.12
    """Of u, whose numbers are of size 1; falls to a hundredth along half a cosine."""
    expression_step: float = 0.01
    """Of the expression codes, likewise; 0 keeps them at zero."""
    placement_step: float = 0.002
    """Of the similarity: logarithm of its scale, radians, NPHM units; 0 leaves the points where they are."""
    sdf: float = 10.0
    identity: float = 0.005
    """λ_id."""
    expression: float = 0.05
    """λ_reg: twenty times that of the fit of expressions, for the frames are to be neutral."""
    trimming: tuple[tuple[float, float], ...] = Settings().trimming
    seed: int = 0


class IdentityFit(NamedTuple):
    """What was found from N clouds."""

    code: Tensor
    """(C,)."""
    expressions: Tensor
    """(N, E)."""
    placement: Similarity
    """() float64: to where the clouds' points belong."""
    residual_mm: Tensor
    """(N,) median distance of a cloud's points from the surface; NaN where there are none."""
    curve: list[float]
    """The loss at each iteration."""


def fit_identity(
    nphm: Nphm,
    clouds: list[Tensor],
    settings: IdentitySettings | None = None,
    statistics: tuple[Tensor, Tensor] | None = None,
    code: Tensor | None = None,
) -> IdentityFit:
    """The identity code that explains ``clouds``, (N, 3) each, of one person in NPHM's space.

    The clouds may be a little beside their place, in all frames alike. ``statistics`` are mean and standard deviation (C,) of a
    population's codes (``load_code_statistic``); without them they are taken for 0 and 1 / √C, since codes have a length of
    about 1. A ``code`` (C,) that is known is kept, and only the place and expressions are fitted. Clouds without points say
    nothing. Raises ``ValueError`` when none has any, and for clouds of other shapes or with numbers that are not finite.
    """
    settings = settings or IdentitySettings()
    _check(clouds)
    size = nphm.identity.code_size
    weight = next(nphm.identity.parameters())
    mean, std = statistics or (torch.zeros(size), torch.full((size,), 1 / math.sqrt(size)))
    mean, std = mean.to(weight), std.to(weight)
    clouds = [cloud.to(weight) for cloud in clouds]
    seen = [number for number, cloud in enumerate(clouds) if len(cloud)]
    free = torch.zeros_like(mean)
    expressions = weight.new_zeros(len(seen), nphm.expression.n_expression)
    pose = weight.new_zeros(7)
    moving = [(expressions, settings.expression_step)] if settings.expression_step else []
    if settings.placement_step:
        moving.append((pose, settings.placement_step))
    if code is None:
        moving.append((free, settings.step_size))
    else:
        mean = code.to(weight)
    unknowns = [unknown.requires_grad_() for unknown, _ in moving]
    optimizer = torch.optim.Adam([{"params": [unknown], "lr": step} for unknown, step in moving], betas=_BETAS)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda iteration: _falling(iteration / settings.iterations))
    generator = torch.Generator().manual_seed(settings.seed)
    curve = []
    for iteration in range(settings.iterations if moving else 0):
        points = _placement(pose).apply(torch.stack([_drawn(clouds[number], settings.points, generator) for number in seen]))
        subject = nphm.subject((mean + std * free)[None])
        sdf, counts = distances(nphm, points, expressions, subject)
        distance = sdf.abs()
        kept = counts & (distance.detach() <= trim_at(settings, iteration / settings.iterations))
        data = torch.where(kept, distance, 0.0).sum(dim=1) / kept.sum(dim=1).clamp(min=1)
        loss = settings.sdf * data.mean() + settings.identity * free.square().mean()
        loss = loss + settings.expression * expressions.square().sum(dim=1).mean()
        # Only by the codes: the networks' own parameters get no gradients.
        for unknown, slope in zip(unknowns, torch.autograd.grad(loss, unknowns), strict=True):
            unknown.grad = slope
        optimizer.step()
        schedule.step()
        curve.append(float(loss.detach()))
    found = weight.new_zeros(len(clouds), nphm.expression.n_expression)
    found[seen] = expressions.detach()
    fitted, place = (mean + std * free).detach(), _placement(pose.detach().double())
    placed = [place.apply(cloud.double()).to(weight) for cloud in clouds]
    return IdentityFit(fitted, found, place, _residuals(nphm, placed, fitted, found, settings), curve)


def _placement(pose: Tensor) -> Similarity:
    """From the logarithm of the scale, an axis-angle and a shift, (7,)."""
    return Similarity(pose[0].exp(), axis_angle_to_matrix(pose[1:4]), pose[4:])


def _falling(share: float) -> float:
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share))


def _drawn(cloud: Tensor, count: int, generator: torch.Generator) -> Tensor:
    return cloud[torch.randint(len(cloud), (count,), generator=generator).to(cloud.device)]


@torch.no_grad()
def _residuals(nphm: Nphm, clouds: list[Tensor], code: Tensor, expressions: Tensor, settings: IdentitySettings) -> Tensor:
    """(N,) on points drawn anew."""
    subject = nphm.subject(code[None])
    generator = torch.Generator().manual_seed(settings.seed + 1)
    found = code.new_full((len(clouds),), float("nan"))
    for number, cloud in enumerate(clouds):
        if len(cloud):
            points = _drawn(cloud, 2000, generator)
            sdf, counts = distances(nphm, points[None], expressions[number : number + 1], subject)
            found[number] = _MILLIMETRES * sdf[counts].abs().median()
    return found


def _check(clouds: list[Tensor]) -> None:
    for number, cloud in enumerate(clouds):
        if cloud.ndim != 2 or cloud.shape[1] != 3:
            raise ValueError(f"cloud {number}: a cloud is (N, 3), got {tuple(cloud.shape)}")
        if not bool(torch.isfinite(cloud).all()):
            raise ValueError(f"cloud {number} has points that are not finite: drop them")
    if not any(len(cloud) for cloud in clouds):
        raise ValueError("no cloud has any points: an identity cannot be fitted")
