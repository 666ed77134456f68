"""Datasets of the studio's speech with its true codes, and FaceTalk models trained on them by the loop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fitting.studio.nphm_codes import nphm_expression
from fitting.studio.performance import perform
from fitting.studio.speaker import Speaker
from manifests.training import TrainingManifest
from prep.mel import mel_spectrogram
from tests.manifests.datasets import write_clips
from training.facetalk.model import FaceTalk
from training.run import begin, train
from training.sample import load_model

FPS = (24, 1)
SECONDS = 4
FRAMES = FPS[0] * SECONDS


def spoken(person: int, take: int) -> dict[str, Any]:
    """A clip: what a person of the studio says and how the face moves."""
    speaker = Speaker.draw(np.random.default_rng([0, person, 1]))
    performance = perform(speaker, SECONDS, [0, person, take], sample_rate=16_000)
    controls = performance.at(np.arange(FRAMES) / FPS[0])
    codes = nphm_expression(controls.expression, controls.jaw)
    return {"person": str(person), "n_frames": FRAMES, "nphm_expression": codes, "mel": mel_spectrogram(performance.sound)}


def trained(clips: list[dict[str, Any]], folder: Path, *, steps: int, batch: int, **settings: Any) -> FaceTalk:
    """A model that has learned all of ``clips``, which are written into ``folder`` with the run."""
    write_clips(folder / "data", clips)
    run = begin(
        TrainingManifest.parse(
            {
                "format": "headloom/training",
                "name": "facetalk",
                "datasets": [{"path": str(folder / "data")}],
                "model": "facetalk",
                "settings": settings,
                "global_batch": batch,
                "split": {"train": 1.0, "val": 0.0},
                "training": {"steps": steps, "log_every": steps},
                "launch": {"device": "cpu"},
                "out": str(folder / "run"),
            },
            "facetalk",
        )
    )
    model = load_model(train(run, lambda *_: None), "cpu")
    assert isinstance(model, FaceTalk)
    return model


def heard(model: FaceTalk, clips: list[dict[str, Any]]) -> Tensor:
    """(N, T, F) the condition of whole clips."""
    return torch.stack([model.condition.whole(clip, FRAMES, FPS) for clip in clips])
