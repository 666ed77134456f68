"""NPHM's expression network computes what the published one does; its conditioning is told from shapes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fitting.nphm.expression import Direction, ExpressionNetwork
from manifests.model_file import WrongModelFile
from tests.fitting.nphm.files import expression_shapes
from tests.fitting.nphm.heads import GAINS, RECORDED, draw, draw_points, recorded, recorded_expression, small_expression
from tests.fitting.rule_weights import assert_close, rule_state


@pytest.mark.parametrize("gain", GAINS)
def test_offsets_compression_and_jacobian_are_the_published_ones(gain: str) -> None:
    network = recorded_expression(gain)
    condition = network.condition(recorded("identity_code"), recorded(f"e{gain}_anchors"))
    assert_close(condition.known, RECORDED[f"e{gain}_compressed"], what="compressed identity")
    points, expression = recorded("canonical_points"), recorded("expression_code")
    moved = network(points, expression, condition)
    tolerance = 5.6e-5 if gain == "1p9" else 3.2e-5
    assert_close(moved.offset, RECORDED[f"e{gain}_offset"], tolerance, "offset")
    assert_close(points + moved.offset, RECORDED[f"e{gain}_posed"], tolerance, "posed")
    assert moved.hyper.shape == (1, 200, 0)
    _, jacobian = network.with_jacobian(recorded(f"e{gain}_obs"), expression, condition)
    assert_close(jacobian, RECORDED[f"e{gain}_jacobian_at_obs"], 5.6e-5, "Jacobian")


def slow_offset(network: ExpressionNetwork, point: np.ndarray, expression: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Layer by layer in float64 NumPy, for one point."""
    inputs = np.concatenate([point, known, expression])
    x = inputs
    last = len(network.defDeepSDF) - 1
    for n in range(last + 1):
        linear = network.defDeepSDF[f"lin{n}"]
        weight, bias = (tensor.detach().double().numpy() for tensor in (linear.weight, linear.bias))
        if len(x) < weight.shape[1]:
            x = np.concatenate([x, inputs]) / np.sqrt(2)
        x = weight @ x + bias
        if n < last:
            x = np.logaddexp(0, 100 * x) / 100
    return x


def test_an_independent_slow_version_agrees() -> None:
    network = small_expression()
    codes, anchors, expression = draw(2, 45), draw(2, 9, 3), draw(2, 6)
    points = draw_points(2, 7)
    moved = network(points, expression, network.condition(codes, anchors))
    for b in range(2):
        told = torch.cat([codes[b], anchors[b].flatten()]).numpy()
        weight, bias = (tensor.detach().numpy() for tensor in (network.compressor[0].weight, network.compressor[0].bias))
        for n in range(7):
            slow = slow_offset(network, points[b, n].numpy(), expression[b].numpy(), weight @ told + bias)
            np.testing.assert_allclose(moved.offset[b, n].detach(), slow, atol=1e-12)


def test_the_jacobian_and_gradients_agree_with_finite_differences() -> None:
    network = small_expression()
    codes, anchors = draw(1, 45).requires_grad_(), draw(1, 9, 3).requires_grad_()
    expression, points = draw(1, 6).requires_grad_(), draw_points(1, 3).requires_grad_()

    def offset(points, expression, codes, anchors):
        return network(points, expression, network.condition(codes, anchors)).offset

    def jacobian(points, expression, codes, anchors):
        return network.with_jacobian(points, expression, network.condition(codes, anchors))[1]

    arguments = (points, expression, codes, anchors)
    assert torch.autograd.gradcheck(offset, arguments, eps=1e-7, atol=1e-5)
    assert torch.autograd.gradcheck(jacobian, arguments, eps=1e-7, atol=1e-4)
    given = jacobian(*arguments)[0, 0]
    by_autograd = torch.autograd.functional.jacobian(lambda x: x + offset(x, *arguments[1:]), points)[0, 0, :, 0, 0]
    torch.testing.assert_close(given, by_autograd)


