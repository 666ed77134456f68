"""MonoNPHM's identity network computes what the published one does, asks few members, and loads the published files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fitting.nphm.compose import Nphm
from fitting.nphm.expression import ExpressionNetwork
from fitting.nphm.mono import MonoIdentityNetwork, MonoSizes
from fitting.nphm.mono_files import Tracking, load_mononphm, read_tracking, write_tracking
from fitting.similarity import Similarity
from manifests.model_file import WrongModelFile
from tests.fitting.nphm.mono_files import (
    CODE,
    expression_shapes,
    identity_shapes,
    random_anchors,
    random_checkpoint,
    random_state,
    write_mononphm,
    write_mononphm_anchors,
)
from tests.fitting.rule_weights import assert_close, redraw, rule_state

RECORDED = np.load(Path(__file__).with_name("recorded_mono.npz"))
"""From SimonGiebenhain/MonoNPHM @ e9a30f5, run with weights made by the rule, at two gains."""

GAINS = {"1": 1.0, "sqrt2": 2**0.5}

SMALL = MonoSizes(
    pairs=7,
    global_code=5,
    local_code=4,
    hyper=2,
    hidden=11,
    depth=3,
    color_hidden=9,
    color_depth=2,
    message=3,
    anchor_hidden=6,
)
N_SMALL = 18
"""Anchors of the small network: more than are asked, so that it has neighbourhoods."""


def small_network(n_anchors: int = N_SMALL, sizes: MonoSizes = SMALL, seed: int = 0) -> MonoIdentityNetwork:
    shapes = identity_shapes(
        n_anchors,
        sizes.pairs,
        code=(sizes.global_code, sizes.local_code),
        hyper=sizes.hyper,
        hidden=(sizes.hidden,) * sizes.depth,
        color_hidden=(sizes.color_hidden,) * sizes.color_depth,
        message=sizes.message,
        anchor_hidden=sizes.anchor_hidden,
    )
    anchors = torch.from_numpy(random_anchors(n_anchors, sizes.pairs, seed))
    network = MonoIdentityNetwork.from_state(random_state(shapes, seed), anchors)
    assert network.sizes == sizes
    network.mlp_pos[4].weight.data *= 0.05
    network.mlp_pos[4].bias.data *= 0.05
    return network.double()


def draw(*shape: int, scale: float = 1.0, seed: int = 0) -> torch.Tensor:
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def draw_points(n_batch: int, n_points: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(100 + seed)
    return 0.9 * torch.rand(n_batch, n_points, 3, generator=generator, dtype=torch.float64) - 0.45


def recorded_network(gain: str) -> MonoIdentityNetwork:
    return MonoIdentityNetwork.from_state(
        rule_state(identity_shapes(), gain=GAINS[gain]), torch.from_numpy(RECORDED["mean_anchors"])
    ).requires_grad_(False)


# Recorded numbers. Tolerances are ten times the noise of the published code between its own backends.


@pytest.mark.parametrize("gain", GAINS)
def test_distance_colour_and_anchors_are_the_published_networks(gain):
    network = recorded_network(gain)
    drawn = {name: torch.from_numpy(value) for name, value in redraw(str(RECORDED["identity_meta"])).items()}
    condition = network.condition(drawn["geo_code"][0], drawn["app_code"][0])
    field = network(drawn["points_xyz"], drawn["points_hyper"], condition)
    assert_close(condition.anchors[0], RECORDED[f"anchors_{gain}"], what="anchors")
    assert_close(field.sdf[0], RECORDED[f"sdf_{gain}"], what="sdf")
    assert_close(field.color[0], RECORDED[f"color_{gain}"], what="color")


@pytest.mark.parametrize("gain", GAINS)
def test_gradients_are_the_published_networks(gain):
    network = recorded_network(gain)
    drawn = {name: torch.from_numpy(value) for name, value in redraw(str(RECORDED["identity_meta"])).items()}
    points = drawn["points_xyz"][0, :20, None].requires_grad_()
    hyper = drawn["points_hyper"][0, :20, None].requires_grad_()
    codes = drawn["geo_code"][0].repeat(20, 1).requires_grad_()  # a code for each point, hence a gradient for each
    network(points, hyper, network.condition(codes)).sdf.sum().backward()
    assert_close(codes.grad[:8], RECORDED[f"code_gradient_{gain}"], 9e-5, "gradient of the code")
    query = torch.cat([points.grad, hyper.grad], dim=-1)[:, 0]
    assert_close(query, RECORDED[f"query_gradient_{gain}"], 9e-5, "gradient of the query")


@pytest.mark.parametrize("gain", GAINS)
def test_composed_with_the_expression_network_it_is_the_published_model(gain):
    identity = recorded_network(gain)
    expression = ExpressionNetwork.from_state(rule_state(expression_shapes(), gain=GAINS[gain])).requires_grad_(False)
    drawn = {name: torch.from_numpy(value) for name, value in redraw(str(RECORDED["expression_meta"])).items()}
    points, code = drawn["points_posed"], drawn["exp_code"][0]
    model = Nphm(identity, expression)
    subject = model.subject(drawn["geo_code"][0], drawn["app_code"][0])
    moved = expression(points, code, subject.expression)
    assert_close(moved.offset[0], RECORDED[f"offset_{gain}"], what="offset")
    assert_close(moved.hyper[0], RECORDED[f"hyper_{gain}"], what="hyper coordinates")
    distance = model(points, code, subject)
    assert torch.equal(distance.canonical, points + moved.offset)
    assert_close(distance.sdf[0], RECORDED[f"composed_sdf_{gain}"], what="sdf")
    assert_close(distance.color[0], RECORDED[f"composed_color_{gain}"], what="color")


# The same function, written plainly.


def plain_field(network, geometry_code, appearance_code, point, hyper):
    """Distance (1,) and colour (3,) at one point: NumPy, one member after the other, inputs as the paper has them."""
    weights = {key: value.double().numpy() for key, value in network.state_dict().items()}
    sizes, mean = network.sizes, network.mean_anchors.numpy()

    def linear(key, x):
        return weights[f"{key}.weight"] @ x + weights[f"{key}.bias"]

    def parts(code):
        return code[: sizes.global_code], code[sizes.global_code :].reshape(len(mean) + 1, sizes.local_code)

    (global_geometry, local_geometry), (global_appearance, local_appearance) = parts(geometry_code), parts(appearance_code)
    x = np.maximum(linear("mlp_pos.0", global_geometry), 0)
    x = np.maximum(linear("mlp_pos.2", x), 0)
    anchors = mean + linear("mlp_pos.4", x).reshape(-1, 3)
    distances = np.linalg.norm(point - anchors, axis=1)
    nearest = np.argsort(distances)[:12]
    deviation = distances[nearest[:8]].max() / 3.75
    total, weighted = 1e-8, np.zeros(4)
    for member in [*nearest, len(mean)]:
        if member == len(mean):
            local, distance = point.copy(), 0.75
        else:
            local, distance = point - anchors[member], distances[member]
        if member < 2 * sizes.pairs and member % 2 == 1:
            local[0] = -local[0]
        n_set = member // 2 if member < 2 * sizes.pairs else member - sizes.pairs
        x = np.concatenate([global_geometry, local_geometry[member], local, hyper])
        for layer in range(sizes.depth):
            feature = linear(f"deepSDFensemble.layers.{n_set}.layers.{2 * layer}", x)
            x = np.logaddexp(0, 100 * feature) / 100
        sdf = linear(f"deepSDFensemble.layers.{n_set}.layers.{2 * sizes.depth}", x)
        message = linear("communcation_bottleneck2", np.maximum(linear("communcation_bottleneck1", feature), 0))
        x = np.concatenate([global_appearance, local_appearance[member], message])
        for layer in range(sizes.color_depth):
            x = np.maximum(linear(f"aggr_app.layers.{n_set}.layers.{2 * layer}", x), 0)
        color = linear(f"aggr_app.layers.{n_set}.layers.{2 * sizes.color_depth}", x)
        weight = np.exp(-((distance / deviation) ** 2) / 2)
        total += weight
        weighted += weight * np.concatenate([sdf, color])
    return weighted[0] / total, weighted[1:] / total


def test_agrees_with_a_plain_evaluation_of_one_point_after_the_other():
    network = small_network()
    geometry, appearance = draw(3, network.code_size, seed=1), draw(3, network.code_size, seed=2)
    points, hyper = draw_points(3, 15), draw(3, 15, 2, scale=0.1, seed=3)
    points[:, :3] *= 8  # where the global member takes over
    with torch.no_grad():
        field = network(points, hyper, network.condition(geometry, appearance))
    for batch in range(3):
        for index in range(15):
            sdf, color = plain_field(
                network,
                geometry[batch].numpy(),
                appearance[batch].numpy(),
                points[batch, index].numpy(),
                hyper[batch, index].numpy(),
            )
            assert abs(float(field.sdf[batch, index]) - sdf) < 1e-10
            assert np.abs(field.color[batch, index].numpy() - color).max() < 1e-10
    assert field.sdf.std() > 0.01
    assert field.color.std() > 0.01


def test_single_precision_agrees_with_double():
    network = small_network()
    inputs = (draw_points(1, 200), draw(1, 200, 2, scale=0.1, seed=3))
    codes = (draw(1, network.code_size, seed=1), draw(1, network.code_size, seed=2))
    exact = network(*inputs, network.condition(*codes))
    network.float()
    single = network(*(x.float() for x in inputs), network.condition(*(code.float() for code in codes)))
    assert single.sdf.dtype == single.color.dtype == torch.float32
    assert_close(single.sdf, exact.sdf.detach(), 1e-5)
    assert_close(single.color, exact.color.detach(), 1e-5)


# Gradients.


def test_gradients_agree_with_finite_differences():
    network = small_network(6, SMALL._replace(pairs=2))
    inputs = (
        draw_points(2, 3),
        draw(2, 3, 2, scale=0.1, seed=3),
        draw(2, network.code_size, seed=1),
        draw(2, network.code_size, seed=2),
    )

    def field(points, hyper, geometry, appearance):
        return network(points, hyper, network.condition(geometry, appearance))

    assert torch.autograd.gradcheck(field, tuple(x.requires_grad_() for x in inputs))


def test_second_derivatives_agree_with_finite_differences():
    """The eikonal loss and normals as a target need the gradient of the gradient."""
    network = small_network(6, SMALL._replace(pairs=2, hidden=5, depth=2))
    condition = network.condition(draw(1, network.code_size, seed=1))
    points, hyper = draw_points(1, 3).requires_grad_(), draw(1, 3, 2, scale=0.1, seed=3).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda *inputs: network(*inputs, condition).sdf, (points, hyper))


def test_weights_learn():
    """Every weight set that is asked gets a gradient, twins' weights from both."""
    network = small_network()
    condition = network.condition(draw(1, network.code_size, seed=1), draw(1, network.code_size, seed=2))
    field = network(draw_points(1, 300), draw(1, 300, 2, seed=3), condition)
    (field.sdf.square().sum() + field.color.square().sum()).backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in network.parameters())


