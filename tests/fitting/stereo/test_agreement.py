from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from fitting.stereo import Tolerance, consistent
from fitting.stereo.agreement import Surfaces
from tests.fitting.stereo.scenes import Ball, Plane, Scene, cameras, picture


@pytest.fixture(scope="module")
def scene() -> Scene:
    return picture([Ball((0.0, 0.0, 0.05), 0.06), Plane((0.0, 0.0, 1.0), -0.05, 0.16)], cameras())


def test_true_maps_agree_where_both_views_see_the_place(scene: Scene) -> None:
    surfaces = Surfaces(scene.views, scene.truth)
    pixel = np.flatnonzero(surfaces.depth[2] > 0)
    said = surfaces.ask(2, pixel, 3)
    assert 0.7 < said.agrees.mean() < 0.99
    np.testing.assert_allclose(said.depth[said.agrees], surfaces.depth[2, pixel][said.agrees], rtol=0.003)
    assert np.median(np.abs(said.depth - surfaces.depth[2, pixel])[said.agrees]) < 1e-5


def test_what_is_hidden_from_a_view_is_not_confirmed_by_it(scene: Scene) -> None:
    surfaces = Surfaces(scene.views, scene.truth)
    pixel = np.flatnonzero(surfaces.depth[2] > 0)
    points = surfaces.rays(2, pixel) * surfaces.depth[2, pixel][:, None]
    world = scene.views.cameras[2].pose.inverse().apply(torch.from_numpy(points).double()).numpy()
    # Behind the ball as the rightmost camera sees it.
    centre = scene.views.cameras.centre[4].numpy()
    way = world - centre
    along = way / np.linalg.norm(way, axis=1, keepdims=True)
    ball = np.array([0.0, 0.0, 0.05]) - centre
    nearest = np.linalg.norm(ball - (along @ ball)[:, None] * along, axis=1)
    hidden = (nearest < 0.055) & (world[:, 2] < -0.04)
    assert hidden.sum() > 100
    assert not surfaces.ask(2, pixel, 4).agrees[hidden].any()


def test_a_depth_that_one_view_alone_has_is_taken_out(scene: Scene) -> None:
    wrong = scene.truth.depth.copy()
    wrong[2, 60:70, 70:80] -= 0.02
    kept = consistent(scene.views, scene.truth._replace(depth=wrong))
    assert not kept.depth[2, 61:69, 71:79].any()
    assert not kept.normals[2, 61:69, 71:79].any()
    assert (kept.depth[2] > 0).sum() > 0.9 * (scene.truth.depth[2] > 0).sum()


def test_the_more_views_must_agree_the_less_is_left(scene: Scene) -> None:
    left = [(consistent(scene.views, scene.truth, least=least).depth > 0).sum() for least in (1, 2, 3, 5, 6)]
    assert left[0] == (scene.truth.depth > 0).sum()
    assert all(more > fewer for more, fewer in itertools.pairwise(left))
    assert left[-1] == 0


def test_tolerances_bound_depths_and_normals(scene: Scene) -> None:
    turned = scene.truth.normals.copy()
    turned[2] = np.where(scene.truth.depth[2][..., None] > 0, np.array([0.9, 0.0, -0.435], np.float32), 0)
    maps = scene.truth._replace(normals=turned)
    strict = consistent(scene.views, maps, tolerance=Tolerance(angle=20))
    loose = consistent(scene.views, maps, tolerance=Tolerance(angle=100))
    assert (strict.depth[2] > 0).sum() < 0.2 * (loose.depth[2] > 0).sum()


def test_maps_of_other_views_are_refused(scene: Scene) -> None:
    with pytest.raises(ValueError, match="depth maps of views"):
        consistent(scene.views, scene.truth._replace(depth=scene.truth.depth[:2]))
