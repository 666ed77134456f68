"""Sharpness of a clip, after CPBD."""

from __future__ import annotations

from typing import ClassVar

import cv2
import numpy as np
from pydantic import Field

from manifests.stage import Done, Needs, Outcome, Stage
from prep.encode import decode_mp4

_BLOCK = 64
_EDGE_SHARE = 0.002
_BETA = 3.6
_JUST_NOTICEABLE = 0.63


class Quality(Stage):
    """How sharp a clip looks: the mean over at most ``frames`` evenly spaced frames of the 256² crop."""

    name: ClassVar[str] = "quality"
    version: ClassVar[int] = 1
    needs: ClassVar[Needs] = Needs(memory_mb=200, pace=0.01, bytes_per_s=10)
    writes: ClassVar[tuple[str, ...]] = ("sharpness",)

    frames: int = Field(default=8, ge=1)

    def run(self, video256: bytes, n_frames: int) -> Outcome:
        count = min(self.frames, n_frames)
        numbers = (np.arange(count) * 2 + 1) * n_frames // (2 * count)
        pictures = decode_mp4(video256, numbers.tolist())
        return Done({"sharpness": float(np.mean([sharpness(cv2.cvtColor(p, cv2.COLOR_RGB2GRAY)) for p in pictures]))})


def sharpness(grey: np.ndarray) -> float:
    """Share of the vertical edges of ``grey`` (H, W) uint8 whose blur cannot be seen, in [0, 1]; 0 without edges.

    CPBD (Narvekar and Karam 2011, "A No-Reference Image Blur Metric Based on the Cumulative Probability of Blur
    Detection"): in blocks of 64² with edges, an edge of width w is seen as blurred with probability
    P = 1 - exp(-(w / w_jnb)^3.6), where w_jnb is 5 px for contrasts up to 50 and 3 px above; the value is the
    share of edges with P <= 0.63. Edges are found with a Sobel filter and thinned, not with the authors' Canny
    parameters, so compare values with each other, not with published ones.
    """
    height, width = (length // _BLOCK * _BLOCK for length in grey.shape)
    grey = grey[:height, :width]
    if not grey.size:
        return 0.0
    rows, columns = np.nonzero(_vertical_edges(grey))
    in_block = np.zeros((height // _BLOCK, width // _BLOCK), np.int64)
    np.add.at(in_block, (rows // _BLOCK, columns // _BLOCK), 1)
    counted = in_block[rows // _BLOCK, columns // _BLOCK] > _EDGE_SHARE * _BLOCK * _BLOCK
    if not counted.any():
        return 0.0
    blocks = grey.reshape(height // _BLOCK, _BLOCK, width // _BLOCK, _BLOCK).astype(np.int16)
    contrast = blocks.max(axis=(1, 3)) - blocks.min(axis=(1, 3))
    noticeable = np.where(contrast <= 50, 5.0, 3.0)[rows // _BLOCK, columns // _BLOCK]
    blur = 1 - np.exp(-((_edge_widths(grey)[rows, columns] / noticeable) ** _BETA))
    return float(np.mean(blur[counted] <= _JUST_NOTICEABLE))


def _vertical_edges(grey: np.ndarray) -> np.ndarray:
    """Pixels (H, W) where brightness changes most from left to right, strongly, and not more so beside them."""
    slope = np.abs(cv2.Sobel(grey, cv2.CV_32F, 1, 0, ksize=3))
    strong: np.ndarray = slope > 2 * np.sqrt(np.mean(slope**2))
    peak = np.zeros(slope.shape, bool)
    peak[:, 1:-1] = (slope[:, 1:-1] >= slope[:, :-2]) & (slope[:, 1:-1] > slope[:, 2:])
    return strong & peak


def _edge_widths(grey: np.ndarray) -> np.ndarray:
    """At every pixel (H, W), the length of the run along the row in which brightness keeps rising (or falling)."""
    sign = np.sign(np.diff(grey.astype(np.int16), axis=1))
    height, steps = sign.shape
    turns = np.ones((height, steps + 1), bool)
    turns[:, 1:-1] = sign[:, 1:] != sign[:, :-1]
    at = np.arange(steps + 1)
    left = np.maximum.accumulate(np.where(turns, at, 0), axis=1)
    right = np.flip(np.minimum.accumulate(np.flip(np.where(turns, at, steps), axis=1), axis=1), axis=1)
    # A turning point itself lies between two runs: it takes the longer one, to which a peak of the slope belongs.
    before = np.concatenate([np.zeros((height, 1), left.dtype), left[:, :-1]], axis=1)
    after = np.concatenate([right[:, 1:], np.full((height, 1), steps)], axis=1)
    return np.where(turns, np.maximum(at - before, after - at), right - left)