# What is asked of whom.


def test_only_the_twelve_nearest_members_and_the_global_one_are_asked():
    network = small_network()
    asked = []
    for ensemble in (network.deepSDFensemble, network.aggr_app):
        for member in ensemble.layers:
            member.layers[2].register_forward_hook(lambda module, inputs, output: asked.append(len(output)))
    codes = draw(1, network.code_size, seed=1)
    network(draw_points(1, 50), draw(1, 50, 2), network.condition(codes))
    assert sum(asked) == 50 * 13
    asked.clear()
    network(draw_points(1, 50), draw(1, 50, 2), network.condition(codes, codes))
    assert sum(asked) == 2 * 50 * 13


def test_a_local_code_matters_to_points_that_ask_its_member_and_to_no_others():
    network = small_network()
    codes = draw(1, network.code_size, seed=1).repeat(N_SMALL + 2, 1)
    for member in range(N_SMALL + 1):
        start = SMALL.global_code + member * SMALL.local_code
        codes[member, start : start + SMALL.local_code] += 0.5
    point, hyper = draw_points(1, 1).repeat(N_SMALL + 2, 1, 1), torch.zeros(N_SMALL + 2, 1, 2, dtype=torch.float64)
    condition = network.condition(codes)
    sdf = network(point, hyper, condition).sdf[:, 0]
    distance = torch.linalg.norm(condition.anchors[-1] - point[0, 0], dim=-1)
    nearest = set(distance.argsort()[:12].tolist()) | {N_SMALL}
    # How rows are grouped in a product may change the last digit.
    assert {member for member in range(N_SMALL + 1) if abs(sdf[member] - sdf[-1]) > 1e-12} == nearest


