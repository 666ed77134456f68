"""Where the face is in the pictures of one moment: FaceTalk's facial segmentation mask (supplement D).

From masks that came with the capture, from landmarks in space, or from a network that parses faces.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from fitting.cameras import Camera

if TYPE_CHECKING:
    from prep.face_parsing import BiSeNet

MaskKind = Literal["auto", "capture", "landmarks", "parsing", "none"]


class Masks(NamedTuple):
    """What of C pictures is wanted."""

    inside: NDArray[np.bool_] | None
    """(C, H, W); None is everywhere."""
    outline: bool = False
    """Whether a wanted point is inside in every picture that has it, seen or hidden. Not so of what a network sees."""


Masker = Callable[[NDArray[np.uint8], Camera, NDArray[np.uint8] | None], Masks | None]
"""From pictures (C, H, W, 3), cameras (C,) and masks (C, H, W) that came with them, to masks; None for a frame without."""


FOREHEAD = 0.45
"""How far the hull reaches above the brows, as a share of the way from the chin to the brows: hairlines are at about half."""

CHEEKS = 0.4
"""How far cheeks lie before the jaw line, as a share of the way from between the ears to the nose."""

MARGIN = 0.08
"""By what share the hull is widened about its middle: skin bulges out between points."""

LEAST_VALID = 34
"""Landmarks of the 68 without which a frame has no mask."""

_CHIN, _BROWS, _NOSE = slice(6, 11), slice(17, 27), 30
_EARS, _TEMPLES, _JAW = [0, 16], [0, 1, 15, 16], [1, 2, 3, 4, 5, 11, 12, 13, 14, 15]


def masker(kind: MaskKind, landmarks: NDArray[np.floating], valid: NDArray[np.bool_], network: BiSeNet | None = None) -> Masker:
    """What makes the masks of a frame whose ``landmarks`` are (68, 3), NaN where unknown, of which some are ``valid`` (68,).

    ``capture`` takes those that came with the pictures, above 127 of 255; ``landmarks`` the hull of the face; ``parsing`` asks
    the ``network`` of ``prep.face_parsing``, around the landmarks where they are usable. ``auto`` is the first of capture and
    landmarks that there is, else everywhere, as ``none``.
    """

    def make(pictures: NDArray[np.uint8], cameras: Camera, shipped: NDArray[np.uint8] | None) -> Masks | None:
        placed = usable(landmarks, valid)
        if kind == "parsing":
            if network is None:
                raise ValueError("masks by parsing want the network of prep.face_parsing.load_face_parsing")
            return Masks(parsed_masks(network, pictures, head_crops(landmarks, cameras) if placed else None))
        if kind in ("auto", "capture") and shipped is not None:
            return Masks(shipped > 127, outline=True)
        if kind in ("auto", "landmarks") and placed:
            return Masks(hull_masks(landmarks, cameras), outline=True)
        return Masks(None) if kind in ("auto", "none") else None

    return make


def usable(landmarks: NDArray[np.floating], valid: NDArray[np.bool_]) -> bool:
    """Whether ``landmarks`` (68, 3), of which some are ``valid`` (68,), say where the face is.

    Half of them must be valid, and there must be a place for at least one of the chin's and one of the brows'.
    """
    known = np.isfinite(landmarks).all(axis=1)
    return bool(valid.sum() >= LEAST_VALID and known[_CHIN].any() and known[_BROWS].any())


def face_hull(landmarks: NDArray[np.floating]) -> NDArray[np.float64]:
    """Points (N, 3) in metres whose convex hull holds the face, from ``landmarks`` (68, 3) in iBUG's order, NaN where unknown.

    The landmarks, and what they lack: forehead, temples and cheeks, as far from them as the face is high and deep.
    """
    held = np.asarray(landmarks, np.float64)
    up = np.nanmean(held[_BROWS], axis=0) - np.nanmean(held[_CHIN], axis=0)
    forward = held[_NOSE] - held[_EARS].mean(axis=0)
    forehead, temples = held[_BROWS] + FOREHEAD * up, held[_TEMPLES] + 0.5 * FOREHEAD * up
    points = np.concatenate([held, forehead, temples, held[_JAW] + CHEEKS * forward])
    points = points[np.isfinite(points).all(axis=1)]
    middle = points.mean(axis=0)
    return np.asarray(middle + (1 + MARGIN) * (points - middle))


def hull_masks(landmarks: NDArray[np.floating], cameras: Camera) -> NDArray[np.bool_]:
    """The hull of the face (``face_hull``) as ``cameras`` (C,) see it: (C, H, W). Empty where some of it is behind a camera."""
    pixels, depth = (part.numpy() for part in cameras.project(torch.from_numpy(face_hull(landmarks))))
    masks = np.zeros((len(pixels), cameras.height, cameras.width), np.uint8)
    for mask, seen, far in zip(masks, pixels, depth, strict=True):
        if (far > 0).all():
            # OpenCV counts pixels' centres from 0.
            outline = cv2.convexHull((seen - 0.5).astype(np.float32)).round().astype(np.int32)
            cv2.fillConvexPoly(mask, outline, 1)
    return masks > 0


def head_crops(landmarks: NDArray[np.floating], cameras: Camera) -> NDArray[np.int64]:
    """Squares (C, 4) x0 y0 x1 y1 in pixels that show the whole head as face parsing wants it.

    Twice as large as the box of the landmarks, which reach from the brows to the chin, and a little higher.
    """
    known = np.asarray(landmarks, np.float64)[np.isfinite(landmarks).all(axis=1)]
    pixels = cameras.project(torch.from_numpy(known)).pixels.numpy()
    low, high = pixels.min(axis=1), pixels.max(axis=1)
    half = (high - low).max(axis=1, keepdims=True)
    middle = (low + high) / 2 - [0, 0.15] * (high - low)
    return np.concatenate([np.floor(middle - half), np.ceil(middle + half)], axis=1).astype(np.int64)


def parsed_masks(network: BiSeNet, pictures: NDArray[np.uint8], crops: NDArray[np.int64] | None) -> NDArray[np.bool_]:
    """Where ``pictures`` (C, H, W, 3) show what belongs to the face (``prep.face_parsing.FACE``): (C, H, W)."""
    from prep.face_parsing import CLASSES, FACE, parse_faces

    return np.isin(parse_faces(network, pictures, crops), [CLASSES.index(name) for name in FACE])
