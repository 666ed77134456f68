"""FLAME's files as they come: the model's pickle, the regions of its vertices, the eyelids that others have added.

The pickles were written by Python 2; some of their arrays are chumpy variables, the joint regressor is a sparse matrix.
Here all come out as NumPy arrays, checked, with nothing of the pickle run and no chumpy needed.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from manifests.model_file import Shape, WrongModelFile, check_shapes
from manifests.pickles import load_npy, load_pickle

JOINTS = ("global", "neck", "jaw", "eye", "eye")
"""The joints in FLAME's order. Which eye is the left one is told by the skinning weights."""

PARENTS = (-1, 0, 1, 1, 1)

REGIONS = (
    "face",
    "forehead",
    "nose",
    "lips",
    "scalp",
    "neck",
    "boundary",
    "eye_region",
    "left_eye_region",
    "right_eye_region",
    "left_ear",
    "right_ear",
    "left_eyeball",
    "right_eyeball",
)
"""The regions of FLAME_masks.pkl; they overlap."""

_SHAPES: dict[str, Shape] = {
    "v_template": ("vertices", 3),
    "shapedirs": ("vertices", 3, "directions"),
    "posedirs": ("vertices", 3, 36),
    "J_regressor": (5, "vertices"),
    "kintree_table": (2, 5),
    "weights": ("vertices", 5),
    "f": ("faces", 3),
}

_IDENTITY_OF = {400: 300, 20: 10}
"""How many of the columns of shapedirs are identity; the rest is expression."""


class ModelFile(NamedTuple):
    """What a FLAME pickle holds, in float64 and metres: V vertices, F faces, I identity and E expression directions."""

    template: NDArray[np.float64]
    """(V, 3) the mean head; x to the person's left, y up, z out of the face."""
    identity: NDArray[np.float64]
    """(V, 3, I)."""
    expression: NDArray[np.float64]
    """(V, 3, E)."""
    pose: NDArray[np.float64]
    """(V, 3, 36) pose correctives, for the entries of R - 1 of the joints 1 to 4, row by row."""
    regressor: NDArray[np.float64]
    """(5, V) joints out of vertices."""
    weights: NDArray[np.float64]
    """(V, 5) skinning weights; each row sums to 1."""
    faces: NDArray[np.int64]
    """(F, 3)."""
    digest: str
    """sha256 of shapedirs as little-endian float32 in C order. Codes belong to the file with this digest and no other."""


def read_model(path: Path) -> ModelFile:
    """Read a FLAME pickle (2017 to 2023, with or without jaw, any sex): 300 + 100 directions, or the reduced 10 + 10.

    The numbers of vertices and faces are free, so stand-ins of other sizes load too. Further keys are ignored. Raises
    ``WrongModelFile`` with every key that is missing or has another shape, and for content that cannot be a FLAME head.
    """
    held = load_pickle(path)
    if not isinstance(held, dict):
        raise WrongModelFile(f"{path} holds a {type(held).__name__} instead of FLAME's dict of arrays")
    shapes = {str(key): np.shape(value) for key, value in held.items() if not isinstance(value, list | tuple | dict)}
    # The official files carry further keys; they only matter as possible misspellings of what is missing.
    sizes = check_shapes(path, shapes, _SHAPES, ignore_others=_SHAPES.keys() <= shapes.keys())
    arrays = {key: _numbers(path, key, held[key]) for key in _SHAPES}
    if sizes["directions"] not in _IDENTITY_OF:
        raise WrongModelFile(f"{path} has {sizes['directions']} shape directions instead of 400 (300 + 100) or 20 (10 + 10)")
    parents = arrays["kintree_table"][0].astype(np.int64)
    if tuple(parents[1:]) != PARENTS[1:]:  # the root's own parent is -1 written as an unsigned number
        raise WrongModelFile(f"{path} has joints with the parents {parents[1:].tolist()} instead of FLAME's {list(PARENTS[1:])}")
    faces = arrays["f"].astype(np.int64)
    if faces.size and not 0 <= faces.min() <= faces.max() < sizes["vertices"]:
        raise WrongModelFile(f"{path} has faces with vertex {faces.max()} of {sizes['vertices']}")
    weights = arrays["weights"].astype(np.float64)
    if not np.allclose(weights.sum(1), 1, atol=1e-3):
        raise WrongModelFile(f"{path} has skinning weights that do not sum to 1: it is damaged; download it again")
    directions = arrays["shapedirs"].astype(np.float64)
    n_identity = _IDENTITY_OF[sizes["directions"]]
    return ModelFile(
        template=arrays["v_template"].astype(np.float64),
        identity=directions[:, :, :n_identity],
        expression=directions[:, :, n_identity:],
        pose=arrays["posedirs"].astype(np.float64),
        regressor=arrays["J_regressor"].astype(np.float64),
        weights=weights,
        faces=faces,
        digest=hashlib.sha256(np.ascontiguousarray(directions, "<f4").data).hexdigest(),
    )


def load_regions(path: Path | str) -> dict[str, Tensor]:
    """The regions of ``FLAME_masks.pkl``: names to sorted vertex indices (n,) int64.

    ``left`` and ``right`` are the person's. Raises ``WrongModelFile`` when one of ``REGIONS`` is missing or is not a list of
    indices; further ones are kept.
    """
    held = load_pickle(path)
    if not isinstance(held, dict):
        raise WrongModelFile(f"{path} holds a {type(held).__name__} instead of FLAME_masks.pkl's dict of vertex indices")
    expected: dict[str, Shape] = {name: (name,) for name in REGIONS}
    regions = {str(name): array_of(path, str(name), value) for name, value in held.items()}
    check_shapes(path, {name: array.shape for name, array in regions.items()}, expected, ignore_others=True)
    return {name: torch.from_numpy(np.unique(_indices(path, name, array))) for name, array in regions.items()}


def read_eyelid(path: Path, n_vertices: int | None = None) -> NDArray[np.float64]:
    """How closing one eyelid moves each vertex (V, 3), in metres: ``l_eyelid.npy`` or ``r_eyelid.npy`` of metrical-tracker.

    Raises ``WrongModelFile`` when it is not (``n_vertices``, 3).
    """
    held = np.asarray(load_npy(path))
    check_shapes(path, {"eyelid": held.shape}, {"eyelid": (n_vertices or "vertices", 3)})
    return _numbers(path, "eyelid", held).astype(np.float64)


def array_of(path: Path | str, key: str, value: Any) -> NDArray[Any]:
    """What a file holds under ``key`` as an array. Raises ``WrongModelFile`` for lists that are none."""
    try:
        return np.asarray(value)
    except ValueError as error:
        raise WrongModelFile(f"{path} has {key} with rows of several lengths instead of an array") from error


def _numbers(path: Path, key: str, value: Any) -> NDArray[Any]:
    array = np.asarray(value)
    if array.dtype.kind not in "fiu":
        raise WrongModelFile(f"{path} has {key} of type {array.dtype} instead of numbers")
    return array


def _indices(path: Path | str, key: str, array: NDArray[Any]) -> NDArray[np.int64]:
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise WrongModelFile(f"{path} has {key} of type {array.dtype} instead of a list of vertex indices")
    if (array < 0).any():
        raise WrongModelFile(f"{path} has {key} with the vertex {array.min()}: vertices are counted from 0")
    return array.astype(np.int64)
