"""From a capture to landmarks in space: from annotations, and from the pictures of all cameras."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import prep.landmarks2d
from fitting.landmark_stage import Landmarks
from fitting.studio.acting import Conditions
from fitting.studio.captures import record_captures
from fitting.studio.rig import sixteen
from manifests.document import ManifestError
from manifests.stage import Done, Rejected, Take, Unreadable
from pipelines.plan import make_plan
from prep.capture import Capture, Moment, open_capture
from prep.landmarks2d import Landmarker, Landmarks2d
from tests.fitting.test_cloud_stage import Memory
from tests.pipelines.test_plan import recipe
from tests.prep.test_landmarks2d import coded_pictures, reader_of_codes

W, H = 198, 290


@pytest.fixture(scope="module")
def take(tmp_path_factory: pytest.TempPathFactory) -> Take:
    folder = tmp_path_factory.mktemp("capture")
    (path,) = record_captures(folder, 1, 1, Conditions(seconds=0.2, size=(W, H), seed=4), release="v1", workers=1)
    return Take("0" * 64, str(path), str(path / "audio.wav"), 0.2, "nersemble-v1")


def moved(take: Take, folder: Path) -> Take:
    """The take in a copy of its person's folder."""
    home = Path(take.path).parents[1]
    if not (folder / home.name).is_dir():
        shutil.copytree(home, folder / home.name)
    return replace(take, path=str(folder / home.name / "sequences" / Path(take.path).name))


def answers(take: Take) -> dict:
    return dict(np.load(Path(take.path).with_name(Path(take.path).name + ".truth.npz")))


def errors_mm(outcome: object, take: Take, frames: np.ndarray) -> np.ndarray:
    """Distances of the valid landmarks from the true ones."""
    assert isinstance(outcome, Done)
    distance = np.linalg.norm(outcome.columns["landmarks3d"] - answers(take)["landmarks68"][frames], axis=-1)
    return 1000 * distance[outcome.columns["landmarks3d_valid"].astype(bool)]


def test_annotated_landmarks_are_found_where_they_are(take: Take) -> None:
    frames = np.array([0, 2])
    exact = Landmarks().run(take, "0" * 32, frames, Memory())
    assert isinstance(exact, Done)
    assert exact.columns["landmark_share"] > 0.95
    assert errors_mm(exact, take, frames).max() < 0.01
    noisy = Landmarks(noise_px=0.3).run(take, "0" * 32, frames, Memory())
    assert isinstance(noisy, Done)
    assert 0.1 < np.median(errors_mm(noisy, take, frames)) < 2
    assert np.isfinite(noisy.columns["landmarks3d"]).all()


def test_annotations_go_with_the_time_of_a_frame_not_with_its_number(take: Take, tmp_path: Path) -> None:
    fewer = moved(take, tmp_path)
    shutil.rmtree(Path(fewer.path) / "frame_00003")
    outcome = Landmarks().run(fewer, "0" * 32, np.array([0, 1, 2]), Memory())
    assert errors_mm(outcome, take, np.array([0, 2, 3])).max() < 0.01
    path = open_capture(Path(fewer.path)).annotations
    held = dict(np.load(path))
    np.savez(path, **{**held, "times": held["times"] + 0.02})
    assert Landmarks().run(fewer, "0" * 32, np.array([0]), Memory()) == Rejected("no landmark is seen by enough cameras")


def test_annotations_that_do_not_fit_the_capture_are_unreadable(take: Take, tmp_path: Path) -> None:
    path = open_capture(Path(moved(take, tmp_path).path)).annotations
    held = dict(np.load(path))
    np.savez(path, **{**held, "landmarks68_image": held["landmarks68_image"][:15]})
    with pytest.raises(Unreadable, match=r"\(15, 5, 68, 2\) at 5 times, which do not fit the 16 cameras"):
        Landmarks().run(moved(take, tmp_path), "0" * 32, np.array([0]), Memory())
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(Unreadable, match=r"truth\.npz cannot be read"):
        Landmarks().run(moved(take, tmp_path), "0" * 32, np.array([0]), Memory())


def test_a_capture_without_annotations_is_rejected(take: Take, tmp_path: Path) -> None:
    bare = moved(take, tmp_path)
    open_capture(Path(bare.path)).annotations.unlink()
    assert Landmarks().run(bare, "0" * 32, np.array([0]), Memory()) == Rejected("no annotations beside the capture")


