"""Each activation does what its name says, on all people, and turns into codes and back."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fitting.studio.controls import EXPRESSIONS
from fitting.studio.expressions import N_EXPRESSION, activation_directions, activations_of, expression_code
from fitting.studio.family import HeadFamily, still
from fitting.studio.features import SKIN, eye
from fitting.studio.identity import areas
from fitting.studio.parts import LEFT_BALL, RIGHT_BALL
from tests.fitting.studio.slits import facing

FAMILY = HeadFamily("small")
MESH = FAMILY.mesh
MOVES = dict(zip(EXPRESSIONS, np.moveaxis(activation_directions(MESH), 2, 0), strict=True))


def performed(identity: np.ndarray | None = None, count: int = 1, **activations: float | np.ndarray) -> np.ndarray:
    """(T, V, 3) vertices."""
    controls = still(count)
    for name, value in activations.items():
        controls.expression[:, EXPRESSIONS.index(name)] = value
    return FAMILY.vertices(np.zeros(300) if identity is None else identity, controls, torch.float64).numpy()


def landmark(head: np.ndarray, index: int) -> np.ndarray:
    return head[..., MESH.landmarks[index], :]


def test_codes_turn_back_into_activations():
    activations = np.random.default_rng(0).uniform(0, 1, (4, 5, 26))
    codes = expression_code(activations)
    assert codes.shape == (4, 5, N_EXPRESSION)
    assert np.allclose(activations_of(codes), activations, atol=1e-12)
    assert not expression_code(np.zeros(26)).any()


def test_codes_are_refused_for_another_number_of_activations():
    with pytest.raises(ValueError, match=r"\(3, 25\) instead of \(\.\.\., 26\)"):
        expression_code(np.zeros((3, 25)))


def test_code_directions_make_the_activations_moves():
    activations = np.random.default_rng(1).uniform(0, 1, 26)
    moved = FAMILY.model.expression @ expression_code(activations)
    assert np.allclose(moved, sum(a * MOVES[name] for a, name in zip(activations, EXPRESSIONS, strict=True)), atol=1e-12)


def test_code_directions_are_ordered_by_variance():
    variance = np.einsum("v,vck->k", areas(MESH), FAMILY.model.expression**2)
    assert variance[0] > variance[5] > variance[15] > variance[25]
    assert variance[26:].max() < 1e-2 * variance[0]
    assert (FAMILY.model.expression[..., 26:] != 0).any(axis=(0, 1)).all()


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_moves_are_a_few_millimetres_and_leave_eyeballs_and_skull_alone(name):
    length = np.linalg.norm(MOVES[name], axis=1)
    assert 0.0015 < length.max() < 0.012
    assert not length[(MESH.sites.patch >= LEFT_BALL)].any()
    assert length[MESH.closed[:, 2] < -0.03].max() < 3e-4


@pytest.mark.parametrize("name", [name for name in EXPRESSIONS if not name.endswith(("_left", "_right"))])
def test_moves_without_a_side_are_symmetric(name):
    assert np.allclose(MOVES[name][MESH.mirror] * np.array([-1.0, 1, 1]), MOVES[name], atol=1e-9)


@pytest.mark.parametrize("name", ["mouth", "smile", "brow_outer_up", "blink"])
def test_left_and_right_moves_are_mirror_images(name):
    mirrored = MOVES[f"{name}_left"][MESH.mirror] * np.array([-1.0, 1, 1])
    assert np.allclose(mirrored, MOVES[f"{name}_right"], atol=1e-9)
    if name != "mouth":
        assert np.linalg.norm(MOVES[f"{name}_left"], axis=1)[MESH.closed[:, 0] < -0.02].max() < 1e-3


@pytest.mark.parametrize("person", range(4))
def test_a_blink_closes_the_lids_and_they_pass_outside_the_eyeball(person):
    way = np.linspace(0, 1, 11)
    heads = performed(FAMILY.people(4)[person], 11, blink_left=way, blink_right=way)
    upper, lower = facing(MESH, "eyes")
    gap = np.linalg.norm(heads[:, upper] - heads[:, lower], axis=-1)
    assert gap[-1].max() < 1e-6
    assert (np.diff(gap.max(axis=1)) < 0).all()
    about = (eye(MESH.sites).distance < 0.004) & (MESH.sites.base[:, 1] > 0) & (MESH.sites.base[:, 2] > 0)
    about &= MESH.sites.patch < LEFT_BALL
    for ball, sign in ((LEFT_BALL, 1), (RIGHT_BALL, -1)):
        points = heads[0, MESH.sites.patch == ball]
        solution = np.linalg.lstsq(np.c_[2 * points, np.ones(len(points))], (points**2).sum(axis=1), rcond=None)[0]
        radius = np.linalg.norm(points - solution[:3], axis=1).max()
        distance = np.linalg.norm(heads[:, about & (MESH.sites.base[:, 0] * sign > 0)] - solution[:3], axis=-1)
        assert distance.min() > radius + 1e-4


def test_one_eye_blinks_alone():
    openings = FAMILY.openings(torch.from_numpy(performed(blink_left=1.0)))
    assert openings.left_eye[0] < 1e-6
    assert openings.right_eye[0] > 0.008


def test_eyes_open_wider_and_narrow():
    def opened(**activations: float) -> float:
        return float(FAMILY.openings(torch.from_numpy(performed(**activations))).left_eye[0])

    assert opened(squint=1.0) + 0.001 < opened() < opened(lids_wide=1.0) - 0.001


OPENS = ("lips_part", "lips_funnel", "lips_round", "lower_lip_in", "upper_lip_raise", "lower_lip_down", "nose_wrinkle")


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_lips_open_where_they_should_and_else_stay_closed_without_crossing(name):
    head = performed(**{name: 1.0})[0]
    upper, lower = facing(MESH, "mouth")
    gap = head[upper] - head[lower]
    widest = np.linalg.norm(gap, axis=1).max()
    if name in OPENS:
        assert widest > 0.001
    else:
        assert gap[:, 1].min() > -1e-6
        assert widest < 3e-4


def test_lips_part_by_some_millimetres_and_pressing_hides_their_red():
    rest, part, press = performed()[0], performed(lips_part=1.0)[0], performed(lips_press=1.0)[0]
    opening = landmark(part, 62)[1] - landmark(part, 66)[1]
    assert 0.004 < opening < 0.008

    def red(head: np.ndarray) -> float:
        return float(landmark(head, 51)[1] - landmark(head, 57)[1])

    assert red(press) < 0.85 * red(rest)


def test_rounding_narrows_and_pushes_forward_and_spreading_widens():
    rest, rounded, spread = performed()[0], performed(lips_round=1.0)[0], performed(lips_spread=1.0)[0]

    def width(head: np.ndarray) -> float:
        return float(landmark(head, 54)[0] - landmark(head, 48)[0])

    assert width(rounded) < 0.85 * width(rest)
    assert width(spread) > 1.12 * width(rest)
    assert landmark(rounded, 57)[2] > landmark(rest, 57)[2] + 0.002


@pytest.mark.parametrize(
    ("name", "index", "axis", "least"),
    [
        ("smile_left", 54, 1, 0.003),
        ("frown", 54, 1, -0.003),
        ("brow_inner_up", 22, 1, 0.003),
        ("brow_outer_up_left", 25, 1, 0.003),
        ("brow_down", 22, 1, -0.003),
        ("mouth_left", 57, 0, 0.003),
        ("lower_lip_in", 57, 2, -0.002),
        ("chin_raise", 57, 1, 0.0015),
        ("upper_lip_raise", 51, 1, 0.002),
        ("lower_lip_down", 57, 1, -0.003),
        ("nose_wrinkle", 35, 1, 0.0015),
    ],
)
def test_landmarks_go_where_the_name_says(name, index, axis, least):
    moved = (landmark(performed(**{name: 1.0})[0], index) - landmark(performed()[0], index))[axis]
    assert moved * np.sign(least) > abs(least)


def test_the_skin_of_the_skull_never_moves():
    still_skin = (MESH.sites.patch == SKIN) & (MESH.closed[:, 1] > 0.11)
    assert max(np.abs(move[still_skin]).max() for move in MOVES.values()) < 1e-3
