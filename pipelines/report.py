"""The report: one self-contained HTML page about a dataset, for the person who built it.

The page is made from what lies in the dataset's folder. Histograms are made in ``report_scores``, pictures in
``report_clips``, fits in ``report_fits``; here are the tables. Whatever comes from data is escaped, and the page itself
forbids scripts and loading.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import yaml

from manifests.atomic import write_whole
from manifests.dataset import Account, DatasetManifest, QuarantineEntry, ShardFile
from manifests.reader import Dataset
from pipelines.build import RUN_FILE
from pipelines.console import duration, size
from pipelines.report_clips import contact_sheet
from pipelines.report_fits import fits_section
from pipelines.report_page import Section, table
from pipelines.report_page import page as page_of
from pipelines.report_scores import gather_scores, number, scores_section

QUARANTINE_ROWS = 200
SHARD_ROWS = 400


def write_report(dataset: Path, page: Path) -> None:
    """Write the report on the dataset in folder ``dataset`` to ``page``, atomically.

    Raises ``ManifestError`` when there is no dataset. Families and columns may be absent, and so may ``run.json``:
    what is not there is not shown.
    """
    data = Dataset(dataset)
    manifest = data.manifest
    refused = _read_quarantine(dataset, manifest)
    run = _read_run(dataset)
    scores = gather_scores(data, refused)
    sections = [
        Section("account", "Account", "What became of every item", _reuse(run, manifest) + _account_table(manifest, run)),
        Section("scores", "Scores", "Scores and limits", scores_section(scores)),
        Section("clips", "Clips", "Clips", contact_sheet(data, [s for s in scores if s.telling and not s.fact])),
        Section("fits", "Fits", "Fits", fits_section(data, refused)),
        Section("quarantine", "Quarantine", "Quarantine", _quarantine(refused, manifest)),
        Section("provenance", "Provenance", "Provenance", _provenance(manifest)),
    ]
    write_whole(page, page_of(f"{manifest.name} {manifest.version}", _overview(data), sections))


def _read_quarantine(dataset: Path, manifest: DatasetManifest) -> list[QuarantineEntry]:
    """The page is written also for a dataset that lost its list; it says so."""
    return manifest.quarantine.read(dataset) if (dataset / manifest.quarantine.file).is_file() else []


def _read_run(dataset: Path) -> dict[str, Any]:
    path = dataset / RUN_FILE
    return dict(json.loads(path.read_text("utf-8"))) if path.is_file() else {}


def _count(value: int) -> str:
    """A cell with a count; nought recedes, so that what is there stands out."""
    return f'<td class="n{"" if value else " zero"}">{value:,}</td>'


def _short(digest: str) -> str:
    return f'<code title="{escape(digest)}">{escape(digest[:12])}</code>' if digest else '<span class="none">none</span>'


def _bar(parts: Iterable[tuple[str, int]], whole: int) -> str:
    """A thin stacked bar; ``parts`` are (class, count), ``whole`` the count that fills it."""
    pieces = (f'<i class="{kind}" style="width:{100 * count / max(whole, 1):.2f}%"></i>' for kind, count in parts if count)
    return f'<div class="bar">{"".join(pieces)}</div>'


# --- what the dataset is


def _overview(data: Dataset) -> str:
    manifest = data.manifest
    sizes = _sizes(manifest)
    figures = {
        "clips": f"{manifest.clips:,}",
        "total time": duration(manifest.seconds),
        "frames": f"{manifest.frames:,}",
        **_distinct(data, {"takes": "take_id", "people": "person"}),
        "size": size(sum(sizes.values())),
    }
    badges = [
        '<span class="badge warn">contains stand-ins: made by headloom, not recorded</span>'
        if manifest.contains_stand_ins
        else '<span class="badge plain">no stand-ins</span>',
        f'<span class="badge plain">{"personal data" if manifest.contains_personal_data else "no personal data"}</span>',
        f'<span class="badge plain">licence: {escape(manifest.licence)}</span>' if manifest.licence else "",
    ]
    source = manifest.source
    facts = {
        "digest": f"<code>{escape(manifest.digest) or 'none'}</code>",
        "source": f"{escape(source.name)}, {source.items:,} items, digest {_short(source.digest)}",
        "notes": escape(manifest.notes),
    }
    parts = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in facts.items() if value)
    tiles = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in figures.items())
    return "\n".join(
        [
            f"<h1>{escape(manifest.name)}<small>{escape(manifest.version)}</small></h1>",
            "<nav/>",
            f'<dl class="figures">{tiles}</dl><p>{"".join(badges)}</p><dl class="facts">{parts}</dl>',
            _families(manifest, sizes),
        ]
    )


def _distinct(data: Dataset, wanted: Mapping[str, str]) -> dict[str, str]:
    """Numbers of different takes and people, where the clip index tells; unknown people are not counted."""
    there = {name: column for name, column in wanted.items() if column in data.clips.column_names}
    return {name: f"{len(set(data.clips[column].to_pylist()) - {''}):,}" for name, column in there.items()}


def _sizes(manifest: DatasetManifest) -> dict[str, int]:
    """Bytes of each family."""
    return {name: sum(part.files[name].bytes for part in manifest.parts) for name in manifest.families}


def _families(manifest: DatasetManifest, sizes: Mapping[str, int]) -> str:
    largest = max(sizes.values(), default=0)
    rows = []
    for name, count in sizes.items():
        columns = ", ".join(f"<code>{escape(c.name)}</code>" for c in manifest.columns if c.family == name)
        rate = f"{size(count / manifest.seconds)}/s" if manifest.seconds else ""
        rows.append(
            f'<tr><td><b>{escape(name)}</b></td><td class="n">{size(count)}</td><td class="n">{rate}</td>'
            f'<td>{_bar([("done", count)], largest)}</td><td class="wide">{columns}</td></tr>'
        )
    return "<h3>Families</h3>" + table(["family", "#size", "#per second", "", "columns"], rows)


# --- what became of every item


def _reuse(run: Mapping[str, Any], manifest: DatasetManifest) -> str:
    """In words, how much the last run could take from the store."""
    if not run:
        return f'<p class="none">There is no {RUN_FILE} beside the dataset, so nothing is known of the last run.</p>'
    if run.get("digest") != manifest.digest:
        return f'<p class="none">{RUN_FILE} tells of another build than {escape(manifest.digest[:12])}; it is left out.</p>'
    computed, reused = (sum(row[what] for row in run["stages"]) for what in ("computed", "reused"))
    seconds = sum(row["seconds"] for row in run["stages"])
    share = f" ({reused / (computed + reused):.0%})" if computed + reused else ""
    return (
        f"<p>In the last run, <b>{reused:,} of {computed + reused:,} results{share} were reused</b>; {computed:,} were computed, "
        f"in {duration(seconds)} of work. The run took {duration(run['wall_s'])} by the clock for {duration(run['media_s'])} of "
        f"media and began at {escape(run['began'])}.</p>"
    )


def mistakes(accounts: Sequence[Account], clips: int) -> list[str]:
    """What is wrong with each account, or an empty text.

    In must be done + rejected + failed + duplicate; what a stage has done must come into the next of its level; and
    the clips that the last stage has done are the dataset.
    """
    found = []
    for place, account in enumerate(accounts):
        ends = account.done + sum(account.rejected.values()) + sum(account.failed.values()) + account.duplicate
        before = next((a for a in reversed(accounts[:place]) if a.level == account.level), None)
        if not account.adds_up:
            found.append(f"{account.entered:,} in, but {ends:,} accounted for")
        elif before is not None and before.done != account.entered:
            found.append(f"{before.stage} handed on {before.done:,}")
        elif place == len(accounts) - 1 and account.level == "clip" and account.done != clips:
            found.append(f"the dataset holds {clips:,}")
        else:
            found.append("")
    return found


def _account_table(manifest: DatasetManifest, run: Mapping[str, Any]) -> str:
    accounts = manifest.accounting
    if not accounts:
        return '<p class="none">The manifest holds no accounts.</p>'
    current = run.get("digest") == manifest.digest
    work = {(row["stage"], row["level"]): row for row in run["stages"]} if current else {}
    wrong = mistakes(accounts, manifest.clips)
    largest = Counter[str]()
    for account in accounts:
        largest[account.level] = max(largest[account.level], account.entered)
    rows = []
    for place, (account, mistake) in enumerate(zip(accounts, wrong, strict=True)):
        ends_level = account.level != (accounts[place + 1].level if place + 1 < len(accounts) else account.level)
        own = work.get((account.stage, account.level), {}) if work else None
        rows.append(_account_row(account, mistake, own, largest[account.level], ends_level))
    head = ["stage", "of", "#in", "of which", "#done", "#rejected", "#failed", "#duplicate", "check"]
    head += ["#computed", "#reused", "#seconds", "#per media s"] if work else []
    verdict = (
        f'<p class="alarm">{sum(map(bool, wrong))} of {len(wrong)} accounts do not add up; they are marked below.</p>'
        if any(wrong)
        else "<p>Nothing got lost: at every stage in = done + rejected + failed + duplicate, "
        "and what one stage hands on comes into the next.</p>"
    )
    legend = "".join(f'<span><i class="key {kind}"></i>{kind}</span>' for kind in ("done", "rejected", "failed", "duplicate"))
    return verdict + f'<p class="legend">{legend}</p>' + table(head, rows)


def _account_row(account: Account, mistake: str, work: Mapping[str, Any] | None, largest: int, ends_level: bool) -> str:
    rejected, failed = sum(account.rejected.values()), sum(account.failed.values())
    losses = [("done", account.done), ("rejected", rejected), ("failed", failed), ("duplicate", account.duplicate)]
    why = [
        f'<div><i class="key {kind}"></i>{count:,} × {escape(reason)}</div>'
        for kind, reasons in (("rejected", account.rejected), ("failed", account.failed))
        for reason, count in sorted(reasons.items(), key=lambda item: -item[1])
    ]
    cells = [
        f"<td><b>{escape(account.stage)}</b></td><td>{escape(account.level)}s</td>",
        f'<td class="n">{account.entered:,}</td><td class="wide">{_bar(losses, largest)}{"".join(why)}</td>',
        *(_count(count) for _, count in losses),
        f'<td class="check">{"✗ " + mistake if mistake else "✓ adds up"}</td>',
    ]
    if work:
        rate = f"{work['seconds'] / work['media_s']:.3f}" if work["media_s"] else ""
        cells += [_count(work["computed"]), _count(work["reused"])]
        cells.append(f'<td class="n">{work["seconds"]:,.1f}</td><td class="n">{rate}</td>')
    elif work is not None:
        cells.append('<td colspan="4"></td>')
    classes = " ".join(name for name, on in (("wrong", mistake), ("break", ends_level)) if on)
    return f'<tr class="{classes}">{"".join(cells)}</tr>'


# --- what was refused


def _quarantine(entries: Sequence[QuarantineEntry], manifest: DatasetManifest) -> str:
    if not entries:
        if manifest.quarantine.count:
            lost = f"{manifest.quarantine.file} is missing or empty; it listed {manifest.quarantine.count}"
            return f'<p class="alarm">{escape(lost)}.</p>'
        return '<p class="none">Nothing was refused.</p>'
    groups: dict[tuple[str, str, str], list[QuarantineEntry]] = {}
    for entry in entries:
        groups.setdefault((entry.outcome, entry.reason, entry.stage), []).append(entry)
    shown = shares([len(group) for group in groups.values()], QUARANTINE_ROWS)
    # What failed comes first: it is what one can mend.
    outcomes = ("failed", "rejected", "duplicate")
    order = sorted(zip(groups.items(), shown, strict=True), key=lambda item: (outcomes.index(item[0][0][0]), -len(item[0][1])))
    rows = []
    for ((outcome, reason, stage), group), count in order:
        part = f", {count} shown" if count < len(group) else ""
        rows.append(
            f'<tr class="group"><th colspan="6"><i class="key {outcome}"></i>{outcome} at {escape(stage)}: {escape(reason)} '
            f'<span class="soft">{len(group):,}{part}</span></th></tr>'
        )
        rows += [_refused_row(entry) for entry in group[:count]]
    more = len(entries) - sum(shown)
    rest = f'<p class="soft">and {more:,} more; <code>headloom quarantine</code> lists all.</p>' if more else ""
    return f"<p>{len(entries):,} items.</p>" + table(["source", "of", "unit", "#score", "#limit", "message"], rows) + rest


def shares(sizes: Sequence[int], most: int) -> list[int]:
    """How many of each group to show when ``most`` rows are to be had: small groups whole, large ones alike."""
    given = [0] * len(sizes)
    left = most
    for rank, place in enumerate(sorted(range(len(sizes)), key=lambda place: sizes[place])):
        given[place] = min(sizes[place], left // (len(sizes) - rank))
        left -= given[place]
    return given


def _refused_row(entry: QuarantineEntry) -> str:
    score, threshold = ("" if value is None else number(value) for value in (entry.score, entry.threshold))
    return (
        f'<tr><td class="wide">{escape(entry.source_uri)}</td><td>{escape(entry.level)}</td><td>{_short(entry.unit)}</td>'
        f'<td class="n">{score}</td><td class="n">{threshold}</td><td class="wide">{escape(entry.message)}</td></tr>'
    )


# --- how it was made


def _provenance(manifest: DatasetManifest) -> str:
    stages = []
    for stage in manifest.stages:
        parameters = ", ".join(f"<code>{escape(f'{name}={value}')}</code>" for name, value in stage.parameters.items())
        models = "<br>".join(f"{escape(name)} {_short(digest)}" for name, digest in stage.models.items())
        writes = ", ".join(f"<code>{escape(name)}</code>" for name in stage.writes)
        stages.append(
            f'<tr><td><b>{escape(stage.name)}</b></td><td>{escape(stage.level)}s</td><td class="n">{stage.version}</td>'
            f'<td class="wide">{parameters}</td><td class="wide">{models}</td><td class="wide">{writes}</td></tr>'
        )
    versions = "".join(f"<dt>{escape(name)}</dt><dd>{escape(version)}</dd>" for name, version in manifest.environment.items())
    recipe = yaml.safe_dump(manifest.recipe, sort_keys=False, allow_unicode=True, width=100)
    files = [file for part in manifest.parts for file in part.files.values()]
    more = f'<p class="soft">and {len(files) - SHARD_ROWS:,} more.</p>' if len(files) > SHARD_ROWS else ""
    return "\n".join(
        [
            "<h3>Stages</h3>",
            table(["stage", "of", "#version", "parameters", "model files", "writes"], stages),
            f'<h3>Environment</h3><dl class="facts">{versions}</dl>',
            f"<details><summary>Recipe</summary><p>digest <code>{escape(manifest.recipe_digest)}</code></p>"
            f"<pre>{escape(recipe)}</pre></details>",
            f"<details><summary>{len(files):,} shard files</summary>",
            table(["file", "#size", "sha256"], (_file_row(file) for file in files[:SHARD_ROWS])),
            f"{more}</details>",
        ]
    )


def _file_row(file: ShardFile) -> str:
    return (
        f'<tr><td><code>{escape(file.path)}</code></td><td class="n">{size(file.bytes)}</td><td>{_short(file.sha256)}</td></tr>'
    )
