"""FaceTalk learns speech from the studio: 20 people are heard, 6 others are judged by.

Everybody says sentences of 4 s (8 for training, 4 for judging), with the true NPHM codes at 24 frames a second and the mel
spectrogram. A small model is trained by the loop. Its mouth openings, read linearly from whole generated sequences, are compared
with the distances of the true inner lips. The ablations are trained for as many steps. Takes about 20 minutes on one core.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fitting.studio.family import HeadFamily
from fitting.studio.nphm_codes import nphm_expression
from fitting.studio.performance import perform
from fitting.studio.speaker import Speaker
from manifests.training import TrainingManifest
from prep.mel import mel_spectrogram
from tests.manifests.datasets import write_clips
from training import metrics
from training.draws import Draws
from training.facetalk.model import FaceTalk
from training.facetalk.mouth import landmark_opening
from training.facetalk.settings import Sampling
from training.run import begin, train
from training.sample import load_model

GOALS = {
    "mouth_correlation": "> 0.7",
    "mouth_correlation_shuffled": "about 0",
    "minutes": "< 10",
    "without_diffusion_diversity": "0",
}

FPS, SECONDS, PEOPLE, OTHERS = (24, 1), 4, 20, 6
SETTINGS = {"latent": 128, "blocks": 2, "heads": 4, "feedforward": 256, "learning_rate": 1e-3, "mouth": "landmarks"}
STEPS, BATCH = 1500, 32
ABLATIONS: dict[str, dict[str, Any]] = {
    **{f"without_{name}": {name: False} for name in ("diffusion", "alignment", "look_ahead")},
    **{f"timestep_{name}": {"timestep": name} for name in ("input", "scale_shift", "squeeze_excite", "attention")},
}
"""Tables 2 and 5."""
SAMPLERS = {"dpm_20": ("dpm", 20), "ddim_50": ("ddim", 50), "ddpm_1000": ("ddpm", 1000)}


def run() -> dict[str, float]:
    clips = [clip(person, take) for person in range(PEOPLE) for take in range(8)]
    held_out = [clip(person, take) for person in range(PEOPLE, PEOPLE + OTHERS) for take in range(4)]
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        write_clips(data, clips, clips_per_part=32)
        began = time.perf_counter()
        full = learned(data, Path(folder) / "full")
        minutes = (time.perf_counter() - began) / 60
        figures = judged(full, held_out) | {"minutes": minutes}
        for name, (sampler, steps) in SAMPLERS.items():
            began = time.perf_counter()
            found = judged(full, held_out[::2], Sampling(sampler=sampler, steps=steps))
            seconds = (time.perf_counter() - began) / (2 * SECONDS * len(held_out[::2]))
            figures |= {f"{name}_correlation": found["mouth_correlation"], f"{name}_diversity": found["diversity"]}
            figures[f"{name}_s_per_s"] = seconds
        for name, settings in ABLATIONS.items():
            found = judged(learned(data, Path(folder) / name, **settings), held_out)
            figures |= {f"{name}_{part}": found[part] for part in ("diversity", "jitter_ratio")}
            figures[f"{name}_correlation"] = found["mouth_correlation"]
    return figures


def clip(person: int, take: int) -> dict[str, Any]:
    """What a person says, and how the face moves; landmarks are in the world's metres."""
    speaker = Speaker.draw(np.random.default_rng([0, person, 1]))
    performance = perform(speaker, SECONDS, [0, person, take], sample_rate=16_000)
    controls = performance.at(np.arange(SECONDS * FPS[0]) / FPS[0])
    family = HeadFamily("small")
    landmarks = family.landmarks(family.vertices(family.people(PEOPLE + OTHERS, 0)[person], controls)).numpy()
    return {
        "person": str(person),
        "n_frames": SECONDS * FPS[0],
        "nphm_expression": nphm_expression(controls.expression, controls.jaw),
        "landmarks3d": landmarks,
        "mel": mel_spectrogram(performance.sound),
    }


def learned(data: Path, out: Path, **settings: Any) -> FaceTalk:
    """The model after ``STEPS`` on all clips of ``data``."""
    values = {
        "format": "headloom/training",
        "name": "facetalk_train",
        "datasets": [{"path": str(data)}],
        "model": "facetalk",
        "settings": SETTINGS | settings,
        "global_batch": BATCH,
        "split": {"train": 1.0, "val": 0.0},
        "training": {"steps": STEPS, "ema": 0.99, "schedule": {"warmup_steps": 50, "shape": "cosine"}},
        "launch": {"device": "cpu"},
        "out": str(out),
    }
    begun = begin(TrainingManifest.parse(values, "facetalk_train"))
    model = load_model(train(begun, lambda *_: None), "cpu")
    assert isinstance(model, FaceTalk)
    return model


def judged(model: FaceTalk, clips: list[dict[str, Any]], sampling: Sampling | None = None) -> dict[str, float]:
    """Two sequences for each clip's sound, against the truth and each other."""
    heard = torch.stack([model.condition.whole(held, held["n_frames"], FPS) for held in clips])
    made = torch.stack([model.sample(heard, Draws(seed, len(clips)), sampling) for seed in (0, 1)], dim=1)
    true = torch.from_numpy(np.stack([held["nphm_expression"] for held in clips])).float()
    openings = torch.from_numpy(np.stack([landmark_opening(held["landmarks3d"]) for held in clips])).float()
    # All sentences begin and end with a closed mouth: without these half seconds, those of others have little in common.
    found, known = (track[:, 12:-12] for track in (made[:, 0] @ model.readout, openings))
    shuffled = [metrics.mouth_correlation(found, known.roll(shift, 0)) for shift in range(1, len(clips))]
    return {
        "mouth_correlation": metrics.mouth_correlation(found, known),
        "mouth_correlation_shuffled": float(np.mean(shuffled)),
        "mouth_movement_ratio": float(found.std(dim=1).mean() / known.std(dim=1).mean()),
        "diversity": metrics.diversity(made),
        "jitter_ratio": metrics.jitter(made[:, 0]).mae / metrics.jitter(true).mae,
    }
