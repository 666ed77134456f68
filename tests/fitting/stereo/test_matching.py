from __future__ import annotations

import numpy as np
import pytest
import torch

from fitting.stereo.matching import Box, Warp, Windows
from tests.fitting.stereo.scenes import Plane, Scene, cameras, picture

BOX = Box(30, 20, 130, 100)


@pytest.fixture(scope="module")
def wall() -> Scene:
    return picture([Plane((0.5, 0.1, 1.0), 0.0)], cameras())


def part(held: np.ndarray) -> np.ndarray:
    return held[BOX.slices]


def greys(scene: Scene) -> np.ndarray:
    return scene.views.pictures.mean(axis=-1, dtype=np.float32)


def test_pixels_are_where_the_cameras_project_them(wall: Scene) -> None:
    one, other = wall.views.cameras[2], wall.views.cameras[3]
    x, y = Warp(one, other, BOX).pixels(1 / part(wall.truth.depth[2]))
    row, column = 11, 42
    pixel = torch.tensor([[BOX.left + column + 0.5, BOX.top + row + 0.5]], dtype=torch.float64)
    point = one.unproject(pixel, torch.tensor([float(part(wall.truth.depth[2])[row, column])], dtype=torch.float64))
    # OpenCV counts the centres from 0.
    np.testing.assert_allclose([x[row, column], y[row, column]], other.project(point).pixels[0].numpy() - 0.5, atol=2e-3)


def test_what_is_behind_the_other_camera_is_far_outside() -> None:
    facing = cameras((0.0, 180.0))
    x, y = Warp(facing[0], facing[1], BOX).pixels(np.full((80, 100), 1 / 2.5, np.float32))
    assert (x == -1e4).all()
    assert (y == -1e4).all()


def test_windows_warped_by_the_true_depth_are_alike_and_by_another_are_not(wall: Scene) -> None:
    grey = greys(wall)
    windows = Windows(part(grey[2]), None, 4, 0.5)
    warp = Warp(wall.views.cameras[2], wall.views.cameras[3], BOX)
    true = 1 / part(wall.truth.depth[2])
    assert np.percentile(windows.correlation(warp(grey[3], true)), 5) > 0.97
    assert np.median(windows.correlation(warp(grey[3], true + np.float32(0.1)))) < 0.5


def test_brightness_and_contrast_do_not_count(wall: Scene) -> None:
    grey = part(greys(wall)[2])
    windows = Windows(grey, None, 4, 0.5)
    np.testing.assert_allclose(windows.correlation(0.5 * grey + 40), 1, atol=0.01)
    np.testing.assert_allclose(windows.correlation(200 - grey), -1, atol=0.01)


def test_pixels_outside_the_mask_do_not_count(wall: Scene) -> None:
    grey = part(greys(wall)[2])
    mask = np.ones(grey.shape, bool)
    mask[:, 50:] = False
    windows = Windows(grey, mask, 4, 0.5)
    other = np.where(mask, grey, np.float32(17.0))
    np.testing.assert_allclose(windows.correlation(other)[:, :50], 1, atol=0.01)


def test_windows_that_show_less_than_the_noise_are_like_nothing() -> None:
    rng = np.random.default_rng(0)
    grey = (100 + 0.2 * rng.standard_normal((40, 40))).astype(np.float32)
    assert Windows(grey, None, 4, 1.0).correlation(grey).max() < 0.1
