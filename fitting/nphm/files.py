"""NPHM's files: checkpoints of the two networks, the mean anchors that these lack, tables and statistics of codes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fitting.nphm.expression import Direction, ExpressionNetwork
from fitting.nphm.identity import IdentityNetwork
from manifests.atomic import whole_file
from manifests.model_file import WrongModelFile, check_shapes
from manifests.pickles import load_npy
from prep.weights import load_weights

DECODER = "decoder_state_dict"
DIRECTION = "direction"
"""Key of the direction in the files that headloom writes; published ones have none."""

_OTHER_KEYS = (
    "epoch",
    "optimizer_encoder_state_dict",
    "optimizer_lat_state_dict",
    "optimizer_lat_val_state_dict",
    "latent_codes_state_dict",
    "latent_codes_val_state_dict",
)


class CodeTables(NamedTuple):
    """The codes with which a network was trained; None where a checkpoint has only weights."""

    training: Tensor | None
    """(subjects, 1344), or (scans, 200) in the expression network's."""
    validation: Tensor | None

    def of(self, names: Sequence[str]) -> dict[str, Tensor]:
        """The training codes by name. The checkpoint does not name its rows: ``names`` are those of the training set in order.

        NPHM's order is that of the sorted subjects, without those held out and those without a neutral scan. Raises
        ``ValueError`` where the number of names is another than that of rows: then they are of another training set.
        """
        rows = 0 if self.training is None else len(self.training)
        if self.training is None or rows != len(names):
            raise ValueError(f"{len(names)} names were given for {rows} training codes: the names are of another training set")
        return dict(zip(names, self.training, strict=True))


def load_identity(path: Path, anchors: Path) -> IdentityNetwork:
    """The identity network of an NPHM checkpoint, with the mean anchors of ``anchors_39.npy``; its weights need no gradient.

    Raises ``WrongModelFile``.
    """
    network = IdentityNetwork.from_state(read_identity(path), load_anchors(anchors), path)
    network.requires_grad_(False)
    return network


def read_identity(path: Path) -> dict[str, Any]:
    """The weights of the identity network in an NPHM checkpoint. Raises ``WrongModelFile`` when it holds another network."""
    return _decoder(_checkpoint(path), path, "ensembled_deep_sdf")


def load_expression(path: Path, direction: Direction | str | None = None) -> ExpressionNetwork:
    """The expression network of an NPHM checkpoint; its weights need no gradient.

    ``direction`` says which way weights go whose file does not say so; None takes them for forward ones, as published. Raises
    ``WrongModelFile``, also when the file says another direction.
    """
    content = _checkpoint(path)
    state, said = _decoder(content, path, "defDeepSDF"), content.get(DIRECTION)
    if said is not None and said not in list(Direction):
        raise WrongModelFile(f"{path} says its direction is {said!r}, which is neither forward nor backward")
    if said and direction and said != Direction(direction):
        raise WrongModelFile(f"{path} says that it goes {said}, {Direction(direction)} was asked for: leave the direction out")
    given = said or direction
    network = ExpressionNetwork.from_state(state, path, Direction(given) if given else None)
    network.requires_grad_(False)
    return network


def save_expression(network: ExpressionNetwork, path: Path, **provenance: str | float | int) -> None:
    """Write an expression network in the layout of NPHM's checkpoints, with its direction and ``provenance`` beside."""
    state = {key: value.detach().cpu() for key, value in network.state_dict().items()}
    with whole_file(path) as file:
        torch.save({DECODER: state, DIRECTION: network.direction.value, "provenance": provenance}, file)


def load_anchors(path: Path) -> Tensor:
    """Mean anchors (A, 3) float32 in NPHM units: ``anchors_39.npy`` (or MonoNPHM's ``anchors_65.npy``)."""
    held = np.asarray(load_npy(path))
    check_shapes(path, {"anchors": held.shape}, {"anchors": ("anchors", 3)})
    return _floats(path, held)


def load_code_statistic(path: Path) -> Tensor:
    """``nphm_lat_mean.npy`` or ``nphm_lat_std.npy``: (1344,) float32, of the identity codes in training."""
    held = np.asarray(load_npy(path))
    check_shapes(path, {"statistic": held.shape}, {"statistic": ("numbers",)})
    return _floats(path, held)


def load_codes(path: Path) -> CodeTables:
    """The tables of codes in a checkpoint, rows longer than 1 shortened to 1, as the published embedding does when it is used."""
    content = _checkpoint(path)
    tables = []
    for name in ("latent_codes_state_dict", "latent_codes_val_state_dict"):
        table = content.get(name)
        if table is not None:
            entries = table.items() if isinstance(table, dict) else ()
            found = {key: tuple(value.shape) for key, value in entries if isinstance(value, Tensor)}
            check_shapes(f"{path}, {name},", found, {"weight": ("rows", "numbers")})
        tables.append(None if table is None else torch.renorm(table["weight"], 2, 0, 1.0))
    return CodeTables(*tables)


def _decoder(content: dict[str, Any], path: Path, part: str) -> dict[str, Any]:
    """The weights in a checkpoint, checked to be of the network that has a ``part`` of this name."""
    state = {str(key): value for key, value in content[DECODER].items()}
    keys = [key.removeprefix("module.") for key in state]
    if not any(key.startswith(part) for key in keys):
        kinds = {"ensembled_deep_sdf": "an identity network", "defDeepSDF": "an expression network"}
        it = next(
            (kind for name, kind in kinds.items() if any(key.startswith(name) for key in keys)), "neither of NPHM's networks"
        )
        raise WrongModelFile(f"{path} holds {it}, not {kinds[part]}: give the other checkpoint")
    return state


def _checkpoint(path: Path) -> dict[str, Any]:
    content = load_weights(path)
    if "id_decoder" in content and "ex_decoder" in content:
        raise WrongModelFile(f"{path} is a MonoNPHM checkpoint: load it with fitting.nphm.load_mononphm")
    if not isinstance(content.get(DECODER), dict):
        raise WrongModelFile(f"{path} has no {DECODER}, but {', '.join(list(content)[:4])}: it is no NPHM checkpoint")
    unknown = set(content) - {DECODER, DIRECTION, "provenance", *_OTHER_KEYS}
    if unknown:
        raise WrongModelFile(f"{path} has unexpected {', '.join(sorted(unknown))}: it is no NPHM checkpoint")
    return content


def _floats(path: Path, array: np.ndarray[Any, Any]) -> Tensor:
    if array.dtype.kind != "f" or not np.isfinite(array).all():
        raise WrongModelFile(f"{path} holds {array.dtype} that are not all finite numbers: it is damaged; download it again")
    return torch.from_numpy(array.astype(np.float32))
