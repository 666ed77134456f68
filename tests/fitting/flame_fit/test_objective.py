"""The energy is the sum that the equations say, and points that are not to be believed do not count."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from fitting.flame_fit.objective import Objective
from fitting.flame_fit.parameters import Parameters, zeros
from fitting.flame_fit.settings import LearningRates, Settings
from fitting.raster import vertex_normals
from tests.fitting.flame_fit.sequences import Model

FRAMES = 3


def a_pose(head: Model, seed: int = 0) -> Parameters:
    rng = np.random.default_rng(seed)
    by = {"identity": 0.3, "expression": 0.3, "rotation": 0.02, "translation": 0.002, "jaw": 0.05}
    drawn = {
        name: torch.as_tensor(by.get(name, 0.0) * rng.standard_normal(tuple(value.shape)))
        for name, value in zeros(head.flame, FRAMES)._asdict().items()
    }
    return Parameters(**drawn | {"scale": torch.tensor(1.01, dtype=torch.float64)})


def an_objective(head: Model, settings: Settings, kept: Tensor | None = None) -> tuple[Objective, Tensor]:
    """One whose clouds are the mean head's face with some noise, and the observed landmarks."""
    rng = np.random.default_rng(1)
    face = head.regions["face"]
    mean = head.flame()
    points = [mean.vertices[face].double() + torch.from_numpy(rng.normal(0, 0.002, (len(face), 3))) for _ in range(FRAMES)]
    normals = [vertex_normals(mean.vertices, head.flame.faces)[face].double()] * FRAMES
    marks = head.embedding(mean.vertices).double() + torch.from_numpy(rng.normal(0, 0.003, (FRAMES, 68, 3)))
    kept = torch.ones(FRAMES, 68, dtype=torch.bool) if kept is None else kept
    return Objective(head.flame, head.embedding, face, points, normals, marks, kept, settings), marks


def slow_huber(distance: float, delta: float) -> float:
    return 1000 * (distance**2 / (2 * delta) if distance < delta else distance - delta / 2)


@pytest.mark.parametrize("norm", ["squared", "plain"])
def test_the_energy_is_the_sum_of_the_paper(small: Model, norm: str) -> None:
    settings = Settings(norm=norm, smooth_rigid=0.7, regularise_rigid=0.3, smooth_jaw=0.2)  # type: ignore[arg-type]
    kept = torch.ones(FRAMES, 68, dtype=torch.bool)
    kept[1, 40] = False
    objective, marks = an_objective(small, settings, kept)
    pose = a_pose(small)
    points = objective.face(pose)
    found = objective.search(points, 0.01)
    assert 0 < found.inlier.float().mean() < 1
    point = plane = landmark = 0.0
    for t in range(FRAMES):
        for v in range(len(small.regions["face"])):
            offset = (points.vertices[t, v] - found.points[t, v]).double()
            along = abs(float(offset @ found.normals[t, v].double()))
            near = bool(found.inlier[t, v])
            point += slow_huber(float(offset.norm()) if near else settings.huber, settings.huber)
            plane += slow_huber(along if near else settings.huber, settings.huber)
        for k in range(68):
            weight = 0.3 if k < 17 else 1.0 if k < 36 else 1.5 if k < 48 else 2.0
            off = float((points.landmarks[t, k].double() - marks[t, k]).norm())
            landmark += weight * slow_huber(off, settings.huber) * bool(kept[t, k])

    def size(vector: Tensor) -> float:
        squared = float(vector.square().sum())
        return squared if norm == "squared" else math.sqrt(squared + 1e-8) - 1e-4

    count = FRAMES * len(small.regions["face"])
    total = 0.1 * point / count + 0.9 * plane / count + 0.3 * landmark / (FRAMES * 68)
    total += settings.regularise_identity * size(pose.identity) + 0.3 * size(pose.scale - 1)
    for t in range(FRAMES):
        turn, before = pose.rotation[t] / (2 * math.pi), pose.rotation[t - 1] / (2 * math.pi)
        total += settings.regularise_expression * size(pose.expression[t]) / FRAMES
        total += 0.3 * (size(turn) + size(pose.translation[t])) / FRAMES + settings.regularise_jaw * size(pose.jaw[t]) / FRAMES
        if t:
            total += settings.smooth_expression * size(pose.expression[t] - pose.expression[t - 1]) / FRAMES
            total += 0.7 * (size(turn - before) + size(pose.translation[t] - pose.translation[t - 1])) / FRAMES
            total += 0.2 * size(pose.jaw[t] - pose.jaw[t - 1]) / FRAMES
    assert float(objective.energy(pose, points, found)) == pytest.approx(total, rel=1e-5)


def test_points_that_are_far_or_turned_or_aside_are_no_match(small: Model) -> None:
    flame, asked = small.flame, small.regions["nose"][:1]
    mean = flame()
    place, normal = mean.vertices[asked].double(), vertex_normals(mean.vertices, flame.faces)[asked].double()
    across = torch.linalg.cross(normal, torch.tensor([[0.3, 0.9, 0.1]], dtype=torch.float64))
    across = across / across.norm()
    # A patch of points 1 mm apart, so that the spacing is known.
    grid = torch.stack(torch.meshgrid(torch.arange(20.0), torch.arange(20.0), indexing="ij"), dim=-1).flatten(0, 1).double()
    up = torch.linalg.cross(normal, across)
    patch = place + 0.001 * ((grid[:, :1]) * across + (grid[:, 1:] - 10) * up)

    def matched(shift: Tensor, facing: Tensor, gate: float = 0.005) -> bool:
        marks, kept = torch.zeros(1, 68, 3), torch.zeros(1, 68, dtype=torch.bool)
        cloud, normals = [patch + shift], [facing.expand_as(patch)]
        objective = Objective(flame, small.embedding, asked, cloud, normals, marks, kept, Settings())
        assert float(objective.spacing[0]) == pytest.approx(0.001, rel=0.1)
        return bool(objective.search(objective.face(zeros(flame, 1)), gate).inlier[0, 0])

    turned = 0.4 * normal + 0.9 * across
    assert matched(0.003 * normal, normal)
    assert not matched(0.006 * normal, normal)
    assert matched(0.006 * normal, normal, gate=0.01)
    assert not matched(0.003 * normal, turned / turned.norm())
    assert matched(0.0015 * across, normal)
    assert not matched(0.003 * across, normal)


def test_a_narrower_gate_keeps_what_a_search_with_it_finds(small: Model) -> None:
    objective, _ = an_objective(small, Settings())
    points = objective.face(a_pose(small))
    wide, narrow = objective.search(points, 0.01), objective.search(points, 0.004)
    assert wide.inlier.sum() > narrow.inlier.sum()
    assert torch.equal(objective.narrowed(wide, points, 0.004).inlier, narrow.inlier)


def test_settings_that_make_no_sense_are_refused() -> None:
    for wrong, message in (
        ({"huber": 0.0}, "huber is 0"),
        ({"landmarks": -1.0}, "a weight is not negative"),
        ({"smooth_jaw": math.nan}, "smooth_jaw is nan"),
        ({"first_gate": 0.001}, "gates get narrower"),
        ({"steps": 0}, "steps is 0"),
    ):
        with pytest.raises(ValueError, match=message):
            Settings(**wrong)  # type: ignore[arg-type]
    assert Settings(learning_rates=LearningRates(jaw=0.0)).gate(0.5) == pytest.approx(math.sqrt(0.02 * 0.005))
