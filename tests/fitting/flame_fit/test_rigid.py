"""The start of a fit: motions are found, wrong landmarks dropped, frames without any bridged."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from fitting.flame_fit.rigid import align, start
from fitting.similarity import Similarity
from fitting.studio.family import HeadFamily

TEMPLATE = torch.from_numpy(HeadFamily("small").mesh.rest[HeadFamily("small").mesh.landmarks])
ALL = torch.ones(5, 68, dtype=torch.bool)


def motions(frames: int = 5, scale: float = 1.1, seed: int = 0) -> Similarity:
    """A head that turns evenly about one axis while it moves along a line."""
    rng = np.random.default_rng(seed)
    first = Rotation.random(random_state=rng)
    turns = np.stack([(Rotation.from_rotvec([0, 0.1 * t, 0]) * first).as_matrix() for t in range(frames)])
    places = np.arange(frames)[:, None] * np.array([0.01, 0, 0.002]) + rng.normal(0, 1, 3)
    return Similarity(torch.full((frames,), scale, dtype=torch.float64), torch.from_numpy(turns), torch.from_numpy(places))


def assert_same(found: Similarity, true: Similarity, atol: float = 1e-9) -> None:
    assert torch.allclose(found.matrix(), true.matrix(), atol=atol)


@pytest.mark.parametrize("scaled", [True, False])
def test_a_motion_is_found_exactly(scaled: bool) -> None:
    true = motions(scale=1.3 if scaled else 1.0)
    assert_same(align(TEMPLATE, true.apply(TEMPLATE), torch.rand(5, 68, dtype=torch.float64) + 0.1, scaled=scaled), true)


def test_a_mirror_image_is_not_a_rotation() -> None:
    mirrored = TEMPLATE * torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64)
    found = align(TEMPLATE + 0.01 * torch.arange(3.0), mirrored, torch.ones(68, dtype=torch.float64), scaled=False)
    assert float(torch.linalg.det(found.rotation)) == pytest.approx(1)


def test_the_start_is_exact_for_a_rigid_head() -> None:
    true = motions()
    found = start(TEMPLATE, true.apply(TEMPLATE), ALL, 0.02)
    assert_same(found.frames, true)
    assert found.kept.all()
    assert found.aligned.all()
    assert_same(found.sequence.compose(found.sequence.inverse().compose(found.frames)), true)


def test_landmarks_two_centimetres_off_are_dropped() -> None:
    true = motions()
    observed = true.apply(TEMPLATE)
    observed[1, 30] += torch.tensor([0.03, 0, 0])
    observed[2, 8] += torch.tensor([0, 0.012, 0])
    found = start(TEMPLATE, observed, ALL, 0.02)
    assert (~found.kept).nonzero().tolist() == [[1, 30]]
    # The scale is the median frame's, so one bad landmark moves only its own frame.
    assert_same(Similarity(*(part[[0, 1, 3, 4]] for part in found.frames)), Similarity(*(part[[0, 1, 3, 4]] for part in true)))


def test_frames_without_landmarks_lie_between_their_neighbours() -> None:
    true = motions()
    valid = ALL.clone()
    valid[2], valid[4] = False, False
    observed = torch.where(valid[..., None], true.apply(TEMPLATE), torch.nan)
    found = start(TEMPLATE, observed, valid, 0.02)
    assert found.aligned.tolist() == [True, True, False, True, False]
    expected = true.matrix()
    expected[4] = expected[3]
    assert torch.allclose(found.frames.matrix(), expected, atol=1e-9)


def test_no_landmarks_at_all_is_an_error_that_counts_them() -> None:
    with pytest.raises(ValueError, match="at most 0 are valid"):
        start(TEMPLATE, motions().apply(TEMPLATE), torch.zeros_like(ALL), 0.02)
    with pytest.raises(ValueError, match=r"at most 68 are valid and 0 lie within 20 mm"):
        start(TEMPLATE, 1000 * motions().apply(TEMPLATE), ALL, 0.02)
