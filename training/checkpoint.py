"""Checkpoints: folders that appear whole, with weights that anything can read and the state that makes resuming exact.

::

    checkpoints/step-00001000/
        weights.safetensors      the model, buffers included
        ema.safetensors          the moving average of it, where there is one
        state.safetensors        tensors of the optimisers
        state.json               step, best loss, numbers of the optimisers, frame rate, versions
        manifest.yaml            the run's training manifest
    last -> checkpoints/step-00001000
    best -> checkpoints/step-00000500

Nothing here is a pickle, so a checkpoint from elsewhere can be opened safely.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.optim import Optimizer

from manifests.document import ManifestError
from manifests.training import RUN_MANIFEST, TrainingManifest

LAST, BEST, FOLDER = "last", "best", "checkpoints"
WEIGHTS, EMA, STATE, NUMBERS = "weights.safetensors", "ema.safetensors", "state.safetensors", "state.json"


def name_of(step: int) -> str:
    return f"step-{step:08d}"


def save(
    run: Path,
    step: int,
    manifest: TrainingManifest,
    weights: Mapping[str, Tensor],
    ema: Mapping[str, Tensor] | None,
    optimisers: Mapping[str, Optimizer],
    numbers: Mapping[str, Any],
) -> Path:
    """Write the checkpoint of ``step`` into the folder of a ``run``. ``numbers`` are whatever else resuming needs, as JSON."""
    place = run / FOLDER / name_of(step)
    unfinished = place.with_name(f".{place.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    _save_tensors(weights, unfinished / WEIGHTS)
    if ema is not None:
        _save_tensors(ema, unfinished / EMA)
    tensors: dict[str, Tensor] = {}
    plain: dict[str, Any] = {}
    for name, optimiser in optimisers.items():
        tensors |= {f"{name}/{key}": value for key, value in _tensors_of(optimiser).items()}
        plain[name] = optimiser.state_dict()["param_groups"]
    _save_tensors(tensors, unfinished / STATE)
    content = {"step": step, "optimisers": plain, "torch": torch.__version__, **numbers}
    (unfinished / NUMBERS).write_text(json.dumps(content, indent=1))
    manifest.save(unfinished / RUN_MANIFEST)
    for path in (*unfinished.iterdir(), unfinished):
        _sync(path)
    # What is there of that name was written by a run that died before it could point at it.
    shutil.rmtree(place, ignore_errors=True)
    unfinished.rename(place)
    _sync(place.parent)
    return place


def point(run: Path, name: str, place: Path) -> None:
    """Make ``last`` or ``best`` of a ``run`` mean the checkpoint ``place``, at once."""
    link = run / f".{name}.new"
    link.unlink(missing_ok=True)
    link.symlink_to(place.relative_to(run), target_is_directory=True)
    link.replace(run / name)
    _sync(run)


def prune(run: Path, keep: int) -> None:
    """Remove all but the ``keep`` newest checkpoints, the last and the best."""
    needed = {(run / name).resolve() for name in (LAST, BEST)}
    for place in sorted((run / FOLDER).glob("step-*"))[:-keep]:
        if place.resolve() not in needed:
            shutil.rmtree(place)


def read_numbers(place: Path) -> dict[str, Any]:
    """``state.json`` of a checkpoint. Raises ``ManifestError`` where there is none."""
    try:
        return dict(json.loads((place / NUMBERS).read_text()))
    except (OSError, ValueError):
        raise ManifestError(f"{place}: is no checkpoint of headloom; give the folder of one, as in runs/name/last") from None


def read_weights(place: Path, *, average: bool = False) -> dict[str, Tensor]:
    """The weights of a checkpoint, or their moving ``average`` where there is one."""
    path = place / EMA if average and (place / EMA).is_file() else place / WEIGHTS
    return _load_tensors(path)


def restore(place: Path, optimisers: Mapping[str, Optimizer]) -> None:
    """Bring ``optimisers`` into the state that they had at a checkpoint. Raises ``ManifestError`` when they are others."""
    numbers = read_numbers(place)["optimisers"]
    if set(numbers) != set(optimisers):
        raise ManifestError(f"{place}: has the optimisers {', '.join(numbers)}, the model has {', '.join(optimisers)}")
    tensors = _load_tensors(place / STATE)
    for name, optimiser in optimisers.items():
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            owner, parameter, entry = key.rsplit("/", 2)
            if owner == name:
                state.setdefault(int(parameter), {})[entry] = value
        optimiser.load_state_dict({"state": state, "param_groups": numbers[name]})


def _tensors_of(optimiser: Optimizer) -> dict[str, Tensor]:
    """State as ``<parameter>/<entry>``; numbers become tensors, as which optimisers take them back."""
    state = optimiser.state_dict()["state"]
    return {
        f"{parameter}/{entry}": torch.as_tensor(value)
        for parameter, entries in state.items()
        for entry, value in entries.items()
        if value is not None
    }


def _save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    # Copies: weights that share memory are refused by the format.
    save_file({name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}, path)


def _load_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return dict(load_file(path))
    except (OSError, SafetensorError) as error:
        raise ManifestError(f"{path}: cannot be read ({error}); resume from another checkpoint") from None


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
