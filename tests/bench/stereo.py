"""Depth and clouds of the studio's people, whose surface is known, from sixteen views of 550 x 802 with the cameras' noise.

Seconds are a processor's, of one thread. Real scenes (``tests.fitting.stereo.real``) are measured where they are.
"""

from __future__ import annotations

import statistics
import time

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from fitting.cameras import Camera
from fitting.stereo import Cloud, DepthMaps, Views, clean, depth_maps, fuse
from fitting.studio.acting import Conditions, act
from fitting.studio.backdrop import backdrop
from fitting.studio.light import light, sensor_noise
from fitting.studio.render import render
from fitting.studio.rig import sixteen
from fitting.studio.truth import LABELS
from tests.fitting.stereo.distances import to_mesh
from tests.fitting.stereo.real import figures as real_figures

GOALS = {
    "depth_median_mm": "< 0.5",
    "skin_covered": "> 0.85",
    "cloud_within_1mm": "> 0.95",
    "seconds_per_frame": "< 60",
}

TAKES = [(0, 0, 0.5), (1, 0, 1.0), (2, 0, 1.3), (3, 1, 0.8), (4, 1, 0.3), (5, 2, 1.1)]
"""Person, seed, and at which second."""

SIZE = (550, 802)
SAMPLE = 30_000
"""Points of a cloud whose distance is measured."""


def run() -> dict[str, float]:
    threads = cv2.getNumThreads(), torch.get_num_threads()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    try:
        found = [take(*which) for which in TAKES]
        figures = {name: statistics.mean(one[name] for one in found) for name in found[0]}
        worst = {"depth_median_mm": max, "skin_covered": min, "cloud_within_1mm": min}
        figures |= {f"{name}_worst": pick(one[name] for one in found) for name, pick in worst.items()}
        return figures | real_figures()
    finally:
        cv2.setNumThreads(threads[0])
        torch.set_num_threads(threads[1])


def take(person: int, seed: int, moment: float) -> dict[str, float]:
    views, truth, labels, mesh = capture(person, seed, moment)
    start = time.process_time()
    maps = depth_maps(views)
    middle = time.process_time()
    cloud = clean(fuse(views, maps), views=views)
    end = time.process_time()
    skin = (labels == LABELS.index("skin")) & (truth.depth > 0)
    errors = 1000 * np.abs(maps.depth - truth.depth)[skin & (maps.depth > 0)]
    distance = 1000 * to_mesh(sample(cloud), *mesh)
    return {
        "depth_median_mm": float(np.median(errors)),
        "depth_p90_mm": float(np.percentile(errors, 90)),
        "skin_covered": float((maps.depth > 0)[skin].mean()),
        "normals_median_deg": turned(maps, truth),
        "cloud_median_mm": float(np.median(distance)),
        "cloud_within_1mm": float((distance < 1).mean()),
        "cloud_points": float(len(cloud.points)),
        "seconds_per_frame": end - start,
        "seconds_fusing": end - middle,
    }


def capture(
    person: int, seed: int, moment: float, size: tuple[int, int] = SIZE
) -> tuple[Views, DepthMaps, NDArray[np.uint8], tuple[NDArray[np.float64], NDArray[np.int64]]]:
    """What the sixteen cameras see of a person at one moment: views, true maps, labels (C, H, W), and the mesh."""
    acted = act(person, np.array([0.0, moment]), Conditions(2.0, size, seed), person)
    cameras: Camera = sixteen(seed).cameras.resize(*size)
    rng = np.random.default_rng([seed, person, 9])
    lighting = light(acted.times, rng, change=0.0)[1]
    rooms = np.stack([backdrop(*size, np.random.default_rng([seed, 5, camera])) for camera in range(16)])
    shot = render(acted.person.surface, acted.vertices[1].expand(16, -1, -1), cameras, lighting, rooms)
    pictures = np.stack([sensor_noise(picture, rng, 0.6) for picture in shot.pictures])
    truth = DepthMaps(shot.depth, shot.normals, (shot.depth > 0).astype(np.float32))
    mesh = acted.vertices[1].double().numpy(), acted.person.surface.faces.numpy()
    return Views(pictures, cameras, shot.alpha >= 128), truth, shot.labels, mesh


def sample(cloud: Cloud) -> NDArray[np.float64]:
    chosen = np.random.default_rng(0).permutation(len(cloud.points))[:SAMPLE]
    return cloud.points[chosen].astype(np.float64)


def turned(maps: DepthMaps, truth: DepthMaps) -> float:
    """Median angle in degrees between found and true normals."""
    known = (maps.depth > 0) & (truth.depth > 0)
    cosine = (maps.normals[known] * truth.normals[known]).sum(axis=-1)
    return float(np.degrees(np.arccos(np.median(cosine).clip(-1, 1))))
