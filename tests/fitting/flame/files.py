"""Writes files with FLAME's official keys, types and shapes, and random numbers in them."""

from __future__ import annotations

import io
import pickle
import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import scipy.sparse
import torch

from fitting.flame.files import REGIONS

N_VERTICES, N_FACES = 5023, 9976
"""Of the official head."""


class Python2Pickler(pickle._Pickler):
    """Writes text and bytes as Python 2's ``str``, which is how NumPy's arrays look in the official files."""

    dispatch = dict(pickle._Pickler.dispatch)

    def save_python2_string(self, value: str | bytes) -> None:
        raw = value.encode("latin1") if isinstance(value, str) else value
        self.write(
            pickle.SHORT_BINSTRING + bytes([len(raw)]) if len(raw) < 256 else pickle.BINSTRING + len(raw).to_bytes(4, "little")
        )
        self.write(raw)
        self.memoize(value)

    dispatch[str] = save_python2_string
    dispatch[bytes] = save_python2_string


def write_pickle(path: Path, held: Any) -> Path:
    """As Python 2 wrote it, with the names that NumPy's and SciPy's modules had then."""
    buffer = io.BytesIO()
    Python2Pickler(buffer, protocol=2).dump(held)
    data = buffer.getvalue()
    for now, then in ((b"cnumpy._core.", b"cnumpy.core."), (b"cscipy.sparse._csc\n", b"cscipy.sparse.csc\n")):
        data = data.replace(now, then)
    path.write_bytes(data)
    return path


def random_head(
    n_vertices: int = N_VERTICES, n_faces: int = N_FACES, directions: int = 400, *, jaw: bool = True, seed: int = 0
) -> dict[str, np.ndarray]:
    """The arrays of a FLAME pickle under their keys: an egg of about a head's size with eyes at the front."""
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(n_vertices, 3))
    points *= np.array([0.08, 0.12, 0.1]) / np.linalg.norm(points, axis=1, keepdims=True)
    n_eye = max(n_vertices // 10, 1)
    centres = {0: (0, -0.12, 0), 1: (0, -0.08, 0), 2: (0, -0.02, 0.04), 3: (0.03, 0.03, 0.08), 4: (-0.03, 0.03, 0.08)}
    weights = rng.random((n_vertices, 5)) ** 4
    weights[:, 3:] = 0
    weights[:, 2] *= jaw
    regressor = np.zeros((5, n_vertices))
    for joint, centre in centres.items():
        near = np.argsort(np.linalg.norm(points - centre, axis=1))[:n_eye]
        regressor[joint, near[:12]] = rng.random(len(near[:12]))
        if joint >= 3:
            weights[near] = np.eye(5)[joint]
    weights[:, 1] += 1e-3
    return {
        "v_template": points + np.array([0, 1.5, 0]),
        "shapedirs": rng.normal(scale=2e-3, size=(n_vertices, 3, directions)),
        "posedirs": rng.normal(scale=2e-3, size=(n_vertices, 3, 36)),
        "J_regressor": regressor / regressor.sum(1, keepdims=True),
        "weights": weights / weights.sum(1, keepdims=True),
        "kintree_table": np.array([[2**32 - 1, 0, 1, 1, 1], [0, 1, 2, 3, 4]], np.uint32),
        "f": np.stack([rng.permutation(n_vertices)[:3] for _ in range(n_faces)]).astype(np.uint32),
    }


def write_model(path: Path, head: Mapping[str, Any] | None = None, **options: Any) -> Path:
    """A model's pickle (``generic_model.pkl`` …) out of ``head``, or of ``random_head(**options)``."""
    held: dict[str, Any] = dict(random_head(**options) if head is None else head)
    chumpy, ch = types.ModuleType("chumpy"), types.ModuleType("chumpy.ch")
    variable = type("Ch", (), {"__module__": "chumpy.ch", "__qualname__": "Ch"})
    ch.Ch = variable  # type: ignore[attr-defined]
    for key in ("v_template", "shapedirs", "posedirs", "weights"):
        if key in held:
            wrapped = variable()
            wrapped.__dict__.update(x=held[key], _dirty_vars=set(), _itr=None, _depends_on_deps={})
            held[key] = wrapped
    if "J_regressor" in held:
        held["J_regressor"] = scipy.sparse.csc_matrix(held["J_regressor"])
    held = {"bs_style": "lbs", "bs_type": "lrotmin", **held}
    with mock.patch.dict(sys.modules, {"chumpy": chumpy, "chumpy.ch": ch}):
        return write_pickle(path, held)


def write_regions(path: Path, n_vertices: int = N_VERTICES) -> Path:
    """``FLAME_masks.pkl``."""
    rng = np.random.default_rng(1)
    return write_pickle(path, {name: np.sort(rng.choice(n_vertices, n_vertices // 3, replace=False)) for name in REGIONS})


def write_eyelids(folder: Path, n_vertices: int = N_VERTICES) -> tuple[Path, Path]:
    """``l_eyelid.npy`` and ``r_eyelid.npy``."""
    rng = np.random.default_rng(2)
    for name in ("l_eyelid", "r_eyelid"):
        np.save(folder / f"{name}.npy", rng.normal(scale=1e-3, size=(n_vertices, 3)) * (rng.random((n_vertices, 1)) < 0.1))
    return folder / "l_eyelid.npy", folder / "r_eyelid.npy"


def random_points(n_faces: int, *shape: int, seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Triangles and barycentric coordinates."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, n_faces, shape), rng.dirichlet(np.ones(3), shape)


def write_landmarks(path: Path, n_faces: int = N_FACES, *, pupils: bool = False) -> Path:
    """``landmark_embedding.npy`` of DECA, or VHAP's with pupils: a pickled dict, two of its arrays PyTorch tensors."""
    held: dict[str, Any] = {}
    for seed, (name, shape) in enumerate(
        {"static": (51 + 2 * pupils,), "dynamic": (79, 17), "full": (1, 68 + 2 * pupils)}.items()
    ):
        triangles, barycentric = random_points(n_faces, *shape, seed=seed)
        torchy = name == "dynamic"
        held[f"{name}_lmk_faces_idx"] = torch.from_numpy(triangles) if torchy else triangles
        held[f"{name}_lmk_bary_coords"] = torch.from_numpy(barycentric).float() if torchy else barycentric
    np.save(path, held, allow_pickle=True)  # type: ignore[arg-type]
    return path


def write_ringnet(folder: Path, n_faces: int = N_FACES) -> tuple[Path, Path]:
    """``flame_static_embedding.pkl`` and ``flame_dynamic_embedding.npy``, the same landmarks as ``write_landmarks`` has."""
    static, dynamic = random_points(n_faces, 51, seed=0), random_points(n_faces, 79, 17, seed=1)
    paths = folder / "flame_static_embedding.pkl", folder / "flame_dynamic_embedding.npy"
    write_pickle(paths[0], {"lmk_face_idx": static[0].astype(np.uint32), "lmk_b_coords": static[1]})
    np.save(paths[1], {"lmk_face_idx": dynamic[0], "lmk_b_coords": dynamic[1]}, allow_pickle=True)  # type: ignore[arg-type]
    return paths


def write_mediapipe(path: Path, n_faces: int = N_FACES) -> Path:
    """``mediapipe_landmark_embedding.npz``."""
    triangles, barycentric = random_points(n_faces, 105, seed=4)
    indices = np.random.default_rng(5).permutation(478)[:105]
    np.savez(path, lmk_face_idx=triangles.astype(np.uint32), lmk_b_coords=barycentric, landmark_indices=indices)
    return path
