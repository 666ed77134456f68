"""Coefficients and alignments that SadTalker and DreamTalk published, beside the pictures they belong to."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from fitting.bfm.alignment import Alignment, align, alignment_from_trans_params, five_points
from fitting.bfm.camera import pose, project_y_down, to_camera
from fitting.bfm.coefficients import full_coefficients, semantics, split
from fitting.bfm.crops import cut
from fitting.bfm.files import load_coefficients_mat, load_sadtalker_mat
from fitting.space import DECIMETRE, deep3d_camera
from tests.fitting.bfm.recorded import RECORDED

FIVE = torch.from_numpy(RECORDED["align_in_lm3d_5"]).double()


def landmarks_of(stem: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Landmarks (T, 68, 2) of another detector, and in which frames it found a face."""
    found = np.load(f"{stem}.landmarks68.npz")
    return torch.from_numpy(found["landmarks68"]).double(), torch.from_numpy(found["valid"])


def dreamtalk(shared: Path) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """For each clip: coefficients, trans_params, landmarks, of frames in which a face was found."""
    clips = []
    for path in sorted((shared / "real" / "parity" / "dreamtalk").glob("*.mat")):
        mat = load_coefficients_mat(path)
        landmarks, valid = landmarks_of(path.with_suffix(""))
        assert len(mat.coefficients) == len(mat.trans_params) == len(valid)
        clips.append((mat.coefficients.double()[valid], mat.trans_params.double()[valid], landmarks[valid]))
    return clips


def test_sadtalkers_file_is_the_semantics_of_its_first_frame(shared: Path):
    mat = load_sadtalker_mat(shared / "real" / "parity" / "sadtalker_boy.mat")
    assert mat.semantics.shape == (1, 73)
    trans_params = torch.cat([torch.full((1, 2), 256.0), mat.semantics[:, 70:]], dim=1)
    assert torch.equal(semantics(mat.reference, trans_params), mat.semantics)
    assert torch.equal(full_coefficients(mat.semantics, mat.reference), mat.reference)


def test_alignment_agrees_with_sadtalkers_up_to_the_detectors(shared: Path):
    mat = load_sadtalker_mat(shared / "real" / "parity" / "sadtalker_boy.mat")
    landmarks, _ = landmarks_of(shared / "real" / "parity" / "sadtalker_boy_256")
    found, published = align(landmarks, 256, 256, FIVE).trans_params[0, 2:], mat.semantics[0, 70:]
    assert abs(found[0] / published[0] - 1) < 0.02
    assert (found[1:] - published[1:]).abs().max() < 3


def test_alignment_agrees_with_dreamtalks_up_to_the_detectors(shared: Path):
    """Over eight clips: scale within 2 %, place within 1.5 pixels of 256 on average, with the head moving several."""
    clips = dreamtalk(shared)
    assert len(clips) == 8
    for _, published, landmarks in clips:
        found = align(landmarks, 256, 256, FIVE).trans_params
        assert torch.equal(found[:, :2], published[:, :2])
        assert abs((found[:, 2] / published[:, 2]).mean() - 1) < 0.025
        assert (found[:, 3:] - published[:, 3:]).mean(dim=0).abs().max() < 1.5
        assert (found[:, 3:] - published[:, 3:]).std(dim=0).max() < 1.8


def seen_five(coefficients: torch.Tensor, alignment: Alignment, signs: tuple[int, int, int] = (1, 1, 1)) -> torch.Tensor:
    """Where the standard five points, posed by ``coefficients``, are seen in the full frame."""
    parts = split(coefficients)
    posed = pose(FIVE, parts.angles * torch.tensor(signs), parts.translation)
    return alignment.to_frame(project_y_down(to_camera(posed)))


