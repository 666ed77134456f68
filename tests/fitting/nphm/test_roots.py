"""Root finding inverts the forward deformation, says where it did not, and its gradient is that of the inverse."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from fitting.nphm import roots
from fitting.nphm.expression import ExpressionNetwork
from fitting.nphm.roots import MAX_STEPS, TOLERANCE, find_canonical
from tests.fitting.nphm.heads import (
    GAINS,
    RECORDED,
    draw,
    draw_points,
    recorded,
    recorded_expression,
    recorded_identity,
    small_expression,
)


@pytest.mark.parametrize("gain", GAINS)
def test_roots_are_the_published_ones(gain: str) -> None:
    network, identity = recorded_expression(gain), recorded_identity("lastdim")
    subject = identity.condition(recorded("identity_code"))
    condition = network.condition(recorded("identity_code"), subject.anchors)
    found = find_canonical(network, recorded(f"e{gain}_obs"), recorded("expression_code"), condition)
    valid = RECORDED[f"e{gain}_search_valid"]
    assert (found.converged.numpy() != valid).sum() <= (3 if gain == "1p9" else 0)
    both = found.converged.numpy() & valid
    assert both.sum() >= valid.sum() - 3
    np.testing.assert_allclose(found.points.numpy()[both], RECORDED[f"e{gain}_search_canonical"][both], atol=1e-5)
    assert (found.residual[found.converged] < TOLERANCE).all()
    sdf = identity(found.points, subject).numpy()
    both[:, -1] = False  # where the published evaluation mode puts its own value
    np.testing.assert_allclose(sdf[both], RECORDED[f"e{gain}_search_sdf"][both], atol=2e-5)


def slow_broyden(
    moved: Callable[[np.ndarray], np.ndarray], observed: np.ndarray, jacobian: np.ndarray
) -> tuple[np.ndarray, float, int]:
    """One point: the best iterate, its residual and the number of steps, with the published 1e-6 below the fraction."""
    inverse = np.linalg.inv(jacobian)
    point, error = observed, moved(observed) - observed
    best, least, steps = point, float(np.linalg.norm(error)), 0
    residual = 0.0
    while steps < 15 and least > 1e-6 and residual < 0.2:
        step = -inverse @ error
        point, before = point + step, error
        error = moved(point) - observed
        explained = inverse @ (error - before)
        scale = step @ explained
        scale += 1e-6 if scale >= 0 else -1e-6
        inverse = inverse + np.outer(step - explained, inverse.T @ step) / scale
        residual, steps = float(np.linalg.norm(error)), steps + 1
        if residual < least:
            best, least = point, residual
    return best, least, steps


def test_an_independent_slow_version_agrees_point_by_point() -> None:
    network = small_expression(gain=1.4).requires_grad_(False)
    expression, observed = draw(2, 6), draw_points(2, 25)
    condition = network.condition(draw(1, 45), draw(1, 9, 3))
    found = find_canonical(network, observed, expression, condition)
    assert 0 < found.converged.sum() < 50
    assert (found.steps[found.converged] > 4).any()
    _, jacobian = network.with_jacobian(observed, expression, condition)
    for b in range(2):

        def moved(point: np.ndarray, frame: slice = slice(b, b + 1)) -> np.ndarray:
            points = torch.from_numpy(point)[None, None]
            return point + network(points, expression[frame], condition).offset[0, 0].numpy()

        for n in range(25):
            point, residual, steps = slow_broyden(moved, observed[b, n].numpy(), jacobian[b, n].numpy())
            assert found.steps[b, n] == steps
            np.testing.assert_allclose(found.residual[b, n], residual, atol=1e-10)
            np.testing.assert_allclose(found.points[b, n], point, atol=1e-9)


def test_what_was_moved_is_brought_back() -> None:
    network = small_expression()
    codes, anchors, expression, canonical = draw(3, 45), draw(3, 9, 3), draw(3, 6), draw_points(3, 60)
    condition = network.condition(codes, anchors)
    posed = canonical + network(canonical, expression, condition).offset
    assert (posed - canonical).norm(dim=-1).mean() > 0.05
    found = find_canonical(network, posed.detach(), expression, condition)
    assert found.converged.all()
    assert (found.steps > 0).any()
    assert (found.steps < MAX_STEPS / 2).all()  # who has arrived, rests
    torch.testing.assert_close(found.points, canonical, atol=1e-5, rtol=0)


def test_points_do_not_depend_on_their_company() -> None:
    network = small_expression(gain=1.0)
    condition = network.condition(draw(1, 45), draw(1, 9, 3))
    posed, expression = draw_points(2, 40), draw(2, 6)
    together = find_canonical(network, posed, expression, condition)
    for n in (0, 7, 39):
        alone = find_canonical(network, posed[:, n : n + 1], expression, condition)
        torch.testing.assert_close(alone.points[:, 0], together.points[:, n], atol=1e-9, rtol=0)
        assert torch.equal(alone.steps[:, 0], together.steps[:, n])


def test_points_that_do_not_arrive_are_flagged_and_more_starts_find_more() -> None:
    network = recorded_expression("1p9")
    condition = network.condition(recorded("identity_code"), recorded("e1p9_anchors"))
    arguments = (network, recorded("e1p9_obs"), recorded("expression_code"), condition)
    once = find_canonical(*arguments)
    assert 0 < once.converged.sum() < 10
    assert (once.residual[~once.converged] > TOLERANCE).all()
    often, again = (find_canonical(*arguments, starts=5, generator=torch.Generator().manual_seed(0)) for _ in range(2))
    assert often.converged.sum() > once.converged.sum()
    assert (often.residual <= once.residual).all()
    assert torch.equal(often.points, again.points)
    assert find_canonical(*arguments, starts=5, spread=0.0).converged.sum() == once.converged.sum()


def test_the_best_point_on_the_way_is_returned() -> None:
    network = recorded_expression("1p9")
    observed, expression = recorded("e1p9_obs"), recorded("expression_code")
    condition = network.condition(recorded("identity_code"), recorded("e1p9_anchors"))
    found = find_canonical(network, observed, expression, condition)

    def residual(points: torch.Tensor) -> torch.Tensor:
        return (points + network(points, expression, condition).offset - observed).norm(dim=-1)

    torch.testing.assert_close(residual(found.points), found.residual, atol=1e-6, rtol=1e-4)
    assert (found.residual < 1.0001 * residual(observed)).all()


def test_the_gradient_is_that_of_the_inverse_function(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roots, "TOLERANCE", 1e-13)  # so that differences can be taken
    network = small_expression()
    network.compressor[0].weight.data *= 20  # so that the identity matters
    codes, anchors = draw(1, 45).requires_grad_(), draw(1, 9, 3)
    expression, posed = draw(1, 6).requires_grad_(), draw_points(1, 3).requires_grad_()

    def canonical(posed, expression, codes):
        return find_canonical(network, posed, expression, network.condition(codes, anchors)).points

    given = (posed, expression, codes)
    assert all(grad.abs().max() > 0.02 for grad in torch.autograd.grad(canonical(*given).sum(), given))
    assert torch.autograd.gradcheck(canonical, given, eps=1e-6, atol=1e-6)


def folding() -> ExpressionNetwork:
    """Takes all points of x < 0 to one plane, and moves the others by a constant."""
    network = small_expression().float().requires_grad_(False)
    layers = list(network.defDeepSDF.values())
    for layer in layers:
        layer.weight.zero_()
        layer.bias.zero_()
    # softplus(-x) is -x for x < 0 and 0 for x > 0, to float32's precision away from 0.
    layers[0].weight[0, 0] = -1
    for layer in layers[1:]:
        layer.weight[0, 0] = 1
    layers[3].weight[0, 0] = 2**0.5
    return network


def test_a_fold_is_flagged_and_leaves_all_numbers_finite() -> None:
    """Where the Jacobian has no inverse, neither the point nor the gradient of the others may become NaN."""
    network = folding()
    condition = network.condition(draw(1, 45).float(), draw(1, 9, 3).float())
    observed = torch.tensor([[[0.9, 0.1, 0.0], [-0.9, 0.1, 0.0]]], requires_grad=True)
    expression = draw(1, 6).float().requires_grad_()
    _, jacobian = network.with_jacobian(observed, expression, condition)
    assert torch.linalg.det(jacobian).tolist() == [[1, 0]]
    found = find_canonical(network, observed, expression, condition)
    assert found.converged.tolist() == [[True, False]]
    assert found.points.isfinite().all()
    (found.points * found.converged[..., None]).sum().backward()
    torch.testing.assert_close(observed.grad, torch.tensor([[[1.0, 1, 1], [0, 0, 0]]]))
    assert expression.grad.isfinite().all()


def test_no_gradient_is_computed_unasked() -> None:
    network = small_expression().requires_grad_(False)
    condition = network.condition(draw(1, 45), draw(1, 9, 3))
    assert not find_canonical(network, draw_points(1, 3), draw(1, 6), condition).points.requires_grad
    with torch.no_grad():
        assert not find_canonical(network, draw_points(1, 3), draw(1, 6).requires_grad_(), condition).points.requires_grad
