"""Landmarks lie where their triangles are, in whichever file they came; the contour follows the head's yaw."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fitting.flame import ContourLandmarks, Flame, Landmarks
from fitting.flame.files import ModelFile
from fitting.flame.landmarks import ContourRule, read_embeddings
from manifests.model_file import WrongModelFile
from tests.fitting.flame.files import (
    random_head,
    random_points,
    write_landmarks,
    write_mediapipe,
    write_model,
    write_pickle,
    write_ringnet,
)

N, N_TRIANGLES = 150, 260


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("landmarks")
    write_model(folder / "generic_model.pkl", random_head(N, N_TRIANGLES))
    write_landmarks(folder / "landmark_embedding.npy", N_TRIANGLES)
    write_landmarks(folder / "landmark_embedding_with_eyes.npy", N_TRIANGLES, pupils=True)
    write_ringnet(folder, N_TRIANGLES)
    write_mediapipe(folder / "mediapipe_landmark_embedding.npz", N_TRIANGLES)
    return folder


@pytest.fixture(scope="module")
def flame(folder: Path) -> Flame:
    return Flame.load(folder / "generic_model.pkl", dtype=torch.float64)


def slow_points(flame: Flame, vertices: Tensor, triangles: np.ndarray, barycentric: np.ndarray) -> np.ndarray:
    """One landmark after another."""
    points = []
    for triangle, shares in zip(triangles, barycentric, strict=True):
        corners = [vertices[corner].numpy() for corner in flame.faces[triangle]]
        points.append(sum(share * corner for share, corner in zip(shares, corners, strict=True)))
    return np.stack(points)


@pytest.mark.parametrize(
    ("name", "which", "seed", "n", "indices"),
    [
        ("landmark_embedding.npy", None, 2, 68, range(68)),
        ("landmark_embedding.npy", "full", 2, 68, range(68)),
        ("landmark_embedding.npy", "static", 0, 51, range(17, 68)),
        ("landmark_embedding_with_eyes.npy", None, 2, 70, range(70)),
        ("landmark_embedding_with_eyes.npy", "static", 0, 53, range(17, 70)),
        ("flame_static_embedding.pkl", None, 0, 51, range(17, 68)),
        ("mediapipe_landmark_embedding.npz", None, 4, 105, np.random.default_rng(5).permutation(478)[:105]),
    ],
)
def test_every_format_gives_its_points(
    folder: Path, flame: Flame, name: str, which: Any, seed: int, n: int, indices: Any
) -> None:
    landmarks = Landmarks.load(folder / name, flame, which)
    vertices = flame(torch.randn(2, 3, 300, dtype=torch.float64)).vertices
    points = landmarks(vertices)
    assert points.shape == (2, 3, n, 3)
    triangles, barycentric = random_points(N_TRIANGLES, n, seed=seed)
    np.testing.assert_allclose(points[1, 2].numpy(), slow_points(flame, vertices[1, 2], triangles, barycentric), atol=1e-12)
    assert landmarks.indices.tolist() == list(indices)


def test_landmarks_pass_gradients_to_the_vertices(folder: Path, flame: Flame) -> None:
    landmarks = Landmarks.load(folder / "landmark_embedding.npy", flame)
    vertices = flame().vertices.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda v: landmarks(v)[::20], vertices, fast_mode=True)


def turned(flame: Flame, degrees: list[float], **joints: Tensor) -> Tensor:
    """Rotations of a head whose yaw has these values."""
    yaw = torch.deg2rad(torch.tensor(degrees, dtype=torch.float64))
    zero = torch.zeros_like(yaw)
    return flame(rotation=torch.stack([zero, yaw, zero], dim=-1), **joints).rotations


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("deca", [0, 0, 0, 40, 10, 48, 39, 39, 78, 78, 39, 78]),
        ("flame_pytorch", [0, 0, 0, 1, 49, 9, 78, 78, 39, 39, 78, 39]),
        ("smplx", [0, 0, 0, 1, 49, 9, 78, 78, 39, 39, 78, 39]),
    ],
)
def test_the_row_follows_the_yaw_to_its_ends(folder: Path, flame: Flame, rule: ContourRule, expected: list[int]) -> None:
    landmarks = ContourLandmarks.load(folder / "landmark_embedding.npy", flame, rule=rule)
    degrees = [0, 0.4, -0.4, -0.6, 10.2, -9.3, 39.4, 60, -39.4, -39.6, 89, -85]
    assert landmarks.rows(turned(flame, degrees)).tolist() == expected


def test_the_neck_counts_except_for_smplx(folder: Path, flame: Flame) -> None:
    neck = torch.tensor([0.0, np.deg2rad(8), 0.0], dtype=torch.float64)
    rows = {
        rule: ContourLandmarks.load(folder / "landmark_embedding.npy", flame, rule=rule).rows(turned(flame, [20], neck=neck))
        for rule in ("deca", "flame_pytorch", "smplx")
    }
    assert {rule: int(row) for rule, row in rows.items()} == {"deca": 28, "flame_pytorch": 67, "smplx": 59}


def test_a_pose_that_is_not_a_number_takes_some_row(folder: Path, flame: Flame) -> None:
    landmarks = ContourLandmarks.load(folder / "landmark_embedding.npy", flame)
    rows = landmarks.rows(torch.full((2, 5, 3, 3), torch.nan, dtype=torch.float64))
    assert rows.tolist() == [0, 0]


@pytest.mark.parametrize("rule", ["deca", "smplx"])
def test_contour_points_and_their_order(folder: Path, flame: Flame, rule: ContourRule) -> None:
    landmarks = ContourLandmarks.load(folder / "landmark_embedding.npy", flame, rule=rule)
    rotation = torch.tensor([[[0.0, 0.2, 0.1]], [[0.3, -0.4, 0.0]]], dtype=torch.float64)
    mesh = flame(torch.randn(2, 3, 300, dtype=torch.float64), rotation=rotation)
    points, rows = landmarks(mesh), landmarks.rows(mesh.rotations)
    assert points.shape == (2, 3, 68, 3)
    assert len(set(rows.flatten().tolist())) == 2
    tables = random_points(N_TRIANGLES, 79, 17, seed=1)
    row = int(rows[1, 2])
    contour = slow_points(flame, mesh.vertices[1, 2], tables[0][row], tables[1][row])
    static = slow_points(flame, mesh.vertices[1, 2], *random_points(N_TRIANGLES, 51, seed=0))
    places = {int(index): place for place, index in enumerate(landmarks.indices)}
    assert [index for index, place in places.items() if place == 0] == [17 if rule == "smplx" else 0]
    ours = points[1, 2].numpy()[[places[index] for index in range(68)]]
    np.testing.assert_allclose(ours[:17], contour, atol=1e-6)  # the file has them as float32
    np.testing.assert_allclose(ours[17:], static, atol=1e-12)


def test_ringnets_pair_and_decas_file_are_the_same_landmarks(folder: Path, flame: Flame) -> None:
    one = ContourLandmarks.load(folder / "landmark_embedding.npy", flame)
    pair = ContourLandmarks.load(folder / "flame_static_embedding.pkl", flame, contour=folder / "flame_dynamic_embedding.npy")
    mesh = flame(rotation=torch.tensor([0.0, 0.3, 0.0], dtype=torch.float64))
    torch.testing.assert_close(one(mesh), pair(mesh), atol=1e-6, rtol=0)


def test_seventy_points_with_pupils(folder: Path, flame: Flame) -> None:
    landmarks = ContourLandmarks.load(folder / "landmark_embedding_with_eyes.npy", flame)
    assert landmarks(flame()).shape == (70, 3)
    assert landmarks.indices.tolist() == list(range(70))


def ring() -> Flame:
    """A head that is one horizontal ellipse of a point per degree, turned by nothing but its first joints."""
    around = np.deg2rad(np.arange(360))
    head = random_head(360, 1)
    head |= {"v_template": np.stack([0.07 * np.cos(around), 0 * around, 0.1 * np.sin(around)], axis=1)}
    model = ModelFile(
        template=head["v_template"],
        identity=head["shapedirs"][:, :, :300],
        expression=head["shapedirs"][:, :, 300:],
        pose=np.zeros((360, 3, 36)),
        regressor=np.full((5, 360), 1 / 360),
        weights=np.tile([0.0, 1, 0, 0, 0], (360, 1)),
        faces=np.stack([np.arange(360)] * 3, axis=1),
        digest="",
    )
    return Flame(model, dtype=torch.float64)


def outline(flame: Flame, rule: ContourRule = "deca") -> ContourLandmarks:
    """Contours made as the published table is: rows 0 to 39 are what is seen of a head turned to the person's left.

    That is how the rows lie on the template which DECA publishes: with the row, landmark 16 moves forward over the left cheek
    and landmark 0 back.
    """
    corners = torch.zeros(79, 17, 3, dtype=torch.int64)
    for row in range(79):
        yaw = torch.tensor([0.0, np.deg2rad(row if row <= 39 else 39 - row), 0.0], dtype=torch.float64)
        x = flame(rotation=yaw).vertices[:, 0]
        corners[row, 0], corners[row, 16] = x.argmin(), x.argmax()
    barycentric = torch.full((79, 17, 3), 1 / 3, dtype=torch.float64)
    first = corners[0, :1].repeat(51, 1), barycentric[0, :1].repeat(51, 1)
    static = Landmarks(*first, torch.arange(17, 68), flame.n_vertices)
    return ContourLandmarks(static, corners, barycentric, rule)


@pytest.mark.parametrize("degrees", [-30.0, -7.0, 0.0, 12.0, 38.0])
def test_by_default_the_contour_is_the_outline_seen_from_the_front(degrees: float) -> None:
    flame = ring()
    mesh = flame(neck=torch.tensor([0.0, np.deg2rad(degrees), 0.0], dtype=torch.float64))
    points = outline(flame)(mesh)
    x = mesh.vertices[:, 0]
    assert float(points[0, 0] - x.min()) < 1e-5
    assert float(x.max() - points[16, 0]) < 1e-5
    if abs(degrees) > 5:  # and the rule of FLAME_PyTorch, made for poses that look the other way, misses it
        assert float(x.max() - outline(flame, "flame_pytorch")(mesh)[16, 0]) > 1e-4


@pytest.mark.parametrize("degrees", [-25.0, 0.0, 30.0])
def test_with_a_camera_the_contour_is_the_outline_that_it_sees(degrees: float) -> None:
    flame = ring()
    turn = np.deg2rad(degrees)
    # An OpenCV camera in front of the face, x right, y down, z forward, that has gone around it by some degrees.
    front = torch.diag(torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64))
    around = torch.tensor([[np.cos(turn), 0, -np.sin(turn)], [0, 1, 0], [np.sin(turn), 0, np.cos(turn)]], dtype=torch.float64)
    camera = front @ around
    mesh = flame(rotation=torch.tensor([[0.0, 0.1, 0.0], [0.0, -0.15, 0.0]], dtype=torch.float64))
    points = outline(flame)(mesh, camera) @ camera.mT
    seen = mesh.vertices @ camera.mT
    assert float((points[:, 0, 0] - seen[..., 0].amin(-1)).abs().max()) < 1e-5
    assert float((points[:, 16, 0] - seen[..., 0].amax(-1)).abs().max()) < 1e-5


def test_landmarks_of_a_part_are_the_same(folder: Path, flame: Flame) -> None:
    fixed = Landmarks.load(folder / "landmark_embedding.npy", flame, "static")
    contour = ContourLandmarks.load(folder / "landmark_embedding.npy", flame)
    needed = torch.cat([fixed.vertices, contour.vertices, torch.tensor([3])]).unique()
    needed = needed[torch.randperm(len(needed), generator=torch.Generator().manual_seed(0))]
    assert len(fixed.vertices) < len(needed)
    given = {"expression": torch.ones(100).double(), "rotation": torch.tensor([0.0, 0.3, 0.0]).double()}
    mesh, part = flame(**given), flame.part(needed)(**given)
    torch.testing.assert_close(fixed.among(needed)(part.vertices), fixed(mesh.vertices), atol=1e-13, rtol=0)
    torch.testing.assert_close(contour.among(needed)(part), contour(mesh), atol=1e-13, rtol=0)


def test_landmarks_need_their_vertices(folder: Path, flame: Flame) -> None:
    landmarks = Landmarks.load(folder / "landmark_embedding.npy", flame)
    with pytest.raises(ValueError, match=r"landmarks lie on vertices that are not given"):
        landmarks.among(landmarks.vertices[1:])
    with pytest.raises(ValueError, match="numbers the triangles of the whole head"):
        Landmarks.load(folder / "landmark_embedding.npy", flame.part(landmarks.vertices))
    with pytest.raises(ValueError, match=rf"are for vertices \(\.\.\., {N}, 3\), got \({N - 1}, 3\): for a part take .among"):
        landmarks(flame.part(torch.arange(1, N))().vertices)


def test_landmarks_follow_to(folder: Path, flame: Flame) -> None:
    landmarks = ContourLandmarks.load(folder / "landmark_embedding.npy", flame).to(torch.float32)
    single = Flame.load(folder / "generic_model.pkl")
    assert landmarks(single()).dtype == torch.float32
    assert not landmarks.state_dict()


def written(path: Path, held: Any) -> Path:
    np.save(path, held, allow_pickle=True)
    return path


def test_wrong_files_are_named(folder: Path, flame: Flame, tmp_path: Path) -> None:
    whole = np.load(folder / "landmark_embedding.npy", allow_pickle=True).item()
    lacking = {key: value for key, value in whole.items() if key != "full_lmk_bary_coords"}
    ringnet = {"lmk_face_idx": np.zeros(51, int), "lmk_b_coords": np.zeros((51, 3))}
    cases = {
        "missing full_lmk_bary_coords": written(tmp_path / "a.npy", lacking),
        "dynamic_lmk_faces_idx is 78×17 instead of 79×17": written(
            tmp_path / "b.npy", {**whole, "dynamic_lmk_faces_idx": whole["dynamic_lmk_faces_idx"][1:]}
        ),
        "unexpected extra": written(tmp_path / "c.npy", {**whole, "extra": np.zeros(3)}),
        "52 static and 68 landmarks": written(
            tmp_path / "d.npy",
            {**whole, "static_lmk_faces_idx": np.zeros(52, int), "static_lmk_bary_coords": np.zeros((52, 3))},
        ),
        "missing lmk_face_idx, lmk_b_coords": written(tmp_path / "e.npy", {"something": np.zeros(3)}),
        "lmk_face_idx is 50 instead of 51": write_pickle(tmp_path / "f.pkl", {**ringnet, "lmk_face_idx": np.zeros(50, int)}),
        "lmk_face_idx of type float64 instead of indices": write_pickle(
            tmp_path / "g.pkl", {**ringnet, "lmk_face_idx": np.zeros(51)}
        ),
        "holds a ndarray instead of a dict": written(tmp_path / "h.npy", np.zeros(3)),
        "lmk_face_idx with rows of several lengths": write_pickle(tmp_path / "k.pkl", {**ringnet, "lmk_face_idx": [[1], [2, 3]]}),
    }
    np.savez(tmp_path / "i.npz", lmk_face_idx=np.zeros(105, int), lmk_b_coords=np.zeros((105, 3)))
    cases["missing landmark_indices"] = tmp_path / "i.npz"
    for expected, path in cases.items():
        with pytest.raises(WrongModelFile) as error:
            read_embeddings(path)
        assert expected in str(error.value)
        assert str(path) in str(error.value)
    ringnet["lmk_face_idx"][7] = 260
    beyond = write_pickle(tmp_path / "j.pkl", ringnet)
    with pytest.raises(WrongModelFile, match="landmarks on triangle 260, but generic_model has 260 triangles"):
        Landmarks.load(beyond, flame)


def test_sets_that_a_file_has_not_are_named(folder: Path, flame: Flame) -> None:
    with pytest.raises(WrongModelFile, match="has no landmarks full, only static"):
        Landmarks.load(folder / "flame_static_embedding.pkl", flame, "full")
    with pytest.raises(WrongModelFile, match="has no landmarks contour, only static, full"):
        Landmarks.load(folder / "landmark_embedding.npy", flame, "contour")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="rule is one of deca, flame_pytorch, smplx, not DECA"):
        ContourLandmarks.load(folder / "landmark_embedding.npy", flame, rule="DECA")  # type: ignore[arg-type]
    with pytest.raises(WrongModelFile, match="has no landmarks full, only contour"):
        Landmarks.load(folder / "flame_dynamic_embedding.npy", flame)
    with pytest.raises(WrongModelFile, match=r"has no contour: give RingNet's flame_dynamic_embedding\.npy"):
        ContourLandmarks.load(folder / "flame_static_embedding.pkl", flame)
