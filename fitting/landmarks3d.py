"""Landmarks in space from landmarks in the pictures of several calibrated cameras.

Each landmark of each frame is triangulated on its own: the pair of cameras whose point most of the others agree with decides
which of them are believed (RANSAC, Fischler and Bolles 1981, with every pair instead of random ones; scored as in MSAC, Torr and
Zisserman 2000), a weighted linear solution starts and a few Gauss-Newton steps on the distances in pixels finish
(Hartley and Zisserman, *Multiple View Geometry*, 12.2 and 12.5). Nothing is smoothed; only what is missing is bridged in time.
"""

from __future__ import annotations

import math
from itertools import combinations
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fitting.cameras import Camera

SCORES = 2**24
"""Reprojections that the search for outliers holds at once: 128 MB."""


class Landmarks3d(NamedTuple):
    """Triangulated landmarks of T frames."""

    points: Tensor
    """(T, L, 3) float64 metres in the world. Where not valid, straight between the nearest valid frames in time, or the nearest
    one's; NaN for a landmark that is valid in no frame."""
    valid: Tensor
    """(T, L) bool: seen by enough cameras that agree."""
    residual: Tensor
    """(T, L) pixels: root mean square distance, weighted by confidence, in the cameras that agree; NaN where not valid."""
    views: Tensor
    """(T, L) int64, how many cameras agree."""


def triangulate(
    pixels: Tensor,
    confidences: Tensor,
    cameras: Camera,
    *,
    threshold_px: float = 6.0,
    min_views: int = 3,
    min_angle_deg: float = 4.0,
    min_confidence: float = 0.1,
    steps: int = 6,
) -> Landmarks3d:
    """Landmarks (T, L, 3) of ``pixels`` (C, T, L, 2) that ``cameras`` (C,) see with ``confidences`` (C, T, L) ≥ 0.

    Views with a confidence below ``min_confidence`` or a pixel that is not finite do not count. A point is valid where at least
    ``min_views`` cameras see it within ``threshold_px`` of their landmark and two of those look from directions that differ by
    ``min_angle_deg``. Residuals beyond a third of the threshold count less (Huber). Raises ``ValueError`` for shapes that
    do not fit, for fewer than two cameras and for confidences that are negative or not finite.
    """
    _check(pixels, confidences, cameras)
    n_cameras, n_frames, n_landmarks = confidences.shape
    if not 2 <= min_views <= n_cameras:
        raise ValueError(f"min_views is {min_views}: give 2 to {n_cameras}, the number of cameras")
    pinhole = cameras.pinhole().to(dtype=torch.float64)
    seen = cameras.to(dtype=torch.float64).undistort(pixels.double().flatten(1, 2))
    weight = confidences.double().flatten(1)
    weight = torch.where(seen.isfinite().all(dim=-1) & (weight >= min_confidence), weight, 0.0)
    # A number must stand where nothing is seen; its weight is 0.
    seen = torch.where(weight[..., None] > 0, seen, 0.0)

    inlier = _agreeing(seen, weight, pinhole, threshold_px, min_angle_deg)
    points = _linear(seen, weight * inlier, pinhole)
    for _ in range(steps):
        points = _gauss_newton_step(points, seen, weight * inlier, pinhole, threshold_px / 3)
    # Who agrees is asked once more of the better point, and it is finished with them.
    inlier = (weight > 0) & (_distances(points, seen, pinhole) < threshold_px)
    for _ in range(2):
        points = _gauss_newton_step(points, seen, weight * inlier, pinhole, threshold_px / 3)
    used = weight * (inlier & (_distances(points, seen, pinhole) < threshold_px))
    views = (used > 0).sum(dim=0)
    valid = (views >= min_views) & (_widest_angle(points, used > 0, pinhole) >= min_angle_deg) & points.isfinite().all(dim=-1)
    mean_square = (used * _distances(points, seen, pinhole).square()).sum(dim=0) / used.sum(dim=0).clamp(min=1e-12)
    residual = torch.where(valid, mean_square.sqrt(), torch.nan)
    shape = (n_frames, n_landmarks)
    valid = valid.reshape(shape)
    return Landmarks3d(bridge(points.reshape(*shape, 3), valid), valid, residual.reshape(shape), views.reshape(shape))


def bridge(points: Tensor, valid: Tensor) -> Tensor:
    """``points`` (T, L, 3) with those that are not ``valid`` (T, L) put between the nearest valid frames of the same landmark.

    Before the first and after the last valid frame it stays where it was; NaN for a landmark without any valid frame.
    """
    filled = points.double().numpy().copy()
    frames = np.arange(len(filled))
    for landmark, known in enumerate(valid.T.numpy()):
        if not known.any():
            filled[:, landmark] = np.nan
        elif not known.all():
            for axis in range(3):
                held = filled[:, landmark, axis]
                held[~known] = np.interp(frames[~known], frames[known], held[known])
    return torch.from_numpy(filled)


