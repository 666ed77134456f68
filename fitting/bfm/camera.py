"""Where Deep3DFaceRecon's face stands, and what its camera sees.

Three spaces, all in decimetres, points as rows:

- the model's: y up, z out of the face towards the camera, the mean of the vertices at the origin;
- the posed face: p = x Rᵀ + t, same axes;
- the camera's: (x, y, 10 - z), still y up, z now away from the camera.

And two kinds of pixels in the 224×224 crop. ``project_y_up`` gives Deep3DFaceRecon's own numbers: indices of pixels, counted
from the bottom. ``project_y_down`` gives the pixels that everything else here uses: x right, y down, the centre of the
top-left pixel at (0.5, 0.5). They differ by x + 0.5 and 223.5 - y.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fitting.rotations import euler_zyx_to_matrix

SIZE = 224
"""Pixels of the crop, each way."""
FOCAL = 1015.0
CENTRE = 112.0
"""Principal point in Deep3DFaceRecon's pixels, in x and y."""
CENTRE_X, CENTRE_Y = CENTRE + 0.5, SIZE - 0.5 - CENTRE
"""The same with y down and pixel centres at 0.5."""
DISTANCE = 10.0
"""Decimetres from the camera to the origin."""


def pose(points: Tensor, angles: Tensor, translation: Tensor) -> Tensor:
    """Turn and move ``points`` (..., P, 3) by ``angles`` (..., 3) in radians and ``translation`` (..., 3): p = x Rᵀ + t."""
    return points @ euler_zyx_to_matrix(angles).mT + translation[..., None, :]


def to_camera(points: Tensor) -> Tensor:
    """Posed ``points`` (..., 3) in the camera's space, y up: (x, y, 10 - z)."""
    return torch.cat([points[..., :2], DISTANCE - points[..., 2:]], dim=-1)


def project_y_up(points: Tensor) -> Tensor:
    """Deep3DFaceRecon's pixels (..., 2) of ``points`` (..., 3) in the camera's space: 112 + 1015 x / z, y up."""
    return CENTRE + FOCAL * points[..., :2] / points[..., 2:]


def project_y_down(points: Tensor) -> Tensor:
    """Pixels (..., 2) of the crop of ``points`` (..., 3) in the camera's space; y down, pixel centres at 0.5."""
    up = project_y_up(points)
    return torch.stack([up[..., 0] + 0.5, SIZE - 0.5 - up[..., 1]], dim=-1)