def test_published_poses_put_the_face_where_it_is_seen(shared: Path):
    """Without the face model: a standard face, posed and projected back to the frame, lies on the landmarks of the picture.

    With the sign of any angle turned it does so less well. That settles the signs, the order of the axes and the flip of y.
    """
    errors = {signs: [] for signs in [(1, 1, 1), (-1, 1, 1), (1, -1, 1), (1, 1, -1)]}
    for coefficients, trans_params, landmarks in dreamtalk(shared):
        alignment = alignment_from_trans_params(trans_params, "deep3d")
        for signs, found in errors.items():
            difference = seen_five(coefficients, alignment, signs) - five_points(landmarks)
            found.append(difference.square().sum(dim=-1).mean().sqrt().item())
    right = errors.pop((1, 1, 1))
    assert max(right) < 6.5
    assert np.mean(right) < 4.5
    for signs, wrong in errors.items():
        assert np.mean(wrong) > 1.25 * np.mean(right), signs


def test_the_full_frames_camera_sees_the_same(shared: Path):
    coefficients, trans_params, _ = dreamtalk(shared)[0]
    alignment, parts = alignment_from_trans_params(trans_params, "deep3d"), split(coefficients)
    camera = alignment.camera_to_frame(deep3d_camera(parts.angles, parts.translation))
    assert torch.allclose(camera.project(DECIMETRE * FIVE).pixels, seen_five(coefficients, alignment), atol=1e-9)


def test_the_published_examples_align_to_upright_faces_of_one_size(shared: Path):
    """Twelve pictures of Deep3DFaceRecon with its five points: eyes above nose above mouth, at the same size and place."""
    stems = sorted((shared / "real" / "landmarks" / "deep3d").glob("*.txt"))
    assert len(stems) == 12
    for path in stems:
        picture = cv2.cvtColor(cv2.imread(str(path.with_suffix(".jpg"))), cv2.COLOR_BGR2RGB)
        five = torch.from_numpy(np.loadtxt(path)) + 0.5
        alignment = align(five[None], picture.shape[1], picture.shape[0], FIVE)
        left_eye, right_eye, nose, left_mouth, right_mouth = alignment.to_crop(five[None])[0]
        assert left_eye[0] < right_eye[0]
        assert left_mouth[0] < right_mouth[0]
        assert max(left_eye[1], right_eye[1]) < nose[1] < min(left_mouth[1], right_mouth[1])
        middle = (left_eye + right_eye + left_mouth + right_mouth) / 4
        assert (middle - 112).abs().max() < 20
        assert 50 < (left_mouth + right_mouth - left_eye - right_eye).norm() / 2 < 85
        crop = cut(torch.from_numpy(picture)[None], alignment)
        assert crop[:, :, 60:160, 60:160].std() > 0.05


@pytest.mark.parametrize("mode", ["exact", "deep3d"])
def test_a_real_picture_is_cut_where_the_points_say(shared: Path, mode):
    """Around each of the five points the crop shows what the picture shows there."""
    stem = shared / "real" / "landmarks" / "deep3d" / "000031"
    picture = cv2.cvtColor(cv2.imread(f"{stem}.jpg"), cv2.COLOR_BGR2RGB)
    five = torch.from_numpy(np.loadtxt(f"{stem}.txt")) + 0.5
    alignment = align(five[None], picture.shape[1], picture.shape[0], FIVE, mode)
    crop = cut(torch.from_numpy(picture)[None], alignment)[0].permute(1, 2, 0).numpy()
    small = cv2.GaussianBlur(picture.astype(np.float32) / 255, (0, 0), 2.5)
    blurred = cv2.GaussianBlur(crop, (0, 0), 2.5 * float(alignment.scale[0, 0]))
    for full, cropped in zip(five.numpy(), alignment.to_crop(five[None])[0].numpy(), strict=True):
        there = cv2.getRectSubPix(small, (1, 1), tuple(float(v) for v in full - 0.5))
        here = cv2.getRectSubPix(blurred, (1, 1), tuple(float(v) for v in cropped - 0.5))
        assert np.abs(there - here).max() < 0.03
