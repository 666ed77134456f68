"""Reading network weights that somebody else made, without running anything that the file asks for."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from manifests.model_file import Kind, WrongModelFile, check_shapes, kind_of


def load_weights(path: Path | str) -> dict[str, Any]:
    """The content of a PyTorch checkpoint or safetensors file, with tensors on the CPU.

    A checkpoint is a dict, often of dicts; safetensors is flat. Raises ``WrongModelFile`` when the file is neither, is
    damaged, or wants anything but tensors and plain containers, and ``FileNotFoundError`` where there is none.
    """
    kind = kind_of(path)
    if kind is Kind.safetensors:
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return dict(load_file(path))
        except (SafetensorError, KeyError) as error:
            raise WrongModelFile(f"{path} is damaged ({error}): download it again") from error
    if kind is not Kind.torch:
        raise WrongModelFile(f"{path} is a {kind}, not a PyTorch checkpoint or safetensors file")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WrongModelFile(f"{path} {_what_it_wanted(error)}") from error
    except Exception as error:  # a damaged archive may raise anything
        raise WrongModelFile(f"{path} is truncated or damaged ({_first_line(error)}): download it again") from error
    if not isinstance(content, dict):
        raise WrongModelFile(f"{path} holds a {type(content).__name__}, not a dict of weights")
    return dict(content)


def load_state(module: nn.Module, state: Mapping[str, Any], path: Path | str, prefix: str = "") -> None:
    """Fill ``module`` with the entries of ``state`` whose key begins with ``prefix``; ``path`` is for messages.

    ``module.``, which DataParallel adds to keys, is stripped. Raises ``WrongModelFile`` with every missing, unexpected and
    misshaped key.
    """
    entries = {
        key.removeprefix(prefix).removeprefix("module."): value
        for key, value in state.items()
        if key.startswith(prefix) and isinstance(value, Tensor)
    }
    found = {key: tuple(value.shape) for key, value in entries.items()}
    check_shapes(path, found, {key: tuple(value.shape) for key, value in module.state_dict().items()})
    module.load_state_dict(entries)


def _what_it_wanted(error: pickle.UnpicklingError) -> str:
    """PyTorch's advice names the global in ``GLOBAL a.b`` or ``class a.b``, then tells how to allow it; we keep the name."""
    words = str(error).replace("`", " ").split()
    for before, word in pairwise(words):
        if before in ("GLOBAL", "global", "class", "function"):
            return f"wants to use {word}, which no weights need: nothing of it was run; get the file from its official source"
    return f"holds more than weights or is damaged ({_first_line(error)}): get it from its official source"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
