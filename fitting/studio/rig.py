"""Where the studio's cameras stand: one before the face, or NeRSemble's sixteen around it. The world is FLAME's space at rest.

The sixteen stand about a metre from the head on an arc of 93° by 32°, upright, in three rows, under the serial numbers of
the real ones (Kirschstein et al., *NeRSemble*, SIGGRAPH 2023); their exact places are the studio's own. As with the real ones,
colours differ from camera to camera, here by a map that is known exactly.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fitting.cameras import Camera
from prep.capture import NERSEMBLE_SIZE

SERIALS = (
    *("222200042", "222200044", "222200046", "222200040", "222200036", "222200048", "220700191", "222200041"),
    *("222200037", "222200038", "222200047", "222200043", "222200049", "222200039", "222200045", "221501007"),
)
"""NeRSemble's cameras from the person's right to its left; the ninth looks straight at the face."""

TARGET = (0.0, -0.01, 0.0)
"""What all cameras look at: a point between the eyes and the mouth, inside the head."""

_FOCAL = 8200.0
_ROWS = ((16.0, (-37.0, -18.5, 0.0, 18.5, 37.0)), (0.0, (-46.5, -31.0, -15.5, 0.0, 15.5, 31.0, 46.5)), (-16.0, (-26, -9, 9, 26)))


class Rig(NamedTuple):
    """Cameras that record together."""

    serials: tuple[str, ...]
    cameras: Camera
    """A batch (C,) for the full size, float64."""
    to_true: NDArray[np.float64]
    """(C, 3, 3) from each camera's linear RGB to the true one: colour calibration."""


def sixteen(seed: int = 0) -> Rig:
    """NeRSemble's rig; ``seed`` draws how cameras deviate in place, aim, roll and colour, as those of a real rig do."""
    rng = np.random.default_rng(seed)
    angles = sorted((azimuth, -elevation) for elevation, row in _ROWS for azimuth in row)
    azimuth, elevation = np.radians(np.array(angles) * (1, -1)).T
    distance = 1.05 + 0.02 * rng.standard_normal(16)
    directions = np.stack([np.sin(azimuth) * np.cos(elevation), np.sin(elevation), np.cos(azimuth) * np.cos(elevation)], 1)
    centres = np.array(TARGET) + distance[:, None] * directions
    targets = np.array(TARGET) + 0.004 * rng.standard_normal((16, 3))
    poses = look_at(torch.from_numpy(centres), torch.from_numpy(targets), torch.from_numpy(0.01 * rng.standard_normal(16)))
    mixing = np.eye(3) * (1 + 0.06 * rng.standard_normal((16, 1, 3))) + 0.02 * rng.standard_normal((16, 3, 3))
    return Rig(SERIALS, Camera(_intrinsics(_FOCAL, *NERSEMBLE_SIZE), poses, *NERSEMBLE_SIZE), mixing)


def in_front(width: int, height: int, *, fill: float = 0.66, distance: float = 0.9) -> Camera:
    """One camera (), float64, straight before the face. ``fill`` is the share of the shorter side that a head of 23 cm takes."""
    focal = fill * min(width, height) * distance / 0.23
    centre = torch.tensor(TARGET, dtype=torch.float64) + torch.tensor([0.0, 0.0, distance], dtype=torch.float64)
    pose = look_at(centre, torch.tensor(TARGET, dtype=torch.float64))
    return Camera(_intrinsics(focal, width, height), pose, width, height)


def look_at(centre: Tensor, target: Tensor, roll: Tensor | None = None) -> Tensor:
    """World-to-camera matrices (..., 4, 4) of cameras at ``centre`` (..., 3) that look at ``target`` (..., 3) with the world's
    y upwards, then turned about their axis so that the picture turns clockwise by ``roll`` (...) radians."""
    forward = torch.nn.functional.normalize(target - centre, dim=-1)
    up = torch.tensor([0.0, 1.0, 0.0], dtype=centre.dtype).expand_as(forward)
    right = torch.nn.functional.normalize(torch.linalg.cross(forward, up), dim=-1)
    down = torch.linalg.cross(forward, right)
    if roll is not None:
        cosine, sine = torch.cos(roll)[..., None], torch.sin(roll)[..., None]
        right, down = cosine * right - sine * down, sine * right + cosine * down
    rotation = torch.stack([right, down, forward], dim=-2)
    translation = -(rotation @ centre[..., None])
    bottom = torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=centre.dtype).expand(*centre.shape[:-1], 1, 4)
    return torch.cat([torch.cat([rotation, translation], dim=-1), bottom], dim=-2)


def neighbours(cameras: Camera) -> NDArray[np.int64]:
    """For each camera of a batch the one that looks from the least different direction: (C,)."""
    axes = cameras.world_to_camera[:, 2, :3].double()
    cosines = axes @ axes.T - 2 * torch.eye(len(axes), dtype=torch.float64)
    return np.asarray(cosines.argmax(dim=1).numpy())


def _intrinsics(focal: float, width: int, height: int) -> Tensor:
    return torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]], dtype=torch.float64)
