"""The start of a fit: where the head is in each frame, by its landmarks alone.

FaceTalk, supplement D: a rigid motion from the template's landmarks to the observed ones, then those further off than 2 cm are
dropped, then a similarity from the rest. The scale belongs to the sequence, so it is the same in all frames.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from scipy.spatial.transform import Rotation, Slerp
from torch import Tensor

from fitting.similarity import Similarity

MIN_LANDMARKS = 6
"""Fewer do not tell where a head is: three that are not in a line would, were they exact."""


class Start(NamedTuple):
    """Where the template has to go."""

    sequence: Similarity
    """() of the template to the world in the middle of the motion: what the whole sequence is seen from."""
    frames: Similarity
    """(T,) of the template to the world in each frame, all with the scale of ``sequence``."""
    kept: Tensor
    """(T, L) bool: landmarks that were not dropped."""
    aligned: Tensor
    """(T,) bool: frames that had enough landmarks. The others lie between their neighbours."""


def align(source: Tensor, target: Tensor, weight: Tensor, *, scaled: bool) -> Similarity:
    """The least-squares motion (...) of ``source`` (..., N, 3) to ``target`` (..., N, 3), points weighted by ``weight`` (..., N).

    Umeyama 1991; rigid where not ``scaled``. Where all weights are 0 the result means nothing, but is finite.
    """
    share = (weight / weight.sum(dim=-1, keepdim=True).clamp(min=1e-12))[..., None]
    from_mean, to_mean = (share * source).sum(dim=-2), (share * target).sum(dim=-2)
    centred, goal = source - from_mean[..., None, :], target - to_mean[..., None, :]
    left, singular, right = torch.linalg.svd((share * goal).mT @ centred)
    sign = torch.ones_like(singular)
    sign[..., 2] = torch.linalg.det(left @ right).sign()
    rotation = left @ (sign[..., None] * right)
    spread = (share * centred.square()).sum(dim=(-2, -1)).clamp(min=1e-12)
    scale = (singular * sign).sum(dim=-1) / spread if scaled else torch.ones_like(spread)
    moved = scale[..., None] * (rotation @ from_mean[..., None])[..., 0]
    return Similarity(scale, rotation, to_mean - moved)


def start(template: Tensor, observed: Tensor, valid: Tensor, outlier: float) -> Start:
    """Where the head is, from its ``template`` landmarks (L, 3) and the ``observed`` (T, L, 3) where ``valid`` (T, L).

    Landmarks whose residual after the rigid fit is above ``outlier`` metres are dropped. Raises ``ValueError`` when no frame has
    ``MIN_LANDMARKS`` left.
    """
    template, observed = template.double(), torch.where(valid[..., None], observed, 0.0).double()
    first = align(template, observed, valid.double(), scaled=False)
    kept = valid & ((first.apply(template) - observed).norm(dim=-1) <= outlier)
    aligned = kept.sum(dim=-1) >= MIN_LANDMARKS
    if not bool(aligned.any()):
        found = int(valid.sum(dim=-1).max()) if len(valid) else 0
        left = int(kept.sum(dim=-1).max()) if len(valid) else 0
        raise ValueError(
            f"no frame has {MIN_LANDMARKS} landmarks to start from: at most {found} are valid and {left} lie within "
            f"{1000 * outlier:.0f} mm of the aligned template (are they in metres, in iBUG's order?)"
        )
    weight = kept.double()
    # One scale for all frames: that of the whole sequence's squared lengths, which a frame with few landmarks cannot spoil.
    similar = align(template, observed, weight, scaled=True)
    scale = similar.scale[aligned].median()
    frames = align(scale * template, observed, weight, scaled=False)
    frames = Similarity(scale.expand(len(observed)), frames.rotation, frames.translation)
    frames = _bridge(frames, aligned)
    middle = Rotation.from_matrix(frames.rotation[aligned].numpy()).mean().as_matrix()
    sequence = Similarity(scale, torch.from_numpy(middle), frames.translation[aligned].mean(dim=0))
    return Start(sequence, frames, kept, aligned)


def _bridge(frames: Similarity, known: Tensor) -> Similarity:
    """``frames`` (T,) with those not ``known`` (T,) between their neighbours; at the ends like the nearest."""
    if bool(known.all()):
        return frames
    at = np.nonzero(known.numpy())[0]
    asked = np.clip(np.arange(len(known)), at[0], at[-1])
    rotation, translation = frames.rotation.numpy(), frames.translation.numpy()
    turns = Rotation.from_matrix(rotation[at])
    turned = Slerp(at, turns)(asked).as_matrix() if len(at) > 1 else np.repeat(turns.as_matrix(), len(known), axis=0)
    moved = np.stack([np.interp(asked, at, translation[at, axis]) for axis in range(3)], axis=-1)
    return Similarity(frames.scale, torch.from_numpy(turned), torch.from_numpy(moved))
