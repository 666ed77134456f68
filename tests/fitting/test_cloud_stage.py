"""From a capture to clouds: the studio's true depth maps give the true surface; frames are kept one by one."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from fitting.cloud_stage import Clouds
from fitting.landmark_stage import Landmarks
from fitting.stereo.moments import from_columns, packed, to_columns, unpacked
from fitting.stereo.views import Cloud
from fitting.studio.acting import Conditions
from fitting.studio.captures import record_captures
from manifests.stage import Done, Rejected, Take


class Memory:
    """``Partial`` in a dictionary."""

    def __init__(self) -> None:
        self.held: dict[str, bytes] = {}

    def read(self, name: str) -> bytes | None:
        return self.held.get(name)

    def write(self, name: str, data: bytes) -> None:
        self.held[name] = data


@pytest.fixture(scope="module")
def take(tmp_path_factory: pytest.TempPathFactory) -> Take:
    folder = tmp_path_factory.mktemp("capture")
    (path,) = record_captures(folder, 1, 1, Conditions(seconds=0.2, size=(132, 192), seed=4), release="v1", workers=2)
    return Take("0" * 64, str(path), str(path / "audio.wav"), 0.2, "nersemble-v1")


def answers(take: Take) -> dict:
    return dict(np.load(Path(take.path).with_name(Path(take.path).name + ".truth.npz")))


def test_shipped_depth_gives_points_on_the_surface(take: Take) -> None:
    outcome = Clouds(points=2000).run(take, np.array([0, 2, 2]), Memory())
    assert isinstance(outcome, Done)
    assert outcome.columns["cloud_counts"].tolist() == [2000, 2000, 2000]
    columns = {name: outcome.columns[name] for name in outcome.columns if name != "cloud_size"}
    vertices = answers(take)["vertices"]
    for cloud, frame in zip(from_columns(**columns), (0, 2, 2), strict=True):
        distances = cKDTree(vertices[frame]).query(cloud.points)[0]
        # Vertices are some millimetres apart.
        assert np.median(distances) < 0.002
        assert np.mean(distances < 0.006) > 0.95


def test_frames_that_were_done_are_not_done_again(take: Take, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Memory()
    stage, frames = Clouds(points=500), np.array([0, 1])
    whole = stage.run(take, frames, memory)
    assert sorted(memory.held) == ["0.npz", "1.npz"]
    del memory.held["1.npz"]
    asked: list[list[int]] = []
    from prep.capture import Capture

    moments = Capture.moments
    monkeypatch.setattr(
        Capture, "moments", lambda self, numbers, size=None: asked.append(list(numbers)) or moments(self, numbers, size)
    )
    again = stage.run(take, frames, memory)
    assert asked == [[0], [1]], "the first look is for the size"
    assert isinstance(whole, Done)
    assert isinstance(again, Done)
    for name, column in whole.columns.items():
        np.testing.assert_array_equal(column, again.columns[name])


def test_without_any_camera_there_is_no_cloud(take: Take) -> None:
    outcome = Clouds(least_views=17).run(take, np.array([0]), Memory())
    assert outcome == Rejected("no surface was found in any frame")


def test_clouds_survive_their_columns_and_their_bytes() -> None:
    rng = np.random.default_rng(0)
    clouds = []
    for count in (5, 0, 3):
        normals = rng.standard_normal((count, 3)).astype(np.float32)
        normals /= np.linalg.norm(normals, axis=1, keepdims=True)
        points = rng.random((count, 3)).astype(np.float32)
        clouds.append(Cloud(points, normals, rng.integers(0, 256, (count, 3), np.uint8), np.full(count, 4, np.float32)))
    for before, after in zip(clouds, from_columns(**to_columns(clouds)), strict=True):  # type: ignore[arg-type]
        np.testing.assert_array_equal(before.points, after.points)
        np.testing.assert_allclose(before.normals, after.normals, atol=0.01)
        np.testing.assert_array_equal(before.colours, after.colours)
        assert unpacked(packed(before)).points.tolist() == before.points.tolist()


def test_landmarks_are_found_where_they_are(take: Take) -> None:
    frames = np.array([0, 3])
    exact = Landmarks().run(take, "0" * 32, frames)
    assert isinstance(exact, Done)
    truth = answers(take)["landmarks68"][frames]
    valid = exact.columns["landmarks3d_valid"].astype(bool)
    assert valid.mean() > 0.95
    assert np.linalg.norm(exact.columns["landmarks3d"] - truth, axis=-1)[valid].max() < 1e-5
    noisy = Landmarks(noise_px=0.3).run(take, "0" * 32, frames)
    assert isinstance(noisy, Done)
    errors = np.linalg.norm(noisy.columns["landmarks3d"] - truth, axis=-1)
    assert 1e-4 < np.median(errors[noisy.columns["landmarks3d_valid"].astype(bool)]) < 2e-3
    assert torch.isfinite(torch.from_numpy(noisy.columns["landmarks3d"])).all()


def test_a_capture_without_annotations_is_rejected(take: Take, tmp_path: Path) -> None:
    link = tmp_path / "017" / "sequences" / "SEN-01"
    link.parent.mkdir(parents=True)
    link.symlink_to(take.path)
    (tmp_path / "017" / "camera_params.json").symlink_to(Path(take.path).parents[1] / "camera_params.json")
    moved = Take(take.take_id, str(link), take.sound_path, 0.2, take.layout)
    assert Landmarks().run(moved, "0" * 32, np.array([0])) == Rejected("no annotations beside the capture")
