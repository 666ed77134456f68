"""Where the crop lies: as published, or exactly; and the way back to the frame."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fitting.bfm.alignment import align, alignment_from_trans_params, fit_scaled_orthography, five_points
from fitting.bfm.camera import pose, project_y_down, project_y_up, to_camera
from fitting.space import DECIMETRE, deep3d_camera
from tests.fitting.bfm.files import FIVE_3D, landmarks3d
from tests.fitting.bfm.recorded import RECORDED

FIVE = torch.from_numpy(FIVE_3D)
WIDTH, HEIGHT = 260, 300

# The published code counts pixels from 0, so centres lie at whole numbers; here they lie at 0.5.
RECORDED_LANDMARKS = torch.from_numpy(RECORDED["align_in_landmarks68_image"]) + 0.5
RECORDED_FIVE = torch.from_numpy(RECORDED["align_in_lm3d_5"])


def faces(n: int, seed: int = 0) -> torch.Tensor:
    """Five landmarks (n, 5, 2) of faces of some 100 pixels anywhere in a frame, with a little noise."""
    rng = np.random.default_rng(seed)
    size, roll = rng.uniform(40, 300, n), rng.uniform(-0.4, 0.4, n)
    turn = np.stack([np.stack([np.cos(roll), -np.sin(roll)], -1), np.stack([np.sin(roll), np.cos(roll)], -1)], -2)
    flat = np.stack([FIVE_3D[:, 0], -FIVE_3D[:, 1]], axis=-1) + rng.normal(0, 0.02, (n, 5, 2))
    return torch.from_numpy(size[:, None, None] * (flat @ turn) + rng.uniform(100, 700, (n, 1, 2)))


# --- the published code's numbers ---


def test_five_points_are_the_published_codes():
    y_up = torch.stack([RECORDED_LANDMARKS[:, 0] - 0.5, HEIGHT - 0.5 - RECORDED_LANDMARKS[:, 1]], dim=-1)
    assert np.allclose(five_points(y_up), RECORDED["align_extract_5p"], atol=1e-9)


def test_scale_and_translation_are_the_published_codes():
    fitted = fit_scaled_orthography(torch.from_numpy(RECORDED["align_extract_5p"]), RECORDED_FIVE.double())
    assert np.isclose(fitted.scale, RECORDED["align_pos_s"], rtol=1e-12)
    assert np.allclose(fitted.translation, RECORDED["align_pos_t"], rtol=1e-12)


@pytest.mark.parametrize("mode", ["exact", "deep3d"])
def test_trans_params_are_the_published_codes_in_both_modes(mode):
    for landmarks, key in ((RECORDED_LANDMARKS, "68"), (five_points(RECORDED_LANDMARKS), "5")):
        found = align(landmarks, WIDTH, HEIGHT, RECORDED_FIVE, mode).trans_params
        assert np.allclose(found, RECORDED[f"align_trans_params_from{key}"], rtol=1e-12)


# --- the fit, written slowly ---


def slow_fit(points: np.ndarray, model: np.ndarray) -> tuple[float, np.ndarray]:
    """One frame: two rows of the system for each point, eight unknowns."""
    system, right = [], []
    for (x, y), corner in zip(points, model, strict=True):
        system += [[*corner, 1, 0, 0, 0, 0], [0, 0, 0, 0, *corner, 1]]
        right += [x, y]
    k = np.linalg.lstsq(np.array(system), np.array(right), rcond=None)[0]
    return (np.linalg.norm(k[:3]) + np.linalg.norm(k[4:7])) / 2, k[[3, 7]]


def test_agrees_with_the_fit_written_slowly_frame_by_frame():
    points = faces(20).reshape(4, 5, 5, 2)
    fitted = fit_scaled_orthography(points, FIVE)
    for i, j in np.ndindex(4, 5):
        scale, translation = slow_fit(points[i, j].numpy(), FIVE_3D)
        assert np.isclose(fitted.scale[i, j], scale, rtol=1e-10)
        assert np.allclose(fitted.translation[i, j], translation, rtol=1e-10)


def test_an_orthographic_face_is_fitted_without_error():
    model = torch.from_numpy(landmarks3d()).double()
    fitted = fit_scaled_orthography(73.0 * model[:, :2] + torch.tensor([40.0, 50.0]), model)
    assert np.isclose(fitted.scale, 73.0)
    assert np.allclose(fitted.translation, [40.0, 50.0])


# --- what must hold ---


def test_sixty_eight_landmarks_mean_their_five_points():
    landmarks = torch.rand(3, 68, 2, dtype=torch.float64) * 200
    lm3d = torch.from_numpy(landmarks3d())
    whole = align(landmarks, 640, 480, lm3d)
    assert torch.allclose(whole.trans_params, align(five_points(landmarks), 640, 480, FIVE).trans_params, rtol=1e-5)


def test_a_face_straight_ahead_lands_on_the_standard_points():
    """Seen by an orthographic camera the five points come to lie at 102 pixels for a decimetre around the middle."""
    y_up = 250.0 * FIVE[:, :2] + torch.tensor([400.0, 310.0])
    frame = torch.stack([y_up[:, 0] + 0.5, 719.5 - y_up[:, 1]], dim=-1)
    expected = torch.stack([112.5 + 102 * FIVE[:, 0], 111.5 - 102 * FIVE[:, 1]], dim=-1)
    assert torch.allclose(align(frame, 1280, 720, FIVE).to_crop(frame), expected, atol=1e-9)


def test_deep3d_rounds_scale_and_corner_to_whole_pixels():
    alignment = align(faces(50), 800, 700, FIVE, "deep3d")
    scaled = alignment.scale * torch.tensor([800.0, 700.0])
    assert torch.allclose(scaled, scaled.round(), atol=1e-9)
    assert torch.equal(alignment.offset, alignment.offset.round())
    exact = align(faces(50), 800, 700, FIVE)
    middle = torch.tensor([[112.0, 112.0]], dtype=torch.float64)
    error = alignment.to_crop(exact.to_frame(middle.expand(50, 1, 2))) - middle
    assert 0.4 < error.abs().max() < 3.0


def test_frames_do_not_touch_each_other():
    landmarks = faces(6)
    together = align(landmarks, 800, 700, FIVE, "deep3d")
    for k in range(6):
        alone = align(landmarks[k], 800, 700, FIVE, "deep3d")
        assert torch.allclose(alone.scale, together.scale[k], rtol=1e-12)
        assert torch.equal(alone.offset, together.offset[k])


def test_stored_trans_params_give_the_alignment_again():
    for mode in ("exact", "deep3d"):
        made = align(faces(5), 800, 700, FIVE, mode)
        again = alignment_from_trans_params(made.trans_params, mode)
        assert torch.equal(made.scale, again.scale)
        assert torch.equal(made.offset, again.offset)


@settings(max_examples=50, deadline=None)
@given(
    x=st.floats(-500, 2500),
    y=st.floats(-500, 2500),
    scale=st.floats(0.05, 4),
    t=st.tuples(st.floats(0, 1920), st.floats(0, 1080)),
    mode=st.sampled_from(["exact", "deep3d"]),
)
def test_points_come_back_from_the_crop(x: float, y: float, scale: float, t: tuple[float, float], mode):
    alignment = alignment_from_trans_params(torch.tensor([1920.0, 1080.0, scale, *t]), mode)
    point = torch.tensor([[x, y]], dtype=torch.float64)
    assert torch.allclose(alignment.to_frame(alignment.to_crop(point)), point, rtol=0, atol=1e-7)
    assert alignment.to_crop(point.float()).dtype == torch.float32


@settings(max_examples=50, deadline=None)
@given(
    angles=st.tuples(*[st.floats(-1, 1)] * 3),
    translation=st.tuples(*[st.floats(-1, 1)] * 3),
    scale=st.floats(0.05, 4),
    t=st.tuples(st.floats(0, 1920), st.floats(0, 1080)),
    mode=st.sampled_from(["exact", "deep3d"]),
)
def test_the_full_frames_camera_sees_what_the_crops_does(angles, translation, scale: float, t, mode):
    alignment = alignment_from_trans_params(torch.tensor([[1920.0, 1080.0, scale, *t]] * 2), mode)
    turn, move = (torch.tensor([value] * 2, dtype=torch.float64) for value in (angles, translation))
    camera = alignment.camera_to_frame(deep3d_camera(turn, move))
    assert (camera.width, camera.height) == (1920, 1080)
    points = torch.from_numpy(landmarks3d()).double()
    in_crop = project_y_down(to_camera(pose(points, turn, move)))
    assert torch.allclose(camera.project(DECIMETRE * points).pixels, alignment.to_frame(in_crop), rtol=0, atol=1e-6)


def test_cameras_of_frames_of_several_sizes_are_refused():
    several = torch.tensor([[640.0, 480, 1, 300, 200], [800, 480, 1, 300, 200]])
    for trans_params in (several, several[:0]):
        camera = deep3d_camera(*torch.zeros(2, len(trans_params), 3))
        with pytest.raises(ValueError, match="images of one size"):
            alignment_from_trans_params(trans_params).camera_to_frame(camera)


def test_the_crops_own_landmarks_are_where_the_model_would_be_fitted():
    """In mode exact a pixel of the crop is what the model's camera calls that pixel: the fit's origin is seen at 112, 112."""
    alignment = align(RECORDED_LANDMARKS, WIDTH, HEIGHT, RECORDED_FIVE)
    x, y_up = RECORDED["align_pos_t"]
    origin = torch.tensor([[x + 0.5, HEIGHT - 0.5 - y_up]])
    assert torch.allclose(alignment.to_crop(origin), project_y_down(to_camera(torch.zeros(1, 3, dtype=torch.float64))))
    assert torch.equal(project_y_up(to_camera(torch.zeros(1, 3))), torch.tensor([[112.0, 112.0]]))


def test_gradients_reach_the_landmarks():
    landmarks = faces(2).requires_grad_()
    assert torch.autograd.gradcheck(lambda points: align(points, 800, 700, FIVE).to_crop(points), landmarks)


def test_float32_landmarks_are_placed_in_float64():
    single = align(faces(3).float(), 800, 700, FIVE)
    assert single.offset.dtype == torch.float64
    assert torch.allclose(single.offset, align(faces(3), 800, 700, FIVE).offset, atol=1e-3)


def test_missing_and_degenerate_faces_are_named():
    landmarks = faces(3)
    landmarks[1] = torch.nan
    with pytest.raises(ValueError, match="landmarks of frame 1 are not finite or fall in one point"):
        align(landmarks, 800, 700, FIVE)
    landmarks[1] = 0.0
    with pytest.raises(ValueError, match="landmarks of frame 1 are not finite or fall in one point"):
        align(landmarks, 800, 700, FIVE)
    with pytest.raises(ValueError, match=r"68 or 5 landmarks, got shape \(3, 51, 2\)"):
        align(torch.zeros(3, 51, 2), 800, 700, FIVE)


def test_another_mode_is_not_taken_for_the_published_one():
    with pytest.raises(ValueError, match="mode is one of exact, deep3d, not Exact"):
        align(faces(3), 800, 700, FIVE, mode="Exact")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"trans_params have shape \(\.\.\., 5\), got \(3,\)"):
        alignment_from_trans_params(torch.ones(3))
