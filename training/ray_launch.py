"""Several processes by Ray Train. The only file of ``training`` that imports ray.

Ray begins the processes, joins them to a group, and begins all of them anew when one dies; they go on from the run's last
checkpoint, which lies in the run's folder and must be reachable from every node. Rounding apart, the numbers are
those of one process.
"""

from __future__ import annotations

import logging
import os
import tempfile
from pathlib import Path
from threading import Thread
from typing import Any

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
from ray.train.torch import TorchTrainer
from ray.util.queue import Queue

from manifests.atomic import write_whole
from manifests.document import ManifestError
from manifests.training import Launch
from training import checkpoint
from training.loop import train
from training.ranks import Ranks
from training.run import Notify, Run

_ERROR = "error.txt"
"""In the run's folder: why the run cannot go on."""

_SHARE_OF_CPU = 0.5
"""Of each process: a group that takes every logical CPU starves whatever else Ray has to run."""


def launch(run: Run, notify: Notify) -> Path:
    """Train on ``run.manifest.launch.workers`` processes of the Ray cluster at ``launch.address``, or of one begun here.

    Raises ``ManifestError`` when the run itself went wrong, or when processes died more often than ``launch.retries`` allows.
    """
    asked = run.manifest.launch
    own = not ray.is_initialized()
    if own:
        quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
        if asked.address:
            ray.init(address=asked.address, **quiet)
        else:
            ray.init(address="local", num_cpus=max(asked.workers, os.cpu_count() or 1) + 1, include_dashboard=False, **quiet)
    _check_room(asked)
    error = run.folder / _ERROR
    error.unlink(missing_ok=True)
    # Ray runs its own callbacks in another process; what the first worker tells comes here by this queue.
    told = Queue(actor_options={"num_cpus": 0})
    listener = Thread(target=_listen, args=(told, notify), daemon=True)
    listener.start()
    try:
        with tempfile.TemporaryDirectory() as scratch:
            TorchTrainer(
                _work,
                train_loop_config={"run": run, "told": told},
                scaling_config=ScalingConfig(
                    num_workers=asked.workers,
                    use_gpu=_on_gpus(asked),
                    resources_per_worker={"CPU": _SHARE_OF_CPU},
                ),
                run_config=RunConfig(storage_path=scratch, failure_config=FailureConfig(max_failures=asked.retries)),
            ).fit()
    except TrainingFailedError as failure:
        if not error.exists():
            raise ManifestError(
                f"{run.folder}: training processes died {asked.retries + 1} times ({str(failure).strip().splitlines()[-1]}); "
                "mend that and go on with --resume"
            ) from failure
    finally:
        told.put(None)
        listener.join()
        told.shutdown()
        if own:
            ray.shutdown()
    if error.exists():
        raise ManifestError(error.read_text())
    return run.folder / checkpoint.LAST


def _on_gpus(asked: Launch) -> bool:
    return asked.device == "cuda" or (asked.device == "auto" and ray.cluster_resources().get("GPU", 0) > 0)


def _check_room(asked: Launch) -> None:
    """Ray waits without a word for what a cluster will never have."""
    has = ray.cluster_resources()
    if _on_gpus(asked) and has.get("GPU", 0) < asked.workers:
        raise ManifestError(
            f"launch.workers={asked.workers} want a GPU each, the cluster has {has.get('GPU', 0):g}; "
            "set launch.workers to that, or launch.device=cpu"
        )
    if has.get("CPU", 0) < asked.workers * _SHARE_OF_CPU:
        raise ManifestError(
            f"launch.workers={asked.workers} want {asked.workers * _SHARE_OF_CPU:g} CPUs, the cluster has {has.get('CPU', 0):g}; "
            "set launch.workers lower, or add nodes"
        )


def _work(config: dict[str, Any]) -> None:
    """What each process does. An error of the run is written down for all: beginning anew would only come to it again."""
    run, told = config["run"], config["told"]
    error = run.folder / _ERROR
    if error.exists():
        return

    def notify(step: int, steps: int, figures: dict[str, float]) -> None:
        if Ranks.current().first:
            told.put((step, steps, figures))

    try:
        train(run, notify)
    except ManifestError as mistake:
        write_whole(error, str(mistake).encode())
        raise  # so that Ray ends the others, who may wait for this process


def _listen(told: Queue, notify: Notify) -> None:
    """Pass on figures, until there is ``None``."""
    while (message := told.get()) is not None:
        notify(*message)
