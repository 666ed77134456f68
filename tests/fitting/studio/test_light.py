"""Light and noise: a lamp lights what faces it, no shadow is black, noise is as strong as it says."""

import numpy as np
import torch

from fitting.lighting import AMBIENT, shade
from fitting.studio.light import lamp, light, sensor_noise

TIMES = np.arange(0, 4, 0.04)


def lit(coefficients: torch.Tensor, normals: torch.Tensor) -> torch.Tensor:
    return shade(torch.ones(len(normals), 3).double(), normals, coefficients)


def sphere(count: int = 400) -> torch.Tensor:
    normals = torch.randn(count, 3, generator=torch.Generator().manual_seed(0)).double()
    return torch.nn.functional.normalize(normals, dim=-1)


def test_a_lamp_lights_by_the_cosine() -> None:
    towards = torch.tensor([0.36, 0.48, 0.8]).double()
    coefficients = lamp(towards, torch.tensor([1.0, 0.5, 0.0]).double()).unflatten(-1, (3, 9))
    coefficients[:, 0] -= AMBIENT
    normals = sphere()
    colours = lit(coefficients.flatten(), normals)
    cosine = (normals @ towards).clamp(min=0)
    assert (colours[:, 0] - cosine).abs().max() < 0.095  # three bands are off by 3 / 32 at most
    torch.testing.assert_close(colours[:, 1], 0.5 * colours[:, 0])
    assert colours[:, 2].abs().max() < 1e-9


def test_no_shadow_is_black_and_a_face_is_neither_dark_nor_overexposed() -> None:
    ahead = torch.tensor([[0.0, 0.0, 1.0]]).double()
    for seed in range(20):
        coefficients = light(TIMES, np.random.default_rng(seed))
        assert coefficients.shape == (len(TIMES), 27)
        shown = lit(coefficients[0], sphere())
        assert shown.min() > 0.1
        assert shown.max() < 1.6
        assert 0.6 < lit(coefficients[0], ahead).mean() < 1.3


def test_light_changes_over_a_take_as_much_as_was_asked() -> None:
    still, moving = (light(TIMES, np.random.default_rng(1), change) for change in (0.0, 1.0))
    assert torch.equal(still, still[:1].expand_as(still))
    assert (moving - moving[:1]).abs().max() > 0.03
    assert (moving.diff(dim=0)).abs().max() < 0.02


def test_noise_is_as_strong_as_it_says() -> None:
    grey = np.full((200, 200, 3), 120, np.uint8)
    deviation = np.std(sensor_noise(grey, np.random.default_rng(0)).astype(float))
    assert 1.2 < deviation < 1.8
    assert sensor_noise(grey, np.random.default_rng(0), 0.0) is grey
    assert np.std(sensor_noise(grey // 12, np.random.default_rng(0)).astype(float)) < deviation
