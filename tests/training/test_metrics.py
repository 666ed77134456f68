"""Figures of generated sequences, against cases whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fitting.nphm_fit import jitter_of
from training.metrics import correlation, diversity, jitter, mouth_correlation


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_diversity_is_equation_20_with_the_norm_of_a_frame_averaged_over_frames() -> None:
    codes = draw(3, 4, 5, 7)
    wanted = 0.0
    for sound in codes.double().numpy():
        for one in range(4):
            for other in range(4):
                wanted += np.linalg.norm(sound[one] - sound[other], axis=-1).mean()
    assert diversity(codes) == pytest.approx(wanted / (3 * 4), rel=1e-9)


def test_equal_samples_have_no_diversity_at_all() -> None:
    assert diversity(draw(2, 1, 6, 200).expand(2, 5, 6, 200)) == 0


def test_diversity_does_not_depend_on_how_long_sequences_are() -> None:
    codes = draw(2, 3, 10, 4)
    assert diversity(codes.repeat(1, 1, 4, 1)) == pytest.approx(diversity(codes))
    different = [codes[0], codes[1].repeat(1, 3, 1)]
    assert diversity(different) == pytest.approx(diversity(codes))


def test_diversity_of_a_single_sample_is_refused() -> None:
    with pytest.raises(ValueError, match="K of 2 or more"):
        diversity(draw(3, 1, 5, 7))
    with pytest.raises(ValueError, match="no sequence"):
        diversity([])


def test_jitter_is_the_mean_of_what_each_sequence_has() -> None:
    sequences = [draw(20, 5), draw(9, 5, seed=1).cumsum(dim=0)]
    one, other = (jitter_of(codes) for codes in sequences)
    assert jitter(sequences) == pytest.approx(tuple((a + b) / 2 for a, b in zip(one, other, strict=True)))
    with pytest.raises(ValueError, match="no sequence"):
        jitter([])


def test_correlation_is_pearsons_of_each_track_and_does_not_see_scale_and_offset() -> None:
    true = draw(4, 30)
    found = true + draw(4, 30, seed=1)
    wanted = np.mean([np.corrcoef(one, other)[0, 1] for one, other in zip(found.numpy(), true.numpy(), strict=True)])
    assert correlation(found, true) == pytest.approx(wanted, abs=1e-6)
    assert correlation(3 * found + 100, true) == pytest.approx(wanted, abs=1e-5)
    assert correlation(true, -true) == pytest.approx(-1)


def test_a_track_that_stands_still_counts_as_no_correlation() -> None:
    true = draw(2, 30)
    still = torch.stack([true[0], torch.full((30,), 0.1)])
    assert correlation(still, true) == pytest.approx(0.5)
    assert correlation(torch.zeros(2, 30), true) == 0


def test_tracks_of_different_numbers_or_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="3 tracks have no partner each among 2"):
        correlation(draw(3, 10), draw(2, 10))
    with pytest.raises(ValueError, match=r"got \(10,\) and \(9,\)"):
        correlation([draw(10)], [draw(9)])


def test_a_mouth_that_follows_its_own_sound_has_no_correlation_with_that_of_another() -> None:
    true = [draw(400 + 10 * k, seed=k) for k in range(6)]
    found = [track + 0.3 * draw(len(track), seed=10 + k) for k, track in enumerate(true)]
    assert mouth_correlation(found, true) > 0.9
    assert abs(mouth_correlation(found, true, shuffled=True)) < 0.1
    with pytest.raises(ValueError, match="two or more"):
        mouth_correlation(found[:1], true[:1], shuffled=True)


def test_a_mouth_that_opens_alike_to_every_sound_is_as_good_with_any() -> None:
    true = [draw(100)] * 3
    assert mouth_correlation(true, true, shuffled=True) == pytest.approx(1)
