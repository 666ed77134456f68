"""Sharpness falls with blur and lies between 0 and 1."""

from __future__ import annotations

from fractions import Fraction

import cv2
import numpy as np
import pytest
import skimage.data

from manifests.columns import COLUMNS
from manifests.stage import Done
from prep.encode import encode_mp4
from prep.quality import Quality, sharpness
from tests.prep.test_faces import planes_of


@pytest.fixture(scope="module")
def head() -> np.ndarray:
    return skimage.data.astronaut()[:256, 100:356]


def test_blur_lowers_sharpness(head: np.ndarray) -> None:
    grey = cv2.cvtColor(head, cv2.COLOR_RGB2GRAY)
    values = [sharpness(grey)] + [sharpness(cv2.GaussianBlur(grey, (0, 0), s)) for s in (1, 2, 4)]
    assert values == sorted(values, reverse=True)
    assert 1 >= values[0] > values[-1] + 0.05 >= 0.05


def test_a_step_is_sharp_and_a_ramp_is_not() -> None:
    def edge(width: int) -> np.ndarray:
        row = np.interp(np.arange(128), [48 - width / 2, 48 + width / 2], [40, 200])
        return np.tile(np.round(row), (64, 1)).astype(np.uint8)

    assert sharpness(edge(1)) == 1
    assert sharpness(edge(24)) == 0


def test_flat_and_tiny_pictures_have_none() -> None:
    assert sharpness(np.full((128, 128), 90, np.uint8)) == 0
    assert sharpness(np.zeros((8, 8), np.uint8)) == 0


def test_light_does_not_matter(head: np.ndarray) -> None:
    grey = cv2.cvtColor(head, cv2.COLOR_RGB2GRAY)
    assert sharpness((grey // 2 + 60).astype(np.uint8)) == pytest.approx(sharpness(grey), abs=0.1)


@pytest.mark.parametrize("n_frames", [5, 30])
def test_the_stage_reads_a_few_frames(head: np.ndarray, n_frames: int) -> None:
    data = encode_mp4([planes_of(head)] * n_frames, 256, 256, Fraction(25), crf=10)
    outcome = Quality().run(data, n_frames)
    assert isinstance(outcome, Done)
    value = COLUMNS["sharpness"].check(outcome.columns["sharpness"])
    assert value == pytest.approx(sharpness(cv2.cvtColor(head, cv2.COLOR_RGB2GRAY)), abs=0.1)
