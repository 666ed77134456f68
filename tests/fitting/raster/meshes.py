"""Meshes whose pictures are known, and a slow rasteriser to compare with."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from scipy.spatial import Delaunay
from torch import Tensor


class Mesh(NamedTuple):
    vertices: Tensor
    """(V, 3) float64 metres; y up, the camera of ``seen`` on +z."""
    faces: Tensor
    """(F, 3) int64, counter-clockwise from outside."""
    uv: Tensor
    """(V, 2) longitude and latitude, 0 to 1."""


def ball(n_faces: int, *, radius: float = 0.1, bumps: float = 0.0) -> Mesh:
    """A sphere of about ``n_faces``, with a seam at the back, and bumps if wanted."""
    n = max(2, round(math.sqrt(n_faces / 4)))
    latitude, longitude = torch.linspace(0, 1, n + 1, dtype=torch.float64), torch.linspace(0, 1, 2 * n + 1, dtype=torch.float64)
    v, u = torch.meshgrid(latitude, longitude, indexing="ij")
    up, around = math.pi * v, 2 * math.pi * u
    r = radius * (1 + bumps * torch.sin(9 * up) * torch.cos(7 * around))
    vertices = torch.stack([-up.sin() * around.sin() * r, -up.cos() * r, -up.sin() * around.cos() * r], dim=-1)
    corner = torch.arange(n)[:, None] * (2 * n + 1) + torch.arange(2 * n)
    a, b, c, d = corner, corner + 1, corner + 2 * n + 2, corner + 2 * n + 1
    faces = torch.cat([torch.stack([a, b, c], dim=-1)[1:].flatten(0, 1), torch.stack([a, c, d], dim=-1)[:-1].flatten(0, 1)])
    return Mesh(vertices.flatten(0, 1), faces, torch.stack([u, v], dim=-1).flatten(0, 1))


def seen(vertices: Tensor, size: tuple[int, int], *, distance: float = 0.5, fill: float = 0.45) -> Tensor:
    """Points (1, V, 3) of ``vertices`` before a camera on +z; 0.1 m at the origin are ``fill`` of the image's shorter side."""
    height, width = size
    depth = distance - vertices[:, 2]
    scale = fill * min(size) * distance / 0.1
    x, y = vertices[:, 0] / depth * scale + width / 2 + 0.123, -vertices[:, 1] / depth * scale + height / 2 + 0.077
    return torch.stack([x, y, depth], dim=-1)[None]


def random_triangles(seed: int, n: int, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Points (1, 3 n, 3) of triangles that share nothing, in float64, some of them partly outside, and faces (n, 3)."""
    rng = np.random.default_rng(seed)
    corners = rng.uniform((-0.3, -0.3, 0.5), (1.3, 1.3, 2.0), (n, 3, 3)) * (size[1], size[0], 1)
    return torch.tensor(corners.reshape(1, -1, 3)), torch.arange(3 * n).reshape(n, 3)


def triangulated_quad(seed: int, size: tuple[int, int], *, step: float) -> tuple[Tensor, Tensor]:
    """A rectangle as large as the image, cut into triangles with corners on multiples of ``step`` pixels, at depth 1."""
    rng, (height, width) = np.random.default_rng(seed), size
    inner = np.round(rng.uniform(0, (width, height), (60, 2)) / step) * step
    outer = np.array([(0, 0), (width, 0), (0, height), (width, height)])
    places = np.unique(np.concatenate([outer, inner]), axis=0)
    points = torch.tensor(np.concatenate([places, np.ones((len(places), 1))], axis=1))
    return points[None], torch.tensor(Delaunay(places).simplices, dtype=torch.int64)


class Slow(NamedTuple):
    face: Tensor
    barycentric: Tensor
    depth: Tensor
    clear: Tensor
    """(H, W) bool, the pixel's centre is further than 0.001 pixels from the side of any face."""


def slow_rasterize(points: Tensor, faces: Tensor, size: tuple[int, int]) -> Slow:
    """One image of points (V, 3) plainly: all faces at all pixels, in float64, differentiable by autograd.

    Of the sides, those count as inside that have the face at their right or level ones below them.
    """
    height, width = size
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    centre = torch.stack([x, y], dim=-1).double()[..., None, :]
    corner = points.double()[faces]
    edges, inside, away = [], [], []
    turn = torch.sign(cross(corner[:, 1, :2] - corner[:, 0, :2], corner[:, 2, :2] - corner[:, 0, :2])).detach()
    for k in range(3):
        a, b = corner[:, (k + 1) % 3, :2], corner[:, (k + 2) % 3, :2]
        edge = cross(a - centre, b - centre)
        along = (b - a) * turn[:, None]
        top_or_left = (along[:, 1] < 0) | ((along[:, 1] == 0) & (along[:, 0] > 0))
        edges.append(edge)
        inside.append((edge * turn > 0) | ((edge == 0) & top_or_left))
        away.append(edge.abs() / torch.linalg.vector_norm(b - a, dim=-1))
    weight = torch.stack(edges, dim=-1) / corner[:, :, 2]
    depth = sum(edges) / weight.sum(dim=-1)
    covered = inside[0] & inside[1] & inside[2]
    hidden = torch.where(covered, depth.detach(), torch.inf).numpy()
    face = torch.tensor(hidden.argmin(axis=-1))
    hit = covered.any(dim=-1)

    def chosen(value: Tensor) -> Tensor:
        index = face[..., None] if value.ndim == 3 else face[..., None, None].expand(-1, -1, 1, value.shape[-1])
        return value.gather(2, index)[:, :, 0]

    barycentric = torch.where(hit[..., None], chosen(weight / weight.sum(dim=-1, keepdim=True)), 0.0)
    clear = (torch.stack(away) > 1e-3).all(dim=0).all(dim=-1)
    return Slow(torch.where(hit, face, -1), barycentric, torch.where(hit, chosen(depth), 0.0), clear)


def cross(a: Tensor, b: Tensor) -> Tensor:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]
