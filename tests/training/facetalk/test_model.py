"""FaceTalk as the training loop and sampling use it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from training.draws import Draws
from training.facetalk.model import FaceTalk
from training.facetalk.settings import FaceTalkSettings, Sampling
from training.facetalk.statistics import Moments

SMALL = {"latent": 32, "blocks": 1, "heads": 4, "feedforward": 64, "window": 24, "sampling": {"steps": 4}}


def model_of(**settings: Any) -> FaceTalk:
    torch.manual_seed(0)
    return FaceTalk(FaceTalkSettings(**SMALL | settings), (24, 1)).eval()


def a_batch(model: FaceTalk, count: int = 4) -> dict[str, Any]:
    needs = model.needs(model.settings)
    frames = needs.window.length + sum(needs.window.context)
    draw = torch.Generator().manual_seed(0)
    shapes = {"mel": (80, round(frames * 80 / 24)), "nphm_expression": (frames, 200), "landmarks3d": (frames, 68, 3)}
    shapes |= {"flame_expression": (frames, 100), "flame_jaw": (frames, 3)}
    batch: dict[str, Any] = {name: torch.randn(count, *shapes[name], generator=draw) for name in needs.columns}
    return batch | {"first": 30 + 3 * torch.arange(count), "clip": torch.arange(count)}


def clips(model: FaceTalk) -> list[dict[str, Any]]:
    """Whole clips of 96 frames, whose mouths open with the third number of the codes."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(5):
        codes = 0.1 + 0.02 * rng.standard_normal((96, 200))
        lips = np.zeros((96, 68, 3))
        lips[:, 62, 1] = 0.01 + 0.1 * codes[:, 2]
        values = {"nphm_expression": codes, "landmarks3d": lips, "mel": 3 + 2 * rng.standard_normal((80, 321))}
        values |= {"flame_expression": codes[:, :100], "flame_jaw": 0 * codes[:, :3]}
        found.append({name: values[name].astype(np.float32) for name in model.needs(model.settings).columns})
    return found


def parts_of(batch: dict[str, Any], start: int, stop: int) -> dict[str, Any]:
    return {name: value[start:stop] for name, value in batch.items()}


def test_windows_have_context_for_the_sound_alone() -> None:
    assert FaceTalk.needs(FaceTalkSettings()).window.context == (8, 8)
    assert FaceTalk.needs(FaceTalkSettings(condition="wav2vec")).window.context == (0, 0)
    assert FaceTalk.needs(FaceTalkSettings()).columns == ("nphm_expression", "mel")
    both = FaceTalk.needs(FaceTalkSettings(condition="landmarks", mouth="landmarks")).columns
    assert both == ("nphm_expression", "landmarks3d", "world_to_nphm")


def test_what_is_learned_before_training_is_in_the_weights() -> None:
    model = model_of(mouth="landmarks")
    model.prepare(clips(model))
    assert float(model.mean.mean()) == pytest.approx(0.1, abs=1e-3)
    assert float(model.scale) == pytest.approx(0.02, rel=0.02)
    assert float(model.heard_mean.mean()) == pytest.approx(3, abs=0.05)
    assert float(model.heard_scale.mean()) == pytest.approx(2, rel=0.05)
    again = model_of(mouth="landmarks")
    again.load_state_dict(model.state_dict())
    assert all(torch.equal(getattr(again, name), getattr(model, name)) for name in ("mean", "scale", "heard_mean", "readout"))


def test_the_mouths_opening_is_read_from_the_codes() -> None:
    model = model_of(mouth="landmarks")
    model.prepare(clips(model))
    expected = torch.zeros(200)
    expected[2] = 0.1
    torch.testing.assert_close(model.readout, expected, atol=1e-4, rtol=0.01)


def test_without_landmarks_the_strongest_direction_is_shown() -> None:
    frames = np.random.default_rng(0).standard_normal((500, 4)) * [1, 3, 1, 1]
    moments = Moments(4)
    for part in np.split(frames, 5):
        moments.add(part)
    np.testing.assert_allclose(moments.covariance, np.cov(frames.T, bias=True))
    np.testing.assert_allclose(moments.strongest(), [0, 1, 0, 0], atol=0.1)


