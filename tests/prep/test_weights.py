"""Checkpoints give tensors and nothing else; what does not fit a network is named."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from manifests.model_file import WrongModelFile
from prep.weights import load_state, load_weights


class Calls:
    def __init__(self, function: Any, *arguments: Any):
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))


@pytest.mark.parametrize("new", [True, False])
def test_checkpoints_old_and_new(new: bool, tmp_path: Path) -> None:
    torch.save(
        {"epoch": 3, "net": network().state_dict(), "optimizer": ({"lr": 1e-3},)},
        tmp_path / "c.tar",
        _use_new_zipfile_serialization=new,
    )
    content = load_weights(tmp_path / "c.tar")
    assert content["epoch"] == 3
    load_state(network(), content["net"], "c.tar")


def test_safetensors(tmp_path: Path) -> None:
    theirs, ours = network(), network()
    save_file(
        {f"face.{key}": value for key, value in theirs.state_dict().items()} | {"other.weight": torch.ones(1)}, tmp_path / "c"
    )
    load_state(ours, load_weights(tmp_path / "c"), "c", prefix="face.")
    assert all(torch.equal(a, b) for a, b in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True))


def test_the_prefix_of_data_parallel_is_stripped() -> None:
    load_state(network(), {f"module.{key}": value for key, value in network().state_dict().items()}, "c")


def test_everything_that_does_not_fit_is_named() -> None:
    state = dict(network().state_dict())
    state["2.weight"] = torch.ones(3, 8)
    state["3.bias"] = state.pop("2.bias")
    with pytest.raises(WrongModelFile) as refusal:
        load_state(network(), state, "epoch_20.pth")
    message = str(refusal.value)
    assert message.startswith("epoch_20.pth ")
    assert "missing 2.bias" in message
    assert "unexpected 3.bias" in message
    assert "2.weight is 3×8 instead of 2×8" in message


@pytest.mark.parametrize("new", [True, False])
@pytest.mark.parametrize(
    ("function", "argument", "named"), [(os.system, "touch {}", "system"), (eval, "open({!r}, 'w')", "eval")]
)
def test_checkpoints_that_run_something_are_refused(new: bool, function: Any, argument: str, named: str, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    torch.save({"net": Calls(function, argument.format(str(mark)))}, tmp_path / "c.tar", _use_new_zipfile_serialization=new)
    with pytest.raises(WrongModelFile, match=named) as refusal:
        load_weights(tmp_path / "c.tar")
    assert not mark.exists()
    assert "\n" not in str(refusal.value)
    assert "weights_only" not in str(refusal.value), "nobody should be told how to run it after all"


def test_damage_is_told_from_other_files(tmp_path: Path) -> None:
    torch.save(network().state_dict(), tmp_path / "c.tar", _use_new_zipfile_serialization=False)
    whole = (tmp_path / "c.tar").read_bytes()
    (tmp_path / "c.tar").write_bytes(whole[: len(whole) - 40])
    with pytest.raises(WrongModelFile, match="truncated or damaged"):
        load_weights(tmp_path / "c.tar")
    (tmp_path / "p").write_bytes(pickle.dumps({"v_template": np.ones(3)}, 2))
    with pytest.raises(WrongModelFile, match="is a pickle, not a PyTorch checkpoint"):
        load_weights(tmp_path / "p")
    torch.save([1, 2], tmp_path / "list")
    with pytest.raises(WrongModelFile, match="holds a list"):
        load_weights(tmp_path / "list")
    torch.save(network(), tmp_path / "whole")
    with pytest.raises(WrongModelFile, match="Sequential"):
        load_weights(tmp_path / "whole")
