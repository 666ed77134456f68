"""Meshes as PLY files, which every viewer reads."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

_FACE = np.dtype([("count", "u1"), ("corners", "<i4", 3)])


def ply_bytes(vertices: ArrayLike, faces: ArrayLike) -> bytes:
    """A binary PLY file of a mesh: vertices (V, 3), stored as float32 in the unit they have, and triangles (F, 3)."""
    points, corners = np.asarray(vertices, "<f4"), np.asarray(faces, "<i4")
    if points.ndim != 2 or points.shape[1] != 3 or corners.ndim != 2 or corners.shape[1] != 3:
        raise ValueError(f"a mesh has vertices (V, 3) and triangles (F, 3), got {points.shape} and {corners.shape}")
    rows = np.empty(len(corners), _FACE)
    rows["count"], rows["corners"] = 3, corners
    head = [
        "ply",
        "format binary_little_endian 1.0",
        f"element vertex {len(points)}",
        *(f"property float {axis}" for axis in "xyz"),
        f"element face {len(corners)}",
        "property list uchar int vertex_indices",
        "end_header\n",
    ]
    return "\n".join(head).encode() + points.tobytes() + rows.tobytes()
