"""What the demo says of its captures. That it runs is shown by ``make demo``, which CI calls."""

import json
import shutil
from pathlib import Path

import pytest

from pipelines.demo import write_against_truth
from pipelines.report import write_report


def test_the_truths_figures_come_into_the_report(facetalk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADLOOM_MODELS", str(facetalk / "models"))
    dataset = tmp_path / "data"
    shutil.copytree(facetalk / "data", dataset, ignore=shutil.ignore_patterns(".store"))
    figures = write_against_truth(dataset, facetalk / "data", facetalk / "rig")
    held = json.loads((dataset / "against_truth.json").read_text())
    assert held["figures"] == figures
    assert set(held["goals"]) <= set(figures)
    assert 0 < figures["depth_median_mm"] < 0.5
    write_report(dataset, dataset / "report.html")
    page = (dataset / "report.html").read_text("utf-8")
    assert all(name in page for name in held["goals"])