def test_frames_may_share_a_subject_or_have_their_own() -> None:
    network = small_expression()
    codes, anchors, expression, points = draw(3, 45), draw(3, 9, 3), draw(3, 6), draw_points(3, 11)
    each = network(points, expression, network.condition(codes, anchors)).offset
    for n in range(3):
        one = slice(n, n + 1)
        alone = network(points[one], expression[one], network.condition(codes[one], anchors[one])).offset
        torch.testing.assert_close(each[one], alone)
    shared = network(points, expression, network.condition(codes[:1], anchors[:1])).offset
    torch.testing.assert_close(shared[0], each[0])


def with_inputs(n_told: int, hidden: int = 40) -> dict[str, tuple[int, ...]]:
    """Shapes of a network without a compressor that is told ``n_told`` numbers."""
    return expression_shapes(known=0, told=0, expression=n_told, hidden=hidden if n_told < 30 else 300)


def test_conditioning_is_told_from_shapes() -> None:
    published = ExpressionNetwork.from_state(rule_state(expression_shapes()))
    assert (published.conditioning, published.n_known, published.n_expression, published.n_hyper) == ("compress", 32, 200, 0)
    assert sum(weights.numel() for weights in published.parameters()) == 1_361_880
    nothing = ExpressionNetwork.from_state(rule_state(with_inputs(200)))
    assert (nothing.conditioning, nothing.n_known, nothing.n_expression) == ("expr_only", 0, 200)
    whole = ExpressionNetwork.from_state(rule_state(with_inputs(264)))
    assert (whole.conditioning, whole.n_known, whole.n_expression) == ("glob_only", 64, 200)
    graph = with_inputs(400) | {
        "pos_enc.0.weight": (32, 3),
        "pos_enc.0.bias": (32,),
        "pos_enc.2.weight": (32, 32),
        "pos_enc.2.bias": (32,),
        "local_combiner.0.weight": (32, 32),
        "local_combiner.0.bias": (32,),
        "local_combiner.2.weight": (32, 32),
        "local_combiner.2.bias": (32,),
        "global_combiner.0.weight": (512, 64 + 39 * 32),
        "global_combiner.0.bias": (512,),
        "global_combiner.2.weight": (200, 512),
        "global_combiner.2.bias": (200,),
    }
    graph["defDeepSDF.lin2.weight"], graph["defDeepSDF.lin2.bias"] = (97, 500), (97,)
    for n in (0, 1, 3, 4, 5, 6):
        before, after = (403 if n == 0 else 500), (3 if n == 6 else 500)
        graph[f"defDeepSDF.lin{n}.weight"], graph[f"defDeepSDF.lin{n}.bias"] = (after, before), (after,)
    combined = ExpressionNetwork.from_state(rule_state(graph))
    assert (combined.conditioning, combined.n_known, combined.n_expression) == ("GNN", 200, 200)


def test_each_conditioning_listens_to_what_it_says() -> None:
    code, anchors = draw(1, 1344).float().requires_grad_(), draw(1, 39, 3).float().requires_grad_()
    points, expression = draw_points(1, 4).float(), draw(1, 200).float()

    def heard(network: ExpressionNetwork) -> tuple[int, bool]:
        """How many numbers of the code count, and whether the anchors do."""
        known = network.condition(code, anchors).known
        offset = network(points, expression, network.condition(code, anchors)).offset
        assert offset.shape == (1, 4, 3)
        if not known.requires_grad or not known.numel():
            return 0, False
        of_code, of_anchors = torch.autograd.grad(known.sum(), (code, anchors), allow_unused=True)
        return int((of_code != 0).sum()), of_anchors is not None

    assert heard(ExpressionNetwork.from_state(rule_state(expression_shapes()))) == (1344, True)
    whole = ExpressionNetwork.from_state(rule_state(with_inputs(264)))
    assert heard(whole) == (64, False)
    assert torch.equal(whole.condition(code, anchors).known, code[:, :64])
    assert heard(ExpressionNetwork.from_state(rule_state(with_inputs(200)))) == (0, False)
    # The combined local codes leave out the global member's own 32 numbers.
    count, by_anchors = heard(graph_network())
    assert 1200 < count <= 1344 - 32
    assert by_anchors


