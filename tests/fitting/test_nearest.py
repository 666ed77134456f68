"""Nearest points are the nearest, whichever way they are found; residuals vanish where they should."""

from __future__ import annotations

import math
import sys
import types
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

import fitting.nearest
from fitting.nearest import Backend, NearestTo, choose_backend, match, nearest, pad_clouds, point_to_plane, point_to_point, take

HAS_PYTORCH3D = fitting.nearest.pytorch3d_knn() is not None
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]


class FoundByStandIn(NamedTuple):
    dists: torch.Tensor
    idx: torch.Tensor
    knn: None


def stand_in_knn_points(p1, p2, lengths1, lengths2, *, K, return_sorted):
    """Answers as ``pytorch3d.ops.knn_points`` documents it: squared distances, padding with zeros."""
    assert lengths1.dtype == lengths2.dtype == torch.int64
    assert p1.dtype == p2.dtype == torch.float32
    assert return_sorted
    dists, idx = p1.new_zeros(*p1.shape[:2], K), lengths1.new_zeros(*p1.shape[:2], K)
    for b, (n, m) in enumerate(zip(lengths1.tolist(), lengths2.tolist(), strict=True)):
        squared = (p1[b, :n, None] - p2[b, None, :m]).square().sum(-1)
        found = squared.topk(min(K, m), largest=False)
        dists[b, :n, : min(K, m)], idx[b, :n, : min(K, m)] = found.values, found.indices
    return FoundByStandIn(dists, idx, None)


@pytest.fixture(params=["kdtree", "brute", "pytorch3d", "stand-in"])
def backend(request, monkeypatch) -> Backend:
    if request.param == "pytorch3d" and not HAS_PYTORCH3D:
        pytest.skip("PyTorch3D is not installed")
    if request.param == "stand-in":
        monkeypatch.setattr(fitting.nearest, "pytorch3d_knn", lambda: stand_in_knn_points)
        return "pytorch3d"
    return request.param


