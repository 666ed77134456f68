"""Networks for tests: those of the recordings, and small ones with a likeness of a head."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fitting.nphm.expression import Direction, ExpressionNetwork
from fitting.nphm.identity import IdentityNetwork
from tests.fitting.nphm.files import expression_shapes, identity_shapes, random_anchors
from tests.fitting.rule_weights import rule_state

RECORDED = np.load(Path(__file__).with_name("recorded_nphm.npz"))
"""From SimonGiebenhain/NPHM @ 60a7424, run with weights made by the rule."""

GAINS = {"1": 1.0, "sqrt2": 2**0.5, "1p9": 1.9}


def recorded(name: str) -> Tensor:
    return torch.from_numpy(RECORDED[name])


def recorded_identity(rule: str) -> IdentityNetwork:
    state = rule_state(identity_shapes(), lastdim=rule == "lastdim")
    return IdentityNetwork.from_state(state, recorded("mean_anchors")).requires_grad_(False)


def recorded_expression(gain: str) -> ExpressionNetwork:
    return ExpressionNetwork.from_state(rule_state(expression_shapes(), gain=GAINS[gain])).requires_grad_(False)


def small_identity(n_anchors: int = 9, pairs: int = 3) -> IdentityNetwork:
    """A network of small sizes in float64, with random weights under which anchors stay near their means."""
    shapes = identity_shapes(n_anchors, pairs, code=(5, 4), hidden=20, anchor_hidden=6)
    state = rule_state(shapes, lastdim=True)
    state["mlp_pos.4.weight"] *= 0.02
    state["mlp_pos.4.bias"] *= 0.02
    return IdentityNetwork.from_state(state, torch.from_numpy(random_anchors(n_anchors, pairs))).double()


def small_expression(direction: Direction = Direction.forward, gain: float = 0.6) -> ExpressionNetwork:
    """Goes with ``small_identity``: moves points by about a fifth of a unit times the gain."""
    shapes = expression_shapes(known=4, told=5 + 10 * 4 + 27, expression=6, hidden=40)
    return ExpressionNetwork.from_state(rule_state(shapes, gain=gain), direction=direction).double()


def draw(*shape: int, scale: float = 1.0, seed: int = 0) -> Tensor:
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def draw_points(n_batch: int, n_points: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(100 + seed)
    return 0.8 * torch.rand(n_batch, n_points, 3, generator=generator, dtype=torch.float64) - 0.4


def fitted_head(steps: int = 200) -> tuple[IdentityNetwork, Tensor]:
    """A small identity network in float32, fitted to an egg with a nose, and the code (1, C) that it was fitted for."""
    network = small_identity(15, 6).float()
    code = 0.1 * torch.randn(1, network.code_size, generator=torch.Generator().manual_seed(0))
    fit_head(network, code, steps)
    return network.requires_grad_(False), code


def fit_head(network: IdentityNetwork, code: Tensor, steps: int) -> None:
    """Make ``network`` say ``head_distance`` for ``code``, and its members roughly the same wherever they are asked."""
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(steps):
        points = torch.rand(1, 1500, 3, generator=generator) * torch.tensor([1.1, 1.25, 1.35]) + torch.tensor(
            [-0.55, -0.5, -0.95]
        )
        condition, distance = network.condition(code), head_distance(points)
        members = network.member_values(points[:, :100], condition) - distance[:, :100]
        loss = (network(points, condition) - distance).abs().mean() + 0.1 * members.abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def head_distance(points: Tensor) -> Tensor:
    """About the signed distance of an egg with a nose, within the published box, in NPHM units."""
    centre, radii = points.new_tensor([0.0, 0.1, -0.25]), points.new_tensor([0.3, 0.45, 0.38])
    egg = (((points - centre) / radii).norm(dim=-1) - 1) * 0.35
    nose = (points - points.new_tensor([0.0, 0.0, 0.14])).norm(dim=-1) - 0.07
    return torch.minimum(egg, nose)