def graph_network() -> ExpressionNetwork:
    torch.manual_seed(0)
    return ExpressionNetwork([(403, 500), (500, 97), (500, 3)], conditioning="GNN", known=200, known_inputs=64 + 39 * 32)


def test_local_codes_are_combined_one_anchor_at_a_time() -> None:
    network = graph_network().double()
    code, anchors = draw(1, 1344), draw(1, 39, 3)

    def two_layers(name: str, x: np.ndarray) -> np.ndarray:
        first, _, second = getattr(network, name)
        x = np.maximum(first.weight.detach().numpy() @ x + first.bias.detach().numpy(), 0)
        return second.weight.detach().numpy() @ x + second.bias.detach().numpy()

    told = [code[0, :64].numpy()]
    for n in range(39):
        local = code[0, 64 + 32 * n : 64 + 32 * (n + 1)].numpy()
        told.append(two_layers("local_combiner", two_layers("pos_enc", anchors[0, n].numpy()) + local))
    expected = two_layers("global_combiner", np.concatenate(told))
    np.testing.assert_allclose(network.condition(code, anchors).known[0].detach(), expected, atol=1e-12)


def test_hyper_coordinates_make_a_backward_network() -> None:
    state = rule_state(expression_shapes(outputs=5))
    network = ExpressionNetwork.from_state(state)
    assert (network.n_hyper, network.direction) == (2, Direction.backward)
    moved = network(
        draw_points(1, 4).float(), draw(1, 200).float(), network.condition(torch.zeros(1, 1344), torch.zeros(1, 39, 3))
    )
    assert moved.hyper.shape == (1, 4, 2)
    with pytest.raises(WrongModelFile, match="only backward networks have"):
        ExpressionNetwork.from_state(state, direction=Direction.forward)
    assert ExpressionNetwork.from_state(rule_state(expression_shapes())).direction is Direction.forward


def test_weights_that_do_not_fit_are_named() -> None:
    state = rule_state(expression_shapes(known=4, told=72, expression=6, hidden=40))
    lacking = {key: value for key, value in state.items() if key != "defDeepSDF.lin2.bias"}
    with pytest.raises(WrongModelFile, match=r"x.tar .*missing defDeepSDF.lin2.bias"):
        ExpressionNetwork.from_state(lacking, "x.tar")
    with pytest.raises(WrongModelFile, match="unexpected scale"):
        ExpressionNetwork.from_state(state | {"scale": torch.ones(1)})
    wrong = state | {"defDeepSDF.lin4.weight": torch.zeros(40, 39)}
    with pytest.raises(WrongModelFile, match="a layer of 39 inputs after one of 40 outputs"):
        ExpressionNetwork.from_state(wrong)
    with pytest.raises(WrongModelFile, match="the conditioning interpolate"):
        ExpressionNetwork.from_state(rule_state(with_inputs(296)))
    with pytest.raises(WrongModelFile, match="that is no known conditioning"):
        ExpressionNetwork.from_state(rule_state(with_inputs(232)))
    network = recorded_expression("1")
    with pytest.raises(ValueError, match=r"2176 and 65 anchors make 2371 numbers; this network was trained on 1461"):
        network.condition(torch.zeros(1, 2176), torch.zeros(1, 65, 3))
    condition = network.condition(torch.zeros(1, 1344), torch.zeros(1, 39, 3))
    with pytest.raises(ValueError, match=r"expression codes \(B, 200\), got \(1, 5, 3\) and \(1, 100\)"):
        network(torch.zeros(1, 5, 3), torch.zeros(1, 100), condition)
