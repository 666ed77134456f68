"""Agrees with numbers recorded from the published code, on random heads.

``recorded_300_100.npz``: soubhiksanyal/FLAME_PyTorch @ 5a85f60 and vchoutas/smplx @ 1265df7 on one head, of whose directions
100 identity and 50 expression were used. ``recorded_10_10.npz``: smplx with a reduced file of 10 + 10 directions. Of both heads
only the vertices are kept that joints and landmarks depend on.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from fitting.flame import ContourLandmarks, Flame, FlameMesh, Landmarks
from fitting.flame.landmarks import CONVENTIONS
from tests.fitting.flame.files import write_model, write_pickle
from tests.fitting.rule_weights import assert_close

HERE = Path(__file__).parent
FULL = np.load(HERE / "recorded_300_100.npz")
REDUCED = np.load(HERE / "recorded_10_10.npz")
ROOT_IS_HUGE = np.array([[2**32 - 1, 0, 1, 1, 1], [0, 1, 2, 3, 4]], np.uint32)


def write_recorded(path: Path, recorded: np.lib.npyio.NpzFile, shapedirs: np.ndarray) -> Path:
    kept = ("v_template", "posedirs", "weights", "J_regressor", "f")
    head = {key: recorded[key] for key in kept} | {"shapedirs": shapedirs, "kintree_table": ROOT_IS_HUGE}
    return write_model(path, head)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recorded head as a file with 300 + 100 directions, and its landmarks as RingNet's pair of files."""
    folder = tmp_path_factory.mktemp("recorded")
    n_vertices = len(FULL["v_template"])
    shapedirs = np.random.default_rng(0).normal(size=(n_vertices, 3, 400))  # what was not used must not matter
    shapedirs[:, :, :100] = FULL["shapedirs_identity"]
    shapedirs[:, :, 300:350] = FULL["shapedirs_expression"]
    write_recorded(folder / "generic_model.pkl", FULL, shapedirs)
    static = {key: FULL[f"static_{key}"] for key in ("lmk_face_idx", "lmk_b_coords")}
    write_pickle(folder / "static.pkl", static)
    rows = FULL["contour_rows"]
    contour = {"lmk_face_idx": np.zeros((79, 17), np.int64), "lmk_b_coords": np.full((79, 17, 3), np.nan, np.float32)}
    for key, array in contour.items():
        array[rows] = FULL[f"dynamic_{key}"]
    np.save(folder / "contour.npy", contour, allow_pickle=True)  # type: ignore[arg-type]
    return folder


def posed(flame: Flame, recorded: np.lib.npyio.NpzFile) -> tuple[FlameMesh, Tensor]:
    """The recorded poses, and their pose vectors. The recorded codes take the eyes in the file's order, ours the left first."""
    given = {name.removeprefix("in_"): torch.from_numpy(recorded[name]) for name in recorded.files if name.startswith("in_")}
    in_order = {3: given["leye"], 4: given["reye"]}
    eyes = torch.cat([in_order[joint] for joint in flame.eye_joints], dim=-1)
    pose = {"rotation": given["global_orient"], "neck": given["neck"], "jaw": given["jaw"], "eyes": eyes}
    return flame(given["betas"], given["expression"], translation=given["transl"], **pose), flame.full_pose(**pose)


def test_vertices_agree_with_both_codes(folder: Path) -> None:
    flame = Flame.load(folder / "generic_model.pkl", identity=100, expression=50)
    mesh, full_pose = posed(flame, FULL)
    assert_close(mesh.vertices, FULL["out_smplx_vertices"], what="smplx")
    assert_close(mesh.vertices, FULL["out_fp_vertices"], what="FLAME_PyTorch")
    assert_close(full_pose, FULL["out_smplx_full_pose"], what="pose vector")


def test_landmarks_and_their_order_agree_with_flame_pytorch(folder: Path) -> None:
    flame = Flame.load(folder / "generic_model.pkl", identity=100, expression=50)
    landmarks = ContourLandmarks.load(folder / "static.pkl", flame, contour=folder / "contour.npy", rule="flame_pytorch")
    mesh, _ = posed(flame, FULL)
    assert_close(landmarks(mesh), FULL["out_fp_landmarks68"])
    corners = landmarks.contour_corners[landmarks.rows(mesh.rotations)]
    assert torch.equal(corners, flame.faces[torch.from_numpy(FULL["out_fp_dynamic_faces"])])
    assert landmarks.convention.chain == tuple(FULL["out_fp_neck_kin_chain"])


def test_joints_and_landmarks_and_their_order_agree_with_smplx(folder: Path) -> None:
    flame = Flame.load(folder / "generic_model.pkl", identity=100, expression=50)
    landmarks = ContourLandmarks.load(folder / "static.pkl", flame, contour=folder / "contour.npy", rule="smplx")
    mesh, _ = posed(flame, FULL)
    assert_close(torch.cat([mesh.joints, landmarks(mesh)], dim=-2), FULL["out_smplx_joints_and_landmarks"])
    assert CONVENTIONS["smplx"].chain == tuple(FULL["out_smplx_neck_kin_chain"])


def test_directions_that_are_not_asked_for_do_not_matter(folder: Path) -> None:
    whole = Flame.load(folder / "generic_model.pkl")
    assert (whole.n_identity, whole.n_expression) == (300, 100)
    mesh, _ = posed(whole, FULL)
    assert_close(mesh.vertices, FULL["out_smplx_vertices"])


def test_the_reduced_file_agrees_with_smplx(tmp_path: Path) -> None:
    flame = Flame.load(write_recorded(tmp_path / "reduced.pkl", REDUCED, REDUCED["shapedirs"]))
    assert (flame.n_identity, flame.n_expression) == (10, 10)
    static = write_pickle(tmp_path / "static.pkl", {key: REDUCED[f"static_{key}"] for key in ("lmk_face_idx", "lmk_b_coords")})
    mesh, _ = posed(flame, REDUCED)
    assert_close(mesh.vertices, REDUCED["out_smplx_vertices"])
    points = torch.cat([mesh.joints, Landmarks.load(static, flame)(mesh.vertices)], dim=-2)
    assert_close(points, REDUCED["out_smplx_joints_and_landmarks"])
