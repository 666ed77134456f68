"""The report on a training run: curves of its log, its last figures, pictures that it made, and what was sampled of it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from manifests.atomic import write_whole
from manifests.document import ManifestError
from manifests.training import RUN_MANIFEST, TrainingManifest
from pipelines.console import duration
from pipelines.report_page import Section, page, picture, table
from pipelines.report_scores import number
from training.log import PICTURES, read_log

SAMPLES = "samples"
"""Folder in a run's: what was made with its checkpoints. Its PNG pictures are shown, and ``samples.json``, where somebody who
knows the truth has compared: ``{"figures": {name: number}, "notes": [text]}``."""

FIGURES = "samples.json"

_POINTS = 400
"""Of a curve."""
_WIDTH, _TOP, _FLOOR, _HEIGHT = 262, 8, 88, 104
_KINDS = {"train": ("line1", "training"), "val": ("line2", "validation")}
"""Of the log's lines: class in the page, and name."""
_APART = ("learning rate factor", "samples per second", "replaced")
"""Figures of the log that are no curves of learning."""


class _Curve(NamedTuple):
    steps: list[int]
    values: list[float]


def write_run_report(run: Path, place: Path) -> None:
    """Write the report on the run in folder ``run`` to ``place``. Raises ``ManifestError`` when nothing was logged there."""
    manifest = TrainingManifest.load(run / RUN_MANIFEST)
    lines = read_log(run)
    if not lines:
        raise ManifestError(f"{run}: nothing is logged there yet; train first")
    sections = [
        Section("samples", "Samples", "What it makes", _samples(run / SAMPLES)),
        Section("curves", "Curves", "Curves", _charts(lines)),
        Section("validation", "Validation", "The last validation", _validation(run, lines)),
        Section("manifest", "Manifest", "Manifest", _manifest(manifest)),
    ]
    write_whole(place, page(f"{manifest.name} {manifest.version}", _overview(manifest, lines), sections))


def _overview(manifest: TrainingManifest, lines: Sequence[Mapping[str, Any]]) -> str:
    trained = [line for line in lines if line["kind"] == "train"]
    rate = trained[-1]["samples per second"] if trained else None
    figures = {
        "model": escape(manifest.model),
        "steps": f"{lines[-1]['step']:,} of {manifest.training.steps:,}",
        "global batch": f"{manifest.global_batch:,}",
        "samples per second": number(rate) if rate else "–",
        "time for 1000 steps": duration(1000 * manifest.global_batch / rate) if rate else "–",
    }
    tiles = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in figures.items())
    return (
        f"<h1>{escape(manifest.name)}<small>{escape(manifest.version)}</small></h1><nav/>"
        f'<dl class="figures">{tiles}</dl><p>{escape(manifest.notes)}</p>'
    )


def _samples(folder: Path) -> str:
    shown = "".join(picture(path.read_bytes(), path.stem, "png") for path in sorted(folder.glob("*.png")))
    told = ""
    if (folder / FIGURES).is_file():
        held = json.loads((folder / FIGURES).read_text())
        told = _figures_table(held["figures"]) + "".join(f'<p class="soft">{escape(note)}</p>' for note in held["notes"])
    return (f'<div class="wide">{shown}</div>' if shown else "") + told


def _charts(lines: Sequence[Mapping[str, Any]]) -> str:
    """A drawing for each figure, training and validation over each other."""
    curves: dict[str, dict[str, _Curve]] = {}
    for line in lines:
        for name, value in line.items():
            if name not in ("step", "kind", *_APART) and value is not None:
                curve = curves.setdefault(name, {}).setdefault(line["kind"], _Curve([], []))
                curve.steps.append(line["step"])
                curve.values.append(value)
    drawn = "".join(_chart(name, kinds) for name, kinds in curves.items())
    legend = '<span><i class="key line1"></i>training</span><span><i class="key line2"></i>validation</span>'
    return f'<p class="legend">{legend}</p><div class="multiples">{drawn}</div>'


def _chart(name: str, kinds: Mapping[str, _Curve]) -> str:
    values = [value for curve in kinds.values() for value in curve.values]
    low, high = min(0.0, *values), max(0.0, *values)
    last = max(curve.steps[-1] for curve in kinds.values())
    top = high if high > low else low + 1
    paths = "".join(f'<path class="{_KINDS[kind][0]}" d="{_path(c, low, top, last)}"/>' for kind, c in kinds.items())
    final = ", ".join(f"{_KINDS[kind][1]} {number(curve.values[-1])}" for kind, curve in kinds.items())
    note = f"{number(low)} to {number(high)}; at last {final}"
    return (
        f"<figure><figcaption><b>{escape(name)}</b><small>{note}</small></figcaption>"
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(name)} over the steps">{paths}'
        f'<line class="axis" x1="0" x2="{_WIDTH}" y1="{_FLOOR}.5" y2="{_FLOOR}.5"/><text x="0" y="{_HEIGHT - 4}">step 0</text>'
        f'<text x="{_WIDTH}" y="{_HEIGHT - 4}" text-anchor="end">{last:,}</text></svg></figure>'
    )


def _path(curve: _Curve, low: float, high: float, last: int) -> str:
    every = math.ceil(len(curve.steps) / _POINTS)
    points = [
        f"{step / last * _WIDTH:.1f},{_FLOOR - (value - low) / (high - low) * (_FLOOR - _TOP):.1f}"
        for step, value in zip(curve.steps[::every], curve.values[::every], strict=True)
    ]
    return "M" + "L".join(points) + ("h2" if len(points) == 1 else "")


def _validation(run: Path, lines: Sequence[Mapping[str, Any]]) -> str:
    found = [line for line in lines if line["kind"] == "val"]
    if not found:
        return '<p class="none">Nobody was kept back to validate on.</p>'
    figures = {name: value for name, value in found[-1].items() if name not in ("step", "kind")}
    places = sorted((run / PICTURES).glob("step-*"))
    shown = "".join(picture(path.read_bytes(), path.stem, "png") for path in sorted(places[-1].glob("*.png"))) if places else ""
    return f"<p>At step {found[-1]['step']:,}.</p>{_figures_table(figures)}<div>{shown}</div>"


def _figures_table(figures: Mapping[str, Any]) -> str:
    rows = (
        f'<tr><td>{escape(name)}</td><td class="n">{"–" if value is None else number(value)}</td></tr>'
        for name, value in figures.items()
    )
    return table(["figure", "#value"], rows).replace("<table>", '<table class="narrow">')


def _manifest(manifest: TrainingManifest) -> str:
    text = yaml.safe_dump(manifest.model_dump(mode="json", exclude_defaults=True), sort_keys=False, allow_unicode=True)
    return f"<pre>{escape(text)}</pre>"
