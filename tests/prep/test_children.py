"""Work in child processes: whatever happens to one costs only its own item."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prep.children import in_children


def troublesome(what: str) -> Iterator[dict[str, Any]]:
    """Stands for reading a file that does this to its reader."""
    yield {"read": what}
    if what == "crash":
        os.abort()
    if what == "hang":
        time.sleep(60)
    if what == "raise":
        raise ValueError("unexpected")
    yield {"whole": True}


def test_a_file_that_kills_or_hangs_its_reader_costs_only_itself() -> None:
    tasks = ["good", "crash", "good", "hang", "raise", "good"]
    timeouts = [2.0 if task == "hang" else 60.0 for task in tasks]
    found = dict(in_children(troublesome, [(task,) for task in tasks], timeouts, workers=2))
    assert sorted(found) == list(range(6))
    for number, task in enumerate(tasks):
        assert found[number]["read"] == task, "what was known is kept"
        assert found[number].get("whole", False) == (task == "good")
    assert found[1]["trouble"] == "reading it ended the process (SIGABRT)"
    assert found[3]["trouble"] == "reading it took longer than 2 s"
    assert found[4]["trouble"] == "reading it went wrong: ValueError: unexpected"


def dies_once(marker: str) -> Iterator[dict[str, Any]]:
    if not Path(marker).exists():
        Path(marker).touch()
        os.abort()
    yield {"whole": True}


def test_a_reader_that_dies_gets_a_second_try(tmp_path: Path) -> None:
    assert list(in_children(dies_once, [(str(tmp_path / "marker"),)], [60.0])) == [(0, {"whole": True})]
