"""The base of the head is one closed surface over a sphere of directions, with a head's proportions."""

from __future__ import annotations

import numpy as np
import pytest

from fitting.studio import surface


def directions(count: int = 400, seed: int = 0) -> np.ndarray:
    points = np.random.default_rng(seed).normal(size=(count, 3))
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def test_every_direction_has_a_place_on_the_surface():
    assert np.abs(surface.inside(surface.point(directions()))).max() < 1e-8


def test_a_ray_crosses_the_surface_once():
    origins, rays = surface._rays(directions(150))
    reach = np.linalg.norm(surface.point(directions(150)) - origins, axis=1)
    for share in (0.2, 0.6, 0.95, 0.999):
        assert (surface.inside(origins + (share * reach)[:, None] * rays) < 0).all()
    for share in (1.001, 1.05, 1.2):
        assert (surface.inside(origins + (share * reach)[:, None] * rays) > 0).all()


def test_directions_are_found_again_above_the_neck():
    upper = directions()[directions()[:, 1] > -0.5]
    assert np.allclose(surface.direction(surface.point(upper)), upper, atol=1e-9)


def test_places_on_the_neck_are_refused():
    with pytest.raises(ValueError, match="above the neck"):
        surface.direction(np.array([[0.0, -0.19, 0.0]]))


def test_left_and_right_are_mirror_images():
    mirror = np.array([-1.0, 1, 1])
    assert np.allclose(surface.point(directions() * mirror), surface.point(directions()) * mirror, atol=1e-9)


def test_the_depth_of_the_face_is_on_the_surface_and_normals_point_out_of_it():
    xy = np.random.default_rng(1).uniform([-0.04, -0.07], [0.04, 0.08], (200, 2))
    points = np.concatenate([xy, surface.depth(xy)[:, None]], axis=1)
    assert np.abs(surface.inside(points)).max() < 1e-8
    assert (surface.inside(points + 1e-4 * surface.normals(points)) > 0).all()
    assert (surface.normals(points)[:, 2] > 0).all()


def test_the_head_is_as_large_as_a_head():
    places = surface.point(directions(4000))
    skull = places[places[:, 1] > 0.02]
    assert np.ptp(skull[:, 0]) == pytest.approx(0.153, abs=0.006)
    assert np.ptp(skull[:, 2]) == pytest.approx(0.195, abs=0.010)
    chin = -0.092
    assert skull[:, 1].max() - chin == pytest.approx(0.225, abs=0.008)
    assert 2 * surface.EYE[0] == pytest.approx(0.063)
