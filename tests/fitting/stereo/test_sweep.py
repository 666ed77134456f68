from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from fitting.stereo import PASSES, Views, depth_maps
from tests.fitting.stereo.scenes import Ball, Plane, Scene, cameras, coverage, errors_mm, picture

PIXEL_MM = 1000 / 420
"""What a pixel shows at a metre; a pixel of a neighbour at 15° is four times as much in depth."""

BALL = Ball((0.0, 0.0, 0.0), 0.12)


@pytest.fixture(scope="module")
def ball() -> Scene:
    return picture([BALL], cameras(), noise=0.5)


def angles(found: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Degrees between normals where both are known."""
    known = found.any(axis=-1) & true.any(axis=-1)
    return np.degrees(np.arccos((found * true)[known].sum(axis=-1).clip(-1, 1)))


@pytest.mark.parametrize("slope", [0.0, 0.4, -0.8])
def test_a_slanted_plane_is_found_to_a_small_part_of_a_pixel(slope: float) -> None:
    scene = picture([Plane((slope, 0.2, 1.0), 0.0, 0.13)], cameras())
    found = depth_maps(scene.views)
    assert coverage(found, scene.truth) > 0.9
    assert np.median(errors_mm(found, scene.truth)) < 0.1 * PIXEL_MM
    assert np.median(angles(found.normals, scene.truth.normals)) < 2


def test_a_ball_is_found_with_its_normals(ball: Scene) -> None:
    found = depth_maps(ball.views)
    assert coverage(found, ball.truth) > 0.85
    assert np.median(errors_mm(found, ball.truth)) < 0.15 * PIXEL_MM
    # The outer cameras see a side that nobody else does.
    middle = (found.depth[2] > 0) & (ball.truth.depth[2] > 0)
    assert np.percentile(1000 * np.abs(found.depth - ball.truth.depth)[2][middle], 85) < PIXEL_MM
    assert np.median(angles(found.normals, ball.truth.normals)) < 4
    assert (found.confidence[found.depth > 0] >= 0.5).all()
    assert (found.confidence <= 1).all()


def test_pixels_without_a_depth_have_no_normal_and_no_confidence(ball: Scene) -> None:
    found = depth_maps(ball.views)
    nothing = found.depth == 0
    assert nothing.any()
    assert not found.normals[nothing].any()
    assert not found.confidence[nothing].any()
    np.testing.assert_allclose(np.linalg.norm(found.normals[~nothing], axis=-1), 1, atol=1e-5)
    assert found.depth.dtype == found.normals.dtype == found.confidence.dtype == np.float32


def test_the_same_views_give_the_same_bytes(ball: Scene) -> None:
    first, second = depth_maps(ball.views), depth_maps(ball.views)
    assert all(one.tobytes() == other.tobytes() for one, other in zip(first, second, strict=True))


def test_behind_a_ball_that_hides_it_a_wall_keeps_its_depth() -> None:
    scene = picture([Ball((0.0, 0.0, 0.08), 0.05), Plane((0.0, 0.0, 1.0), -0.06, 0.16)], cameras(), noise=0.5)
    found = depth_maps(scene.views)
    middle = 2
    wall = (scene.truth.depth[middle] > 1.02) & (found.depth[middle] > 0)
    errors = 1000 * np.abs(found.depth - scene.truth.depth)[middle][wall]
    assert wall.sum() > 0.75 * (scene.truth.depth[middle] > 1.02).sum()
    assert np.median(errors) < 0.2 * PIXEL_MM
    assert (errors > 20).mean() < 0.1


@pytest.mark.parametrize("noise", [0.0, 1.0, 4.0])
def test_what_has_no_texture_has_no_depth(noise: float) -> None:
    scene = picture([BALL], cameras(), contrast=0.0, noise=noise)
    assert (depth_maps(scene.views).depth > 0).mean() < 0.01


def test_masks_say_where_depth_is_looked_for(ball: Scene) -> None:
    masks = ball.views.masks.copy()
    masks[:, :64] = False
    found = depth_maps(ball.views._replace(masks=masks))
    assert not found.depth[~masks].any()
    assert (found.depth[:, 70:] > 0).any()


def test_without_masks_the_whole_picture_is_searched(ball: Scene) -> None:
    found = depth_maps(ball.views._replace(masks=None))
    assert coverage(found, ball.truth) > 0.8
    assert (found.depth > 0)[ball.truth.depth == 0].mean() < 0.05


def test_an_empty_mask_leaves_its_view_empty(ball: Scene) -> None:
    masks = ball.views.masks.copy()
    masks[1] = False
    found = depth_maps(ball.views._replace(masks=masks))
    assert not found.depth[1].any()
    assert (found.depth[2] > 0).any()


def test_a_black_camera_does_no_harm(ball: Scene) -> None:
    pictures = ball.views.pictures.copy()
    pictures[1] = 0
    found = depth_maps(ball.views._replace(pictures=pictures))
    assert not found.depth[1].any()
    assert np.median(errors_mm(found, ball.truth)) < 0.2 * PIXEL_MM
    seen = np.array([0, 2, 3, 4])
    assert (found.depth > 0)[seen][ball.truth.depth[seen] > 0].mean() > 0.7


def test_cameras_may_differ_in_brightness_and_contrast(ball: Scene) -> None:
    pictures = ball.views.pictures.astype(np.float32)
    pictures = pictures * np.linspace(0.6, 1.2, 5)[:, None, None, None] + np.array([30, 0, 10, -20, 5])[:, None, None, None]
    found = depth_maps(ball.views._replace(pictures=pictures.clip(0, 255).astype(np.uint8)))
    assert coverage(found, ball.truth) > 0.85
    assert np.median(errors_mm(found, ball.truth)) < 0.15 * PIXEL_MM


def test_one_camera_less_is_enough(ball: Scene) -> None:
    kept = [0, 1, 3, 4]
    fewer = Views(ball.views.pictures[kept], ball.views.cameras[kept], ball.views.masks[kept])
    found = depth_maps(fewer)
    errors = 1000 * np.abs(found.depth - ball.truth.depth[kept])[found.depth > 0]
    assert np.median(errors) < 0.2 * PIXEL_MM


def test_depths_at_the_ends_of_the_range_are_none(ball: Scene) -> None:
    assert not (depth_maps(ball.views, depth_range=(1.2, 1.6)).depth > 0).mean() > 0.01


def test_a_range_of_less_than_a_step_is_a_range(ball: Scene) -> None:
    found = depth_maps(ball.views, depth_range=(0.895, 0.896))
    kept = found.depth > 0
    assert ((found.depth[kept] > 0.895) & (found.depth[kept] < 0.896)).all()


def test_a_pass_may_be_made_twice(ball: Scene) -> None:
    found = depth_maps(ball.views, passes=(*PASSES, PASSES[-1]))
    assert np.median(errors_mm(found, ball.truth)) < 0.15 * PIXEL_MM


def test_what_does_not_fit_together_is_refused(ball: Scene) -> None:
    views = ball.views
    with pytest.raises(ValueError, match="pictures are"):
        depth_maps(views._replace(pictures=views.pictures.astype(np.float32)))
    with pytest.raises(ValueError, match=r"see Camera\.resize"):
        depth_maps(views._replace(cameras=views.cameras.resize(320, 256)))
    with pytest.raises(ValueError, match="undistort"):
        depth_maps(views._replace(cameras=dataclasses.replace(views.cameras, distortion=torch.zeros(5, 4))))
    with pytest.raises(ValueError, match="masks are"):
        depth_maps(views._replace(masks=views.masks[:2]))
    with pytest.raises(ValueError, match="at least two"):
        depth_maps(Views(views.pictures[:1], views.cameras[:1]))
    with pytest.raises(ValueError, match="near to far"):
        depth_maps(views, depth_range=(1.4, 0.8))
    with pytest.raises(ValueError, match="the first pass"):
        depth_maps(views, passes=PASSES[1:])
    with pytest.raises(ValueError, match="the last pass"):
        depth_maps(views, passes=PASSES[:2])
