"""Scenes whose pictures and depths are exact: planes and balls with a texture that fills space."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from fitting.cameras import Camera
from fitting.stereo import DepthMaps, Views
from fitting.studio.rig import look_at

SIZE = (160, 128)
"""Width and height."""


class Plane(NamedTuple):
    """Points with normal · x = offset, within ``reach`` of the origin in x and y."""

    normal: tuple[float, float, float]
    offset: float
    reach: float = np.inf


class Ball(NamedTuple):
    centre: tuple[float, float, float]
    radius: float


class Scene(NamedTuple):
    """What was seen, and what is true."""

    views: Views
    truth: DepthMaps


def cameras(angles: tuple[float, ...] = (-30, -15, 0, 15, 30), focal: float = 420.0) -> Camera:
    """A row of cameras a metre from the origin, ``angles`` in degrees to the side."""
    turned = torch.deg2rad(torch.tensor(angles, dtype=torch.float64))
    centres = torch.stack([turned.sin(), torch.full_like(turned, 0.05), turned.cos()], dim=-1)
    width, height = SIZE
    intrinsics = torch.tensor([[focal, 0, width / 2 + 1.3], [0, focal, height / 2 - 0.7], [0, 0, 1]], dtype=torch.float64)
    return Camera(intrinsics, look_at(centres, torch.zeros(len(angles), 3, dtype=torch.float64)), width, height)


def picture(shapes: list[Plane | Ball], seen_by: Camera, *, contrast: float = 40.0, noise: float = 0.0, seed: int = 0) -> Scene:
    """Pictures of ``shapes``, the nearest first, in true colours before grey; masks are where something is."""
    rng = np.random.default_rng([seed, 77])
    waves = rng.standard_normal((60, 3))
    waves *= 2 * np.pi * rng.uniform(25, 110, (60, 1)) / np.linalg.norm(waves, axis=1, keepdims=True)
    phases = rng.uniform(0, 2 * np.pi, 60)
    pictures, depths, normals = [], [], []
    for index in range(seen_by.batch[0]):
        camera = seen_by[index]
        rotation, centre = camera.pose.rotation.numpy(), camera.centre.numpy()
        x, y = np.meshgrid(np.arange(SIZE[0]) + 0.5, np.arange(SIZE[1]) + 0.5)
        rays = np.stack([x, y, np.ones_like(x)], axis=-1) @ np.linalg.inv(camera.intrinsics.numpy()).T @ rotation
        depth, normal = np.full(x.shape, np.inf), np.zeros((*x.shape, 3))
        for shape in shapes:
            far, out = _meet(shape, centre, rays)
            nearer = far < depth
            depth, normal = np.where(nearer, far, depth), np.where(nearer[..., None], out, normal)
        hit = np.isfinite(depth)
        points = centre + np.where(hit, depth, 0)[..., None] * rays
        grey = 128 + contrast * np.where(hit, np.sqrt(2 / 60) * np.cos(points @ waves.T + phases).sum(axis=-1), 0)
        colours = grey[..., None] + noise * rng.standard_normal((*grey.shape, 3))
        pictures.append(np.clip(np.rint(colours), 0, 255).astype(np.uint8))
        depths.append(np.where(hit, depth, 0))
        normals.append(np.where(hit[..., None], normal @ rotation.T, 0))
    depth, normal = np.stack(depths).astype(np.float32), np.stack(normals).astype(np.float32)
    truth = DepthMaps(depth, normal, (depth > 0).astype(np.float32))
    return Scene(Views(np.stack(pictures), seen_by, depth > 0), truth)


def _meet(shape: Plane | Ball, centre: NDArray[np.float64], rays: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    """How far along rays with length 1 along the axis, infinite where they miss, and the normals there."""
    if isinstance(shape, Plane):
        normal = np.array(shape.normal) / np.linalg.norm(shape.normal)
        far = (shape.offset - centre @ normal) / (rays @ normal)
        points = centre + far[..., None] * rays
        hit = (far > 0) & (np.abs(points[..., :2]).max(axis=-1) <= shape.reach)
        return np.where(hit, far, np.inf), np.broadcast_to(normal, rays.shape)
    away = centre - np.array(shape.centre)
    a, b, c = (rays**2).sum(axis=-1), rays @ away, away @ away - shape.radius**2
    inner = b * b - a * c
    hit = inner > 0
    far = np.where(hit, (-b - np.sqrt(np.where(hit, inner, 0))) / a, np.inf)
    return far, (away + np.where(hit, far, 0)[..., None] * rays) / shape.radius


def errors_mm(found: DepthMaps, truth: DepthMaps) -> NDArray[np.float32]:
    """Absolute errors of depth where both have one."""
    known = (found.depth > 0) & (truth.depth > 0)
    return np.asarray(1000 * np.abs(found.depth - truth.depth)[known], np.float32)


def coverage(found: DepthMaps, truth: DepthMaps) -> float:
    """The share of pixels with a true depth that have one."""
    return float((found.depth > 0)[truth.depth > 0].mean())
