"""Nearest points of clouds, and the residuals of a fit to them.

``NearestTo(targets)`` prepares clouds once and is asked many times: fits look for the nearest points of the same clouds
thousands of times. There are three ways of finding them, all with one contract: ``kdtree`` (SciPy, on the CPU), ``brute``
(torch, any device, in pieces of bounded memory) and ``pytorch3d`` (its ``knn_points``, where it imports).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

Backend = Literal["auto", "kdtree", "brute", "pytorch3d"]

PAIRS = 2**24
"""Distances that ``brute`` holds at once: 64 MB in float32."""


class Nearest(NamedTuple):
    """The k nearest targets of each query, nearest first. Of targets that are equally near, any."""

    index: Tensor
    """(B, N, k) int64, which target; -1 where there are fewer (within reach), and for queries beyond their number."""
    squared_distance: Tensor
    """(B, N, k) differentiable with respect to queries and targets; infinite, with zero gradient, where the index is -1."""


class NearestTo:
    """Clouds ``targets`` (B, M, 3), prepared for many questions. ``lengths`` (B,) says how many points of each count.

    ``backend`` ``auto`` is ``kdtree`` for tensors on the CPU, where trees are built here and kept; on a GPU ``pytorch3d``
    where it imports and the points are float32, else ``brute``; asked for by name, it searches in float32 whatever the points
    are. Raises ``ValueError`` for other shapes and for points that are not finite.
    """

    def __init__(self, targets: Tensor, lengths: Tensor | None = None, *, backend: Backend = "auto") -> None:
        self.lengths = _check("targets", targets, lengths)
        # An empty cloud gets a point that never counts, so that gathering stays possible.
        self.targets = torch.nn.functional.pad(targets, (0, 0, 0, 1)) if targets.shape[1] == 0 else targets
        self.backend = choose_backend(targets, backend)
        self._trees: list[cKDTree] = []
        if self.backend == "kdtree":
            clouds = self.targets.detach().cpu().double().numpy()
            # A tree belongs to one cloud, so building them is a loop; the questions of all points are asked at once.
            self._trees = [cKDTree(cloud[:n]) for cloud, n in zip(clouds, self.lengths.tolist(), strict=True)]

    def __call__(self, queries: Tensor, k: int = 1, *, lengths: Tensor | None = None, within: float = math.inf) -> Nearest:
        """The ``k`` nearest targets of ``queries`` (B, N, 3), of which ``lengths`` (B,) count. Raises as the constructor.

        Targets further than ``within`` do not count. That saves ``kdtree`` most of its time where many queries, the back
        of a head say, are far from all targets.
        """
        lengths = _check("queries", queries, lengths)
        if len(queries) != len(self.targets):
            raise ValueError(f"{len(queries)} batch items ask for their nearest points in {len(self.targets)} clouds")
        if k < 1:
            raise ValueError(f"at least one neighbour is asked for, got k = {k}")
        if not within >= 0:
            raise ValueError(f"a distance is not negative, got {within}: leave it out where there is no bound")
        with torch.no_grad():
            index = self._find(queries.detach(), lengths, k, within)
            known = (index >= 0) & (torch.arange(k, device=index.device) < self.lengths[:, None, None])
            known = known & (torch.arange(queries.shape[1], device=index.device) < lengths[:, None])[..., None]
            index = torch.where(known, index, -1)
        offsets = queries[:, :, None] - take(self.targets, index)
        squared = (offsets * offsets).sum(dim=-1)
        known = known & (squared.detach() <= within**2)
        return Nearest(torch.where(known, index, -1), torch.where(known, squared, torch.inf))

    def _find(self, queries: Tensor, lengths: Tensor, k: int, within: float) -> Tensor:
        """Indices (B, N, k) of which those without a target or a query, or further than ``within``, are anything."""
        if self.backend == "kdtree":
            points, workers = queries.cpu().double().numpy(), torch.get_num_threads()
            ranks = np.arange(1, k + 1)
            # Its bound is exclusive and in float64; what is at the border is decided later, alike for all backends.
            asked = {"distance_upper_bound": max(within * (1 + 1e-5), 1e-150), "workers": workers}
            found = [tree.query(cloud, ranks, **asked)[1] for tree, cloud in zip(self._trees, points, strict=True)]
            index = np.stack(found) if found else np.zeros((0, queries.shape[1], k), np.int64)
            # Where it finds nothing it says the number of its points.
            index[index == np.array([tree.n for tree in self._trees], np.int64)[:, None, None]] = -1
            return torch.from_numpy(index.astype(np.int64, copy=False)).to(queries.device)
        targets = self.targets.detach().to(queries.dtype)
        if self.backend == "pytorch3d":
            knn_points = pytorch3d_knn()
            assert knn_points is not None
            # Its CPU code knows float32 only. Seen from a point of the cloud, that keeps the digits that matter.
            origin = targets[:, :1]
            near, there = (queries - origin).float(), (targets - origin).float()
            return knn_points(near, there, lengths, self.lengths, K=k, return_sorted=True).idx
        return _brute(queries, targets, self.lengths, k)


def nearest(
    queries: Tensor,
    targets: Tensor,
    k: int = 1,
    *,
    query_lengths: Tensor | None = None,
    target_lengths: Tensor | None = None,
    backend: Backend = "auto",
) -> Nearest:
    """The ``k`` nearest of ``targets`` (B, M, 3) for each of ``queries`` (B, N, 3), in any unit.

    Clouds of several sizes are padded at the end (``pad_clouds``) and ``lengths`` (B,) say what counts. For clouds that are asked
    more than once, keep a ``NearestTo``; this makes one and forgets it. Raises ``ValueError`` as that does.
    """
    return NearestTo(targets, target_lengths, backend=backend)(queries, k, lengths=query_lengths)


def choose_backend(targets: Tensor, backend: Backend = "auto") -> Backend:
    """The backend that ``auto`` stands for with ``targets``. Raises ``ValueError`` for one that cannot be used."""
    if backend == "auto":
        if targets.device.type == "cpu":
            return "kdtree"
        single = targets.device.type == "cuda" and targets.dtype == torch.float32
        return "pytorch3d" if single and pytorch3d_knn() is not None else "brute"
    if backend == "pytorch3d" and pytorch3d_knn() is None:
        raise ValueError("PyTorch3D does not import here: choose backend auto, kdtree or brute")
    return backend


@cache
def pytorch3d_knn() -> Callable[..., Any] | None:
    """PyTorch3D's ``knn_points``, or None where it is missing or was built for another torch."""
    try:
        from pytorch3d.ops import knn_points
    except (ImportError, OSError):
        return None
    found: Callable[..., Any] = knn_points
    return found


