"""From the frames of a take to the spans and frame times of its clips. No pixels are touched here."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
from pydantic import Field, model_validator

from manifests.stage import Done, Level, Needs, Outcome, Rejected, Stage, Take
from prep.detect import iou, side_of


class Cut(Stage):
    """Cut a take into clips at a constant frame rate.

    A span is a run of frames of one shot that all have a face box, as long as the box overlaps the span's first
    by ``iou_min`` (first-order-model's rule, video-preprocessing). Spans longer than ``max_frames`` are split
    into equal parts; those shorter than ``min_frames`` are noise.

    Every source frame is moved to the nearest frame of the clip, so it is seen at most half a frame early or late
    (20 ms at 25 fps); see ``frames_shown``. The clip ends before its span does: the last source frame counts with its own
    duration.

    Rejected when no span remains.
    """

    name: ClassVar[str] = "cut"
    version: ClassVar[int] = 1
    level: ClassVar[Level] = "take"
    cuts: ClassVar[bool] = True
    needs: ClassVar[Needs] = Needs(memory_mb=100, pace=0.001, bytes_per_s=600)
    writes: ClassVar[tuple[str, ...]] = (
        "clip_id",
        "start_us",
        "n_frames",
        "fps_num",
        "fps_den",
        "face_size_px",
        "rival_face",
        "motion",
        "face_box",
        "frame_pts_us",
    )

    fps_num: int = Field(default=25, gt=0)
    fps_den: int = Field(default=1, gt=0)
    min_frames: int = Field(default=5, ge=1)
    max_frames: int = Field(default=1024, ge=1)
    iou_min: float = Field(default=0.25, ge=0, le=1)

    @model_validator(mode="after")
    def _possible(self) -> Cut:
        if self.max_frames < self.min_frames:
            raise ValueError(f"max_frames {self.max_frames} lies below min_frames {self.min_frames}")
        return self

    def run(
        self, take: Take, take_pts_us: np.ndarray, take_face_box: np.ndarray, take_rival_face: np.ndarray, take_shot: np.ndarray
    ) -> Outcome:
        ends_us = frame_ends(take_pts_us)
        clips: list[dict[str, Any]] = []
        longest = 0
        for first, stop in spans(take_face_box, take_shot, self.iou_min):
            for a, b in self._parts(take_pts_us, ends_us, first, stop):
                n_frames = min(self.max_frames, frames_in(int(ends_us[b - 1] - take_pts_us[a]), self.fps_num, self.fps_den))
                longest = max(longest, n_frames)
                if n_frames < self.min_frames:
                    continue
                shown = a + frames_shown(take_pts_us[a:b], n_frames, self.fps_num, self.fps_den)
                start_us = int(take_pts_us[a])
                boxes = take_face_box[shown]
                size = float(np.median(side_of(boxes)))
                steps = np.linalg.norm(np.diff((boxes[:, :2] + boxes[:, 2:]) / 2, axis=0), axis=1)
                clips.append(
                    {
                        "clip_id": clip_id(take.take_id, start_us, n_frames, self.fps_num, self.fps_den),
                        "start_us": start_us,
                        "n_frames": n_frames,
                        "fps_num": self.fps_num,
                        "fps_den": self.fps_den,
                        "face_size_px": size,
                        "rival_face": float(np.median(take_rival_face[shown])),
                        "motion": float(steps.mean() * self.fps_num / self.fps_den / size) if len(steps) else 0.0,
                        "face_box": boxes.astype(np.float32),
                        "frame_pts_us": take_pts_us[shown],
                    }
                )
        if not clips:
            return Rejected("no span with a face is long enough", score=float(longest), threshold=float(self.min_frames))
        return Done(clips=clips)

    def _parts(self, pts_us: np.ndarray, ends_us: np.ndarray, first: int, stop: int) -> Iterator[tuple[int, int]]:
        """Equal parts of a span, none longer than ``max_frames``."""
        duration_us = int(ends_us[stop - 1] - pts_us[first])
        count = max(1, -(-frames_in(duration_us, self.fps_num, self.fps_den) // self.max_frames))
        inner = pts_us[first] + duration_us * np.arange(1, count) // count
        edges = [first, *(first + np.searchsorted(pts_us[first:stop], inner)).tolist(), stop]
        for a, b in pairwise(edges):
            if b > a:
                yield a, b


def spans(boxes: np.ndarray, shot: np.ndarray, iou_min: float) -> Iterator[tuple[int, int]]:
    """First and one-past-last frames of the spans; ``boxes`` (F, 4), NaN where there is no face, ``shot`` (F,)."""
    first = None
    for k in range(len(boxes) + 1):
        valid = k < len(boxes) and not np.isnan(boxes[k, 0])
        if first is not None and (not valid or shot[k] != shot[first] or iou(boxes[k], boxes[first]) < iou_min):
            yield first, k
            first = None
        if first is None and valid:
            first = k


def frames_shown(pts_us: np.ndarray, n_frames: int, fps_num: int, fps_den: int) -> np.ndarray:
    """Index (n_frames,) of the source frame that each frame at the constant rate shows.

    ``pts_us`` (F,) int64, ascending. Times count from the first; each is rounded to the nearest frame of the new
    rate, halves up, and shown from there until the next; of several that meet, the last. So a frame holds through a
    gap before the next one, which is never shown more than half a frame before its time. ffmpeg's filter ``fps``
    picks the same. Whole numbers throughout.
    """
    second = 1_000_000 * fps_den
    ticks = (2 * (pts_us - pts_us[0]) * fps_num + second) // (2 * second)
    return np.searchsorted(ticks, np.arange(n_frames), side="right") - 1


def frames_in(duration_us: int, fps_num: int, fps_den: int) -> int:
    """Whole frames in a duration. A hundredth of a frame is allowed for times rounded to microseconds."""
    return (100 * duration_us * fps_num // (1_000_000 * fps_den) + 1) // 100


def frame_ends(pts_us: np.ndarray) -> np.ndarray:
    """Times (F,) at which frames stop being shown: when the next one comes, but after two usual intervals at most."""
    steps = np.diff(pts_us)
    usual = int(np.median(steps)) if len(steps) else 0
    ends: np.ndarray = pts_us + np.minimum(np.append(steps, usual), 2 * usual)
    return ends


def clip_id(take_id: str, start_us: int, n_frames: int, fps_num: int, fps_den: int) -> str:
    """Digest of the take's content, the span and the rate: 32 hex digits."""
    return hashlib.sha256(f"{take_id} {start_us} {n_frames} {fps_num}/{fps_den}".encode()).hexdigest()[:32]
