"""The stage that makes the point clouds of a capture's frames. Torch is imported when it runs, not when stages are listed."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from manifests.stage import Done, Needs, Outcome, Partial, Rejected, Stage, Take
from prep.capture import open_capture


class Clouds(Stage):
    """A cloud for each frame of a clip, from the depth maps that came with the capture, or by stereo (FaceTalk, §5 and D).

    ``method`` ``auto`` takes shipped depth where there is some. Pictures are matched at ``width`` pixels, or as wide as they are
    where that is less. Depth outside ``near`` to ``far`` metres is dropped (NeRSemble's own loader keeps 0.8 to 1.4). Of more
    than ``points`` points of a frame an even part is kept; frames with too few cameras get none. Rejects clips of which no frame
    has any. Frames are kept one by one: work that was ended goes on.
    """

    name: ClassVar[str] = "clouds"
    version: ClassVar[int] = 1
    needs: ClassVar[Needs] = Needs(memory_mb=3000, grace_s=600, patience=3600, pace=800.0, bytes_per_s=30_000_000)
    writes: ClassVar[tuple[str, ...]] = (
        "cloud_points",
        "cloud_normals",
        "cloud_colours",
        "cloud_views",
        "cloud_counts",
        "cloud_size",
    )

    method: Literal["auto", "stereo", "shipped"] = "auto"
    width: int = Field(default=550, ge=64)
    near: float = Field(default=0.8, gt=0)
    far: float = Field(default=1.4, gt=0)
    least_views: int = Field(default=3, ge=1)
    points: int = Field(default=50_000, ge=100)

    def run(self, take: Take, frame_number: np.ndarray, partial: Partial) -> Outcome:
        from fitting.stereo.moments import cloud_of, packed, to_columns, unpacked

        capture = open_capture(Path(take.path))
        height, width = next(capture.moments([0])).pictures.shape[1:3]
        used = min(self.width, width)
        size = used, round(used * height / width)
        kept = {frame: partial.read(f"{frame}.npz") for frame in np.unique(frame_number).tolist()}
        made = {frame: unpacked(data) for frame, data in kept.items() if data is not None}
        missing = [frame for frame, data in kept.items() if data is None]
        for frame, moment in zip(missing, capture.moments(missing, size), strict=True):
            made[frame] = cloud_of(
                capture,
                moment,
                method=self.method,
                depth_range=(self.near, self.far),
                least_views=self.least_views,
                points=self.points,
            )
            partial.write(f"{frame}.npz", packed(made[frame]))
        columns = to_columns([made[int(frame)] for frame in frame_number])
        if not columns["cloud_counts"].any():
            return Rejected("no surface was found in any frame")
        return Done({**columns, "cloud_size": float(np.mean(columns["cloud_counts"].astype(float)))})
