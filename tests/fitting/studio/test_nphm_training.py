"""Training of the NPHM-like networks: its data are true, a few steps learn, and both sizes write files that load."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from fitting.nphm import load_expression, load_identity
from fitting.studio.nphm_training import PLANS, canonical_points, moved_points, train, train_identity
from fitting.studio.nphm_truth import MM, head_surface, random_controls, signed_distances

SURFACE = head_surface()
PEOPLE = SURFACE.family.people(3, seed=4)


def test_distances_are_those_to_the_canonical_heads_and_mostly_small():
    data = canonical_points(PEOPLE, 400, seed=1)
    for person, points, distances in zip(SURFACE.canonical(PEOPLE), data.points, data.distances, strict=True):
        assert np.allclose(signed_distances(points.double().numpy(), person, SURFACE.faces), distances, atol=1e-6)
    assert 0.3 < float((data.distances < 0).float().mean()) < 0.7
    assert MM * data.distances.abs().median() < 3
    assert MM * data.distances.abs().max() > 20


def test_a_person_s_points_do_not_depend_on_who_comes_after():
    assert torch.equal(canonical_points(PEOPLE, 50, seed=1).points[:1], canonical_points(PEOPLE[:1], 50, seed=1).points)


def test_pairs_keep_their_height_above_the_skin():
    controls = random_controls(np.random.default_rng(2), 3)
    data = moved_points(PEOPLE, controls, 500, seed=1)
    before, after = SURFACE.canonical(PEOPLE), SURFACE.posed(PEOPLE, controls.expression, controls.jaw)
    for k in range(3):
        heights = [
            MM * signed_distances(points[k].double().numpy(), skin[k], SURFACE.faces)
            for points, skin in ((data.canonical, before), (data.posed, after))
        ]
        counts = (data.weight[k] > 0.5).numpy()
        assert counts.mean() > 0.4
        assert np.percentile(np.abs(heights[0] - heights[1])[counts], 90) < 0.5
    assert MM * (data.posed - data.canonical).norm(dim=-1).max() > 5


@pytest.mark.parametrize("size", ["small", pytest.param("official", marks=pytest.mark.slow)])
def test_a_few_steps_write_files_that_load_and_a_record(size: str, tmp_path):
    plan = PLANS[size]._replace(
        people=4,
        points=300,
        performances=4,
        pairs=300,
        steps=(3, 2, 2),
        heads_at_once=(2, 100),
        moves_at_once=(2, 100),
    )
    train(plan, f"nphm_{size}", tmp_path, held_out=1, resolution=16)
    identity = load_identity(tmp_path / "checkpoint_epoch_15000.tar", tmp_path / "anchors_39.npy")
    forward = load_expression(tmp_path / "checkpoint_epoch_2500.tar")
    shapes = {key: tuple(value.shape) for key, value in {**identity.state_dict(), **forward.state_dict()}.items()}
    if size == "official":
        assert shapes["ensembled_deep_sdf.lin1.weight"] == (24, 101, 200)
        assert shapes["defDeepSDF.lin2.weight"] == (277, 512)
        assert shapes["defDeepSDF.lin3.weight"] == (512, 512)
        assert shapes["compressor.0.weight"] == (32, 1461)
    record = json.loads((tmp_path / f"nphm_{size}.json").read_text())
    assert record["plan"]["steps"] == [3, 2, 2]
    assert record["seed"] == 0
    assert record["errors_mm"]["forward displacement"]["face"][0] > 0


def test_steps_lower_the_error():
    plan = PLANS["small"]._replace(steps=(25, 0, 0), heads_at_once=(3, 200))
    errors: list[float] = []
    data = canonical_points(PEOPLE, 400, seed=1)
    train_identity(plan, data, 0, lambda step, error: errors.append(error), torch.device("cpu"))
    assert np.mean(errors[-5:]) < 0.5 * np.mean(errors[:5])
