"""FaceTalk's data path from end to end, against the truth: two people of the studio (seed 0), 16 cameras of 550 x 802, a second.

The captures are recorded, built with the recipe ``facetalk_nphm`` (depth by stereo, landmarks with half a pixel of noise,
identity codes given), built again without the temporal term, and judged. Speeds are those of the benches ``flame_fit`` and
``nphm_fit``, which have more to say of each.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from fitting.studio.judge import GOALS as JUDGED
from fitting.studio.judge import depth_median_mm, judge
from manifests.assets import looking_in
from manifests.reader import Dataset
from pipelines import demo
from pipelines.cli import Layout, RunnerName, run_build, studio
from prep.capture import find_captures
from tests.bench import flame_fit, nphm_fit

GOALS = {**JUDGED, "flame_speedup": "≥ 10", "nphm_speedup": "≥ 8"}

SECONDS, SIZE, PEOPLE = 1.0, (550, 802), 2


def run() -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        figures = built(Path(folder))
    figures["flame_speedup"] = flame_fit.run()["flame_speedup"]
    truth = nphm_fit.spoken(nphm_fit.PEOPLE[0], nphm_fit.REFERENCE.window)
    speed, _ = nphm_fit.speed_figures(truth)
    return figures | {"nphm_speedup": speed["nphm_speedup"]}


def built(folder: Path) -> dict[str, float]:
    """Record, build twice, judge."""
    captures, dataset, untied = folder / "captures", folder / "facetalk", folder / "untied"
    picture = f"{SIZE[0]}x{SIZE[1]}"
    layout = Layout.nersemble
    studio(captures, PEOPLE, PEOPLE, 16, layout, SECONDS, picture, 0, None, 1.0, folder / "models", 0)
    with looking_in(folder / "models"):
        settings = [*demo.settings(captures), "stages.clouds.points=50000", "stages.meshes.resolution=128"]
        run_build("facetalk_nphm", settings, dataset, RunnerName.local, "", 0)
        run_build("facetalk_nphm", demo.untied(settings, dataset), untied, RunnerName.local, "", 0)
        figures = judge(Dataset(dataset), captures, Dataset(untied))
    depths = [depth_median_mm(capture) for capture in find_captures(captures)]
    work = {row["stage"]: row["seconds"] for row in json.loads((dataset / "run.json").read_text())["stages"]}
    frames = Dataset(dataset).manifest.frames
    seconds = {f"{name}_s_per_frame": work[name] / frames for name in ("clouds", "landmarks", "flame", "nphm", "meshes")}
    return {"depth_median_mm": sum(depths) / len(depths), **figures, "frames": float(frames), **seconds}
