"""The whole road against the plain ``ffmpeg`` command line, on the same takes and the same cores.

``cpu_ratio_vs_ffmpeg`` compares CPU time for the pixels: decode, 25 fps, crop, scale and encode at 256² and 512² with
the same encoder settings. ``road_ratio_vs_ffmpeg`` puts the whole of ours (faces, scores, sound and its features, the
store, starting Python) against the same ffmpeg run.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from manifests.reader import Dataset
from manifests.stage import Done, Outcome, Take
from prep.crop import Crop
from prep.cut import Cut
from prep.faces import Faces
from prep.video import even_rect, video_of
from tests.portrait import make_takes

GOALS = {
    "cpu_ratio_vs_ffmpeg": "<= 1.3",
    "random_clip_read_ms": "< 2",
    "peak_memory_mb": "< 1500",
    "reuse_share_after_kill": "1 of what was done",
}
SECONDS = 12.0
HEADLOOM = [sys.executable, "-c", "from pipelines.cli import main; main()"]


def run() -> dict[str, float]:
    """All figures; those that need the ``ffmpeg`` command are left out where it is not installed."""
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_takes(folder / "takes", takes=4, seconds=SECONDS)
        _headloom("scan", str(folder / "takes"), "-o", str(folder / "takes.yaml"))
        road = _child_cpu(lambda: _build(folder, "data"))
        if shutil.which("ffmpeg"):
            figures |= _against_ffmpeg(folder, road)
        figures |= _random_reads(folder / "data")
        figures |= _after_a_kill(folder)
        figures["peak_memory_mb"] = _peak_memory(folder)
    return figures


def _headloom(*arguments: str) -> None:
    subprocess.run([*HEADLOOM, *arguments], check=True, capture_output=True)


def _build(folder: Path, out: str) -> None:
    _headloom("build", "talking_clips", "--set", f"source={folder / 'takes.yaml'}", "--out", str(folder / out), "--workers", "1")


def _child_cpu(work: Callable[[], object]) -> float:
    """CPU seconds, user and system, of the processes that ``work`` starts and waits for."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    work()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _against_ffmpeg(folder: Path, road_s: float) -> dict[str, float]:
    """Clips and boxes come from our stages; then both sides do the same pixels of the same clips, each take on its own."""
    ours = theirs = 0.0
    for path in sorted((folder / "takes").iterdir()):
        take = Take(take_id=path.name, path=str(path), sound_path=str(path), duration_s=SECONDS)
        faces = Faces().run(take)
        assert isinstance(faces, Done)
        cut = Cut().run(take=take, **{name: faces.columns[name] for name in Cut.reads() if name != "take"})
        assert isinstance(cut, Done)
        inputs = [{name: clip[name] for name in Crop.reads() if name != "take"} for clip in cut.clips or ()]
        boxes = [_boxes(Crop().run(take=take, **given)) for given in inputs]
        began = time.process_time()
        video = video_of(Take(take_id="again", path=str(path), sound_path=str(path), duration_s=SECONDS))
        for picture in video:  # what stage faces does beside looking: decode, and keep what the crop will need
            video.keep(picture, even_rect(*_union(boxes), video.width, video.height))
        for given in inputs:
            Crop().run(take=Take("again", str(path), str(path), SECONDS), **given)
        ours += time.process_time() - began
        for clip, both in zip(cut.clips or (), boxes, strict=True):
            theirs += _child_cpu(partial(_ffmpeg, path, clip, both, folder))
    return {"cpu_ratio_vs_ffmpeg": ours / theirs, "road_ratio_vs_ffmpeg": road_s / theirs}


def _boxes(outcome: Outcome) -> dict[int, np.ndarray]:
    assert isinstance(outcome, Done)
    return {size: outcome.columns[f"crop{size}_box"] for size in (256, 512)}


def _union(boxes: list[dict[int, np.ndarray]]) -> tuple[float, float, float, float]:
    corners = np.array([box for both in boxes for box in both.values()])
    x0, y0 = corners[:, :2].min(axis=0)
    x1, y1 = corners[:, 2:].max(axis=0)
    return float(x0), float(y0), float(x1), float(y1)


