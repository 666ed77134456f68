"""The family as one closed skin: signs and distances are true, and sheets open and shut with lips and lids."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from fitting.studio.controls import EXPRESSIONS
from fitting.studio.family import still
from fitting.studio.nphm_truth import MM, head_surface, random_controls, signed_distances, vertex_normals

SURFACE = head_surface()
PERSON = SURFACE.family.people(1, seed=3)[0]


def performed(jaw: float = 0.0, **activations: float) -> np.ndarray:
    controls = still()
    controls.jaw[:, 0] = jaw
    for name, value in activations.items():
        controls.expression[:, EXPRESSIONS.index(name)] = value
    return SURFACE.pose(PERSON, controls)[0]


def test_the_surface_is_one_closed_sphere_that_faces_outwards():
    mesh = trimesh.Trimesh(SURFACE.canonical(PERSON[None])[0], SURFACE.faces, process=False)
    assert mesh.is_watertight
    assert mesh.is_winding_consistent
    assert mesh.euler_number == 2
    assert 0.2 < mesh.volume < 0.5  # 3 to 8 litres with the bust


def test_its_skin_is_that_of_the_family():
    truth = SURFACE.family.vertices(PERSON, still())[0].numpy()[SURFACE.sources]
    assert np.allclose(performed()[: len(SURFACE.sources)], 4 * truth, atol=1e-6)


def test_signs_are_those_of_the_winding_number():
    vertices = SURFACE.canonical(PERSON[None])[0]
    rng = np.random.default_rng(0)
    points = vertices[rng.integers(SURFACE.n_vertices, size=300)] + rng.normal(0, 0.02, (300, 3))
    distances = signed_distances(points, vertices, SURFACE.faces)
    winding = np.array([winding_number(point, vertices[SURFACE.faces]) for point in points])
    assert np.allclose(winding, np.rint(winding), atol=1e-6)
    assert ((winding > 0.5) == (distances < 0)).all()
    assert 0.2 < (distances < 0).mean() < 0.8


def winding_number(point: np.ndarray, corners: np.ndarray) -> float:
    """By the sum of solid angles (Van Oosterom and Strackee 1983)."""
    a, b, c = np.moveaxis(corners - point, 1, 0)
    la, lb, lc = (np.linalg.norm(side, axis=1) for side in (a, b, c))
    above = (a * np.cross(b, c)).sum(1)
    below = la * lb * lc + (a * b).sum(1) * lc + (b * c).sum(1) * la + (c * a).sum(1) * lb
    return float(2 * np.arctan2(above, below).sum() / (4 * np.pi))


def test_distances_to_a_ball_are_right():
    ball = trimesh.creation.icosphere(4, 0.3)
    rng = np.random.default_rng(1)
    points = rng.normal(0, 0.3, (500, 3))
    points = points[np.linalg.norm(points, axis=1) > 0.1]
    distances = signed_distances(points, np.asarray(ball.vertices), np.asarray(ball.faces, np.int64))
    assert np.allclose(distances, np.linalg.norm(points, axis=1) - 0.3, atol=6e-4)  # the mesh is no perfect ball


def test_points_above_the_skin_are_as_far_from_it_as_they_were_put():
    vertices = SURFACE.canonical(PERSON[None])[0]
    forehead = SURFACE.region["forehead"]
    normals = vertex_normals(vertices[None], SURFACE.faces)[0]
    for height in (-1.0, 0.5, 2.0):
        points = vertices[forehead] + height / MM * normals[forehead]
        wrong = np.abs(MM * signed_distances(points, vertices, SURFACE.faces) - height)
        assert np.percentile(wrong, 90) < 0.02  # below a brow's crease another place is nearer


def test_the_sheet_between_the_lips_bulges_inwards_by_their_distance():
    sheet, lips = SURFACE.region["mouth"], SURFACE.region["lips"]
    shut, opened = performed(), performed(jaw=0.3)
    assert MM * np.ptp(shut[sheet, 1]) < 6  # a bent line
    assert MM * np.ptp(opened[sheet, 1]) > 15
    assert MM * (opened[lips, 2].max() - opened[sheet, 2].min()) > 20


@pytest.mark.parametrize(("blink", "least", "most"), [(0.0, 6.0, 14.0), (1.0, 0.0, 1.0)])
def test_the_sheets_over_the_eyes_are_pressed_flat_by_the_lids(blink: float, least: float, most: float):
    sheet = performed(blink_left=blink, blink_right=blink)[SURFACE.region["eye"]].reshape(2, 6, -1, 3)
    height = MM * np.linalg.norm(sheet[:, -1] - sheet[:, 0], axis=-1).max()
    assert least <= height <= most


def test_random_controls_are_the_same_again_and_cover_speech():
    first, second = (random_controls(np.random.default_rng(1), 400) for _ in range(2))
    assert np.array_equal(first.expression, second.expression)
    assert (first.expression >= 0).all()
    assert (first.expression <= 1).all()
    assert (first.jaw[:, 0] == 0).mean() > 0.15
    assert first.jaw[:, 0].max() > 0.3
    assert (first.expression[:, EXPRESSIONS.index("blink_left")] == 1).mean() > 0.1
