"""The account of a build: what became of every item at every stage, and what was reused or computed."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from manifests.dataset import Account, QuarantineEntry
from manifests.source import SourceItem
from pipelines.execute import Event, TakeReport
from pipelines.plan import Plan

SCAN = "scan"


def runnable(items: Sequence[SourceItem]) -> tuple[list[SourceItem], list[QuarantineEntry]]:
    """Divide items into those to work on and those set aside before: unreadable ones, and duplicates."""
    seen: dict[str, str] = {}
    good: list[SourceItem] = []
    aside: list[QuarantineEntry] = []
    for item in items:
        if item.probe_error:
            aside.append(_set_aside(item, "failed", "unreadable", item.probe_error))
        elif item.duplicate_of or item.take_id in seen:
            kind = item.duplicate_kind or "exact"
            kept = item.duplicate_of or seen[item.take_id]
            aside.append(_set_aside(item, "duplicate", kind, f"{kind} duplicate of {kept}"))
        else:
            seen[item.take_id] = item.name
            good.append(item)
    return good, aside


def _set_aside(item: SourceItem, outcome: str, reason: str, message: str) -> QuarantineEntry:
    place = {"stage": SCAN, "level": "take", "unit": item.take_id, "source_uri": item.name}
    return QuarantineEntry.model_validate(place | {"outcome": outcome, "reason": reason, "message": message})


@dataclass(slots=True)
class Work:
    """What one stage did in this run: results made and reused, seconds of computing, bytes made."""

    computed: int = 0
    reused: int = 0
    seconds: float = 0.0
    media_s: float = 0.0
    media_bytes: int = 0


@dataclass(slots=True)
class Accounts:
    """Filled while a build runs; ``table`` and ``quarantine`` do not depend on the order in which takes came in."""

    plan: Plan
    outcomes: dict[tuple[str, str], Counter[tuple[str, str]]] = field(default_factory=lambda: defaultdict(Counter))
    quarantine: list[QuarantineEntry] = field(default_factory=list)
    work: dict[str, Work] = field(default_factory=lambda: defaultdict(Work))
    made_with: list[Mapping[str, str]] = field(default_factory=list)

    def add_source(self, items: Sequence[SourceItem]) -> None:
        """Account for all items of the source as the first stage, ``scan``."""
        good, aside = runnable(items)
        self.outcomes[SCAN, "take"]["done", ""] += len(good)
        for entry in aside:
            self.outcomes[SCAN, "take"][entry.outcome, entry.reason] += 1
        self.quarantine += aside

    def add(self, report: TakeReport) -> None:
        """Account for what happened to one take and its clips."""
        self.made_with += [one for one in report.made_with if one not in self.made_with]
        for event in report.events:
            self.outcomes[event.stage, event.level][event.outcome, event.reason] += 1
            if event.outcome != "done":
                self.quarantine.append(_quarantined(event, str(report.task.source["source_uri"])))
        for event in own_results(report.events, self.plan):
            work = self.work[event.stage]
            if event.reused:
                work.reused += 1
                continue
            work.computed += 1
            work.seconds += event.seconds
            work.media_bytes += event.media_bytes
            work.media_s += event.media_s

    def table(self) -> list[Account]:
        """One account for each stage and level, in the order of the plan."""
        places = [(SCAN, "take")]
        for planned in self.plan.stages:
            places.append((planned.name, planned.level))
            if planned.stage.cuts:
                places.append((planned.name, "clip"))
        return [self._account(stage, level) for stage, level in places]

    def counts(self) -> Counter[str]:
        """Items by outcome over all stages; ``done`` counts those that passed the last stage."""
        totals: Counter[str] = Counter()
        for counter in self.outcomes.values():
            for (outcome, _), count in counter.items():
                totals[outcome] += count
        totals["done"] = self.table()[-1].done
        return totals

    def sorted_quarantine(self) -> list[QuarantineEntry]:
        return sorted(self.quarantine, key=lambda e: (e.source_uri, e.level, e.unit, e.stage))

    def work_table(self) -> list[dict[str, Any]]:
        """For ``run.json``: what each stage computed and reused."""
        rows = []
        for planned in self.plan.stages:
            work = self.work[planned.name]
            rows.append(
                {
                    "stage": planned.name,
                    "level": planned.level,
                    "computed": work.computed,
                    "reused": work.reused,
                    "seconds": round(work.seconds, 3),
                    "media_s": round(work.media_s, 2),
                    "bytes": work.media_bytes,
                }
            )
        return rows

    def _account(self, stage: str, level: str) -> Account:
        counter = self.outcomes[stage, level]
        by: dict[str, dict[str, int]] = {"rejected": {}, "failed": {}}
        for (outcome, reason), count in sorted(counter.items()):
            if outcome in by:
                by[outcome][reason] = count
        return Account(
            stage=stage,
            level=level,
            entered=counter.total(),
            done=counter["done", ""],
            rejected=by["rejected"],
            failed=by["failed"],
            duplicate=sum(count for (outcome, _), count in counter.items() if outcome == "duplicate"),
        )


def own_results(events: Iterable[Event], plan: Plan) -> Iterable[Event]:
    """The events that stand for a result of their own: not the lines of single clips at the stage that cuts."""
    cutters = {planned.name for planned in plan.stages if planned.stage.cuts}
    return (event for event in events if not (event.stage in cutters and event.level == "clip"))


def _quarantined(event: Event, uri: str) -> QuarantineEntry:
    return QuarantineEntry(
        stage=event.stage,
        level=event.level,
        unit=event.unit,
        source_uri=uri,
        outcome=event.outcome,
        reason=event.reason,
        message=event.message,
        score_name=event.score_name,
        score=event.score,
        threshold=event.threshold,
        key=event.key,
    )
