"""Every way to write a rotation says the same rotation, with derivatives, at all angles."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from fitting.rotations import (
    axis_angle_to_matrix,
    euler_zyx_to_matrix,
    matrix_to_axis_angle,
    matrix_to_euler_zyx,
    matrix_to_quaternion,
    matrix_to_rotation_6d,
    quaternion_to_matrix,
    rotation_6d_to_matrix,
)

ANGLES = [0.0, 1e-12, 1e-8, 1e-5, 1e-3, 0.02, 0.0316, 0.0633, 0.3, 0.4999, 0.5001, 1.0, 2.0, 3.0, math.pi - 1e-3]
ANGLES += [math.pi - 1e-6, math.pi - 1e-9]
PRECISION = {torch.float32: 3e-6, torch.float64: 1e-14}


def axes(n: int, seed: int = 0) -> np.ndarray:
    """Random directions, with the coordinate axes among them."""
    v = np.concatenate([np.eye(3), -np.eye(3), np.random.default_rng(seed).normal(size=(n, 3))])
    return v / np.linalg.norm(v, axis=1, keepdims=True)


def random_rotations(n: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(Rotation.random(n, np.random.default_rng(seed)).as_matrix())


vectors = st.lists(st.floats(-4, 4), min_size=3, max_size=3).map(lambda v: torch.tensor(v, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_axis_angle_agrees_with_scipy_at_every_angle(dtype):
    vectors = axes(20)[:, None] * np.array([*ANGLES, math.pi, 4.0, 7.0])[:, None]
    expected = Rotation.from_rotvec(vectors.reshape(-1, 3)).as_matrix().reshape(*vectors.shape, 3)
    actual = axis_angle_to_matrix(torch.tensor(vectors, dtype=dtype))
    assert actual.dtype == dtype
    assert np.abs(actual.numpy() - expected).max() < PRECISION[dtype]


def test_a_quarter_turn_about_z_takes_x_to_y():
    quarter = math.pi / 2
    for matrix in (
        axis_angle_to_matrix(torch.tensor([0, 0, quarter])),
        euler_zyx_to_matrix(torch.tensor([0, 0, quarter])),
        quaternion_to_matrix(torch.tensor([1.0, 0, 0, 1.0])),
        rotation_6d_to_matrix(torch.tensor([0.0, -1, 0, 1, 0, 0])),
    ):
        assert torch.allclose(matrix @ torch.tensor([1.0, 0, 0]), torch.tensor([0.0, 1, 0]), atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_axis_angle_comes_back_up_to_pi(dtype):
    vectors = torch.tensor(axes(30)[:, None] * np.array(ANGLES)[:, None], dtype=torch.float64)
    matrices = torch.from_numpy(Rotation.from_rotvec(vectors.reshape(-1, 3).numpy()).as_matrix()).reshape(*vectors.shape, 3)
    back = matrix_to_axis_angle(matrices.to(dtype)).double()
    difference = (back - vectors).norm(dim=-1)
    # Within rounding of pi, the other direction of the axis is as good.
    near_pi = vectors.norm(dim=-1) > math.pi - 1e-5
    difference = torch.where(near_pi, torch.minimum(difference, (back + vectors).norm(dim=-1)), difference)
    # acos of the trace would lose half the digits near zero and near pi.
    assert difference.max() < (1e-6 if dtype == torch.float32 else 1e-8 + 0 * difference.max())
    assert difference[:, :14].max() < (1e-6 if dtype == torch.float32 else 1e-14)


def test_half_turns_have_an_axis_with_its_largest_component_positive():
    directions = torch.from_numpy(axes(30))
    half_turns = 2 * directions[:, :, None] * directions[:, None] - torch.eye(3, dtype=torch.float64)
    back = matrix_to_axis_angle(half_turns)
    assert torch.allclose(back.norm(dim=-1), torch.full((36,), math.pi, dtype=torch.float64))
    assert (back.gather(1, back.abs().argmax(dim=1, keepdim=True)) > 0).all()
    assert torch.allclose(axis_angle_to_matrix(back), half_turns, atol=1e-14)


@given(vectors)
def test_euler_angles_are_turns_about_z_y_and_x(angles):
    x, y, z = (axis_angle_to_matrix(torch.eye(3, dtype=torch.float64)[i] * angles[i]) for i in range(3))
    assert torch.allclose(euler_zyx_to_matrix(angles), z @ y @ x, atol=1e-14)


@given(st.tuples(st.floats(-3.14, 3.14), st.floats(-1.57, 1.57), st.floats(-3.14, 3.14)))
def test_euler_angles_come_back(angles):
    angles = torch.tensor(angles, dtype=torch.float64)
    back = matrix_to_euler_zyx(euler_zyx_to_matrix(angles))
    # cos y is at least 8e-4 here; x and z are as well determined as that.
    assert torch.allclose(back, angles, atol=1e-11)


@pytest.mark.parametrize("y", [math.pi / 2, -math.pi / 2, math.pi / 2 - 1e-9, 1e-9 - math.pi / 2])
def test_euler_angles_in_gimbal_lock_still_give_the_matrix(y):
    angles = torch.tensor([[0.3, y, -1.2], [2.0, y, 3.0], [0.0, y, 0.0]], dtype=torch.float64)
    matrix = euler_zyx_to_matrix(angles)
    assert torch.allclose(euler_zyx_to_matrix(matrix_to_euler_zyx(matrix)), matrix, atol=1e-14)


def test_quaternions_agree_with_scipy_and_have_w_first():
    rotations = random_rotations(200)
    quaternions = matrix_to_quaternion(rotations)
    expected = Rotation.from_matrix(rotations.numpy()).as_quat(canonical=True)[:, [3, 0, 1, 2]]
    assert np.abs(quaternions.numpy() - expected).max() < 1e-14
    assert torch.allclose(quaternion_to_matrix(quaternions * -3), rotations, atol=1e-14)
    turns = torch.from_numpy(Rotation.from_rotvec(axes(5)[:, None] * np.array([[math.pi]]) * 1.0).as_matrix().reshape(-1, 3, 3))
    assert torch.allclose(quaternion_to_matrix(matrix_to_quaternion(turns)), turns, atol=1e-14)


def test_six_numbers_are_the_first_two_rows():
    rotations = random_rotations(50)
    six = matrix_to_rotation_6d(rotations)
    assert torch.equal(six, torch.cat([rotations[:, 0], rotations[:, 1]], dim=-1))
    assert torch.allclose(rotation_6d_to_matrix(six), rotations, atol=1e-14)


@settings(deadline=None)
@given(st.lists(st.floats(-2, 2), min_size=6, max_size=6).map(lambda v: torch.tensor(v, dtype=torch.float64)))
def test_any_six_numbers_give_a_rotation(six):
    area = torch.linalg.cross(six[:3], six[3:]).norm()
    if area < 1e-3 * max(1.0, float(six.norm() ** 2)):
        return
    matrix = rotation_6d_to_matrix(six)
    assert torch.allclose(matrix @ matrix.mT, torch.eye(3, dtype=torch.float64), atol=1e-10)
    assert torch.linalg.det(matrix) > 0
    # The first row keeps its direction, the second stays in the plane of both.
    assert torch.allclose(matrix[0] * six[:3].norm(), six[:3])
    assert abs(matrix[2] @ six[3:]) < 1e-9


@given(vectors, vectors)
def test_turns_one_after_the_other_are_one_turn(first, second):
    a, b = axis_angle_to_matrix(first), axis_angle_to_matrix(second)
    assert torch.allclose(axis_angle_to_matrix(matrix_to_axis_angle(a @ b)), a @ b, atol=1e-13)
    assert torch.allclose(a @ axis_angle_to_matrix(-first), torch.eye(3, dtype=torch.float64), atol=1e-14)


@pytest.mark.parametrize("angle", [0.0, 1e-9, 1e-4, 0.0316228, 0.4999999, 0.5000001, 1.0, 3.0, 3.1415])
def test_derivatives_of_axis_angle_at_all_angles(angle):
    vector = torch.tensor(axes(3)[-3:] * angle, requires_grad=True)
    assert torch.autograd.gradcheck(axis_angle_to_matrix, vector)
    assert torch.autograd.gradgradcheck(axis_angle_to_matrix, vector)
    # There and back again is the identity, so is its derivative.
    jacobian = torch.autograd.functional.jacobian(lambda v: matrix_to_axis_angle(axis_angle_to_matrix(v)), vector)
    assert torch.allclose(jacobian.reshape(9, 9), torch.eye(9, dtype=torch.float64), atol=1e-9)


def test_the_derivative_at_no_turn_is_the_cross_product():
    jacobian = torch.autograd.functional.jacobian(axis_angle_to_matrix, torch.zeros(3))
    for k in range(3):
        expected = torch.linalg.cross(torch.eye(3)[:, k].expand(3, 3), torch.eye(3)).T
        assert torch.equal(jacobian[..., k], expected)


def test_derivatives_of_the_others():
    six = torch.tensor(np.random.default_rng(0).normal(size=(4, 6)), requires_grad=True)
    angles = torch.tensor([[0.0, 0.0, 0.0], [0.3, -0.2, 2.0]], dtype=torch.float64, requires_grad=True)
    quaternion = torch.tensor([[1.0, 0, 0, 0], [0.1, -0.5, 2.0, 0.3]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(rotation_6d_to_matrix, six)
    assert torch.autograd.gradcheck(euler_zyx_to_matrix, angles)
    assert torch.autograd.gradcheck(quaternion_to_matrix, quaternion)
    assert torch.autograd.gradcheck(lambda a: matrix_to_euler_zyx(euler_zyx_to_matrix(a)), angles)
    assert torch.autograd.gradcheck(lambda s: matrix_to_quaternion(rotation_6d_to_matrix(s)), six)


@pytest.mark.parametrize("turn", [torch.zeros(3), torch.tensor([math.pi, 0, 0]), torch.tensor([0, math.pi / 2, 0])])
def test_derivatives_are_finite_where_the_result_is_hardest(turn):
    matrix = axis_angle_to_matrix(turn).requires_grad_()
    for back in (matrix_to_axis_angle, matrix_to_quaternion, matrix_to_euler_zyx, matrix_to_rotation_6d):
        (gradient,) = torch.autograd.grad(back(matrix).sum(), matrix)
        assert gradient.isfinite().all()


@pytest.mark.parametrize(
    ("there", "back", "width"),
    [
        (axis_angle_to_matrix, matrix_to_axis_angle, 3),
        (euler_zyx_to_matrix, matrix_to_euler_zyx, 3),
        (rotation_6d_to_matrix, matrix_to_rotation_6d, 6),
        (quaternion_to_matrix, matrix_to_quaternion, 4),
    ],
)
def test_leading_dimensions_are_free(there, back, width):
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(2, 5, width, generator=generator)
    matrices = there(values)
    assert matrices.shape == (2, 5, 3, 3)
    assert back(matrices).shape == values.shape
    assert torch.equal(there(values[1, 3]), matrices[1, 3])
    assert back(there(values[:0])).shape == (0, 5, width)
