"""The family as a function: performances in, vertices and what can be measured on them out."""

from __future__ import annotations

import numpy as np
import torch

from fitting.flame.files import REGIONS
from fitting.studio.controls import EXPRESSIONS, Controls
from fitting.studio.family import HeadFamily, still
from fitting.studio.parts import LEFT_BALL, RIGHT_BALL

FAMILY = HeadFamily("small")
PERSON = FAMILY.people(1, seed=2)[0]


def performance(count: int, seed: int = 0) -> Controls:
    rng = np.random.default_rng(seed)
    turns = [0.1 * rng.standard_normal((count, 3)) for _ in range(5)]
    return Controls(rng.uniform(0, 1, (count, len(EXPRESSIONS))), *turns)


def test_a_batch_is_its_moments_one_by_one():
    controls = performance(5)
    together = FAMILY.vertices(PERSON, controls, torch.float64)
    assert together.shape == (5, len(FAMILY.mesh.rest), 3)
    for moment in range(5):
        alone = FAMILY.vertices(PERSON, Controls(*(part[moment : moment + 1] for part in controls)), torch.float64)
        assert torch.allclose(alone[0], together[moment], atol=1e-12)


def test_several_people_make_one_move_each():
    people = FAMILY.people(3)
    together = FAMILY.vertices(people, performance(3), torch.float64)
    alone = FAMILY.vertices(people[1], performance(3), torch.float64)
    assert torch.allclose(together[1], alone[1], atol=1e-12)


def test_float32_is_float64_to_a_micrometre():
    single, double = (FAMILY.vertices(PERSON, performance(4), dtype) for dtype in (torch.float32, torch.float64))
    assert single.dtype == torch.float32
    assert (single - double).abs().max() < 1e-6


def test_all_meshes_agree_on_the_landmarks_of_any_performance():
    found = [
        family.landmarks(family.vertices(PERSON, performance(4), torch.float64)) for family in (FAMILY, HeadFamily("medium"))
    ]
    assert found[0].shape == (4, 68, 3)
    assert torch.allclose(*found, atol=1e-12)


def test_at_rest_nobody_has_moved():
    head = FAMILY.vertices(np.zeros(300), still(), torch.float64)[0].numpy()
    assert np.allclose(head, FAMILY.mesh.rest, atol=1e-12)


def test_a_gaze_turns_the_eyeballs_alone():
    controls = still(2)
    controls.gaze[1, 1] = 0.3
    heads = FAMILY.vertices(PERSON, controls, torch.float64).numpy()
    moved = np.linalg.norm(heads[1] - heads[0], axis=1) > 1e-9
    balls = np.isin(FAMILY.mesh.sites.patch, (LEFT_BALL, RIGHT_BALL))
    assert not moved[~balls].any()
    assert moved[balls].mean() > 0.9
    pupil = np.nonzero(FAMILY.mesh.sites.patch == LEFT_BALL)[0][0]
    assert heads[1, pupil, 0] > heads[0, pupil, 0] + 0.002  # to the person's left


def test_a_head_turned_to_its_left_shows_its_nose_there():
    controls = still(1)
    controls.head[0, 1] = 0.4
    nose = FAMILY.landmarks(FAMILY.vertices(PERSON, controls))[0, 30]
    assert nose[0] > 0.02


def test_regions_are_flames_and_lie_where_they_should():
    regions, rest = FAMILY.regions, FAMILY.mesh.rest
    assert set(regions) == set(REGIONS)
    assert all(len(vertices) and (np.diff(vertices) > 0).all() for vertices in regions.values())
    middle = {name: rest[vertices].mean(axis=0) for name, vertices in regions.items()}
    assert middle["left_ear"][0] > 0.06 > -0.06 > middle["right_ear"][0]
    assert middle["left_eyeball"][0] > 0 > middle["right_eyeball"][0]
    assert middle["left_eye_region"][0] > 0 > middle["right_eye_region"][0]
    assert middle["forehead"][1] > middle["eye_region"][1] > middle["nose"][1] > middle["lips"][1] > middle["neck"][1]
    assert middle["scalp"][1] > 0.05
    assert middle["boundary"][1] < -0.19
    assert not set(regions["face"]) & set(regions["scalp"])
    assert set(FAMILY.mesh.landmarks[17:]) <= set(regions["face"]) | set(regions["lips"])
