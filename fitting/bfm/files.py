"""Reading the .mat files around Deep3DFaceRecon: the face model, its landmarks, and coefficients that others have stored."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.io
import torch
from numpy.typing import NDArray
from torch import Tensor

from manifests.model_file import Kind, Shape, WrongModelFile, check_shapes, kind_of

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]

_BFM_SHAPES: dict[str, Shape] = {
    "meanshape": (1, "coordinates"),
    "idBase": ("coordinates", 80),
    "exBase": ("coordinates", 64),
    "meantex": (1, "coordinates"),
    "texBase": ("coordinates", 80),
    "tri": ("faces", 3),
    "point_buf": ("vertices", 8),
    "keypoints": (1, 68),
    "frontmask2_idx": ("front vertices", 1),
    "tri_mask2": ("front faces", 3),
    "skinmask": (1, "vertices"),
}


_NUMBERS = ("double", "single", "logical", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)))
"""Classes of MATLAB's that are arrays of numbers."""
_MOST = 2**28
"""Numbers in an array: 30 times the largest of the official files."""


class BfmFile(NamedTuple):
    """The content of ``BFM_model_front.mat``, with all indices counted from 0. N vertices, F faces; 35709 and 70789 in the
    official file."""

    mean_shape: Floats
    """(N, 3) decimetres, y up, z out of the face, not yet recentred."""
    identity_basis: Floats
    """(N, 3, 80) decimetres per standard deviation."""
    expression_basis: Floats
    """(N, 3, 64)."""
    mean_texture: Floats
    """(N, 3) red, green, blue in 0..255."""
    texture_basis: Floats
    """(N, 3, 80)."""
    faces: Indices
    """(F, 3)."""
    vertex_faces: Indices
    """(N, 8) faces around each vertex; F, one more than the last, where there are fewer."""
    landmark_vertices: Indices
    """(68,)."""
    front_vertices: Indices
    """(M,) the part of the face that Deep3DFaceRecon compares with pictures."""
    front_faces: Indices
    """(K, 3) the faces between front vertices. They index all vertices; in the file they count along ``frontmask2_idx``."""
    skin: Floats
    """(N,) 1 on skin whose colour should be even, 0 elsewhere."""


def load_bfm_file(path: Path | str) -> BfmFile:
    """Read ``BFM_model_front.mat``, or a model of another size with the same keys.

    Raises ``WrongModelFile`` when the file is not a MATLAB file, when keys are missing, unexpected or misshaped, and when an
    index points to nothing.
    """
    mat = _load_mat(path)
    sizes = check_shapes(path, {key: value.shape for key, value in mat.items()}, _BFM_SHAPES)
    n_vertices, n_faces = sizes["vertices"], sizes["faces"]
    if sizes["coordinates"] != 3 * n_vertices:
        raise WrongModelFile(
            f"{path} does not hold what it should: meanshape has {sizes['coordinates']} coordinates, "
            f"point_buf {n_vertices} vertices, which have {3 * n_vertices}"
        )

    def floats(key: str, *shape: int) -> Floats:
        return np.ascontiguousarray(mat[key], np.float32).reshape(shape)

    def indices(key: str, end: int) -> Indices:
        return _from_zero(path, key, mat[key], end)

    front = indices("frontmask2_idx", n_vertices)[:, 0]
    return BfmFile(
        mean_shape=floats("meanshape", -1, 3),
        identity_basis=floats("idBase", n_vertices, 3, 80),
        expression_basis=floats("exBase", n_vertices, 3, 64),
        mean_texture=floats("meantex", -1, 3),
        texture_basis=floats("texBase", n_vertices, 3, 80),
        faces=indices("tri", n_vertices),
        vertex_faces=indices("point_buf", n_faces + 1),
        landmark_vertices=indices("keypoints", n_vertices)[0],
        front_vertices=front,
        front_faces=front[indices("tri_mask2", len(front))],
        skin=floats("skinmask", -1),
    )


