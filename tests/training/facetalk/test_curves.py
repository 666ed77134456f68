"""The picture of validation."""

from __future__ import annotations

import numpy as np

from training.facetalk.curves import MADE, TRUE, curves


def test_the_truth_is_dark_what_was_made_is_orange_and_up_is_more() -> None:
    rising = np.linspace(0, 1, 20)[None]
    picture = curves(rising, np.zeros((1, 2, 20)), size=(200, 60))
    assert picture.shape == (60, 200, 3)
    dark, orange = ((picture == colour).all(axis=-1) for colour in (TRUE, MADE))
    heights = [60 - np.flatnonzero(dark[:, x]).mean() for x in (20, 100, 180)]
    assert heights == sorted(heights)
    assert np.flatnonzero(orange.any(axis=1)).min() > 50


def test_every_sample_has_a_row_and_all_have_one_scale() -> None:
    true = np.stack([np.linspace(0, 1, 20), np.linspace(0, 0.1, 20)])
    picture = curves(true, true[:, None], size=(200, 60))
    assert picture.shape == (120, 200, 3)
    tall, flat = ((picture[rows] == TRUE).all(axis=-1).any(axis=1).sum() for rows in (slice(0, 60), slice(60, 120)))
    assert tall > 5 * flat
