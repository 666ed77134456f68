"""What a build would do: which results are stored already, and how long and how large the rest will be."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from pipelines.account import own_results
from pipelines.build import Inputs, store_url
from pipelines.execute import TakeRun
from pipelines.rates import rate_of
from pipelines.store import Store


def estimate(inputs: Inputs, out: Path) -> tuple[list[dict[str, Any]], float, float]:
    """One row for each stage, and in all the seconds of one core and the bytes that the missing results will take.

    Nothing is computed. What lies behind a missing result cannot be looked up, so it counts as missing;
    its amount is taken from the length of the takes.
    """
    store = Store(store_url(inputs.recipe, out))
    stages = [planned.name for planned in inputs.plan.stages]
    stored: Counter[str] = Counter()
    missing_s: defaultdict[str, float] = defaultdict(float)
    for task in inputs.tasks():
        report = TakeRun(inputs.plan, store, task, compute=False).run()
        for event in own_results(report.events, inputs.plan):
            stored[event.stage] += 1
        for stage, media_s in report.missing:
            for later in stages[stages.index(stage) :]:
                missing_s[later] += media_s
    rows, seconds, new_bytes = [], 0.0, 0.0
    for planned in inputs.plan.stages:
        rate = rate_of(store, planned)
        media_s = missing_s[planned.name]
        seconds += media_s * rate.seconds
        new_bytes += media_s * rate.bytes
        rows.append(
            {
                "stage": planned.name,
                "of": f"{planned.level}s",
                "stored": stored[planned.name],
                "to run (media s)": round(media_s, 1),
                "seconds": round(media_s * rate.seconds, 1),
                "rate": "measured" if rate.measured else "guessed",
                "reads": ", ".join(planned.stage.reads()),
                "writes": ", ".join(planned.stage.writes),
                "model files": ", ".join(planned.models) or "none",
            }
        )
    return rows, seconds, new_bytes
