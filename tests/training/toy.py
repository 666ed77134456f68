"""Models small enough to train in a second, and manifests for them: a regression, and a pair of players as in a GAN."""

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from manifests.document import ManifestError, Part
from manifests.training import TrainingManifest, Window
from tests.manifests.datasets import write_dataset
from training.draws import Draws
from training.model import Batch, Losses, Model, Needs, Update
from training.ranks import Ranks


class ToySettings(Part):
    width: int = Field(default=8, ge=1)
    learning_rate: float = 0.01
    length: int = 3
    spoilt: int | None = None
    """Row of a clip whose loss is not a number."""
    steep: bool = False
    """The loss is finite, its gradient is not."""
    unprepared: bool = False
    """Looking at the data fails."""
    dies_at: int | None = None
    """Call of the loss at which the process is killed, unless a file ``died`` is in ``folder``."""
    folder: str = ""


class Toy(Model):
    """Learns a face's box from the sound of the window, with noise on it."""

    Settings = ToySettings

    @classmethod
    def needs(cls, settings: ToySettings) -> Needs:
        return Needs(("mel", "face_box"), Window(length=settings.length))

    def __init__(self, settings: ToySettings, fps: tuple[int, int]) -> None:
        super().__init__(settings, fps)
        self.register_buffer("scale", torch.ones(()))
        self.calls = 0
        self.body = nn.Sequential(nn.Linear(80, settings.width), nn.Linear(settings.width, 4))

    def prepare(self, clips: Any) -> None:
        if self.settings.unprepared:
            raise ManifestError("these data cannot be looked at")
        self.scale.fill_(float(np.mean([np.abs(clip["face_box"]).mean() for clip in clips])))

    def loss(self, batch: Batch, draws: Draws) -> Losses:
        heard = batch["mel"].mean(dim=2) + 0.1 * draws.normal(80)
        wrong = self.body(heard) - batch["face_box"].mean(dim=1) / self.scale
        each = wrong.square().mean(dim=1)
        if self.settings.spoilt is not None:
            each = torch.where(batch["clip"] == self.settings.spoilt, torch.nan, each)
        self.calls += 1
        if self.calls == self.settings.dies_at and Ranks.current().rank == Ranks.current().count - 1:
            self.die(Path(self.settings.folder) / "died")
        if self.settings.steep:
            each = each + (0 * each).sqrt()
        return {"loss": each.mean(), "worst": each.max()}

    def die(self, mark: Path) -> None:
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    def updates(self) -> list[Update]:
        return [Update("body", self.loss, torch.optim.Adam(self.parameters(), self.settings.learning_rate))]

    def measure(self, batches: Any, draws: Draws) -> dict[str, float]:
        made = [self.body(batch["mel"].mean(dim=2)).numpy() for batch in batches]
        return {"batches": float(len(made))}

    def pictures(self, batch: Batch, draws: Draws) -> dict[str, np.ndarray]:
        return {"grey": np.full((8, 8, 3), 128, np.uint8)}


class Players(Toy):
    """Two networks with updates of their own, the second every other step."""

    def __init__(self, settings: ToySettings, fps: tuple[int, int]) -> None:
        super().__init__(settings, fps)
        self.critic = nn.Linear(4, 1)

    def _made(self, batch: Batch) -> Tensor:
        made: Tensor = self.body(batch["mel"].mean(dim=2))
        return made

    def generator_loss(self, batch: Batch, draws: Draws) -> Losses:
        return {"loss": -self.critic(self._made(batch)).mean()}

    def critic_loss(self, batch: Batch, draws: Draws) -> Losses:
        real = batch["face_box"].mean(dim=1) / self.scale
        return {"loss": self.critic(self._made(batch)).mean() - self.critic(real).mean()}

    def updates(self) -> list[Update]:
        rate = self.settings.learning_rate
        return [
            Update("generator", self.generator_loss, torch.optim.Adam(self.body.parameters(), rate)),
            Update("critic", self.critic_loss, torch.optim.SGD(self.critic.parameters(), rate), every=2),
        ]


def write_data(folder: Path) -> Path:
    """Twelve short clips of several people."""
    write_dataset(folder, clips=12, clips_per_part=4)
    return folder


def manifest(data: Path, out: Path, model: str = "Toy", **changes: Any) -> TrainingManifest:
    """Ten steps of a toy; ``changes`` replace whole sections."""
    values = {
        "format": "headloom/training",
        "name": "toy",
        "datasets": [{"path": str(data)}],
        "model": f"tests.training.toy:{model}",
        "global_batch": 6,
        "split": {"train": 0.75, "val": 0.25},
        "training": training(),
        "launch": {"device": "cpu"},
        "out": str(out),
        **changes,
    }
    return TrainingManifest.parse(values, "toy")


def training(**changes: Any) -> dict[str, Any]:
    """The section ``training`` of a toy."""
    return {"steps": 10, "log_every": 1, "save_every": 4, "validate_every": 5, "validate_batches": 2, **changes}
