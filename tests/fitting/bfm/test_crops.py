"""The pixels of crops: as published, and smoother than that."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fitting.bfm import crops
from fitting.bfm.alignment import Alignment, align, alignment_from_trans_params, five_points
from fitting.bfm.crops import cut
from tests.fitting.bfm.files import FIVE_3D
from tests.fitting.bfm.recorded import RECORDED

FIVE = torch.from_numpy(FIVE_3D)


def noise(height: int, width: int, frames: int = 1, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3), np.uint8))


def placed(scale: float, offset: tuple[float, float], width: int, height: int, frames: int = 1) -> Alignment:
    """A crop anywhere in frames of a size."""
    return Alignment(
        torch.full((frames, 2), scale, dtype=torch.float64),
        torch.tensor([offset] * frames, dtype=torch.float64),
        torch.tensor([[width, height, 0.0, 0.0, 0.0]] * frames, dtype=torch.float64),
        "exact",
    )


def dot(height: int, width: int, centre: tuple[float, float], sigma: float) -> torch.Tensor:
    """A bright Gaussian dot (1, H, W, 3) around ``centre`` on a dark ground."""
    x, y = (np.arange(n) + 0.5 for n in (width, height))
    across, down = (np.exp(-0.5 * ((p - c) / sigma) ** 2) for p, c in zip((x, y), centre, strict=True))
    picture = 20 + 220 * np.outer(down, across)
    return torch.from_numpy(np.rint(picture)).to(torch.uint8)[None, :, :, None].expand(-1, -1, -1, 3)


def centre_of_dot(crop: torch.Tensor) -> np.ndarray:
    """Centre of mass, in pixels, of what is brighter than the ground of a crop (3, 224, 224)."""
    weight = (crop.double().mean(dim=0).numpy() * 255 - 22).clip(0)
    position = np.arange(224) + 0.5
    return np.array([weight.sum(axis=0) @ position, weight.sum(axis=1) @ position]) / weight.sum()


# --- the published code's pixels ---


@pytest.mark.parametrize("points", ["68", "5"])
def test_the_crop_is_the_published_codes(points: str):
    image = torch.from_numpy(RECORDED["align_in_image_small"].repeat(20, 0).repeat(20, 1))
    landmarks = torch.from_numpy(RECORDED["align_in_landmarks68_image"]) + 0.5
    landmarks = five_points(landmarks) if points == "5" else landmarks
    alignment = align(landmarks[None], 260, 300, torch.from_numpy(RECORDED["align_in_lm3d_5"]), "deep3d")
    crop = (cut(image[None], alignment)[0] * 255).permute(1, 2, 0)
    # The recorded crops from 68 and from 5 points are the same.
    assert np.array_equal(crop.numpy().round(3), RECORDED["align_crop_from68"])


@pytest.mark.parametrize("scale", [0.31, 0.5, 0.77, 1.0, 1.9])
@pytest.mark.parametrize("t", [(180.3, 150.2), (30.0, 290.0)])
def test_pillow_gives_the_same_pixels(scale: float, t: tuple[float, float]):
    """Larger and smaller, inside the frame and across its edge: resize with Pillow, cut, black outside."""
    pillow = pytest.importorskip("PIL.Image")
    frames = noise(320, 360)
    alignment = alignment_from_trans_params(torch.tensor([[360.0, 320.0, scale, *t]]), "deep3d")
    size = tuple((alignment.scale[0] * torch.tensor([360.0, 320.0])).round().int().tolist())
    left, top = (int(value) for value in -alignment.offset[0])
    resized = pillow.fromarray(frames[0].numpy()).resize(size, pillow.BICUBIC)
    expected = np.asarray(resized.crop((left, top, left + 224, top + 224)), int)
    ours = (cut(frames, alignment)[0] * 255).permute(1, 2, 0).numpy()
    difference = np.abs(ours - expected)
    assert difference.max() < 1.01
    assert (difference > 0.5).mean() < 1e-4


# --- exact crops ---


def slow_pixel(image: np.ndarray, scale: float, offset: tuple[float, float], column: int, row: int) -> np.ndarray:
    """One pixel of a crop, all pixels of the frame and the black around it weighted one by one."""
    shrink = min(scale, 1.0)

    def weights(index: int, shift: float, length: int) -> np.ndarray:
        centre = (index + 0.5 - shift) / scale
        total, inside = 0.0, np.zeros(length)
        for pixel in range(int(centre - 3 / shrink) - 3, int(centre + 3 / shrink) + 4):
            x = abs(pixel + 0.5 - centre) * shrink
            weight = 1.5 * x**3 - 2.5 * x**2 + 1 if x < 1 else -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0
            total += weight
            if 0 <= pixel < length:
                inside[pixel] = weight
        return inside / total

    height, width = image.shape[:2]
    value = np.einsum("y,x,yxc->c", weights(row, offset[1], height), weights(column, offset[0], width), image.astype(float))
    return value.clip(0, 255) / 255


@pytest.mark.parametrize(("scale", "offset"), [(0.3, (60.2, 50.9)), (0.8, (5.3, -20.1)), (2.4, (-100.7, -33.3))])
def test_agrees_with_the_weighted_sum_written_slowly(scale: float, offset: tuple[float, float]):
    frames = noise(120, 150)
    crop = cut(frames, placed(scale, offset, frames.shape[2], frames.shape[1]))[0].numpy()
    rng = np.random.default_rng(1)
    for column, row in rng.integers(0, 224, (200, 2)):
        assert np.abs(crop[:, row, column] - slow_pixel(frames[0].numpy(), scale, offset, column, row)).max() < 1e-5


def test_the_frame_at_its_own_size_is_cut_without_change():
    frames = noise(300, 300)
    crop = cut(frames, placed(1.0, (-30.0, -40.0), 300, 300))[0]
    assert torch.allclose(crop * 255, frames[0, 40:264, 30:254].permute(2, 0, 1).float(), atol=1e-3)


@pytest.mark.parametrize("scale", [0.2, 0.35, 0.6, 1.0, 1.7])
def test_a_dot_is_found_where_the_alignment_says_to_a_hundredth_of_a_pixel(scale: float):
    size = int(224 / scale) + 40
    rng = np.random.default_rng(3)
    for _ in range(3):
        centre = tuple(size / 2 + rng.uniform(-20, 20, 2))
        alignment = placed(scale, tuple(112 - scale * size / 2 + rng.uniform(-1, 1, 2)), size, size)
        found = centre_of_dot(cut(dot(size, size, centre, 6 / scale), alignment)[0])
        expected = alignment.to_crop(torch.tensor([[centre]], dtype=torch.float64))[0, 0].numpy()
        assert np.abs(found - expected).max() < 0.01


def test_what_is_finer_than_the_crop_can_show_becomes_grey():
    """Stripes of 4 pixels at a quarter of the size: a crop that only looked at single places would alias them."""
    stripes = 255 * (np.arange(1200) % 4 < 2)
    frames = torch.from_numpy(np.broadcast_to(stripes[None, :, None], (1200, 1200, 3)).astype(np.uint8))[None]
    crop = cut(frames, placed(0.23, (-20.3, -10.7), frames.shape[2], frames.shape[1]))[0]
    assert (crop[:, 8:-8, 8:-8] - 0.5).abs().max() < 0.01


def test_a_flat_picture_stays_flat_and_outside_is_black():
    frames = torch.full((1, 200, 200, 3), 130, dtype=torch.uint8)
    crop = cut(frames, placed(0.61, (60.4, 50.2), 200, 200))[0] * 255
    assert torch.allclose(crop[:, 54:168, 64:178], torch.tensor(130.0), atol=1e-3)
    assert crop[:, :46].abs().max() == 0
    assert crop[:, :, 188:].abs().max() == 0


def test_a_crop_beside_the_frame_is_black():
    for mode in ("exact", "deep3d"):
        far = alignment_from_trans_params(torch.tensor([[200.0, 200.0, 1.0, 900.0, -700.0]]), mode)
        assert cut(noise(200, 200), far).abs().max() == 0


def test_one_wild_alignment_among_good_ones_costs_no_memory():
    """A crop far away on each side, which a wrong landmark gives, must not widen what is computed for the whole block."""
    trans_params = torch.tensor([[200.0, 200, 1, 100, 100], [200, 200, 1, 1e9, -1e9], [200, 200, 1, -1e9, 1e9]])
    crop = cut(noise(200, 200, frames=3), alignment_from_trans_params(trans_params))
    assert torch.allclose(
        crop[0], cut(noise(200, 200, frames=3)[:1], alignment_from_trans_params(trans_params[:1]))[0], atol=1e-5
    )
    assert crop[1:].abs().max() == 0


# --- a head that moves slowly ---


def drift(mode, frames: int = 24, step: float = 0.05) -> np.ndarray:
    """Where in the crop (frames, 2) a dot fixed to the *picture* is seen while the landmarks drift by ``step`` a frame."""
    picture = dot(300, 320, (166.3, 148.8), 5.0)
    landmarks = 100 * torch.stack([FIVE[:, 0], -FIVE[:, 1]], dim=-1) + torch.tensor([160.2, 150.4])
    moving = landmarks + step * torch.arange(frames, dtype=torch.float64)[:, None, None]
    pictures = picture.expand(frames, -1, -1, -1)
    return np.stack([centre_of_dot(crop) for crop in cut(pictures, align(moving, 320, 300, FIVE, mode))])


def test_exact_crops_drift_smoothly_with_landmarks_that_do():
    steps = np.diff(drift("exact"), axis=0)
    assert np.abs(steps + 0.05 * 1.02).max() < 0.01


def test_published_crops_stand_still_and_jump():
    steps = np.abs(np.diff(drift("deep3d"), axis=0))
    assert (steps < 0.01).mean() > 0.9
    assert steps.max() > 0.9


def test_a_head_that_moves_slowly_stands_still_in_exact_crops_only():
    """Picture and landmarks drift together by a twentieth of a pixel: in the crop nothing should move at all."""
    centres = {}
    landmarks = 100 * torch.stack([FIVE[:, 0], -FIVE[:, 1]], dim=-1) + torch.tensor([160.2, 150.4])
    for mode in ("exact", "deep3d"):
        seen = []
        for move in np.arange(24) * 0.05:
            picture = dot(300, 320, (166.3 + move, 148.8 + move), 5.0)
            seen.append(centre_of_dot(cut(picture, align(landmarks[None] + move, 320, 300, FIVE, mode))[0]))
        centres[mode] = np.ptp(np.stack(seen), axis=0)
    assert centres["exact"].max() < 0.02
    assert centres["deep3d"].max() > 0.8


# --- batches ---


def test_frames_do_not_touch_each_other(monkeypatch: pytest.MonkeyPatch):
    frames = noise(240, 320, frames=5)
    trans_params = torch.tensor([[320.0, 240.0, 0.5 + 0.2 * k, 60.0 * k, 200 - 40.0 * k] for k in range(5)])
    for mode in ("exact", "deep3d"):
        together = cut(frames, alignment_from_trans_params(trans_params, mode))
        for k in range(5):
            alone = cut(frames[k : k + 1], alignment_from_trans_params(trans_params[k : k + 1], mode))
            assert torch.allclose(alone[0], together[k], atol=1.01 / 255 if mode == "deep3d" else 1e-5)
        monkeypatch.setattr(crops, "BLOCK", 2)
        assert torch.allclose(cut(frames, alignment_from_trans_params(trans_params, mode)), together, atol=1e-5)
        monkeypatch.undo()
    none = alignment_from_trans_params(trans_params[:0])
    assert cut(frames[:0], none).shape == (0, 3, 224, 224)


def test_crops_are_what_the_network_takes():
    crop = cut(noise(240, 320), placed(0.9, (0.0, 0.0), 320, 240))
    assert crop.shape == (1, 3, 224, 224)
    assert crop.dtype == torch.float32
    assert crop.min() >= 0
    assert crop.max() <= 1


@pytest.mark.parametrize(
    ("frames", "n", "words"),
    [
        (torch.zeros(2, 8, 8, 3), 2, "of type uint8, got .* of torch.float32"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), 2, r"\(T, H, W, 3\)"),
        (torch.zeros(2, 8, 8, 3, dtype=torch.uint8), 3, r"2 frames need an alignment each, got \(3,\)"),
        (torch.zeros(2, 8, 6, 3, dtype=torch.uint8), 2, r"frames are 6 × 8, but were aligned as \[\[8, 8\]\]"),
    ],
)
def test_other_frames_are_refused(frames: torch.Tensor, n: int, words: str):
    with pytest.raises(ValueError, match=words):
        cut(frames, placed(1.0, (0.0, 0.0), 8, 8, n))
