"""One face is followed through each shot; where it is not known to be, there is no box."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import skimage.data

from manifests.columns import COLUMNS
from manifests.stage import Done, Rejected, Take
from prep.faces import Faces, Look, _boxes_of_frames
from prep.video import Planes
from tests.prep.test_detect import ASTRONAUT_FACE
from tests.prep.test_video import write_film

SIDE = 320
SCALE = 0.8
Place = tuple[float, float]


def planes_of(rgb: np.ndarray) -> Planes:
    height, width = rgb.shape[:2]
    flat = cv2.cvtColor(np.ascontiguousarray(rgb), cv2.COLOR_RGB2YUV_I420).reshape(-1)
    quarter = height // 2 * (width // 2)
    chroma = flat[height * width :].reshape(2, quarter).reshape(2, height // 2, width // 2)
    return flat[: height * width].reshape(height, width), chroma[0], chroma[1]


def scene(places: list[Place], brightness: int = 90) -> Planes:
    """The astronaut's head with its face's top-left corner at each place, before a plain wall."""
    rgb = np.full((SIDE, SIDE, 3), brightness, np.uint8)
    rgb[::16] += 30
    head = cv2.resize(skimage.data.astronaut()[20:240, 140:310], None, fx=SCALE, fy=SCALE, interpolation=cv2.INTER_AREA)
    for x, y in places:
        shift = np.float32([[1, 0, x - (ASTRONAUT_FACE[0] - 140) * SCALE], [0, 1, y - (ASTRONAUT_FACE[1] - 20) * SCALE]])
        cv2.warpAffine(head, shift, (SIDE, SIDE), dst=rgb, borderMode=cv2.BORDER_TRANSPARENT)
    return planes_of(rgb)


def face_at(place: Place) -> np.ndarray:
    size = (ASTRONAUT_FACE[2:] - ASTRONAUT_FACE[:2]) * SCALE
    return np.array([*place, *(np.array(place) + size)])


def centres(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, :2] + boxes[:, 2:]) / 2


def take_of(path: Path) -> Take:
    return Take(str(path), str(path), str(path), 2.0)


def found(path: Path, **settings: Any) -> dict[str, Any]:
    outcome = Faces(**settings).run(take_of(path))
    assert isinstance(outcome, Done)
    return dict(outcome.columns)


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Iterator[Planes]], Path]:
    folder = tmp_path_factory.mktemp("faces")
    return lambda name, frames: write_film(folder / f"{name}.mp4", frames)


def test_a_moving_face_is_followed(film: Callable[..., Path]) -> None:
    places = [(60 + 2.0 * k, 90 + 20 * np.sin(k / 12)) for k in range(50)]
    columns = found(film("moving", (scene([place]) for place in places)))
    truth = np.array([face_at(place) for place in places])
    # The last frames hold the box of the last look, while this face moves on by 2 px a frame.
    assert np.abs(centres(columns["take_face_box"]) - centres(truth)).max() < 8 + 4
    assert columns["take_shot"].tolist() == [0] * 50
    assert not columns["take_rival_face"].any()
    assert (columns["decoded_share"], columns["damaged_share"], columns["interlaced"]) == (1.0, 0.0, False)
    assert set(columns) == set(Faces.writes)
    for name, value in columns.items():
        COLUMNS[name].check(value)


def test_a_missing_face_has_no_box_and_a_short_loss_is_bridged(film: Callable[..., Path]) -> None:
    def frame(k: int) -> Planes:
        luma, u, v = (plane.copy() for plane in scene([(110, 90)]))
        if 13 <= k < 18 or 30 <= k < 60:
            luma[115:135, 100:190] = 100  # a bar over the eyes
        return luma, u, v

    columns = found(film("gone", map(frame, range(80))))
    valid = ~np.isnan(columns["take_face_box"][:, 0])
    assert columns["take_shot"].max() == 0
    assert valid[:26].all()
    assert not valid[30:60].any()
    assert valid[66:].all()


def test_a_hard_cut_starts_a_shot_and_another_face(film: Callable[..., Path]) -> None:
    frames = [scene([(40, 60)])] * 25 + [scene([(190, 150)], brightness=170)] * 25
    columns = found(film("cut", iter(frames)))
    assert columns["take_shot"].tolist() == [0] * 25 + [1] * 25
    boxes = centres(columns["take_face_box"])
    assert np.abs(boxes - centres(np.array([face_at((40, 60))] * 25 + [face_at((190, 150))] * 25))).max() < 8


def test_movement_and_fading_light_are_no_cuts(film: Callable[..., Path]) -> None:
    frames = (scene([(60 + 3 * k, 90)], brightness=60 + 4 * k) for k in range(30))
    assert found(film("fade", frames))["take_shot"].max() == 0


def test_a_second_face_is_a_rival_and_does_not_take_over(film: Callable[..., Path]) -> None:
    columns = found(film("two", (scene([(30 + k, 60), (200, 160)]) for k in range(40))))
    assert columns["take_rival_face"] == pytest.approx(1.0, abs=0.25)
    moved = centres(columns["take_face_box"])[-1] - centres(columns["take_face_box"])[0]
    assert moved == pytest.approx([39, 0], abs=8) or moved == pytest.approx([0, 0], abs=8)


def test_no_face_is_a_rejection_that_says_where_was_looked(film: Callable[..., Path]) -> None:
    outcome = Faces().run(take_of(film("none", (scene([]) for _ in range(25)))))
    assert isinstance(outcome, Rejected)
    assert outcome.reason == "no face found"
    assert outcome.message == "in none of 5 looks; the smallest looked for has 32 px"


def test_looks_go_by_time_not_by_frames(film: Callable[..., Path], tmp_path: Path) -> None:
    pts = [*range(0, 100, 2), *range(100, 150)]
    path = write_film(tmp_path / "vfr.mp4", (scene([(60 + t / 2, 90)]) for t in pts), pts)
    boxes = centres(found(path)["take_face_box"])
    assert np.abs(boxes[:, 0] - centres(np.array([face_at((60 + t / 2, 90)) for t in pts]))[:, 0]).max() < 8


def test_boxes_between_hits() -> None:
    def box(x: float) -> np.ndarray:
        return np.array([x, 0, x + 10, 10], np.float32)

    pts = np.arange(40) * 40_000
    shot = np.repeat(np.int32([0, 1]), [30, 10])
    looks = [Look(0, box(0)), Look(5, box(5)), Look(10, box(10)), Look(15, None), Look(30, box(50)), Look(35, box(50))]
    boxes = _boxes_of_frames(looks, pts, shot)
    assert boxes[:11, 0] == pytest.approx(np.arange(11), abs=1e-5)
    assert np.isnan(boxes[11:30]).all()
    assert boxes[30:, 0] == pytest.approx(np.full(10, 50))


def test_s3fd_asks_for_its_weights() -> None:
    assert Faces(detector="s3fd").models() == ("s3fd",)
    assert Faces().models() == ()


def test_a_cut_to_another_person_and_a_face_missing_in_the_middle(shared: Path) -> None:
    derived = shared / "real/bad/derived"
    assert np.flatnonzero(np.diff(found(derived / "cut_to_other_person.mp4")["take_shot"])).tolist() == [59]
    missing = found(derived / "face_missing_middle.mp4")
    assert np.flatnonzero(np.isnan(missing["take_face_box"][:, 0])).tolist() == list(range(50, 76))
    assert np.median(found(derived / "two_faces_left_speaks.mp4")["take_rival_face"]) > 0.5


@pytest.mark.parametrize("name", ["may_5s", "grid_bbaf2n", "vox2_00098", "odd_410x412", "interview_man_23976", "aoc_vexpress_gt"])
def test_real_faces_are_found_and_nothing_else(shared: Path, name: str) -> None:
    path = next(p for p in (shared / "real/clips").glob(f"{name}.m*"))
    truth = np.load(path.with_name(f"{name}.landmarks68.npz"))
    middle = truth["landmarks68"].mean(axis=1)
    boxes = found(path)["take_face_box"][: len(middle)]
    inside = ((middle > boxes[:, :2]) & (middle < boxes[:, 2:])).all(axis=1)
    assert inside[truth["valid"]].mean() >= 0.95


@pytest.mark.parametrize("name", ["noface/cartoon.mp4", "noface/plant.mp4", "corrupt/video_with_failing_audio.mp4"])
def test_what_is_no_face_is_not_followed(shared: Path, name: str) -> None:
    assert isinstance(Faces().run(take_of(shared / "real/bad/natural" / name)), Rejected)
