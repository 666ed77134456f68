"""MonoNPHM's files: the checkpoint with both networks and all codes, and what its tracker writes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fitting.nphm.expression import ExpressionNetwork
from fitting.nphm.files import load_anchors
from fitting.nphm.mono import MonoIdentityNetwork
from fitting.similarity import Similarity
from fitting.space import from_mononphm_pose, to_mononphm_pose
from manifests.model_file import Shape, WrongModelFile, check_shapes
from manifests.pickles import load_npy
from prep.weights import load_weights


class Codebooks(NamedTuple):
    """The codes with which MonoNPHM was trained. Which subject or scan a row belongs to is not in the checkpoint."""

    geometry: Tensor
    """(I, 2176) of I identities."""
    appearance: Tensor
    """(I, 2176)."""
    expression: Tensor
    """(E, 100) of E scans."""


class MonoNPHM(NamedTuple):
    """A published checkpoint, on the CPU, in float32, with weights that need no gradient."""

    identity: MonoIdentityNetwork
    expression: ExpressionNetwork
    codebooks: Codebooks


def load_mononphm(path: Path, anchors_path: Path) -> MonoNPHM:
    """Load MonoNPHM's ``checkpoint_epoch_2500.tar`` with its anchors, ``anchors_65.npy``.

    Of the checkpoint, ``id_decoder``, ``ex_decoder`` and ``latent_codes`` are needed; optimisers, validation codes and
    the epoch are ignored. Codes with a norm above 1 are shortened to 1, which the published embedding does whenever it is
    looked up. Raises ``WrongModelFile`` with every missing, unexpected and misshaped key.
    """
    return mononphm_of(read_mononphm(path), load_anchors(anchors_path), path)


def read_mononphm(path: Path) -> dict[str, Mapping[str, Any]]:
    """The parts of a MonoNPHM checkpoint that are needed. Raises ``WrongModelFile`` where one is missing."""
    checkpoint = load_weights(path)
    parts = ("id_decoder", "ex_decoder", "latent_codes")
    if lacking := [part for part in parts if not isinstance(checkpoint.get(part), Mapping)]:
        raise WrongModelFile(f"{path} lacks {', '.join(lacking)}: is it MonoNPHM's checkpoint?")
    return {part: checkpoint[part] for part in parts}


def mononphm_of(parts: Mapping[str, Mapping[str, Any]], anchors: Tensor, path: Path) -> MonoNPHM:
    """The networks and codes of ``read_mononphm``'s parts with mean ``anchors`` (A, 3); ``path`` is for messages."""
    identity = MonoIdentityNetwork.from_state(parts["id_decoder"], anchors, f"id_decoder of {path}")
    expression = ExpressionNetwork.from_state(parts["ex_decoder"], f"ex_decoder of {path}")
    codes = {
        key: value
        for key, value in parts["latent_codes"].items()
        if isinstance(value, Tensor) and not key.startswith("codebook_logvar.")
    }
    check_shapes(
        f"latent_codes of {path}",
        {key: tuple(value.shape) for key, value in codes.items()},
        {
            "codebook.geo.embedding.weight": ("identities", identity.code_size),
            "codebook.app.embedding.weight": ("identities", identity.code_size),
            "codebook.exp.embedding.weight": ("expressions", expression.n_expression),
        },
    )
    codebooks = Codebooks(
        *(torch.renorm(codes[f"codebook.{kind}.embedding.weight"], 2, 0, 1.0) for kind in ("geo", "app", "exp"))
    )
    return MonoNPHM(identity.requires_grad_(False).eval(), expression.requires_grad_(False).eval(), codebooks)


class Tracking(NamedTuple):
    """What MonoNPHM's tracker leaves in the folder of a frame."""

    geometry: Tensor
    """(1, 2176)."""
    appearance: Tensor
    """(1, 2176)."""
    expression: Tensor
    """(F, 100): of this frame, or in a folder of the second stage the table of all F frames, which each folder repeats."""
    world_to_nphm: Similarity
    """World in metres to NPHM's space, of one frame: scale (1,), rotation (1, 3, 3), translation (1, 3)."""


_TRACKED: dict[str, Shape] = {
    "z_geo": (1, 1, "code"),
    "z_app": (1, 1, "code"),
    "z_exp": ("frames", "expression"),
    "rot": (1, 3, 3),
    "trans": (1, 3),
    "scale": (1,),
}


def read_tracking(folder: Path) -> Tracking:
    """Read the codes and the pose that MonoNPHM's tracker wrote for a frame: ``z_geo.npy``, ``rot.npy`` and so on.

    The second stage keeps ``z_geo`` and ``z_app`` a folder above, where they are found, too. Raises ``WrongModelFile`` with
    every misshaped array, and ``FileNotFoundError`` where one is missing.
    """
    subject = folder if (folder / "z_geo.npy").exists() else folder.parent
    places = dict.fromkeys(_TRACKED, folder) | {"z_geo": subject, "z_app": subject}
    arrays = {name: np.asarray(load_npy(place / f"{name}.npy")) for name, place in places.items()}
    check_shapes(folder, {name: array.shape for name, array in arrays.items()}, _TRACKED)
    geometry, appearance, expression, rotation, translation, scale = (torch.from_numpy(array) for array in arrays.values())
    return Tracking(geometry[0], appearance[0], expression, from_mononphm_pose(scale, rotation, translation))


def write_tracking(folder: Path, tracking: Tracking) -> None:
    """Write a frame as MonoNPHM's tracker does; the inverse of ``read_tracking``. Raises ``ValueError`` for other shapes."""
    scale, rotation, translation = to_mononphm_pose(tracking.world_to_nphm)
    codes = (tracking.geometry[None], tracking.appearance[None], tracking.expression)
    arrays = dict(zip(_TRACKED, (*codes, rotation, translation, scale), strict=True))
    check_shapes(folder, {name: tuple(array.shape) for name, array in arrays.items()}, _TRACKED)
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array.detach().cpu().float().numpy())
