"""Jitter is what FaceTalk's table 4 and figure 9 measure."""

import numpy as np
import pytest
import torch

from fitting.nphm_fit import jitter_of


def test_figures_of_a_track_are_those_of_its_steps() -> None:
    codes = torch.tensor([[0.0, 1.0], [0.1, 0.8], [0.3, 0.8], [0.2, 0.9]])
    steps = np.diff(codes.numpy(), axis=0)
    found = jitter_of(codes)
    assert found.mae == pytest.approx(np.abs(steps).mean())
    assert found.rmse == pytest.approx(np.sqrt((steps**2).mean()))
    wanted = np.mean([np.corrcoef(codes[:-1, k], codes[1:, k])[0, 1] for k in range(2)])
    assert found.autocorrelation == pytest.approx(wanted, abs=1e-6)


def test_noise_has_more_jitter_than_a_smooth_track() -> None:
    smooth = torch.sin(torch.arange(100)[:, None] / 10 + torch.arange(5))
    noisy = smooth + 0.3 * torch.randn(100, 5, generator=torch.Generator().manual_seed(0))
    assert jitter_of(noisy).mae > 2 * jitter_of(smooth).mae
    assert jitter_of(noisy).autocorrelation < jitter_of(smooth).autocorrelation


def test_a_code_that_stands_still_has_no_jitter() -> None:
    assert jitter_of(torch.ones(10, 4)) == (0.0, 0.0, 1.0)
    assert jitter_of(torch.zeros(2, 4)) == (0.0, 0.0, 1.0)
