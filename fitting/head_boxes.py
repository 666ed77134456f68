"""Where a head is in each view of a capture: found where a detector sees a face, projected into the views where it does not.

Detectors fail on profiles. But the centres of the faces that are found in some views meet in space, and their sizes and depths
give the head's size in metres; a box of that size about that point is where the head is in every view.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import cv2
import numpy as np
import torch

from fitting.cameras import Camera
from fitting.landmarks3d import triangulate
from prep.detect import Detector, side_of

SMALLEST_SHARE = 0.1
"""Smallest face that is looked for, as a share of a picture's shorter side."""

SIDES_M = (0.08, 0.35)
"""Sides that a face may have; what is smaller or larger is none."""

ASTRAY = 0.3
"""A face whose centre is further than this, in its sides, from where the head's is seen is another thing."""


class Heads(NamedTuple):
    """A head over T moments."""

    centres: np.ndarray
    """(T, 3) metres in the world: where the middles of the faces meet; NaN where the head was not found."""
    side: float
    """Metres: the median over all faces that were found; NaN where there are none."""


def best_faces(pictures: np.ndarray, detect: Detector) -> tuple[np.ndarray, np.ndarray]:
    """The face with the highest score in each of ``pictures`` (C, H, W, 3): boxes (C, 4), NaN where none, and scores (C,).

    Scores are shares of what the detector calls sure, 1 at most.
    """
    boxes, scores = np.full((len(pictures), 4), np.nan), np.zeros(len(pictures))
    sides = SMALLEST_SHARE * min(pictures.shape[1:3]), float(max(pictures.shape[1:3]))
    for view, picture in enumerate(pictures):
        found = detect(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), *sides, sideways=True)
        if len(found.boxes):
            best = int(found.scores.argmax())
            boxes[view], scores[view] = found.boxes[best], min(1.0, float(found.scores[best]) / detect.sure)
    return boxes, scores


def locate(boxes: np.ndarray, scores: np.ndarray, cameras: Camera) -> Heads:
    """The head at T moments from ``boxes`` (T, C, 4), NaN where no face was found, with ``scores`` (T, C) of ``cameras`` (C,)."""
    boxes, scores = np.asarray(boxes, np.float64), np.asarray(scores, np.float64)
    middles = torch.from_numpy((boxes[..., :2] + boxes[..., 2:]) / 2).transpose(0, 1)[:, :, None]
    sides = side_of(boxes)
    n_cameras = boxes.shape[1]
    if np.isfinite(sides).sum(axis=1).max(initial=0) < 2:
        return Heads(np.full((len(boxes), 3), np.nan), float("nan"))
    found = triangulate(
        middles,
        torch.from_numpy(np.where(np.isfinite(sides), scores, 0.0).T[:, :, None]),
        cameras,
        threshold_px=ASTRAY * float(np.nanmedian(sides)),
        min_views=min(3, n_cameras),
    )
    centres = np.where(found.valid.numpy(), found.points[:, 0].numpy(), np.nan)
    metres = sides / _pixels_per_metre(centres, cameras)[1]
    astray = np.linalg.norm(_pixels_per_metre(centres, cameras)[0] - middles[:, :, 0].transpose(0, 1).numpy(), axis=-1)
    agrees = (astray < ASTRAY * sides) & (metres > SIDES_M[0]) & (metres < SIDES_M[1])
    centres = np.where(agrees.any(axis=1, keepdims=True), centres, np.nan)
    return Heads(centres, float(np.median(metres[agrees])) if agrees.any() else float("nan"))


def over_time(heads: Heads, looked: Iterable[int], frames: np.ndarray) -> Heads:
    """The head at ``frames`` (T,) from ``heads`` at the ``looked`` frames, ascending: straight between those where it was found.

    It is not anywhere where the nearest look that found it is further away than the usual distance of looks.
    """
    at = np.asarray(list(looked))
    known = np.isfinite(heads.centres).all(axis=1)
    if not known.any():
        return Heads(np.full((len(frames), 3), np.nan), heads.side)
    centres = np.stack([np.interp(frames, at[known], axis) for axis in heads.centres[known].T], axis=1)
    reach = np.diff(at).max(initial=0) if len(at) > 1 else np.inf
    near = np.abs(frames[:, None] - at[known]).min(axis=1) <= reach
    return Heads(np.where(near[:, None], centres, np.nan), heads.side)


def project(heads: Heads, cameras: Camera) -> np.ndarray:
    """Boxes (T, C, 4), x0 y0 x1 y1 in pixels: squares of a face's size about the head's in every view; NaN where it is not."""
    middles, scale = _pixels_per_metre(heads.centres, cameras)
    half = (heads.side * scale / 2)[..., None]
    return np.concatenate([middles - half, middles + half], axis=-1)


def _pixels_per_metre(centres: np.ndarray, cameras: Camera) -> tuple[np.ndarray, np.ndarray]:
    """Where ``cameras`` (C,) see ``centres`` (T, 3): pixels (T, C, 2) and pixels a metre (T, C); NaN behind a camera."""
    pixels, depth = cameras.project(torch.from_numpy(centres).expand(*cameras.batch, -1, -1))
    focal = cameras.intrinsics[:, :2, :2].det().abs().sqrt()
    scale = torch.where(depth > 0, focal[:, None] / depth, torch.nan)
    return pixels.transpose(0, 1).numpy(), scale.T.numpy()
