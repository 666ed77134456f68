"""The square crops of a clip: decoded once, cut and scaled in Y, U and V, encoded once each."""

from __future__ import annotations

from fractions import Fraction
from typing import ClassVar, Literal, cast

import cv2
import numpy as np
from pydantic import Field

from manifests.stage import Done, Needs, Outcome, Rejected, Stage, Take
from prep.detect import side_of
from prep.encode import Encoder, Preset
from prep.video import Planes, Rect, cut_planes, video_of


class Crop(Stage):
    """Make both crops of a clip.

    ``video256`` follows first-order-model's rule, which SadTalker's data has: the union of the face boxes over
    the clip, grown on every side by ``grow`` of its longer side, made square. Its authors drop clips whose
    square leaves the frame (``outside="reject"``); by default the square is moved inside, and shrunk to the
    frame when it is larger.

    ``video512`` is centred on the face (PIR §4): a fixed square around the median centre of the face boxes,
    ``face_sides`` median face sides wide, always moved inside.

    Both squares lie on even pixels, so that chroma is cut where luma is. ``crf`` and ``preset`` are libx264's.
    Raises ``Unreadable`` when the file has lost frames since it was cut.
    """

    name: ClassVar[str] = "crop"
    version: ClassVar[int] = 1
    needs: ClassVar[Needs] = Needs(memory_mb=900, pace=0.6, bytes_per_s=120_000)
    writes: ClassVar[tuple[str, ...]] = ("video256", "crop256_box", "video512", "crop512_box")

    grow: float = Field(default=0.1, ge=0)
    outside: Literal["shift", "reject"] = "shift"
    face_sides: float = Field(default=2.0, gt=0)
    crf: float = Field(default=18.0, ge=0, le=51)
    preset: Preset = "medium"

    def run(self, take: Take, face_box: np.ndarray, frame_pts_us: np.ndarray, fps_num: int, fps_den: int) -> Outcome:
        video = video_of(take)
        width, height = video.width, video.height
        wanted = first_order_square(face_box, self.grow)
        outside = outside_share(wanted, width, height)
        if self.outside == "reject" and outside > 0:
            return Rejected("the crop leaves the frame", score=outside, threshold=0.0)
        rects = [
            place_square(wanted, width, height),
            place_square(centred_square(face_box, self.face_sides), width, height),
        ]
        fps = Fraction(fps_num, fps_den)
        films = [(size, Encoder(size, size, fps, video.colour, self.crf, self.preset)) for size in (256, 512)]
        both = cast(Rect, tuple(pick(r[k] for r in rects) for k, pick in enumerate((min, min, max, max))))
        for region in video.regions(frame_pts_us.tolist(), both):
            for rect, (size, film) in zip(rects, films, strict=True):
                film.add(scaled(cut_planes(region, rect, both[:2]), size))
        return Done(
            {
                "video256": films[0][1].finish(),
                "crop256_box": np.array(rects[0], np.float32),
                "video512": films[1][1].finish(),
                "crop512_box": np.array(rects[1], np.float32),
            }
        )


Square = tuple[float, float, float]
"""Centre x, centre y and side, in pixels."""


def first_order_square(boxes: np.ndarray, grow: float) -> Square:
    """The union of ``boxes`` (T, 4), each side moved out by ``grow`` of the longer one, made square about its centre.

    As in first-order-model's video-preprocessing: a square of side max(w, h) * (1 + 2 grow).
    """
    x0, y0 = boxes[:, :2].min(axis=0)
    x1, y1 = boxes[:, 2:].max(axis=0)
    return float((x0 + x1) / 2), float((y0 + y1) / 2), float(max(x1 - x0, y1 - y0)) * (1 + 2 * grow)


def centred_square(boxes: np.ndarray, face_sides: float) -> Square:
    """A square on the median centre of ``boxes`` (T, 4), ``face_sides`` median face sides wide."""
    x, y = np.median((boxes[:, :2] + boxes[:, 2:]) / 2, axis=0)
    return float(x), float(y), float(np.median(side_of(boxes))) * face_sides


def outside_share(square: Square, width: int, height: int) -> float:
    """The share of the square's area that lies outside the frame."""
    x, y, side = square
    inside_x = min(width, x + side / 2) - max(0.0, x - side / 2)
    inside_y = min(height, y + side / 2) - max(0.0, y - side / 2)
    return 1.0 - max(0.0, inside_x) * max(0.0, inside_y) / (side * side)


def place_square(square: Square, width: int, height: int) -> Rect:
    """The square on whole even pixels, moved into the frame, shrunk to the frame's shorter side when larger."""
    x, y, wanted = square
    side = max(2, min(round(wanted / 2) * 2, min(width, height) // 2 * 2))
    left = int(np.clip(round((x - side / 2) / 2) * 2, 0, (width - side) // 2 * 2))
    top = int(np.clip(round((y - side / 2) / 2) * 2, 0, (height - side) // 2 * 2))
    return left, top, left + side, top + side


def scaled(planes: Planes, size: int) -> Planes:
    """Square planes at ``size``: averaged over areas when that is smaller, bicubic when larger."""
    how = cv2.INTER_AREA if planes[0].shape[0] > size else cv2.INTER_CUBIC
    y, u, v = (
        cv2.resize(np.ascontiguousarray(plane), (side, side), interpolation=how)
        for plane, side in zip(planes, (size, size // 2, size // 2), strict=True)
    )
    return y, u, v
