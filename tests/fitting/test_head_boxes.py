"""A head that detectors find in some views is known in all of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fitting.cameras import Camera
from fitting.head_boxes import Heads, best_faces, locate, over_time, project
from fitting.studio.acting import Conditions, act, landmarks
from fitting.studio.rig import sixteen
from prep.detect import load_detector
from prep.landmarks2d import crop_squares
from tests.bench.stereo import capture

SIZE = (198, 290)
CAMERAS = sixteen().cameras.resize(*SIZE)


def faces_of(centres: np.ndarray, side: float, cameras: Camera = CAMERAS) -> np.ndarray:
    """(T, C, 4) squares of ``side`` metres about ``centres`` (T, 3)."""
    return project(Heads(centres, side), cameras)


def path(count: int = 4) -> np.ndarray:
    return np.linspace([-0.03, 0.0, 0.02], [0.04, 0.02, -0.01], count)


@pytest.mark.parametrize(("person", "seed", "moment"), [(1, 0, 1.0)])
def test_every_camera_of_the_studio_sees_the_whole_face_in_its_crop(person: int, seed: int, moment: float) -> None:
    views, _, _, _ = capture(person, seed, moment, SIZE)
    acted = act(person, np.array([0.0, moment]), Conditions(2.0, SIZE, seed), person)
    truth = landmarks(acted)[1]
    pixels = views.cameras.project(truth.expand(16, -1, -1))[0].numpy()
    boxes, scores = best_faces(views.pictures, load_detector("cascade"))
    heads = locate(boxes[None], scores[None], views.cameras)
    assert np.linalg.norm(heads.centres[0] - truth.mean(dim=0).numpy()) < 0.04
    assert 0.12 < heads.side < 0.22
    squares = crop_squares(project(heads, views.cameras)[0]).astype(float)
    place = (pixels - squares[:, None, :2]) / squares[:, None, 2:]
    # A tenth of the crop is left on all sides, in all sixteen views.
    assert place.min() > 0.1
    assert place.max() < 0.9
    # And the face fills it as FAN is used to: not a dot in the middle.
    assert (np.ptp(place[..., 1], axis=1) > 0.3).all()


def test_the_head_is_known_where_only_a_few_cameras_find_it() -> None:
    boxes = faces_of(path(), 0.16)
    seen = boxes.copy()
    seen[:, 4:] = np.nan
    found = locate(seen, np.ones(seen.shape[:2]), CAMERAS)
    np.testing.assert_allclose(found.centres, path(), atol=1e-5)
    assert found.side == pytest.approx(0.16, rel=1e-3)
    np.testing.assert_allclose(project(found, CAMERAS), boxes, atol=0.1)


def test_things_that_are_no_face_do_not_move_it() -> None:
    boxes = faces_of(path(), 0.16)
    rng = np.random.default_rng(2)
    for moment, view in ((0, 3), (0, 8), (1, 3), (2, 0), (3, 15)):
        corner = rng.uniform(0, 200, 2)
        boxes[moment, view] = [*corner, *(corner + rng.uniform(20, 120))]
    found = locate(boxes, np.ones(boxes.shape[:2]), CAMERAS)
    assert np.linalg.norm(found.centres - path(), axis=1).max() < 0.005
    assert found.side == pytest.approx(0.16, rel=0.02)


def test_moments_without_faces_have_no_head() -> None:
    boxes = faces_of(path(), 0.16)
    boxes[2] = np.nan
    boxes[3, 1:] = np.nan
    found = locate(boxes, np.ones(boxes.shape[:2]), CAMERAS)
    assert np.isfinite(found.centres).all(axis=1).tolist() == [True, True, False, False]
    nobody = locate(np.full((2, 16, 4), np.nan), np.zeros((2, 16)), CAMERAS)
    assert np.isnan(nobody.centres).all()
    assert np.isnan(project(nobody, CAMERAS)).all()


def test_faces_too_small_or_too_large_for_a_person_are_none() -> None:
    assert np.isnan(locate(faces_of(path(), 0.03), np.ones((4, 16)), CAMERAS).centres).all()
    assert np.isnan(locate(faces_of(path(), 0.6), np.ones((4, 16)), CAMERAS).centres).all()


def test_between_looks_it_moves_straight_and_where_it_left_it_is_nowhere() -> None:
    looked = [0, 10, 20, 30, 40]
    centres = path(5)
    centres[3:] = np.nan
    heads = over_time(Heads(centres, 0.16), looked, np.array([0, 5, 20, 30, 31, 44]))
    np.testing.assert_allclose(heads.centres[1], (centres[0] + centres[1]) / 2)
    assert np.isfinite(heads.centres).all(axis=1).tolist() == [True, True, True, True, False, False]


def test_a_face_behind_a_camera_has_no_box() -> None:
    behind = CAMERAS.centre[:1].numpy() * 1.5
    boxes = project(Heads(behind, 0.16), CAMERAS)
    assert np.isnan(boxes[0, 0]).all()
    assert torch.from_numpy(boxes).shape == (1, 16, 4)
