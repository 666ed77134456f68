"""How long the studio takes to record: four takes with one camera, one with sixteen, on all cores, processes' start included."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from fitting.studio.acting import Conditions
from fitting.studio.captures import record_captures
from fitting.studio.takes import record_takes

GOALS = {"four_takes_s": "< 60", "sixteen_cameras_s": "< 240"}


def run() -> dict[str, float]:
    """Seconds for four takes of 4 s at 256x256, and for 24 frames of sixteen cameras at 550x802."""
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        record_takes(Path(folder) / "takes", 4, 3, Conditions(seconds=4.0, size=(256, 256)))
        takes = time.perf_counter() - begun
        begun = time.perf_counter()
        record_captures(Path(folder) / "rig", 1, 1, Conditions(seconds=0.98, size=(550, 802)))
        return {"four_takes_s": takes, "sixteen_cameras_s": time.perf_counter() - begun}
