"""A distilled backward network undoes the forward one, on codes and points that it has not seen."""

from __future__ import annotations

import pytest
import torch

from fitting.nphm import Direction, ExpressionNetwork, IdentityNetwork, Nphm
from fitting.nphm.distil import Sampler, around_anchors, distil_backward
from fitting.nphm.roots import find_canonical
from tests.fitting.nphm.heads import small_expression, small_identity


@pytest.fixture(scope="module")
def networks() -> tuple[IdentityNetwork, ExpressionNetwork]:
    """A subject's network, and a forward one that moves points by centimetres, others elsewhere."""
    identity = small_identity().float().requires_grad_(False)
    return identity, small_expression(gain=0.9).float().requires_grad_(False)


def sampler(identity: IdentityNetwork, batch: int = 4, points: int = 200) -> Sampler:
    size = identity.code_size
    return around_anchors(identity, torch.zeros(size), torch.full((size,), 0.3), torch.ones(6), batch=batch, points=points)


def fresh() -> ExpressionNetwork:
    """A student that knows nothing of the forward network."""
    torch.manual_seed(1)
    network = small_expression(Direction.backward).float()
    for layer in (network.compressor[0], *network.defDeepSDF.values()):
        layer.reset_parameters()
    return network


def test_it_undoes_the_forward_network(networks) -> None:
    identity, forward = networks
    errors: list[float] = []
    made = distil_backward(identity, forward, sampler(identity), steps=250, on_step=lambda _, error: errors.append(error))
    assert made.offset_mm > 40
    assert made.error_mm < 0.03 * made.offset_mm
    assert made.error_mm < 0.5 * errors[0]
    assert made.network.direction is Direction.backward
    # What root finding says and what the network says are near each other, and FaceTalk's formula runs.
    draws = sampler(identity, batch=40)(torch.Generator().manual_seed(99))
    anchors = identity.condition(draws.identity).anchors
    condition = forward.condition(draws.identity, anchors)
    offset = forward(draws.points, draws.expression, condition).offset
    assert made.offset_mm == pytest.approx(float(offset.square().sum(dim=-1).mean().sqrt()) * 250, rel=0.1)
    posed = draws.points + offset
    found = find_canonical(forward, posed, draws.expression, condition)
    assert found.converged.all()
    back = Nphm(identity, made.network, "backward")
    known = back(posed, draws.expression, back.subject(draws.identity))
    apart = (known.canonical - found.points).norm(dim=-1).square().mean().sqrt()
    assert apart * 250 < 0.04 * made.offset_mm


def test_the_forward_network_turned_round_is_where_it_begins(networks) -> None:
    identity, forward = networks
    begun = distil_backward(identity, forward, sampler(identity), steps=1, learning_rate=0.0).network
    draws = sampler(identity)(torch.Generator().manual_seed(3))
    anchors = identity.condition(draws.identity).anchors
    there, back = (
        network(draws.points, draws.expression, network.condition(draws.identity, anchors)).offset for network in (forward, begun)
    )
    torch.testing.assert_close(back, -there)


def test_any_student_learns(networks) -> None:
    identity, forward = networks
    made = distil_backward(identity, forward, sampler(identity), steps=250, learning_rate=3e-3, student=fresh())
    assert made.error_mm < 0.15 * made.offset_mm


def test_training_goes_on_from_a_student_that_stays_as_it_is(networks) -> None:
    identity, forward = networks
    first = distil_backward(identity, forward, sampler(identity), steps=100, learning_rate=3e-3)
    before = {key: value.clone() for key, value in first.network.state_dict().items()}
    second = distil_backward(identity, forward, sampler(identity), steps=100, learning_rate=1e-3, student=first.network, seed=1)
    assert second.error_mm < first.error_mm
    assert all(torch.equal(value, before[key]) for key, value in first.network.state_dict().items())


def test_the_error_is_measured_on_the_held_out_sampler(networks) -> None:
    identity, forward = networks
    asked: list[str] = []

    def telling(name: str, points: int) -> Sampler:
        draw = sampler(identity, 2, points)
        return lambda generator: asked.append(name) or draw(generator)

    made = distil_backward(identity, forward, telling("training", 50), steps=3, held_out=telling("held out", 20))
    assert asked == ["training"] * 3 + ["held out"] * 10
    assert made.error_mm < made.offset_mm


def test_the_same_seed_makes_the_same_network(networks) -> None:
    identity, forward = networks
    one, two = (distil_backward(identity, forward, sampler(identity, 2, 50), steps=3) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.network.parameters(), two.network.parameters(), strict=True))
    assert one.error_mm == two.error_mm
    other = distil_backward(identity, forward, sampler(identity, 2, 50), steps=3, seed=1)
    assert other.error_mm != one.error_mm


def test_the_forward_network_stays_as_it_is(networks) -> None:
    identity, forward = networks
    before = {key: value.clone() for key, value in forward.state_dict().items()}
    distil_backward(identity, forward, sampler(identity, 2, 20), steps=2)
    assert forward.direction is Direction.forward
    assert all(torch.equal(value, before[key]) for key, value in forward.state_dict().items())
    assert not any(weights.requires_grad for weights in forward.parameters())


def test_progress_is_told(networks) -> None:
    identity, forward = networks
    told: list[tuple[int, float]] = []
    distil_backward(identity, forward, sampler(identity, 2, 20), steps=2, on_step=lambda *step: told.append(step))
    assert [step for step, _ in told] == [0, 1]
    assert all(error > 0 for _, error in told)


def test_points_are_drawn_around_the_anchors_of_the_drawn_subjects(networks) -> None:
    identity, _ = networks
    draws = sampler(identity, batch=3, points=400)(torch.Generator().manual_seed(0))
    assert (draws.points.shape, draws.identity.shape, draws.expression.shape) == ((3, 400, 3), (3, 45), (3, 6))
    assert not torch.allclose(draws.identity[0], draws.identity[1])
    anchors = identity.condition(draws.identity).anchors
    nearest = (draws.points[:, :, None] - anchors[:, None]).norm(dim=-1).amin(dim=-1)
    assert 0.1 < nearest[:, :360].median() < 0.3
    assert nearest[:, 360:].mean() > 1.2 * nearest[:, :360].mean()


def test_an_untrained_network_of_the_published_sizes_can_be_had() -> None:
    network = ExpressionNetwork.published(Direction.backward)
    assert sum(weights.numel() for weights in network.parameters()) == 1_361_880
    assert network.condition(torch.zeros(1, 1344), torch.zeros(1, 39, 3)).known.shape == (1, 32)


def test_a_backward_network_is_not_distilled(networks) -> None:
    identity, _ = networks
    with pytest.raises(ValueError, match="goes backward already"):
        distil_backward(identity, small_expression(Direction.backward).float(), sampler(identity))
