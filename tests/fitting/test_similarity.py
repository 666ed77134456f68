"""Turning, moving and scaling compose, invert and keep what they must."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from fitting.similarity import Similarity, rigid


def random_similarity(seed: int, *batch: int) -> Similarity:
    generator = np.random.default_rng(seed)
    turns = Rotation.random(int(np.prod(batch)), generator).as_matrix().reshape(*batch, 3, 3)
    parts = (np.exp(generator.uniform(-2, 2, batch)), turns, generator.uniform(-3, 3, (*batch, 3)))
    return Similarity(*(torch.from_numpy(np.asarray(part)) for part in parts))


def points(seed: int, *shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).uniform(-1, 1, (*shape, 3)))


seeds = st.integers(0, 2**32 - 1)


def assert_same(a: Similarity, b: Similarity) -> None:
    assert all(torch.allclose(x, y, atol=1e-11, rtol=1e-11) for x, y in zip(a, b, strict=True))


@given(seeds)
def test_it_is_what_it_says(seed):
    change, x = random_similarity(seed, 2), points(seed, 2, 4)
    for b in range(2):
        s, R, t = (part[b].numpy() for part in change)
        for i in range(4):
            assert np.allclose(change.apply(x)[b, i].numpy(), s * (R @ x[b, i].numpy()) + t, atol=1e-12)
    homogeneous = torch.cat([x, torch.ones(2, 4, 1).double()], dim=-1) @ change.matrix().mT
    assert torch.allclose(homogeneous[..., :3], change.apply(x), atol=1e-12)
    assert (homogeneous[..., 3] == 1).all()


@settings(deadline=None)
@given(seeds)
def test_composing_inverting_and_matrices(seed):
    a, b, c = (random_similarity(seed + k, 3) for k in range(3))
    x = points(seed, 3, 5)
    assert torch.allclose(a.compose(b).apply(x), a.apply(b.apply(x)), atol=1e-10)
    assert_same(a.compose(b).compose(c), a.compose(b.compose(c)))
    assert torch.allclose(a.inverse().apply(a.apply(x)), x, atol=1e-10)
    assert_same(a.compose(b).inverse(), b.inverse().compose(a.inverse()))
    assert_same(Similarity.from_matrix(a.matrix()), a)
    assert torch.allclose(a.compose(b).matrix(), a.matrix() @ b.matrix(), atol=1e-10)


@given(seeds)
def test_vectors_are_differences_and_normals_stay_normals(seed):
    change, x = random_similarity(seed), points(seed, 3)
    moved = change.apply(x)
    assert torch.allclose(change.apply_vectors(x[1:] - x[0]), moved[1:] - moved[0], atol=1e-11)
    normal = torch.nn.functional.normalize(torch.linalg.cross(x[1] - x[0], x[2] - x[0]), dim=0)
    turned = change.apply_normals(normal[None])[0]
    assert torch.allclose(turned.norm(), torch.ones(()).double())
    assert ((moved[1:] - moved[0]) @ turned).abs().max() < 1e-10
    # On the same side as before.
    assert torch.allclose(turned, torch.nn.functional.normalize(torch.linalg.cross(*(moved[1:] - moved[0])), dim=0), atol=1e-8)


def test_leading_dimensions_broadcast():
    frames, one, x = random_similarity(0, 4), random_similarity(1), points(2, 7)
    assert frames.apply(x).shape == (4, 7, 3)
    assert torch.allclose(one.compose(frames).apply(x), one.apply(frames.apply(x)))
    assert torch.allclose(frames.compose(one).apply(x), frames.apply(one.apply(x)))
    mixed = Similarity(one.scale, one.rotation, frames.translation)
    assert mixed.matrix().shape == (4, 4, 4)
    assert torch.allclose(mixed.inverse().apply(mixed.apply(x)), x.expand(4, 7, 3))


def test_results_follow_what_is_mapped_and_the_wider_map():
    change = random_similarity(0)
    assert change.apply(points(0, 3).float()).dtype == torch.float32
    narrow = Similarity(*(part.float() for part in change))
    assert narrow.compose(narrow).rotation.dtype == torch.float32
    assert narrow.compose(change).translation.dtype == change.compose(narrow).translation.dtype == torch.float64


def test_derivatives():
    change, x = random_similarity(0, 2), points(1, 2, 3)
    parts = [part.requires_grad_() for part in change]
    assert torch.autograd.gradcheck(lambda s, R, t: Similarity(s, R, t).apply(x), parts)
    assert torch.autograd.gradcheck(lambda s, t: Similarity(s, change.rotation.detach(), t).inverse().matrix(), parts[::2])


@pytest.mark.parametrize(
    "matrix",
    [
        torch.diag(torch.tensor([1.0, 1.0, -1.0, 1.0])),
        torch.diag(torch.tensor([1.0, 1.0, 1.1, 1.0])),
        torch.diag(torch.tensor([0.0, 0.0, 0.0, 1.0])),
        torch.full((4, 4), torch.nan),
        rigid(torch.eye(3), torch.tensor([1.0, 2.0, 3.0])).matrix().T,
    ],
)
def test_other_matrices_are_refused(matrix):
    with pytest.raises(ValueError, match="not a rotation, scale and translation"):
        Similarity.from_matrix(matrix)


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"got \(3, 4\)"):
        Similarity.from_matrix(torch.zeros(3, 4))


def test_a_change_of_unit():
    assert Similarity.scaling(4.0).apply(torch.tensor([[1.0, 2.0, 3.0]])).tolist() == [[4.0, 8.0, 12.0]]
