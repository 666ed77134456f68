"""What a model is to the training loop: which windows it wants, what it minimises, and what it measures.

A model of a paper is one subclass of ``Model`` in a module that ``training.models`` names; docs/training.md is the guide to
writing one. The loop owns everything else: data, steps, precision, checkpoints, ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer

from manifests.document import ManifestError, Part
from manifests.training import Window
from training.draws import Draws

Batch = dict[str, Any]
"""One rank's samples of a step, or a part of them: see ``training.loader``."""

Losses = dict[str, Tensor]
"""Means over the batch's samples, (); ``loss`` is what is minimised, the others are shown."""


@dataclass(frozen=True)
class Partner:
    """A second window beside each sample's own, of the same length.

    ``same_clip``: another window of that clip. ``same_person``: a window of another clip of that person. ``other_person``: a
    window of anybody else. Where there is no other, a clip or a person is its own partner; a dataset of one person has no
    ``other_person`` and is refused. In batches its columns are called ``<partner>.<column>``.
    """

    kind: Literal["same_clip", "same_person", "other_person"]
    columns: tuple[str, ...]


@dataclass(frozen=True)
class Needs:
    """What a model reads."""

    columns: tuple[str, ...]
    window: Window
    partners: Mapping[str, Partner] = field(default_factory=dict)


class Update(NamedTuple):
    """One of the optimisations that make up a step; a GAN has two."""

    name: str
    loss: Callable[[Batch, Draws], Losses]
    optimiser: Optimizer
    """Its parameters are those that the update changes."""
    every: int = 1
    """Steps from one to the next."""


class Model(nn.Module):
    """Base of all models. ``Settings`` are checked against the manifest's ``settings``.

    A model is made of its settings and the frame rate alone; what it learns of the data before training (means, scales) it keeps
    in buffers, set in ``prepare``, so that its weights are all that a later run needs.
    """

    Settings: ClassVar[type[Part]]

    @classmethod
    def needs(cls, settings: Any) -> Needs:
        """The columns and windows that a model of these ``settings`` reads."""
        raise NotImplementedError

    def __init__(self, settings: Any, fps: tuple[int, int]) -> None:
        """``fps`` is the clips' frame rate, a fraction."""
        super().__init__()
        self.settings, self.fps = settings, fps

    def prepare(self, clips: Iterable[Mapping[str, Any]]) -> None:
        """Look at the training ``clips`` once, before step 0: for each the whole columns of ``needs``. Fills buffers."""

    def loss(self, batch: Batch, draws: Draws) -> Losses:
        """What training minimises. All randomness comes from ``draws``."""
        raise NotImplementedError

    def updates(self) -> list[Update]:
        """The optimisations of a step, in their order."""
        raise NotImplementedError

    def measure(self, batches: Iterable[Batch], draws: Draws) -> dict[str, float]:
        """Figures over the validation ``batches`` beyond the loss, by name."""
        return {}

    def pictures(self, batch: Batch, draws: Draws) -> dict[str, NDArray[np.uint8]]:
        """RGB pictures (H, W, 3) of what the model makes of a validation ``batch``, by name."""
        return {}

    def produce(self, **given: Any) -> list[Path]:
        """Make files out of files, as ``headloom sample`` asks: ``given`` are its options that were set. Returns what was made.

        Raises ``ManifestError`` for options that are missing, or that this model knows nothing of.
        """
        raise ManifestError(f"the model {type(self).__name__} makes no files; call it from Python, as its page shows")
