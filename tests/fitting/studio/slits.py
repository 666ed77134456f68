"""Pairs of vertices that face each other across the slit of the mouth or of an eye."""

from __future__ import annotations

import numpy as np

from fitting.studio.features import SKIN, eye, mouth
from fitting.studio.mesh import HeadMesh


def facing(mesh: HeadMesh, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Upper and lower vertices, ``where`` being mouth or eyes."""
    slit = mouth(mesh.sites) if where == "mouth" else eye(mesh.sites)
    x, y, z = mesh.sites.base.T
    on_it = (mesh.sites.patch == SKIN) & (slit.distance < 1e-9) & (z > 0) & ((y < 0) == (where == "mouth"))
    upper, lower = (np.nonzero(on_it & (mesh.sites.side == side))[0] for side in (1, -1))
    upper, lower = (vertices[np.argsort(x[vertices])] for vertices in (upper, lower))
    assert len(upper) == len(lower) > 8
    assert np.allclose(x[upper], x[lower])
    return upper, lower
