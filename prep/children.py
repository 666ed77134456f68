"""Work in child processes, so that a file that crashes or hangs the media library costs only itself."""

from __future__ import annotations

import multiprocessing as mp
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnContext
from typing import Any, Literal

_TRIES = 2

WORKER_ENVIRONMENT = {
    name: "1"
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "OPENCV_FOR_THREADS_NUM")
}
"""Set in every worker: as many workers as cores, one thread each, and sums that do not depend on the number of cores."""


@contextmanager
def worker_environment() -> Iterator[None]:
    """Processes that are started meanwhile have ``WORKER_ENVIRONMENT``."""
    before = {name: os.environ.get(name) for name in WORKER_ENVIRONMENT}
    os.environ.update(WORKER_ENVIRONMENT)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)


def in_children(
    work: Callable[..., Iterator[dict[str, Any]]],
    tasks: Sequence[tuple[Any, ...]],
    timeouts_s: Sequence[float],
    workers: int | None = None,
    doing: str = "reading it",
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Run ``work(*task)`` for each task in child processes; yields its number and all that it yielded, as it is done.

    A child that dies is replaced and its task tried once more; one that takes longer than its timeout in seconds
    is ended. What it had yielded is kept, and ``trouble`` says what happened, in words that begin with what the work is
    ``doing``. ``work`` is a function of a module. A task's process has one thread for arithmetic.
    Raises ``RuntimeError`` when no child can be started.
    """
    waiting = deque((number, 1) for number in range(len(tasks)))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    count = min(workers or cores, len(tasks))
    context = mp.get_context("spawn")  # media libraries do not survive a fork
    with ExitStack() as stack:
        crew = [stack.enter_context(_Child(context, work, doing)) for _ in range(count)]
        while waiting or any(child.busy for child in crew):
            for place, child in enumerate(crew):
                if waiting and not child.alive:
                    crew[place] = child = stack.enter_context(_Child(context, work, doing))
                if waiting and not child.busy:
                    number, attempt = waiting.popleft()
                    child.give(number, attempt, tasks[number], timeouts_s[number])
            busy = [child for child in crew if child.busy]
            wait([child.pipe for child in busy], max(0.0, min(child.deadline for child in busy) - time.monotonic()))
            for child in busy:
                ended = child.listen()
                if ended == "died" and child.attempt < _TRIES:
                    waiting.append((child.number, child.attempt + 1))
                elif ended:
                    yield child.number, child.said


class _Child:
    """One process that does one task after another; leaving its context ends it."""

    def __init__(self, context: SpawnContext, work: Callable[..., Iterator[dict[str, Any]]], doing: str) -> None:
        self.doing = doing
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, work, doing), daemon=True)
        with worker_environment():
            self.process.start()
        theirs.close()
        self.started = self.busy = False
        self.alive = True

    def __enter__(self) -> _Child:
        return self

    def __exit__(self, *error: object) -> None:
        self._end()

    def give(self, number: int, attempt: int, task: tuple[Any, ...], timeout_s: float) -> None:
        self.number, self.attempt, self.timeout_s = number, attempt, timeout_s
        self.said: dict[str, Any] = {}
        self.deadline = time.monotonic() + timeout_s
        self.busy = True
        with suppress(OSError):  # it is dead, which listen() will see
            self.pipe.send(task)

    def listen(self) -> Literal["", "done", "died", "late"]:
        """Take in what was said; whether, and how, the task has come to its end."""
        try:
            while self.pipe.poll():
                news = self.pipe.recv()
                if news == "started":
                    self.started = True
                elif news == "done":
                    self.busy = False
                    return "done"
                else:
                    self.said |= news
        except (EOFError, OSError):
            self._end()
            if not self.started:
                raise RuntimeError(
                    "a child process did not start; a script that does this must do so under: if __name__ == '__main__'"
                ) from None
            self.said["trouble"] = f"{self.doing} ended the process ({how_it_ended(self.process.exitcode)})"
            return "died"
        if time.monotonic() < self.deadline:
            return ""
        self._end()
        self.said["trouble"] = f"{self.doing} took longer than {self.timeout_s:.0f} s"
        return "late"

    def _end(self) -> None:
        self.busy = self.alive = False
        self.process.kill()
        self.process.join()
        self.pipe.close()


def _serve(pipe: Connection, work: Callable[..., Iterator[dict[str, Any]]], doing: str) -> None:
    """Body of a child: do tasks until the other end closes."""
    pipe.send("started")
    for task in tasks_from(pipe):
        try:
            for news in work(*task):
                pipe.send(news)
        except Exception as error:
            pipe.send({"trouble": f"{doing} went wrong: {type(error).__name__}: {error}"})
        pipe.send("done")


def tasks_from(pipe: Connection) -> Iterator[Any]:
    """For the body of a child process: the tasks that come in, until the other end closes or the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle; it ends its children itself
    threading.Thread(target=_end_with_parent, daemon=True).start()
    while True:
        try:
            yield pipe.recv()
        except EOFError:
            return


def _end_with_parent() -> None:
    """A parent that was killed cannot end a child that hangs, so each child watches it."""
    parent = mp.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def how_it_ended(exit_code: int | None) -> str:
    return signal.Signals(-exit_code).name if exit_code is not None and exit_code < 0 else f"exit code {exit_code}"
