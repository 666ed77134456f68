"""Fits in the report: pictures of them, curves over the frames, a table across clips, and figures against a known truth."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fitting.mesh_stage import pictures_of
from manifests.dataset import QuarantineEntry
from manifests.reader import Dataset
from manifests.recipe import Limit
from pipelines.report_page import picture
from pipelines.report_scores import number, with_unit

CLIPS = 6
"""Clips with pictures and curves."""

TABLE_ROWS = 200
NEAR = 0.8
"""A figure that has come this share of the way to its limit is marked."""

AGAINST_TRUTH = "against_truth.json"
"""Beside the dataset, where somebody who knows the truth has compared: ``{"figures": {name: number}, "goals": {name: text},
"notes": [text]}``."""

_FIGURES = (
    "flame_error_mm",
    "flame_inlier_share",
    "landmark_share",
    "nphm_identity_error_mm",
    "nphm_error_mm",
    "jitter_mae",
    "jitter_rmse",
    "jitter_autocorrelation",
)
_PICTURES = ("mesh_frames", "fit_cameras", "fit_pictures", "fit_picture_sizes")
_WIDTH, _TOP, _FLOOR, _HEIGHT = 262, 8, 88, 104


class _Chart(NamedTuple):
    """One drawing of curves over the frames, which share a unit."""

    title: str
    unit: str
    columns: Mapping[str, str]
    """What to call each column's curve; its class in the page is ``line1``, ``line2`` and so on."""
    top: float | None = None
    """Where the axis ends; without, at the greatest value."""


_CHARTS = (
    _Chart("distance from the cloud", "mm", {"flame_residual_mm": "FLAME", "nphm_residual_mm": "NPHM"}),
    _Chart(
        "share that counts in the fit",
        "",
        {"flame_inliers": "FLAME", "nphm_inliers": "NPHM", "nphm_converged": "NPHM, converged"},
        top=1.0,
    ),
    _Chart("landmarks, median distance", "px", {"landmarks3d_residual_px": "landmarks"}),
    _Chart("mean change of the expression code", "", {"nphm_expression": "NPHM"}),
)
_CURVES = tuple(column for chart in _CHARTS for column in chart.columns)


def fits_section(dataset: Dataset, quarantine: Iterable[QuarantineEntry]) -> str:
    """The section's content; empty for a dataset without fits and without ``against_truth.json``."""
    parts = [_against_truth(Path(dataset.place) / AGAINST_TRUTH)]
    if {*_FIGURES, *_CURVES, *_PICTURES} & set(dataset.columns):
        refused = [entry for entry in quarantine if entry.score_name in _FIGURES]
        parts += [_figures_table(dataset, refused), _cards(dataset)]
    return "\n".join(part for part in parts if part)


# --- figures of all clips


def _figures_table(dataset: Dataset, refused: Sequence[QuarantineEntry]) -> str:
    names = [name for name in _FIGURES if name in dataset.columns]
    if not names or not (len(dataset) or refused):
        return ""
    limits = {n: Limit.model_validate(dataset.manifest.recipe.get("limits", {})[n]) for n in names if _limited(dataset, n)}
    head = "".join(f'<th class="n">{escape(name).replace("_", "_<wbr>")}{_bounds(limits.get(name))}</th>' for name in names)
    rows = [_clip_row(clip, names, limits) for clip in dataset.clips.slice(0, TABLE_ROWS).to_pylist()]
    rows += [_refused_row(entry, names) for entry in refused[: TABLE_ROWS - len(rows)]]
    more = len(dataset) + len(refused) - len(rows)
    return (
        "<h3>Figures of the fits</h3>"
        f"<p>Marked are figures that have come {NEAR:.0%} of the way to their limit, and those by which a clip was refused. "
        "Jitter is of neighbouring expression codes: smaller differences and a greater autocorrelation are calmer.</p>"
        '<div class="scroll"><table class="fitted"><thead><tr><th>clip</th><th>person</th><th class="n">frames</th>'
        f"{head}<th>verdict</th></tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
        + (f'<p class="soft">and {more:,} more.</p>' if more else "")
    )


def _limited(dataset: Dataset, name: str) -> bool:
    return name in dataset.manifest.recipe.get("limits", {})


def _bounds(limit: Limit | None) -> str:
    if limit is None:
        return ""
    parts = [f"{sign} {number(bound)}" for sign, bound in (("≥", limit.min), ("≤", limit.max)) if bound is not None]
    return f'<br><small class="soft">{", ".join(parts)}</small>'


