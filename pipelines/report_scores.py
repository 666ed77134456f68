"""The scores of a dataset as small histograms: what was kept, what was refused, and the limit between them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from manifests.columns import COLUMNS
from manifests.dataset import ColumnSpec, QuarantineEntry
from manifests.reader import Dataset
from manifests.recipe import Limit

BINS = 24
_WIDTH, _HEIGHT, _TOP = 240, 92, 14
_FLOOR = 76
"""Where the bars stand; below it are the numbers of the axis."""


@dataclass(frozen=True, slots=True)
class Score:
    """One numeric column of the family ``clips``: the values of what was kept, and of what it refused.

    Values that are not finite are left out of ``kept`` and counted in ``odd``. ``of`` says what one value stands for,
    a take or a clip; a ``fact`` describes the recording, other scores judge it. ``whole``: the numbers are integers.
    """

    name: str
    unit: str
    about: str
    whole: bool
    of: str
    fact: bool
    kept: NDArray[np.float64]
    refused: NDArray[np.float64]
    odd: int
    limit: Limit | None

    @property
    def values(self) -> NDArray[np.float64]:
        return np.concatenate([self.kept, self.refused])

    @property
    def bounds(self) -> dict[str, float]:
        """The limit's ``min`` and ``max``, as far as it has them."""
        return {} if self.limit is None else self.limit.model_dump(exclude_none=True)

    @property
    def telling(self) -> bool:
        """Whether there is something to see: values that differ, or a limit."""
        return self.values.size > 0 and (self.limit is not None or bool(np.ptp(self.values) > 0))


def gather_scores(dataset: Dataset, quarantine: Iterable[QuarantineEntry]) -> list[Score]:
    """The measured columns (every float, the length, and whatever has a limit), in the order of the manifest."""
    limits = {name: Limit.model_validate(limit) for name, limit in dataset.manifest.recipe.get("limits", {}).items()}
    refused: dict[str, list[float]] = {}
    for entry in quarantine:
        if entry.score_name and entry.score is not None:
            refused.setdefault(entry.score_name, []).append(entry.score)
    scores = []
    for spec in dataset.manifest.columns:
        measured = spec.dtype.startswith("float") or spec.name == "n_frames" or spec.name in limits
        if spec.family == "clips" and not spec.shape and measured:
            scores.append(_score(dataset, spec, refused.get(spec.name, []), limits.get(spec.name)))
    return scores


def _score(dataset: Dataset, spec: ColumnSpec, refused: Sequence[float], limit: Limit | None) -> Score:
    of_take = spec.name in COLUMNS and COLUMNS[spec.name].level == "take" and "take_id" in dataset.columns
    kept = np.zeros(0)
    if spec.name in dataset.clips.column_names:
        kept = dataset.clips[spec.name].to_numpy().astype(np.float64)
        if of_take:
            kept = kept[np.unique(dataset.clips["take_id"].to_numpy(), return_index=True)[1]]
    finite = np.isfinite(kept)
    return Score(
        name=spec.name,
        unit=spec.unit,
        about=spec.about,
        whole=not spec.dtype.startswith("float"),
        of="take" if of_take else "clip",
        fact=spec.made_by == "probe" or spec.name == "n_frames",
        kept=kept[finite],
        refused=np.array([value for value in refused if np.isfinite(value)], dtype=np.float64),
        odd=int((~finite).sum()),
        limit=limit,
    )


def bin_edges(score: Score) -> NDArray[np.float64]:
    """Edges of the bins, over all values; a limit that lies near them is taken in, one far off is not.

    A limit on the axis is always an edge, so that no bar holds both what was kept and what was refused. Bins of
    whole numbers are alike many numbers wide.
    """
    low, high = float(score.values.min()), float(score.values.max())
    span = high - low
    near = [bound for bound in cuts(score).values() if span == 0 or low - span <= bound <= high + span]
    low, high = min([low, *near]), max([high, *near])
    if score.whole:
        step = np.ceil((high - low + 1) / BINS)
        anchor = near[0] if near else low - 0.5
        return np.arange(anchor - np.ceil((anchor - low) / step) * step, high + step, step)
    if high == low:
        return np.linspace(low - 0.5, high + 0.5, BINS + 1)
    width = (high - low) / BINS
    for bound in near:  # what a limit has just refused gets a bar as wide as the others, but shares stay above nought
        if low < bound < low + width:
            low = max(bound - width, 0.0 if low >= 0 else -np.inf)
        if high - width < bound < high:
            high = bound + width
    corners = sorted({low, *near, high})
    shares = [max(1, round(BINS * (b - a) / (high - low))) for a, b in pairwise(corners)]
    pieces = [np.linspace(a, b, n, endpoint=False) for (a, b), n in zip(pairwise(corners), shares, strict=True)]
    return np.concatenate([*pieces, [high]])


def cuts(score: Score) -> dict[str, float]:
    """Where on the axis the limits lie, by ``min`` and ``max``; those of whole numbers lie between two of them."""
    if not score.whole:
        return score.bounds
    return {side: np.ceil(bound) - 0.5 if side == "min" else np.floor(bound) + 0.5 for side, bound in score.bounds.items()}


