"""The head turns about FLAME's joints, and the jaw opens the mouth."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fitting.studio.controls import JAW_OPEN
from fitting.studio.family import HeadFamily, still
from fitting.studio.features import MOUTH, SKIN
from fitting.studio.parts import LEFT_BALL, LOWER_TEETH, RIGHT_BALL, UPPER_TEETH
from fitting.studio.skeleton import JAW, LEFT, NECK, RIGHT, ROOT
from tests.fitting.studio.slits import facing

FAMILY = HeadFamily("small")
MESH, MODEL = FAMILY.mesh, FAMILY.model


def test_weights_and_joints_sum_to_one():
    assert np.allclose(MODEL.weights.sum(axis=1), 1)
    assert (MODEL.weights >= 0).all()
    assert np.allclose(MODEL.regressor.sum(axis=1), 1)
    assert (MODEL.regressor != 0).sum(axis=1).max() < len(MESH.rest) / 4


def test_joints_lie_where_flames_do():
    joints = MODEL.regressor @ MESH.rest
    expected = [(0, -0.13, -0.036), (0, -0.075, -0.028), (0, -0.012, -0.004), (0.0315, 0.0235, 0.031), (-0.0315, 0.0235, 0.031)]
    assert np.allclose(joints, expected, atol=1e-9)


@pytest.mark.parametrize("size", ["medium", "large"])
def test_joints_of_a_person_are_the_same_on_all_meshes(size):
    identity = FAMILY.people(1, seed=3)[0]
    joints = [
        family.model.regressor @ (family.mesh.rest + family.model.identity @ identity) for family in (FAMILY, HeadFamily(size))
    ]
    assert np.allclose(*joints, atol=1e-12)


def test_what_hangs_on_which_joint():
    patch = MESH.sites.patch
    for joint, part in ((LEFT, LEFT_BALL), (RIGHT, RIGHT_BALL), (NECK, UPPER_TEETH), (JAW, LOWER_TEETH)):
        assert (MODEL.weights[patch == part, joint] == 1).all()
    upper, lower = facing(MESH, "mouth")
    middle = np.abs(MESH.sites.base[upper, 0]) < 0.012
    assert MODEL.weights[upper[middle], JAW].max() < 0.01
    assert MODEL.weights[lower[middle], JAW].min() > 0.85
    chin = MESH.named["contour_8"]
    assert MODEL.weights[chin, JAW] > 0.9
    assert MODEL.weights[MESH.rest[:, 1] < -0.18, ROOT].min() == 1
    assert MODEL.weights[(MESH.rest[:, 1] > 0.02) & (patch == SKIN), NECK].min() > 0.999
    assert not MODEL.weights[FAMILY.regions["face"], ROOT].any()


def test_an_open_jaw_opens_the_mouth_wide_and_evenly():
    controls = still(10)
    controls.jaw[:, 0] = np.linspace(0, JAW_OPEN, 10)
    heads = FAMILY.vertices(np.zeros(300), controls, torch.float64)
    opening = FAMILY.openings(heads).mouth
    assert (np.diff(opening) > 0.002).all()
    assert 0.028 < opening[-1] < 0.040
    moved = np.linalg.norm((heads[-1] - heads[0]).numpy(), axis=1)
    assert moved[(MESH.closed[:, 1] > 0.02) | (MESH.closed[:, 2] < -0.06)].max() < 1e-3
    upper, _ = facing(MESH, "mouth")
    assert moved[upper].max() < 0.012  # the corners follow a little


def test_the_back_of_the_mouth_follows_half_way():
    deep = (MESH.sites.patch == MOUTH) & (MESH.sites.inward == 1)
    assert 0.05 < MODEL.weights[deep, JAW].min() <= MODEL.weights[deep, JAW].max() < 0.6


def test_only_an_opening_jaw_has_a_corrective():
    assert (MODEL.pose != 0).any(axis=(0, 1)).nonzero()[0].tolist() == [16]
    controls = still(2)
    controls.jaw[1, 0] = 0.3
    corner = FAMILY.mesh.named["outer_54"]
    x = FAMILY.vertices(np.zeros(300), controls, torch.float64)[:, corner, 0]
    assert 3e-4 < float(x[0] - x[1]) < 3e-3  # drawn in
