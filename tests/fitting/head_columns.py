"""Columns of a clip whose FLAME fit and clouds are the truth: what the NPHM stages read."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch

from fitting.studio.controls import Controls
from fitting.studio.expressions import expression_code
from fitting.studio.family import HeadFamily
from fitting.studio.nphm_file import nphm_identity
from fitting.studio.nphm_truth import head_surface
from fitting.studio.performance import perform
from fitting.studio.speaker import Speaker


@lru_cache(maxsize=2)
def head_columns(number: int, frames: int, *, points: int = 3000, start: float = 0.6) -> dict[str, np.ndarray]:
    """Of person ``number``, who speaks; the world is FLAME's space, and clouds are points of the true skin, with shoulders."""
    identity = HeadFamily("large").people(number + 1)[number]
    performance = perform(
        Speaker.draw(np.random.default_rng([0, number, 1])), start + frames / 24 + 0.2, [0, number, 1], sample_rate=8000
    )
    spoken: Controls = performance.at(start + np.arange(frames) / 24)
    skin = head_surface().posed(np.repeat(identity[None], frames, axis=0), spoken.expression, spoken.jaw) / 4
    rng = np.random.default_rng(number)
    clouds = [frame[rng.permutation(len(frame))[:points]] for frame in skin]
    return {
        "cloud_points": np.concatenate(clouds).astype(np.float32),
        "cloud_counts": np.full(frames, points, np.int32),
        "flame_identity": identity.astype(np.float32),
        "flame_expression": expression_code(spoken.expression).astype(np.float32),
        "flame_jaw": np.asarray(spoken.jaw, np.float32),
        "world_to_flame": np.repeat(np.eye(4)[None], frames, axis=0),
        "world_to_nphm": np.repeat(np.diag([4.0, 4.0, 4.0, 1.0])[None], frames, axis=0),
    }


def true_code(number: int) -> torch.Tensor:
    """(1344,)."""
    return torch.from_numpy(nphm_identity(HeadFamily("large").people(number + 1)[number])).float()
