"""Dataset manifest: what was made, from what, by which stages, in which files, and what became of every item."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pydantic import Field

from manifests.document import Manifest, ManifestError, Part

DATASET_FILE = "dataset.json"
"""Name of the dataset manifest in the dataset's folder. It is written last: no manifest, no dataset."""


class SourceRef(Part):
    """The source manifest that a dataset was built from."""

    name: str
    digest: str
    items: int


class StageRecord(Part):
    """A stage as it ran: everything that its results depend on beside their inputs."""

    name: str
    version: int
    level: str
    parameters: dict[str, Any]
    models: dict[str, str] = {}
    reads: list[str]
    writes: list[str]


class ColumnSpec(Part):
    """One column as stored; see ``manifests.columns.Column``."""

    name: str
    family: str
    dtype: str
    shape: list[str | int]
    unit: str = ""
    frame: str = ""
    rate: str = ""
    encoding: str
    made_by: str
    about: str


class ShardFile(Part):
    """One Parquet file. ``content_key`` is the digest of what it was made from, so that it need not be made again."""

    path: str
    bytes: int
    sha256: str
    content_key: str


class ShardPart(Part):
    """The files, one for each family, that hold the same clips in the same order."""

    clips: int
    frames: int
    first_clip: str
    last_clip: str
    files: dict[str, ShardFile]


class Account(Part):
    """What became of the items that reached a stage: ``entered = done + rejected + failed + duplicate``."""

    stage: str
    level: str
    entered: int
    done: int
    rejected: dict[str, int] = {}
    failed: dict[str, int] = {}
    duplicate: int = 0

    @property
    def adds_up(self) -> bool:
        return self.entered == self.done + sum(self.rejected.values()) + sum(self.failed.values()) + self.duplicate


class QuarantineEntry(Part):
    """One item that did not become part of the dataset, and why; ``score_name`` is the column that a limit refused."""

    stage: str
    level: str
    unit: str
    source_uri: str
    outcome: str = Field(pattern="^(rejected|failed|duplicate)$")
    reason: str
    message: str = ""
    score_name: str = ""
    score: float | None = None
    threshold: float | None = None
    key: str = ""


def quarantine_name(sha256: str) -> str:
    """Name of the list of refusals with this checksum."""
    return f"quarantine-{sha256[:12]}.jsonl"


def is_quarantine(name: str) -> bool:
    """Whether a file's name is one that ``quarantine_name`` gives."""
    return re.fullmatch(r"quarantine-[0-9a-f]{12}\.jsonl", name) is not None


class QuarantineFile(Part):
    """The list of what was refused: JSON lines of ``QuarantineEntry``."""

    file: str
    sha256: str
    count: int

    def read(self, folder: Path) -> list[QuarantineEntry]:
        """The entries; ``folder`` is the dataset's. Raises ``ManifestError`` when the file is missing."""
        try:
            text = (folder / self.file).read_text("utf-8")
        except OSError as error:
            raise ManifestError(f"{folder / self.file}: cannot be read ({error.strerror}); build again") from None
        return [QuarantineEntry.model_validate_json(line) for line in text.split("\n") if line]


class DatasetManifest(Manifest):
    """What was made. Nothing in it depends on when, where or by how many workers it was made."""

    kind = "dataset"

    source: SourceRef
    recipe: dict[str, Any]
    recipe_digest: str
    stages: list[StageRecord]
    columns: list[ColumnSpec]
    families: list[str]
    parts: list[ShardPart]
    clips: int
    frames: int
    seconds: float
    contains_stand_ins: bool
    accounting: list[Account]
    quarantine: QuarantineFile
    environment: dict[str, str]