def load_landmarks3d(path: Path | str) -> Tensor:
    """The 68 landmarks (68, 3) float64 of a mean face, in decimetres, y up, of ``similarity_Lm3D_all.mat``.

    Alignment fits to five points of them. Raises ``WrongModelFile`` for any other file.
    """
    mat = _load_mat(path)
    check_shapes(path, {key: value.shape for key, value in mat.items()}, {"lm": (68, 3)})
    return torch.from_numpy(np.ascontiguousarray(mat["lm"], np.float64))


class SadTalkerMat(NamedTuple):
    """The content of a ``.mat`` that SadTalker wrote."""

    semantics: Tensor
    """(T, 73), or (T, 70) in the files that it makes from audio; ``coeff_3dmm``."""
    reference: Tensor | None
    """(1, 257) all coefficients of the first frame; ``full_3dmm``, which files made from audio do not have."""


def load_sadtalker_mat(path: Path | str) -> SadTalkerMat:
    """Read SadTalker's coefficients, float32. Raises ``WrongModelFile`` for any other file."""
    mat = _load_mat(path)
    expected: dict[str, Shape] = {"coeff_3dmm": ("frames", "coefficients")}
    sizes = check_shapes(path, {key: v.shape for key, v in mat.items()}, expected, optional={"full_3dmm": (1, 257)})
    if sizes["coefficients"] not in (70, 73):
        raise WrongModelFile(f"{path} does not hold what it should: coeff_3dmm has {sizes['coefficients']} columns, not 70 or 73")
    return SadTalkerMat(_tensor(mat["coeff_3dmm"]), _tensor(mat["full_3dmm"]) if "full_3dmm" in mat else None)


class CoefficientsMat(NamedTuple):
    """The content of a ``.mat`` in the layout of PIRender and DreamTalk."""

    coefficients: Tensor
    """(T, 257); ``coeff``."""
    trans_params: Tensor
    """(T, 5) width, height, scale, t0, t1 of each frame's alignment; ``transform_params``."""


def load_coefficients_mat(path: Path | str) -> CoefficientsMat:
    """Read PIRender's or DreamTalk's coefficients, float32. Raises ``WrongModelFile`` for any other file."""
    mat = _load_mat(path)
    expected: dict[str, Shape] = {"coeff": ("frames", 257), "transform_params": ("frames", 5)}
    check_shapes(path, {key: value.shape for key, value in mat.items()}, expected)
    return CoefficientsMat(_tensor(mat["coeff"]), _tensor(mat["transform_params"]))


def _load_mat(path: Path | str) -> dict[str, NDArray[Any]]:
    """The numeric arrays of a MATLAB file by name."""
    if (kind := kind_of(path)) is not Kind.mat:
        raise WrongModelFile(f"{path} is a {kind}, not a MATLAB file")
    try:
        # The headers first: what a file claims to hold can be nested without end, or unpack to any size.
        for key, shape, class_name in scipy.io.whosmat(path):
            if class_name not in _NUMBERS:
                raise WrongModelFile(f"{path} holds something other than numbers under {key}: get it from its official source")
            if math.prod(shape) > _MOST:
                raise WrongModelFile(f"{path} claims {math.prod(shape)} numbers under {key}: get it from its official source")
        arrays = {key: value for key, value in scipy.io.loadmat(path).items() if not key.startswith("__")}
    except WrongModelFile:
        raise
    except Exception as error:  # a damaged file may raise anything
        raise WrongModelFile(f"{path} is truncated or damaged ({error}): download it again") from error
    for key, value in arrays.items():
        if value.dtype.kind == "c":
            raise WrongModelFile(f"{path} holds complex numbers under {key}: get it from its official source")
    return arrays


def _from_zero(path: Path | str, key: str, array: NDArray[Any], end: int) -> Indices:
    """MATLAB's indices 1..``end``, which are stored as floats, as 0..``end`` - 1."""
    if not ((array >= 1) & (array <= end) & (array == np.rint(array))).all():
        raise WrongModelFile(
            f"{path} does not hold what it should: {key} are indices from 1 to {end}, found {array.min():g} to {array.max():g}"
        )
    indices: Indices = array.astype(np.int64) - 1
    return indices


def _tensor(array: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, np.float32))
