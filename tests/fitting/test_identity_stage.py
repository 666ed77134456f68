"""The stage gives every clip an identity code: a known one as it is, else one that explains the neutral frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fitting.identity_stage import NphmIdentity
from fitting.studio.flame_file import write_flame
from fitting.studio.nphm_file import write_nphm
from manifests.columns import COLUMNS
from manifests.stage import Done, Outcome, Rejected
from tests.fitting.head_columns import head_columns, true_code

QUICK: dict[str, Any] = {"frames": 2, "iterations": 30, "points": 120}


@pytest.fixture(scope="module", autouse=True)
def models(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("models")
    write_flame(folder)
    write_nphm(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADLOOM_MODELS", str(folder))
        yield


def run(stage: NphmIdentity, person: str = "002", **others: np.ndarray) -> Outcome:
    given = {"person": person, **head_columns(2, 4), **others}
    return stage.run(**{name: given[name] for name in stage.reads()})


def columns(outcome: Outcome) -> dict[str, Any]:
    assert isinstance(outcome, Done), outcome
    return dict(outcome.columns)


@pytest.mark.parametrize("shape", [(1344,), (1, 1, 1344)])
def test_a_given_code_is_taken_as_it_is(tmp_path: Path, shape: tuple[int, ...]) -> None:
    code = true_code(2).numpy()
    np.save(tmp_path / "002.npy", code.reshape(shape))
    found = columns(run(NphmIdentity(identities=tmp_path, **QUICK)))
    np.testing.assert_array_equal(found["nphm_identity"], code)
    assert found["nphm_identity_given"] == 1
    assert 0 < found["nphm_identity_error_mm"] < 0.5


def test_a_code_of_somebody_else_explains_the_clouds_worse(tmp_path: Path) -> None:
    np.save(tmp_path / "002.npy", true_code(4).numpy())
    other = columns(run(NphmIdentity(identities=tmp_path, **QUICK)))
    assert other["nphm_identity_error_mm"] > 0.8


def test_without_a_code_one_is_fitted_and_explains_the_clouds() -> None:
    found = columns(run(NphmIdentity(**QUICK)))
    assert found["nphm_identity_given"] == 0
    assert found["nphm_identity_error_mm"] < 0.5
    assert found["nphm_identity"].shape == COLUMNS["nphm_identity"].shape
    assert set(found) == set(NphmIdentity.writes)
    again = columns(run(NphmIdentity(**QUICK)))
    np.testing.assert_array_equal(again["nphm_identity"], found["nphm_identity"])


def test_strictness_sets_people_without_a_code_aside(tmp_path: Path) -> None:
    strict = NphmIdentity(identities=tmp_path, missing="reject", **QUICK)
    assert run(strict) == Rejected("no identity code of the person", message=f"002.npy is not in {tmp_path}")
    outcome = run(NphmIdentity(missing="reject"))
    assert outcome == Rejected("no identity code of the person", message="no folder of identities was given")


def test_a_person_without_a_name_has_no_code(tmp_path: Path) -> None:
    np.save(tmp_path / ".npy", true_code(2).numpy())
    assert isinstance(run(NphmIdentity(identities=tmp_path, missing="reject"), person=""), Rejected)


def test_codes_of_another_size_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "002.npy", np.zeros(2176, np.float32))
    with pytest.raises(ValueError, match=r"002\.npy holds 2176 numbers, an identity code has 1344"):
        run(NphmIdentity(identities=tmp_path))


def test_clips_without_points_are_set_aside() -> None:
    given = {"cloud_points": np.zeros((0, 3), np.float32), "cloud_counts": np.zeros(4, np.int32)}
    assert run(NphmIdentity(**QUICK), **given) == Rejected("no points of the head in neutral frames")


def test_the_folders_files_enter_the_key(tmp_path: Path) -> None:
    assert NphmIdentity().files() == ()
    np.save(tmp_path / "b.npy", torch.zeros(1344).numpy())
    np.save(tmp_path / "a.npy", torch.zeros(1344).numpy())
    assert NphmIdentity(identities=tmp_path).files() == (tmp_path / "a.npy", tmp_path / "b.npy")