def points(*shape: int, seed: int = 0, dtype=torch.float64) -> torch.Tensor:
    return torch.randn(*shape, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def slow_nearest(queries: np.ndarray, targets: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Plainly: all distances in float64, sorted."""
    squared = ((queries[:, None] - targets[None]) ** 2).sum(axis=2)
    order = np.argsort(squared, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(squared, order, axis=1)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_agrees_with_a_plain_search(backend, k, dtype, device):
    queries, targets = points(3, 200, dtype=dtype), points(3, 300, seed=1, dtype=dtype)
    found = nearest(queries.to(device), targets.to(device), k, backend=backend)
    assert found.index.shape == found.squared_distance.shape == (3, 200, k)
    assert found.index.dtype == torch.int64
    assert found.squared_distance.dtype == dtype
    assert found.index.device.type == device
    for b in range(3):
        index, squared = slow_nearest(queries[b].double().numpy(), targets[b].double().numpy(), k)
        assert np.array_equal(found.index[b].cpu().numpy(), index)
        assert np.allclose(found.squared_distance[b].cpu().numpy(), squared, rtol=1e-5 if dtype == torch.float32 else 1e-12)


def test_tenths_of_millimetres_are_seen_far_from_the_origin(backend):
    # Expanding |q - t|² would leave errors of 1e-6 m², a millimetre, here.
    targets = torch.tensor([[[3.0, 3.0, 3.0], [3.0, 3.0, 3.0002]]])
    found = nearest(torch.tensor([[[3.0, 3.0, 3.00011], [3.0, 3.0, 3.00009]]]), targets, backend=backend)
    assert found.index.flatten().tolist() == [1, 0]
    assert torch.allclose(found.squared_distance.sqrt(), torch.tensor(9e-5), atol=1e-6)


@pytest.mark.parametrize("k", [1, 4])
def test_clouds_of_different_sizes_do_not_see_their_padding(backend, k):
    clouds, asking = [points(n, seed=n) for n in (7, 2, 50, 0)], [points(n, seed=9 + n) for n in (5, 6, 0, 3)]
    targets, target_lengths = pad_clouds(clouds)
    queries, query_lengths = pad_clouds(asking)
    found = nearest(queries, targets, k, query_lengths=query_lengths, target_lengths=target_lengths, backend=backend)
    for b, (cloud, ask) in enumerate(zip(clouds, asking, strict=True)):
        index, squared = slow_nearest(ask.numpy(), cloud.numpy(), k)
        n, known = index.shape
        assert np.array_equal(found.index[b, :n, :known].numpy(), index)
        assert np.allclose(found.squared_distance[b, :n, :known].numpy(), squared)
        assert (found.index[b, n:] == -1).all()
        assert (found.index[b, :, known:] == -1).all()
    assert torch.equal(found.squared_distance == torch.inf, found.index == -1)


def test_no_targets_and_no_queries(backend):
    found = nearest(points(2, 4), points(2, 0), 2, backend=backend)
    assert (found.index == -1).all()
    assert (found.squared_distance == torch.inf).all()
    assert nearest(points(2, 0), points(2, 4), backend=backend).index.shape == (2, 0, 1)
    assert nearest(points(0, 3), points(0, 4), backend=backend).index.shape == (0, 3, 1)


def test_targets_out_of_reach_do_not_count(backend):
    queries, targets = points(2, 60), points(2, 80, seed=1)
    free, bound = NearestTo(targets, backend=backend)(queries, 3), NearestTo(targets, backend=backend)(queries, 3, within=0.4)
    near = free.squared_distance <= 0.4**2
    assert 0 < near.sum() < near.numel()
    assert torch.equal(bound.index, torch.where(near, free.index, -1))
    assert torch.equal(bound.squared_distance, torch.where(near, free.squared_distance, torch.inf))


def test_the_border_of_the_reach_counts(backend):
    found = NearestTo(torch.zeros(1, 1, 3), backend=backend)(torch.tensor([[[0.5, 0, 0], [0.5001, 0, 0]]]), within=0.5)
    assert found.index.flatten().tolist() == [0, -1]


def test_within_no_distance_at_all_there_are_coincident_points(backend):
    targets = torch.tensor([[[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]]])
    found = NearestTo(targets, backend=backend)(targets[:, :1], within=0.0)
    assert found.index.tolist() == [[[0]]]


def test_of_equally_near_targets_one_is_returned(backend):
    targets = torch.tensor([[[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, 0, 5]]])
    found = nearest(torch.zeros(1, 2, 3), targets.repeat(1, 3, 1), 7, backend=backend)
    assert (found.squared_distance[..., :] == torch.tensor([1.0])).all()
    assert all(len(set(row)) == 7 and not {3, 7, 11} & set(row) for row in found.index[0].tolist())


def test_distances_have_derivatives_in_queries_and_targets(backend):
    queries, targets = points(2, 6).requires_grad_(), points(2, 9, seed=1).requires_grad_()
    lengths = torch.tensor([9, 1])

    def total(q, t):
        squared = nearest(q, t, 2, target_lengths=lengths, backend=backend).squared_distance
        return squared[squared.isfinite()]

    assert torch.autograd.gradcheck(total, (queries, targets))
    # Missing neighbours are infinitely far and pull at nothing.
    found = nearest(queries, targets, 2, target_lengths=lengths, backend=backend)
    assert found.squared_distance.isinf().any()
    gradients = torch.autograd.grad(torch.where(found.index >= 0, found.squared_distance, 0).sum(), (queries, targets))
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert (gradients[1][1, 1:] == 0).all()


def test_a_prepared_cloud_answers_as_a_fresh_one(backend):
    targets = points(2, 40)
    cloud = NearestTo(targets, torch.tensor([40, 11]), backend=backend)
    for seed in range(3):
        queries = points(2, 10, seed=seed)
        fresh = nearest(queries, targets, 2, target_lengths=torch.tensor([40, 11]), backend=backend)
        assert all(torch.equal(a, b) for a, b in zip(cloud(queries, 2), fresh, strict=True))


def test_trees_are_built_once(monkeypatch):
    built = []
    monkeypatch.setattr(fitting.nearest, "cKDTree", lambda c, tree=fitting.nearest.cKDTree: built.append(len(c)) or tree(c))
    cloud = NearestTo(points(3, 20), torch.tensor([20, 5, 9]))
    for seed in range(4):
        cloud(points(3, 5, seed=seed))
    assert built == [20, 5, 9]


def test_a_batch_item_does_not_depend_on_the_others(backend):
    queries, targets = points(3, 8), points(3, 30, seed=1)
    together = nearest(queries, targets, backend=backend)
    alone = nearest(queries[1:2], targets[1:2], backend=backend)
    assert torch.equal(together.index[1:2], alone.index)
    assert torch.equal(together.squared_distance[1:2], alone.squared_distance)


def test_brute_force_in_pieces_is_brute_force(monkeypatch):
    queries, targets = points(2, 50), points(2, 30, seed=1)
    whole = nearest(queries, targets, 3, backend="brute")
    for pairs in (1, 7 * 60):
        monkeypatch.setattr(fitting.nearest, "PAIRS", pairs)
        assert all(torch.equal(a, b) for a, b in zip(nearest(queries, targets, 3, backend="brute"), whole, strict=True))


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.sampled_from(["kdtree", "brute"]))
def test_neighbours_stay_when_both_clouds_move(seed, backend):
    generator = np.random.default_rng(seed)
    turn = torch.from_numpy(Rotation.random(None, generator).as_matrix())
    move = torch.from_numpy(generator.uniform(-2, 2, 3))
    queries, targets = points(1, 20, seed=seed), points(1, 30, seed=seed + 1)
    before = nearest(queries, targets, 2, backend=backend)
    after = nearest(queries @ turn.mT + move, targets @ turn.mT + move, 2, backend=backend)
    assert torch.equal(before.index, after.index)
    assert torch.allclose(before.squared_distance, after.squared_distance, atol=1e-12)


def test_auto_takes_trees_on_the_cpu():
    assert choose_backend(torch.zeros(1)) == "kdtree"
    # On a GPU PyTorch3D where there is one, else brute force; a meta tensor stands for other devices.
    assert choose_backend(torch.zeros(1, device="meta")) == "brute"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_auto_on_a_gpu():
    assert choose_backend(torch.zeros(1, device="cuda")) == ("pytorch3d" if HAS_PYTORCH3D else "brute")
    assert choose_backend(torch.zeros(1, device="cuda", dtype=torch.float64)) == "brute"


def test_a_pytorch3d_that_does_not_import_is_none(monkeypatch):
    fitting.nearest.pytorch3d_knn.cache_clear()
    monkeypatch.setitem(sys.modules, "pytorch3d", types.ModuleType("pytorch3d"))
    monkeypatch.setitem(sys.modules, "pytorch3d.ops", None)
    assert fitting.nearest.pytorch3d_knn() is None
    with pytest.raises(ValueError, match="does not import"):
        choose_backend(torch.zeros(1), "pytorch3d")
    ops = types.ModuleType("pytorch3d.ops")
    ops.knn_points = stand_in_knn_points
    monkeypatch.setitem(sys.modules, "pytorch3d.ops", ops)
    fitting.nearest.pytorch3d_knn.cache_clear()
    assert fitting.nearest.pytorch3d_knn() is stand_in_knn_points
    fitting.nearest.pytorch3d_knn.cache_clear()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: nearest(torch.zeros(5, 3), torch.zeros(1, 5, 3)), r"queries have shape \(B, points, 3\), got \(5, 3\)"),
        (lambda: nearest(torch.zeros(1, 5, 3), torch.zeros(1, 5, 2)), r"targets have shape"),
        (lambda: nearest(torch.zeros(1, 5, 3), torch.zeros(2, 5, 3)), "1 batch items .* 2 clouds"),
        (lambda: nearest(torch.zeros(1, 5, 3), torch.zeros(1, 5, 3), 0), "k = 0"),
        (lambda: NearestTo(torch.zeros(1, 5, 3))(torch.zeros(1, 5, 3), within=-1.0), "a distance is not negative, got -1.0"),
        (lambda: nearest(torch.zeros(2, 5, 3), torch.zeros(2, 5, 3), target_lengths=torch.tensor([5, 6])), "0 to 5"),
        (lambda: nearest(torch.zeros(2, 5, 3), torch.zeros(2, 5, 3), query_lengths=torch.tensor([5])), "2 integers"),
        (lambda: NearestTo(torch.stack([torch.zeros(4, 3), torch.full((4, 3), math.nan)])), "item 1 are not all finite"),
        (lambda: nearest(torch.full((1, 2, 3), math.inf), torch.zeros(1, 5, 3), backend="brute"), "queries .* not all finite"),
    ],
)
def test_complaints(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_taking_by_index():
    values, index = torch.arange(24.0).reshape(2, 4, 3), torch.tensor([[[0, 3]], [[2, -1]]])
    expected = torch.stack([values[0, [0, 3]], values[1, [2, 0]]])[:, None]
    assert torch.equal(take(values, index), expected)


# --- residuals


def plane_cloud(height: float = 0.25, n: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    """A level grid of points and its normals, which point up and have length 2."""
    x = torch.linspace(-1, 1, n, dtype=torch.float64)
    grid = torch.stack([*torch.meshgrid(x, x, indexing="ij"), torch.full((n, n), height, dtype=torch.float64)], dim=-1)
    return grid.reshape(1, -1, 3), torch.tensor([0.0, 0, 2]).double().expand(1, n * n, 3)


def test_sliding_on_a_plane_costs_nothing_with_point_to_plane():
    cloud, normals = plane_cloud()
    vertices = torch.cat([points(1, 30)[..., :2].clamp(-0.9, 0.9), torch.full((1, 30, 1), 0.25).double()], dim=-1)
    matched = match(vertices, NearestTo(cloud), cloud_normals=normals)
    assert point_to_plane(vertices, matched).residual.abs().max() < 1e-15
    assert point_to_point(vertices, matched).residual.abs().max() > 0.01


def test_distance_to_a_plane_has_the_sign_of_the_side_and_the_unit_of_the_points():
    cloud, normals = plane_cloud(0.25)
    vertices = torch.tensor([[[0.1, 0.2, 0.35], [0.3, -0.4, 0.05]]]).double()
    residual = point_to_plane(vertices, match(vertices, NearestTo(cloud), cloud_normals=normals)).residual
    assert torch.allclose(residual, torch.tensor([[0.1, -0.2]]).double(), atol=1e-7)


def test_residuals_agree_with_loops():
    vertices, cloud, normals = points(2, 25), points(2, 60, seed=1), points(2, 60, seed=2)
    vertex_normals = points(2, 25, seed=3)
    matched = match(
        vertices, NearestTo(cloud), vertex_normals=vertex_normals, cloud_normals=normals, max_distance=0.9, max_angle_deg=80
    )
    to_point, to_plane = point_to_point(vertices, matched), point_to_plane(vertices, matched)
    for b in range(2):
        for i in range(25):
            distances = [float((vertices[b, i] - p).norm()) for p in cloud[b]]
            j = distances.index(min(distances))
            n, own = normals[b, j] / normals[b, j].norm(), vertex_normals[b, i] / vertex_normals[b, i].norm()
            inlier = distances[j] <= 0.9 and math.degrees(math.acos(float(n @ own))) <= 80
            offset = (vertices[b, i] - cloud[b, j]) * inlier
            # An index stays for what the angle gates, not for what the distance does.
            assert int(to_point.index[b, i]) == (j if distances[j] <= 0.9 else -1)
            assert bool(to_point.weight[b, i]) == bool(to_plane.weight[b, i]) == inlier
            assert torch.allclose(to_point.residual[b, i], offset, atol=1e-12)
            assert abs(float(to_plane.residual[b, i] - offset @ n)) < 1e-12
    assert torch.equal(to_point.inliers, matched.inlier.sum(dim=1).double())
    assert (to_point.inliers > 0).all()
    assert (to_point.inliers < 25).all()


def test_when_everything_is_gated_nothing_pulls():
    vertices = points(2, 10).requires_grad_()
    cloud, normals = points(2, 20, seed=1) + 100, points(2, 20, seed=2)
    for gates in ({"max_distance": 1.0}, {"max_angle_deg": 30.0, "vertex_normals": torch.zeros(2, 10, 3).double()}):
        matched = match(vertices, NearestTo(cloud), cloud_normals=normals, **gates)
        for found in (point_to_point(vertices, matched), point_to_plane(vertices, matched)):
            assert (found.inliers == 0).all()
            (gradient,) = torch.autograd.grad(found.residual.abs().sum() / found.inliers.sum().clamp(min=1), vertices)
            assert (gradient == 0).all()


def test_an_empty_cloud_and_missing_vertices_pull_at_nothing():
    vertices = points(2, 4)
    cloud = NearestTo(*pad_clouds([points(0), points(6)]))
    matched = match(vertices, cloud, lengths=torch.tensor([4, 3]), cloud_normals=points(2, 6, seed=5))
    assert point_to_plane(vertices, matched).inliers.tolist() == [0, 3]
    assert matched.inlier[1].tolist() == [True, True, True, False]
    nothing = match(vertices, NearestTo(points(2, 0)), cloud_normals=points(2, 0))
    assert (point_to_plane(vertices, nothing).residual == 0).all()
    assert not nothing.inlier.any()


def test_points_without_a_normal_are_not_believed():
    cloud, normals = plane_cloud()
    normals = normals.clone()
    normals[:, ::4] = 0
    normals[:, 2::4] = torch.nan
    vertices = cloud[:, :100]
    assert match(vertices, NearestTo(cloud), cloud_normals=normals).inlier[0].tolist() == [False, True] * 50
    assert match(vertices, NearestTo(cloud)).inlier.all()


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6))
def test_residuals_turn_with_the_scene(seed):
    generator = np.random.default_rng(seed)
    turn = torch.from_numpy(Rotation.random(None, generator).as_matrix())
    move = torch.from_numpy(generator.uniform(-2, 2, 3))
    vertices, cloud, normals = points(1, 15, seed=seed), points(1, 30, seed=seed + 1), points(1, 30, seed=seed + 2)
    own = points(1, 15, seed=seed + 3)
    before = match(vertices, NearestTo(cloud), cloud_normals=normals, vertex_normals=own, max_distance=1, max_angle_deg=90)
    moved = vertices @ turn.mT + move
    after = match(
        moved,
        NearestTo(cloud @ turn.mT + move),
        cloud_normals=normals @ turn.mT,
        vertex_normals=own @ turn.mT,
        max_distance=1,
        max_angle_deg=90,
    )
    assert torch.equal(before.inlier, after.inlier)
    there, here = point_to_point(moved, after).residual, point_to_point(vertices, before).residual
    assert torch.allclose(there, here @ turn.mT, atol=1e-12)
    assert torch.allclose(point_to_plane(moved, after).residual, point_to_plane(vertices, before).residual, atol=1e-12)


def test_residuals_have_derivatives_while_a_match_is_kept():
    vertices, cloud, normals = points(1, 8).requires_grad_(), points(1, 20, seed=1), points(1, 20, seed=2)
    matched = match(vertices, NearestTo(cloud), cloud_normals=normals, max_distance=1.2)
    assert not matched.points.requires_grad
    assert torch.autograd.gradcheck(lambda v: point_to_point(v, matched).residual, vertices)
    assert torch.autograd.gradcheck(lambda v: point_to_plane(v, matched).residual, vertices)


def test_matching_again_and_again_finds_the_motion():
    """Points of a sphere, moved a little, are brought back by plane residuals: what fits do with these."""
    cloud = torch.nn.functional.normalize(points(1, 4000), dim=-1)
    vertices = cloud[:, :300] + torch.tensor([0.02, -0.03, 0.01]).double()
    target, move = NearestTo(cloud), torch.zeros(3, dtype=torch.float64)
    for _ in range(10):
        matched = match(vertices + move, target, cloud_normals=cloud, max_distance=0.2)
        residual, rows = point_to_plane(vertices + move, matched).residual[0], matched.normals[0]
        move = move - torch.linalg.lstsq(rows, residual[:, None]).solution[:, 0]
    assert torch.allclose(move, torch.tensor([-0.02, 0.03, -0.01]).double(), atol=1e-4)


def test_gates_and_planes_need_normals():
    vertices, cloud = points(1, 3), NearestTo(points(1, 5))
    with pytest.raises(ValueError, match="give both"):
        match(vertices, cloud, cloud_normals=points(1, 5), max_angle_deg=60)
    with pytest.raises(ValueError, match="cloud_normals"):
        point_to_plane(vertices, match(vertices, cloud))
