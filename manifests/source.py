"""Source manifest: what was given. A small YAML or JSON header, and beside it one line of JSON for each item."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Self

from pydantic import Field, ValidationError

from manifests.atomic import write_whole
from manifests.document import Manifest, ManifestError, Part, first_mistake
from manifests.stage import Take

STAND_IN = "headloom stand-in"
"""The comment in the metadata of every recording that headloom's own generators make."""


class VideoFacts(Part):
    """What the container says of the picture; sizes are those of the upright frame, in pixels."""

    codec: str
    width: int
    height: int
    rotation: int = 0
    fps: float
    variable_rate: bool = False
    frames: int
    duration_s: float


class AudioFacts(Part):
    """What the container says of the sound. ``offset_ms`` is the start of sound minus the start of picture."""

    codec: str
    rate: int
    channels: int
    duration_s: float
    offset_ms: float = 0.0


class SourceItem(Part):
    """One file that was given, one capture by several cameras, or one folder of codes. Its identity is ``sha256``; ``uri`` is
    where it lies under its root, a folder for the latter two: then ``layout`` says how that is laid out, and ``cameras`` how many
    there are.

    ``sound_uri`` names a sound file of its own, for pictures recorded without sound; a capture's is part of its digest.
    ``duplicate_of`` is the name of the item kept instead, ``duplicate_kind`` says whether the bytes are the same or only the
    recording.
    """

    uri: str
    root: str
    sha256: str
    bytes: int
    sound_uri: str = ""
    sound_sha256: str = ""
    person: str = ""
    language: str = ""
    split_hint: str = ""
    licence: str = ""
    stand_in: bool = False
    video: VideoFacts | None = None
    audio: AudioFacts | None = None
    layout: str = Field(default="", pattern="^(|nersemble-v1|nersemble-v2|plain|facetalk)$")
    cameras: int = 1
    probe_error: str = ""
    duplicate_of: str = ""
    duplicate_kind: str = Field(default="", pattern="^(|exact|re-encoded)$")

    @property
    def name(self) -> str:
        """Root and path under it: what tells the item from all others of its source."""
        return f"{self.root}/{self.uri}"

    @property
    def duration_s(self) -> float:
        """Length of its picture in seconds, of a folder of codes that of its sound; 0 where that is not known."""
        facts = self.audio if self.layout == "facetalk" else self.video
        return facts.duration_s if facts else 0.0

    @property
    def take_id(self) -> str:
        """Digest of the content: of the file, and of its sound where that lies apart."""
        if not self.sound_sha256:
            return self.sha256
        return hashlib.sha256(f"{self.sha256}+{self.sound_sha256}".encode()).hexdigest()


class ItemsFile(Part):
    """Where the items of a source manifest lie: a file of JSON lines beside the header."""

    file: str
    sha256: str
    count: int


class SourceManifest(Manifest):
    """What was given: named roots (folders or URLs) and the items under them."""

    kind = "source"

    roots: dict[str, str]
    items_file: ItemsFile

    def items(self, folder: Path) -> list[SourceItem]:
        """Read the items; ``folder`` is where the header lies. Raises ``ManifestError``."""
        path = folder / self.items_file.file
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ManifestError(f"{path}: cannot be read ({error.strerror}); run headloom scan again") from None
        if hashlib.sha256(data).hexdigest() != self.items_file.sha256:
            raise ManifestError(f"{path}: does not fit the digest in its header, so it was edited; run headloom scan again")
        items = []
        for number, line in enumerate(data.decode().split("\n")[:-1], 1):
            try:
                items.append(SourceItem.model_validate_json(line))
            except ValidationError as error:
                raise ManifestError(f"{path}: line {number}: {first_mistake(error, SourceItem, None)}") from None
        return items

    def take(self, item: SourceItem, folder: Path) -> Take:
        """The take that a stage sees; relative roots lie under ``folder``."""
        return Take(
            take_id=item.take_id,
            path=self.locate(item.root, item.uri, folder),
            sound_path=self.locate(item.root, item.sound_uri or item.uri, folder),
            duration_s=item.duration_s,
            layout=item.layout,
        )

    def locate(self, root: str, uri: str, folder: Path) -> str:
        """Full path or URL of a ``uri`` under one of the roots."""
        if root not in self.roots:
            raise ManifestError(f"source {self.name}: an item names root '{root}', which is not among the roots")
        base = self.roots[root]
        return f"{base.rstrip('/')}/{uri}" if "://" in base else str((folder / base / uri).absolute())

    @classmethod
    def write(cls, path: Path, name: str, roots: dict[str, str], items: Iterable[SourceItem], **header: object) -> Self:
        """Write ``path`` and the items beside it (``<stem>.items.jsonl``), the header last."""
        lines = [json.dumps(item.model_dump(mode="json", exclude_defaults=True), ensure_ascii=False) for item in items]
        data = "".join(line + "\n" for line in lines).encode()
        items_path = path.with_name(f"{path.stem}.items.jsonl")
        items_file = ItemsFile(file=items_path.name, sha256=hashlib.sha256(data).hexdigest(), count=len(lines))
        values = {"format": "headloom/source", "name": name, "roots": roots, "items_file": items_file.model_dump(), **header}
        manifest = cls.parse(values, str(path)).sealed()
        write_whole(items_path, data)
        manifest.save(path)
        return manifest
