"""Whichever backend finds it, the visible face is the nearest one at the pixel's centre, and derivatives are right."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from fitting.raster import Backend, choose_backend, pieces, pytorch3d_backend, rasterize
from tests.fitting.raster.meshes import ball, random_triangles, seen, slow_rasterize, triangulated_quad

SIZE = (13, 19)
seeds = st.integers(0, 2**32 - 1)
few = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

TRIANGLE = torch.tensor([[[1.0, 1.0, 1.0], [1.0, 4.2, 1.0], [4.2, 1.0, 2.0]]])
"""Counter-clockwise in the picture: down the left side, then up to the right."""


def test_pixel_centres_lie_at_half_and_missed_pixels_say_so(backend: Backend) -> None:
    found = rasterize(TRIANGLE, torch.tensor([[0, 1, 2]]), (5, 6), backend=backend)
    expected = torch.zeros(5, 6, dtype=torch.bool)
    expected[1, 1:4] = expected[2, 1:3] = expected[3, 1] = True
    assert torch.equal(found.hit[0], expected)
    assert torch.equal(found.face[0], torch.where(expected, 0, -1))
    assert (found.barycentric[0][~expected] == 0).all()
    assert (found.depth[0][~expected] == 0).all()
    # At (1.5, 1.5): 0.5 / 3.2 of the way to each of the other corners, the third of them twice as far.
    weight = torch.tensor([1 - 1 / 3.2, 0.5 / 3.2, 0.5 / 3.2 / 2])
    torch.testing.assert_close(found.barycentric[0, 1, 1], weight / weight.sum())
    torch.testing.assert_close(found.depth[0, 1, 1], 1 / weight.sum())


@few
@given(seed=seeds, n=st.integers(1, 12))
def test_random_triangles_look_as_all_faces_at_all_pixels_do(backend: Backend, seed: int, n: int) -> None:
    points, faces = random_triangles(seed, n, SIZE)
    found, expected = rasterize(points, faces, SIZE, backend=backend), slow_rasterize(points[0], faces, SIZE)
    clear = expected.clear
    assert clear.float().mean() > 0.9
    assert torch.equal(found.face[0][clear], expected.face[clear])
    torch.testing.assert_close(found.barycentric[0][clear], expected.barycentric[clear], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found.depth[0][clear], expected.depth[clear], rtol=1e-9, atol=1e-9)


def test_float32_gradients_agree_with_autograd_through_the_slow_way_in_float64(backend: Backend) -> None:
    size = (40, 48)
    mesh = ball(500, bumps=0.1)
    points = seen(mesh.vertices, size).float().requires_grad_()
    rng = torch.Generator().manual_seed(0)
    by_barycentric, by_depth = torch.randn(*size, 3, generator=rng), torch.randn(*size, generator=rng)
    found = rasterize(points, mesh.faces, size, backend=backend)
    ((found.barycentric[0] * by_barycentric).sum() + (found.depth[0] * by_depth).sum()).backward()
    exact = points.detach().double().requires_grad_()
    expected = slow_rasterize(exact[0], mesh.faces, size)
    ((expected.barycentric * by_barycentric).sum() + (expected.depth * by_depth).sum()).backward()
    assert torch.equal(found.face[0], expected.face)
    assert points.grad is not None
    assert exact.grad is not None
    assert exact.grad.abs().max() > 1
    assert (points.grad - exact.grad).norm() < 1e-3 * exact.grad.norm()
    torch.testing.assert_close(points.grad.double(), exact.grad, rtol=1e-3, atol=1e-5)


def test_gradients_agree_with_finite_differences(backend: Backend) -> None:
    points, faces = random_triangles(3, 5, SIZE)
    # Clear of sides, so that no small step changes what is visible.
    clear = slow_rasterize(points[0], faces, SIZE).clear

    def visible(points: Tensor) -> tuple[Tensor, Tensor]:
        found = rasterize(points, faces, SIZE, backend=backend)
        return found.barycentric[0][clear], found.depth[0][clear]

    assert torch.autograd.gradcheck(visible, (points.requires_grad_(),), eps=1e-6, atol=1e-6)


@few
@given(seed=seeds)
def test_the_depth_of_a_plane_is_that_of_the_plane(backend: Backend, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b, c = 1 + rng.uniform(0, 1), *rng.uniform(-0.02, 0.02, 2)  # 1 / depth = a + b x + c y
    corners = rng.uniform(-20, 40, (3, 2))
    points = torch.tensor(np.column_stack([corners, 1 / (a + corners @ (b, c)).clip(0.1)]))[None]
    if (a + corners @ (b, c)).min() <= 0.1:
        return
    found = rasterize(points, torch.tensor([[0, 1, 2]]), SIZE, backend=backend)
    y, x = torch.meshgrid(torch.arange(SIZE[0]) + 0.5, torch.arange(SIZE[1]) + 0.5, indexing="ij")
    plane = 1 / (a + b * x.double() + c * y.double())
    torch.testing.assert_close(found.depth[found.hit], plane[None][found.hit], rtol=1e-6, atol=0)


def test_weights_are_weights(backend: Backend) -> None:
    mesh = ball(3000, bumps=0.1)
    found = rasterize(seen(mesh.vertices, (60, 60)).float(), mesh.faces, (60, 60), backend=backend)
    assert found.barycentric.dtype == found.depth.dtype == torch.float32
    weight = found.barycentric[found.hit]
    torch.testing.assert_close(weight.sum(dim=-1), torch.ones(len(weight)))
    assert weight.min() > -1e-3
    assert weight.max() < 1 + 1e-3


@few
@given(seed=seeds)
def test_the_order_of_faces_only_renames_them(backend: Backend, seed: int) -> None:
    points, faces = random_triangles(seed, 9, SIZE)
    order = torch.randperm(len(faces), generator=torch.Generator().manual_seed(seed % 2**31))
    found, shuffled = (rasterize(points, ordered, SIZE, backend=backend) for ordered in (faces, faces[order]))
    assert torch.equal(torch.where(shuffled.hit, order[shuffled.face], -1), found.face)
    assert torch.equal(shuffled.depth, found.depth)


@few
@given(seed=seeds, right=st.integers(-5, 5), down=st.integers(-5, 5))
def test_moving_by_whole_pixels_moves_the_picture(backend: Backend, seed: int, right: int, down: int) -> None:
    points, faces = random_triangles(seed, 6, SIZE)
    points = (points * 64).round() / 64
    moved = points + torch.tensor([right, down, 0.0])
    here, there = (rasterize(placed, faces, (30, 30), backend=backend) for placed in (points, moved))
    clear = slow_rasterize(points[0], faces, (30, 30)).clear
    old = [slice(max(0, -step), min(30, 30 - step)) for step in (down, right)]
    new = [slice(max(0, step), min(30, 30 + step)) for step in (down, right)]
    same = here.face[0, old[0], old[1]] == there.face[0, new[0], new[1]]
    assert same[clear[old[0], old[1]]].all()


def test_a_batch_is_its_images_one_at_a_time(backend: Backend) -> None:
    mesh = ball(400, bumps=0.1)
    points = torch.cat([seen(mesh.vertices, SIZE, distance=d) for d in (0.3, 0.5, 1.0)]).float()
    points[1, :, 0] += 7
    together = rasterize(points, mesh.faces, SIZE, backend=backend)
    assert together.face.shape == (3, *SIZE)
    for k in range(3):
        alone = rasterize(points[k : k + 1], mesh.faces, SIZE, backend=backend)
        for one, all_of_them in zip(alone, together, strict=True):
            assert torch.equal(one[0], all_of_them[k])


@pytest.mark.parametrize("step", [0.5, 0.25, 1e-6])
def test_no_pixel_between_neighbours_is_missed(backend: Backend, step: float) -> None:
    for seed in range(5):
        points, faces = triangulated_quad(seed, SIZE, step=step)
        for precise in (points, points.float()):
            assert rasterize(precise, faces, SIZE, backend=backend).hit.all()


@pytest.mark.parametrize("step", [0.5, 0.25, 1e-6])
def test_no_pixel_between_neighbours_is_found_twice(step: float) -> None:
    for seed in range(5):
        points, faces = triangulated_quad(seed, SIZE, step=step)
        # Each face alone in an image of its own; with a step of 0.5, many corners and sides lie on pixel centres.
        alone = rasterize(points[0][faces], torch.tensor([[0, 1, 2]]), SIZE, backend="torch")
        assert (alone.hit.sum(dim=0) == 1).all()


def test_a_centre_on_a_side_belongs_to_the_face_at_its_right_or_below() -> None:
    square = torch.tensor([[[1.5, 1.5, 1.0], [1.5, 3.5, 1.0], [3.5, 3.5, 1.0], [3.5, 1.5, 1.0]]])
    found = rasterize(square, torch.tensor([[0, 1, 2], [0, 2, 3]]), (5, 5), backend="torch")
    assert found.face[0, 1:3, 1:3].tolist() == [[1, 1], [0, 1]]
    assert found.hit.sum() == 4


def test_of_faces_equally_near_the_first_is_visible(backend: Backend) -> None:
    twice = torch.tensor([[0, 1, 2], [0, 1, 2], [0, 1, 2]])
    assert set(rasterize(TRIANGLE, twice, (5, 6), backend=backend).face.unique().tolist()) == {-1, 0}


def test_the_nearer_face_hides_the_other(backend: Backend) -> None:
    points = torch.cat([TRIANGLE, TRIANGLE - torch.tensor([0.0, 0.0, 0.5])], dim=1)
    assert set(rasterize(points, torch.tensor([[0, 1, 2], [3, 4, 5]]), (5, 6), backend=backend).face.unique().tolist()) == {-1, 1}


def test_fronts_run_counter_clockwise_in_the_picture(backend: Backend) -> None:
    front, back = torch.tensor([[0, 1, 2]]), torch.tensor([[0, 2, 1]])
    assert rasterize(TRIANGLE, back, (5, 6), backend=backend).hit.any()
    assert rasterize(TRIANGLE, front, (5, 6), backend=backend, cull_backfaces=True).hit.any()
    assert not rasterize(TRIANGLE, back, (5, 6), backend=backend, cull_backfaces=True).hit.any()


def test_a_closed_mesh_hides_its_own_back(backend: Backend) -> None:
    mesh = ball(2000)
    points = seen(mesh.vertices, (40, 40))
    both, front = (rasterize(points, mesh.faces, (40, 40), backend=backend, cull_backfaces=cull) for cull in (False, True))
    assert (both.face == front.face).float().mean() > 0.999
    inside = rasterize(points, mesh.faces.flip(1), (40, 40), backend=backend, cull_backfaces=True)
    # Seen from 0.5 m, the outline of a ball of 0.1 m lies at a depth of 0.48 m.
    assert (front.depth[front.hit] < 0.485).all()
    assert (inside.depth[inside.hit] > 0.475).all()


@pytest.mark.parametrize("depth", [-1.0, 0.0, 0.05, float("nan"), float("inf")])
def test_faces_with_a_corner_too_near_or_nowhere_are_not_drawn(backend: Backend, depth: float) -> None:
    points = torch.cat([TRIANGLE, TRIANGLE + torch.tensor([0.0, 0.0, 1.0])], dim=1)
    points[0, 1, 2] = depth
    points.requires_grad_()
    found = rasterize(points, torch.tensor([[0, 1, 2], [3, 4, 5]]), (5, 6), near=0.1, backend=backend)
    assert set(found.face.unique().tolist()) == {-1, 1}
    (found.depth.sum() + found.barycentric.square().sum()).backward()
    assert points.grad is not None
    assert points.grad.isfinite().all()
    assert (points.grad[0, :3] == 0).all()
    assert (points.grad[0, 3:] != 0).any()


@pytest.mark.parametrize("place", [float("nan"), float("inf"), 1e30])
def test_corners_that_are_nowhere_leave_their_neighbours_alone(backend: Backend, place: float) -> None:
    points = torch.cat([TRIANGLE, TRIANGLE], dim=1)
    points[0, 0, 0] = place
    found = rasterize(points, torch.tensor([[0, 1, 2], [3, 4, 5]]), (5, 6), backend=backend)
    assert set(found.face.unique().tolist()) == {-1, 1}
    assert found.depth.isfinite().all()


def test_nothing_to_see_is_an_empty_picture(backend: Backend) -> None:
    faces = torch.tensor([[0, 1, 2]])
    line = torch.tensor([[[1.0, 1.0, 1.0], [2.0, 2.0, 1.0], [3.0, 3.0, 2.0]]])
    outside = TRIANGLE + torch.tensor([100.0, 0.0, 0.0])
    for points, some in (
        (line, faces),
        (line[:, [0, 0, 0]], faces),
        (outside, faces),
        (-outside.abs() * torch.tensor([1.0, 1.0, -1.0]), faces),
        (TRIANGLE, faces[:0]),
        (TRIANGLE[:, :0], faces[:0]),
    ):
        found = rasterize(points, some, (5, 6), backend=backend)
        assert found.face.shape == (1, 5, 6)
        assert not found.hit.any()
        assert (found.depth == 0).all()
    assert rasterize(TRIANGLE[:0], faces, (5, 6), backend=backend).face.shape == (0, 5, 6)


def test_a_face_larger_than_the_image_fills_it(backend: Backend) -> None:
    points = torch.tensor([[[-1e6, -1e6, 1.0], [-1e6, 1e6 + 3, 2.0], [3e6, 0.0, 1.0]]])
    found = rasterize(points, torch.tensor([[0, 1, 2]]), (5, 6), backend="torch")
    assert found.hit.all()
    assert ((found.depth > 1) & (found.depth < 2)).all()


def test_work_in_small_pieces_comes_to_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    mesh = ball(900, bumps=0.2)
    points = torch.cat([seen(mesh.vertices, SIZE), seen(mesh.vertices, SIZE, distance=0.2)])
    whole = rasterize(points, mesh.faces, SIZE, backend="torch")
    monkeypatch.setattr(pieces, "AT_ONCE", 50)
    for one, other in zip(rasterize(points, mesh.faces, SIZE, backend="torch"), whole, strict=True):
        assert torch.equal(one, other)


def test_the_automatic_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_backend(TRIANGLE) == "torch"
    monkeypatch.setattr(pytorch3d_backend, "available", lambda: False)
    with pytest.raises(ValueError, match="choose backend auto or torch"):
        choose_backend(TRIANGLE, "pytorch3d")
    with pytest.raises(ValueError, match="no backend 'opengl'"):
        choose_backend(TRIANGLE, "opengl")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("points", "faces", "size", "says"),
    [
        (TRIANGLE[0], torch.tensor([[0, 1, 2]]), (5, 6), r"shape \(B, V, 3\)"),
        (TRIANGLE.long(), torch.tensor([[0, 1, 2]]), (5, 6), "floats"),
        (TRIANGLE, torch.tensor([[[0, 1, 2]]]), (5, 6), r"shape \(F, 3\)"),
        (TRIANGLE, torch.tensor([[0, 1, 2]]).int(), (5, 6), "int64"),
        (TRIANGLE, torch.tensor([[1, 2, 3]]), (5, 6), "1 to 3, but there are 3: they count from 0"),
        (TRIANGLE, torch.tensor([[0, 1, 2]]), (0, 6), "height, width"),
    ],
)
def test_what_cannot_be_drawn_is_refused(points: Tensor, faces: Tensor, size: tuple[int, int], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        rasterize(points, faces, size)
