"""68 landmarks (iBUG's) of faces in pictures, by a network that draws a heatmap for each.

The network is FAN (Bulat and Tzimiropoulos, *How far are we from solving the 2D & 3D face alignment problem?*, ICCV 2017) as the
package face-alignment has it; only its class is used, so nothing is downloaded. What lies around the network is here: crops as it
was trained on, the mean with the mirrored crop, and the places of the heatmaps' peaks in the picture.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np

from manifests.assets import find

if TYPE_CHECKING:
    from torch import Tensor

CROP_PX, HEATMAP_PX = 256, 64
"""Sides of the square that the network sees and of the heatmaps that it draws."""

CROP_SIDES, CROP_RISE = 200 / 195, 0.12
"""The crop's side as a share of the box's width and height together, and how far its centre lies above the box's, as a share of
the height: what FAN was trained with, for boxes from forehead to chin."""

MIRRORED = np.array(
    [
        *range(16, -1, -1),  # jaw
        *range(26, 16, -1),  # brows
        *(27, 28, 29, 30, 35, 34, 33, 32, 31),  # nose
        *(45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40),  # eyes
        *(54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55),  # outer lips
        *(64, 63, 62, 61, 60, 67, 66, 65),  # inner lips
    ]
)
"""(68,) which landmark of a mirrored face lies where each one does."""

Network = Callable[["Tensor"], "Tensor"]
"""Heatmaps (N, 68, 64, 64), about 1 at the best place, of pictures (N, 3, 256, 256) RGB in [0, 1]."""


class Landmarks2d(NamedTuple):
    """Landmarks of N faces, each in a picture of its own."""

    pixels: np.ndarray
    """(N, 68, 2) float32, x and y; the centre of the top-left pixel is at (0.5, 0.5). NaN where there was no box."""
    confidence: np.ndarray
    """(N, 68) float32 in [0, 1]: the heatmap's peak. 0 where there was no box."""


class Landmarker:
    """Landmarks of the faces in ``pictures`` (N, H, W, 3) uint8 RGB within ``boxes`` (N, 4): x0 y0 x1 y1, forehead to chin, in
    pixels; a box that is not finite stands for no face. ``batch`` crops go through the ``network`` at once."""

    def __init__(self, network: Network, batch: int = 8):
        self._network = network
        self._batch = batch

    def __call__(self, pictures: np.ndarray, boxes: np.ndarray) -> Landmarks2d:
        import torch

        squares = crop_squares(boxes)
        known = np.flatnonzero(squares[:, 2] > 0)
        pixels = np.full((len(boxes), len(MIRRORED), 2), np.nan, np.float32)
        confidence = np.zeros((len(boxes), len(MIRRORED)), np.float32)
        mirrored = torch.from_numpy(MIRRORED)
        for some in np.array_split(known, -(-len(known) // self._batch) or 1):
            if not len(some):
                continue
            crops = torch.from_numpy(np.stack([_crop(pictures[index], squares[index]) for index in some]))
            crops = crops.permute(0, 3, 1, 2).float() / 255
            with torch.inference_mode():
                direct, turned = self._network(crops), self._network(crops.flip(-1))
            heatmaps = (direct + turned[:, mirrored].flip(-1)) / 2
            places, peaks = decode(heatmaps.float().numpy())
            left_top, side = squares[some, None, :2], squares[some, None, 2:]
            pixels[some] = left_top + places * side / HEATMAP_PX
            confidence[some] = peaks
        return Landmarks2d(pixels, confidence)


def crop_squares(boxes: np.ndarray) -> np.ndarray:
    """(N, 3) left, top and side, in whole pixels, of what the network sees of ``boxes`` (N, 4); 0 for one that is not finite."""
    known = np.isfinite(boxes).all(axis=1, keepdims=True)
    boxes = np.where(known, boxes, 0.0)
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    side = np.maximum(np.rint(CROP_SIDES * (width + height)), 1)
    x, y = (boxes[:, 0] + boxes[:, 2]) / 2, (boxes[:, 1] + boxes[:, 3]) / 2 - CROP_RISE * height
    squares = np.stack([np.rint(x - side / 2), np.rint(y - side / 2), side], axis=1)
    return np.where(known, squares, 0).astype(np.int64)


def decode(heatmaps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places (N, L, 2), x and y in pixels of the ``heatmaps`` (N, L, H, W), and heights (N, L) in [0, 1] of their peaks.

    The peak's pixel, moved a quarter towards the higher of its two neighbours in x and in y, as FAN does.
    """
    n, landmarks, height, width = heatmaps.shape
    flat = heatmaps.reshape(n, landmarks, -1)
    best = flat.argmax(axis=-1)
    peaks = np.take_along_axis(flat, best[..., None], axis=-1)[..., 0]
    y, x = np.divmod(best, width)
    inside = (x > 0) & (x < width - 1) & (y > 0) & (y < height - 1)
    here = np.where(inside, best, width + 1)
    slope = [
        np.take_along_axis(flat, (here + step)[..., None], axis=-1) - np.take_along_axis(flat, (here - step)[..., None], axis=-1)
        for step in (1, width)
    ]
    quarter = np.where(inside[..., None], 0.25 * np.sign(np.concatenate(slope, axis=-1)), 0.0)
    return np.stack([x, y], axis=-1) + 0.5 + quarter, np.clip(peaks, 0.0, 1.0)


@lru_cache(maxsize=1)
def load_fan(device: str = "cpu") -> Landmarker:
    """FAN with the weights of the model file ``fan``, once in a process. Raises as ``read_fan``, and ``MissingAsset``."""
    return Landmarker(read_fan(find("fan"), device))


def read_fan(path: Path, device: str = "cpu") -> Network:
    """The network 2D-FAN-4 with the weights in ``path``, read with ``weights_only``. Needs the package face-alignment.

    Raises ``manifests.model_file.WrongModelFile`` for a file that holds something else.
    """
    from face_alignment.models import FAN

    from prep.weights import load_state, load_weights

    network = FAN(4)
    load_state(network, load_weights(path), path)
    network.eval().to(device)
    return lambda crops: network(crops.to(device))[-1].cpu()


def packed(found: Landmarks2d) -> bytes:
    """``found`` as the bytes of an ``.npz``, from which ``unpacked`` makes it again."""
    held = BytesIO()
    np.savez(held, **found._asdict())
    return held.getvalue()


def unpacked(data: bytes) -> Landmarks2d:
    """What was ``packed``."""
    with np.load(BytesIO(data), allow_pickle=False) as held:
        return Landmarks2d(held["pixels"], held["confidence"])


def _crop(picture: np.ndarray, square: np.ndarray) -> np.ndarray:
    """(256, 256, 3) the ``square`` (left, top, side) of ``picture`` (H, W, 3); black outside."""
    left, top, side = (int(number) for number in square)
    height, width = picture.shape[:2]
    held = np.zeros((side, side, 3), np.uint8)
    x0, x1, y0, y1 = max(left, 0), min(left + side, width), max(top, 0), min(top + side, height)
    if x1 > x0 and y1 > y0:
        held[y0 - top : y1 - top, x0 - left : x1 - left] = picture[y0:y1, x0:x1]
    return np.asarray(cv2.resize(held, (CROP_PX, CROP_PX), interpolation=cv2.INTER_AREA if side > CROP_PX else cv2.INTER_LINEAR))
