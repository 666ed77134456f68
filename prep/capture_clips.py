"""The stage that turns captures by several cameras into clips at one constant frame rate."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
from pydantic import Field

from manifests.stage import Done, Level, Needs, Outcome, Rejected, Stage, Take
from prep.capture import open_capture
from prep.cut import clip_id, frame_ends, frames_in, frames_shown


class CaptureClips(Stage):
    """A clip of each capture, from its first frame on, resampled by timestamps: 73 / 3 frames a second become 24 (FaceTalk, §5).

    Every frame of the clip shows the capture's frame that is nearest in time, as ``cut`` does for videos; frames of which no
    camera has a picture are none. Rejects what is too short, what has no pictures for longer than ``max_gap_s``, and takes that
    are no captures.
    """

    name: ClassVar[str] = "capture"
    version: ClassVar[int] = 2
    level: ClassVar[Level] = "take"
    cuts: ClassVar[bool] = True
    needs: ClassVar[Needs] = Needs(memory_mb=500, pace=1.0, bytes_per_s=600)
    writes: ClassVar[tuple[str, ...]] = (
        "clip_id",
        "start_us",
        "n_frames",
        "fps_num",
        "fps_den",
        "n_cameras",
        "camera_share",
        "frame_pts_us",
        "frame_number",
    )

    fps_num: int = Field(default=24, gt=0)
    fps_den: int = Field(default=1, gt=0)
    min_frames: int = Field(default=3, ge=1)
    max_frames: int = Field(default=1024, ge=1)
    max_gap_s: float = Field(default=0.2, gt=0)

    def run(self, take: Take) -> Outcome:
        if not take.layout:
            return Rejected("no capture by several cameras")
        capture = open_capture(Path(take.path))
        present = capture.present(range(len(capture.times_us)))
        seen = np.flatnonzero(present.any(axis=1))
        if not len(seen):
            return Rejected("no camera has a picture")
        times = capture.times_us[seen]
        duration_us = int(frame_ends(times)[-1] - times[0]) if len(times) > 1 else 0
        count = min(frames_in(duration_us, self.fps_num, self.fps_den), self.max_frames)
        if count < self.min_frames:
            return Rejected("too short", score=float(count), threshold=float(self.min_frames))
        shown = frames_shown(times, count, self.fps_num, self.fps_den)
        longest_s = float(np.diff(times[: shown[-1] + 1]).max(initial=0)) / 1e6
        if longest_s > self.max_gap_s:
            return Rejected("pictures are missing for too long", score=longest_s, threshold=self.max_gap_s)
        present = present[np.unique(seen[shown])]
        clip = {
            "clip_id": clip_id(take.take_id, int(times[0]), count, self.fps_num, self.fps_den),
            "start_us": int(times[0]),
            "n_frames": count,
            "fps_num": self.fps_num,
            "fps_den": self.fps_den,
            "n_cameras": int(present.any(axis=0).sum()),
            "camera_share": float(present.mean()),
            "frame_pts_us": times[shown],
            "frame_number": seen[shown].astype(np.int32),
        }
        return Done(clips=[clip])
