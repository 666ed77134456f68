"""The shipped NPHM-like networks in official files: they load, and stay near the family for people they have not seen."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fitting.nphm import (
    Direction,
    Nphm,
    load_anchors,
    load_code_statistic,
    load_codes,
    load_expression,
    load_identity,
)
from fitting.studio.family import still
from fitting.studio.nphm_errors import (
    HELD_OUT,
    blinks,
    canonical_errors,
    displacement_errors,
    openings,
    subject_of,
    surface_errors,
)
from fitting.studio.nphm_file import WEIGHTS, nphm_expression, nphm_identity, shipped, write_nphm
from fitting.studio.nphm_truth import head_surface, random_controls
from pipelines.model_files import LOADERS, recognise

PEOPLE = head_surface().family.people(30, HELD_OUT)
CONTROLS = random_controls(np.random.default_rng(HELD_OUT), 30)


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    return write_nphm(tmp_path_factory.mktemp("nphm"))


def test_the_weights_are_small():
    assert sum(path.stat().st_size for path in WEIGHTS.parent.iterdir()) < 3e6


def test_files_are_recognised_and_load(paths):
    for name, path in paths.items():
        assert recognise(path, name).name == name
        assert LOADERS[name](path)


def test_the_loaded_networks_are_the_shipped_ones(paths):
    identity = load_identity(paths["nphm-identity"], paths["nphm-anchors"])
    forward, backward = load_expression(paths["nphm-expression"]), load_expression(paths["nphm-backward"])
    for loaded, known in zip((identity, forward, backward), shipped(), strict=True):
        state = known.state_dict()
        assert all(torch.equal(value, state[key]) for key, value in loaded.state_dict().items())
    assert identity.code_size == 1344
    assert forward.direction is Direction.forward
    assert backward.direction is Direction.backward
    assert forward.n_expression == 200
    assert forward.conditioning == "compress"


def test_tables_hold_codes_that_the_embedding_leaves_as_they_are(paths):
    people = load_codes(paths["nphm-identity"]).training
    expressions = load_codes(paths["nphm-expression"]).training
    assert people.shape == (300, 1344)
    assert expressions.shape == (1000, 200)
    for table in (people, expressions):
        assert table.norm(dim=1).max() < 1
    assert torch.allclose(load_code_statistic(paths["nphm-code-mean"]), people.mean(dim=0), atol=1e-6)
    assert torch.allclose(load_code_statistic(paths["nphm-code-std"]), people.std(dim=0, correction=0), atol=1e-6)


def test_the_same_bytes_are_written_again(paths, tmp_path):
    for name, path in write_nphm(tmp_path).items():
        assert path.read_bytes() == paths[name].read_bytes()


def test_anchors_of_the_network_are_on_the_skin(paths):
    identity = load_identity(paths["nphm-identity"], paths["nphm-anchors"])
    found = identity.condition(torch.from_numpy(nphm_identity(PEOPLE)).float()).anchors.numpy()
    truth = head_surface().canonical(PEOPLE)[:, nphm_anchor_vertices()]
    assert 250 * np.linalg.norm(found - truth, axis=-1).mean() < 0.6
    assert np.allclose(load_anchors(paths["nphm-anchors"]), identity.mean_anchors)


def nphm_anchor_vertices() -> np.ndarray:
    from fitting.studio.nphm_codes import anchors

    return anchors().vertices


def test_distances_at_the_skin_of_new_people_are_small():
    found = canonical_errors(shipped().identity, PEOPLE[:10])
    assert found["face"].mean < 0.4
    assert found["face"].percentile_95 < 1.0
    assert found["head"].mean < 0.5


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_points_go_where_new_people_with_new_expressions_have_them(direction: str):
    found = displacement_errors(shipped().identity, getattr(shipped(), direction), PEOPLE, CONTROLS)
    assert found["unmoved"].mean > 1.5
    assert found["face"].mean < 0.3
    assert found["face"].percentile_95 < 0.9


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_meshes_of_new_people_with_new_expressions_are_near_the_true_skin(direction: str):
    moments = type(CONTROLS)(*(part[:2] for part in CONTROLS))
    found = surface_errors(shipped().identity, getattr(shipped(), direction), PEOPLE[:2], moments, resolution=80)
    assert found["face"].mean < 0.5
    assert found["face"].percentile_95 < 1.5


def test_mouths_open_as_wide_and_eyes_shut_as_fully_as_in_truth():
    found = openings(shipped().identity, shipped().forward, PEOPLE, CONTROLS)
    assert np.ptp(found.true_mouth) > 15
    assert np.polyfit(found.true_mouth, found.mouth, 1)[0] == pytest.approx(1, abs=0.06)
    shut = openings(shipped().identity, shipped().forward, PEOPLE, blinks(len(PEOPLE)))
    assert shut.true_eyes.max() < 0.1
    assert shut.eyes.mean() < 1.0


def test_the_forward_head_finds_the_canonical_points_of_a_posed_skin():
    head = Nphm(shipped().identity, shipped().forward)
    controls = still()
    controls.jaw[:, 0] = 0.15
    posed = head_surface().pose(PEOPLE[0], controls)[:, head_surface().region["face"][::10]]
    code = torch.from_numpy(nphm_expression(controls.expression, controls.jaw)).float()
    found = head(torch.from_numpy(posed).float(), code, subject_of(head, PEOPLE[0]))
    assert found.converged.float().mean() > 0.97
    assert 250 * found.sdf[found.converged].abs().mean() < 0.6
