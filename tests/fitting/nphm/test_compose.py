"""Codes in, distances or a mesh out, for each of the three compositions; none is used on weights that go the other way."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import trimesh

from fitting.isosurface import extract
from fitting.nphm import Background, Composition, Direction, ExpressionNetwork, MonoIdentityNetwork, Nphm, roots
from fitting.nphm.compose import LOWER, UPPER
from fitting.nphm.mono import MonoSizes
from fitting.nphm.roots import find_canonical
from tests.fitting.nphm.files import expression_shapes
from tests.fitting.nphm.heads import (
    RECORDED,
    draw,
    draw_points,
    fitted_head,
    recorded,
    recorded_expression,
    recorded_identity,
    small_expression,
    small_identity,
)
from tests.fitting.nphm.mono_files import random_anchors as mono_anchors
from tests.fitting.rule_weights import assert_close, rule_state


def mono_pair() -> tuple[MonoIdentityNetwork, ExpressionNetwork]:
    sizes = MonoSizes(pairs=4, global_code=5, local_code=4, hidden=12, depth=2, color_hidden=9, color_depth=2, message=3)
    identity = MonoIdentityNetwork(torch.from_numpy(mono_anchors(11, 4)), sizes)
    shapes = expression_shapes(known=4, told=identity.code_size + 33, expression=6, hidden=40, outputs=5)
    return identity.double(), ExpressionNetwork.from_state(rule_state(shapes)).double()


def test_weights_say_which_composition_holds() -> None:
    identity = small_identity()
    assert Nphm(identity, small_expression(Direction.forward)).composition is Composition.forward
    assert Nphm(identity, small_expression(Direction.backward)).composition is Composition.backward
    assert Nphm(*mono_pair()).composition is Composition.backward_hyper


def test_a_formula_is_not_used_on_weights_that_go_the_other_way() -> None:
    identity = small_identity()
    with pytest.raises(ValueError, match=r"backward was asked of .* canonical to posed points .* use forward, other weights, or"):
        Nphm(identity, small_expression(Direction.forward), "backward")
    with pytest.raises(ValueError, match=r"forward was asked of .* posed to canonical points"):
        Nphm(identity, small_expression(Direction.backward), Composition.forward)
    with pytest.raises(ValueError, match=r"backward was asked of .* with 2 hyper coordinates: use backward\+hyper"):
        Nphm(*mono_pair(), "backward")
    with pytest.raises(ValueError, match="does not go with this identity network"):
        Nphm(identity, mono_pair()[1])
    with pytest.raises(ValueError, match="does not go with this identity network"):
        Nphm(mono_pair()[0], small_expression(Direction.backward))
    with pytest.raises(ValueError, match="NPHM has no colours"):
        Nphm(identity, small_expression()).subject(draw(1, 45), draw(1, 45))


def test_backward_asks_the_identity_where_points_come_from() -> None:
    identity, expression = small_identity(), small_expression(Direction.backward)
    head = Nphm(identity, expression)
    codes, frames, points = draw(1, 45, scale=0.2), draw(4, 6), draw_points(4, 20)
    known = head(points, frames, head.subject(codes))
    of_subject = identity.condition(codes)
    moved = points + expression(points, frames, expression.condition(codes, of_subject.anchors)).offset
    torch.testing.assert_close(known.canonical, moved)
    torch.testing.assert_close(known.sdf, identity(moved, of_subject))
    assert known.converged.all()
    assert known.color is None


def test_forward_finds_the_canonical_points_as_published() -> None:
    head = Nphm(recorded_identity("lastdim"), recorded_expression("sqrt2"), "forward")
    subject = head.subject(recorded("identity_code"))
    known = head(recorded("esqrt2_obs"), recorded("expression_code"), subject)
    assert known.converged.all()
    assert_close(known.canonical, RECORDED["esqrt2_search_canonical"], 3.2e-5)
    assert_close(known.sdf[:, :-1], RECORDED["esqrt2_search_sdf"][:, :-1], 3.2e-5)


def test_forward_hands_on_what_root_finding_says() -> None:
    head = Nphm(recorded_identity("lastdim"), recorded_expression("1p9"))
    points, expression, subject = recorded("e1p9_obs"), recorded("expression_code"), head.subject(recorded("identity_code"))
    for starts in (1, 5):
        known, found = (
            ask(starts=starts, generator=torch.Generator().manual_seed(0))
            for ask in (
                partial(head, points, expression, subject),
                partial(find_canonical, head.expression, points, expression, subject.expression),
            )
        )
        assert torch.equal(known.converged, found.converged)
        assert torch.equal(known.canonical, found.points)
        assert 0 < found.converged.sum() < found.converged.numel()


@pytest.mark.parametrize("direction", Direction)
def test_the_background_is_the_identity_networks(direction: Direction) -> None:
    identity = small_identity()
    head = Nphm(identity, small_expression(direction))
    subject, points = head.subject(draw(1, 45)), 3 * draw_points(1, 40)
    member, outside = (head(points, draw(1, 6), subject, background=background) for background in Background)
    torch.testing.assert_close(
        outside.sdf, identity(outside.canonical, subject.identity, background=Background.outside), atol=1e-9, rtol=0
    )
    assert not torch.allclose(member.sdf, outside.sdf, atol=1e-4)


def test_backward_hyper_gives_distance_and_colour() -> None:
    identity, expression = mono_pair()
    head = Nphm(identity, expression)
    geometry, appearance = draw(1, identity.code_size), draw(1, identity.code_size, seed=1)
    points, frames = draw_points(2, 20), draw(2, 6)
    known = head(points, frames, head.subject(geometry, appearance))
    moved = expression(points, frames, expression.condition(geometry, identity.condition(geometry).anchors))
    field = identity(points + moved.offset, moved.hyper, identity.condition(geometry, appearance))
    torch.testing.assert_close(known.sdf, field.sdf)
    torch.testing.assert_close(known.color, field.color)
    assert head(points, frames, head.subject(geometry)).color is None


@pytest.mark.parametrize("direction", Direction)
def test_distances_can_be_fitted(direction: Direction, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradients by codes and points agree with differences, through root finding too."""
    monkeypatch.setattr(roots, "TOLERANCE", 1e-13)  # so that differences can be taken
    head = Nphm(small_identity(), small_expression(direction)).requires_grad_(False)
    head.expression.compressor[0].weight.data *= 20
    codes, frames = draw(1, 45, scale=0.2).requires_grad_(), draw(1, 6, scale=0.5).requires_grad_()
    points = draw_points(1, 3).requires_grad_()

    def distance(points, frames, codes):
        return head(points, frames, head.subject(codes)).sdf

    given = (points, frames, codes)
    assert all(grad.abs().max() > 1e-4 for grad in torch.autograd.grad(distance(*given).sum(), given))
    # Members that are left out make steps of 1e-8 in the distance.
    assert torch.autograd.gradcheck(distance, given, eps=1e-4, atol=1e-5, rtol=1e-3)


