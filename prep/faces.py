"""The one pass over all frames of a take: shots, and the face that is followed through each of them."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import cv2
import numpy as np
from pydantic import Field
from scipy.ndimage import median_filter

from manifests.stage import Done, Level, Needs, Outcome, Rejected, Stage, Take
from prep.detect import Detector, DetectorName, iou, load_detector, side_of
from prep.video import Picture, Rect, Video, even_rect, video_of

FULL_SEARCH_US = 1_000_000
"""The whole frame is searched this often even while a face is followed, for others beside it."""

LONGEST_GAP_US = 600_000
"""Between two hits further apart than this, the face counts as gone."""

SAME_FACE_IOU = 0.25
"""A box that overlaps the last one by less is another face."""

LEAST_RIVAL = 0.4
"""While a face is followed, others of less than this share of its side are not looked for: they pass unnoticed."""

KEPT_SIDES = 2.6
"""Side of the region kept for cropping, in face sides: wider than the crops, so that the head may move."""

SMALLEST_PX = 20.0
"""No detector finds smaller faces."""

_NO_BOX = np.full(4, np.nan, np.float32)


class Faces(Stage):
    """Find the shots of a take and follow one face through each.

    A face is looked for ``looks_per_second`` times a second, by time: near its last box, and in the whole frame
    at the start of a shot, once a second, and when it is lost. The largest face of a shot's start is followed by
    overlap; of that one the detector must be sure and see it from the front, while less will do to follow it.
    Boxes are medians over neighbouring hits, interpolated linearly between hits of one shot at most 0.6 s apart;
    they are held after the last hit only to the end of a shot. ``smallest_face`` is the smallest side looked
    for, as a share of the frame's shorter side.

    Rejected when no look finds a face. Raises ``Unreadable`` when no frame decodes.
    """

    name: ClassVar[str] = "faces"
    version: ClassVar[int] = 1
    level: ClassVar[Level] = "take"
    needs: ClassVar[Needs] = Needs(memory_mb=900, pace=0.1, bytes_per_s=700)
    writes: ClassVar[tuple[str, ...]] = (
        "take_pts_us",
        "take_face_box",
        "take_rival_face",
        "take_shot",
        "interlaced",
        "decoded_share",
        "damaged_share",
    )

    detector: DetectorName = "cascade"
    looks_per_second: float = Field(default=5.0, gt=0)
    smallest_face: float = Field(default=0.1, gt=0, le=1)

    def models(self) -> tuple[str, ...]:
        return ("s3fd",) if self.detector == "s3fd" else ()

    def run(self, take: Take) -> Outcome:
        video = video_of(take)
        smallest_px = max(SMALLEST_PX, self.smallest_face * min(video.width, video.height))
        follower = _Follower(load_detector(self.detector), round(1e6 / self.looks_per_second), smallest_px)
        cuts = _Cuts()
        pts_us: list[int] = []
        shots: list[int] = []
        rivals: list[float] = []
        for picture in video:
            if cuts.starts_shot(picture.planes[0]):
                follower.forget()
            follower.see(len(pts_us), picture)
            if follower.box is not None:
                video.keep(picture, _kept_rect(follower.box, video))
            pts_us.append(picture.pts_us)
            shots.append(cuts.shot)
            rivals.append(follower.rival)
        looks = follower.looks
        if all(look.box is None for look in looks):
            found = f"in none of {len(looks)} looks; the smallest looked for has {smallest_px:.0f} px"
            return Rejected("no face found", score=0.0, threshold=1.0, message=found)
        shot = np.array(shots, np.int32)
        times = np.array(pts_us, np.int64)
        return Done(
            {
                "take_pts_us": times,
                "take_face_box": _boxes_of_frames(looks, times, shot),
                "take_rival_face": np.array(rivals, np.float32),
                "take_shot": shot,
                "interlaced": video.interlaced,
                "decoded_share": min(1.0, video.shown / max(1, video.announced)),
                "damaged_share": video.damaged / video.shown,
            }
        )


class Look(NamedTuple):
    """One search for the followed face: at which frame, and its box (4,), or ``None`` when it was not found."""

    frame: int
    box: np.ndarray | None


class _Follower:
    """Looks for one face at the times when a look is due."""

    def __init__(self, detect: Detector, interval_us: int, smallest_px: float):
        self.detect = detect
        self.interval_us = interval_us
        self.smallest_px = smallest_px
        self.looks: list[Look] = []
        self.forget()

    def forget(self) -> None:
        """A new shot starts: look at once, everywhere, for the largest face."""
        self.box: np.ndarray | None = None
        self.rival = 0.0
        self.hit_us = self.next_look_us = self.next_full_us = -(1 << 62)

    def see(self, frame: int, picture: Picture) -> None:
        if picture.pts_us < self.next_look_us:
            return
        self.next_look_us = picture.pts_us + self.interval_us
        luma = picture.planes[0]
        found = None
        if self.box is not None and picture.pts_us < self.next_full_us:
            found = self._search_near(luma, self.box)
        if found is None:
            found = self._search_all(luma, picture.pts_us)
        if found is not None:
            self.box, self.hit_us = found, picture.pts_us
        elif picture.pts_us - self.hit_us > LONGEST_GAP_US:
            self.box = None
        self.looks.append(Look(frame, found))

    def _search_near(self, luma: np.ndarray, box: np.ndarray) -> np.ndarray | None:
        height, width = luma.shape
        side = side_of(box)
        x, y = (box[:2] + box[2:]) / 2
        x0, y0, x1, y1 = even_rect(x - 1.1 * side, y - 1.1 * side, x + 1.1 * side, y + 1.1 * side, width, height)
        if x1 <= x0 or y1 <= y0:
            return None
        boxes, _ = self.detect(luma[y0:y1, x0:x1], 0.6 * side, 1.5 * side, sideways=True)
        return _same_face(boxes + np.array([x0, y0, x0, y0], np.float32), box)

    def _search_all(self, luma: np.ndarray, pts_us: int) -> np.ndarray | None:
        self.next_full_us = pts_us + FULL_SEARCH_US
        following = self.box is not None
        smallest = self.smallest_px if self.box is None else max(self.smallest_px, LEAST_RIVAL * side_of(self.box))
        boxes, scores = self.detect(luma, smallest, float(max(luma.shape)), sideways=following)
        # What looks far less like a face than the best one is none, even where it is larger.
        sure = boxes[scores >= max(self.detect.sure, scores.max(initial=0) / 3)]
        found = max(sure, key=side_of, default=None) if self.box is None else _same_face(boxes, self.box)
        if found is not None:
            others = [side_of(box) for box in sure if iou(box, found) < SAME_FACE_IOU]
            self.rival = float(max(others, default=0.0) / side_of(found))
        return found


class _Cuts:
    """Hard cuts, from small luma pictures: the picture changes much, and much more than it did just before.

    On the public clips the correlation of neighbouring thumbnails falls by 0.5 and more at real cuts; where
    people move it stays below 0.4, and then the change is no sudden one.
    """

    thumbnail_side = 32
    recent = 6

    def __init__(self) -> None:
        self.shot = 0
        self._before: np.ndarray | None = None
        self._changes: list[float] = []

    def starts_shot(self, luma: np.ndarray) -> bool:
        """Whether this frame is the first of a shot; ``shot`` counts them from 0."""
        step = max(1, min(luma.shape) // (3 * self.thumbnail_side))
        sample = np.ascontiguousarray(luma[::step, ::step])
        thumbnail = cv2.resize(sample, (self.thumbnail_side,) * 2, interpolation=cv2.INTER_AREA).astype(np.float32)
        before, self._before = self._before, thumbnail
        if before is None:
            return True
        change = float(np.abs(thumbnail - before).mean())
        suddenness = change / (max(self._changes, default=2.0) + 0.5)
        a, b = thumbnail - thumbnail.mean(), before - before.mean()
        lost = 1.0 - float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum() + 1e-6))
        if (lost > 0.25 and suddenness > 3) or (lost > 0.08 and suddenness > 6):
            self.shot += 1
            self._changes = []
            return True
        self._changes = [*self._changes[1 - self.recent :], change]
        return False


def _boxes_of_frames(looks: list[Look], pts_us: np.ndarray, shot: np.ndarray) -> np.ndarray:
    """Boxes (F, 4) of all frames from the looks; NaN where the face is not known to be."""
    boxes = np.tile(_NO_BOX, (len(pts_us), 1))
    hits = [look for look in looks if look.box is not None]
    last_looks = {int(shot[look.frame]): look for look in looks}
    runs: list[list[Look]] = []
    for hit in hits:
        last = runs[-1][-1].frame if runs else None
        near = last is not None and pts_us[hit.frame] - pts_us[last] <= LONGEST_GAP_US
        if last is not None and near and shot[last] == shot[hit.frame]:
            runs[-1].append(hit)
        else:
            runs.append([hit])
    for run in runs:
        first, last = run[0].frame, run[-1].frame
        if last_looks[int(shot[last])] is run[-1]:
            last = int(np.searchsorted(shot, shot[last], side="right")) - 1
        frames = slice(first, last + 1)
        at = pts_us[[hit.frame for hit in run]]
        smooth = _smoothed(np.array([hit.box for hit in run]))
        for k in range(4):
            boxes[frames, k] = np.interp(pts_us[frames], at, smooth[:, k])
    return boxes


def _smoothed(boxes: np.ndarray) -> np.ndarray:
    """Medians over time: of 3 hits for the centre, of 7 for the size, which changes slowly and is found less exactly."""
    centre = median_filter((boxes[:, :2] + boxes[:, 2:]) / 2, (3, 1), mode="nearest")
    half = median_filter((boxes[:, 2:] - boxes[:, :2]) / 2, (7, 1), mode="nearest")
    return np.concatenate([centre - half, centre + half], 1)


def _kept_rect(box: np.ndarray, video: Video) -> Rect:
    """A square around the face, moved inside the frame as crops are."""
    side = KEPT_SIDES * side_of(box)
    x0, y0 = (
        float(np.clip(c - side / 2, 0, max(0, length - side)))
        for c, length in zip((box[:2] + box[2:]) / 2, (video.width, video.height), strict=True)
    )
    return even_rect(x0, y0, x0 + side, y0 + side, video.width, video.height)


def _same_face(boxes: np.ndarray, box: np.ndarray) -> np.ndarray | None:
    """The one of ``boxes`` (N, 4) that overlaps ``box`` most, if any does enough."""
    best = max(boxes, key=lambda other: iou(other, box), default=None)
    return best if best is not None and iou(best, box) >= SAME_FACE_IOU else None
