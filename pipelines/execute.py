"""Running the stages of one take, in one process: what is stored is reused, the rest is computed and stored.

All stages of a take run one after another in the same worker, so that its decoded frames never leave it; what goes
back is a short account and the keys of the results.
"""

from __future__ import annotations

import faulthandler
import hashlib
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from manifests.document import ManifestError, digest_of, file_digest
from manifests.stage import PASSING_FAILURES, Failed, Outcome, Rejected, Take, Unreadable
from pipelines.environment import environment
from pipelines.plan import Plan, PlannedStage
from pipelines.store import DamagedResult, Result, Store
from prep.capture import open_capture
from prep.codes import LAYOUT as CODES
from prep.codes import open_codes


@dataclass(frozen=True, slots=True)
class TakeTask:
    """One take to run. ``source`` holds the columns of the source manifest; the digests are those of its files."""

    take: Take
    source: Mapping[str, Any]
    sha256: str
    sound_sha256: str

    @property
    def name(self) -> str:
        return self.take.take_id


@dataclass(frozen=True, slots=True)
class Event:
    """What became of one unit (take or clip) at one stage.

    ``seconds`` is the time of computing, 0 when reused; ``media_s`` the length of the unit.
    """

    stage: str
    level: str
    unit: str
    outcome: str
    key: str
    reused: bool = False
    seconds: float = 0.0
    media_s: float = 0.0
    media_bytes: int = 0
    reason: str = ""
    message: str = ""
    score_name: str = ""
    score: float | None = None
    threshold: float | None = None


@dataclass(frozen=True, slots=True)
class ClipRow:
    """A clip that passed every stage: where each stage's result for it is stored, as (key, row)."""

    clip_id: str
    n_frames: int
    seconds: float
    source: Mapping[str, Any]
    results: Mapping[str, tuple[str, int]]


@dataclass(slots=True)
class TakeReport:
    """All that a worker sends back for one take."""

    task: TakeTask
    events: list[Event] = field(default_factory=list)
    clips: list[ClipRow] = field(default_factory=list)
    made_with: list[Mapping[str, str]] = field(default_factory=list)
    """The environments, all different, in which the results were made."""
    missing: list[tuple[str, float]] = field(default_factory=list)
    """With ``compute=False``: the first stage that is not stored and the seconds of media that it would work on."""


@dataclass(frozen=True, slots=True)
class _Cell:
    """A column's value for one unit: its key, where it is stored, and how to load it."""

    key: str
    load: Callable[[], Any]
    stored_at: tuple[str, int] | None = None


def _same(value: Any) -> Any:
    return value


class _NotStored(Exception):
    pass


def partial_folder(key: str) -> str:
    """Where the store keeps what was done so far of the result with this key."""
    return f"partial/{key}"


@dataclass(frozen=True, slots=True)
class _StoredPartial:
    """``manifests.stage.Partial`` in the store. Each piece is kept with its digest: a damaged one is made again."""

    store: Store
    folder: str

    def read(self, name: str) -> bytes | None:
        stored = self.store.read_note(f"{self.folder}/{name}")
        if stored is None or hashlib.sha256(stored[32:]).digest() != stored[:32]:
            return None
        return stored[32:]

    def write(self, name: str, data: bytes) -> None:
        self.store.write_note(f"{self.folder}/{name}", hashlib.sha256(data).digest() + data)