def _agreeing(seen: Tensor, weight: Tensor, cameras: Camera, threshold: float, min_angle_deg: float) -> Tensor:
    """(C, N) bool: the cameras that see the point of the best pair of them where they should."""
    n_cameras, n_points = weight.shape
    origins, rays = _rays(seen, cameras)
    first, second = torch.tensor(list(combinations(range(n_cameras), 2))).T
    best = weight.new_full((n_points,), torch.inf)
    inlier = torch.zeros_like(weight, dtype=torch.bool)
    rows = max(1, SCORES // (n_cameras * max(1, n_points)))
    for some in torch.arange(len(first)).split(rows):
        a, b = first[some], second[some]
        middle, angle = _midpoints(origins[a, None], rays[a], origins[b, None], rays[b])
        distance = _distances(middle.flatten(0, 1), seen.repeat(1, len(some), 1), cameras).unflatten(1, (len(some), n_points))
        lost = (weight[:, None] * (distance / threshold).square().clamp(max=1)).sum(dim=0)
        usable = (weight[a] > 0) & (weight[b] > 0) & (angle >= math.radians(min_angle_deg))
        score, which = torch.where(usable, lost, torch.inf).min(dim=0)
        close = torch.take_along_dim(distance, which[None, None], dim=1)[:, 0] < threshold
        better = score < best
        best = torch.where(better, score, best)
        inlier = torch.where(better, close & (weight > 0), inlier)
    return inlier


def _rays(seen: Tensor, cameras: Camera) -> tuple[Tensor, Tensor]:
    """Where the cameras stand (C, 3) and unit directions (C, N, 3) to what they see at the pixels ``seen`` (C, N, 2)."""
    origins = cameras.centre
    towards = cameras.unproject(seen, torch.ones_like(seen[..., 0])) - origins[:, None]
    return origins, torch.nn.functional.normalize(towards, dim=-1)


def _midpoints(a: Tensor, along_a: Tensor, b: Tensor, along_b: Tensor) -> tuple[Tensor, Tensor]:
    """Points halfway where pairs of rays are nearest to each other, and the angles between them in radians."""
    cosine = (along_a * along_b).sum(dim=-1)
    sine2 = (1 - cosine.square()).clamp(min=1e-12)
    offset = b - a
    on_a, on_b = (offset * along_a).sum(dim=-1), (offset * along_b).sum(dim=-1)
    s = (on_a - cosine * on_b) / sine2
    t = (cosine * on_a - on_b) / sine2
    return (a + s[..., None] * along_a + b + t[..., None] * along_b) / 2, torch.acos(cosine.clamp(-1, 1))


def _distances(points: Tensor, seen: Tensor, cameras: Camera) -> Tensor:
    """(C, N) pixels from where the cameras see ``points`` (N, 3) to ``seen`` (C, N, 2); infinite behind a camera."""
    pixels, depth = cameras.project(points.expand(len(seen), -1, -1))
    return torch.where(depth > 0, (pixels - seen).norm(dim=-1), torch.inf)


def _linear(seen: Tensor, weight: Tensor, cameras: Camera) -> Tensor:
    """(N, 3) the point with the least weighted squared distance to the rays."""
    origins, rays = _rays(seen, cameras)
    across = torch.eye(3, dtype=rays.dtype) - rays[..., :, None] * rays[..., None, :]
    matrix = (weight[..., None, None] * across).sum(dim=0)
    right = (weight[..., None] * (across @ origins[:, None, :, None])[..., 0]).sum(dim=0)
    return _solve(matrix, right)


def _gauss_newton_step(points: Tensor, seen: Tensor, weight: Tensor, cameras: Camera, huber: float) -> Tensor:
    """Points (N, 3) one step nearer to the least Huber loss of distances in pixels."""
    pose, k = cameras.pose, cameras.intrinsics
    there = pose.apply(points.expand(len(seen), -1, -1))
    depth = there[..., 2:].clamp(min=1e-6)
    plane = there[..., :2] / depth
    residual = plane @ k[:, :2, :2].mT + k[:, None, :2, 2] - seen
    # d plane / d there = [I | -plane] / depth, then K and R.
    by_there = torch.cat([torch.eye(2, dtype=plane.dtype).expand(*plane.shape[:-1], 2, 2), -plane[..., None]], dim=-1)
    jacobian = k[:, None, :2, :2] @ by_there @ pose.rotation[:, None] / depth[..., None]
    weight = weight * (huber / residual.norm(dim=-1).clamp(min=huber))
    matrix = (weight[..., None, None] * (jacobian.mT @ jacobian)).sum(dim=0)
    right = (weight[..., None] * (jacobian.mT @ residual[..., None])[..., 0]).sum(dim=0)
    return points - _solve(matrix, right)


def _solve(matrix: Tensor, right: Tensor) -> Tensor:
    """x (N, 3) of A x = b, and near 0 in directions that A (N, 3, 3) does not know."""
    scale = matrix.diagonal(dim1=-2, dim2=-1).amax(dim=-1).clamp(min=1e-30)
    damped = matrix / scale[:, None, None] + 1e-9 * torch.eye(3, dtype=matrix.dtype)
    solved: Tensor = torch.linalg.solve(damped, right / scale[:, None])
    return solved


def _widest_angle(points: Tensor, used: Tensor, cameras: Camera) -> Tensor:
    """(N,) degrees between the two most different directions from which the ``used`` (C, N) cameras look."""
    towards = torch.nn.functional.normalize(cameras.centre[:, None] - points, dim=-1)
    cosine = torch.einsum("cnk,dnk->cdn", towards, towards)
    cosine = torch.where(used[:, None] & used[None], cosine, 1.0).amin(dim=(0, 1))
    return torch.rad2deg(torch.acos(cosine.clamp(-1, 1)))


def _check(pixels: Tensor, confidences: Tensor, cameras: Camera) -> None:
    if pixels.ndim != 4 or pixels.shape[-1] != 2 or confidences.shape != pixels.shape[:-1]:
        shapes = f"{tuple(pixels.shape)} and {tuple(confidences.shape)}"
        raise ValueError(f"pixels have shape (C, T, L, 2) and confidences (C, T, L), got {shapes}")
    if cameras.batch != (len(pixels),) or len(pixels) < 2:
        raise ValueError(
            f"landmarks of {len(pixels)} views and a batch of cameras {cameras.batch}: give the same number, at least 2"
        )
    if not bool((confidences.isfinite() & (confidences >= 0)).all()):
        raise ValueError("confidences are finite and not negative: give 0 where a camera found no landmark")
