"""The cameras of a multi-camera recording."""

from __future__ import annotations

import torch

from fitting.cameras import Camera
from fitting.similarity import Similarity
from fitting.space import nersemble_cameras
from manifests.stage import Unreadable
from prep.capture import NERSEMBLE_SIZE, Capture


def cameras_of(capture: Capture, size: tuple[int, int]) -> Camera:
    """The cameras (C,), float64, for pictures of ``size`` (width, height), as ``Capture.moments`` gives them: pinholes.

    Raises ``Unreadable`` for poses that are not rigid, and for what is no number.
    """
    try:
        cameras = _given(capture).resize(*size)
        if not bool(cameras.world_to_camera.isfinite().all() and cameras.intrinsics.isfinite().all()):
            raise ValueError("a camera's pose or intrinsics are not finite")
        return cameras
    except (ValueError, TypeError, KeyError) as error:
        raise Unreadable(f"{capture.path}: its cameras cannot be read: {error}") from None


def _given(capture: Capture) -> Camera:
    """The cameras for the pictures that they were calibrated with."""
    if capture.layout != "plain":
        given = NERSEMBLE_SIZE if "width" not in capture.calibration else None
        return nersemble_cameras(capture.calibration, given)[1]
    cameras = [capture.calibration["cameras"][name] for name in capture.serials]
    intrinsics = torch.tensor([camera["K"] for camera in cameras], dtype=torch.float64)
    pose = torch.eye(4, dtype=torch.float64).repeat(len(cameras), 1, 1)
    pose[:, :3, :3] = torch.tensor([camera["R"] for camera in cameras], dtype=torch.float64)
    pose[:, :3, 3] = torch.tensor([camera["t"] for camera in cameras], dtype=torch.float64)
    if ((Similarity.from_matrix(pose).scale - 1).abs() > 1e-3).any():
        raise ValueError("R of a camera is no rotation")
    return Camera(intrinsics, pose, int(capture.calibration["width"]), int(capture.calibration["height"]))
