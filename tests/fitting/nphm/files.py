"""Writes NPHM's files with their official keys and shapes, and random numbers in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.fitting.rule_weights import rule_state

Shapes = dict[str, tuple[int, ...]]


def identity_shapes(
    n_anchors: int = 39, pairs: int = 16, *, code: tuple[int, int] = (64, 32), hidden: int = 200, anchor_hidden: int = 256
) -> Shapes:
    """Keys and shapes of the identity network; those of the published one by default."""
    sets, inputs = n_anchors + 1 - pairs, 3 + sum(code)
    shapes: Shapes = {}
    for layer, (before, after) in enumerate(
        [(inputs, hidden), (hidden, hidden - inputs), (hidden, hidden), (hidden, hidden), (hidden, 1)]
    ):
        shapes[f"ensembled_deep_sdf.lin{layer}.weight"] = (sets, after, before)
        shapes[f"ensembled_deep_sdf.lin{layer}.bias"] = (sets, after)
    for layer, (before, after) in zip(
        (0, 2, 4), [(code[0], anchor_hidden), (anchor_hidden, anchor_hidden), (anchor_hidden, 3 * n_anchors)], strict=True
    ):
        shapes[f"mlp_pos.{layer}.weight"] = (after, before)
        shapes[f"mlp_pos.{layer}.bias"] = (after,)
    return shapes


def expression_shapes(*, known: int = 32, told: int = 1461, expression: int = 200, hidden: int = 512, outputs: int = 3) -> Shapes:
    """Keys and shapes of the expression network with conditioning ``compress``; those of the published one by default."""
    inputs = 3 + known + expression
    widths = [(inputs, hidden), (hidden, hidden), (hidden, hidden - inputs), *[(hidden, hidden)] * 3, (hidden, outputs)]
    shapes: Shapes = {"compressor.0.weight": (known, told), "compressor.0.bias": (known,)} if told else {}
    for layer, (before, after) in enumerate(widths):
        shapes[f"defDeepSDF.lin{layer}.weight"] = (after, before)
        shapes[f"defDeepSDF.lin{layer}.bias"] = (after,)
    return shapes


def checkpoint(state: dict[str, Tensor], numbers: int, *, epoch: int, rows: int = 12) -> dict[str, Any]:
    """All entries of a published checkpoint around ``state``."""
    optimizer = {"state": {0: {"step": 3, "exp_avg": torch.zeros(4)}}, "param_groups": [{"lr": 5e-4, "params": [0]}]}
    return {
        "epoch": epoch,
        "decoder_state_dict": state,
        "optimizer_encoder_state_dict": optimizer,
        "optimizer_lat_state_dict": optimizer,
        "optimizer_lat_val_state_dict": optimizer,
        "latent_codes_state_dict": {"weight": torch.randn(rows, numbers) * 0.05},
        "latent_codes_val_state_dict": {"weight": torch.randn(3, numbers) * 0.05},
    }


def random_anchors(n_anchors: int = 39, pairs: int = 16, seed: int = 0) -> np.ndarray:
    """Mean anchors (A, 3), as spread as the published ones: mirrored pairs on alternating sides, then the middle ones."""
    rng = np.random.default_rng(seed)
    anchors = rng.uniform((0.02, -0.45, -0.52), (0.29, 0.45, 0.28), (n_anchors, 3))
    anchors[1 : 2 * pairs : 2] = anchors[: 2 * pairs : 2] * (-1, 1, 1)
    anchors[2 * pairs :, 0] = 0
    return anchors


def write_identity(folder: Path) -> Path:
    path = folder / "checkpoint_epoch_15000.tar"
    torch.save(checkpoint(rule_state(identity_shapes(), lastdim=True), 1344, epoch=15000), path)
    return path


def write_expression(folder: Path, name: str = "checkpoint_epoch_2500.tar") -> Path:
    path = folder / name
    torch.save(checkpoint(rule_state(expression_shapes()), 200, epoch=2500), path)
    return path


def write_anchors(folder: Path) -> Path:
    path = folder / "anchors_39.npy"
    np.save(path, random_anchors())
    return path


def write_statistics(folder: Path) -> tuple[Path, Path]:
    rng = np.random.default_rng(1)
    paths = folder / "nphm_lat_mean.npy", folder / "nphm_lat_std.npy"
    np.save(paths[0], rng.normal(0, 0.01, 1344).astype(np.float32))
    np.save(paths[1], rng.uniform(1e-3, 0.03, 1344).astype(np.float32))
    return paths
