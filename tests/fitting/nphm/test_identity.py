"""NPHM's identity network computes what the published one does, and asks only the members that matter."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from fitting.nphm.identity import EPSILON, GLOBAL_WEIGHT, Background, IdentityNetwork
from manifests.model_file import WrongModelFile
from tests.fitting.nphm.files import identity_shapes
from tests.fitting.nphm.heads import RECORDED, draw, draw_points, recorded, recorded_identity, small_identity
from tests.fitting.rule_weights import assert_close, rule_state

RULES = ["plain", "lastdim"]


@pytest.mark.parametrize("rule", RULES)
def test_distances_members_and_anchors_are_the_published_ones(rule: str) -> None:
    network = recorded_identity(rule)
    condition = network.condition(recorded("code"))
    points = recorded("points")[None]
    assert_close(condition.anchors, RECORDED[f"{rule}_anchors"], what="anchors")
    assert_close(network(points, condition, epsilon=0), RECORDED[f"{rule}_sdf_train"], what="all members")
    assert_close(network(points, condition), RECORDED[f"{rule}_sdf_train"], what="members that matter")
    members = network.member_values(points[:, ::4], condition)[:, 0]
    assert_close(members, RECORDED[f"{rule}_members"], what="members")


@pytest.mark.parametrize(("rule", "tolerance"), [("plain", 1.4e-4), ("lastdim", 1.5e-3)])
@pytest.mark.parametrize("epsilon", [0, EPSILON])
def test_gradients_are_the_published_ones(rule: str, tolerance: float, epsilon: float) -> None:
    network = recorded_identity(rule)
    code, points = recorded("code").requires_grad_(), recorded("points")[None, :20].requires_grad_()
    sdf = network(points, network.condition(code), epsilon=epsilon)
    (of_points,) = torch.autograd.grad(sdf.sum(), points, retain_graph=True)
    of_code = [torch.autograd.grad(sdf[0, n], code, retain_graph=True)[0][0] for n in range(6)]
    assert_close(of_points[0], RECORDED[f"{rule}_grad_points"], tolerance, "by points")
    assert_close(torch.stack(of_code), RECORDED[f"{rule}_grad_code"], tolerance, "by the code")


@pytest.mark.parametrize("rule", RULES)
def test_published_evaluation_mode_differs_in_the_last_point_only(rule: str) -> None:
    """It writes the +1 meant for the global member over the last point of every batch, whatever that point is."""
    trained, evaluated = RECORDED[f"{rule}_sdf_train"][0], RECORDED[f"{rule}_sdf_eval"][0]
    assert np.array_equal(trained[:-1], evaluated[:-1])
    network = recorded_identity(rule)
    weights = network.weights(recorded("points")[None], network.condition(recorded("code")))[:, 0]
    assert evaluated[-1] == pytest.approx(weights[:, -1].sum().item(), abs=1e-6)


def slow_distance(network: IdentityNetwork, code: np.ndarray, points: np.ndarray, background: Background) -> np.ndarray:
    """The formulas of the paper, member by member and point by point, in float64 NumPy."""
    w = {key: value.double().numpy() for key, value in network.state_dict().items()}
    x = code[: network.global_code]
    for layer in (0, 2, 4):
        x = w[f"mlp_pos.{layer}.weight"] @ x + w[f"mlp_pos.{layer}.bias"]
        x = np.maximum(x, 0) if layer < 4 else x
    anchors = network.mean_anchors.double().numpy() + x.reshape(-1, 3)
    local = code[network.global_code :].reshape(-1, network.local_code)
    out = []
    for point in points:
        total = weight_sum = 0.0
        for member in range(len(anchors) + 1):
            is_global = member == len(anchors)
            seen = point - (0 if is_global else anchors[member])
            paired = member < 2 * network.pairs
            if paired and member % 2:
                seen = seen * (-1, 1, 1)
            n_set = member // 2 if paired else member - network.pairs
            inputs = np.concatenate([seen, code[: network.global_code], local[member]])
            x = inputs
            for layer in range(5):
                if layer == 2:
                    x = np.concatenate([x, inputs]) / np.sqrt(2)
                x = w[f"ensembled_deep_sdf.lin{layer}.weight"][n_set] @ x + w[f"ensembled_deep_sdf.lin{layer}.bias"][n_set]
                if layer < 4:
                    x = np.logaddexp(0, 100 * x) / 100
            value = 1.0 if is_global and background is Background.outside else x[0]
            distance = 0 if is_global else np.linalg.norm(point - anchors[member]) + 1e-5
            weight = math.exp(-20) if is_global else math.exp(-(distance**2) / 0.01)
            total, weight_sum = total + weight * value, weight_sum + weight
        out.append(total / (weight_sum + 1e-6))
    return np.array(out)


@pytest.mark.parametrize("background", Background)
def test_an_independent_slow_version_agrees(background: Background) -> None:
    network = small_identity()
    code, points = draw(1, network.code_size, scale=0.3), draw_points(1, 40) * 1.5
    fast = network(points, network.condition(code), background=background, epsilon=0)[0]
    slow = slow_distance(network, code[0].numpy(), points[0].numpy(), background)
    np.testing.assert_allclose(fast.detach(), slow, atol=1e-12)


def test_gradients_agree_with_finite_differences_and_can_be_differentiated_again() -> None:
    network = small_identity()
    code, points = draw(1, network.code_size, scale=0.3).requires_grad_(), draw_points(1, 4).requires_grad_()

    def distance(points: torch.Tensor, code: torch.Tensor) -> torch.Tensor:
        return network(points, network.condition(code), epsilon=0)

    assert torch.autograd.gradcheck(distance, (points, code), eps=1e-7, atol=1e-5)
    assert torch.autograd.gradgradcheck(distance, (points, code), eps=1e-7, atol=1e-3, rtol=1e-3)


def test_gradients_of_the_weights_are_those_of_asking_all_members() -> None:
    network = small_identity()
    code, points = draw(1, network.code_size, scale=0.3), draw_points(1, 50)
    grads = []
    for epsilon in (0.0, EPSILON):
        network.zero_grad()
        network(points, network.condition(code), epsilon=epsilon).square().sum().backward()
        grads.append([weights.grad.clone() for weights in network.parameters()])
    for all_members, few in zip(*grads, strict=True):
        torch.testing.assert_close(few, all_members, atol=1e-4 * float(all_members.abs().max()), rtol=0)


@pytest.mark.parametrize("epsilon", [1e-7, 1e-5, 1e-3])
def test_what_leaving_members_out_changes_is_bounded(epsilon: float) -> None:
    network = recorded_identity("lastdim")
    condition = network.condition(recorded("code"))
    points = recorded("points")[None]
    weights, values = network.weights(points, condition), network.member_values(points, condition)
    dropped = weights <= epsilon
    bound = (weights * values.abs() * dropped).sum(dim=0)
    error = (network(points, condition, epsilon=epsilon) - network(points, condition, epsilon=0)).abs()
    assert (error <= bound + 1e-6).all()
    assert (bound <= len(weights) * epsilon * values.abs().amax(dim=0)).all()
    assert dropped.float().mean() > 0.5


def test_near_a_face_few_members_are_asked() -> None:
    network = recorded_identity("lastdim")
    condition = network.condition(recorded("code"))
    generator = torch.Generator().manual_seed(0)
    near = condition.anchors[:, torch.randint(39, (500,), generator=generator)] + 0.03 * torch.randn(
        1, 500, 3, generator=generator
    )
    assert (network.weights(near, condition) > EPSILON).sum(dim=0).float().mean() < 16  # of 40


def test_frames_may_share_a_subject_or_have_their_own() -> None:
    network = small_identity()
    codes, points = draw(3, network.code_size, scale=0.3), draw_points(3, 30)
    each = network(points, network.condition(codes))
    alone = torch.cat([network(points[n : n + 1], network.condition(codes[n : n + 1])) for n in range(3)])
    torch.testing.assert_close(each, alone)
    shared = network(points, network.condition(codes[:1]))
    torch.testing.assert_close(shared[0], each[0])
    torch.testing.assert_close(shared, network(points, network.condition(codes[:1].expand(3, -1))))


def test_a_symmetric_code_makes_a_symmetric_head() -> None:
    network = small_identity()
    network.mlp_pos[4].weight.data.zero_()
    network.mlp_pos[4].bias.data.zero_()
    code = draw(1, network.code_size, scale=0.3)
    local = code[:, network.global_code :].unflatten(1, (-1, network.local_code))
    local[:, 1 : 2 * network.pairs : 2] = local[:, 0 : 2 * network.pairs : 2]
    # Middle and global members may be lopsided: they are not asked.
    condition = network.condition(code)
    points = draw_points(1, 50)
    mirrored = points * torch.tensor([-1.0, 1, 1])
    pairs = slice(0, 2 * network.pairs)
    here, there = network.member_values(points, condition)[pairs], network.member_values(mirrored, condition)[pairs]
    torch.testing.assert_close(here[0::2], there[1::2])
    assert not torch.allclose(here[0::2], here[1::2])


def test_far_from_the_anchors_distances_fall_to_zero_unless_the_floor_is_taken_away() -> None:
    network = recorded_identity("lastdim")
    condition = network.condition(recorded("code"))
    far = torch.tensor([[[0.0, 0.0, 1.5], [3.0, 0.0, 0.0]]])
    outside = network(far, condition, background=Background.outside)
    assert outside.squeeze() == pytest.approx([GLOBAL_WEIGHT / (GLOBAL_WEIGHT + 1e-6)] * 2, rel=1e-4)
    assert network(far, condition, background=Background.outside, floor=0).squeeze() == pytest.approx([1, 1], rel=1e-4)


def test_the_background_is_an_argument_and_no_mode() -> None:
    network = recorded_identity("lastdim")
    condition, points = network.condition(recorded("code")), recorded("points")[None]
    assert torch.equal(network.eval()(points, condition), network.train()(points, condition))
    assert not torch.equal(network(points, condition), network(points, condition, background=Background.outside))


def test_points_may_sit_on_anchors_and_there_may_be_none() -> None:
    network = small_identity()
    condition = network.condition(draw(1, network.code_size, scale=0.3))
    points = condition.anchors.detach().clone().requires_grad_()
    network(points, condition).sum().backward()
    assert torch.isfinite(points.grad).all()
    assert network(points[:, :0], condition).shape == (1, 0)
    assert network(points[:0], network.condition(condition.code[:0])).shape == (0, 9)


def test_sizes_are_read_from_the_shapes_and_the_published_ones_are_the_default() -> None:
    network = recorded_identity("plain")
    assert (network.n_members, network.pairs, network.code_size) == (40, 16, 1344)
    assert sum(weights.numel() for weights in network.parameters()) == 3_014_149
    fresh = IdentityNetwork(recorded("mean_anchors"))
    assert {key: value.shape for key, value in fresh.state_dict().items()} == {
        key: torch.Size(shape) for key, shape in identity_shapes().items()
    }
    wide = IdentityNetwork.from_state(rule_state(identity_shapes(anchor_hidden=128)), recorded("mean_anchors"))
    assert wide.mlp_pos[0].out_features == 128


def test_weights_that_do_not_fit_are_named() -> None:
    state = rule_state(identity_shapes(9, 3, code=(5, 4), hidden=20))
    anchors = torch.zeros(9, 3)
    lacking = {key: value for key, value in state.items() if key != "mlp_pos.2.bias"}
    with pytest.raises(WrongModelFile, match=r"x.tar .*missing mlp_pos.2.bias"):
        IdentityNetwork.from_state(lacking, anchors, "x.tar")
    with pytest.raises(WrongModelFile, match=r"unexpected lin9"):
        IdentityNetwork.from_state(state | {"lin9": torch.zeros(1)}, anchors)
    with pytest.raises(WrongModelFile, match=r"lin3.weight is 7×20×19 instead of 7×20×20"):
        IdentityNetwork.from_state(state | {"ensembled_deep_sdf.lin3.weight": torch.zeros(7, 20, 19)}, anchors)
    with pytest.raises(WrongModelFile, match="has 9 anchors, 12 were given"):
        IdentityNetwork.from_state(state, torch.zeros(12, 3))
    with pytest.raises(ValueError, match=r"identity codes are \(subjects, 1344\), got \(1, 200\)"):
        recorded_identity("plain").condition(torch.zeros(1, 200))
    network = small_identity()
    condition = network.condition(draw(2, network.code_size))
    with pytest.raises(ValueError, match="1 or B subjects"):
        network(draw_points(3, 5), condition)
