"""The closed form agrees with automatic differentiation of the posed head."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from fitting.flame import Flame, Landmarks
from fitting.flame_fit.derivatives import FaceDerivatives
from fitting.flame_fit.objective import Objective
from fitting.flame_fit.parameters import Parameters
from fitting.flame_fit.settings import Settings
from fitting.studio.flame_file import write_flame

FRAMES = 2


@pytest.fixture(scope="module")
def objective(tmp_path_factory: pytest.TempPathFactory) -> Objective:
    paths = write_flame(tmp_path_factory.mktemp("flame"), "small")
    flame = Flame.load(paths["flame2020"], identity=6, expression=5, dtype=torch.float64)
    embedding = Landmarks.load(paths["flame-landmarks"], flame)
    cloud = [torch.zeros(1, 3)] * FRAMES
    marks, kept = torch.zeros(FRAMES, 68, 3), torch.ones(FRAMES, 68, dtype=torch.bool)
    return Objective(flame, embedding, torch.arange(0, flame.n_vertices, 9), cloud, cloud, marks, kept, Settings())


def a_pose(seed: int = 0) -> Parameters:
    rng = np.random.default_rng(seed)

    def draw(*size: int, by: float = 1.0) -> Tensor:
        return torch.from_numpy(by * rng.standard_normal(size))

    return Parameters(
        torch.tensor(1.1, dtype=torch.float64),
        draw(6),
        draw(FRAMES, 3, by=0.5),
        draw(FRAMES, 3),
        draw(FRAMES, 3, by=0.2),
        draw(FRAMES, 5),
    )


@pytest.mark.parametrize("part", ["vertices", "landmarks"])
def test_curvature_is_the_squared_derivative(objective: Objective, part: str) -> None:
    derivatives, pose = FaceDerivatives(objective, stride=1), a_pose()
    asked, marks = len(objective.face.asked), len(objective.landmarks[0])
    rng = np.random.default_rng(1)
    roots = torch.from_numpy(rng.standard_normal((FRAMES, asked, 3, 3))) * (part == "vertices")
    landmark_roots = torch.from_numpy(rng.random((FRAMES, marks))) * (part == "landmarks")
    frames, local = FRAMES, 6 + 3 + 5

    def weighted(own: Tensor, shared: Tensor) -> Tensor:
        fields = {
            name: shared[columns].reshape(value.shape) if in_border else own[:, columns]
            for name, value in pose._asdict().items()
            for columns, in_border in [derivatives.columns(name)]
        }
        seen = objective.face(Parameters(**fields))
        turned = (roots @ seen.vertices[..., None]).flatten(1)
        return torch.cat([turned, (landmark_roots[..., None] * seen.landmarks).flatten(1)], dim=1)

    at = tuple(torch.from_numpy(part) for part in derivatives.stacked(pose))
    by_own, by_shared = torch.autograd.functional.jacobian(weighted, at)
    found = derivatives.curvature(pose, roots, landmark_roots)
    for t in range(frames):
        rows = torch.cat([by_own[t, :, t], by_shared[t]], dim=1).numpy()
        expected = rows.T @ rows
        size = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
        assert (np.abs(found.blocks[t] - expected[:local, :local]) < 1e-5 * size[:local, :local]).all()
        assert (np.abs(found.border[t] - expected[:local, local:]) < 1e-5 * size[:local, local:]).all()
    assert found.corner.shape == (7, 7)


def test_a_step_there_and_back_changes_nothing(objective: Objective) -> None:
    derivatives, pose = FaceDerivatives(objective, stride=4), a_pose()
    own, shared = derivatives.stacked(a_pose(2))
    there = derivatives.moved(pose, own, shared)
    assert not torch.equal(there.jaw, pose.jaw)
    for value, before in zip(derivatives.moved(there, -own, -shared), pose, strict=True):
        assert torch.allclose(value, before, atol=1e-12)
