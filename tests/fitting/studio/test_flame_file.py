"""The written FLAME files load with our loaders and are the family."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fitting.flame import ContourLandmarks, Flame, Landmarks, load_regions
from fitting.studio.expressions import expression_code
from fitting.studio.family import HeadFamily, still
from fitting.studio.flame_file import write_flame
from pipelines.model_files import LOADERS, recognise
from tests.fitting.studio.test_family import performance


@pytest.fixture(scope="module", params=["small", "medium"])
def written(request, tmp_path_factory):
    return request.param, write_flame(tmp_path_factory.mktemp("flame"), request.param)


def test_every_file_is_recognised_and_loads(written):
    size, paths = written
    for name, path in paths.items():
        if not (size == "small" and "eyelid" in name):  # known by FLAME's number of vertices, which medium has
            assert recognise(path, name).name == name
        assert LOADERS[name](path)


def test_the_model_is_the_family_at_the_same_codes(written):
    size, paths = written
    family, flame = HeadFamily(size), Flame.load(paths["flame2020"], dtype=torch.float64)
    identity, controls = family.people(1, seed=8)[0], performance(6, seed=1)
    mesh = flame(
        torch.from_numpy(identity),
        torch.from_numpy(expression_code(controls.expression)),
        rotation=torch.from_numpy(controls.head),
        neck=torch.from_numpy(controls.neck),
        jaw=torch.from_numpy(controls.jaw),
        eyes=torch.from_numpy(np.concatenate([controls.gaze, controls.gaze], axis=1)),
        translation=torch.from_numpy(controls.translation),
    )
    truth = family.vertices(identity, controls, torch.float64)
    assert (mesh.vertices - truth).norm(dim=-1).max() < 1e-6  # a thousandth of a millimetre
    for name in ("flame-landmarks", "flame-landmarks-static"):
        landmarks = Landmarks.load(paths[name], flame)
        expected = family.landmarks(truth)[:, landmarks.indices]
        assert (landmarks(mesh.vertices) - expected).norm(dim=-1).max() < 1e-6


def test_eyelid_files_close_the_eyes(written):
    size, paths = written
    family = HeadFamily(size)
    flame = Flame.load(paths["flame2020"], eyelids=(paths["flame-eyelid-left"], paths["flame-eyelid-right"]))
    openings = family.openings(flame(eyelids=torch.tensor([1.0, 0.0])).vertices)
    assert openings.left_eye < 1e-5
    assert openings.right_eye > 0.008


def test_regions_are_the_familys(written):
    size, paths = written
    for name, vertices in load_regions(paths["flame-masks"]).items():
        assert np.array_equal(vertices.numpy(), HeadFamily(size).regions[name])


def test_the_contour_stays_put_on_the_near_side_and_slides_inwards_on_the_far_one(written):
    size, paths = written
    family, flame = HeadFamily(size), Flame.load(paths["flame2020"], dtype=torch.float64)
    contour = ContourLandmarks.load(paths["flame-landmarks"], flame)
    turned = flame(rotation=torch.tensor([[0.0, 0.5, 0.0], [0.0, 0.0, 0.0]], dtype=torch.float64))
    found = contour(turned)[:, :17]
    fixed = family.landmarks(turned.vertices)[:, :17]
    assert torch.allclose(found[1], fixed[1], atol=1e-9)
    assert torch.allclose(found[0, :8], fixed[0, :8], atol=1e-9)
    # Seen from +z, the far cheek ends further out than its landmark of the head at rest.
    assert (found[0, 10:16, 0] >= fixed[0, 10:16, 0] - 1e-12).all()
    assert (found[0, 10:16, 0] > fixed[0, 10:16, 0] + 0.002).sum() >= 3


def test_a_still_head_needs_no_codes(written):
    size, paths = written
    truth = HeadFamily(size).vertices(np.zeros(300), still(), torch.float64)
    assert (Flame.load(paths["flame2020"], dtype=torch.float64)().vertices - truth).abs().max() < 1e-9
