from __future__ import annotations

import importlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from fitting.stereo import colmap, colmap_fuse, fuse, patch_match
from fitting.stereo.sources import choose_sources
from fitting.stereo.workspace import write_map, write_workspace
from tests.fitting.stereo.scenes import Ball, Scene, cameras, picture


@pytest.fixture(scope="module")
def ball() -> Scene:
    return picture([Ball((0.0, 0.0, 0.0), 0.12)], cameras())


def test_without_pycolmap_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch, ball: Scene, tmp_path: Path) -> None:
    def missing(name: str) -> object:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    for use in (lambda: colmap_fuse(ball.views, ball.truth, tmp_path), lambda: patch_match(ball.views, tmp_path)):
        with pytest.raises(ImportError, match=r"pip install 'headloom\[stereo\]'"):
            use()


def test_without_cuda_patch_match_says_what_to_use(monkeypatch: pytest.MonkeyPatch, ball: Scene, tmp_path: Path) -> None:
    monkeypatch.setattr(colmap, "pycolmap", lambda: SimpleNamespace(has_cuda=False))
    with pytest.raises(RuntimeError, match="use depth_maps"):
        patch_match(ball.views, tmp_path)
    assert not list(tmp_path.iterdir())


def test_patch_match_asks_colmap_and_reads_its_maps(monkeypatch: pytest.MonkeyPatch, ball: Scene, tmp_path: Path) -> None:
    asked = {}

    def run(folder: str, options: SimpleNamespace) -> None:
        asked.update(vars(options))
        for view in (0, 1, 2, 4):
            name = f"view_{view:02d}.png.geometric.bin"
            write_map(Path(folder) / "stereo" / "depth_maps" / name, np.full((128, 160), 0.9, np.float32))
            write_map(Path(folder) / "stereo" / "normal_maps" / name, np.full((128, 160, 3), -0.577, np.float32))

    module = SimpleNamespace(has_cuda=True, PatchMatchOptions=SimpleNamespace, patch_match_stereo=run)
    monkeypatch.setattr(colmap, "pycolmap", lambda: module)
    found = patch_match(ball.views, tmp_path, depth_range=(0.7, 1.3))
    assert (asked["depth_min"], asked["depth_max"], asked["geom_consistency"]) == (0.7, 1.3, True)
    assert (found.depth[ball.views.masks][: 128 * 10] == np.float32(0.9)).all()
    assert not found.depth[~ball.views.masks].any()
    assert not found.depth[3].any()


def test_colmap_reads_our_maps_as_they_are(tmp_path: Path, ball: Scene) -> None:
    pycolmap = pytest.importorskip("pycolmap")
    write_map(tmp_path / "map.bin", ball.truth.depth[1])
    read = pycolmap.DepthMap()
    read.read(str(tmp_path / "map.bin"))
    np.testing.assert_array_equal(read.to_array(), ball.truth.depth[1])


def test_colmap_reads_our_cameras(tmp_path: Path, ball: Scene) -> None:
    pycolmap = pytest.importorskip("pycolmap")
    sources = choose_sources(ball.views.cameras, 1.0, usable=np.ones(5, bool))
    write_workspace(tmp_path, ball.views, sources, 1.0)
    read = pycolmap.Reconstruction(str(tmp_path / "sparse"))
    assert (read.num_images(), read.num_points3D()) == (5, 5)
    camera = ball.views.cameras[3]
    np.testing.assert_allclose(read.images[4].cam_from_world().matrix(), camera.world_to_camera[:3].numpy(), atol=1e-12)
    np.testing.assert_allclose(read.cameras[4].calibration_matrix(), camera.with_integer_centres().numpy(), atol=1e-9)


def test_colmaps_fusion_finds_the_same_surface_as_ours(tmp_path: Path, ball: Scene) -> None:
    pytest.importorskip("pycolmap")
    theirs = colmap_fuse(ball.views, ball.truth, tmp_path)
    ours = fuse(ball.views, ball.truth)
    for cloud in (theirs, ours):
        distance = np.linalg.norm(cloud.points, axis=1)
        assert len(cloud.points) > 3000
        assert np.median(np.abs(distance - 0.12)) < 2e-4
        assert np.median((cloud.normals * cloud.points).sum(axis=1) / distance) > 0.99
    assert theirs.confidence.max() == 5


def test_colmaps_fusion_gives_the_same_bytes_twice(tmp_path: Path, ball: Scene) -> None:
    pytest.importorskip("pycolmap")
    first, second = (colmap_fuse(ball.views, ball.truth, tmp_path / str(take)) for take in range(2))
    assert all(one.tobytes() == other.tobytes() for one, other in zip(first, second, strict=True))
