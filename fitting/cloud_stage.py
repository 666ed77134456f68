"""The stage that makes the point clouds of a capture's frames. Torch is imported when it runs, not when stages are listed."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from manifests.assets import find
from manifests.stage import Done, Failed, Needs, Outcome, Partial, Rejected, Stage, Take
from prep.capture import open_capture


class Clouds(Stage):
    """A cloud for each frame of a clip, from the depth maps that came with the capture, or by stereo (FaceTalk, §5 and D).

    ``method`` ``auto`` takes shipped depth where there is some, else ``stereo``, headloom's own; ``patch_match`` is COLMAP's on a
    GPU, with a pycolmap that was built for it. Pictures are matched at ``width`` pixels, or as wide as they are where that is
    less. Depth outside ``near`` to ``far`` metres is dropped (NeRSemble's own loader keeps 0.8 to 1.4). Of more than ``points``
    points of a frame an even part is kept; frames with too few cameras get none.

    ``mask`` says what of the pictures is wanted: ``capture`` is what masks that came with them show, ``landmarks`` the hull of
    the face, ``parsing`` what a network takes for the face (``prep.face_parsing``); a frame that has no such mask gets no cloud.
    ``auto`` is the capture's masks, else the hull where a frame's landmarks are valid, else everything, as ``none``.

    Rejects clips of which no frame has points. Frames are kept one by one: work that was ended goes on.
    """

    name: ClassVar[str] = "clouds"
    version: ClassVar[int] = 3
    needs: ClassVar[Needs] = Needs(memory_mb=3000, grace_s=600, patience=3600, pace=800.0, bytes_per_s=30_000_000)
    writes: ClassVar[tuple[str, ...]] = (
        "cloud_points",
        "cloud_normals",
        "cloud_colours",
        "cloud_views",
        "cloud_counts",
        "cloud_size",
        "cloud_share",
    )

    method: Literal["auto", "stereo", "patch_match", "shipped"] = "auto"
    mask: Literal["auto", "capture", "landmarks", "parsing", "none"] = "auto"
    width: int = Field(default=550, ge=64)
    near: float = Field(default=0.8, gt=0)
    far: float = Field(default=1.4, gt=0)
    least_views: int = Field(default=3, ge=1)
    points: int = Field(default=50_000, ge=100)

    def gpus(self) -> float:
        return 0.5 if self.method == "patch_match" else 0.0

    def models(self) -> tuple[str, ...]:
        return ("face-parsing",) if self.mask == "parsing" else ()

    def run(
        self,
        take: Take,
        frame_number: np.ndarray,
        landmarks3d: np.ndarray,
        landmarks3d_valid: np.ndarray,
        partial: Partial,
    ) -> Outcome:
        from fitting.stereo.colmap import why_no_patch_match
        from fitting.stereo.masks import masker
        from fitting.stereo.moments import cloud_of, packed, to_columns, unpacked
        from prep.face_parsing import load_face_parsing

        if self.method == "patch_match" and (lacking := why_no_patch_match()):
            return Failed("machine", lacking)
        capture = open_capture(Path(take.path))
        size = capture.size_within(self.width, int(frame_number[0]))
        frames, rows = np.unique(frame_number, return_index=True)
        clouds = {}
        for frame in frames.tolist():
            if (data := partial.read(f"{frame}.npz")) is not None:
                clouds[frame] = unpacked(data)
        missing = [(frame, row) for frame, row in zip(frames.tolist(), rows, strict=True) if frame not in clouds]
        network = load_face_parsing(find("face-parsing")) if self.mask == "parsing" and missing else None
        moments = capture.moments([frame for frame, _ in missing], size)
        for (frame, row), moment in zip(missing, moments, strict=True):
            clouds[frame] = cloud_of(
                capture,
                moment,
                masker(self.mask, landmarks3d[row], landmarks3d_valid[row] > 0, network),
                method=self.method,
                depth_range=(self.near, self.far),
                least_views=self.least_views,
                points=self.points,
            )
            partial.write(f"{frame}.npz", packed(clouds[frame]))
        columns = to_columns([clouds[int(frame)] for frame in frame_number])
        if not columns["cloud_counts"].any():
            return Rejected("no surface was found in any frame")
        counts = columns["cloud_counts"].astype(float)
        return Done({**columns, "cloud_size": float(counts.mean()), "cloud_share": float((counts > 0).mean())})
