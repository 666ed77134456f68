"""Figures of generated code sequences: how they differ, how they jitter, and whether they follow the sound.

Sequences may be of different lengths: they are given as an iterable with one tensor for each sound, and a tensor with a leading
dimension is such an iterable.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from fitting.nphm_fit import Jitter, jitter_of

# LSE-D (FaceTalk, supplement C) comes with the networks of SyncNet: it needs rendered faces and sound, no codes.


def diversity(samples: Iterable[Tensor]) -> float:
    """How far apart the K sequences (K, T, D) are that were generated for one of N sounds (FaceTalk, supplement C, eq. 20).

    The paper does not say what the norm of two sequences' difference is: here it is the norm of a frame's D numbers, mean over
    the T frames, so that long sequences count as short ones. As in eq. 20, the sum over a sample's K - 1 partners is not divided
    by their number: for independent samples the figure grows with K - 1, and is compared at the same K only.

    Raises ``ValueError`` for fewer than two sequences of a sound, and for no sound.
    """
    found = []
    for codes in samples:
        if codes.ndim != 3 or len(codes) < 2 or not codes.shape[1]:
            raise ValueError(f"diversity: each sound needs (K, T, D) codes with K of 2 or more, got {tuple(codes.shape)}")
        frames = codes.detach().double().transpose(0, 1)
        # Not by matrix products: these would lose small differences of equal sequences to rounding.
        apart = torch.cdist(frames, frames, compute_mode="donot_use_mm_for_euclid_dist")
        found.append(apart.mean(dim=0).sum() / len(codes))
    return _mean("diversity", found)


def jitter(sequences: Iterable[Tensor]) -> Jitter:
    """MAE, RMSE (FaceTalk, table 4) and autocorrelation (figure 9) of neighbouring frames, mean over sequences (T, D).

    See ``fitting.nphm_fit.jitter_of``, which the columns ``jitter_*`` are by. Raises ``ValueError`` for no sequence.
    """
    found = [torch.tensor(jitter_of(codes), dtype=torch.float64) for codes in sequences]
    if not found:
        raise ValueError("jitter: there is no sequence to measure; give at least one")
    return Jitter(*torch.stack(found).mean(dim=0).tolist())


def correlation(found: Sequence[Tensor], true: Sequence[Tensor]) -> float:
    """Pearson's, of each track (T,) of ``found`` with its own of ``true``, mean over the N tracks; one that is constant counts 0.

    Raises ``ValueError`` where numbers or lengths of tracks differ, and for no track.
    """
    if len(found) != len(true):
        raise ValueError(f"correlation: {len(found)} tracks have no partner each among {len(true)}; give as many of both")
    return _mean("correlation", [_pearson(one, other) for one, other in zip(found, true, strict=True)])


def mouth_correlation(generated: Sequence[Tensor], true: Sequence[Tensor], *, shuffled: bool = False) -> float:
    """``correlation`` of the mouth's opening in ``generated`` sequences with that in the ``true`` ones, N tracks (T,) in mm.

    ``shuffled`` sets each against the truth of the next sequence, both cut to the shorter: what a model reaches that does not
    listen. Sequences of one sound repeated would be their own partners: give one of each. Raises ``ValueError``, too, for
    fewer than two tracks to shuffle.
    """
    if not shuffled:
        return correlation(generated, true)
    if len(true) < 2:
        raise ValueError("mouth correlation: one sequence has no other to be shuffled with; give two or more")
    if len(generated) != len(true):
        raise ValueError(f"mouth correlation: {len(generated)} tracks but {len(true)} true ones; give as many of both")
    others = [true[(k + 1) % len(true)] for k in range(len(true))]
    lengths = [min(len(one), len(other)) for one, other in zip(generated, others, strict=True)]
    return correlation(
        [track[:length] for track, length in zip(generated, lengths, strict=True)],
        [track[:length] for track, length in zip(others, lengths, strict=True)],
    )


def _pearson(one: Tensor, other: Tensor) -> Tensor:
    if one.ndim != 1 or one.shape != other.shape:
        raise ValueError(f"correlation: tracks are (T,) and equally long, got {tuple(one.shape)} and {tuple(other.shape)}")
    one, other = (track.detach().double() for track in (one, other))
    one, other = one - one.mean(), other - other.mean()
    scale = one.norm() * other.norm()
    return one @ other / scale if scale > 1e-12 else scale.new_zeros(())


def _mean(name: str, found: list[Tensor]) -> float:
    if not found:
        raise ValueError(f"{name}: there is no sequence to measure; give at least one")
    return float(torch.stack(found).mean())
