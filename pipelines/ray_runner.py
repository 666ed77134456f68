"""Tasks on a Ray cluster, or on a Ray of its own on this machine. The only file of the pipelines that imports ray.

Ray Core actors rather than Ray Data: outcomes are per item, crashes have a cap, and what crosses the object store is
only keys and counts. The store and the dataset's folder must be reachable from every node.
"""

from __future__ import annotations

import logging
import time
from types import TracebackType
from typing import Any, Self

import ray
from ray.exceptions import RayActorError, RayError

from manifests.document import ManifestError
from pipelines.runner import Died, portable
from pipelines.work import Task, Workbench
from prep.children import WORKER_ENVIRONMENT

_START_S = 180.0
"""How long to wait for the first worker when there is none, before saying that the cluster has no room."""


class _Worker:
    """Body of the actors."""

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench

    def ready(self) -> bool:
        return True

    def perform(self, task: Task) -> Any:
        try:
            return self._bench.perform(task)
        except Exception as error:
            return portable(error)


class RayRunner:
    """Up to ``workers`` actors. Only actors that have come up get tasks, so a cluster that shrinks starves nobody.

    ``address`` as for ``ray.init``; empty starts a Ray of its own with one logical CPU to spare. One task is in flight
    for each worker: its description and its account are all that is held for it.
    """

    def __init__(self, bench: Workbench, workers: int, address: str = "") -> None:
        needs = [planned.stage.needs for planned in bench.plan.stages]
        self._own = not ray.is_initialized()
        if self._own:
            quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
            if address:
                ray.init(address=address, **quiet)
            else:
                ray.init(address="local", num_cpus=workers + 1, include_dashboard=False, **quiet)
        self._bench = ray.put(bench)
        self._workers = workers
        self._wants = {
            # Half of what is declared: a pool that takes every logical CPU starves whatever else Ray has to run.
            "num_cpus": max(need.cpus for need in needs) * 0.5,
            "num_gpus": max(planned.stage.gpus() for planned in bench.plan.stages),
            "memory": max(need.memory_mb for need in needs) * 2**20,
        }
        environment = {"env_vars": WORKER_ENVIRONMENT}
        self._actors: Any = ray.remote(**self._wants, runtime_env=environment, max_restarts=0, max_task_retries=0)(_Worker)
        self._starting: dict[Any, Any] = {}
        self._idle: list[Any] = []
        self._at_work: dict[Any, tuple[Any, Task]] = {}
        self._last_alive = time.monotonic()

    @property
    def free(self) -> int:
        return len(self._idle)

    def submit(self, task: Task) -> None:
        actor = self._idle.pop()
        self._at_work[actor.perform.remote(task)] = (actor, task)

    def wait(self, timeout_s: float) -> list[tuple[Task, Any]]:
        self._replace_workers()
        ready, _ = ray.wait([*self._starting, *self._at_work], timeout=timeout_s, num_returns=1)
        finished: list[tuple[Task, Any]] = []
        for ref in ready:
            if ref in self._starting:
                self._started(ref, self._starting.pop(ref))
                continue
            actor, task = self._at_work.pop(ref)
            try:
                finished.append((task, ray.get(ref)))
                self._idle.append(actor)
            except RayActorError as error:
                finished.append((task, Died(f"the Ray worker died: {str(error).splitlines()[0]}")))
            except RayError as error:
                ray.kill(actor)
                finished.append((task, Died(f"the Ray worker was lost: {type(error).__name__}")))
        return finished

    def _replace_workers(self) -> None:
        alive = len(self._starting) + len(self._idle) + len(self._at_work)
        for _ in range(self._workers - alive):
            actor = self._actors.remote(self._bench)
            self._starting[actor.ready.remote()] = actor
        if self._idle or self._at_work:
            self._last_alive = time.monotonic()
        elif time.monotonic() - self._last_alive > _START_S:
            raise ManifestError(
                f"no Ray worker came up in {_START_S:.0f} s; each wants {self._wants}, "
                f"the cluster has {ray.cluster_resources()}; add nodes or free some"
            )

    def _started(self, ref: Any, actor: Any) -> None:
        try:
            ray.get(ref)
            self._idle.append(actor)
        except RayError:
            ray.kill(actor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for actor in (*self._idle, *self._starting.values(), *(actor for actor, _ in self._at_work.values())):
            ray.kill(actor)
        if self._own:
            ray.shutdown()
