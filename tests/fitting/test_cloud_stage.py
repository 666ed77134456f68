"""From a capture to clouds: the studio's true depth maps give the true surface; frames are kept one by one."""

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.spatial import cKDTree

from fitting.cloud_stage import Clouds
from fitting.stereo import colmap
from fitting.stereo.moments import from_columns, packed, to_columns, unpacked
from fitting.stereo.views import Cloud
from fitting.studio.acting import Conditions
from fitting.studio.captures import record_captures
from fitting.studio.family import HeadFamily
from fitting.studio.people import PICTURED
from fitting.studio.truth import LABELS
from manifests.document import ManifestError
from manifests.stage import Done, Failed, Outcome, Rejected, Take
from pipelines.plan import make_plan
from tests.pipelines.test_plan import recipe


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


def seen_landmarks(take: Take, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``landmarks3d`` and ``landmarks3d_valid`` of the ``frames``: the true ones."""
    return answers(take)["landmarks68"][frames].astype(np.float32), np.ones((len(frames), 68), np.uint8)


def run(stage: Clouds, take: Take, frames: np.ndarray, partial: Memory | None = None) -> Outcome:
    return stage.run(take, frames, *seen_landmarks(take, frames), Memory() if partial is None else partial)


def points_of(outcome: Outcome) -> np.ndarray:
    assert isinstance(outcome, Done)
    return outcome.columns["cloud_points"]


@pytest.fixture(scope="module")
def bare(take: Take, tmp_path_factory: pytest.TempPathFactory) -> Take:
    """The same capture without alpha maps."""
    home = tmp_path_factory.mktemp("bare") / "000"
    shutil.copytree(Path(take.path).parents[1], home, ignore=shutil.ignore_patterns("alpha_map-73fps"))
    return replace(take, path=str(home / "sequences" / Path(take.path).name))


def test_shipped_depth_gives_points_on_the_surface(take: Take) -> None:
    outcome = run(Clouds(points=2000), take, np.array([0, 2, 2]))
    assert isinstance(outcome, Done)
    assert outcome.columns["cloud_counts"].tolist() == [2000, 2000, 2000]
    columns = {name: outcome.columns[name] for name in outcome.columns if name not in ("cloud_size", "cloud_share")}
    vertices = answers(take)["vertices"]
    for cloud, frame in zip(from_columns(**columns), (0, 2, 2), strict=True):
        distances = cKDTree(vertices[frame]).query(cloud.points)[0]
        # Vertices are some millimetres apart.
        assert np.median(distances) < 0.002
        assert np.mean(distances < 0.006) > 0.95


def test_frames_that_were_done_are_not_done_again(take: Take, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Memory()
    stage, frames = Clouds(points=500), np.array([0, 1])
    whole = run(stage, take, frames, memory)
    assert sorted(memory.held) == ["0.npz", "1.npz"]
    del memory.held["1.npz"]
    asked: list[list[int]] = []
    from prep.capture import Capture

    moments = Capture.moments
    monkeypatch.setattr(
        Capture, "moments", lambda self, numbers, size=None: asked.append(list(numbers)) or moments(self, numbers, size)
    )
    again = run(stage, take, frames, memory)
    assert asked == [[0], [1]], "the first look is for the size"
    assert isinstance(whole, Done)
    assert isinstance(again, Done)
    for name, column in whole.columns.items():
        np.testing.assert_array_equal(column, again.columns[name])


def test_without_any_camera_there_is_no_cloud(take: Take) -> None:
    outcome = run(Clouds(least_views=17), take, np.array([0]))
    assert outcome == Rejected("no surface was found in any frame")


def test_without_masks_only_the_face_is_taken_where_landmarks_are_valid(bare: Take) -> None:
    frames = np.array([0])
    vertices, regions = answers(bare)["vertices"][0], HeadFamily(PICTURED).regions

    def covered(points: np.ndarray, region: str) -> float:
        """The share of the region's vertices that have a point within 4 mm."""
        return float(np.mean(cKDTree(points).query(vertices[regions[region]])[0] < 0.004))

    every, face = (points_of(run(Clouds(points=10**6, mask=mask), bare, frames)) for mask in ("none", "auto"))
    np.testing.assert_array_equal(face, points_of(run(Clouds(points=10**6, mask="landmarks"), bare, frames)))
    assert covered(face, "face") > 0.97 * covered(every, "face")
    assert covered(face, "forehead") > 0.99 * covered(every, "forehead")
    assert covered(every, "neck") > 0.5
    assert covered(face, "neck") < 0.05
    assert covered(face, "scalp") < 0.4 * covered(every, "scalp")
    # Frames without valid landmarks are taken whole by ``auto`` and left out by ``landmarks``.
    points, _ = seen_landmarks(bare, frames)
    none = np.zeros((1, 68), np.uint8)
    np.testing.assert_array_equal(points_of(Clouds(points=10**6).run(bare, frames, points, none, Memory())), every)
    refused = Clouds(mask="landmarks").run(bare, frames, points, none, Memory())
    assert refused == Rejected("no surface was found in any frame")


def test_masks_that_came_with_the_capture_are_taken_first(take: Take, bare: Take) -> None:
    frames = np.array([0])
    np.testing.assert_array_equal(points_of(run(Clouds(), take, frames)), points_of(run(Clouds(mask="capture"), take, frames)))
    assert run(Clouds(mask="capture"), bare, frames) == Rejected("no surface was found in any frame")


def test_planning_names_the_missing_network_only_when_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADLOOM_MODELS", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(ManifestError, match=r"stage clouds: model file 79999_iter\.pth .* is missing: get it from"):
        make_plan(recipe({"capture": {}, "landmarks": {}, "clouds": {"mask": "parsing"}}))
    make_plan(recipe({"capture": {}, "landmarks": {}, "clouds": {}}))


def test_parsed_masks_keep_what_the_network_takes_for_the_face(take: Take, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for the network finds the true face; the stage must not know more than it says."""
    from prep import face_parsing

    with np.load(Path(take.path).with_name(Path(take.path).name + ".maps.npz")) as maps:
        labels = maps["labels"]
    middle = len(answers(take)["times"]) // 2
    skin = np.where(labels == LABELS.index("skin"), face_parsing.CLASSES.index("skin"), face_parsing.CLASSES.index("hair"))
    monkeypatch.setattr("fitting.cloud_stage.find", lambda name: Path(name))
    monkeypatch.setattr(face_parsing, "load_face_parsing", lambda path: None if path.name != "face-parsing" else object())
    monkeypatch.setattr(face_parsing, "parse_faces", lambda network, pictures, crops: skin.astype(np.uint8))
    face = points_of(run(Clouds(points=10**6, mask="parsing"), take, np.array([middle])))
    every = points_of(run(Clouds(points=10**6, mask="none"), take, np.array([middle])))
    vertices, regions = answers(take)["vertices"][middle], HeadFamily(PICTURED).regions
    nearest = cKDTree(vertices).query(face)[1]
    assert np.isin(nearest, regions["scalp"]).mean() < 0.01
    assert np.isin(nearest, regions["face"]).sum() > 0.9 * np.isin(cKDTree(vertices).query(every)[1], regions["face"]).sum()


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


def test_patch_match_without_a_gpu_says_what_is_lacking(take: Take, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(colmap, "pycolmap", lambda: SimpleNamespace(has_cuda=False))
    outcome = run(Clouds(method="patch_match"), take, np.arange(2))
    assert isinstance(outcome, Failed)
    assert outcome.kind == "machine"
    assert "pycolmap-cuda12" in outcome.message