def _ffmpeg(path: Path, clip: dict, boxes: dict[int, np.ndarray], folder: Path) -> None:
    crops = {
        size: f"crop={x1 - x0:.0f}:{y1 - y0:.0f}:{x0:.0f}:{y0:.0f},scale={size}:{size}"
        for size, (x0, y0, x1, y1) in boxes.items()
    }
    start, seconds = clip["start_us"] / 1e6, clip["n_frames"] * clip["fps_den"] / clip["fps_num"]
    encode = ["-c:v", "libx264", "-preset", Crop().preset, "-crf", str(Crop().crf), "-threads", "1", "-g", "12", "-y"]
    filters = f"[0:v]fps=25,split=2[a][b];[a]{crops[256]}[c];[b]{crops[512]}[d]"
    outputs = [*("-map", "[c]", *encode, str(folder / "f256.mp4")), *("-map", "[d]", *encode, str(folder / "f512.mp4"))]
    source = ["-threads", "1", "-ss", f"{start:.6f}", "-t", f"{seconds:.6f}", "-i", str(path)]
    command = ["ffmpeg", "-v", "error", "-filter_threads", "1", "-filter_complex_threads", "1", *source]
    subprocess.run([*command, "-filter_complex", filters, *outputs], check=True)


def _random_reads(data: Path) -> dict[str, float]:
    """Median time of one random clip's pictures, mel and wave, files open and in the page cache."""
    dataset = Dataset(data)
    rng = np.random.default_rng(0)
    times = []
    for row in rng.integers(len(dataset), size=400):
        began = time.perf_counter()
        dataset.read(int(row), "video256", "mel", "wave")
        times.append(time.perf_counter() - began)
    return {
        "random_clip_read_ms": float(np.median(times[50:]) * 1000),
        "random_clip_read_p99_ms": float(np.quantile(times[50:], 0.99)) * 1000,
    }


def _after_a_kill(folder: Path) -> dict[str, float]:
    """Kill a build in its middle; the share of what was stored that the next run reused rather than made again."""
    arguments = [
        "build",
        "talking_clips",
        "--set",
        f"source={folder / 'takes.yaml'}",
        "--out",
        str(folder / "killed"),
        "--workers",
        "1",
    ]
    process = subprocess.Popen([*HEADLOOM, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while len(list((folder / "killed" / ".store").glob("??/*"))) < 15 and process.poll() is None:
        time.sleep(0.05)
    process.kill()
    process.wait()
    time.sleep(1.0)  # workers notice that their parent is gone
    stored = {path: path.stat().st_mtime_ns for path in (folder / "killed" / ".store").glob("??/*")}
    _build(folder, "killed")
    kept = sum(path.exists() and path.stat().st_mtime_ns == mtime for path, mtime in stored.items())
    return {"reuse_share_after_kill": kept / len(stored)}


def _peak_memory(folder: Path) -> float:
    """Largest resident memory of any process of a build of one 60 s take at 1920x1080."""
    make_takes(folder / "long", takes=1, seconds=60.0, size=(1920, 1080))
    _headloom("scan", str(folder / "long"), "-o", str(folder / "long.yaml"))
    arguments = [
        "build",
        "talking_clips",
        "--set",
        f"source={folder / 'long.yaml'}",
        "--out",
        str(folder / "longdata"),
        "--workers",
        "1",
    ]
    code = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL);"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)"
    )
    found = subprocess.run([sys.executable, "-c", code, *HEADLOOM, *arguments], check=True, capture_output=True, text=True)
    seconds = Dataset(folder / "longdata").manifest.seconds
    assert seconds > 55, f"only {seconds} s of the take became clips, so this says nothing"
    return float(found.stdout)


if __name__ == "__main__":
    os.environ.setdefault("PYTHONPATH", str(Path(__file__).parents[2]))
    print(run())
