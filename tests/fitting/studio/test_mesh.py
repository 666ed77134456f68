"""Meshes of all finenesses are closed, symmetric samplings of one head."""

from __future__ import annotations

import numpy as np
import pytest

from fitting.studio.features import SKIN, mouth
from fitting.studio.mesh import SKIN_BOX, head_mesh, skin_direction, skin_uv
from fitting.studio.parts import LEFT_BALL, LOWER_TEETH, RIGHT_BALL, UPPER_TEETH
from fitting.studio.surface import EYE, EYE_RADIUS
from tests.fitting.studio.slits import facing

SIZES = ("small", "medium", "large")


def volume(vertices: np.ndarray, faces: np.ndarray) -> float:
    first, second, third = (vertices[faces[:, k]] for k in range(3))
    return float((np.cross(first, second) * third).sum() / 6)


@pytest.mark.parametrize("size", SIZES)
def test_each_edge_is_walked_once_in_each_direction(size):
    faces = head_mesh(size).faces
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    assert len(np.unique(edges, axis=0)) == len(edges)
    assert set(map(tuple, edges)) == set(map(tuple, edges[:, ::-1]))


@pytest.mark.parametrize("size", SIZES)
def test_skin_eyeballs_and_teeth_are_five_spheres_that_look_outwards(size):
    mesh = head_mesh(size)
    assert len(mesh.rest) - len(mesh.faces) / 2 == 2 * 5
    patch = mesh.sites.patch[mesh.faces].max(axis=1)
    for part, low, high in (
        (patch < LEFT_BALL, 5e-3, 6.5e-3),
        (patch == LEFT_BALL, 5e-6, 7e-6),
        (patch == RIGHT_BALL, 5e-6, 7e-6),
        (patch == UPPER_TEETH, 1e-6, 6e-6),
        (patch == LOWER_TEETH, 1e-6, 6e-6),
    ):
        assert low < volume(mesh.rest, mesh.faces[part]) < high


def test_the_finenesses_have_the_numbers_of_vertices_that_are_told():
    assert [len(head_mesh(size).rest) for size in SIZES] == [pytest.approx(1300, rel=0.1), 5023, pytest.approx(11300, rel=0.1)]


@pytest.mark.parametrize("size", SIZES)
def test_the_left_half_is_the_mirror_image_of_the_right_one(size):
    mesh = head_mesh(size)
    assert (mesh.mirror[mesh.mirror] == np.arange(len(mesh.mirror))).all()
    for places in (mesh.rest, mesh.closed):
        assert np.allclose(places[mesh.mirror] * np.array([-1.0, 1, 1]), places, atol=1e-12)
    outside = mesh.faces[(mesh.sites.patch[mesh.faces] == SKIN).all(axis=1)]
    assert set(map(tuple, np.sort(mesh.mirror[outside], axis=1))) == set(map(tuple, np.sort(outside, axis=1)))


@pytest.mark.parametrize("size", SIZES)
def test_closed_lips_touch_without_crossing_and_shut_lids_meet(size):
    mesh = head_mesh(size)
    upper, lower = facing(mesh, "mouth")
    gap = mesh.rest[upper] - mesh.rest[lower]
    assert (gap[:, 1] > 0).all()
    assert np.linalg.norm(gap, axis=1).max() < 3e-4
    upper, lower = facing(mesh, "eyes")
    assert np.abs(mesh.closed[upper] - mesh.closed[lower]).max() < 1e-7
    assert 0.008 < (mesh.rest[upper] - mesh.rest[lower])[:, 1].max() < 0.011


def test_all_meshes_have_the_same_named_places():
    meshes = [head_mesh(size) for size in SIZES]
    for name in meshes[0].named:
        places = [mesh.rest[mesh.named[name]] for mesh in meshes]
        assert np.allclose(places[0], places[1], atol=1e-12)
        assert np.allclose(places[0], places[2], atol=1e-12)


def test_landmarks_are_in_ibugs_order():
    points = head_mesh("medium").rest[head_mesh("medium").landmarks]
    assert (np.diff(points[:17, 0]) > 0).all()
    assert points[8, 1] == points[:17, 1].min()
    assert (np.diff(points[17:27, 0]) > 0).all()
    assert (np.diff(points[27:31, 1]) < 0).all()
    assert points[30, 2] == points[:, 2].max()  # the tip of the nose
    assert (np.diff(points[31:36, 0]) > 0).all()
    for start in (36, 42):
        corner, *upper, end = points[start : start + 4]
        assert corner[0] < upper[0][0] < upper[1][0] < end[0]
        assert (points[start + 4 : start + 6, 1] < min(corner[1], end[1])).all()
    assert (np.diff(points[48:55, 0]) > 0).all()
    assert (np.diff(points[54:60, 0]) < 0).all()
    assert (points[61:64, 1] - points[[67, 66, 65], 1] > 0).all()
    mirrored = [16, 26, 45, 44, 43, 42, 47, 46, 54, 64, 35]
    assert np.allclose(points[mirrored] * [-1, 1, 1], points[[0, 17, 36, 37, 38, 39, 40, 41, 48, 60, 31]], atol=1e-12)


def test_lids_lie_outside_the_eyeballs():
    mesh = head_mesh("large")
    for place in (mesh.rest, mesh.closed):
        distance = np.linalg.norm(place[mesh.sites.patch < LEFT_BALL] - EYE, axis=1)
        assert EYE_RADIUS + 5e-4 < distance.min() < EYE_RADIUS + 2e-3


def test_the_mouth_is_as_wide_as_a_mouth():
    mesh = head_mesh("large")
    width = mesh.rest[mesh.named["outer_54"], 0] * 2
    assert width == pytest.approx(0.052, abs=0.004)
    slit = mouth(mesh.sites)
    assert np.abs(slit.along[facing(mesh, "mouth")[0]]).max() < 1


@pytest.mark.parametrize("size", SIZES)
def test_texture_coordinates_lie_within_the_texture_and_faces_are_small_there(size):
    mesh = head_mesh(size)
    assert mesh.uv_faces.shape == mesh.faces.shape
    assert 0 <= mesh.uv.min() < mesh.uv.max() <= 1
    corners = mesh.uv[mesh.uv_faces]
    extent = np.ptp(corners, axis=1)
    skin = (mesh.sites.patch[mesh.faces] == SKIN).all(axis=1)
    at_pole = (np.abs(mesh.directions[np.minimum(mesh.faces, len(mesh.directions) - 1)][..., 1]) > 0.9).any(axis=1)
    assert extent[skin & ~at_pole].max() < (0.25 if size == "small" else 0.12)


def test_the_place_in_the_texture_is_told_both_ways():
    random = np.random.default_rng(0).normal(size=(100, 3))
    random /= np.linalg.norm(random, axis=1, keepdims=True)
    assert np.allclose(skin_direction(skin_uv(random)), random, atol=1e-9)
    assert SKIN_BOX.u1 - SKIN_BOX.u0 == 1
