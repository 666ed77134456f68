"""What the movement follows: sound or landmarks, as so many numbers for each frame.

A condition reads the same numbers from a batch of windows and from a whole clip: frame f of a window that begins at f0 has what
frame f0 + f of the clip has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from manifests.clock import window_start
from manifests.document import ManifestError
from training.facetalk.settings import ConditionName
from training.model import Batch


class Condition(Protocol):
    """A front end."""

    columns: tuple[str, ...]
    """What it reads."""
    context: int
    """Frames before and after a window that it reads as well."""
    width: int
    """Numbers for a frame."""

    def windows(self, batch: Batch, n_frames: int, fps: tuple[int, int]) -> Tensor:
        """(B, T, width) float32 of a ``batch`` of windows of ``n_frames`` T, without the context, at ``fps``."""

    def whole(self, values: Mapping[str, Any], n_frames: int, fps: tuple[int, int]) -> Tensor:
        """(T, width) float32 of a clip's whole columns, ``n_frames`` T at ``fps``."""


def condition_of(name: ConditionName) -> Condition:
    """The condition that settings name."""
    made: dict[ConditionName, Callable[[], Condition]] = {
        "mel": Mel,
        "wav2vec": lambda: Features("wav2vec", 768),
        "wav2vec_large": lambda: Features("wav2vec_large", 1024),
        "landmarks": Landmarks,
    }
    return made[name]()


class Mel:
    """The 16 frames (0.2 s) of the mel spectrogram around each frame's moment."""

    columns: tuple[str, ...] = ("mel",)
    context = 8
    bands, length = 80, 16
    width = bands * length

    def windows(self, batch: Batch, n_frames: int, fps: tuple[int, int]) -> Tensor:
        mel = batch["mel"]
        first = np.asarray(batch["first"].cpu())
        begins = window_start(first - self.context, *fps)
        places = self._around(first[:, None] + np.arange(n_frames), fps) - begins[:, None, None]
        if places.min() < 0 or places.max() >= mel.shape[-1]:
            raise ManifestError(
                f"{self.context} frames beside a window hold less than 0.1 s at {fps[0] / fps[1]:g} frames a second"
            )
        index = torch.from_numpy(places.reshape(len(first), 1, -1)).to(mel.device).expand(-1, self.bands, -1)
        seen = mel.gather(2, index).unflatten(2, (n_frames, self.length))
        return seen.transpose(1, 2).flatten(2).float()

    def whole(self, values: Mapping[str, Any], n_frames: int, fps: tuple[int, int]) -> Tensor:
        mel = torch.as_tensor(values["mel"])
        places = np.clip(self._around(np.arange(n_frames), fps), 0, mel.shape[-1] - 1)
        return mel[:, torch.from_numpy(places)].transpose(0, 1).flatten(1).float()

    def _around(self, frames: Any, fps: tuple[int, int]) -> Any:
        """(..., 16) mel frames around video ``frames`` (...,). Mel frame m is centred on m / 80 s."""
        return window_start(frames, *fps)[..., None] + np.arange(self.length) - self.length // 2


class Features:
    """A column of features that has a row for each frame, such as those of wav2vec 2.0."""

    context = 0

    def __init__(self, column: str, width: int) -> None:
        self.columns: tuple[str, ...] = (column,)
        self.width = width

    def windows(self, batch: Batch, n_frames: int, fps: tuple[int, int]) -> Tensor:
        found: Tensor = batch[self.columns[0]].float()
        return found

    def whole(self, values: Mapping[str, Any], n_frames: int, fps: tuple[int, int]) -> Tensor:
        return torch.as_tensor(values[self.columns[0]]).float()


class Landmarks:
    """The 68 landmarks in the head's own frame, NPHM's (supplement A, figure 8)."""

    columns: tuple[str, ...] = ("landmarks3d", "world_to_nphm")
    context = 0
    width = 3 * 68

    def windows(self, batch: Batch, n_frames: int, fps: tuple[int, int]) -> Tensor:
        return self._still(batch["landmarks3d"], batch["world_to_nphm"])

    def whole(self, values: Mapping[str, Any], n_frames: int, fps: tuple[int, int]) -> Tensor:
        return self._still(*(torch.as_tensor(values[name]) for name in self.columns))

    def _still(self, points: Tensor, to_head: Tensor) -> Tensor:
        """(..., T, 204) of ``points`` (..., T, 68, 3) in metres of the world and ``to_head`` (..., T, 4, 4)."""
        turned = points.double() @ to_head[..., :3, :3].transpose(-1, -2) + to_head[..., None, :3, 3]
        return turned.flatten(-2).float()