@pytest.fixture(scope="module")
def head_with_code() -> tuple[torch.nn.Module, torch.Tensor]:
    return fitted_head()


def smile(direction: Direction) -> ExpressionNetwork:
    """Moves the fitted head by some hundredths of a unit."""
    network = small_expression(direction).float().requires_grad_(False)
    told = 5 + 16 * 4 + 45
    torch.manual_seed(0)
    network.compressor[0] = torch.nn.Linear(told, 4).requires_grad_(False)
    return network


def test_forward_meshes_share_their_triangles_and_are_the_moved_canonical_head(head_with_code) -> None:
    identity, code = head_with_code
    head = Nphm(identity, smile(Direction.forward))
    subject = head.subject(code)
    frames = 3 * draw(3, 6).float()
    frames[0] = 0
    meshes = head.meshes(frames, subject, resolution=48)
    assert len(meshes) == 3
    assert all(torch.equal(mesh.faces, meshes[0].faces) for mesh in meshes)
    assert not torch.allclose(meshes[1].vertices, meshes[2].vertices, atol=1e-3)
    known = head(meshes[1].vertices[None], frames[1:2], subject)
    assert known.converged.float().mean() > 0.99
    step = 1.35 / 47
    assert known.sdf[known.converged].abs().max() < step


def test_backward_meshes_lie_on_the_zero_level_of_each_frame(head_with_code) -> None:
    identity, code = head_with_code
    head = Nphm(identity, smile(Direction.backward))
    subject, frames = head.subject(code), 3 * draw(2, 6).float()
    meshes = head.meshes(frames, subject, resolution=48)
    step = 1.35 / 47
    for mesh, frame in zip(meshes, frames, strict=True):
        assert len(mesh.faces) > 500
        assert head(mesh.vertices[None], frame[None], subject).sdf.abs().max() < step
    assert meshes[0].faces.shape != meshes[1].faces.shape


