"""What a build asks of a runner: take tasks, give results back, and say when a worker died over one."""

from __future__ import annotations

import os
import pickle
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from pipelines.work import Task


@dataclass(frozen=True, slots=True)
class Died:
    """The worker's process ended before it had a result."""

    message: str


class Runner(Protocol):
    """Runs tasks on workers, each in a process of its own. At most ``free`` tasks may be submitted at a time."""

    @property
    def free(self) -> int:
        """Number of workers that could begin a task now."""

    def submit(self, task: Task) -> None:
        """Give a task to a free worker."""

    def wait(self, timeout_s: float) -> list[tuple[Task, Any]]:
        """Results that have come in, as (task, result, ``Died`` or an exception that the work raised)."""

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Let idle workers go; end those that are still at work."""


def portable(error: Exception) -> Exception:
    """``error`` if it survives the way to another process, else its text."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def usual_workers(memory_mb: int) -> int:
    """One worker for each core that this process may use, but no more than have ``memory_mb`` each."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with suppress(OSError, ValueError):  # a container's own limit; "max" where there is none
        memory = min(memory, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return max(1, min(cores, (memory >> 20) // max(memory_mb, 1)))