def counts(score: Score) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How many kept and how many refused values lie in each bin."""
    edges = bin_edges(score)
    return np.histogram(score.kept, edges)[0], np.histogram(score.refused, edges)[0]


def scores_section(scores: Sequence[Score]) -> str:
    """The section of the page: a histogram for each telling score, and one line for those that are all the same."""
    shown = [score for score in scores if score.telling]
    if not shown:
        return '<p class="none">No scores to show.</p>'
    same = [f"{escape(s.name)} {with_unit(s.values[0], s.unit)}" for s in scores if s.values.size and not s.telling]
    return "\n".join(
        [
            '<p class="legend"><span><i class="key done"></i>kept</span>'
            '<span><i class="key rejected"></i>refused by this score; the dashed line is the limit of the recipe, '
            "the tinted side is refused</span></p>",
            '<div class="multiples">',
            *(_figure(score) for score in shown),
            "</div>",
            f'<p class="soft">The same everywhere: {", ".join(same)}.</p>' if same else "",
        ]
    )


def number(value: float) -> str:
    """A number for people: three or four digits that count, a true minus, thousands apart."""
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}" if abs(value) >= 1 else f"{value:.3g}"
    return text.replace("-", "−")


def with_unit(value: float, unit: str) -> str:
    """A number with its unit, as HTML."""
    return f"{number(value)} {escape(unit)}".strip()


def _figure(score: Score) -> str:
    values = score.values
    unit = f' <span class="soft">{escape(score.unit)}</span>' if score.unit else ""
    tally = f"{len(score.kept)} {score.of}s" + (f", {len(score.refused)} refused" if score.refused.size else "")
    tally += f", {score.odd} not a number" if score.odd else ""
    stats = zip(("min", "median", "max"), (values.min(), np.median(values), values.max()), strict=True)
    return (
        f"<figure><figcaption><b>{escape(score.name)}</b>{unit}<small>{escape(score.about)} · {tally}</small></figcaption>"
        f"{_histogram(score)}"
        f'<div class="stats">{"".join(f"<span>{name} <b>{number(value)}</b></span>" for name, value in stats)}</div></figure>'
    )


def _histogram(score: Score) -> str:
    edges = bin_edges(score)
    kept, refused = counts(score)
    low, high, tallest = float(edges[0]), float(edges[-1]), int((kept + refused).max())
    half = 0.5 if score.whole else 0.0
    xs = (edges - low) / (high - low) * _WIDTH

    def height(count: int) -> float:
        return count / tallest * (_FLOOR - _TOP)

    parts = [f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="histogram of {escape(score.name)}">']
    parts += [_refused_side(score, low, high)]
    for i in np.flatnonzero(kept + refused):
        x, width = xs[i], max(xs[i + 1] - xs[i] - 1, 1)
        top, middle = _FLOOR - height(kept[i] + refused[i]), _FLOOR - height(kept[i])
        stretch = f"{number(edges[i] + half)} to {number(edges[i + 1] - half)}"
        about = f"<title>{stretch}: {kept[i]} kept, {refused[i]} refused</title>"
        for kind, y, bottom in (("refused", top, middle), ("kept", middle, _FLOOR)):
            if bottom > y:
                parts.append(
                    f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{bottom - y:.1f}">{about}</rect>'
                )
    parts.append(f'<line class="axis" x1="0" x2="{_WIDTH}" y1="{_FLOOR}.5" y2="{_FLOOR}.5"/>')
    parts.append(f'<text x="0" y="{_HEIGHT - 4}">{number(low + half)}</text>')
    parts.append(f'<text x="{_WIDTH}" y="{_HEIGHT - 4}" text-anchor="end">{number(high - half)}</text>')
    parts += [*_limit_lines(score, low, high), "</svg>"]
    return "".join(parts)


def _refused_side(score: Score, low: float, high: float) -> str:
    """A tint over the part of the axis that the limit refuses."""
    at = cuts(score)
    spans = [(low, min(at["min"], high))] if at.get("min", low) > low else []
    spans += [(max(at["max"], low), high)] if at.get("max", high) < high else []
    scale = _WIDTH / (high - low)
    return "".join(
        f'<rect class="beyond" x="{(a - low) * scale:.1f}" y="{_TOP}" width="{(b - a) * scale:.1f}" height="{_FLOOR - _TOP}"/>'
        for a, b in spans
    )


def _limit_lines(score: Score, low: float, high: float) -> list[str]:
    """The limits as lines with their value; one that lies off the axis is written at its end with an arrow."""
    parts = []
    for side, place in cuts(score).items():
        x = float(np.clip((place - low) / (high - low) * _WIDTH, 0, _WIDTH))
        anchor = "start" if x < _WIDTH / 3 else "end" if x > _WIDTH * 2 / 3 else "middle"
        text = f"{'≥' if side == 'min' else '≤'} {number(score.bounds[side])}"
        if low <= place <= high:
            parts.append(f'<line class="limit" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP - 1}" y2="{_FLOOR}"/>')
        else:
            text = f"← {text}" if place < low else f"{text} →"
        parts.append(f'<text class="limits" x="{x:.1f}" y="{_TOP - 4}" text-anchor="{anchor}">{text}</text>')
    return parts
