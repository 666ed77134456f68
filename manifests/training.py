"""Training manifest: what a run trains on and with which settings; a run can be repeated from this file alone."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from manifests.document import Manifest, Part


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


class TrainingManifest(Manifest):
    """What a trainer reads: datasets, a filter over the clip index, columns, window, split, model and settings."""

    kind = "training"

    datasets: list[DatasetRef] = Field(min_length=1)
    filter: dict[str, Range] = {}
    columns: list[str] = Field(min_length=1)
    window: Window
    split: Split = Split()
    model: str = Field(min_length=1)
    settings: dict[str, Any] = {}
    global_batch: int = Field(default=32, ge=1)
    seed: int = 0
