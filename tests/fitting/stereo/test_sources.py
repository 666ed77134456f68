from __future__ import annotations

import numpy as np

from fitting.stereo.sources import choose_sources, shows_something
from fitting.studio.rig import sixteen
from tests.fitting.stereo.scenes import cameras

ALL = np.ones(16, bool)


def test_neighbours_of_the_rig_stand_at_moderate_angles() -> None:
    rig = sixteen(0).cameras
    sources = choose_sources(rig, 1.05, usable=ALL)
    assert sources.shape == (16, 4)
    centres = rig.centre.numpy() + np.array([0, 0.01, 0])
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    angle = np.degrees(np.arccos((centres[:, None] * centres[sources]).sum(axis=-1)))
    assert (angle > 5).all()
    assert (angle < 40).all()
    assert not (sources == np.arange(16)[:, None]).any()


def test_the_nearest_to_fifteen_degrees_come_first() -> None:
    row = cameras((-30.0, -14.0, 0.0, 3.0, 18.0))
    assert choose_sources(row, 1.0, count=3, usable=ALL[:5])[2].tolist() == [1, 4, 0]


def test_where_there_are_fewer_the_rest_is_minus_one() -> None:
    sources = choose_sources(cameras((0.0, 15.0)), 1.0, usable=ALL[:2])
    assert sources.tolist() == [[1, -1, -1, -1], [0, -1, -1, -1]]


def test_a_camera_that_failed_is_nobodys_neighbour() -> None:
    pictures = np.random.default_rng(0).integers(0, 255, (5, 64, 64, 3), np.uint8)
    pictures[1] = 7
    usable = shows_something(pictures)
    assert usable.tolist() == [True, False, True, True, True]
    assert 1 not in choose_sources(cameras(), 1.0, usable=usable)
