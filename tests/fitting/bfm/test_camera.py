"""Pixels with y up are Deep3DFaceRecon's, pixels with y down everybody else's; cameras see what the projection says."""

from __future__ import annotations

import math

import numpy as np
import torch

from fitting.bfm.camera import pose, project_y_down, project_y_up, to_camera


def test_the_origin_is_seen_in_the_middle_of_the_crop():
    """Pixel 112 of 0..223, counted from the left and from the bottom: half a pixel off the middle of the crop."""
    origin = to_camera(torch.zeros(1, 3))
    assert origin.tolist() == [[0.0, 0.0, 10.0]]
    assert project_y_up(origin).tolist() == [[112.0, 112.0]]
    assert project_y_down(origin).tolist() == [[112.5, 111.5]]


def test_a_point_up_and_to_the_right_is_seen_there():
    up_right = to_camera(torch.tensor([[0.5, 0.2, 0.0]], dtype=torch.float64))
    expected = [[112 + 101.5 * 0.5, 112 + 101.5 * 0.2]]
    assert np.allclose(project_y_up(up_right), expected)
    assert np.allclose(project_y_down(up_right), [[112.5 + 50.75, 111.5 - 20.3]])


def test_a_pixel_is_the_same_place_with_y_up_and_y_down():
    """Row 0 from the top is row 223 from the bottom; its centre is at 0.5 when y goes down."""
    points = to_camera(torch.rand(50, 3, dtype=torch.float64))
    up, down = project_y_up(points), project_y_down(points)
    assert np.allclose(down[:, 0] - 0.5, up[:, 0])
    assert np.allclose(223 - (down[:, 1] - 0.5), up[:, 1])


def test_near_is_large():
    near, far = to_camera(torch.tensor([[0.1, 0.0, 0.5], [0.1, 0.0, -0.5]]))
    assert near[2] < far[2]
    assert project_y_up(near)[0] > project_y_up(far)[0]


def test_pitch_lowers_the_nose_yaw_turns_it_to_the_pictures_right_roll_raises_the_right_eye():
    """The signs of the three angles, by what happens to a nose (in front) and to an eye at the picture's right."""
    nose, eye = torch.tensor([[0.0, 0.0, 1.0]]), torch.tensor([[1.0, 0.0, 0.0]])
    zero = torch.zeros(3)
    assert pose(nose, torch.tensor([0.3, 0, 0]), zero)[0, 1] < 0
    assert pose(nose, torch.tensor([0, 0.3, 0]), zero)[0, 0] > 0
    assert pose(eye, torch.tensor([0, 0, 0.3]), zero)[0, 1] > 0


def test_rows_turn_by_the_transposed_matrix_about_x_first():
    angles, points = torch.tensor([math.pi / 2, 0.0, math.pi / 2], dtype=torch.float64), torch.eye(3, dtype=torch.float64)
    # About x: y goes to z, z to -y. Then about z: x goes to y, y to -x.
    expected = torch.tensor([[0, 1, 0], [0, 0, 1], [1, 0, 0]], dtype=torch.float64)
    assert torch.allclose(pose(points, angles, torch.zeros(3, dtype=torch.float64)), expected, atol=1e-12)
    moved = pose(points, angles, torch.tensor([1.0, 2, 3], dtype=torch.float64))
    assert torch.allclose(moved, expected + torch.tensor([1.0, 2, 3]), atol=1e-12)
