"""Triangulated landmarks are where they were projected from, whatever some cameras say."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import least_squares

from fitting.cameras import Camera
from fitting.landmarks3d import Landmarks3d, bridge, triangulate
from fitting.studio.rig import sixteen

CAMERAS = sixteen().cameras
FRAMES = 5


def points(seed: int = 0, count: int = 68) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.uniform(-0.07, 0.07, (FRAMES, count, 3)))


def projected(there: torch.Tensor, cameras: Camera = CAMERAS, noise: float = 0.0, seed: int = 1) -> torch.Tensor:
    pixels = cameras[:, None].project(there)[0]
    return pixels + noise * torch.from_numpy(np.random.default_rng(seed).standard_normal(pixels.shape))


def sure(pixels: torch.Tensor) -> torch.Tensor:
    return torch.ones(pixels.shape[:-1])


def error_mm(found: Landmarks3d, there: torch.Tensor) -> torch.Tensor:
    return 1000 * (found.points - there).norm(dim=-1)


def test_exact_pixels_give_exact_points() -> None:
    found = triangulate(projected(points()), sure(projected(points())), CAMERAS)
    assert found.valid.all()
    assert (found.views == 16).all()
    assert error_mm(found, points()).max() < 1e-6
    assert found.residual.max() < 1e-5


def test_distorted_pixels_give_exact_points() -> None:
    lens = Camera(
        CAMERAS.intrinsics, CAMERAS.world_to_camera, CAMERAS.width, CAMERAS.height, torch.tensor([[0.1, -0.05, 1e-3, -2e-3]])
    )
    pixels = projected(points(), lens)
    assert (pixels - projected(points())).abs().max() > 1
    assert error_mm(triangulate(pixels, sure(pixels), lens), points()).max() < 1e-5
    assert error_mm(triangulate(pixels, sure(pixels), CAMERAS), points()).max() > 0.05


def test_noise_of_a_pixel_gives_a_tenth_of_a_millimetre_and_says_so() -> None:
    pixels = projected(points(), noise=1.0)
    found = triangulate(pixels, sure(pixels), CAMERAS)
    assert found.valid.all()
    assert error_mm(found, points()).mean() < 0.1
    assert found.residual.mean() == pytest.approx(np.sqrt(2), rel=0.1)


def test_it_finds_what_a_general_solver_finds() -> None:
    pixels = projected(points(), noise=1.0)
    found = triangulate(pixels, sure(pixels), CAMERAS, threshold_px=300.0)

    def residuals(x: np.ndarray) -> np.ndarray:
        seen = CAMERAS.project(torch.from_numpy(x)[None].expand(16, 1, 3))[0][:, 0]
        return (seen - pixels[:, 2, 7]).numpy().ravel()

    best = least_squares(residuals, points()[2, 7].numpy(), x_scale=1e-3, xtol=1e-14, ftol=1e-14, gtol=1e-14).x
    assert np.abs(found.points[2, 7].numpy() - best).max() < 1e-7


def test_cameras_that_are_wrong_are_not_believed() -> None:
    pixels = projected(points(), noise=1.0)
    rng = np.random.default_rng(3)
    wrong = torch.from_numpy(rng.random(pixels.shape[:-1]) < 0.3)
    spoiled = pixels + wrong[..., None] * torch.from_numpy(rng.normal(0, 80, pixels.shape))
    found = triangulate(spoiled, sure(spoiled), CAMERAS)
    assert found.valid.all()
    assert error_mm(found, points()).max() < 0.8
    everyone = triangulate(spoiled, sure(spoiled), CAMERAS, threshold_px=1e4)
    assert error_mm(everyone, points()).mean() > 10 * error_mm(found, points()).mean()


def test_a_camera_that_is_a_little_wrong_counts_less() -> None:
    pixels = projected(points())
    pixels[4] += torch.tensor([4.0, -4.0])
    errors = [error_mm(triangulate(pixels, sure(pixels), CAMERAS, threshold_px=by), points()).mean() for by in (6.0, 300.0)]
    assert errors[0] < 0.5 * errors[1]


def test_cameras_that_are_not_sure_count_less() -> None:
    pixels = projected(points())
    pixels[0] += 3.0
    doubtful = sure(pixels)
    doubtful[0] = 0.12
    errors = [error_mm(triangulate(pixels, given, CAMERAS), points()).mean() for given in (doubtful, sure(pixels))]
    assert errors[0] < 0.3 * errors[1]


def test_views_without_confidence_or_pixels_do_not_count() -> None:
    pixels, confidences = projected(points()), sure(projected(points()))
    pixels[2:9, 0] = torch.nan
    confidences[9:12, 0] = 0
    pixels[9:12, 0] = 5000.0
    found = triangulate(pixels, confidences, CAMERAS)
    assert (found.views[0] == 6).all()
    assert error_mm(found, points()).max() < 1e-6


def test_two_cameras_are_too_few_and_two_that_stand_together_as_well() -> None:
    confidences = torch.zeros(16, FRAMES, 68)
    confidences[[3, 12]] = 1
    pixels = projected(points())
    assert not triangulate(pixels, confidences, CAMERAS).valid.any()
    assert triangulate(pixels, confidences, CAMERAS, min_views=2).valid.all()
    assert not triangulate(pixels, confidences, CAMERAS, min_views=2, min_angle_deg=170).valid.any()


def test_missing_landmarks_are_bridged_and_others_left_alone() -> None:
    there = points()
    pixels, confidences = projected(there, noise=1.0), sure(projected(there))
    confidences[:, 2, 10] = 0
    confidences[:, 0, 11] = 0
    confidences[:, :, 12] = 0
    whole, found = triangulate(pixels, sure(pixels), CAMERAS), triangulate(pixels, confidences, CAMERAS)
    assert (~found.valid).nonzero().tolist() == [[0, 11], [0, 12], [1, 12], [2, 10], [2, 12], [3, 12], [4, 12]]
    assert torch.equal(found.points[found.valid], whole.points[found.valid])
    assert torch.allclose(found.points[2, 10], (found.points[1, 10] + found.points[3, 10]) / 2)
    assert torch.equal(found.points[0, 11], found.points[1, 11])
    assert found.points[:, 12].isnan().all()
    assert found.residual[~found.valid].isnan().all()


def test_bridging_keeps_to_the_straight_line() -> None:
    line = torch.arange(5.0, dtype=torch.float64)[:, None, None] * torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    valid = torch.tensor([[True], [False], [False], [True], [False]])
    filled = bridge(line, valid)
    assert torch.allclose(filled[:4], line[:4])
    assert torch.equal(filled[4], line[3])


def test_what_does_not_fit_is_refused() -> None:
    pixels = projected(points())
    with pytest.raises(ValueError, match=r"\(C, T, L, 2\)"):
        triangulate(pixels, sure(pixels)[:, :, :5], CAMERAS)
    with pytest.raises(ValueError, match="the same number"):
        triangulate(pixels, sure(pixels), CAMERAS[:5])
    with pytest.raises(ValueError, match="not negative"):
        triangulate(pixels, -sure(pixels), CAMERAS)
    with pytest.raises(ValueError, match="min_views"):
        triangulate(pixels, sure(pixels), CAMERAS, min_views=1)
