"""Detectors mark faces from forehead to chin, ear to ear, in pixels of the picture they are given."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data

from manifests.assets import MissingAsset
from prep.detect import CascadeDetector, S3fdDetector, iou, load_detector, side_of

ASTRONAUT_FACE = np.array([182.0, 70.0, 267.0, 185.0])
"""The face of skimage's astronaut, forehead to chin and ear to ear, by eye."""


@pytest.fixture(scope="module")
def grey() -> np.ndarray:
    return cv2.cvtColor(skimage.data.astronaut(), cv2.COLOR_RGB2GRAY)


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
def test_the_cascade_finds_the_face_at_any_scale(grey: np.ndarray, scale: float) -> None:
    picture = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    detect = CascadeDetector()
    boxes, scores = detect(picture, 40 * scale, 400 * scale)
    assert boxes.dtype == scores.dtype == np.float32
    assert (boxes.shape, scores.shape) == ((1, 4), (1,))
    assert scores[0] >= detect.sure
    assert iou(boxes[0] / scale, ASTRONAUT_FACE) > 0.7


def test_faces_outside_the_limits_are_not_found(grey: np.ndarray) -> None:
    detect = CascadeDetector()
    assert len(detect(grey, 200, 400).boxes) == len(detect(grey, 30, 60).boxes) == 0


def test_rotated_views_and_tiny_pictures_are_no_trouble(grey: np.ndarray) -> None:
    detect = CascadeDetector()
    turned = np.rot90(np.ascontiguousarray(np.rot90(grey)), -1)
    assert np.array_equal(detect(turned, 50, 300).boxes, detect(grey, 50, 300).boxes)
    assert detect(grey[:4, :4], 20, 40, sideways=True).boxes.shape == (0, 4)


def test_nothing_is_found_in_noise() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (240, 320), np.uint8)
    assert len(CascadeDetector()(noise, 24, 240, sideways=True).boxes) == 0


def test_side_and_overlap() -> None:
    box = np.array([0.0, 0, 10, 40])
    assert side_of(box) == 20
    assert iou(box, box) == 1
    assert iou(box, box + 100) == 0
    assert iou(box, np.array([0.0, 20, 10, 60])) == pytest.approx(1 / 3)


def test_a_missing_weight_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADLOOM_MODELS", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    load_detector.cache_clear()
    with pytest.raises(MissingAsset, match=r"s3fd-619a316812\.pth"):
        load_detector("s3fd")


def test_s3fd_reads_a_local_weight_file(tmp_path: Path, grey: np.ndarray) -> None:
    torch = pytest.importorskip("torch")
    net = pytest.importorskip("face_alignment.detection.sfd.net_s3fd")
    torch.manual_seed(0)
    torch.save(net.s3fd().state_dict(), tmp_path / "s3fd-619a316812.pth")
    boxes, scores = S3fdDetector(tmp_path / "s3fd-619a316812.pth")(grey, 50, 300)
    assert boxes.shape == (len(scores), 4)
