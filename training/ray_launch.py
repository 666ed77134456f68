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

from manifests.document import ManifestError
from training import checkpoint
from training.loop import device_of, train
from training.ranks import Ranks
from training.run import Notify, Run

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
    # Ray runs its own callbacks in another process; what the first worker tells comes here by this queue.
    told = Queue(actor_options={"num_cpus": 0})
    errors: list[str] = []
    listener = Thread(target=_listen, args=(told, notify, errors), daemon=True)
    listener.start()
    try:
        with tempfile.TemporaryDirectory() as scratch:
            TorchTrainer(
                _work,
                train_loop_config={"run": run, "told": told},
                scaling_config=ScalingConfig(
                    num_workers=asked.workers,
                    use_gpu=asked.device != "cpu" and device_of(asked.device).type == "cuda",
                    resources_per_worker={"CPU": _SHARE_OF_CPU},
                ),
                run_config=RunConfig(storage_path=scratch, failure_config=FailureConfig(max_failures=asked.retries)),
            ).fit()
    except TrainingFailedError as error:
        raise ManifestError(
            f"{run.folder}: training processes died {asked.retries + 1} times ({str(error).strip().splitlines()[-1]}); "
            "mend that and go on with --resume"
        ) from error
    finally:
        told.put(None)
        listener.join()
        told.shutdown()
        if own:
            ray.shutdown()
    if errors:
        raise ManifestError(errors[0])
    return run.folder / checkpoint.LAST


def _work(config: dict[str, Any]) -> None:
    """What each process does. An error of the run is told, not raised: beginning anew would come to it again."""
    told = config["told"]

    def notify(step: int, steps: int, figures: dict[str, float]) -> None:
        if Ranks.current().first:
            told.put((step, steps, figures))

    try:
        train(config["run"], notify)
    except ManifestError as error:
        told.put(str(error))


def _listen(told: Queue, notify: Notify, errors: list[str]) -> None:
    """Pass on figures and keep errors, until there is ``None``."""
    while (message := told.get()) is not None:
        if isinstance(message, str):
            errors.append(message)
        else:
            notify(*message)
