from __future__ import annotations

import numpy as np
import pytest

from fitting.stereo import from_shipped
from fitting.studio.nersemble import DEPTH_UNIT
from prep.capture import DEPTH_STEPS
from tests.fitting.stereo.scenes import Ball, Scene, cameras, picture


@pytest.fixture(scope="module")
def ball() -> Scene:
    return picture([Ball((0.0, 0.0, 0.0), 0.1)], cameras())


def steps(depth: np.ndarray) -> np.ndarray:
    return np.where(depth > 0, np.rint(depth / DEPTH_UNIT) + 1, 0).astype(np.uint16)


def test_the_unit_is_the_releases() -> None:
    assert pytest.approx(1 / DEPTH_STEPS) == DEPTH_UNIT


def test_depths_come_back_with_normals(ball: Scene) -> None:
    found = from_shipped(ball.views, steps(ball.truth.depth))
    known = found.depth > 0
    assert known.sum() > 0.95 * (ball.truth.depth > 0).sum()
    np.testing.assert_allclose(found.depth[known], ball.truth.depth[known], atol=0.51 * DEPTH_UNIT)
    cosine = (found.normals * ball.truth.normals)[known].sum(axis=-1)
    assert np.degrees(np.arccos(np.median(cosine).clip(-1, 1))) < 3
    assert set(np.unique(found.confidence)) == {0.0, 1.0}


def test_zero_is_no_depth_and_the_range_holds(ball: Scene) -> None:
    held = steps(ball.truth.depth)
    held[0] = 0
    held[1, :, :60] = steps(np.array(1.9))
    found = from_shipped(ball.views, held)
    assert not found.depth[0].any()
    assert not found.depth[1, :, :60].any()
    assert found.depth[2].any()


def test_other_types_are_refused(ball: Scene) -> None:
    with pytest.raises(ValueError, match="shipped depth is"):
        from_shipped(ball.views, ball.truth.depth)  # type: ignore[arg-type]
