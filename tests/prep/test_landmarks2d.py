"""Landmarks in pictures: from boxes through crops and heatmaps back to the picture's pixels; FAN's weights are read safely."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from manifests.assets import MissingAsset
from manifests.model_file import WrongModelFile
from prep.landmarks2d import CROP_PX, HEATMAP_PX, MIRRORED, Landmarker, crop_squares, decode, load_fan, packed, read_fan, unpacked

H, W = 802, 550


def coded_pictures(count: int, height: int = H, width: int = W) -> np.ndarray:
    """Pictures whose colours say where each pixel is, and which picture it is: red is x, green is y, blue is the number."""
    y, x = np.indices((height, width)) + 0.5
    place = np.stack([255 * x / width, 255 * y / height], axis=-1)
    number = np.broadcast_to(10.0 * (np.arange(count)[:, None, None, None] + 1), (count, height, width, 1))
    return np.rint(np.concatenate([np.broadcast_to(place, (count, height, width, 2)), number], axis=-1)).astype(np.uint8)


def reader_of_codes(there: np.ndarray, height: int = H, width: int = W, peak: float = 0.8) -> Callable[[Tensor], Tensor]:
    """A stand-in network for ``coded_pictures``: heatmaps with their peaks where its crops show the pixels ``there`` (N, 68, 2).

    It knows nothing of boxes and crops: it reads from the colours which part of which picture it was given, and whether it was
    mirrored; of a mirrored face it finds the landmarks that a mirrored face has.
    """

    def network(crops: Tensor) -> Tensor:
        heatmaps = np.empty((len(crops), 68, HEATMAP_PX, HEATMAP_PX), np.float32)
        row, column = np.indices((CROP_PX, CROP_PX)) + 0.5
        for crop, heatmap in zip(crops.numpy(), heatmaps, strict=True):
            number = round(float(np.median(crop[2][crop[2] > 0])) * 255 / 10) - 1
            whole = np.abs(crop[2] * 255 - 10 * (number + 1)) < 0.5
            # The picture's x of the crop's column is a straight line, which is known better than one rounded colour.
            per_column, first_x = np.polyfit(column[whole], crop[0][whole] * width, 1)
            per_row, first_y = np.polyfit(row[whole], crop[1][whole] * height, 1)
            x = (there[number, :, 0] - first_x) / per_column / (CROP_PX / HEATMAP_PX)
            y = (there[number, :, 1] - first_y) / per_row / (CROP_PX / HEATMAP_PX)
            if per_column < 0:
                x, y = x[MIRRORED], y[MIRRORED]
            pixel = np.arange(HEATMAP_PX) + 0.5
            distance2 = (pixel - x[:, None])[:, None] ** 2 + ((pixel - y[:, None])[:, :, None]) ** 2
            heatmap[:] = peak * np.exp(-distance2 / 8)
        return torch.from_numpy(heatmaps)

    return network


def within(boxes: np.ndarray, seed: int = 0) -> np.ndarray:
    """(N, 68, 2) places within the boxes."""
    rng = np.random.default_rng(seed)
    return boxes[:, None, :2] + rng.random((len(boxes), 68, 2)) * (boxes[:, 2:] - boxes[:, :2])[:, None]


BOXES = np.array(
    [[200.3, 300.7, 360.2, 470.1], [10.0, 20.0, 150.0, 190.0], [400, 600, 549, 800], [100, 100, 500, 560], [200, 300, 340, 450]]
)


def test_what_the_network_sees_comes_back_in_the_pictures_pixels() -> None:
    there = within(BOXES)
    found = Landmarker(reader_of_codes(there), batch=2)(coded_pictures(len(BOXES)), BOXES)
    assert found.pixels.shape == (5, 68, 2)
    in_heatmap = crop_squares(BOXES)[:, 2] / HEATMAP_PX
    error = np.abs(found.pixels - there) / in_heatmap[:, None, None]
    # A quarter of a heatmap's pixel is what is left of FAN's rounding.
    assert error.max() < 0.27
    assert np.abs((found.pixels - there).mean(axis=1)).max() < 0.5
    np.testing.assert_allclose(found.confidence, 0.8, atol=0.06)


def test_small_faces_come_back_within_half_a_pixel() -> None:
    boxes = BOXES * 0.25
    there = within(boxes)
    found = Landmarker(reader_of_codes(there, 240, 165))(coded_pictures(len(boxes), 240, 165), boxes)
    small = crop_squares(boxes)[:, 2] < 100
    assert small.sum() == 4
    assert np.abs(found.pixels - there)[small].max() < 0.5


def test_a_box_that_is_not_finite_gives_no_landmarks() -> None:
    boxes = BOXES.copy()
    boxes[1] = np.nan
    found = Landmarker(reader_of_codes(within(BOXES)))(coded_pictures(len(BOXES)), boxes)
    assert np.isnan(found.pixels[1]).all()
    assert not found.confidence[1].any()
    assert np.isfinite(np.delete(found.pixels, 1, 0)).all()
    nobody = Landmarker(reader_of_codes(within(BOXES)))(coded_pictures(len(BOXES)), np.full((5, 4), np.nan))
    assert not nobody.confidence.any()


def test_the_crop_is_what_fan_was_trained_with() -> None:
    """As the package does: side 200 / 195 of width and height together, centre 0.12 of the height above the box's."""
    ((left, top, side),) = crop_squares(np.array([[100.0, 100, 195, 200]]))
    assert side == 200
    assert (left + side / 2, top + side / 2) == pytest.approx((147.5, 138), abs=0.5)


