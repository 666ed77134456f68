"""The family in FLAME's file formats: model, regions, landmarks, eyelids, under their official names."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
from scipy.spatial import cKDTree

from fitting.flame.landmarks import LAST_DEGREE, N_CONTOUR
from fitting.studio import surface
from fitting.studio.controls import EXPRESSIONS
from fitting.studio.expressions import activation_directions
from fitting.studio.family import HeadFamily
from fitting.studio.features import SKIN
from fitting.studio.sampling import Indices
from fitting.studio.spread import Size
from manifests.atomic import whole_file

PARENTS = np.array([[2**32 - 1, 0, 1, 1, 1], [0, 1, 2, 3, 4]], np.uint32)


def write_flame(folder: Path, size: Size = "medium") -> dict[str, Path]:
    """Write the family on the mesh ``size`` into ``folder``; returns the paths by the names of ``manifests.assets``.

    The model has 300 identity and 100 expression directions whatever the size, since FLAME's loaders take no other numbers
    (but 10 and 10). Codes are those of ``HeadFamily`` and ``expression_code``. Eyeballs are part of it, as in FLAME, and teeth.
    """
    folder.mkdir(parents=True, exist_ok=True)
    family = HeadFamily(size)
    paths = {
        "flame2020": folder / "generic_model.pkl",
        "flame-masks": folder / "FLAME_masks.pkl",
        "flame-landmarks": folder / "landmark_embedding.npy",
        "flame-landmarks-static": folder / "flame_static_embedding.pkl",
        "flame-landmarks-contour": folder / "flame_dynamic_embedding.npy",
        "flame-eyelid-left": folder / "l_eyelid.npy",
        "flame-eyelid-right": folder / "r_eyelid.npy",
    }
    _pickle(paths["flame2020"], _model(family))
    _pickle(paths["flame-masks"], family.regions)
    sets = _landmarks(family)
    _save(paths["flame-landmarks"], sets)
    _pickle(paths["flame-landmarks-static"], _ringnet(sets, "static"))
    _save(paths["flame-landmarks-contour"], _ringnet(sets, "dynamic"))
    activations = activation_directions(family.mesh)
    for side in ("left", "right"):
        _save(paths[f"flame-eyelid-{side}"], activations[:, :, EXPRESSIONS.index(f"blink_{side}")])
    return paths


def _model(family: HeadFamily) -> dict[str, Any]:
    model = family.model
    return {
        "bs_style": "lbs",
        "bs_type": "lrotmin",
        "v_template": model.template,
        "shapedirs": np.concatenate([model.identity, model.expression], axis=2).astype(np.float32),
        "posedirs": model.pose,
        "J_regressor": scipy.sparse.csc_matrix(model.regressor),
        "weights": model.weights,
        "kintree_table": PARENTS,
        "f": model.faces.astype(np.uint32),
    }


def _ringnet(sets: dict[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    return {"lmk_face_idx": sets[f"{name}_lmk_faces_idx"], "lmk_b_coords": sets[f"{name}_lmk_bary_coords"]}


def _landmarks(family: HeadFamily) -> dict[str, np.ndarray]:
    """DECA's sets. All landmarks are vertices."""
    found = {}
    for name, vertices in (
        ("static", family.mesh.landmarks[N_CONTOUR:]),
        ("dynamic", _contour(family)),
        ("full", family.mesh.landmarks[None]),
    ):
        triangles, barycentric = _embedded(family.faces, vertices)
        found[f"{name}_lmk_faces_idx"], found[f"{name}_lmk_bary_coords"] = triangles, barycentric
    return found


def _embedded(faces: Indices, vertices: Indices) -> tuple[Indices, np.ndarray]:
    """A triangle with each vertex as a corner, and its coordinates there."""
    of_vertex = np.full(faces.max() + 1, -1)
    corner = np.zeros_like(of_vertex)
    for k in range(3):
        of_vertex[faces[:, k]] = np.arange(len(faces))
        corner[faces[:, k]] = k
    return of_vertex[vertices], np.eye(3)[corner[vertices]]


def _contour(family: HeadFamily) -> Indices:
    """(79, 17) vertices along the outline of the face for each yaw: on the half that is turned away the landmarks slide towards
    the middle of the face, to where it ends as seen from the front."""
    mesh = family.mesh
    skin = np.nonzero(mesh.sites.patch == SKIN)[0]
    tree = cKDTree(mesh.sites.base[skin])
    degrees = np.concatenate([np.arange(LAST_DEGREE + 1), -np.arange(1, LAST_DEGREE + 1)])
    yaw = np.radians(degrees)[:, None]
    found = np.empty((len(degrees), N_CONTOUR), np.int64)
    middle = surface.direction(np.array([[0.0, -0.045, 0.066]]))
    for k, vertex in enumerate(mesh.landmarks[:N_CONTOUR]):
        share = np.linspace(0, 0.6, 40)[:, None]
        way = (1 - share) * mesh.directions[vertex] + share * middle
        path = skin[tree.query(surface.point(way / np.linalg.norm(way, axis=1, keepdims=True)))[1]]
        path[0] = vertex
        x, _, z = mesh.rest[path].T
        outwards = np.sign(mesh.rest[vertex, 0].round(9))
        seen = (np.cos(yaw) * x + np.sin(yaw) * z) * outwards
        # The half towards the viewer keeps its landmarks: its outline is an ear, not the face.
        turned_away = (yaw * outwards > 0)[:, 0]
        found[:, k] = np.where(turned_away, path[seen.argmax(axis=1)], vertex)
    return found


def _pickle(path: Path, held: Any) -> None:
    with whole_file(path) as file:
        pickle.dump(held, file, protocol=2)


def _save(path: Path, held: Any) -> None:
    with whole_file(path) as file:
        np.save(file, held, allow_pickle=isinstance(held, dict))
