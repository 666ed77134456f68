"""The loop: exact resuming, the same numbers however a batch is worked through, and stops that say why."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from manifests.document import ManifestError
from manifests.training import Schedule
from tests.training.toy import manifest, training, write_data
from training.log import PICTURES, read_log
from training.loop import rate_factor
from training.run import begin, train


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("toy"))


def run(data: Path, out: Path, *, resume: bool = False, **changes: Any) -> Path:
    return train(begin(manifest(data, out, **changes), resume=resume), lambda step, steps, figures: None)


def weights(place: Path, name: str = "weights.safetensors") -> dict[str, torch.Tensor]:
    return load_file(place / name)


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("model", ["Toy", "Players"])
@pytest.mark.parametrize("stop", [3, 4, 7])
def test_a_run_that_was_cut_off_gives_the_same_bits(data: Path, tmp_path: Path, stop: int, model: str) -> None:
    how = training(ema=0.9, clip_norm=0.5, save_every=1)
    whole = run(data, tmp_path / "whole", model=model, training=how)
    run(data, tmp_path / "cut", model=model, training=how | {"steps": stop})
    cut = run(data, tmp_path / "cut", model=model, training=how, resume=True)
    assert same(weights(cut), weights(whole))
    assert same(weights(cut, "ema.safetensors"), weights(whole, "ema.safetensors"))
    assert same(weights(cut, "state.safetensors"), weights(whole, "state.safetensors"))
    losses = [[line for line in read_log(place.parent) if line["kind"] == "val"] for place in (cut, whole)]
    assert losses[0][-1] == losses[1][-1]


def test_weights_change_and_the_average_is_another(data: Path, tmp_path: Path) -> None:
    last = run(data, tmp_path / "run", training=training(ema=0.9, save_every=5))
    first = tmp_path / "run" / "checkpoints" / "step-00000005"
    assert not same(weights(last), weights(first))
    assert not same(weights(last), weights(last, "ema.safetensors"))


def test_parts_of_a_batch_make_the_same_step(data: Path, tmp_path: Path) -> None:
    at_once = run(data, tmp_path / "whole", model="Players")
    in_parts = run(data, tmp_path / "parts", model="Players", training=training(accumulate=4))
    for name, values in weights(at_once).items():
        torch.testing.assert_close(weights(in_parts)[name], values)


def test_each_update_changes_its_own_parameters_alone(data: Path, tmp_path: Path) -> None:
    place = run(data, tmp_path / "run", model="Players", training=training(steps=2, save_every=1, validate_every=9))
    steps = [weights(place.parent / "checkpoints" / f"step-0000000{step}") for step in (1, 2)]
    changed = {name for name in steps[0] if not torch.equal(steps[0][name], steps[1][name])}
    assert changed == {"body.0.weight", "body.0.bias", "body.1.weight", "body.1.bias"}  # the critic's turn was the first step


def test_a_loss_that_is_not_finite_stops_and_names_the_clips(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"step \d: the loss of clips \w+ is not finite; nothing was learned") as caught:
        run(data, tmp_path / "run", settings={"spoilt": 0})
    from manifests.reader import Dataset

    assert Dataset(data).clips["clip_id"][0].as_py() in str(caught.value)


def test_a_gradient_that_is_not_finite_stops_before_the_step(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="step 0: the gradient of body is not finite, though its loss is"):
        run(data, tmp_path / "run", settings={"steep": True})
    assert not (tmp_path / "run" / "last").exists()


def test_a_run_is_not_overwritten(data: Path, tmp_path: Path) -> None:
    run(data, tmp_path / "run", training=training(steps=2))
    with pytest.raises(ManifestError, match="holds a run already; go on with --resume"):
        run(data, tmp_path / "run")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(ManifestError, match="is a folder of something else"):
        run(data, tmp_path / "mine")


def test_resuming_with_other_settings_is_refused_and_says_which(data: Path, tmp_path: Path) -> None:
    run(data, tmp_path / "run", training=training(steps=2))
    with pytest.raises(ManifestError, match=r"settings.width is None, now 9; set them back"):
        run(data, tmp_path / "run", resume=True, settings={"width": 9})
    with pytest.raises(ManifestError, match=r"global_batch is 6, now 8"):
        run(data, tmp_path / "run", resume=True, global_batch=8)


def test_the_length_of_a_cosine_is_one_of_those_settings(data: Path, tmp_path: Path) -> None:
    course = {"schedule": {"shape": "cosine"}}
    run(data, tmp_path / "run", training=training(steps=2, **course))
    with pytest.raises(ManifestError, match=r"training.steps is 2, now 10"):
        run(data, tmp_path / "run", resume=True, training=training(**course))


def test_resume_where_nothing_is_begins(data: Path, tmp_path: Path) -> None:
    assert run(data, tmp_path / "run", resume=True, training=training(steps=1)).exists()


def test_last_and_best_point_at_checkpoints_and_old_ones_go(data: Path, tmp_path: Path) -> None:
    last = run(data, tmp_path / "run", training=training(save_every=1, keep=2))
    kept = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert last.resolve().name == kept[-1] == "step-00000010"
    best = (tmp_path / "run" / "best").resolve().name
    assert set(kept) == {"step-00000009", "step-00000010", best}
    found = {line["step"]: line["loss"] for line in read_log(tmp_path / "run") if line["kind"] == "val"}
    assert best == f"step-{min(found, key=found.get):08d}"


def test_the_log_has_figures_and_pictures(data: Path, tmp_path: Path) -> None:
    run(data, tmp_path / "run")
    lines = read_log(tmp_path / "run")
    assert [line["step"] for line in lines if line["kind"] == "train"] == list(range(1, 11))
    assert [(line["step"], line["batches"]) for line in lines if line["kind"] == "val"] == [(5, 2.0), (10, 2.0)]
    assert (tmp_path / "run" / PICTURES / "step-00000005" / "grey.png").is_file()
    assert any((tmp_path / "run" / "tensorboard").iterdir())


def test_half_precision_trains(data: Path, tmp_path: Path) -> None:
    last = run(data, tmp_path / "run", training=training(precision="bfloat16"))
    assert all(torch.isfinite(values).all() for values in weights(last).values())


def test_a_schedule_warms_up_and_falls() -> None:
    schedule = Schedule(warmup_steps=4, shape="cosine")
    factors = [rate_factor(step, 12, schedule) for step in range(12)]
    assert factors[:4] == [0.25, 0.5, 0.75, 1.0]
    assert factors[4:12:4] == [1, pytest.approx(0.5)]
    assert 0 < factors[11] < 0.05
    assert rate_factor(7, 12, Schedule()) == 1