def take(values: Tensor, index: Tensor) -> Tensor:
    """``values`` (B, M, C) of each of ``index`` (B, N, k): (B, N, k, C). Where the index is -1, those of point 0."""
    flat = index.clamp(min=0).flatten(1)[..., None].expand(-1, -1, values.shape[-1])
    return values.gather(1, flat).unflatten(1, index.shape[1:])


def pad_clouds(clouds: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Clouds (M_b, C) of several sizes as one tensor (B, max M, C), padded with zeros, and their lengths (B,)."""
    lengths = torch.tensor([len(cloud) for cloud in clouds], device=clouds[0].device)
    return torch.nn.utils.rnn.pad_sequence(list(clouds), batch_first=True), lengths


class Match(NamedTuple):
    """For each vertex the point of the cloud that it is drawn to. Kept over the iterations between two searches."""

    index: Tensor
    """(B, N) int64, -1 where the cloud has none within the distance."""
    inlier: Tensor
    """(B, N) bool: passed every gate."""
    points: Tensor
    """(B, N, 3) P; anything where the index is -1."""
    normals: Tensor | None
    """(B, N, 3) N of length 1, or None where the cloud has no normals."""


class Residual(NamedTuple):
    """What a fit makes small."""

    residual: Tensor
    """(B, N, 3) or (B, N), in the unit of the points; zero, with zero gradient, where the weight is."""
    weight: Tensor
    """(B, N) 1 for inliers, 0 for others."""
    index: Tensor
    """(B, N) int64, the point of the cloud or -1."""

    @property
    def inliers(self) -> Tensor:
        """(B,) how many; divide by this for a mean, and clamp it first: it can be zero."""
        return self.weight.sum(dim=-1)


def match(
    vertices: Tensor,
    cloud: NearestTo,
    *,
    lengths: Tensor | None = None,
    vertex_normals: Tensor | None = None,
    cloud_normals: Tensor | None = None,
    max_distance: float | None = None,
    max_angle_deg: float | None = None,
) -> Match:
    """The nearest point of the cloud for each of ``vertices`` (B, N, 3), and whether it is to be believed.

    Not believed are points further than ``max_distance``, points whose normal differs from the vertex's by more than
    ``max_angle_deg`` degrees, points whose normal is zero or not finite (unknown), and vertices beyond ``lengths`` (B,).
    Normals are ``vertex_normals`` (B, N, 3) and ``cloud_normals`` (B, M, 3), of any length. Raises ``ValueError`` where
    normals are missing for the gate, and as ``NearestTo``.
    """
    if max_angle_deg is not None and (vertex_normals is None or cloud_normals is None):
        raise ValueError("a gate on the angle compares vertex_normals with cloud_normals: give both")
    found = cloud(vertices.detach(), lengths=lengths, within=math.inf if max_distance is None else max_distance)
    inlier = found.index[..., 0] >= 0
    normals = None
    if cloud_normals is not None:
        if cloud_normals.shape[1] == 0:
            cloud_normals = torch.nn.functional.pad(cloud_normals, (0, 0, 0, 1))
        normals = torch.nn.functional.normalize(take(cloud_normals, found.index)[..., 0, :].nan_to_num(0, 0, 0), dim=-1)
        inlier = inlier & (normals != 0).any(dim=-1)
    if max_angle_deg is not None and vertex_normals is not None and normals is not None:
        cosine = (torch.nn.functional.normalize(vertex_normals.detach(), dim=-1) * normals.detach()).sum(dim=-1)
        inlier = inlier & (cosine >= math.cos(math.radians(max_angle_deg)))
    return Match(found.index[..., 0], inlier, take(cloud.targets, found.index)[..., 0, :], normals)


def point_to_point(vertices: Tensor, matched: Match) -> Residual:
    """V - P (B, N, 3) for ``vertices`` V (B, N, 3). FaceTalk, supplement D, eq. 22 takes its L1 norm."""
    residual = torch.where(matched.inlier[..., None], vertices - matched.points, 0.0)
    return Residual(residual, matched.inlier.to(vertices.dtype), matched.index)


def point_to_plane(vertices: Tensor, matched: Match) -> Residual:
    """(V - P) · N (B, N) for ``vertices`` V (B, N, 3), positive on the side that the normals point to.

    FaceTalk, supplement D, eq. 23, which as printed reads V - P · N, a vector minus a number. Raises ``ValueError`` where the
    match has no normals.
    """
    if matched.normals is None:
        raise ValueError("the distance to a plane needs its normal: give match() cloud_normals")
    residual = torch.where(matched.inlier, ((vertices - matched.points) * matched.normals).sum(dim=-1), 0.0)
    return Residual(residual, matched.inlier.to(vertices.dtype), matched.index)


def _check(name: str, points: Tensor, lengths: Tensor | None) -> Tensor:
    """The lengths (B,), of ``points`` that are as they should be; whole clouds where none are given."""
    if points.ndim != 3 or points.shape[-1] != 3:
        raise ValueError(f"{name} have shape (B, points, 3), got {tuple(points.shape)}")
    batch, size, _ = points.shape
    if lengths is None:
        lengths = torch.full((batch,), size, device=points.device)
    elif lengths.shape != (batch,) or bool(((lengths < 0) | (lengths > size)).any()):
        raise ValueError(f"lengths of {name} are {batch} integers from 0 to {size}, got {lengths.tolist()}")
    if not bool(points.isfinite().all()):
        bad = int((~points.isfinite()).flatten(1).any(dim=1).nonzero()[0])
        raise ValueError(f"{name} of batch item {bad} are not all finite: leave those points out")
    return lengths.to(points.device, torch.int64)


def _brute(queries: Tensor, targets: Tensor, lengths: Tensor, k: int) -> Tensor:
    batch, size, _ = targets.shape
    absent = (torch.arange(size, device=targets.device) >= lengths[:, None])[:, None]
    step = max(1, PAIRS // max(1, batch * size))

    def search(piece: Tensor) -> Tensor:
        # Not by |q|² - 2 q·t + |t|², which loses tenths of millimetres a metre from the origin in float32.
        distance = torch.cdist(piece, targets, compute_mode="donot_use_mm_for_euclid_dist").masked_fill_(absent, torch.inf)
        return distance.topk(min(k, size), dim=-1, largest=False).indices

    found = [search(piece) for piece in queries.split(step, dim=1)]
    return torch.nn.functional.pad(torch.cat(found, dim=1), (0, max(0, k - size)))
