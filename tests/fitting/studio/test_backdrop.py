"""Backdrops: smooth, neither black nor white, different by seed."""

import numpy as np

from fitting.studio.backdrop import backdrop


def test_it_is_out_of_focus_and_fits() -> None:
    picture = backdrop(120, 90, np.random.default_rng(0))
    assert picture.shape == (90, 120, 3)
    assert 0.01 <= picture.min() < picture.max() <= 1
    assert np.abs(np.diff(picture, axis=0)).max() < 0.15
    assert np.abs(np.diff(picture, axis=1)).max() < 0.15
    assert np.std(picture) > 0.02


def test_the_seed_makes_it() -> None:
    one, again, other = (backdrop(64, 64, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)
