"""Depth and clouds of the studio's people, whose surface is known, from sixteen views of 550 x 802 with the cameras' noise.

Seconds are a processor's, of one thread. Real scenes (``tests.fitting.stereo.real``) are measured where they are. Memory is
that of a process of its own, which runs stage ``clouds`` on a take of 120 frames of 802 x 1100 and makes one of its clouds.
"""

from __future__ import annotations

import io
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from fitting.cameras import Camera
from fitting.cloud_stage import Clouds
from fitting.stereo import Cloud, DepthMaps, Views, clean, depth_maps, fuse
from fitting.studio.acting import Conditions, act
from fitting.studio.backdrop import backdrop
from fitting.studio.light import light, sensor_noise
from fitting.studio.render import render
from fitting.studio.rig import sixteen
from fitting.studio.truth import LABELS
from manifests.stage import Done, Take
from tests.fitting.stereo.distances import to_mesh
from tests.fitting.stereo.real import figures as real_figures

GOALS = {
    "depth_median_mm": "< 0.5",
    "skin_covered": "> 0.85",
    "cloud_within_1mm": "> 0.95",
    "seconds_per_frame": "< 60",
    "peak_memory_mb": "< 6000",
}

TAKES = [(0, 0, 0.5), (1, 0, 1.0), (2, 0, 1.3), (3, 1, 0.8), (4, 1, 0.3), (5, 2, 1.1)]
"""Person, seed, and at which second."""

SIZE = (550, 802)
LARGE, FRAMES = (802, 1100), 120
"""Size and length of the take whose peak of memory is measured."""

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
        return figures | real_figures() | {"peak_memory_mb": peak_memory_mb()}
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


def peak_memory_mb() -> float:
    """The most memory that a fresh process takes for a long take of large pictures."""
    with tempfile.TemporaryDirectory() as folder:
        write_large(Path(folder))
        command = [sys.executable, "-m", "tests.bench.stereo", folder]
        return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def write_large(folder: Path) -> None:
    """A capture of ``FRAMES`` frames in the plain layout. Only the first has pictures: of the others clouds are there already."""
    views, *_ = capture(*TAKES[0], LARGE)
    cameras = {}
    for number, picture in enumerate(views.pictures):
        camera, name = views.cameras[number], f"{number:02d}"
        pose = camera.world_to_camera
        cameras[name] = {"K": camera.intrinsics.tolist(), "R": pose[:3, :3].tolist(), "t": pose[:3, 3].tolist()}
        (folder / name).mkdir()
        cv2.imwrite(str(folder / name / "0.png"), np.ascontiguousarray(picture[..., ::-1]))
    times = [frame / 24 for frame in range(FRAMES)]
    content = {"width": LARGE[0], "height": LARGE[1], "times_s": times, "cameras": cameras}
    (folder / "cameras.json").write_text(json.dumps(content))


class AllButTheFirst:
    """What a run left behind that lacks the first frame only: as many points of each other as the stage keeps."""

    def __init__(self, points: int) -> None:
        self.points = points

    def read(self, name: str) -> bytes | None:
        frame = int(name.removesuffix(".npz"))
        if frame == 0:
            return None
        points = np.random.default_rng(frame).random((self.points, 3), np.float32)
        file = io.BytesIO()
        np.savez(file, points=points, normals=points, colours=np.zeros(points.shape, np.uint8), confidence=points[:, 0])
        return file.getvalue()

    def write(self, name: str, data: bytes) -> None:
        assert name == "0.npz"


def run_large(folder: str) -> None:
    """Run the stage, where nothing else was done before, and print the process's peak in MB."""
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    stage = Clouds(width=LARGE[0], mask="none")
    nowhere, invalid = np.full((FRAMES, 68, 3), np.nan, np.float32), np.zeros((FRAMES, 68), np.uint8)
    large = Take("0" * 64, folder, "", FRAMES / 24, "plain")
    outcome = stage.run(large, np.arange(FRAMES), nowhere, invalid, AllButTheFirst(stage.points))
    assert isinstance(outcome, Done)
    assert outcome.columns["cloud_counts"].min() == stage.points
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


if __name__ == "__main__":
    run_large(sys.argv[1])
