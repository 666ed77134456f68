from __future__ import annotations

import numpy as np
import pytest

from fitting.stereo import Cloud, clean, clean_maps, fuse
from tests.fitting.stereo.scenes import Ball, Scene, cameras, picture


@pytest.fixture(scope="module")
def ball() -> Scene:
    return picture([Ball((0.0, 0.0, 0.0), 0.1)], cameras())


@pytest.fixture(scope="module")
def cloud(ball: Scene) -> Cloud:
    return fuse(ball.views, ball.truth, least_views=1)


def test_depths_outside_the_range_are_taken_out(ball: Scene) -> None:
    cleaned = clean_maps(ball.views, ball.truth, depth_range=(0.8, 0.93))
    kept = cleaned.depth > 0
    assert kept.any()
    assert cleaned.depth[kept].max() <= 0.93
    assert not cleaned.normals[~kept].any()
    assert not cleaned.confidence[~kept].any()


def test_masks_and_slant_bound_the_maps(ball: Scene) -> None:
    masks = ball.views.masks.copy()
    masks[0] = False
    cleaned = clean_maps(ball.views._replace(masks=masks), ball.truth, max_slant_deg=30)
    assert not cleaned.depth[0].any()
    # Of a ball's disc, sin² 30° is seen so straight.
    share = (cleaned.depth[2] > 0).sum() / (ball.truth.depth[2] > 0).sum()
    assert abs(share - 0.25) < 0.02


def test_small_patches_are_taken_out(ball: Scene) -> None:
    depth = ball.truth.depth.copy()
    depth[2, 2:4, 2:4] = 1.0
    maps = ball.truth._replace(depth=depth)
    views = ball.views._replace(masks=None)
    assert not clean_maps(views, maps, max_slant_deg=None, least_patch=5).depth[2, 2:4, 2:4].any()
    assert clean_maps(views, maps, max_slant_deg=None, least_patch=4).depth[2, 2:4, 2:4].all()


def test_a_plane_cuts_off_what_is_below(cloud: Cloud) -> None:
    above = clean(cloud, plane=(0.0, 1.0, 0.0, 0.03))
    assert above.points[:, 1].min() >= -0.03
    assert 0 < len(above.points) < len(cloud.points)
    assert all(len(part) == len(above.points) for part in above)


def test_few_views_are_not_enough(cloud: Cloud) -> None:
    assert clean(cloud, least_views=3).confidence.min() == 3


def test_points_outside_the_masks_are_taken_out_even_where_no_view_sees_them(ball: Scene, cloud: Cloud) -> None:
    stray = np.array([[0.0, 0.0, -0.05], [0.12, 0.0, 0.0], [0.0, 0.09, 0.1]], np.float32)
    more = Cloud(
        np.concatenate([cloud.points, stray]),
        np.concatenate([cloud.normals, np.zeros((3, 3), np.float32)]),
        np.concatenate([cloud.colours, np.zeros((3, 3), np.uint8)]),
        np.concatenate([cloud.confidence, np.full(3, 5, np.float32)]),
    )
    left = clean(more, views=ball.views)
    # The first lies inside the ball, where every mask has it.
    assert (np.abs(left.points - stray[0]).max(axis=1) == 0).sum() == 1
    assert np.linalg.norm(left.points, axis=1).max() < 0.101
    assert len(left.points) > 0.9 * len(cloud.points)


def test_questions_without_an_answer_are_refused(ball: Scene, cloud: Cloud) -> None:
    with pytest.raises(ValueError, match="without masks"):
        clean(cloud, views=ball.views._replace(masks=None))
    with pytest.raises(ValueError, match="a plane is"):
        clean(cloud, plane=(0.0, 0.0, 0.0, 1.0))