def _clip_row(clip: Mapping[str, Any], names: Sequence[str], limits: Mapping[str, Limit]) -> str:
    near = [name for name in names if name in limits and _near(clip[name], limits[name])]
    cells = "".join(f'<td class="n{" near" if name in near else ""}">{_value(clip[name])}</td>' for name in names)
    verdict = f'<td class="near">near the limit of {escape(", ".join(near))}</td>' if near else '<td class="check">✓</td>'
    return (
        f'<tr><td><code title="{escape(clip["clip_id"])}">{escape(clip["clip_id"][:12])}</code></td>'
        f'<td>{escape(clip.get("person", ""))}</td><td class="n">{clip["n_frames"]:,}</td>{cells}{verdict}</tr>'
    )


def _near(value: float, limit: Limit) -> bool:
    """Whether a kept value has come most of the way to its limit: errors count from 0, shares down from 1."""
    above = limit.max is not None and value > NEAR * limit.max
    below = limit.min is not None and limit.min < 1 and value < 1 - NEAR * (1 - limit.min)
    return above or below


def _refused_row(entry: QuarantineEntry, names: Sequence[str]) -> str:
    shown = "" if entry.score is None else number(entry.score)
    cells = "".join(
        f'<td class="n beyond">{shown}</td>' if name == entry.score_name else '<td class="n zero">–</td>' for name in names
    )
    limit = "" if entry.threshold is None else f" ({number(entry.threshold)})"
    return (
        f'<tr><td><code title="{escape(entry.unit)}">{escape(entry.unit[:12])}</code></td><td>{escape(entry.source_uri)}</td>'
        f'<td></td>{cells}<td class="beyond">refused: {escape(entry.reason)}{limit}</td></tr>'
    )


# --- clips one by one


def _cards(dataset: Dataset) -> str:
    rows = np.unique(np.linspace(0, len(dataset) - 1, min(CLIPS, len(dataset))).round().astype(int)).tolist()
    names = [name for name in (*_CURVES, *_PICTURES) if name in dataset.columns]
    if not rows or not names:
        return ""
    chosen = f"{len(rows)} of {len(dataset)} clips, chosen evenly" if len(rows) < len(dataset) else f"All {len(rows)} clips"
    legend = f"<p>{chosen}.</p>"
    if set(_PICTURES) <= set(names):
        legend = (
            f"<p>{chosen}. Each strip: the picture, FLAME over it, NPHM over it, and the cloud coloured by its distance from the "
            "NPHM surface; below, the NPHM meshes alone.</p>"
            '<p class="legend"><span><i class="ramp"></i>0 to 2 mm and more</span>'
            '<span><i class="key far"></i>beyond what was fitted</span></p>'
        )
    return "\n".join(["<h3>Clip by clip</h3>", legend, *(_card(dataset, row, names) for row in rows)])


def _card(dataset: Dataset, row: int, names: Sequence[str]) -> str:
    clip = {name: dataset.clips[name][row].as_py() for name in dataset.clips.column_names}
    clip |= dataset.read(row, *names)
    head = [f'<code title="{escape(clip["clip_id"])}">{escape(clip["clip_id"][:12])}</code>']
    if clip.get("person"):
        head.append(f"<b>{escape(clip['person'])}</b>")
    if clip.get("source_uri"):
        head.append(f'<span class="uri">{escape(clip["source_uri"])}</span>')
    return "".join(
        [
            f'<article class="clip fit"><header>{"".join(head)}</header>',
            _pictures(clip) if set(_PICTURES) <= set(names) else "",
            '<div class="multiples">',
            *(_chart(chart, clip) for chart in _CHARTS if set(chart.columns) & set(names)),
            "</div></article>",
        ]
    )


def _pictures(clip: Mapping[str, Any]) -> str:
    """A row for each frame, a strip for each camera; then the meshes of all frames side by side."""
    frames, cameras = clip["mesh_frames"].tolist(), clip["fit_cameras"].split("\n")
    rows: list[list[str]] = []
    meshes = []
    for frame, files in zip(frames, pictures_of(clip["fit_pictures"], clip["fit_picture_sizes"], len(frames)), strict=True):
        *strips, mesh = files
        rows.append([picture(file, f"frame {frame} · camera {name}") for name, file in zip(cameras, strips, strict=True)])
        meshes.append(picture(mesh, f"frame {frame} · the mesh alone"))
    return "".join(f'<div class="fits">{"".join(figures)}</div>' for figures in (*rows, meshes))


