"""Real scenes with known cameras, and what stereo makes of them. They lie outside the repository: ``SHARED / "real"``.

The walnut has a reference cloud; the temple and the facade have none, so of them the share of pixels with a depth is told.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from scipy.spatial import cKDTree

from fitting.cameras import Camera
from fitting.stereo import Cloud, Views, depth_maps, fuse
from tests.conftest import SHARED

MULTIVIEW = SHARED / "real" / "multiview"

WALNUT, TEMPLE, FACADE = "walnut_a", "templeSR", "Herz-Jesus-P8"
RANGES = {WALNUT: (0.17, 0.23), TEMPLE: (0.45, 0.75), FACADE: (6.0, 40.0)}
"""Metres."""

WALNUT_GAIN = 4
"""Its pictures are dark."""

SHOWN = 25
"""Levels from which a pixel is the temple and not the black behind it."""


def load(scene: str, reduction: int = 1) -> Views:
    """A scene's views, ``reduction`` times smaller. Its cameras put the centre of the top-left pixel at (0, 0)."""
    told = json.loads((MULTIVIEW / scene / "cameras.json").read_text())["cameras"]
    gain = WALNUT_GAIN if scene == WALNUT else 1
    pictures = np.stack([_picture(MULTIVIEW / scene / name, gain) for name in told])
    height, width = pictures.shape[1:3]
    poses = np.broadcast_to(np.eye(4), (len(told), 4, 4)).copy()
    # The files' rotations have six digits.
    left, _, right = np.linalg.svd(np.array([one["R"] for one in told.values()]))
    poses[:, :3, :3], poses[:, :3, 3] = left @ right, [one["t"] for one in told.values()]
    intrinsics = torch.tensor([one["K"] for one in told.values()], dtype=torch.float64)
    cameras = Camera.from_integer_centres(intrinsics, torch.from_numpy(poses), width, height)
    if reduction > 1:
        size = (width // reduction, height // reduction)
        pictures = np.stack([cv2.resize(picture, size, interpolation=cv2.INTER_AREA) for picture in pictures])
        cameras = cameras.resize(*size)
    masks = None
    if scene == TEMPLE:
        kernel = np.ones((3, 3), np.uint8)
        bright = (pictures.max(axis=-1) > SHOWN).astype(np.uint8)
        masks = np.stack([cv2.morphologyEx(mask, cv2.MORPH_OPEN, kernel) for mask in bright]) > 0
    return Views(pictures, cameras, masks)


def cloud_of(scene: str, reduction: int = 1) -> tuple[Cloud, float, float]:
    """The cloud, the share of pixels with a depth, and the seconds it took a processor."""
    views = load(scene, reduction)
    start = time.process_time()
    maps = depth_maps(views, depth_range=RANGES[scene])
    cloud = fuse(views, maps, least_views=2)
    seconds = time.process_time() - start
    looked_at = maps.depth.size if views.masks is None else views.masks.sum()
    return cloud, float((maps.depth > 0).sum() / looked_at), seconds


def walnut_figures(reduction: int = 2) -> dict[str, float]:
    """Accuracy: the share of our points so near to the reference cloud; completeness: of its points so near to ours.

    Measured within 2 mm around the reference, which has the nut and nothing of the table below it.
    """
    cloud, _, seconds = cloud_of(WALNUT, reduction)
    reference = _read_points(MULTIVIEW / WALNUT / "reference.ply")
    near = ((cloud.points > reference.min(axis=0) - 0.002) & (cloud.points < reference.max(axis=0) + 0.002)).all(axis=1)
    ours = cloud.points[near].astype(np.float64)
    accuracy, completeness = 1000 * cKDTree(reference).query(ours)[0], 1000 * cKDTree(ours).query(reference)[0]
    figures = {"walnut_points": float(len(ours)), "walnut_seconds": seconds}
    figures |= {"walnut_accuracy_median_mm": float(np.median(accuracy))}
    for limit in (1, 2, 5):
        figures[f"walnut_accuracy_{limit}mm"] = float((accuracy < limit).mean())
        figures[f"walnut_completeness_{limit}mm"] = float((completeness < limit).mean())
    return figures


def figures() -> dict[str, float]:
    """All of the above; nothing where the scenes are not."""
    if not MULTIVIEW.is_dir():
        return {}
    found = walnut_figures()
    for name, scene in (("temple", TEMPLE), ("facade", FACADE)):
        cloud, share, seconds = cloud_of(scene)
        found |= {f"{name}_points": float(len(cloud.points)), f"{name}_covered": share, f"{name}_seconds": seconds}
    return found


def _picture(path: Path, gain: int) -> np.ndarray:
    picture = cv2.imread(str(path))[..., ::-1]
    return np.clip(gain * picture.astype(np.int64), 0, 255).astype(np.uint8)


def _read_points(path: Path) -> np.ndarray:
    """Points (N, 3) of an ASCII PLY whose vertices begin with x, y, z."""
    head, _, body = path.read_text().partition("end_header\n")
    count = next(int(line.split()[2]) for line in head.splitlines() if line.startswith("element vertex"))
    return np.array([line.split()[:3] for line in body.splitlines()[:count]], np.float64)
