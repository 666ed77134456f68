"""What the command line shows: tables, and progress with a rate and the time left, also where there is no terminal."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

if TYPE_CHECKING:
    from pipelines.account import Accounts  # at run time it would need the decoders, and reading a dataset must not

_LINE_EVERY_S = 10.0


def show_table(title: str, rows: Sequence[dict[str, Any]], as_json: bool) -> None:
    """Print rows (all with the same keys) as a table, or as a JSON list."""
    if as_json:
        print(json.dumps(list(rows), indent=1, ensure_ascii=False))
        return
    # Where output goes to a file or a pipe there is no width to fit: nothing is cut off.
    console = Console(width=None if sys.stdout.isatty() else 200)
    table = Table(title=title, title_justify="left", header_style="bold")
    for name in rows[0] if rows else ():
        numbers = all(isinstance(row[name], int | float) for row in rows)
        table.add_column(name, justify="right" if numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_cell(value) for value in row.values()))
    console.print(table if rows else f"{title}: nothing")


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)


def duration(seconds: float) -> str:
    """A length of time for people: ``42 s``, ``3 min 20 s``, ``2 h 05 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def size(count: float) -> str:
    """A number of bytes for people."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


class LongWork:
    """Shows how long work goes on: a bar in a terminal, else a line every ten seconds and one at each phase's end."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._bar: Progress | None = None
        self._bar_task: Any = None
        self._phase = ""
        self._began = 0.0
        self._last_line = 0.0
        self._first_step = sys.maxsize

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[text]}")
            self._bar = Progress(*columns, console=self._console)
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def build(self, phase: str, done: int, total: int, amount: float, whole: float, accounts: Accounts) -> None:
        """Progress of a build, as ``pipelines.build.Progress`` asks."""
        counts = accounts.counts()
        note = f", clips {counts['done']}, rejected {counts['rejected']}, failed {counts['failed']}"
        note += f", duplicates {counts['duplicate']}" if counts["duplicate"] else ""
        self.show(phase, done, total, amount, whole, "x real time" if phase == "takes" else "/s", note)

    def scan(self, done: int, total: int) -> None:
        """Progress of a scan, in files."""
        self.show("files", done, total, done, total, "/s")

    def recording(self, done: int, total: int) -> None:
        """Progress of the studio, in takes or in cameras."""
        self.show("recording", done, total, done, total, "/s")

    def training(self, step: int, steps: int, figures: dict[str, float]) -> None:
        """Progress of a run, which may have begun at a later step."""
        first = self._first_step = min(self._first_step, step)
        note = f", loss {figures['loss']:.4g}" if "loss" in figures else ""
        self.show("steps", step, steps, step - first, steps - first, "/s", note)

    def show(self, phase: str, done: int, total: int, amount: float, whole: float, unit: str, note: str = "") -> None:
        """``done`` of ``total`` items, ``amount`` of the ``whole`` by which the rate and the time left are reckoned."""
        now = time.monotonic()
        if phase != self._phase:
            self._phase, self._began, self._last_line = phase, now, now
            if self._bar is not None:
                self._bar_task = self._bar.add_task(phase, total=max(total, 1), text="")
        text, spent = f"{done}/{total}{note}", now - self._began
        if amount > 0 and spent > 0.5:
            rate = amount / spent
            text += f", {rate:.1f}{unit}" + (f", {duration((whole - amount) / rate)} left" if done < total else "")
        if self._bar is not None:
            self._bar.update(self._bar_task, completed=done, text=text)
        elif now - self._last_line >= _LINE_EVERY_S or done == total:
            self._last_line = now
            self._console.print(f"{phase}: {text}", highlight=False, soft_wrap=True)
