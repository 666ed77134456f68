"""Colours: sRGB and light, and mixing channels."""

import numpy as np

from prep.colour import affine, mix, to_linear, to_srgb


def test_light_and_srgb_undo_each_other() -> None:
    values = np.linspace(0, 1, 1001)
    np.testing.assert_allclose(to_srgb(to_linear(values)), values, atol=1e-7)
    np.testing.assert_allclose(to_linear(np.array([0, 0.5, 1])), [0, 0.21404, 1], atol=1e-5)


def test_nothing_mixed_is_nothing_changed() -> None:
    every = np.arange(256, dtype=np.uint8)[:, None].repeat(3, axis=1)
    np.testing.assert_array_equal(mix(every, np.eye(3)), every)


def test_channels_mix_in_light_not_in_srgb() -> None:
    red = np.array([[200, 0, 0]], np.uint8)
    halved = mix(red, np.diag([0.5, 1, 1]))
    assert halved[0, 0] == round(255 * float(to_srgb(0.5 * to_linear(np.array(200 / 255)))))
    assert list(mix(red, np.ones((3, 3)))[0]) == [200, 200, 200]


def test_the_inverse_undoes_a_camera_where_nothing_was_clipped() -> None:
    rng = np.random.default_rng(0)
    picture = (rng.integers(80, 180, (20, 20, 1)) + rng.integers(-20, 20, (20, 20, 3))).astype(np.uint8)
    camera = np.eye(3) + 0.05 * rng.standard_normal((3, 3))
    error = mix(mix(picture, camera), np.linalg.inv(camera)).astype(int) - picture
    assert np.abs(error).max() <= 2


def test_an_affine_map_acts_on_srgb_values_from_0_to_1() -> None:
    picture = np.array([[10, 100, 250]], np.uint8)
    halved_and_lifted = np.hstack([0.5 * np.eye(3), [[0.1], [0], [0.6]]])
    assert affine(picture, halved_and_lifted).tolist() == [[round(5 + 25.5), 50, 255]]