def test_far_from_the_head_the_global_member_takes_over():
    network = small_network()
    code = draw(1, network.code_size, seed=1)
    of_anchors, of_global = code.clone(), code.clone()
    of_anchors[:, SMALL.global_code : -SMALL.local_code] += 0.5
    of_global[:, -SMALL.local_code :] += 0.5
    directions = torch.nn.functional.normalize(draw(1, 40, 3, seed=3), dim=-1)

    def effect(changed, distance):
        before, after = (network(distance * directions, draw(1, 40, 2), network.condition(x)).sdf for x in (code, changed))
        return (before - after).abs().mean()

    assert effect(of_global, 10.0) > 10 * effect(of_anchors, 10.0)
    assert effect(of_anchors, 0.2) > 10 * effect(of_global, 0.2)


def test_a_head_with_its_sides_exchanged_is_mirrored():
    """Members of a pair share weights and see mirrored sides, so exchanging their codes mirrors the head."""
    network = small_network()
    with torch.no_grad():
        network.mlp_pos[4].weight.zero_()
        network.mlp_pos[4].bias.zero_()
        for member in network.deepSDFensemble.layers[SMALL.pairs :]:  # the middle ones could tell left from right
            member.layers[0].weight[:, -5] = 0
    codes = draw(1, network.code_size, seed=1)
    exchanged = codes.clone()
    local = exchanged[:, SMALL.global_code :].view(N_SMALL + 1, SMALL.local_code)
    local[: 2 * SMALL.pairs] = local[: 2 * SMALL.pairs].unflatten(0, (-1, 2)).flip(1).flatten(0, 1)
    points, hyper = draw_points(1, 60), draw(1, 60, 2, seed=3)
    mirrored = points * torch.tensor([-1.0, 1.0, 1.0])
    sdf = network(points, hyper, network.condition(codes)).sdf
    assert torch.allclose(network(mirrored, hyper, network.condition(exchanged)).sdf, sdf, atol=1e-12)
    assert (network(mirrored, hyper, network.condition(codes)).sdf - sdf).abs().max() > 0.01