@dataclass(slots=True)
class TakeRun:
    """One pass over a take's stages. With ``compute=False`` nothing is computed: the pass ends where results end."""

    plan: Plan
    store: Store
    task: TakeTask
    marker: str = ""
    compute: bool = True
    _checked: bool = False

    def run(self) -> TakeReport:
        """Run all stages. A damaged stored result is dropped and made again."""
        for _ in range(100):
            try:
                return self._run()
            except DamagedResult as damaged:
                self.store.discard(damaged.key)
        raise RuntimeError(f"store {self.store.url}: results of take {self.task.name} stay damaged; check the disk")

    def _run(self) -> TakeReport:
        report = TakeReport(self.task)
        take = self.task.take
        columns = {name: _Cell(digest_of(value), partial(_same, value)) for name, value in self.task.source.items()}
        columns["take"] = _Cell(take.take_id, partial(_same, take))
        clips: list[dict[str, _Cell]] = []
        stages = iter(self.plan.stages)
        try:
            for planned in stages:
                result = self._step(report, planned, take.take_id, columns)
                if result is None:
                    return report
                if planned.stage.cuts:
                    clips = [columns | _cells(result, planned, row, by_content=True) for row in range(len(result.rows))]
                    clips = [cells for cells in clips if self._within_limits(report, planned, cells, result)]
                    break
                columns |= _cells(result, planned, 0)
                if not self._within_limits(report, planned, columns, result):
                    return report
        except _NotStored:
            return report
        rest = tuple(stages)
        for cells in clips:
            self._run_clip(report, rest, cells)
        return report

    def _run_clip(self, report: TakeReport, stages: Sequence[PlannedStage], cells: dict[str, _Cell]) -> None:
        clip_id = cells["clip_id"].load()
        for planned in stages:
            try:
                result = self._step(report, planned, clip_id, cells)
            except _NotStored:
                return
            if result is None:
                return
            cells |= _cells(result, planned, 0)
            if not self._within_limits(report, planned, cells, result):
                return
        frames, seconds = cells["n_frames"].load(), _length_s(cells)
        makers = self.plan.makers
        results = {makers[name]: cell.stored_at for name, cell in cells.items() if cell.stored_at is not None}
        report.clips.append(ClipRow(clip_id, frames, seconds, self.task.source, results))

    def _step(self, report: TakeReport, planned: PlannedStage, unit: str, cells: Mapping[str, _Cell]) -> Result | None:
        """The stored or computed result of one stage for one unit; ``None`` when it was rejected or failed."""
        inputs = {name: cells[name] for name in planned.stage.reads()}
        key = planned.key({name: cell.key for name, cell in inputs.items()})
        result, seconds = self.store.get(key), 0.0
        reused = result is not None
        if result is None:
            if not self.compute:
                report.missing.append((planned.name, self._media_s(planned, cells)))
                raise _NotStored
            began = time.perf_counter()
            outcome = self._source_problem() or self._compute(planned, key, unit, inputs)
            seconds = time.perf_counter() - began
            if isinstance(outcome, Failed) and outcome.kind in PASSING_FAILURES:
                result = Result(key, outcome, [], 0, environment(), self.store)
            else:
                result = self._keep(planned, key, outcome)
        event = Event(
            planned.name,
            planned.level,
            unit,
            "done",
            key,
            reused=reused,
            seconds=seconds,
            media_s=self._media_s(planned, cells),
            media_bytes=result.media_bytes,
        )
        match result.outcome:
            case Rejected(reason, score, threshold, message):
                event = replace(event, outcome="rejected", reason=reason, score=score, threshold=threshold, message=message)
            case Failed(kind, message):
                event = replace(event, outcome="failed", reason=kind, message=message)
        report.events.append(event)
        if result.made_with not in report.made_with:
            report.made_with.append(result.made_with)
        return result if event.outcome == "done" else None

    def _media_s(self, planned: PlannedStage, cells: Mapping[str, _Cell]) -> float:
        return _length_s(cells) if planned.level == "clip" else self.task.take.duration_s

    def _within_limits(self, report: TakeReport, planned: PlannedStage, cells: Mapping[str, _Cell], result: Result) -> bool:
        """Apply the recipe's limits to the scores that a stage made; a unit outside of one is rejected there.

        For the stage that cuts, each clip's own line is added to the account here, as done or rejected.
        """
        level = "clip" if planned.stage.cuts else planned.level
        unit = cells["clip_id"].load() if level == "clip" else self.task.name
        for score, limit in self.plan.limits.items():
            if score not in planned.stage.writes:
                continue
            value = float(cells[score].load())
            broken = limit.broken_by(value)
            if broken:
                side, threshold = broken
                event = Event(planned.name, level, unit, "rejected", result.key, True, reason=f"{score} {side} its limit")
                event = replace(
                    event,
                    message=f"{score} {value:.4g} is {side} {threshold:g}",
                    score_name=score,
                    score=value,
                    threshold=threshold,
                )
                if not planned.stage.cuts:
                    done = report.events.pop()  # the stage itself was done; the unit ends as rejected, once
                    event = replace(
                        event, reused=done.reused, seconds=done.seconds, media_s=done.media_s, media_bytes=done.media_bytes
                    )
                report.events.append(event)
                return False
        if planned.stage.cuts:
            report.events.append(Event(planned.name, level, unit, "done", result.key, True))
        return True

    def _compute(self, planned: PlannedStage, key: str, unit: str, inputs: Mapping[str, _Cell]) -> Outcome:
        with self._watched(planned, key, unit):
            values = {name: cell.load() for name, cell in inputs.items()}
            if planned.stage.goes_on():
                values["partial"] = _StoredPartial(self.store, partial_folder(key))
            try:
                outcome = planned.stage.run(**values)
            except Unreadable as error:
                return Failed("unreadable", str(error))
            except ImportError as error:
                raise ManifestError(f"stage {planned.name} needs the package {error.name}; install it and go on") from None
            except (OSError, MemoryError) as error:
                return Failed("machine", f"{type(error).__name__}: {error}")
            except Exception as error:
                # Anything else is a mistake of ours or a case not thought of: the item is set aside with the place.
                place = traceback.extract_tb(error.__traceback__)[-1]
                return Failed("error", f"{type(error).__name__}: {error} ({Path(place.filename).name}:{place.lineno})")
        return outcome

    def _keep(self, planned: PlannedStage, key: str, outcome: Outcome) -> Result:
        """Store an outcome; one that does not hold what its stage declares is stored as a failure of the stage."""
        try:
            result = self.store.put(key, outcome, planned.stage.writes)
        except ValueError as error:
            result = self.store.put(key, Failed("error", f"stage {planned.name}: {error}"))
        if planned.stage.goes_on():
            self.store.remove_notes(partial_folder(key))
        return result

    def _source_problem(self) -> Failed | None:
        """Whether the take's files are still those that were scanned; looked at once, before the first work on it.

        Reading a file through costs little beside decoding it, and a key must not lie about content.
        """
        take = self.task.take
        if self._checked or "://" in take.path:
            return None
        files = {take.path: self.task.sha256} | ({take.sound_path: self.task.sound_sha256} if self.task.sound_sha256 else {})
        open_folder = open_codes if take.layout == CODES else open_capture
        for path, sha256 in files.items():
            try:
                digest = open_folder(Path(path)).digest() if path == take.path and take.layout else file_digest(Path(path))
                changed = digest != sha256
            except Unreadable as error:
                return Failed("missing", f"{error}; it has changed since it was scanned, run headloom scan again")
            except OSError as error:
                return Failed("missing", f"{path} cannot be read ({error.strerror}); put it back or run headloom scan again")
            if changed:
                return Failed("missing", f"{path} has changed since it was scanned; run headloom scan again")
        self._checked = True
        return None

    @contextmanager
    def _watched(self, planned: PlannedStage, key: str, unit: str) -> Iterator[None]:
        """While a stage runs, a note says which one, for whoever finds this process dead; past its time it is ended.

        The timer lives in C and needs no lock of the interpreter, so a decoder that hangs is ended too.
        """
        allowed = planned.stage.needs.timeout_s(self.task.take.duration_s)
        if self.marker:
            note = {
                "stage": planned.name,
                "level": planned.level,
                "unit": unit,
                "key": key,
                "allowed_s": allowed,
                "began": time.time(),
            }
            self.store.write_note(self.marker, json.dumps(note).encode(), durable=False)
            faulthandler.dump_traceback_later(allowed, exit=True, file=_trace_file())
        try:
            yield
        finally:
            if self.marker:
                faulthandler.cancel_dump_traceback_later()
                self.store.remove_note(self.marker)


def _length_s(cells: Mapping[str, _Cell]) -> float:
    """Length of a clip."""
    return float(cells["n_frames"].load() * cells["fps_den"].load() / cells["fps_num"].load())


def _trace_file() -> Any:
    """Where a traceback goes when a stage runs out of time: standard error, or nowhere when there is none."""
    return sys.stderr if sys.stderr is not None else open(os.devnull, "w")


def _cells(result: Result, planned: PlannedStage, row: int, by_content: bool = False) -> dict[str, _Cell]:
    """The columns of one row of a result. Clips are keyed by content: one that stays the same keeps its results."""
    return {
        name: _Cell(
            key=result.content_key(name, row) if by_content else f"{result.key}.{name}",
            load=partial(result.value, name, row),
            stored_at=(result.key, row),
        )
        for name in planned.stage.writes
    }
