"""How long each stage takes and how much it writes for a second of media, learned from builds, for the next plan."""

from __future__ import annotations

import json
from dataclasses import dataclass

from pipelines.account import Accounts
from pipelines.plan import PlannedStage
from pipelines.store import Store

_NOTE = "rates.json"


@dataclass(frozen=True, slots=True)
class Rate:
    """Seconds of one core and bytes kept, each for a second of media; ``measured`` or the stage's own first guess."""

    seconds: float
    bytes: float
    measured: bool


def add_rates(store: Store, accounts: Accounts) -> None:
    """Add what a build measured to the store's rates."""
    known = json.loads(store.read_note(_NOTE) or b"{}")
    for row in accounts.work_table():
        if row["media_s"] > 0:
            old = known.get(row["stage"], {"seconds": 0.0, "bytes": 0, "media_s": 0.0})
            known[row["stage"]] = {name: old[name] + row[name] for name in ("seconds", "bytes", "media_s")}
    store.write_note(_NOTE, json.dumps(known, indent=1).encode())


def rate_of(store: Store, planned: PlannedStage) -> Rate:
    """Rate of a stage: measured where this store has seen it, else guessed."""
    known = json.loads(store.read_note(_NOTE) or b"{}").get(planned.name)
    if known and known["media_s"] > 0:
        return Rate(known["seconds"] / known["media_s"], known["bytes"] / known["media_s"], True)
    return Rate(planned.stage.needs.pace, planned.stage.needs.bytes_per_s, False)
