"""Tasks on this machine: one process for each worker, replaced when it dies."""

from __future__ import annotations

import multiprocessing as mp
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from types import TracebackType
from typing import Any, Self

from pipelines.runner import Died, portable
from pipelines.work import Task, Workbench
from prep.children import how_it_ended, tasks_from, worker_environment


class LocalRunner:
    """``workers`` processes, started when first needed. Fresh interpreters (spawn): media libraries do not survive a fork."""

    def __init__(self, bench: Workbench, workers: int) -> None:
        self._bench = bench
        self._workers = workers
        self._context = mp.get_context("spawn")
        self._idle: list[_Worker] = []
        self._busy: list[_Worker] = []

    @property
    def free(self) -> int:
        return self._workers - len(self._busy)

    def submit(self, task: Task) -> None:
        self._idle = [worker for worker in self._idle if worker.process.is_alive()]
        worker = self._idle.pop() if self._idle else _Worker(self._context, self._bench)
        worker.task = task
        self._busy.append(worker)
        with suppress(OSError):  # it died while idle, which wait() will see
            worker.pipe.send(task)

    def wait(self, timeout_s: float) -> list[tuple[Task, Any]]:
        ready = set(wait([worker.pipe for worker in self._busy], timeout_s))
        finished: list[tuple[Task, Any]] = []
        for worker in [w for w in self._busy if w.pipe in ready]:
            self._busy.remove(worker)
            assert worker.task is not None
            try:
                finished.append((worker.task, worker.pipe.recv()))
                self._idle.append(worker)
            except (EOFError, ConnectionError):
                worker.process.join()
                finished.append((worker.task, Died(f"the worker was ended by {how_it_ended(worker.process.exitcode)}")))
        return finished

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for worker in self._busy:
            worker.process.kill()
        for worker in (*self._idle, *self._busy):
            worker.pipe.close()
            worker.process.join()


class _Worker:
    def __init__(self, context: mp.context.SpawnContext, bench: Workbench) -> None:
        self.task: Task | None = None
        self.pipe, theirs = context.Pipe()
        self.process: SpawnProcess = context.Process(target=_work, args=(theirs, bench), daemon=True)
        with worker_environment():
            self.process.start()
        theirs.close()


def _work(pipe: Connection, bench: Workbench) -> None:
    """Body of a worker process: do tasks until the other end closes."""
    for task in tasks_from(pipe):
        try:
            result: Any = bench.perform(task)
        except Exception as error:
            result = portable(error)
        pipe.send(result)
