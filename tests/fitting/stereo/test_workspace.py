from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from fitting.space import ColmapCamera, from_colmap
from fitting.stereo.sources import choose_sources
from fitting.stereo.workspace import read_map, read_maps, write_map, write_maps, write_workspace
from tests.fitting.stereo.scenes import Ball, Scene, cameras, picture

ALL = np.ones(5, bool)


@pytest.fixture(scope="module")
def ball() -> Scene:
    return picture([Ball((0.0, 0.0, 0.0), 0.1)], cameras())


@pytest.fixture
def workspace(ball: Scene, tmp_path: Path) -> Path:
    write_workspace(tmp_path, ball.views, choose_sources(ball.views.cameras, 1.0, usable=ALL), 1.0)
    return tmp_path


def test_a_map_is_its_size_and_then_one_channel_after_the_other(tmp_path: Path) -> None:
    held = np.arange(2 * 3 * 3, dtype=np.float32).reshape(2, 3, 3)
    write_map(tmp_path / "map.bin", held)
    expected = b"3&2&3&" + np.array([0, 3, 6, 9, 12, 15, 1, 4, 7, 10, 13, 16, 2, 5, 8, 11, 14, 17], "<f4").tobytes()
    assert (tmp_path / "map.bin").read_bytes() == expected
    np.testing.assert_array_equal(read_map(tmp_path / "map.bin"), held)


def test_a_depth_map_whose_first_bytes_look_like_the_header_comes_back(tmp_path: Path) -> None:
    held = np.frombuffer(b"&&&&1&2&3&4&", "<f4").reshape(1, 3)
    write_map(tmp_path / "map.bin", held)
    np.testing.assert_array_equal(read_map(tmp_path / "map.bin"), held)


@pytest.mark.parametrize("data", [b"", b"3&2&1", b"3&2&x&" + bytes(24), b"3&2&1&" + bytes(23)])
def test_files_that_are_no_maps_are_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "map.bin").write_bytes(data)
    with pytest.raises(ValueError, match=r"map\.bin"):
        read_map(tmp_path / "map.bin")


def test_maps_come_back_from_a_workspace(ball: Scene, tmp_path: Path) -> None:
    names = [f"{view}.png" for view in range(5)]
    write_maps(tmp_path, names[:4], type(ball.truth)(*(part[:4] for part in ball.truth)))
    found = read_maps(tmp_path, names, ball.views)
    np.testing.assert_array_equal(found.depth[:4], ball.truth.depth[:4])
    np.testing.assert_array_equal(found.normals[:4], ball.truth.normals[:4])
    assert not found.depth[4].any()
    larger = ball.views._replace(pictures=np.zeros((5, 130, 160, 3), np.uint8), cameras=ball.views.cameras, masks=None)
    with pytest.raises(ValueError, match="pictures are"):
        read_maps(tmp_path, names, larger)


def test_pictures_and_settings_are_written(workspace: Path, ball: Scene) -> None:
    seen = cv2.imread(str(workspace / "images" / "view_03.png"))[..., ::-1]
    np.testing.assert_array_equal(seen, ball.views.pictures[3])
    lines = (workspace / "stereo" / "patch-match.cfg").read_text().splitlines()
    assert lines[4] == "view_02.png"
    assert set(lines[5].split(", ")) == {"view_00.png", "view_01.png", "view_03.png", "view_04.png"}
    assert (workspace / "stereo" / "fusion.cfg").read_text().splitlines() == [f"view_{view:02d}.png" for view in range(5)]


def test_cameras_are_colmaps_half_a_pixel_to_the_side(workspace: Path, ball: Scene) -> None:
    inner = (workspace / "sparse" / "cameras.txt").read_text().splitlines()[2].split()
    outer = (workspace / "sparse" / "images.txt").read_text().splitlines()[4].split()
    params = torch.tensor([float(value) for value in inner[4:]], dtype=torch.float64)
    pose = torch.tensor([float(value) for value in outer[1:8]], dtype=torch.float64)
    assert inner[:4] == ["3", "PINHOLE", "160", "128"]
    assert (outer[8], outer[9]) == ("3", "view_02.png")
    camera = from_colmap(ColmapCamera("PINHOLE", params, pose[:4], pose[4:]), 160, 128)
    torch.testing.assert_close(camera.with_integer_centres() + 0, ball.views.cameras[2].with_integer_centres() - _half())
    torch.testing.assert_close(camera.world_to_camera, ball.views.cameras[2].world_to_camera)


def test_equal_names_are_refused(ball: Scene, tmp_path: Path) -> None:
    sources = choose_sources(ball.views.cameras, 1.0, usable=ALL)
    with pytest.raises(ValueError, match="different names"):
        write_workspace(tmp_path, ball.views, sources, 1.0, names=["a.png"] * 5)


def _half() -> torch.Tensor:
    return torch.tensor([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]], dtype=torch.float64)
