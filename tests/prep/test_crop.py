"""Crops are squares on even pixels inside the frame, cut and scaled without going through RGB."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any, get_args

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.columns import COLUMNS
from manifests.stage import Done, Rejected, Take
from prep import video as video_module
from prep.crop import Crop, centred_square, first_order_square, outside_share, place_square, scaled
from prep.cut import Cut
from prep.encode import Preset, decode_mp4, encode_mp4
from prep.faces import Faces
from prep.video import Planes
from tests.prep.test_faces import SIDE, scene, take_of
from tests.prep.test_video import numbered, write_film

BOXES = np.array([[40, 30, 100, 110], [50, 30, 110, 110]], np.float32)


def run(take: Take, boxes: np.ndarray, pts_us: np.ndarray, **settings: Any) -> Any:
    return Crop(preset="ultrafast", **settings).run(take, boxes, pts_us, 25, 1)


def test_first_order_models_square_is_the_grown_union() -> None:
    # The union is 70 x 80; a tenth of 80 on every side makes a square of 96.
    assert first_order_square(BOXES, 0.1) == pytest.approx((75, 70, 96))


def test_the_centred_square_is_fixed_on_the_median_face() -> None:
    assert centred_square(BOXES, 2.0) == pytest.approx((75, 70, 2 * (60 * 80) ** 0.5))


def test_the_share_outside_the_frame() -> None:
    assert outside_share((50, 50, 100), 100, 100) == 0
    assert outside_share((0, 50, 100), 100, 100) == pytest.approx(0.5)
    assert outside_share((-100, 50, 100), 100, 100) == 1


@given(
    x=st.floats(-500, 2500),
    y=st.floats(-500, 1500),
    side=st.floats(1, 4000),
    width=st.integers(2, 2000),
    height=st.integers(2, 1200),
)
def test_placed_squares_are_even_square_and_inside(x: float, y: float, side: float, width: int, height: int) -> None:
    x0, y0, x1, y1 = place_square((x, y, side), width, height)
    assert x1 - x0 == y1 - y0 >= 2
    assert x0 % 2 == y0 % 2 == x1 % 2 == 0
    assert min(x0, y0, width - x1, height - y1) >= 0


def test_a_square_that_fits_is_moved_by_a_pixel_at_most() -> None:
    assert place_square((76, 70, 96), 200, 200) == (28, 22, 124, 118)
    assert place_square((75.2, 70.9, 96.7), 200, 200) == (28, 22, 124, 118)


def test_scaling_keeps_planes_apart() -> None:
    planes: Planes = (np.full((50, 50), 90, np.uint8), np.full((25, 25), 30, np.uint8), np.full((25, 25), 200, np.uint8))
    for size in (32, 64):
        assert [(p.shape[0], int(p.min()), int(p.max())) for p in scaled(planes, size)] == [
            (size, 90, 90),
            (size // 2, 30, 30),
            (size // 2, 200, 200),
        ]


@pytest.fixture(scope="module")
def take(tmp_path_factory: pytest.TempPathFactory) -> Take:
    path = tmp_path_factory.mktemp("crop") / "astronaut.mp4"
    return take_of(write_film(path, (scene([(100 + k, 100)]) for k in range(30))))


@pytest.fixture(scope="module")
def clip(take: Take) -> dict[str, Any]:
    faces = Faces().run(take)
    assert isinstance(faces, Done)
    outcome = Cut().run(take, *(faces.columns[name] for name in Cut.reads()[1:]))
    assert isinstance(outcome, Done)
    (only,) = outcome.clips or ()
    return dict(only)


def test_both_films_show_what_their_boxes_say(take: Take, clip: dict[str, Any]) -> None:
    outcome = run(take, clip["face_box"], clip["frame_pts_us"])
    columns = outcome.columns
    assert set(columns) == set(Crop.writes)
    for name, value in columns.items():
        COLUMNS[name].check(value)
    for size in (256, 512):
        film = decode_mp4(columns[f"video{size}"])
        assert film.shape == (clip["n_frames"], size, size, 3)
        x0, y0, x1, y1 = columns[f"crop{size}_box"].astype(int)
        luma = scene([(110, 100)])[0][y0:y1, x0:x1]
        expected = cv2.resize(luma, (size, size), interpolation=cv2.INTER_AREA).astype(float)
        shown = cv2.cvtColor(film[10], cv2.COLOR_RGB2GRAY).astype(float)
        assert np.corrcoef(expected.ravel(), shown.ravel())[0, 1] > 0.99
        assert 0 <= x0 < x1 <= SIDE


def test_bytes_do_not_depend_on_what_was_kept(take: Take, clip: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    Faces().run(take)
    assert video_module.video_of(take)._kept
    kept = run(take, clip["face_box"], clip["frame_pts_us"]).columns
    monkeypatch.setattr(video_module, "_video", None)
    fresh = run(take, clip["face_box"], clip["frame_pts_us"]).columns
    assert kept["video256"] == fresh["video256"]
    assert kept["video512"] == fresh["video512"]


def test_first_order_model_drops_what_leaves_the_frame(take: Take) -> None:
    boxes = np.tile(np.float32([0, 100, 80, 200]), (5, 1))
    times = np.arange(5) * 40_000
    outcome = run(take, boxes, times, outside="reject")
    assert isinstance(outcome, Rejected)
    assert 0 < (outcome.score or 0) < 1
    assert run(take, boxes, times).columns["crop256_box"][0] == 0


def test_frames_are_those_of_the_times(tmp_path: Path) -> None:
    path = write_film(tmp_path / "numbered.mp4", map(numbered, range(20)))
    times = np.array([0, 0, 80_000, 200_000, 760_000])
    # The crop is the top-left corner, where the number's first bits are.
    boxes = np.tile(np.float32([8, 8, 56, 56]), (5, 1))
    columns = run(take_of(path), boxes, times, grow=0.1).columns
    film = decode_mp4(columns["video256"])[..., 1]
    x0, y0, x1, _ = columns["crop256_box"]
    row, columns_of_bits = int((8 - y0) * 256 / (x1 - x0)), [int((b * 16 + 8 - x0) * 256 / (x1 - x0)) for b in range(3)]
    bits = [frame[row, columns_of_bits] > 125 for frame in film]
    assert [sum(1 << b for b in range(3) if lit[b]) for lit in bits] == [0, 0, 2, 5, 19 % 8]
    assert Fraction(len(film), 25) == Fraction(1, 5)


def test_an_unknown_preset_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="'medium'"):
        Crop(preset="medum")  # type: ignore[arg-type]


@pytest.mark.parametrize("preset", get_args(Preset))
def test_libx264_knows_all_presets(preset: Preset) -> None:
    assert encode_mp4([numbered(0)], 160, 96, Fraction(25), preset=preset)
