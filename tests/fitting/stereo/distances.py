"""Exact distances of points to a mesh."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

CANDIDATES = 12


def to_mesh(points: NDArray[np.float64], vertices: NDArray[np.float64], faces: NDArray[np.int64]) -> NDArray[np.float64]:
    """(N,) from each of ``points`` (N, 3) to the nearest of the triangles whose middles are nearest to it."""
    corners = vertices[faces]
    near = cKDTree(corners.mean(axis=1)).query(points, k=min(CANDIDATES, len(faces)))[1]
    return np.asarray(_to_triangles(points[:, None], corners[near]).min(axis=1))


def _to_triangles(points: NDArray[np.float64], corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distances (...) of points (..., 3) to triangles (..., 3, 3): inside, to the plane; else to the nearest side."""
    sides = np.roll(corners, -1, axis=-2) - corners
    normal = np.cross(sides[..., 0, :], sides[..., 1, :])
    normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-30)
    away = points[..., None, :] - corners
    inside = (np.einsum("...i,...ki->...k", normal, np.cross(sides, away)) >= 0).all(axis=-1)
    plane = np.abs((away[..., 0, :] * normal).sum(axis=-1))
    along = ((away * sides).sum(axis=-1) / np.maximum((sides**2).sum(axis=-1), 1e-30)).clip(0, 1)
    edge = np.linalg.norm(away - along[..., None] * sides, axis=-1).min(axis=-1)
    return np.where(inside, plane, edge)
