"""Writes a MonoNPHM checkpoint with its official keys and shapes, and random numbers in it."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

PAIRS = 30
N_ANCHORS = 65
CODE = 64 + 66 * 32
EXPRESSION = 100
N_IDENTITIES, N_SCANS = 381, 7707
"""Of the training set; the codebooks of other trainings have other numbers of rows."""


def linears(prefix: str, widths: list[int]) -> dict[str, tuple[int, ...]]:
    """Shapes of a stack of linear layers, numbered as in ``Sequential`` with an activation between any two."""
    shapes: dict[str, tuple[int, ...]] = {}
    for index, (before, after) in enumerate(pairwise(widths)):
        shapes[f"{prefix}.{2 * index}.weight"] = (after, before)
        shapes[f"{prefix}.{2 * index}.bias"] = (after,)
    return shapes


def identity_shapes(
    n_anchors: int = N_ANCHORS,
    pairs: int = PAIRS,
    *,
    code: tuple[int, int] = (64, 32),
    hyper: int = 2,
    hidden: tuple[int, ...] = (200,) * 4,
    color_hidden: tuple[int, ...] = (200,) * 4,
    message: int = 16,
    anchor_hidden: int = 64,
) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of ``id_decoder``; those of the published networks by default."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, inputs, widths, out in (("deepSDFensemble", 3 + hyper, hidden, 1), ("aggr_app", message, color_hidden, 3)):
        for n_set in range(n_anchors + 1 - pairs):
            shapes |= linears(f"{name}.layers.{n_set}.layers", [sum(code) + inputs, *widths, out])
    shapes |= {"communcation_bottleneck1.weight": (message, hidden[-1]), "communcation_bottleneck1.bias": (message,)}
    shapes |= {"communcation_bottleneck2.weight": (message, message), "communcation_bottleneck2.bias": (message,)}
    return shapes | linears("mlp_pos", [code[0], anchor_hidden, anchor_hidden, 3 * n_anchors])


def expression_shapes() -> dict[str, tuple[int, ...]]:
    """Keys and shapes of ``ex_decoder``."""
    shapes: dict[str, tuple[int, ...]] = {
        "compressor.0.weight": (16, CODE + 3 * N_ANCHORS),
        "compressor.0.bias": (16,),
    }
    inputs = 3 + 16 + EXPRESSION
    for index, (before, after) in enumerate(
        [(inputs, 400), (400, 400), (400, 400), (400 + inputs, 400), (400, 400), (400, 400), (400, 5)]
    ):
        shapes |= {f"defDeepSDF.lin{index}.weight": (after, before), f"defDeepSDF.lin{index}.bias": (after,)}
    return shapes


def random_state(shapes: Mapping[str, tuple[int, ...]], seed: int = 0) -> dict[str, Tensor]:
    """Numbers that keep the size of what passes through."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for key, shape in shapes.items():
        scale = (3 / shape[1]) ** 0.5 if len(shape) == 2 else 0.1
        state[key] = torch.empty(shape).uniform_(-scale, scale, generator=generator)
    return state


def random_anchors(n_anchors: int = N_ANCHORS, pairs: int = PAIRS, seed: int = 0) -> np.ndarray:
    """Mean anchors (A, 3), as spread as the published ones: mirrored pairs on alternating sides, then the middle ones."""
    rng = np.random.default_rng(seed)
    anchors = rng.uniform((0, -0.45, -0.52), (0.29, 0.45, 0.28), (n_anchors, 3))
    anchors[1 : 2 * pairs : 2] = anchors[: 2 * pairs : 2] * (-1, 1, 1)
    anchors[2 * pairs :, 0] = 0
    return anchors


def random_checkpoint(seed: int = 0) -> dict[str, Any]:
    """All entries of a published checkpoint, with optimisers that have hardly begun."""
    generator = torch.Generator().manual_seed(seed)
    optimiser = {
        "state": {0: {"step": 3, "exp_avg": torch.zeros(4)}},
        "param_groups": [{"lr": 5e-4, "betas": (0.9, 0.999), "params": [0]}],
    }

    def codebooks(n_identities: int, n_scans: int) -> dict[str, Tensor]:
        rows = {"geo": (n_identities, CODE), "exp": (n_scans, EXPRESSION), "app": (n_identities, CODE)}
        return {
            f"codebook.{kind}.embedding.weight": 0.02 * torch.randn(shape, generator=generator) for kind, shape in rows.items()
        }

    return {
        "epoch": 2500,
        "id_decoder": random_state(identity_shapes(), seed),
        "ex_decoder": random_state(expression_shapes(), seed + 1),
        "optimizer": optimiser,
        "latent_codes": codebooks(N_IDENTITIES, N_SCANS),
        "latent_codes_val": codebooks(10, 224),
        "optimizer_lat_expr": optimiser,
        "optimizer_lat_val_expr": optimiser,
        "optimizer_lat": (optimiser,),  # tuples in the published files
        "optimizer_lat_val": (optimiser,),
    }


def write_mononphm(folder: Path, checkpoint: Mapping[str, Any] | None = None) -> Path:
    """Write a checkpoint, a random one if none is given."""
    path = folder / "mononphm.tar"
    torch.save(dict(checkpoint) if checkpoint is not None else random_checkpoint(), path)
    return path


def write_mononphm_anchors(folder: Path, anchors: np.ndarray | None = None) -> Path:
    """Write the mean anchors that belong to a checkpoint."""
    path = folder / "anchors_65.npy"
    np.save(path, random_anchors() if anchors is None else anchors)
    return path
