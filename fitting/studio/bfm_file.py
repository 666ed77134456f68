"""The front of the family's face in the format of ``BFM_model_front.mat``, and its codes.

That model knows no joints: its expressions are the principal components of what people's faces do, jaws included, so codes
fit a performance closely but not exactly. Neck, head and eyes are no part of it.
"""

from __future__ import annotations

import io
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy.io
import torch

from fitting.flame.model import Flame
from fitting.studio.controls import EXPRESSIONS, Controls
from fitting.studio.expressions import expression_code
from fitting.studio.family import HeadFamily, still
from fitting.studio.features import SKIN, above_hairline, eye, mouth
from fitting.studio.identity import principal
from fitting.studio.sampling import Indices
from fitting.studio.skin import colours, random_look
from fitting.studio.spread import Size
from fitting.studio.surface import Floats
from manifests.atomic import whole_file

_SIZE: Size = "large"
_DECIMETRES = 10.0
N_IDENTITY, N_EXPRESSION, N_TEXTURE = 80, 64, 80


class FrontFace(NamedTuple):
    """The model's numbers, in metres, indices from 0."""

    vertices: Indices
    """(N,) which of the large mesh's vertices these are."""
    faces: Indices
    """(F, 3)."""
    mean: Floats
    """(N, 3) the mean face at rest."""
    identity: Floats
    """(N, 3, 80) the first of the family's directions."""
    expression: Floats
    """(N, 3, 64)."""


class BfmCodes(NamedTuple):
    """Codes of a performance of T moments."""

    identity: Floats
    """(80,)."""
    expression: Floats
    """(T, 64)."""
    residual: Floats
    """(T,) mean distance of the coded vertices from the true ones, in millimetres."""


def write_bfm(folder: Path) -> dict[str, Path]:
    """Write ``BFM_model_front.mat`` and ``similarity_Lm3D_all.mat``; returns the paths by the names of ``manifests.assets``.

    Decimetres; colours in 0..255; indices from 1, stored as floats; ``tri_mask2`` counts along ``frontmask2_idx``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    face = front_face()
    mesh = HeadFamily(_SIZE).mesh
    sites = mesh.sites.take(face.vertices)
    n_vertices = len(face.vertices)
    at_ear = np.isin(face.vertices, [*HeadFamily(_SIZE).regions["left_ear"], *HeadFamily(_SIZE).regions["right_ear"]])
    hair = above_hairline(sites.base) > 0
    front = np.nonzero(~at_ear & ~hair & (sites.base[:, 2] > -0.005))[0]
    bare = (eye(sites).distance > 0.008) & (np.abs(mouth(sites).across) > 0.012) & (sites.base[:, 1] < 0.080)
    bare &= ~((np.abs(sites.base[:, 1] - 0.042) < 0.008) & (np.abs(sites.base[:, 0]) < 0.052))  # brows
    place = np.full(n_vertices, -1)
    place[front] = np.arange(len(front))
    front_faces = place[face.faces]
    mean_texture, texture = _textures()

    def flat(basis: Floats) -> Floats:
        return basis.reshape(3 * n_vertices, -1).astype(np.float32)

    def from_one(indices: Indices) -> Floats:
        return (indices + 1).astype(np.float32)

    where = np.full(len(mesh.rest), -1)
    where[face.vertices] = np.arange(n_vertices)
    landmarks = where[mesh.landmarks]
    arrays = {
        "meanshape": flat(_DECIMETRES * face.mean).T,
        "idBase": flat(_DECIMETRES * face.identity),
        "exBase": flat(_DECIMETRES * face.expression),
        "meantex": flat(mean_texture).T,
        "texBase": flat(texture),
        "tri": from_one(face.faces),
        "point_buf": from_one(_faces_around(face.faces, n_vertices)),
        "keypoints": from_one(landmarks)[None],
        "frontmask2_idx": from_one(front)[:, None],
        "tri_mask2": from_one(front_faces[(front_faces >= 0).all(axis=1)]),
        "skinmask": (np.isin(np.arange(n_vertices), front) & bare)[None].astype(np.float32),
    }
    paths = {"bfm": folder / "BFM_model_front.mat", "bfm-landmarks": folder / "similarity_Lm3D_all.mat"}
    centred = _DECIMETRES * (face.mean - face.mean.mean(axis=0))
    for path, held in ((paths["bfm"], arrays), (paths["bfm-landmarks"], {"lm": centred[landmarks].astype(np.float32)})):
        content = io.BytesIO()
        scipy.io.savemat(content, held)
        # The format begins with 116 characters for people to read, in which SciPy puts the time: the same files at any time.
        content.getbuffer()[:116] = b"MATLAB 5.0 MAT-file, headloom studio".ljust(116)
        with whole_file(path) as file:
            file.write(content.getbuffer())
    return paths


def bfm_codes(identity: Floats, controls: Controls) -> BfmCodes:
    """Codes of a performance by the person with ``identity`` (300,), by least squares on the vertices of the head that is not
    turned. Neck, head, gaze and translation of the ``controls`` play no part. The identity's code is its first 80 numbers where
    the others are 0."""
    face, solvers = front_face(), _solvers()
    at_rest = HeadFamily(_SIZE).model.identity[face.vertices] @ identity
    code = solvers.identity @ at_rest.reshape(-1)
    moving = _shapes(identity, controls) - (face.mean + face.identity @ code)
    expression = moving.reshape(len(moving), -1) @ solvers.expression.T
    wrong = moving - (expression @ face.expression.reshape(-1, N_EXPRESSION).T).reshape(moving.shape)
    return BfmCodes(code, expression, 1e3 * np.linalg.norm(wrong, axis=-1).mean(axis=1))


class _Solvers(NamedTuple):
    identity: Floats
    """(80, 3N) codes out of displacements from the mean face."""
    expression: Floats
    """(64, 3N)."""


@lru_cache
def _solvers() -> _Solvers:
    face = front_face()
    return _Solvers(*(np.linalg.pinv(basis.reshape(-1, basis.shape[2])) for basis in (face.identity, face.expression)))


@lru_cache
def front_face() -> FrontFace:
    """The model; made once, in seconds."""
    vertices, faces = _front()
    model = HeadFamily(_SIZE).model
    identity = model.identity[vertices, :, :N_IDENTITY]
    return FrontFace(vertices, faces, model.template[vertices], identity, _motions())


@lru_cache
def _front() -> tuple[Indices, Indices]:
    """Vertices of the large mesh and triangles between them: the skin from hair to throat and ear to ear, eyes and mouth open."""
    family = HeadFamily(_SIZE)
    mesh = family.mesh
    kept = (mesh.sites.patch == SKIN) & (family.model.weights[:, 0] < 1e-9) & (mesh.closed[:, 2] > -0.034)
    kept &= above_hairline(mesh.sites.base) < 0.030
    faces = mesh.faces[kept[mesh.faces].all(axis=1)]
    vertices = np.unique(faces)
    place = np.full(len(mesh.rest), -1)
    place[vertices] = np.arange(len(vertices))
    return vertices, place[faces]


@lru_cache
def _face() -> Flame:
    return HeadFamily(_SIZE).flame(torch.float64).part(torch.from_numpy(_front()[0]))


def _shapes(identity: Floats, controls: Controls) -> Floats:
    """(T, N, 3) the face in the head's own space."""
    code = expression_code(controls.expression)[:, : len(EXPRESSIONS)]
    person, moving, jaw = (torch.from_numpy(np.asarray(part, np.float64)) for part in (identity, code, controls.jaw))
    with torch.no_grad():
        mesh = _face()(person, moving, jaw=jaw)
    shapes: Floats = mesh.vertices.numpy()
    return shapes