# Batches.


def test_subjects_of_a_batch_do_not_touch_each_other():
    network = small_network()
    geometry, appearance = draw(3, network.code_size, seed=1), draw(3, network.code_size, seed=2)
    points, hyper = draw_points(3, 20), draw(3, 20, 2, seed=3)
    together = network(points, hyper, network.condition(geometry, appearance))
    for subject in range(3):
        one = slice(subject, subject + 1)
        alone = network(points[one], hyper[one], network.condition(geometry[one], appearance[one]))
        assert torch.allclose(together.sdf[one], alone.sdf, atol=1e-12)
        assert torch.allclose(together.color[one], alone.color, atol=1e-12)


def test_frames_share_one_subject():
    network = small_network()
    geometry, appearance = draw(1, network.code_size, seed=1), draw(1, network.code_size, seed=2)
    points, hyper = draw_points(4, 20), draw(4, 20, 2, seed=3)
    shared = network(points, hyper, network.condition(geometry, appearance))
    repeated = network(points, hyper, network.condition(geometry.repeat(4, 1), appearance.repeat(4, 1)))
    assert torch.allclose(shared.sdf, repeated.sdf, atol=1e-12)
    assert torch.allclose(shared.color, repeated.color, atol=1e-12)


def test_points_may_come_in_any_order_and_number():
    network = small_network()
    condition = network.condition(draw(1, network.code_size, seed=1), draw(1, network.code_size, seed=2))
    points, hyper = draw_points(1, 30), draw(1, 30, 2, seed=3)
    field = network(points, hyper, condition)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(network(points[:, order], hyper[:, order], condition).sdf, field.sdf[:, order], atol=1e-12)
    assert torch.allclose(network(points[:, :1], hyper[:, :1], condition).color, field.color[:, :1], atol=1e-12)
    empty = network(points[:, :0], hyper[:, :0], condition)
    assert empty.sdf.shape == (1, 0)
    assert empty.color.shape == (1, 0, 3)