def _track(name: str, column: NDArray[Any]) -> NDArray[np.float64]:
    """One number for each frame (T,), NaN where there is none."""
    values = column.astype(np.float64)
    if name == "nphm_expression":
        return np.concatenate([[np.nan], np.abs(np.diff(values, axis=0)).mean(axis=1)])
    if values.ndim == 1:
        return values
    there = np.isfinite(values).any(axis=1)
    track = np.full(len(values), np.nan)
    track[there] = np.nanmedian(values[there], axis=1)
    return track


def _chart(chart: _Chart, clip: Mapping[str, Any]) -> str:
    """Curves from 0 up, over the frames. Upright lines are the frames with meshes."""
    tracks = {name: _track(name, clip[name]) for name in chart.columns if name in clip}
    finite = np.concatenate([track[np.isfinite(track)] for track in tracks.values()])
    high = chart.top or float(finite.max(initial=0.0)) or 1.0
    last = max(len(next(iter(tracks.values()))) - 1, 1)
    parts = [f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(chart.title)} over the frames">']
    for frame in clip.get("mesh_frames", np.zeros(0)).tolist():
        x = frame / last * _WIDTH
        parts.append(f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{_FLOOR}"/>')
    for place, name in enumerate(chart.columns):
        if name in tracks:
            parts.append(f'<path class="line{place + 1}" d="{_path(tracks[name], high, last)}"/>')
    parts.append(f'<line class="axis" x1="0" x2="{_WIDTH}" y1="{_FLOOR}.5" y2="{_FLOOR}.5"/>')
    parts.append(f'<text x="0" y="{_HEIGHT - 4}">frame 0</text>')
    parts.append(f'<text x="{_WIDTH}" y="{_HEIGHT - 4}" text-anchor="end">{last}</text></svg>')
    stats = [
        f'<span><i class="key line{place + 1}"></i>{escape(about)} <b>{_mean(tracks[name])}</b></span>'
        for place, (name, about) in enumerate(chart.columns.items())
        if name in tracks
    ]
    unit = f' <span class="soft">{escape(chart.unit)}</span>' if chart.unit else ""
    note = f"from 0 to {with_unit(high, chart.unit)}" if finite.size else "no frame has a value"
    return (
        f"<figure><figcaption><b>{escape(chart.title)}</b>{unit}<small>{note}; means are below</small></figcaption>"
        f'{"".join(parts)}<div class="legend">{"".join(stats)}</div></figure>'
    )


def _path(track: NDArray[np.float64], high: float, last: int) -> str:
    """The curve, broken where there is no value; a value alone between two gaps is a short dash."""
    xs = np.arange(len(track)) / last * _WIDTH
    ys = _FLOOR - np.clip(track / high, 0, 1) * (_FLOOR - _TOP)
    known = np.isfinite(track)
    parts = []
    for run in np.split(np.arange(len(track)), np.flatnonzero(np.diff(known)) + 1):
        if not known[run[0]]:
            continue
        points = [f"{xs[k]:.1f},{ys[k]:.1f}" for k in run]
        parts.append("M" + "L".join(points) + ("h2" if len(run) == 1 else ""))
    return "".join(parts)


def _mean(track: NDArray[np.float64]) -> str:
    finite = track[np.isfinite(track)]
    return number(float(finite.mean())) if finite.size else "–"


# --- a known truth


def _against_truth(path: Path) -> str:
    """The table of figures, goals beside them; what the file holds instead of numbers and texts is shown as it stands."""
    if not path.is_file():
        return ""
    try:
        held = json.loads(path.read_text("utf-8"))
        figures, goals = dict(held["figures"]), dict(held.get("goals", {}))
        notes = [str(note) for note in held.get("notes", [])]
    except (ValueError, KeyError, TypeError, AttributeError):
        return f'<h3>Against the truth</h3><p class="alarm">{AGAINST_TRUTH} is not of the kind that can be shown.</p>'
    rows = "".join(
        f'<tr><td>{escape(name)}</td><td class="n">{_value(value)}</td><td>{escape(str(goals.get(name, "")))}</td></tr>'
        for name, value in figures.items()
    )
    told = "".join(f'<p class="soft">{escape(note)}</p>' for note in notes)
    return (
        '<h3>Against the truth</h3><div class="scroll"><table class="narrow"><thead><tr><th>figure</th><th class="n">value</th>'
        f"<th>goal</th></tr></thead><tbody>{rows}</tbody></table></div>{told}"
    )


def _value(value: Any) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return number(value) if math.isfinite(value) else "–"
    return escape(str(value))