def _motions() -> Floats:
    """(N, 3, 64) principal components, about rest, of the motions of many people: activations and an opening jaw."""
    rng = np.random.default_rng(23)
    moves = []
    for identity in HeadFamily(_SIZE).people(_ACTORS, seed=97):
        shapes = _shapes(identity, performance(rng, _MOMENTS))
        moves.append((shapes - _shapes(identity, still())).reshape(_MOMENTS, -1))
    samples = np.concatenate(moves)
    # The samples are fewer than their coordinates, so the components are found as sums of samples.
    components = samples.T @ principal(samples.T, N_EXPRESSION)
    squares = (components**2).sum(axis=0)
    unit = components / np.sqrt(squares)
    found: Floats = (unit * np.sqrt(squares / len(samples))).reshape(-1, 3, N_EXPRESSION)
    return found


_ACTORS, _MOMENTS = 40, 30


def performance(rng: np.random.Generator, count: int) -> Controls:
    """Random moments as people make them when they speak: a few activations at once, the jaw mostly a little open."""
    active = rng.random((count, len(EXPRESSIONS))) < 0.22
    jaw = np.stack([0.35 * rng.beta(1.2, 2.2, count), *(0.012 * rng.standard_normal((2, count)))], axis=1)
    return still(count)._replace(expression=active * rng.uniform(0, 1, active.shape), jaw=jaw)


@lru_cache
def _textures() -> tuple[Floats, Floats]:
    """The mean colours (N, 3) in 0..255 and the principal components (N, 3, 80) of many people's."""
    base = HeadFamily(_SIZE).mesh.sites.base[_front()[0]]
    samples = np.stack([255.0 * colours(base, random_look(seed)) for seed in range(_PAINTED)]).reshape(_PAINTED, -1)
    mean = samples.mean(axis=0)
    _, deviations, components = np.linalg.svd(samples - mean, full_matrices=False)
    basis = (components[:N_TEXTURE] * deviations[:N_TEXTURE, None] / np.sqrt(_PAINTED)).T
    return mean.reshape(-1, 3), basis.reshape(-1, 3, N_TEXTURE)


_PAINTED = 160


def _faces_around(faces: Indices, n_vertices: int) -> Indices:
    """(N, 8) faces around each vertex, filled up with the number of faces; further ones than eight are left out."""
    order = np.argsort(faces.ravel(), kind="stable")
    vertex = faces.ravel()[order]
    nth = np.arange(len(vertex)) - np.searchsorted(vertex, vertex)
    found = np.full((n_vertices, 8), len(faces))
    few = nth < 8
    found[vertex[few], nth[few]] = order[few] // 3
    return found
