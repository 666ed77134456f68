"""The stage that finds landmarks in space, from those that all cameras of a capture see. Torch is imported when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from manifests.stage import Done, Needs, Outcome, Rejected, Stage, Take, Unreadable
from prep.capture import open_capture

ANNOTATIONS = ".truth.npz"
"""Ending of the file beside a capture with ``landmarks68_image`` (C, F, 68, 2), ``landmarks68_visible`` (C, F, 68) and
``intrinsics`` (C, 3, 3), for which the pixels hold: what the studio writes."""


class Landmarks(Stage):
    """68 landmarks (iBUG's) in space for each frame, triangulated with outliers left out; bridged in time where missing.

    ``source`` ``annotations`` reads those that lie beside the capture. A little noise of ``noise_px`` pixels, as a detector would
    have, may be put on them.
    """

    name: ClassVar[str] = "landmarks"
    version: ClassVar[int] = 1
    needs: ClassVar[Needs] = Needs(memory_mb=800, pace=1.0, bytes_per_s=20_000)
    writes: ClassVar[tuple[str, ...]] = ("landmarks3d", "landmarks3d_valid", "landmarks3d_residual_px", "landmark_share")

    source: Literal["annotations"] = "annotations"
    noise_px: float = Field(default=0.0, ge=0)

    def run(self, take: Take, clip_id: str, frame_number: np.ndarray) -> Outcome:
        import torch

        from fitting.captures import cameras_of
        from fitting.landmarks3d import triangulate

        capture = open_capture(Path(take.path))
        path = Path(take.path).with_name(Path(take.path).name + ANNOTATIONS)
        try:
            with np.load(path, allow_pickle=False) as held:
                pixels, visible, intrinsics = (held[name] for name in ("landmarks68_image", "landmarks68_visible", "intrinsics"))
        except FileNotFoundError:
            return Rejected("no annotations beside the capture")
        except (ValueError, KeyError, OSError, EOFError) as error:
            raise Unreadable(f"{path.name} cannot be read: {error}") from None
        size = round(2 * intrinsics[0, 0, 2]), round(2 * intrinsics[0, 1, 2])
        pixels = pixels[:, frame_number]
        if self.noise_px:
            rng = np.random.default_rng([int(clip_id[:8], 16), 1])
            pixels = pixels + self.noise_px * rng.standard_normal(pixels.shape)
        confidence = visible[:, frame_number].astype(np.float64)
        found = triangulate(torch.from_numpy(pixels), torch.from_numpy(confidence), cameras_of(capture, size))
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
