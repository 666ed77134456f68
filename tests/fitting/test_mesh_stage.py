"""Meshes and pictures of true codes: the meshes lie where the true head is, in the capture's world.

The capture has three cameras and two frames: a head at rest, then with its jaw open, turned and moved, red before a green wall.
"""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pytest
import torch

from fitting.cameras import Camera
from fitting.fit_pictures import HEIGHT, WIDTH
from fitting.mesh_stage import Meshes, chosen_frames, pictures_of
from fitting.raster import image_points, rasterize, vertex_normals
from fitting.rotations import axis_angle_to_matrix
from fitting.similarity import Similarity
from fitting.space import FLAME_TO_NPHM
from fitting.studio.expressions import expression_code
from fitting.studio.family import HeadFamily, still
from fitting.studio.flame_file import write_flame
from fitting.studio.nphm_codes import nphm_expression, nphm_identity
from fitting.studio.nphm_file import write_nphm
from fitting.studio.nphm_truth import signed_distances
from manifests.columns import COLUMNS
from manifests.stage import Done, Take

SIZE = (120, 160)
YAWS = {"left": 50.0, "front": 5.0, "right": -80.0}
RED, GREEN = (190, 40, 50), (30, 150, 60)


class Recorded(NamedTuple):
    take: Take
    columns: dict[str, np.ndarray]
    """What the stages before would hand over, from the truth."""
    vertices: np.ndarray
    """(2, V, 3) of the true head."""


