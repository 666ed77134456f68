"""Weights that a rule derives from key names, and comparison with numbers recorded from published code under the same weights.

The rule: uniform numbers in -1..1 from a generator seeded with the CRC of the key, scaled by what the entry is for. The
published network and ours, filled by it, must compute the same function.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

SEED = 7


def rule_array(key: str, shape: tuple[int, ...], *, gain: float = 1.0, lastdim: bool = False) -> np.ndarray:
    """float32 weights (int64 for counters) of the entry ``key``; ``lastdim`` is the variant for ensembles of networks."""
    r = np.random.RandomState((zlib.crc32(key.encode()) + SEED) % 2**32).uniform(-1, 1, shape)
    many = len(shape) >= 2
    if key.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    if key.endswith("running_var"):
        value = 1 + 0.5 * np.abs(r)
    elif key.endswith("running_mean"):
        value = 0.1 * r
    elif len(shape) == 1 and key.endswith("weight"):
        value = 1 + 0.1 * r
    elif len(shape) == 1 and key.endswith(("weight_u", "weight_v")):
        value = r / np.sqrt((r * r).sum())
    elif len(shape) == 1 or (lastdim and len(shape) == 2 and key.endswith("bias")):
        value, many = 0.1 * r, False
    elif lastdim and len(shape) == 3:
        value = r * np.sqrt(3 / shape[-1])
    else:
        value = r * np.sqrt(3 / np.prod(shape[1:]))
    return np.asarray(value * (gain if many else 1.0), np.float32)


def rule_state(shapes: Mapping[str, tuple[int, ...]], *, gain: float = 1.0, lastdim: bool = False) -> dict[str, torch.Tensor]:
    """A state dict for ``shapes``, filled by the rule."""
    return {key: torch.from_numpy(rule_array(key, tuple(shape), gain=gain, lastdim=lastdim)) for key, shape in shapes.items()}


def recorded_shapes(recorded: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """``sd_keys`` and ``sd_shapes`` of a recording as a mapping."""
    return {
        str(key): tuple(int(n) for n in str(shape).split("x") if n)
        for key, shape in zip(recorded["sd_keys"], recorded["sd_shapes"], strict=True)
    }


def redraw(meta: str) -> dict[str, np.ndarray]:
    """The inputs of a recording, drawn again from its ``meta`` (draws ``uniform``, ``randn*s`` and ``randint``)."""
    stream = np.random.RandomState(SEED + 1)
    drawn = {}
    for item in json.loads(meta)["inputs"]:
        draw, shape = item["draw"], item["shape"]
        if draw.startswith("randn*"):
            value = stream.randn(*shape) * float(draw.removeprefix("randn*"))
        else:
            name, bounds = draw.rstrip(")").split("(")
            low, high = (float(bound) for bound in bounds.split(","))
            value = stream.uniform(low, high, shape) if name == "uniform" else stream.randint(int(low), int(high), shape)
        drawn[item["name"]] = value.astype(item["dtype"])
    return drawn


def assert_close(actual: Any, recorded: Any, tolerance: float = 2e-5, what: str = "") -> None:
    """Largest difference within ``tolerance`` times the root mean square of what was recorded."""
    actual = actual.detach().cpu().numpy() if isinstance(actual, torch.Tensor) else np.asarray(actual)
    recorded = np.asarray(recorded)
    assert actual.shape == recorded.shape, f"{what}: shape {actual.shape}, recorded {recorded.shape}"
    rms = float(np.sqrt(np.mean(np.square(recorded, dtype=np.float64)))) or 1.0
    difference = float(np.abs(actual.astype(np.float64) - recorded).max())
    assert difference <= tolerance * rms, f"{what}: differs by {difference / rms:.2e} of the rms, allowed {tolerance:.0e}"