@pytest.mark.parametrize("diffusion", [True, False])
def test_the_loss_of_a_batch_is_that_of_its_parts(diffusion: bool) -> None:
    model = model_of(diffusion=diffusion)
    batch, draws = a_batch(model), Draws(3, 4)
    parts = [model.loss(parts_of(batch, k, k + 2), Draws(3, 4).part(k, k + 2))["loss"] for k in (0, 2)]
    torch.testing.assert_close(model.loss(batch, draws)["loss"], (parts[0] + parts[1]) / 2)


def test_the_loss_is_in_variances_of_the_codes() -> None:
    model = model_of(augmentation=(1, 1))
    model.prepare(clips(model))
    model.decoder.leave.weight.data.zero_()
    model.decoder.leave.bias.data.zero_()
    batch = a_batch(model)
    batch["nphm_expression"] = 0.1 + 0.02 * batch["nphm_expression"]
    assert model.loss(batch, Draws(0, 4))["loss"].item() == pytest.approx(1, abs=0.05)


def test_augmentation_scales_all_of_a_samples_codes_by_one_factor_within_the_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen = model_of(augmentation=(0.5, 2.0), diffusion=False), []
    monkeypatch.setattr(model, "_standard", lambda codes: seen.append(codes) or codes)
    batch = a_batch(model, 128)
    model.loss(batch, Draws(0, 128))
    ratio = seen[0] / batch["nphm_expression"][:, 8:-8]
    torch.testing.assert_close(ratio, ratio[:, :1, :1].expand_as(ratio))
    assert 0.5 <= float(ratio.min()) < 0.6
    assert 1.8 < float(ratio.max()) < 2.0


def test_the_same_draws_give_the_same_bytes() -> None:
    model = model_of()
    sound = torch.randn(2, 60, 1280, generator=torch.Generator().manual_seed(0))
    assert torch.equal(model.sample(sound, Draws(1, 2)), model.sample(sound, Draws(1, 2)))
    assert not torch.equal(model.sample(sound, Draws(1, 2)), model.sample(sound, Draws(2, 2)))


def test_guidance_mixes_predictions_with_and_without_sound() -> None:
    model = model_of()
    sound = torch.randn(2, 20, 1280, generator=torch.Generator().manual_seed(0))

    def made(guidance: float) -> Tensor:
        return model.sample(sound, Draws(1, 2), Sampling(steps=1, guidance=guidance))

    torch.testing.assert_close(made(2.5), 2.5 * made(1) - 1.5 * made(0))
    assert not torch.allclose(made(1), made(0))
    deaf = model.sample(sound + 1, Draws(1, 2), Sampling(steps=1, guidance=0))
    torch.testing.assert_close(deaf, made(0))


@pytest.mark.parametrize("frames", [1, 10, 24, 25, 100])
def test_sequences_may_have_any_length(frames: int) -> None:
    assert model_of().sample(torch.zeros(2, frames, 1280), Draws(0, 2)).shape == (2, frames, 200)


def test_without_diffusion_nothing_differs_between_samples() -> None:
    model = model_of(diffusion=False)
    figures = model.measure([a_batch(model)], Draws(0, 4))
    assert figures["diversity"] == 0
    model = model_of()
    assert model.measure([a_batch(model)], Draws(0, 4))["diversity"] > 0


def test_flames_codes_are_expression_and_jaw() -> None:
    model = model_of(target="flame")
    model.prepare(clips(model))
    batch = a_batch(model)
    assert torch.isfinite(model.loss(batch, Draws(0, 4))["loss"])
    assert model.sample(torch.zeros(1, 24, 1280), Draws(0, 1)).shape == (1, 24, 103)


@pytest.mark.parametrize("mouth", ["landmarks", "none"])
def test_validation_has_figures_and_curves(mouth: str) -> None:
    model = model_of(mouth=mouth)
    model.prepare(clips(model))
    batches = [a_batch(model, 8), a_batch(model, 8)]
    figures = model.measure(iter(batches), Draws(0, 8))
    name = "correlation" if mouth == "none" else "mouth_correlation"
    assert {name, f"{name}_shuffled", "diversity", "jitter_mae", "true_jitter_mae"} <= set(figures)
    assert abs(figures[name]) <= 1
    picture = model.pictures(batches[0], Draws(0, 8))["curves"]
    assert picture.dtype == np.uint8
    assert picture.shape == (6 * 120, 640, 3)
