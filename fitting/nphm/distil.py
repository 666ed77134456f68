"""A backward network out of a forward one, so that FaceTalk's formula runs on the published NPHM weights.

Training data cost nothing: draw canonical points, let the forward network move them, and ask the backward network to undo that.
To first order the inverse of x + E(x) is x - E(x), so training begins with the forward network turned round.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from fitting.nphm.compose import LOWER, UPPER
from fitting.nphm.expression import Direction, ExpressionCondition, ExpressionNetwork
from fitting.nphm.identity import IdentityNetwork

MM = 1000 / 4
"""Millimetres in a unit of NPHM."""


class Distilled(NamedTuple):
    """A backward network and how well it undoes the forward one, on codes and points held out from training."""

    network: ExpressionNetwork
    error_mm: float
    """Root mean square distance between canonical points and where the network takes their posed images."""
    offset_mm: float
    """The same of a network that moves nothing: how far the forward network moves points."""


class Draws(NamedTuple):
    """What one training step is made of: N canonical points for each of B codes."""

    points: Tensor
    """(B, N, 3)."""
    identity: Tensor
    """(B, C)."""
    expression: Tensor
    """(B, E)."""


Sampler = Callable[[torch.Generator], Draws]


def distil_backward(
    identity: IdentityNetwork,
    forward: ExpressionNetwork,
    draw: Sampler,
    *,
    steps: int = 20_000,
    learning_rate: float = 5e-4,
    student: ExpressionNetwork | None = None,
    held_out: Sampler | None = None,
    seed: int = 0,
    on_step: Callable[[int, float], None] | None = None,
) -> Distilled:
    """Train a backward network to undo ``forward`` on what ``draw`` gives.

    It starts as a copy of ``student``, by default of ``forward`` with its offsets negated. ``draw`` makes points and codes
    (``around_anchors``, or the user's own: codes of a checkpoint's tables, points near scans); where its codes or points can
    come again, give ``held_out`` others to measure the error on. The learning rate falls to zero on a cosine. ``on_step``
    gets the step and its error in mm. Raises ``ValueError`` when ``forward`` is none.
    """
    if forward.direction is not Direction.forward:
        raise ValueError("this network goes backward already: distilling needs the forward one")
    generator = torch.Generator().manual_seed(seed)
    student = copy.deepcopy(student) if student else _turned_round(forward)
    student = student.to(next(forward.parameters())).requires_grad_(True)
    student.direction = Direction.backward
    optimizer = torch.optim.Adam(student.parameters(), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        back, canonical, _ = _undone(identity, forward, student, draw(generator))
        # L1, as for distances: a squared error would give most weight to the few points that expressions move far.
        loss = (back - canonical).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if on_step:
            on_step(step, _rms_mm(back.detach() - canonical))
    with torch.no_grad():
        tests = [_undone(identity, forward, student, (held_out or draw)(generator)) for _ in range(10)]
    error = torch.cat([(back - canonical).flatten(0, 1) for back, canonical, _ in tests])
    offset = torch.cat([(posed - canonical).flatten(0, 1) for _, canonical, posed in tests])
    return Distilled(student.requires_grad_(False).eval(), _rms_mm(error), _rms_mm(offset))


def around_anchors(
    identity: IdentityNetwork,
    code_mean: Tensor,
    code_std: Tensor,
    expression_std: Tensor,
    *,
    batch: int = 8,
    points: int = 2000,
    spread: float = 0.15,
) -> Sampler:
    """A sampler: Gaussian codes; points around the subject's anchors, a tenth of them anywhere in the meshing box.

    ``code_mean`` and ``code_std`` (C,) are of the identity codes, ``expression_std`` (E,) of the expression codes, whose mean
    is zero. ``spread`` is the standard deviation around an anchor, in NPHM units.
    """

    def normal(generator: torch.Generator, *shape: int) -> Tensor:
        # Drawn on the CPU, so that a seed gives the same numbers on every device.
        return torch.randn(shape, generator=generator).to(code_mean)

    def draw(generator: torch.Generator) -> Draws:
        codes = code_mean + code_std * normal(generator, batch, len(code_mean))
        with torch.no_grad():
            anchors = identity.condition(codes).anchors
        chosen = torch.randint(anchors.shape[1], (batch, points), generator=generator).to(anchors.device)
        near = anchors.gather(1, chosen[..., None].expand(-1, -1, 3)) + spread * normal(generator, batch, points, 3)
        lower, upper = near.new_tensor(LOWER), near.new_tensor(UPPER)
        n_anywhere = points // 10
        anywhere = torch.rand((batch, n_anywhere, 3), generator=generator).to(near) * (upper - lower) + lower
        drawn = torch.cat([near[:, n_anywhere:], anywhere], dim=1)
        return Draws(drawn, codes, expression_std * normal(generator, batch, len(expression_std)))

    return draw


def _turned_round(forward: ExpressionNetwork) -> ExpressionNetwork:
    """A copy whose offsets are the negative ones."""
    student = copy.deepcopy(forward)
    last = student.defDeepSDF[f"lin{len(student.defDeepSDF) - 1}"]
    with torch.no_grad():
        last.weight.neg_()
        last.bias.neg_()
    return student


def _undone(
    identity: IdentityNetwork, forward: ExpressionNetwork, student: ExpressionNetwork, draws: Draws
) -> tuple[Tensor, Tensor, Tensor]:
    """Where the student takes posed points, the canonical points they are images of, and the posed points: (B, N, 3) each."""
    with torch.no_grad():
        anchors = identity.condition(draws.identity).anchors
        posed = draws.points + forward(draws.points, draws.expression, forward.condition(draws.identity, anchors)).offset
    condition: ExpressionCondition = student.condition(draws.identity, anchors)
    return posed + student(posed, draws.expression, condition).offset, draws.points, posed


def _rms_mm(difference: Tensor) -> float:
    return float(difference.square().sum(dim=-1).mean().sqrt()) * MM
