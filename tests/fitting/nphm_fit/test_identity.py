"""An identity code that was fitted to neutral frames serves as well as the true one."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import pytest
import torch
from torch import Tensor

from fitting.nphm import Nphm
from fitting.nphm.expression import Direction, ExpressionNetwork
from fitting.nphm_fit import IdentitySettings, fit_identity
from fitting.rotations import axis_angle_to_matrix
from fitting.similarity import Similarity
from fitting.studio.family import HeadFamily
from fitting.studio.nphm_errors import visible
from fitting.studio.nphm_file import TABLED_PEOPLE, TRAINING_PEOPLE, nphm_identity
from fitting.studio.nphm_truth import head_surface
from fitting.studio.people import PICTURED
from tests.fitting.nphm.files import expression_shapes
from tests.fitting.nphm.heads import fitted_head
from tests.fitting.nphm_fit.people import Spoken, spoken
from tests.fitting.rule_weights import rule_state

QUICK = IdentitySettings(iterations=50, points=200)
PERSON, NEUTRAL_S = 3, 3.05
"""One of the studio's people, on whom networks were not trained, and when that person's face is nearly at rest."""


@lru_cache
def statistics() -> tuple[Tensor, Tensor]:
    table = torch.from_numpy(nphm_identity(HeadFamily("large").people(TABLED_PEOPLE, TRAINING_PEOPLE))).float()
    return table.mean(dim=0), table.std(dim=0)


def face_mm(truth: Spoken, code: Tensor, placement: Similarity | None = None) -> float:
    """Mean distance of the true faces' vertices, brought to their place, from the surface of ``code`` (C,) with the true
    expressions."""
    skin = torch.from_numpy(truth.skin[:, visible(head_surface())["face"]])
    inside = (placement.apply(skin) if placement else skin).float()
    with torch.no_grad():
        return 250 * float(truth.head(inside, truth.codes, truth.head.subject(code[None])).sdf.abs().mean())


@lru_cache
def egg(direction: Direction) -> tuple[Nphm, Tensor, Tensor]:
    """A small head, its identity code (C,), and points of its surface."""
    identity, code = fitted_head()
    shapes = expression_shapes(known=4, told=code.shape[1] + 3 * (identity.n_members - 1), expression=6, hidden=40)
    expression = ExpressionNetwork.from_state(rule_state(shapes, gain=0.1), direction=direction).float()
    nphm = Nphm(identity.float(), expression.requires_grad_(False))
    surface = nphm.meshes(torch.zeros(1, 6), nphm.subject(code.float()), resolution=40)[0].vertices
    return nphm, code.float()[0], surface


def test_the_fitted_code_explains_a_face_as_well_as_the_true_one() -> None:
    truth = spoken(PERSON, 2, start=NEUTRAL_S, points=4000)
    true = torch.from_numpy(nphm_identity(HeadFamily(PICTURED).people(PERSON + 1)[PERSON])).float()
    fit = fit_identity(truth.head, truth.clouds, replace(QUICK, iterations=70, points=200), statistics())
    found = face_mm(truth, fit.code, fit.placement)
    assert found < face_mm(truth, true)
    assert found < 0.3 * face_mm(truth, statistics()[0])
    assert fit.residual_mm.max() < 0.4
    assert fit.code.shape == (1344,)
    assert fit.expressions.shape == (2, 200)


@pytest.mark.parametrize("direction", list(Direction))
def test_both_compositions_are_fitted(direction: Direction) -> None:
    nphm, code, surface = egg(direction)
    mean = (code + 0.05 * torch.randn(code.shape, generator=torch.Generator().manual_seed(1)), torch.full_like(code, 0.05))
    settings = replace(QUICK, iterations=40)
    before = fit_identity(nphm, [surface], settings, code=mean[0])
    fit = fit_identity(nphm, [surface], settings, mean)
    assert fit.residual_mm[0] < 0.2 * before.residual_mm[0]
    assert sum(fit.curve[-5:]) < 0.3 * sum(fit.curve[:5])


def test_clouds_that_are_beside_their_place_are_brought_onto_the_surface() -> None:
    nphm, code, surface = egg(Direction.backward)
    turn = axis_angle_to_matrix(torch.tensor([0.01, -0.015, 0.01]))
    aside = Similarity(torch.tensor(1.012), turn, torch.tensor([0.006, -0.004, 0.008]))
    clouds = [aside.apply(surface[::2]), aside.apply(surface[1::2])]
    fit = fit_identity(nphm, clouds, replace(QUICK, iterations=120), code=code)
    left = fit_identity(nphm, clouds, replace(QUICK, placement_step=0.0), code=code)
    back = fit.placement.apply(clouds[0].double())
    assert (back - surface[::2]).norm(dim=1).mean() < 0.2 * (clouds[0] - surface[::2]).norm(dim=1).mean()
    assert fit.residual_mm.max() < 0.3 * left.residual_mm.min()
    assert torch.equal(left.placement.matrix(), torch.eye(4, dtype=torch.float64))


def test_a_known_code_is_kept_and_judged() -> None:
    nphm, code, surface = egg(Direction.backward)
    fit = fit_identity(nphm, [surface, surface + 0.02], replace(QUICK, placement_step=0.0), code=code)
    assert torch.equal(fit.code, code)
    assert fit.residual_mm[0] < 0.2
    assert fit.residual_mm[1] > 4 * fit.residual_mm[0]


def test_outliers_are_left_out() -> None:
    nphm, code, surface = egg(Direction.backward)
    mean = code + 0.03 * torch.randn(code.shape, generator=torch.Generator().manual_seed(1))
    cloud = torch.cat([surface, surface[::2] + torch.tensor([0.0, 0.0, 0.12])])

    def error_mm(trimming: tuple[tuple[float, float], ...]) -> float:
        settings = replace(QUICK, iterations=100, step_size=0.05, placement_step=0.0, trimming=trimming)
        found = fit_identity(nphm, [cloud], settings, (mean, torch.full_like(code, 0.05))).code
        return 250 * float(nphm(surface[None], torch.zeros(1, 6), nphm.subject(found[None])).sdf.abs().mean())

    assert error_mm(QUICK.trimming) < 0.5 * error_mm(())


def test_same_clouds_same_code_and_frames_without_points_say_nothing() -> None:
    nphm, _, surface = egg(Direction.backward)
    first, again, with_empty = (
        fit_identity(nphm, clouds, replace(QUICK, iterations=5)) for clouds in ([surface], [surface], [surface[:0], surface])
    )
    assert torch.equal(first.code, again.code)
    assert torch.equal(first.code, with_empty.code)
    assert with_empty.residual_mm.isnan().tolist() == [True, False]


def test_the_networks_are_left_as_they_were() -> None:
    nphm, _, surface = egg(Direction.backward)
    nphm.requires_grad_(True).zero_grad()
    fit_identity(nphm, [surface], replace(QUICK, iterations=2))
    assert all(parameter.grad is None for parameter in nphm.parameters())
    nphm.requires_grad_(False)


def test_wrong_clouds_are_refused() -> None:
    nphm, _, surface = egg(Direction.backward)
    with pytest.raises(ValueError, match=r"cloud 1: a cloud is \(N, 3\), got \(4, 2\)"):
        fit_identity(nphm, [surface, torch.zeros(4, 2)])
    with pytest.raises(ValueError, match="cloud 0 has points that are not finite: drop them"):
        fit_identity(nphm, [torch.full((3, 3), float("inf"))])
    with pytest.raises(ValueError, match="no cloud has any points"):
        fit_identity(nphm, [surface[:0]])