def test_peaks_lie_on_pixels_centres_and_lean_to_the_higher_neighbour() -> None:
    heatmaps = np.zeros((1, 3, 64, 64), np.float32)
    heatmaps[0, 0, 10, 20] = 0.9
    heatmaps[0, 1, 10, 20], heatmaps[0, 1, 10, 21], heatmaps[0, 1, 9, 20] = 1.4, 0.5, 0.2
    heatmaps[0, 2, 0, 63] = 0.3
    places, peaks = decode(heatmaps)
    np.testing.assert_allclose(places[0], [[20.5, 10.5], [20.75, 10.25], [63.5, 0.5]])
    np.testing.assert_allclose(peaks[0], [0.9, 1.0, 0.3])


def test_a_mirrored_face_has_its_landmarks_on_the_other_side() -> None:
    assert (MIRRORED[MIRRORED] == np.arange(68)).all()
    pairs = {0: 16, 8: 8, 17: 26, 27: 27, 31: 35, 36: 45, 39: 42, 41: 46, 48: 54, 55: 59, 60: 64, 67: 65}
    assert {landmark: int(MIRRORED[landmark]) for landmark in pairs} == pairs


def test_what_is_kept_comes_back() -> None:
    found = Landmarker(reader_of_codes(within(BOXES)))(coded_pictures(len(BOXES)), BOXES)
    again = unpacked(packed(found))
    np.testing.assert_array_equal(found.pixels, again.pixels)
    np.testing.assert_array_equal(found.confidence, again.confidence)


def test_fan_reads_its_model_file_and_refuses_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With random weights: that they load and that crops go through."""
    models = pytest.importorskip("face_alignment.models")
    torch.manual_seed(0)
    state = models.FAN(4).state_dict()
    torch.save(state, tmp_path / "2DFAN4-11f355bf06.pth.tar")
    monkeypatch.setenv("HEADLOOM_MODELS", str(tmp_path))
    load_fan.cache_clear()
    found = load_fan()(coded_pictures(1), BOXES[:1])
    load_fan.cache_clear()
    assert np.isfinite(found.pixels).all()
    assert found.confidence.shape == (1, 68)
    del state["l3.weight"]
    torch.save(state, tmp_path / "damaged.pth")
    with pytest.raises(WrongModelFile, match=r"l3\.weight"):
        read_fan(tmp_path / "damaged.pth")


def test_a_missing_weight_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADLOOM_MODELS", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    load_fan.cache_clear()
    with pytest.raises(MissingAsset, match=r"2DFAN4-11f355bf06\.pth\.tar"):
        load_fan()