def test_colour_is_computed_only_where_an_appearance_is_given():
    network = small_network()
    both = network.condition(draw(1, network.code_size, seed=1), draw(1, network.code_size, seed=2))
    points, hyper = draw_points(1, 10), draw(1, 10, 2)
    plain = network(points, hyper, both._replace(appearance=None))
    assert plain.color is None
    assert torch.equal(plain.sdf, network(points, hyper, both).sdf)
    assert network(points, hyper, network.condition(draw(1, network.code_size, seed=1))).color is None


@pytest.mark.parametrize(
    ("points", "hyper", "subjects", "complaint"),
    [
        ((5, 3), (5, 2), 1, r"points are \(B, N, 3\)"),
        ((1, 5, 2), (1, 5, 2), 1, r"got \(1, 5, 2\)"),
        ((1, 5, 3), (1, 5, 3), 1, r"hyper coordinates \(B, N, 2\), got \(1, 5, 3\) and \(1, 5, 3\)"),
        ((3, 5, 3), (1, 5, 2), 1, "got"),
        ((3, 5, 3), (3, 5, 2), 2, "the condition is of 2 subjects, the points are of 3: give 1 or 3"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(points, hyper, subjects, complaint):
    network = small_network()
    condition = network.condition(torch.zeros(subjects, network.code_size, dtype=torch.float64))
    with pytest.raises(ValueError, match=complaint):
        network(torch.zeros(points, dtype=torch.float64), torch.zeros(hyper, dtype=torch.float64), condition)


def test_codes_of_another_size_are_refused():
    network = small_network()
    code = torch.zeros(1, network.code_size, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"geometry codes are \(S, 81\), got \(1, 80\)"):
        network.condition(code[:, 1:])
    with pytest.raises(ValueError, match=r"appearance codes are \(S, 81\), got \(1, 1, 81\)"):
        network.condition(code, code[None])


# Files.


def test_a_published_checkpoint_loads_as_it_is(tmp_path):
    checkpoint = random_checkpoint()
    checkpoint["latent_codes"]["codebook.geo.embedding.weight"][5] *= 100
    model = load_mononphm(write_mononphm(tmp_path, checkpoint), write_mononphm_anchors(tmp_path))
    assert model.identity.sizes == MonoSizes()
    assert model.identity.code_size == CODE == 2176
    state = model.identity.state_dict()
    assert state.keys() == checkpoint["id_decoder"].keys()
    assert all(torch.equal(value, state[key]) for key, value in checkpoint["id_decoder"].items())
    assert torch.equal(model.identity.mean_anchors, torch.from_numpy(random_anchors()).float())
    assert model.codebooks.geometry.shape == model.codebooks.appearance.shape == (381, 2176)
    assert model.codebooks.expression.shape == (7707, 100)
    rows = checkpoint["latent_codes"]["codebook.geo.embedding.weight"]
    assert torch.equal(model.codebooks.geometry[:5], rows[:5])
    assert torch.allclose(model.codebooks.geometry[5], rows[5] / rows[5].norm())  # max_norm of the published embedding
    assert not any(parameter.requires_grad for network in model[:2] for parameter in network.parameters())
    nphm, codes = Nphm(model.identity, model.expression), model.codebooks
    subject = nphm.subject(codes.geometry[:1], codes.appearance[:1])
    distance = nphm(draw_points(2, 50).float(), codes.expression[:2], subject)
    assert distance.sdf.shape == (2, 50)
    assert distance.color.isfinite().all()


def test_a_checkpoint_without_training_state_loads(tmp_path):
    checkpoint = random_checkpoint()
    checkpoint = {part: checkpoint[part] for part in ("id_decoder", "ex_decoder", "latent_codes")}
    checkpoint["latent_codes"]["codebook_logvar.exp.embedding.weight"] = torch.zeros(7707, 100)  # of variational trainings
    load_mononphm(write_mononphm(tmp_path, checkpoint), write_mononphm_anchors(tmp_path))


def test_the_parts_that_a_file_lacks_are_named(tmp_path):
    path = write_mononphm(tmp_path, {"id_decoder": {}, "decoder_state_dict": {}})
    with pytest.raises(WrongModelFile, match=r"lacks ex_decoder, latent_codes: is it MonoNPHM's checkpoint\?"):
        load_mononphm(path, write_mononphm_anchors(tmp_path))


def test_wrong_codebooks_are_named(tmp_path):
    checkpoint = random_checkpoint()
    codes = checkpoint["latent_codes"]
    codes["codebook.app.embedding.weight"] = codes["codebook.app.embedding.weight"][:, 1:]
    codes["codebook.expression.embedding.weight"] = codes.pop("codebook.exp.embedding.weight")
    with pytest.raises(WrongModelFile) as error:
        load_mononphm(write_mononphm(tmp_path, checkpoint), write_mononphm_anchors(tmp_path))
    assert "missing codebook.exp.embedding.weight" in str(error.value)
    assert "unexpected codebook.expression.embedding.weight" in str(error.value)
    assert "codebook.app.embedding.weight is 381×2175 instead of 381×2176" in str(error.value)
    assert "\n" not in str(error.value)
    assert "mononphm.tar" in str(error.value)
    codes["codebook.exp.embedding.weight"] = torch.zeros(7707, 200)
    del codes["codebook.expression.embedding.weight"]
    with pytest.raises(WrongModelFile, match=r"codebook\.exp\.embedding\.weight is 7707×200 instead of expressions×100"):
        load_mononphm(write_mononphm(tmp_path, checkpoint), write_mononphm_anchors(tmp_path))


def small_state() -> dict[str, torch.Tensor]:
    return small_network().float().state_dict()


def test_missing_unexpected_and_misshaped_keys_are_named_together():
    state = small_state()
    state["mlp_pos.5.weight"] = state.pop("mlp_pos.2.weight")
    state["aggr_app.layers.11.layers.0.bias"] = torch.zeros(8)
    with pytest.raises(WrongModelFile) as error:
        MonoIdentityNetwork.from_state(state, torch.zeros(N_SMALL, 3), "some.tar")
    assert str(error.value).startswith("some.tar does not hold what it should")
    assert "missing mlp_pos.2.weight" in str(error.value)
    assert "unexpected mlp_pos.5.weight" in str(error.value)
    assert "aggr_app.layers.11.layers.0.bias is 8 instead of 9" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("key", [key for key in identity_shapes() if ".11." in key or "layers" not in key])
def test_any_missing_key_is_named(key):
    state = {key: torch.zeros(()).expand(shape) for key, shape in identity_shapes().items()}
    del state[key]
    with pytest.raises(WrongModelFile, match=f"missing {key}"):
        MonoIdentityNetwork.from_state(state, torch.zeros(65, 3))


def test_keys_of_a_network_trained_on_several_devices_load():
    state = {f"module.{key}": value for key, value in small_state().items()}
    assert MonoIdentityNetwork.from_state(state, torch.zeros(N_SMALL, 3)).sizes == SMALL


def test_anchors_of_another_model_are_refused():
    with pytest.raises(WrongModelFile, match="has 18 anchors, 39 were given"):
        MonoIdentityNetwork.from_state(small_state(), torch.zeros(39, 3))


def test_weight_sets_that_fit_no_anchors_are_refused():
    state = {key: value for key, value in small_state().items() if ".layers.11." not in key}
    state |= {key.replace(".layers.0.", ".layers.19.", 1): value for key, value in state.items() if ".layers.0.layers" in key}
    with pytest.raises(WrongModelFile, match=r"missing deepSDFensemble\.layers\.11\.layers\.0\.weight"):
        MonoIdentityNetwork.from_state(state, torch.zeros(N_SMALL, 3))
    shallow = {key: value for key, value in small_state().items() if "layers." not in key or int(key.split(".")[2]) < 9}
    with pytest.raises(WrongModelFile, match="has 9 weight sets with 14 and 12 inputs, which fit no network with 18 anchors"):
        MonoIdentityNetwork.from_state(shallow, torch.zeros(N_SMALL, 3))


def tracking() -> Tracking:
    rotation = torch.linalg.qr(draw(1, 3, 3).float())[0]
    pose = Similarity(torch.tensor([4.2]), rotation * torch.linalg.det(rotation), torch.tensor([[0.1, -0.2, 0.3]]))
    return Tracking(draw(1, CODE).float(), draw(1, CODE, seed=1).float(), draw(7, 100, seed=2).float(), pose)


def test_a_tracked_frame_is_written_as_the_tracker_does_and_read_again(tmp_path):
    write_tracking(tmp_path / "00003", tracking())
    arrays = {path.name: np.load(path) for path in sorted((tmp_path / "00003").iterdir())}
    assert {name: array.shape for name, array in arrays.items()} == {
        "rot.npy": (1, 3, 3),
        "scale.npy": (1,),
        "trans.npy": (1, 3),
        "z_app.npy": (1, 1, CODE),
        "z_exp.npy": (7, 100),
        "z_geo.npy": (1, 1, CODE),
    }
    assert all(array.dtype == np.float32 for array in arrays.values())
    again = read_tracking(tmp_path / "00003")
    for expected, found in zip(tracking()[:3], again[:3], strict=True):
        assert torch.equal(found, expected)
    world = draw(5, 3).float()
    posed = arrays["scale.npy"] * (4 * world.numpy()) @ arrays["rot.npy"][0].T + arrays["trans.npy"]
    assert np.allclose(again.world_to_nphm.apply(world).squeeze(0), posed, atol=1e-6)


def test_the_second_stage_keeps_the_subjects_codes_a_folder_above(tmp_path):
    write_tracking(tmp_path / "00003", tracking())
    for name in ("z_geo.npy", "z_app.npy"):
        (tmp_path / "00003" / name).rename(tmp_path / name)
    assert torch.equal(read_tracking(tmp_path / "00003").geometry, tracking().geometry)


def test_misshaped_tracking_is_named(tmp_path):
    write_tracking(tmp_path, tracking())
    np.save(tmp_path / "rot.npy", np.zeros((1, 3), np.float32))
    np.save(tmp_path / "z_app.npy", np.zeros((1, 1, 7), np.float32))
    with pytest.raises(WrongModelFile, match=r"z_app is 1×1×7 instead of 1×1×2176, rot is 1×3 instead of 1×3×3"):
        read_tracking(tmp_path)
    (tmp_path / "trans.npy").unlink()
    with pytest.raises(FileNotFoundError, match=r"trans\.npy"):
        read_tracking(tmp_path)