@pytest.fixture(scope="module", autouse=True)
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("models")
    write_flame(folder)
    write_nphm(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADLOOM_MODELS", str(folder))
        yield


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    family = HeadFamily("medium")
    identity, controls = family.people(1)[0], still(2)
    controls.jaw[1, 0] = 0.25
    controls.head[1] = (0.1, 0.3, 0.05)
    controls.translation[1] = (0.02, -0.01, 0.03)
    mesh = family.pose(identity, controls)
    root = mesh.joints[:, 0].double() - torch.from_numpy(controls.translation)
    turn = axis_angle_to_matrix(torch.from_numpy(controls.head))
    shift = root - (turn @ root[..., None])[..., 0] + torch.from_numpy(controls.translation)
    to_world = Similarity(torch.ones(2, dtype=torch.float64), turn, shift)
    faces, points = torch.from_numpy(family.faces), mesh.vertices.flatten(0, 1).numpy()
    columns = {
        "frame_number": np.arange(2, dtype=np.int32),
        "cloud_points": points,
        "cloud_normals": (127 * vertex_normals(mesh.vertices, faces).flatten(0, 1)).round().to(torch.int8).numpy(),
        "cloud_counts": np.full(2, mesh.vertices.shape[1], np.int32),
        "flame_identity": identity.astype(np.float32),
        "flame_expression": expression_code(controls.expression).astype(np.float32),
        "flame_jaw": controls.jaw.astype(np.float32),
        "flame_rotation": controls.head.astype(np.float32),
        "flame_translation": shift.float().numpy(),
        "flame_scale": 1.0,
        "world_to_nphm": FLAME_TO_NPHM.compose(to_world.inverse()).matrix().numpy(),
        "nphm_identity": nphm_identity(identity).astype(np.float32),
        "nphm_expression": nphm_expression(controls.expression, controls.jaw).astype(np.float32),
    }
    folder = tmp_path_factory.mktemp("capture")
    _record(folder, mesh.vertices, faces)
    return Recorded(Take("0" * 64, str(folder), "", 0.1, "plain"), columns, mesh.vertices.numpy())


def _record(folder: Path, vertices: torch.Tensor, faces: torch.Tensor) -> None:
    """Write a capture in the plain layout, a metre from the head."""
    cameras = {}
    for name, yaw in YAWS.items():
        sine, cosine = np.sin(np.radians(yaw)), np.cos(np.radians(yaw))
        rotation = np.array([[cosine, 0, -sine], [0, -1, 0], [-sine, 0, -cosine]])
        intrinsics = np.array([[330.0, 0, 60], [0, 330, 80], [0, 0, 1]])
        cameras[name] = {"K": intrinsics.tolist(), "R": rotation.tolist(), "t": [0.0, 0.0, 1.0]}
        pose = np.eye(4)
        pose[:3, :3], pose[2, 3] = rotation, 1
        camera = Camera(torch.from_numpy(intrinsics), torch.from_numpy(pose), *SIZE)
        (folder / name).mkdir()
        for frame, own in enumerate(vertices.double()):
            seen = rasterize(image_points(camera, own), faces, SIZE[::-1])
            picture = np.where(seen.hit[0, ..., None], RED, GREEN).astype(np.uint8)
            cv2.imwrite(str(folder / name / f"{frame}.png"), picture[..., ::-1])
    described = {"width": SIZE[0], "height": SIZE[1], "fps": 24, "cameras": cameras}
    (folder / "cameras.json").write_text(json.dumps(described))


def run(recorded: Recorded, **settings: Any) -> dict[str, Any]:
    outcome = Meshes(**{"resolution": 48, **settings}).run(recorded.take, **recorded.columns)
    assert isinstance(outcome, Done)
    assert set(outcome.columns) == set(Meshes.writes)
    return {name: COLUMNS[name].check(value) for name, value in outcome.columns.items()}


@pytest.fixture(scope="module")
def made(recorded: Recorded) -> dict[str, Any]:
    return run(recorded)


def meshes(made: dict[str, Any]) -> list[tuple[np.ndarray, np.ndarray]]:
    vertices = np.split(made["mesh_vertices"], np.cumsum(made["mesh_vertex_counts"])[:-1])
    faces = np.split(made["mesh_faces"], np.cumsum(made["mesh_face_counts"])[:-1])
    return list(zip(vertices, faces, strict=True))


@pytest.mark.parametrize(
    ("length", "count", "frames", "chosen"),
    [
        (9, 3, (), [0, 4, 8]),
        (2, 3, (), [0, 1]),
        (1, 3, (), [0]),
        (9, 1, (), [0]),
        (9, 3, (5, 2, 5), [2, 5]),
        (4, 3, (1, 99), [1, 3]),
    ],
)
def test_frames_are_spread_evenly_or_as_named(length: int, count: int, frames: tuple[int, ...], chosen: list[int]) -> None:
    assert chosen_frames(length, count, frames).tolist() == chosen


def test_meshes_lie_where_the_true_head_is(made: dict[str, Any], recorded: Recorded) -> None:
    assert made["mesh_frames"].tolist() == [0, 1]
    for frame, (vertices, faces) in enumerate(meshes(made)):
        assert faces.max() == len(vertices) - 1
        distances = signed_distances(vertices[::5], recorded.vertices[frame], HeadFamily("medium").faces)
        assert np.median(np.abs(distances)) < 0.001
        corners = vertices[faces]
        outward = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        assert ((outward * (corners.mean(axis=1) - vertices.mean(axis=0))).sum(axis=-1) > 0).mean() > 0.9


def test_each_frame_has_a_picture_for_each_camera_and_one_of_its_mesh(made: dict[str, Any]) -> None:
    assert made["fit_cameras"] == "front\nleft"
    frames = pictures_of(made["fit_pictures"], made["fit_picture_sizes"], 2)
    assert [len(files) for files in frames] == [3, 3]
    for picture in (decoded(file) for files in frames for file in files):
        assert picture.shape == (HEIGHT, 4 * WIDTH, 3)


def test_flame_and_nphm_cover_the_head_in_the_picture_and_the_cloud_is_near(made: dict[str, Any]) -> None:
    for files in pictures_of(made["fit_pictures"], made["fit_picture_sizes"], 2):
        for file in files[:2]:
            picture, flame, nphm, residual = np.split(decoded(file), 4, axis=1)
            wall = np.abs(picture - GREEN).max(axis=-1) < 12
            covered = [np.abs(panel - picture).max(axis=-1) > 25 for panel in (flame, nphm)]
            assert all(mask[wall].mean() < 0.03 for mask in covered)
            # FLAME goes on below where NPHM ends.
            head = ~wall & (np.arange(HEIGHT) < 0.85 * HEIGHT)[:, None]
            assert all(mask[head].mean() > 0.9 for mask in covered)
            blue = residual[..., 2] - residual[..., 0] > 60
            red = residual[..., 0] - residual[..., 2] > 60
            assert blue.sum() > 5 * red.sum()


def test_with_the_composition_forward_all_meshes_have_the_same_triangles(recorded: Recorded) -> None:
    (first, faces), (second, others) = meshes(run(recorded, composition="forward"))
    np.testing.assert_array_equal(faces, others)
    assert np.abs(first - second).max() > 0.01


def test_the_same_comes_out_again_and_a_camera_without_a_picture_is_passed_over(recorded: Recorded, tmp_path: Path) -> None:
    runs = [run(recorded, frames=(1,), resolution=24) for _ in range(2)]
    for name in Meshes.writes:
        np.testing.assert_array_equal(runs[0][name], runs[1][name])
    assert runs[0]["mesh_frames"].tolist() == [1]
    shutil.copytree(recorded.take.path, tmp_path / "capture")
    (tmp_path / "capture" / "front" / "1.png").unlink()
    elsewhere = recorded._replace(take=replace(recorded.take, path=str(tmp_path / "capture")))
    assert run(elsewhere, frames=(1,), resolution=24)["fit_cameras"] == "left\nright"


def decoded(file: bytes) -> np.ndarray:
    """RGB, int."""
    return cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_COLOR)[..., ::-1].astype(int)
