"""The stage that fits expressions goes on where it was ended, to the same bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fitting.nphm_stage import NphmExpression
from fitting.studio.flame_file import write_flame
from fitting.studio.nphm_file import write_nphm
from manifests.stage import Done
from tests.fitting.head_columns import head_columns, true_code

QUICK: dict[str, dict[str, Any]] = {
    "gauss_newton": {"points": 100, "window": 3, "overlap": 1},
    "adam": {"points": 50, "window": 3, "overlap": 1, "iterations": 10},
}


class Memory:
    """``Partial`` in a dictionary; ends the work when ``pieces`` have been kept."""

    def __init__(self, pieces: int | None = None) -> None:
        self.held: dict[str, bytes] = {}
        self.pieces = pieces

    def read(self, name: str) -> bytes | None:
        return self.held.get(name)

    def write(self, name: str, data: bytes) -> None:
        self.held[name] = data
        if len(self.held) == self.pieces:
            raise KeyboardInterrupt


@pytest.fixture(scope="module", autouse=True)
def models(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("models")
    write_flame(folder)
    write_nphm(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADLOOM_MODELS", str(folder))
        yield


def run(stage: NphmExpression, memory: Memory) -> dict[str, Any]:
    outcome = stage.run(true_code(2).numpy(), **head_columns(2, 7), partial=memory)
    assert isinstance(outcome, Done), outcome
    return dict(outcome.columns)


@pytest.mark.parametrize("method", list(QUICK))
def test_work_that_was_ended_goes_on_to_the_same_codes_bit_for_bit(method: Any) -> None:
    stage = NphmExpression(method=method, **QUICK[method])
    memory = Memory()
    whole = run(stage, memory)
    assert sorted(memory.held) == ["window0.npy", "window2.npy", "window4.npy"]
    killed = Memory(pieces=2)
    with pytest.raises(KeyboardInterrupt):
        run(stage, killed)
    kept = dict(killed.held)
    assert sorted(kept) == ["window0.npy", "window2.npy"]
    killed.pieces = None
    resumed = run(stage, killed)
    assert {name: killed.held[name] for name in kept} == kept
    for name, column in whole.items():
        np.testing.assert_array_equal(resumed[name], column)
