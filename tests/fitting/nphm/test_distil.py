"""A distilled backward network undoes the forward one, on codes and points that it has not seen."""

from __future__ import annotations

import pytest
import torch

from fitting.nphm import Direction, ExpressionNetwork, Nphm
from fitting.nphm.distil import around_anchors, distil_backward
from fitting.nphm.roots import find_canonical
from tests.fitting.nphm.heads import small_expression, small_identity


@pytest.fixture(scope="module")
def networks():
    """A subject's network, and a forward one that moves points by some centimetres."""
    torch.manual_seed(0)
    identity = small_identity().float().requires_grad_(False)
    return identity, small_expression().float().requires_grad_(False)


def sampler(identity, batch: int = 4, points: int = 200):
    size = identity.code_size
    return around_anchors(identity, torch.zeros(size), torch.full((size,), 0.3), torch.ones(6), batch=batch, points=points)


def student() -> ExpressionNetwork:
    torch.manual_seed(1)
    network = small_expression(Direction.backward).float()
    for layer in network.defDeepSDF.values():
        layer.reset_parameters()
    return network


def test_it_undoes_the_forward_network(networks) -> None:
    identity, forward = networks
    made = distil_backward(identity, forward, sampler(identity), steps=600, learning_rate=3e-3, student=student())
    assert made.offset_mm > 20
    assert made.error_mm < 0.15 * made.offset_mm
    assert made.network.direction is Direction.backward
    # What root finding says and what the network says are near each other, and FaceTalk's formula runs.
    draws = sampler(identity)(torch.Generator().manual_seed(99))
    anchors = identity.condition(draws.identity).anchors
    found = find_canonical(forward, draws.points, draws.expression, forward.condition(draws.identity, anchors))
    back = Nphm(identity, made.network, "backward")
    known = back(draws.points, draws.expression, back.subject(draws.identity))
    apart = (known.canonical - found.points)[found.converged].norm(dim=-1)
    assert apart.square().mean().sqrt() * 250 < 0.3 * made.offset_mm


def test_the_same_seed_makes_the_same_network(networks) -> None:
    identity, forward = networks
    one, two = (distil_backward(identity, forward, sampler(identity, 2, 50), steps=3, student=student()) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.network.parameters(), two.network.parameters(), strict=True))
    assert one.error_mm == two.error_mm


def test_the_student_has_the_published_sizes_by_default_and_progress_is_told(networks) -> None:
    identity, _ = networks
    network = ExpressionNetwork.published(Direction.backward)
    assert sum(weights.numel() for weights in network.parameters()) == 1_361_880
    told = []
    distil_backward(
        identity, networks[1], sampler(identity, 2, 20), steps=2, student=student(), on_step=lambda *step: told.append(step)
    )
    assert [step for step, _ in told] == [0, 1]
    assert all(error > 0 for _, error in told)


def test_a_backward_network_is_not_distilled(networks) -> None:
    identity, _ = networks
    with pytest.raises(ValueError, match="goes backward already"):
        distil_backward(identity, small_expression(Direction.backward).float(), sampler(identity))
