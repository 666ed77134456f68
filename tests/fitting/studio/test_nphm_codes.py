"""Codes of the NPHM-like networks: linear, alive in every number, never longer than 1, and fair to both sides of the face."""

from __future__ import annotations

import numpy as np
import pytest

from fitting.studio.nphm_codes import GLOBAL, LOCAL, PAIRS, anchors, nphm_expression, nphm_identity, spread
from fitting.studio.nphm_truth import head_surface, random_controls

PEOPLE = head_surface().family.people(200, seed=8)


def test_identity_codes_are_linear_and_zero_for_the_mean_head():
    first, second = PEOPLE[:2]
    assert not nphm_identity(np.zeros(300)).any()
    assert np.allclose(nphm_identity(2 * first - second), 2 * nphm_identity(first) - nphm_identity(second))
    assert np.allclose(nphm_identity(PEOPLE)[0], nphm_identity(first))


def test_no_number_of_an_identity_code_is_dead_and_no_code_is_longer_than_1():
    codes = nphm_identity(PEOPLE)
    assert codes.shape == (200, 1344)
    assert (codes.std(axis=0) > 1e-4).all()
    assert np.linalg.norm(codes, axis=1).max() < 1


def test_no_number_of_an_expression_code_is_dead_and_no_code_is_longer_than_1():
    controls = random_controls(np.random.default_rng(0), 500)
    codes = nphm_expression(controls.expression, controls.jaw)
    assert codes.shape == (500, 200)
    assert (codes.std(axis=0) > 1e-3).all()
    assert np.linalg.norm(codes, axis=1).max() < 1
    assert np.linalg.norm(nphm_expression(np.ones((1, 26)), np.array([[0.45, 0, 0]]))) < 1


def test_expression_codes_tell_all_controls_apart():
    controls = random_controls(np.random.default_rng(0), 50)
    codes = nphm_expression(controls.expression, controls.jaw)
    back = codes @ np.linalg.pinv(nphm_expression(np.eye(29)[:, :26], np.eye(29)[:, 26:]))
    assert np.allclose(back, np.concatenate([controls.expression, controls.jaw], axis=1))
    assert np.allclose(spread().T @ spread(), np.eye(29))


def test_anchors_come_in_pairs_left_and_right_then_in_the_middle():
    mean = anchors().mean
    left, right, middle = mean[0 : 2 * PAIRS : 2], mean[1 : 2 * PAIRS : 2], mean[2 * PAIRS :]
    assert mean.shape == (39, 3)
    assert (left[:, 0] > 0.04).all()
    assert np.allclose(right, left * [-1, 1, 1], atol=1e-5)
    assert np.allclose(middle[:, 0], 0, atol=1e-5)


def test_anchors_are_on_the_canonical_skin_of_everyone():
    moved = anchors().mean + np.einsum("ng,gac->nac", PEOPLE[:20, :GLOBAL], anchors().directions)
    truth = head_surface().canonical(PEOPLE[:20])[:, anchors().vertices]
    distance = 250 * np.linalg.norm(moved - truth, axis=-1)
    assert distance.mean() < 0.6  # mm: what the last 16 of 80 numbers do
    assert 250 * np.linalg.norm(truth - truth.mean(axis=0), axis=-1).mean() > 2


def test_both_anchors_of_a_pair_have_equal_codes_where_a_head_is_its_own_mirror_image():
    surface = head_surface()
    directions = surface.family.model.identity
    mirrored = directions[surface.family.mesh.mirror] * np.array([-1.0, 1, 1])[:, None]
    lengths = np.linalg.norm(directions - mirrored, axis=(0, 1)) / np.linalg.norm(directions, axis=(0, 1))
    even = np.nonzero(lengths[:40] < 1e-6)[0]
    assert len(even) > 5
    local = nphm_identity(np.eye(300)[even])[:, GLOBAL:].reshape(len(even), -1, LOCAL)
    assert np.allclose(local[:, 0 : 2 * PAIRS : 2], local[:, 1 : 2 * PAIRS : 2], atol=1e-6)
    assert np.abs(local).max() > 0.01


def test_codes_of_another_size_are_refused():
    with pytest.raises(ValueError, match="300 numbers"):
        nphm_identity(np.zeros((2, 299)))
    with pytest.raises(ValueError, match=r"\(T, 26\)"):
        nphm_expression(np.zeros((2, 26)), np.zeros((3, 3)))
