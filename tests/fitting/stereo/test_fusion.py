from __future__ import annotations

import numpy as np
import pytest

from fitting.stereo import depth_maps, fuse
from tests.fitting.stereo.scenes import Ball, Scene, cameras, picture

RADIUS = 0.12


@pytest.fixture(scope="module")
def ball() -> Scene:
    return picture([Ball((0.0, 0.0, 0.0), RADIUS)], cameras())


def test_true_maps_give_the_surface(ball: Scene) -> None:
    cloud = fuse(ball.views, ball.truth)
    distance = np.linalg.norm(cloud.points, axis=1)
    assert np.abs(distance - RADIUS).max() < 1e-3
    assert np.median(np.abs(distance - RADIUS)) < 2e-5
    outwards = (cloud.normals * cloud.points).sum(axis=1) / distance
    assert np.degrees(np.arccos(np.median(outwards))) < 2
    assert cloud.points.dtype == cloud.normals.dtype == cloud.confidence.dtype == np.float32
    assert cloud.colours.dtype == np.uint8


def test_a_place_that_several_views_see_becomes_a_point_about_once(ball: Scene) -> None:
    pixels = (ball.truth.depth > 0).sum(axis=(1, 2))
    alone = fuse(ball.views, ball.truth, least_views=1)
    # Five views see together somewhat more than half a ball more than one of them does, at about one pixel's density.
    assert pixels.max() < len(alone.points) < 0.75 * pixels.sum()


def test_the_confidence_counts_the_views_that_agree(ball: Scene) -> None:
    for least in (1, 3, 5):
        cloud = fuse(ball.views, ball.truth, least_views=least)
        assert cloud.confidence.min() == least
        assert cloud.confidence.max() == 5
        assert (cloud.confidence == np.rint(cloud.confidence)).all()
    assert len(fuse(ball.views, ball.truth, least_views=6).points) == 0


def test_a_mean_of_views_is_better_than_one(ball: Scene) -> None:
    rng = np.random.default_rng(0)
    # Each view's map is too far or too near as a whole.
    wrong = 1 + 5e-4 * np.array([1, -1, 1, -1, 1], np.float32) + 2e-5 * rng.standard_normal(5).astype(np.float32)
    maps = ball.truth._replace(depth=ball.truth.depth * wrong[:, None, None])
    cloud = fuse(ball.views, maps, least_views=1)
    error = np.abs(np.linalg.norm(cloud.points, axis=1) - RADIUS)
    assert error[cloud.confidence >= 4].mean() < 0.75 * error[cloud.confidence == 1].mean()


def test_colours_are_those_of_the_pictures(ball: Scene) -> None:
    flat = np.zeros_like(ball.views.pictures)
    flat[...] = (200, 90, 30)
    cloud = fuse(ball.views._replace(pictures=flat), ball.truth)
    assert (cloud.colours == (200, 90, 30)).all()


def test_from_pictures_to_a_cloud_twice_the_same(ball: Scene) -> None:
    first, second = (fuse(ball.views, depth_maps(ball.views)) for _ in range(2))
    assert all(one.tobytes() == other.tobytes() for one, other in zip(first, second, strict=True))
    distance = np.abs(np.linalg.norm(first.points, axis=1) - RADIUS)
    assert np.mean(distance < 1e-3) > 0.9
