"""A trained model out of its checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from manifests.training import RUN_MANIFEST, TrainingManifest
from training import checkpoint
from training.loop import device_of
from training.model import Model
from training.run import Run


def load_model(place: Path, device: str = "auto") -> Model:
    """The model of the checkpoint in folder ``place``, ready to be used, with its averaged weights where it has them.

    Raises ``ManifestError`` for a folder that is no checkpoint.
    """
    numbers = checkpoint.read_numbers(place)
    run = Run(TrainingManifest.load(place / RUN_MANIFEST), place)
    first, second = numbers["fps"]
    model = run.model_class(run.settings, (first, second))
    model.load_state_dict(checkpoint.read_weights(place, average=True))
    model.to(device_of(device)).eval()
    return model


def sample(place: Path, given: dict[str, Any], device: str = "auto") -> list[Path]:
    """Let the model of a checkpoint make the files that the options ``given`` ask for (see its ``produce``); returns them."""
    with torch.no_grad():
        model = load_model(place, device)
        return model.produce(**given)
