"""FaceTalk learns: one clip by heart, and from some people's speech how others move their mouths."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fitting.studio.controls import EXPRESSIONS
from fitting.studio.nphm_codes import spread
from tests.training.facetalk.speech import heard, spoken, trained
from training import metrics
from training.draws import Draws
from training.facetalk.model import FaceTalk

SMALL = {"latent": 64, "blocks": 2, "heads": 4, "feedforward": 128, "learning_rate": 2e-3, "sampling": {"steps": 10}}


def jaws(codes: Any) -> torch.Tensor:
    """(N, T) a multiple of the jaw's rotation in the studio's ``codes`` (N, T, 200)."""
    return torch.as_tensor(codes).float() @ torch.from_numpy(spread()[:, len(EXPRESSIONS)]).float()


def true_jaws(clips: list[dict[str, Any]]) -> torch.Tensor:
    return jaws(np.stack([clip["nphm_expression"] for clip in clips]))


def test_one_clip_is_learned_by_heart(tmp_path: Path) -> None:
    clips = [spoken(0, 0)]
    model = trained(clips, tmp_path, steps=120, batch=8, **SMALL, augmentation=(1, 1), null_share=0)
    made = model.sample(heard(model, clips), Draws(0, 1))
    true = torch.from_numpy(clips[0]["nphm_expression"])
    assert float((made[0] - true).square().mean()) < 0.15 * float(true.var(dim=0).mean())
    assert metrics.correlation(jaws(made), true_jaws(clips)) > 0.95


@pytest.fixture(scope="module")
def held_out() -> list[dict[str, Any]]:
    """Speech of people that no model was trained on."""
    return [spoken(person, take) for person in (8, 9, 10, 11) for take in (0, 1)]


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> FaceTalk:
    clips = [spoken(person, take) for person in range(8) for take in range(3)]
    return trained(clips, tmp_path_factory.mktemp("facetalk"), steps=120, batch=16, **SMALL)


def test_speech_of_others_moves_the_mouth_as_it_should(learned: FaceTalk, held_out: list[dict[str, Any]]) -> None:
    made = jaws(learned.sample(heard(learned, held_out), Draws(0, len(held_out))))
    assert metrics.mouth_correlation(made, true_jaws(held_out)) > 0.6
    assert metrics.mouth_correlation(made, true_jaws(held_out), shuffled=True) < 0.35


def test_two_samples_of_a_sound_differ(learned: FaceTalk, held_out: list[dict[str, Any]]) -> None:
    sound = heard(learned, held_out[:2])
    made = torch.stack([learned.sample(sound, Draws(seed, 2)) for seed in (0, 1)], dim=1)
    assert metrics.diversity(made) > 0.01


def test_long_sequences_are_as_fast_at_the_ends_of_windows_as_elsewhere(
    learned: FaceTalk, held_out: list[dict[str, Any]]
) -> None:
    sound = heard(learned, held_out).flatten(0, 1).expand(8, -1, -1)
    speed = learned.sample(sound, Draws(0, 8)).diff(dim=1).norm(dim=-1).mean(dim=0)
    jolt = speed.diff().abs()
    assert float(speed[23::24].mean() / speed.mean()) == pytest.approx(1, abs=0.15)
    assert float(jolt[23::24].mean() / jolt.mean()) == pytest.approx(1, abs=0.25)
