"""Training manifest: what a run trains on and with which settings; a run can be repeated from this file alone."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from manifests.document import Manifest, Part, read_plain
from manifests.shipped import TRAINING, find, with_settings

RUN_MANIFEST = "manifest.yaml"
"""In the folder of a run and in each checkpoint, and in no dataset."""


class DatasetRef(Part):
    """A dataset by place and digest, and its share of the batches. An empty digest is filled in by the first run."""

    path: str
    digest: str = Field(default="", pattern="^([0-9a-f]{64})?$")
    weight: float = Field(default=1.0, gt=0)


class Window(Part):
    """The run of frames that one sample shows. ``context`` counts frames before and after that are read as well."""

    length: int = Field(ge=1)
    stride: int = Field(default=1, ge=1)
    context: tuple[int, int] = (0, 0)
    edge: Literal["clamp", "drop"] = "drop"
    audio_shift_ms: float = 0.0


class Split(Part):
    """Shares of persons (never of clips, so that splits share no person) and the seed that deals them out."""

    train: float = Field(default=0.9, ge=0, le=1)
    val: float = Field(default=0.1, ge=0, le=1)
    test: float = Field(default=0.0, ge=0, le=1)
    seed: int = 0

    @model_validator(mode="after")
    def _whole(self) -> Split:
        if abs(self.train + self.val + self.test - 1) > 1e-6:
            raise ValueError(f"the shares of a split add up to 1, these to {self.train + self.val + self.test:g}")
        return self


class Range(Part):
    """Accepted values of one score of the clip index."""

    min: float | None = None
    max: float | None = None


class Schedule(Part):
    """The course of the learning rate, as a share of the model's own: up in ``warmup_steps``, then constant or down a cosine."""

    warmup_steps: int = Field(default=0, ge=0)
    shape: Literal["constant", "cosine"] = "constant"


class Training(Part):
    """How long and how precisely. A step is one global batch, worked through in ``accumulate`` parts by each worker."""

    steps: int = Field(default=100_000, ge=1)
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    accumulate: int = Field(default=1, ge=1)
    clip_norm: float | None = Field(default=None, gt=0)
    schedule: Schedule = Schedule()
    ema: float | None = Field(default=None, gt=0, lt=1)
    """Decay of the moving average of the weights, with which the model is validated and sampled."""
    log_every: int = Field(default=20, ge=1)
    save_every: int = Field(default=1000, ge=1)
    keep: int = Field(default=2, ge=1)
    """Checkpoints that stay, beside the best one."""
    validate_every: int = Field(default=1000, ge=1)
    validate_batches: int = Field(default=8, ge=1)


class Launch(Part):
    """Where it runs; nothing here changes the numbers. Several workers are Ray Train's, with a GPU each where there are some."""

    workers: int = Field(default=1, ge=1)
    loader_workers: int = Field(default=0, ge=0)
    cache_mb: int = Field(default=256, ge=1)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    address: str = ""
    retries: int = Field(default=3, ge=0)
    """How often workers that died are replaced."""


class TrainingManifest(Manifest):
    """What a run is: datasets, a filter over the clip index, split, model, its settings, and how long it trains.

    ``window`` takes the place of the model's own, but for its context. Paths are relative to the folder that the command runs in.
    """

    kind = "training"

    datasets: list[DatasetRef] = Field(min_length=1)
    filter: dict[str, Range] = {}
    window: Window | None = None
    split: Split = Split()
    model: str = Field(min_length=1)
    settings: dict[str, Any] = {}
    global_batch: int = Field(default=32, ge=1)
    seed: int = 0
    training: Training = Training()
    launch: Launch = Launch()
    out: str = Field(min_length=1)
    """Folder of the run."""


def load_training(name: str, settings: list[str] | None = None) -> TrainingManifest:
    """Find, set and check a training manifest."""
    path = find(name, TRAINING, "training manifest")
    return TrainingManifest.parse(with_settings(read_plain(path), settings or []), str(path))
