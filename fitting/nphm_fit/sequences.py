"""Fitting expression codes to whole sequences, window after window, several sequences at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from fitting.nphm.compose import Nphm, Subject
from fitting.nphm_fit.adam import fit_with_adam
from fitting.nphm_fit.batch import Batch
from fitting.nphm_fit.gauss_newton import fit_with_gauss_newton
from fitting.nphm_fit.jitter import Jitter, jitter_of
from fitting.nphm_fit.objective import Settings, distances, of_frames, trim_at
from fitting.nphm_fit.windows import Window, windows

_MILLIMETRES = 250.0
"""In a unit of NPHM's."""


class Sequence(NamedTuple):
    """One person's clouds, in order."""

    clouds: list[Tensor]
    """T clouds (N, 3) in NPHM's space; one without points is bridged by its neighbours."""
    subject: int
    """Which of the subjects it is."""


class ExpressionFit(NamedTuple):
    """What was found for a sequence of T frames."""

    codes: Tensor
    """(T, E)."""
    residual_mm: Tensor
    """(T,) mean distance of the points that count from the surface; NaN where there are none."""
    inlier_share: Tensor
    """(T,) of the points whose distance is within the last limit of the trimming; 0 where there are none."""
    converged_share: Tensor
    """(T,) of the points whose canonical place was found; 1 but for the composition forward."""
    curves: list[list[float]]
    """The loss of each window."""

    @property
    def jitter(self) -> Jitter:
        return jitter_of(self.codes)


Windowed = Callable[[int, Window, Tensor], None]
"""Is told the sequence, the window and its codes (frames, E) when a window is done."""


def fit_sequences(
    nphm: Nphm,
    subjects: Subject,
    sequences: list[Sequence],
    settings: Settings | None = None,
    known: dict[tuple[int, int], Tensor] | None = None,
    on_window: Windowed | None = None,
) -> list[ExpressionFit]:
    """Codes of all frames of ``sequences``, whose people are among S ``subjects`` (``Nphm.subject``).

    The windows of one sequence follow each other, each beginning where the one before ended; those of different sequences are
    computed together. ``known`` has the codes of windows that were done before, by sequence and first frame: they are not
    computed again, and the result is the same, bit for bit. Raises ``ValueError`` for clouds of other shapes or with numbers
    that are not finite.
    """
    settings = settings or Settings()
    _check(sequences)
    like = subjects.expression.known
    codes = [like.new_zeros(len(sequence.clouds), nphm.expression.n_expression) for sequence in sequences]
    curves: list[list[list[float]]] = [[] for _ in sequences]
    plans = [windows(len(sequence.clouds), settings.window, settings.overlap) for sequence in sequences]
    for turn in range(max(map(len, plans), default=0)):
        at_work = []
        for number, plan in enumerate(plans):
            if turn >= len(plan):
                continue
            done = (known or {}).get((number, plan[turn].first))
            if done is None:
                at_work.append((number, plan[turn]))
            else:
                codes[number][plan[turn].first : plan[turn].stop] = done.to(like)
        if not at_work:
            continue
        fitted = _fit(nphm, subjects, sequences, at_work, codes, settings)
        for (number, window), (found, curve) in zip(at_work, fitted, strict=True):
            codes[number][window.first : window.stop] = found
            curves[number].append(curve)
            if on_window:
                on_window(number, window, found)
    return [
        _judged(nphm, subjects, sequence, found, curve, settings)
        for sequence, found, curve in zip(sequences, codes, curves, strict=True)
    ]


def _fit(
    nphm: Nphm,
    subjects: Subject,
    sequences: list[Sequence],
    at_work: list[tuple[int, Window]],
    codes: list[Tensor],
    settings: Settings,
) -> list[tuple[Tensor, list[float]]]:
    clouds, window_of, subject_of, held, starts, generators = [], [], [], [], [], []
    for place, (number, window) in enumerate(at_work):
        own = codes[number][window.first : window.stop].clone()
        if window.shared:
            own[window.shared :] = own[window.shared - 1]  # new frames begin as the last one known
        frozen = settings.handling == "frozen"
        starts.append(own)
        clouds += sequences[number].clouds[window.first : window.stop]
        window_of += [place] * len(own)
        subject_of += [sequences[number].subject] * len(own)
        held += [frozen and frame < window.shared for frame in range(len(own))]
        generators.append(torch.Generator().manual_seed(settings.seed * 1_000_003 + window.first))
    batch = Batch(clouds, torch.tensor(window_of), torch.tensor(subject_of), torch.tensor(held), torch.cat(starts), generators)
    method = fit_with_adam if settings.method == "adam" else fit_with_gauss_newton
    found, curves = method(nphm, subjects, batch, settings)
    results = []
    for place, (number, window) in enumerate(at_work):
        own = found[batch.window == place]
        if settings.handling == "blended" and window.shared:
            share = torch.arange(1, window.shared + 1).to(own)[:, None] / (window.shared + 1)
            before = codes[number][window.first : window.first + window.shared]
            own[: window.shared] = (1 - share) * before + share * own[: window.shared]
        results.append((own, curves[place]))
    return results


@torch.no_grad()
def _judged(
    nphm: Nphm, subjects: Subject, sequence: Sequence, codes: Tensor, curves: list[list[float]], settings: Settings
) -> ExpressionFit:
    """The figures of all frames, on points drawn anew."""
    residual, inliers, converged = (codes.new_full((len(codes),), value) for value in (float("nan"), 0.0, 1.0))
    limit = trim_at(settings, 1.0)
    own = of_frames(subjects, torch.tensor([sequence.subject]))
    for frame, cloud in enumerate(sequence.clouds):
        if not len(cloud):
            continue
        generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + frame)
        index = torch.randint(len(cloud), (settings.points,), generator=generator)
        sdf, counts = distances(nphm, cloud[index.to(cloud.device)][None].to(codes), codes[frame : frame + 1], own)
        within = counts & (sdf.abs() <= limit)
        residual[frame] = _MILLIMETRES * sdf[within].abs().mean() if within.any() else float("nan")
        inliers[frame], converged[frame] = within.float().mean(), counts.float().mean()
    return ExpressionFit(codes, residual, inliers, converged, curves)


def _check(sequences: list[Sequence]) -> None:
    for number, sequence in enumerate(sequences):
        for frame, cloud in enumerate(sequence.clouds):
            if cloud.ndim != 2 or cloud.shape[1] != 3:
                raise ValueError(f"sequence {number}, frame {frame}: a cloud is (N, 3), got {tuple(cloud.shape)}")
            if not bool(torch.isfinite(cloud).all()):
                raise ValueError(f"sequence {number}, frame {frame}: the cloud has points that are not finite: drop them")
