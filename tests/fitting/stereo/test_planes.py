from __future__ import annotations

import numpy as np

from fitting.stereo.planes import fill, fit_planes, plane_normals

INTRINSICS = np.array([[420.0, 0, 40.3], [0, 410, 31.8], [0, 0, 1]])


def plane(normal: np.ndarray, offset: float) -> np.ndarray:
    """Inverse depths (64, 80) of the points with normal · x = offset in the camera's axes."""
    x, y = np.meshgrid(np.arange(80) + 0.5, np.arange(64) + 0.5)
    rays = np.stack([x, y, np.ones_like(x)], axis=-1) @ np.linalg.inv(INTRINSICS).T
    return (rays @ normal / offset).astype(np.float32)


def test_the_planes_of_a_plane_are_that_plane_and_face_the_camera() -> None:
    normal = np.array([0.5, -0.3, -0.8]) / np.linalg.norm([0.5, -0.3, -0.8])
    inverse = plane(normal, -0.9)
    planes = fit_planes(inverse, np.ones_like(inverse), 1.0)
    # A little stiffness at the pixel's place tilts it by as little.
    np.testing.assert_allclose(planes.inverse[8:-8, 8:-8], inverse[8:-8, 8:-8], rtol=1e-4)
    found = plane_normals(planes, INTRINSICS)
    assert np.degrees(np.arccos((found[8:-8, 8:-8] @ normal).min())) < 2


def test_noise_is_averaged_and_outliers_do_not_count() -> None:
    rng = np.random.default_rng(0)
    clean = plane(np.array([0.1, 0.2, -1.0]), -1.0)
    inverse = clean + 1e-3 * rng.standard_normal(clean.shape).astype(np.float32)
    wrong = rng.random(clean.shape) < 0.1
    inverse[wrong] += 0.3
    found = fit_planes(inverse, np.ones_like(inverse), 0.02).inverse
    assert np.sqrt(np.mean((found - clean)[8:-8, 8:-8] ** 2)) < 5e-4


def test_an_edge_in_depth_stays_one() -> None:
    inverse = np.full((64, 80), 1.0, np.float32)
    inverse[:, 40:] = 1.2
    found = fit_planes(inverse, np.ones_like(inverse), 0.05).inverse
    np.testing.assert_allclose(found, inverse, rtol=1e-5)


def test_where_little_is_known_there_is_no_plane() -> None:
    inverse = np.ones((64, 80), np.float32)
    weight = np.zeros_like(inverse)
    weight[32, 40] = 1
    planes = fit_planes(inverse, weight, 0.1)
    assert not planes.inverse.any()
    assert not plane_normals(planes, INTRINSICS).any()


def test_the_corner_of_a_part_of_the_picture_is_taken_into_account() -> None:
    inverse = plane(np.array([0.4, 0.1, -0.9]), -1.0)
    whole = plane_normals(fit_planes(inverse, np.ones_like(inverse), 1.0), INTRINSICS)
    part = inverse[20:50, 30:70]
    found = plane_normals(fit_planes(part, np.ones_like(part), 1.0), INTRINSICS, (30, 20))
    np.testing.assert_allclose(found[8:-8, 8:-8], whole[28:42, 38:62], atol=1e-4)


def test_holes_are_filled_from_around() -> None:
    known = np.ones((64, 80), bool)
    known[20:40, 30:50] = False
    ramp = np.broadcast_to(np.linspace(1, 2, 80, dtype=np.float32), (64, 80))
    filled = fill(ramp, known)
    np.testing.assert_array_equal(filled[known], ramp[known])
    assert np.abs(filled - ramp).max() < 0.25
    assert not fill(ramp, np.zeros_like(known)).any()
