"""People differ as people do, and every one of them has sound eyes and lips."""

from __future__ import annotations

import numpy as np

from fitting.studio.family import HeadFamily
from fitting.studio.features import SKIN
from fitting.studio.identity import N_IDENTITY, PEOPLE, areas, principal
from fitting.studio.parts import LEFT_BALL, RIGHT_BALL
from tests.fitting.studio.slits import facing

FAMILY = HeadFamily("small")
DIRECTIONS = FAMILY.model.identity
AREAS = areas(FAMILY.mesh)


def heads(count: int, seed: int = 0) -> np.ndarray:
    return FAMILY.mesh.rest + np.einsum("vck,nk->nvc", DIRECTIONS, FAMILY.people(count, seed))


def aligned_rms(first: np.ndarray, second: np.ndarray) -> float:
    """Root of the mean square distance over the visible skin after the best rigid motion (Kabsch)."""
    first, second = (head - AREAS @ head for head in (first, second))
    u, _, v = np.linalg.svd(first.T @ (AREAS[:, None] * second))
    turned = first @ (u @ np.diag([1, 1, np.linalg.det(u @ v)]) @ v)
    return float(np.sqrt(AREAS @ ((turned - second) ** 2).sum(axis=1)))


def sphere(points: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Centre, radius and largest deviation of the sphere through points."""
    solution = np.linalg.lstsq(np.c_[2 * points, np.ones(len(points))], (points**2).sum(axis=1), rcond=None)[0]
    distance = np.linalg.norm(points - solution[:3], axis=1)
    return solution[:3], float(distance.mean()), float(np.ptp(distance))


def test_components_are_ordered_by_variance_and_uncorrelated():
    weighted = DIRECTIONS * np.sqrt(AREAS)[:, None, None]
    flat = weighted.reshape(-1, N_IDENTITY)
    products = flat.T @ flat
    variances = np.diag(products)
    assert (np.diff(variances) <= 1e-15).all()
    assert np.abs(products - np.diag(variances)).max() < 1e-6 * variances[0]
    assert variances[:PEOPLE].sum() > 0.97 * variances.sum()


def test_two_people_are_some_millimetres_apart():
    people = heads(12)
    distances = [aligned_rms(people[i], people[j]) for i in range(12) for j in range(i)]
    assert 0.0035 < np.mean(distances) < 0.0065
    assert min(distances) > 0.002


def test_no_component_moves_or_turns_the_head():
    places = FAMILY.mesh.closed
    shift = np.einsum("v,vck->ck", AREAS, DIRECTIONS)
    turn = np.stack([np.einsum("v,vc,vck->k", AREAS, np.cross(axis, places), DIRECTIONS) for axis in np.eye(3)])
    deviation = np.sqrt(np.einsum("v,vck->k", AREAS, DIRECTIONS**2))
    assert (np.abs(shift) < 1e-6 * deviation[0]).all()
    assert (np.abs(turn) < 1e-7 * deviation[0]).all()


def test_eyeballs_stay_spheres_and_keep_their_size_about():
    for head in heads(6):
        for ball in (LEFT_BALL, RIGHT_BALL):
            _, radius, deviation = sphere(head[FAMILY.mesh.sites.patch == ball])
            assert deviation < 1e-6
            assert 0.0108 < radius < 0.0130


def test_lips_stay_closed_and_shut_lids_shut_whoever_wears_them():
    closed = FAMILY.mesh.closed + np.einsum("vck,nk->nvc", DIRECTIONS, FAMILY.people(6))
    for where, least, most in (("mouth", 5e-6, 3e-4), ("eyes", -1e-9, 1e-7)):
        upper, lower = facing(FAMILY.mesh, where)
        gap = closed[:, upper] - closed[:, lower]
        assert gap[..., 1].min() > least or where == "eyes"
        assert np.linalg.norm(gap, axis=-1).max() < most


def test_faces_are_a_little_asymmetric():
    for head in heads(4):
        mirrored = head[FAMILY.mesh.mirror] * np.array([-1.0, 1, 1])
        skin = FAMILY.mesh.sites.patch == SKIN
        difference = np.sqrt(((head - mirrored)[skin] ** 2).sum(axis=1).mean())
        assert 1e-4 < difference < 3e-3


def test_people_are_the_same_however_many_are_asked_for():
    assert np.array_equal(FAMILY.people(3, seed=4), FAMILY.people(5, seed=4)[:3])
    assert not np.array_equal(FAMILY.people(3, seed=4), FAMILY.people(3, seed=5))
    assert not FAMILY.people(2)[:, PEOPLE:].any()


def test_principal_components_diagonalise_what_they_are_made_of():
    columns = np.random.default_rng(0).normal(size=(50, 8)) * np.arange(1, 9)
    combined = columns @ principal(columns, 5)
    products = combined.T @ combined
    assert np.allclose(products, np.diag(np.diag(products)), atol=1e-9)
    assert (np.diff(np.diag(products)) < 0).all()
