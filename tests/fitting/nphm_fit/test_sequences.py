"""Codes are found again from the clouds that they made, and the temporal term does what it is for."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import pytest
import torch
from torch import Tensor

from fitting.isosurface import extract
from fitting.nphm.compose import LOWER, UPPER, Nphm, Subject
from fitting.nphm.expression import Direction, ExpressionNetwork
from fitting.nphm.roots import find_canonical
from fitting.nphm_fit import Sequence, Settings, fit_sequences, jitter_of
from tests.fitting.nphm.files import expression_shapes
from tests.fitting.nphm.heads import fitted_head
from tests.fitting.nphm.test_compose import mono_pair
from tests.fitting.rule_weights import rule_state

QUICK = Settings(points=400, window=4, overlap=1, trimming=((0.0, 0.2),), huber=0.05, newton_steps=8)
T = 7


@lru_cache
def head(direction: Direction) -> tuple[Nphm, Subject, Tensor]:
    """An egg with a nose whose surface codes of six numbers move; also points of its canonical surface."""
    identity, code = fitted_head()
    n_anchors = identity.n_members - 1
    shapes = expression_shapes(known=4, told=code.shape[1] + 3 * n_anchors, expression=6, hidden=40)
    expression = ExpressionNetwork.from_state(rule_state(shapes, gain=0.6), direction=direction).float()
    nphm = Nphm(identity.float(), expression.requires_grad_(False))
    subject = nphm.subject(code.float())
    surface = extract(lambda points: identity(points[None], subject.identity, floor=0.0)[0], LOWER, UPPER, 48)
    return nphm, subject, surface.vertices.float()


def walk(seed: int = 0) -> Tensor:
    """(T, 6) codes that change slowly."""
    times = torch.arange(T)[:, None] / 6
    return 0.3 * torch.sin(times * torch.tensor([1.0, 1.3, 0.7, 1.1, 0.9, 1.6]) + torch.arange(6) + seed)


def clouds(direction: Direction, codes: Tensor, noise: float = 0.0) -> list[Tensor]:
    nphm, subject, canonical = head(direction)
    drawn = []
    for frame, code in enumerate(codes):
        if direction is Direction.forward:
            posed = canonical + nphm.expression(canonical[None], code[None], subject.expression).offset[0]
        else:
            found = find_canonical(nphm.expression, canonical[None], code[None], subject.expression)
            posed = found.points[0][found.converged[0]]
        generator = torch.Generator().manual_seed(frame)
        drawn.append((posed + noise * torch.randn(posed.shape, generator=generator)).detach())
    return drawn


def residual(direction: Direction, found: list[Tensor], codes: Tensor) -> float:
    nphm, subject, _ = head(direction)
    """Median distance of the clouds; a mesh has a few far specks, too."""
    sizes = [nphm(cloud[None], code[None], subject).sdf.abs().flatten() for cloud, code in zip(found, codes, strict=True)]
    return float(torch.cat(sizes).median())


@pytest.mark.parametrize("direction", list(Direction))
def test_the_clouds_are_explained_as_well_as_by_the_true_codes(direction: Direction) -> None:
    codes = walk()
    given = clouds(direction, codes)
    nphm, subject, _ = head(direction)
    fit = fit_sequences(nphm, subject, [Sequence(given, 0)], replace(QUICK, temporal=1e-3, regularization=1e-6))[0]
    unfitted = residual(direction, given, torch.zeros_like(codes))
    assert residual(direction, given, fit.codes) < 0.05 * unfitted
    assert fit.residual_mm.max() < 0.1 * 250 * unfitted
    assert fit.inlier_share.min() > 0.95
    assert fit.codes.shape == (T, 6)


def test_gauss_newton_needs_a_tenth_of_the_evaluations_of_adam() -> None:
    codes = walk()
    given = clouds(Direction.backward, codes)
    nphm, subject, _ = head(Direction.backward)
    asked: list[int] = []
    with nphm.register_forward_hook(lambda *_: asked.append(1)):
        (newton,) = fit_sequences(nphm, subject, [Sequence(given, 0)], QUICK)
    slow = Settings(
        method="adam", points=400, window=4, overlap=1, trimming=((0.0, 0.2),), iterations=100, late=80, step_size=0.02
    )
    (adam,) = fit_sequences(nphm, subject, [Sequence(given, 0)], slow)
    for fast, reference in zip(newton.curves, adam.curves, strict=True):
        assert len(fast) + 1 <= 0.1 * len(reference)
        assert fast[-1] <= 1.1 * reference[-1]
    # Once a step for each of 4 and 3 frames that are free, once at the beginning, and once for the figures of all.
    first, second = newton.curves
    assert len(asked) == 4 * (len(first) + 1) + 3 * (len(second) + 1) + T


def test_hyper_coordinates_are_fitted_too() -> None:
    identity, expression = mono_pair()
    nphm = Nphm(identity, expression).requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    subject = nphm.subject(0.1 * torch.randn(1, identity.code_size, generator=generator, dtype=torch.float64))
    codes = 0.15 + 0.1 * walk()[:3].double()
    points = 0.8 * torch.rand(1, 40_000, 3, generator=generator, dtype=torch.float64) - 0.4
    given = [points[0, nphm(points, code[None], subject).sdf[0].abs() < 2e-4] for code in codes]
    settings = Settings(points=200, temporal=1e-4, regularization=1e-7, trimming=((0.0, 0.1),), newton_steps=20)
    (fit,) = fit_sequences(nphm, subject, [Sequence(given, 0)], settings)

    def distance(codes: Tensor) -> float:
        sizes = [nphm(cloud[None], code[None], subject).sdf.abs() for cloud, code in zip(given, codes, strict=True)]
        return float(torch.cat(sizes, dim=1).mean())

    assert distance(fit.codes) < 0.25 * distance(torch.zeros_like(codes))


def test_the_temporal_term_takes_jitter_away() -> None:
    codes = walk()
    given = clouds(Direction.backward, codes, noise=0.02)
    nphm, subject, _ = head(Direction.backward)

    def jitter(temporal: float) -> float:
        settings = Settings(points=60, window=4, overlap=1, trimming=(), newton_steps=5, temporal=temporal, huber=10.0)
        return jitter_of(fit_sequences(nphm, subject, [Sequence(given, 0)], settings)[0].codes).mae

    assert jitter(1.0) < 0.6 * jitter(0.0)


def test_a_frame_without_points_is_bridged_by_its_neighbours() -> None:
    given = clouds(Direction.backward, walk())
    given[2] = given[2][:0]
    nphm, subject, _ = head(Direction.backward)
    fit = fit_sequences(nphm, subject, [Sequence(given, 0)], QUICK)[0]
    assert fit.residual_mm[2].isnan()
    assert fit.inlier_share[2] == 0
    between = (fit.codes[1] + fit.codes[3]) / 2
    assert (fit.codes[2] - between).norm() < 0.2 * (fit.codes[3] - fit.codes[1]).norm() + 0.02


@pytest.mark.parametrize("handling", ["frozen", "refitted", "blended"])
def test_windows_meet_without_a_jump(handling: str) -> None:
    given = clouds(Direction.backward, walk())
    nphm, subject, _ = head(Direction.backward)
    settings = Settings(points=400, window=4, overlap=1, trimming=(), newton_steps=8, handling=handling)  # type: ignore[arg-type]
    codes = fit_sequences(nphm, subject, [Sequence(given, 0)], settings)[0].codes
    steps = codes.diff(dim=0).norm(dim=1)
    assert steps.max() < 2.5 * walk().diff(dim=0).norm(dim=1).max()


def test_frozen_frames_keep_their_codes() -> None:
    given = clouds(Direction.backward, walk())
    nphm, subject, _ = head(Direction.backward)
    told: dict[int, Tensor] = {}
    (fit,) = fit_sequences(
        nphm, subject, [Sequence(given, 0)], QUICK, on_window=lambda _, w, found: told.__setitem__(w.first, found)
    )
    torch.testing.assert_close(told[3][0], told[0][3], rtol=0, atol=0)
    torch.testing.assert_close(fit.codes[3:], told[3], rtol=0, atol=0)


def test_a_fit_that_was_interrupted_goes_on_to_the_same_codes_bit_for_bit() -> None:
    given = clouds(Direction.backward, walk())
    nphm, subject, _ = head(Direction.backward)
    told: dict[tuple[int, int], Tensor] = {}
    whole = fit_sequences(
        nphm, subject, [Sequence(given, 0)], QUICK, on_window=lambda n, w, found: told.__setitem__((n, w.first), found)
    )[0]
    assert sorted(told) == [(0, 0), (0, 3)]
    resumed = fit_sequences(nphm, subject, [Sequence(given, 0)], QUICK, known={(0, 0): told[0, 0]})[0]
    assert torch.equal(resumed.codes, whole.codes)


def test_sequences_that_are_fitted_together_are_fitted_as_if_alone() -> None:
    nphm, subject, _ = head(Direction.backward)
    one, other = (Sequence(clouds(Direction.backward, walk(seed)[: T - 2 * seed]), 0) for seed in (0, 1))
    together = fit_sequences(nphm, subject, [one, other], QUICK)
    for alone, fit in zip((one, other), together, strict=True):
        torch.testing.assert_close(fit.codes, fit_sequences(nphm, subject, [alone], QUICK)[0].codes, atol=2e-3, rtol=0)


def test_what_a_window_needs_at_once_does_not_grow_with_its_frames() -> None:
    nphm, subject, _ = head(Direction.backward)
    sequence = [Sequence(clouds(Direction.backward, walk()), 0)]
    for method in ("adam", "gauss_newton"):
        settings = replace(QUICK, method=method, points=15_000, iterations=1, newton_steps=1, window=7)
        asked: list[int] = []
        with nphm.register_forward_hook(lambda _, given, __, asked=asked: asked.append(given[0][..., 0].numel())):
            fit_sequences(nphm, subject, sequence, settings)
        assert max(asked) <= 20_000


def test_wrong_clouds_and_methods_are_refused() -> None:
    nphm, subject, _ = head(Direction.backward)
    with pytest.raises(ValueError, match=r"sequence 0, frame 1: a cloud is \(N, 3\), got \(4, 2\)"):
        fit_sequences(nphm, subject, [Sequence([torch.zeros(3, 3), torch.zeros(4, 2)], 0)])
    with pytest.raises(ValueError, match="sequence 0, frame 0: the cloud has points that are not finite"):
        fit_sequences(nphm, subject, [Sequence([torch.full((3, 3), float("nan"))], 0)])
    with pytest.raises(ValueError, match="no method 'newton'"):
        Settings(method="newton")