@pytest.mark.parametrize("count", [1, 2])
def test_two_cameras_are_enough_one_is_not(count: int, tmp_path: Path) -> None:
    cameras = sixteen().cameras[[2, 12][:count]].resize(W, H)
    truth = np.random.default_rng(0).uniform(-0.07, 0.07, (1, 68, 3))
    folder = tmp_path / "mine"
    folder.mkdir()
    rig = {
        f"cam{index}": {
            "K": cameras.intrinsics[index].tolist(),
            "R": cameras.world_to_camera[index, :3, :3].tolist(),
            "t": cameras.world_to_camera[index, :3, 3].tolist(),
        }
        for index in range(count)
    }
    (folder / "cameras.json").write_text(json.dumps({"width": W, "height": H, "times_s": [0.5], "cameras": rig}))
    np.savez(
        tmp_path / "mine.truth.npz",
        times=[0.5],
        landmarks68_image=cameras[:, None].project(torch.from_numpy(truth))[0].numpy(),
        landmarks68_visible=np.ones((count, 1, 68), bool),
        intrinsics=cameras.intrinsics.numpy(),
    )
    outcome = Landmarks().run(Take("0" * 64, str(folder), "", 0.1, "plain"), "0" * 32, np.array([0]), Memory())
    if count == 1:
        assert outcome == Rejected("fewer than two cameras")
    else:
        assert isinstance(outcome, Done)
        np.testing.assert_allclose(outcome.columns["landmarks3d"], truth, atol=1e-4)


def seeing(take: Take, frame: int, peak: float = 0.8, wrong: tuple[int, ...] = ()) -> Callable[[Tensor], Tensor]:
    """A stand-in for FAN that sees where the landmarks of one ``frame`` are in all cameras, but for the ``wrong`` ones."""
    there = answers(take)["landmarks68_image"][:, frame].copy()
    there[list(wrong)] += 25
    return reader_of_codes(there, H, W, peak)


class Coded:
    """Finds landmarks in pictures whose colours say where each pixel is, instead of those that it is given."""

    def __init__(self, take: Take, peak: float = 0.8, wrong: tuple[int, ...] = ()):
        self.calls = 0
        self._by_frame = [seeing(take, frame, peak, wrong) for frame in range(len(answers(take)["times"]))]

    def __call__(self, pictures: np.ndarray, boxes: np.ndarray) -> Landmarks2d:
        assert pictures.shape == (16, H, W, 3)
        self.calls += 1
        return Landmarker(self._by_frame[self.calls - 1])(coded_pictures(16, H, W), boxes)


def use(monkeypatch: pytest.MonkeyPatch, landmarker: object) -> None:
    monkeypatch.setattr(prep.landmarks2d, "load_fan", lambda device: landmarker)


def test_detected_landmarks_lie_within_a_millimetre_of_the_true_ones(take: Take, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, Coded(take))
    frames = np.array([0, 1, 2])
    outcome = Landmarks(source="face-alignment").run(take, "0" * 32, frames, Memory())
    assert isinstance(outcome, Done)
    assert outcome.columns["landmark_share"] == 1.0
    # A heatmap's pixel is 5 mm of the face, and FAN's rule leaves up to a quarter of it in each view.
    errors = errors_mm(outcome, take, frames)
    assert errors.mean() < 0.7
    assert np.percentile(errors, 95) < 1.0


def test_cameras_that_are_wrong_or_unsure_do_not_count(take: Take, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, Coded(take, wrong=(0, 5, 9, 14)))
    outcome = Landmarks(source="face-alignment").run(take, "0" * 32, np.array([0]), Memory())
    assert np.percentile(errors_mm(outcome, take, np.array([0])), 95) < 1.0
    use(monkeypatch, Coded(take, peak=0.1))
    outcome = Landmarks(source="face-alignment").run(take, "0" * 32, np.array([0]), Memory())
    assert outcome == Rejected("no landmark is seen by enough cameras")


def test_frames_that_were_done_are_not_done_again(take: Take, monkeypatch: pytest.MonkeyPatch) -> None:
    memory, stage, frames = Memory(), Landmarks(source="face-alignment"), np.array([0, 0, 1])
    use(monkeypatch, Coded(take))
    whole = stage.run(take, "0" * 32, frames, memory)
    assert sorted(memory.held) == ["0.npz", "1.npz"]
    nothing_left = Coded(take)
    use(monkeypatch, nothing_left)
    again = stage.run(take, "0" * 32, frames, memory)
    assert nothing_left.calls == 0
    assert isinstance(whole, Done)
    assert isinstance(again, Done)
    for name, column in whole.columns.items():
        np.testing.assert_array_equal(column, again.columns[name])


def test_without_a_head_in_the_pictures_it_is_rejected(take: Take, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, Coded(take))
    real = Capture.moments

    def empty(self: Capture, frames: list[int], size: tuple[int, int] | None = None) -> object:
        for moment in real(self, frames, size):
            yield Moment(np.full_like(moment.pictures, 90), moment.present, None, None)

    monkeypatch.setattr(Capture, "moments", empty)
    outcome = Landmarks(source="face-alignment").run(take, "0" * 32, np.array([0, 1]), Memory())
    assert outcome == Rejected("no head is found in enough views")


def test_planning_names_the_missing_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADLOOM_MODELS", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(
        ManifestError, match=r"stage landmarks: model file 2DFAN4-11f355bf06\.pth\.tar .* is missing: get it from"
    ):
        make_plan(recipe({"capture": {}, "landmarks": {"source": "face-alignment"}}))
    make_plan(recipe({"capture": {}, "landmarks": {}}))
    assert Landmarks(source="face-alignment", detector="s3fd").models() == ("fan", "s3fd")
