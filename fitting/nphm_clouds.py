"""What part of a cloud an NPHM fit sees, and which frames are neutral. Torch is imported when it runs.

NPHM knows a head without shoulders: its scans end at a plane through the throat, and it is meshed in a box. What lies beyond is
no head, and would pull on codes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from manifests.assets import find

if TYPE_CHECKING:
    from torch import Tensor

Floats = NDArray[np.float64]

THROAT = (3276, 3207, 3310)
"""FLAME's vertices that span the plane at which NPHM's scans end."""
_ABOVE_THE_THROAT = ("forehead", "nose", "eye_region", "lips")
"""Regions that are wholly on one side of that plane in any file that numbers its vertices as FLAME does."""


class FittedHead(NamedTuple):
    """FLAME as it was fitted to T frames, in NPHM's space."""

    vertices: Floats
    """(T, V, 3)."""
    face: NDArray[np.int64]
    """Vertices of the face."""
    numbered_as_flame: bool
    """Whether ``THROAT`` is at the throat; a stand-in may number its vertices in another way."""


def fitted_head(identity: np.ndarray, expression: np.ndarray, jaw: np.ndarray) -> FittedHead:
    """The model file ``flame2020`` with a person's ``identity`` (300,) and T ``expression`` codes and jaws, head not turned."""
    import torch

    from fitting.flame import Flame, load_regions
    from fitting.space import NPHM_SCALE

    flame = Flame.load(find("flame2020"))
    regions = {name: region.numpy() for name, region in load_regions(find("flame-masks")).items()}
    template = flame.v_template.double().numpy()
    if len(template) <= max(THROAT):
        raise ValueError(f"{find('flame2020')} has {len(template)} vertices, the throat is among FLAME's 5023: give a full model")
    with torch.no_grad():
        turned = torch.from_numpy(jaw) if flame.has_jaw else None
        posed = flame(torch.from_numpy(identity)[None], torch.from_numpy(expression), jaw=turned).vertices
    above = np.concatenate([regions[name] for name in _ABOVE_THE_THROAT])
    sides = heights(template[above], template[list(THROAT)])
    return FittedHead(NPHM_SCALE * posed.double().numpy(), regions["face"], bool((sides > 0).all() or (sides < 0).all()))


def heights(points: Floats, corners: Floats) -> Floats:
    """(N,) how far ``points`` (N, 3) are in front of the plane through ``corners`` (3, 3), which is seen counter-clockwise."""
    normal = np.cross(corners[1] - corners[0], corners[2] - corners[0])
    found: Floats = (points - corners[0]) @ (normal / np.linalg.norm(normal))
    return found


def head_clouds(
    points: np.ndarray,
    counts: np.ndarray,
    world_to_flame: np.ndarray,
    head: FittedHead,
    reach_mm: float,
    near: Literal["face", "head"] = "face",
    frames: Sequence[int] | NDArray[np.int64] | None = None,
    world_to_nphm: np.ndarray | None = None,
) -> list[Tensor]:
    """Clouds in NPHM's space, (N, 3) float32 each, of ``points`` (P, 3) in the world, ``counts`` (T,) of each frame.

    Of all frames, or of ``frames``; placed by ``world_to_nphm`` (T, 4, 4), or by FLAME alone. Points stay that are within
    ``reach_mm`` of the fitted face, or of the whole head; in NPHM's box; and on the face's side of the throat.
    """
    import torch
    from scipy.spatial import cKDTree

    from fitting.nphm.compose import LOWER, UPPER
    from fitting.space import NPHM_SCALE

    ends = np.cumsum(counts)
    clouds = []
    for frame in range(len(counts)) if frames is None else frames:
        seen, vertices = points[ends[frame] - counts[frame] : ends[frame]].astype(np.float64), head.vertices[frame]
        own = NPHM_SCALE * _moved(world_to_flame[frame], seen)
        kept: NDArray[np.bool_] = np.all((own >= LOWER) & (own <= UPPER), axis=1)
        if head.numbered_as_flame:
            corners = vertices[list(THROAT)]
            side = np.sign(heights(vertices[head.face], corners).mean())
            kept &= side * heights(own, corners) > 0
        if kept.any():
            tree = cKDTree(vertices[head.face] if near == "face" else vertices)
            kept[kept] = tree.query(own[kept], distance_upper_bound=NPHM_SCALE * reach_mm / 1000)[0] < np.inf
        placed = own[kept] if world_to_nphm is None else _moved(world_to_nphm[frame], seen[kept])
        clouds.append(torch.from_numpy(placed.astype(np.float32)))
    return clouds


def _moved(matrix: np.ndarray, points: Floats) -> Floats:
    moved: Floats = points @ matrix[:3, :3].astype(np.float64).T + matrix[:3, 3].astype(np.float64)
    return moved


def neutral_frames(expression: np.ndarray, jaw: np.ndarray, counts: np.ndarray, frames: int) -> NDArray[np.int64]:
    """Up to ``frames`` frames with the least expression among those with points, ascending.

    By the length of FLAME's ``expression`` codes (T, 100), in standard deviations, plus the angle of the ``jaw`` (T, 3) in tenths
    of a radian, which moves about as much. ``counts`` (T,) are the points of each frame.
    """
    size = np.linalg.norm(expression, axis=1) + 10 * np.linalg.norm(jaw, axis=1)
    order = np.argsort(np.where(counts > 0, size, np.inf), kind="stable")
    found: NDArray[np.int64] = np.sort(order[: min(frames, np.count_nonzero(counts))])
    return found
