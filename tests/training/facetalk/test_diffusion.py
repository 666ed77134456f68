"""Noise and its removal, against a distribution whose best prediction is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from training.draws import Draws
from training.facetalk.diffusion import Overlap, cosine_schedule, denoise, noised
from training.facetalk.settings import Sampler

SHARES = cosine_schedule(1000)
MEAN, SPREAD = torch.tensor([2.0, -1.0]), torch.tensor([0.3, 1.5])


def best_guess(noisy: Tensor, time: int) -> Tensor:
    """E[x_0 | x_t] of normal numbers with ``MEAN`` and ``SPREAD``."""
    share = float(SHARES[time])
    gain = SPREAD**2 * share**0.5 / (SPREAD**2 * share + 1 - share)
    return MEAN + gain * (noisy - share**0.5 * MEAN)


def drawn(sampler: Sampler, steps: int, seed: int = 0) -> Tensor:
    draws = Draws(seed, 4000)
    return denoise(best_guess, draws.normal(1, 2), SHARES, draws, sampler=sampler, steps=steps)[:, 0]


def test_the_schedule_is_nichol_and_dhariwals() -> None:
    assert SHARES.shape == (1000,)
    assert (np.diff(SHARES) < 0).all()
    assert SHARES[0] > 0.9999
    assert SHARES[-1] < 1e-6
    whole = np.cos((np.array([0.0, 0.5]) + 0.008) / 1.008 * np.pi / 2) ** 2
    assert SHARES[499] == pytest.approx(whole[1] / whole[0])


def test_noise_takes_the_place_of_the_signal_at_the_same_power() -> None:
    torch.manual_seed(0)
    clean, noise = torch.randn(3, 2000, 5), torch.randn(3, 2000, 5)
    mixed = noised(clean, noise, torch.tensor([1.0, 0.3, 0.0]))
    torch.testing.assert_close(mixed[0], clean[0])
    torch.testing.assert_close(mixed[2], noise[2])
    assert float(mixed[1].std()) == pytest.approx(1, abs=0.03)
    assert float((mixed[1] * clean[1]).mean()) == pytest.approx(0.3**0.5, abs=0.03)


@pytest.mark.parametrize(("sampler", "steps"), [("ddpm", 1000), ("ddim", 100), ("dpm", 20)])
def test_samplers_give_the_distribution_that_the_prediction_is_of(sampler: Sampler, steps: int) -> None:
    found = drawn(sampler, steps)
    torch.testing.assert_close(found.mean(dim=0), MEAN, atol=0.08, rtol=0)
    torch.testing.assert_close(found.std(dim=0), SPREAD, atol=0.02, rtol=0.05)


def test_the_second_order_needs_fewer_steps_than_the_first() -> None:
    error = {name: (drawn(name, 12).std(dim=0) - SPREAD).abs().max() for name in ("ddim", "dpm")}
    assert error["dpm"] < 0.6 * error["ddim"]


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpm"])
def test_the_same_draws_give_the_same_bytes(sampler: Sampler) -> None:
    assert torch.equal(drawn(sampler, 8), drawn(sampler, 8))
    assert not torch.equal(drawn(sampler, 8), drawn(sampler, 8, seed=1))


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpm"])
def test_one_step_gives_the_prediction(sampler: Sampler) -> None:
    torch.testing.assert_close(drawn(sampler, 1), best_guess(Draws(0, 4000).normal(1, 2), 999)[:, 0])


@pytest.mark.parametrize("count", [1, 5, 12, 13, 18, 19, 100])
def test_windows_put_together_again_are_the_sequence(count: int) -> None:
    overlap = Overlap.of(count, 12)
    assert overlap.frames.shape[1] == min(12, count)
    sequences = torch.randn(2, count, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(overlap.blend(overlap.cut(sequences)), sequences)
    torch.testing.assert_close(overlap.weights.sum(dim=1), torch.ones(count))


def test_windows_that_disagree_are_faded_into_each_other_without_a_seam() -> None:
    overlap = Overlap.of(120, 24)
    windows = len(overlap.frames)
    apart = (torch.arange(windows) % 2).float()[:, None, None].expand(-1, 24, 1)
    steps = overlap.blend(apart)[0, :, 0].diff().abs()
    assert float(steps.max()) < 0.11  # a jump would be 1; a fade over 12 frames takes steps of 1 / 12 or so