def test_a_head_is_closed_and_equal_to_the_dense_one(head_with_code) -> None:
    identity, code = head_with_code
    head = Nphm(identity, smile(Direction.forward))
    frame = torch.zeros(1, 6)
    few, dense = (head.meshes(frame, head.subject(code), resolution=64, dense=dense)[0] for dense in (False, True))
    assert torch.equal(few.faces, dense.faces)
    # Distances differ in their last digits with the points that are asked together.
    torch.testing.assert_close(few.vertices, dense.vertices, atol=1e-5, rtol=0)
    assert few.evaluations * 3 < dense.evaluations
    mesh = trimesh.Trimesh(few.vertices.numpy(), few.faces.numpy(), process=False)
    largest = max(mesh.split(only_watertight=False), key=lambda piece: len(piece.faces))
    assert largest.is_watertight
    assert largest.volume > 0.1


def test_meshes_are_those_of_the_distance_that_does_not_fall_to_zero(head_with_code) -> None:
    identity, code = head_with_code
    head = Nphm(identity, smile(Direction.forward))
    subject = head.subject(code)
    frame = draw(1, 6).float()
    mesh = head.meshes(frame, subject, resolution=32)[0]
    field = partial(identity, condition=subject.identity, floor=0.0)
    canonical = extract(lambda points: field(points[None])[0], LOWER, UPPER, 32)
    moved = canonical.vertices + head.expression(canonical.vertices[None], frame, subject.expression).offset[0]
    torch.testing.assert_close(mesh.vertices, moved)
    assert mesh.evaluations == canonical.evaluations
    falling = extract(lambda points: identity(points[None], subject.identity)[0], LOWER, UPPER, 32)
    assert falling.evaluations > canonical.evaluations


def right_side(points: torch.Tensor) -> torch.Tensor:
    """A weight that lets the left half of a head rest: 0 for x > 0, else up to 1."""
    return (-4 * points[..., 0]).clamp(0, 1)


def test_weighted_backward_meshes_lie_where_the_weighted_offsets_lead(head_with_code) -> None:
    identity, code = head_with_code
    head = Nphm(identity, smile(Direction.backward))
    subject, frames = head.subject(code), 3 * draw(2, 6).float()
    for mesh, frame in zip(head.each_mesh(frames, subject, resolution=48, weight=right_side), frames, strict=True):
        points = mesh.vertices[None]
        offset = head.expression(points, frame[None], subject.expression).offset
        assert identity(points + right_side(points)[..., None] * offset, subject.identity).abs().max() < 1.35 / 47
        assert head(points, frame[None], subject).sdf.abs().max() > 1.35 / 47


def test_weighted_forward_meshes_are_the_canonical_head_moved_by_the_weighted_offsets(head_with_code) -> None:
    identity, code = head_with_code
    head = Nphm(identity, smile(Direction.forward))
    subject, frame = head.subject(code), draw(1, 6).float()
    still, whole, part = (
        next(head.each_mesh(frame, subject, resolution=32, weight=weight)).vertices
        for weight in (lambda points: torch.zeros_like(points[..., 0]), None, right_side)
    )
    torch.testing.assert_close(part, still + right_side(still)[:, None] * (whole - still))
    assert (whole - still).norm(dim=-1).max() > 0.05


def test_meshes_are_of_one_subject() -> None:
    head = Nphm(small_identity(), small_expression())
    with pytest.raises(ValueError, match="of one subject, got 2"):
        head.meshes(draw(1, 6), head.subject(draw(2, 45)))
