"""The stage that finds landmarks in space, from those that all cameras of a capture see. Torch is imported when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple
from zipfile import BadZipFile

import numpy as np
from pydantic import Field

from manifests.stage import Done, Needs, Outcome, Partial, Rejected, Stage, Take, Unreadable
from prep.capture import Capture, open_capture
from prep.detect import DetectorName
from prep.device import GPU_SHARE, Device, device_of

if TYPE_CHECKING:
    from fitting.cameras import Camera

ANNOTATED = ("times", "landmarks68_image", "landmarks68_visible", "intrinsics")
"""What annotations hold of F moments, in seconds, as the studio writes it: (F,), landmarks (C, F, 68, 2) and whether a camera
sees them (C, F, 68), and (C, 3, 3) of the pictures that the pixels are of."""

SAME_MOMENT_S = 0.01
"""Annotations are those of a frame where they are no further from its time."""

AGREE_PX = 6.0
"""Annotations of one landmark agree where they are this near to it."""

AGREE_SHARE = 0.05
"""Detected landmarks agree where they are this near, as a share of the face's side: detectors err by some hundredths of it."""


class Landmarks(Stage):
    """68 landmarks (iBUG's) in space for each frame, triangulated with outliers left out; bridged in time where missing.

    ``source`` ``annotations`` reads those that lie beside the capture. A little noise of ``noise_px`` pixels, as a detector would
    have, may be put on them. ``face-alignment`` finds them in the pictures, ``width`` pixels wide or as they are where that is
    less, by the network FAN: ``detector`` looks for faces ``looks_per_second`` times a second in all views; where those that it
    finds meet in space, the head is in every view. Views count by the height of the network's peak, from ``least_confidence`` on.
    Landmarks in pictures are kept frame by frame: work that was ended goes on.
    """

    name: ClassVar[str] = "landmarks"
    version: ClassVar[int] = 2
    needs: ClassVar[Needs] = Needs(memory_mb=1500, grace_s=600, patience=7200, pace=1.0, bytes_per_s=20_000)
    writes: ClassVar[tuple[str, ...]] = ("landmarks3d", "landmarks3d_valid", "landmarks3d_residual_px", "landmark_share")

    source: Literal["annotations", "face-alignment"] = "annotations"
    noise_px: float = Field(default=0.0, ge=0)
    device: Device = "cpu"
    detector: DetectorName = "cascade"
    looks_per_second: float = Field(default=4.0, gt=0)
    width: int = Field(default=550, ge=64)
    least_confidence: float = Field(default=0.2, ge=0, le=1)

    def gpus(self) -> float:
        return GPU_SHARE if self.device == "cuda" else 0.0

    def models(self) -> tuple[str, ...]:
        if self.source == "annotations":
            return ()
        return ("fan", "s3fd") if self.detector == "s3fd" else ("fan",)

    def run(self, take: Take, clip_id: str, frame_number: np.ndarray, partial: Partial) -> Outcome:
        import torch

        from fitting.landmarks3d import triangulate

        capture = open_capture(Path(take.path))
        if len(capture.serials) < 2:
            return Rejected("fewer than two cameras")
        if self.source == "annotations":
            seen = self._annotated(capture, clip_id, frame_number)
        else:
            seen = self._detected(capture, frame_number, partial)
        if isinstance(seen, Rejected):
            return seen
        found = triangulate(
            torch.from_numpy(seen.pixels),
            torch.from_numpy(seen.confidence),
            seen.cameras,
            threshold_px=seen.agree_px,
            min_views=min(3, len(capture.serials)),
            min_confidence=self.least_confidence,
        )
        if not bool(found.valid.any()):
            return Rejected("no landmark is seen by enough cameras")
        return Done(
            {
                "landmarks3d": found.points.numpy().astype(np.float32),
                "landmarks3d_valid": found.valid.numpy().astype(np.uint8),
                "landmarks3d_residual_px": found.residual.numpy().astype(np.float32),
                "landmark_share": float(found.valid.double().mean()),
            }
        )

    def _annotated(self, capture: Capture, clip_id: str, frames: np.ndarray) -> _Seen | Rejected:
        from fitting.captures import cameras_of

        path = capture.annotations
        try:
            with np.load(path, allow_pickle=False) as held:
                times, pixels, visible, intrinsics = (held[name] for name in ANNOTATED)
        except FileNotFoundError:
            return Rejected("no annotations beside the capture")
        except (ValueError, KeyError, OSError, EOFError, BadZipFile) as error:
            raise Unreadable(f"{path.name} cannot be read: {error}") from None
        n_cameras = len(capture.serials)
        if pixels.shape != (n_cameras, len(times), 68, 2) or visible.shape != pixels.shape[:3]:
            has = f"landmarks of shape {pixels.shape} at {len(times)} times"
            raise Unreadable(f"{path.name} has {has}, which do not fit the {n_cameras} cameras of the calibration")
        size = round(2 * intrinsics[0, 0, 2]), round(2 * intrinsics[0, 1, 2])
        # By time, not by number: a capture may have lost frames since it was annotated.
        wanted = capture.times_us[frames] / 1e6
        nearest = np.abs(times - wanted[:, None]).argmin(axis=1)
        annotated = np.abs(times[nearest] - wanted) <= SAME_MOMENT_S
        pixels, visible = pixels[:, nearest], visible[:, nearest] & annotated[:, None]
        if self.noise_px:
            rng = np.random.default_rng([int(clip_id[:8], 16), 1])
            pixels = pixels + self.noise_px * rng.standard_normal(pixels.shape)
        return _Seen(pixels, visible.astype(np.float64), cameras_of(capture, size), AGREE_PX)

    def _detected(self, capture: Capture, frame_number: np.ndarray, partial: Partial) -> _Seen | Rejected:
        from fitting.captures import cameras_of
        from fitting.head_boxes import best_faces, locate, over_time, project
        from prep.detect import load_detector
        from prep.landmarks2d import load_fan, packed, unpacked

        frames, which = np.unique(frame_number, return_inverse=True)
        size = capture.size_within(self.width, int(frames[0]))
        cameras = cameras_of(capture, size)

        times = capture.times_us[frames]
        looked = frames[np.unique((times - times[0]) * self.looks_per_second // 1e6, return_index=True)[1]]
        detect = load_detector(self.detector)
        faces = [best_faces(moment.pictures, detect) for moment in capture.moments(looked.tolist(), size)]
        heads = locate(np.stack([boxes for boxes, _ in faces]), np.stack([scores for _, scores in faces]), cameras)
        if not np.isfinite(heads.centres).any():
            return Rejected("no head is found in enough views")
        boxes = project(over_time(heads, looked, frames), cameras)

        kept = {number: partial.read(f"{number}.npz") for number in frames.tolist()}
        made = {number: unpacked(data) for number, data in kept.items() if data is not None}
        missing = [number for number, data in kept.items() if data is None]
        find_landmarks = load_fan(device_of(self.device).type)
        for number, moment in zip(missing, capture.moments(missing, size), strict=True):
            there = np.where(moment.present[:, None], boxes[np.searchsorted(frames, number)], np.nan)
            made[number] = find_landmarks(moment.pictures, there)
            partial.write(f"{number}.npz", packed(made[number]))
        found = [made[number] for number in frames.tolist()]
        pixels = np.stack([each.pixels for each in found], axis=1)[:, which]
        confidence = np.stack([each.confidence for each in found], axis=1)[:, which]
        side = float(np.nanmedian(boxes[..., 2] - boxes[..., 0]))
        return _Seen(pixels.astype(np.float64), confidence.astype(np.float64), cameras, AGREE_SHARE * side)


class _Seen(NamedTuple):
    """Landmarks in the pictures of C cameras."""

    pixels: np.ndarray
    """(C, T, 68, 2)"""
    confidence: np.ndarray
    """(C, T, 68)"""
    cameras: Camera
    """(C,) for the pictures that the pixels are of."""
    agree_px: float
