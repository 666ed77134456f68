"""What a stage is and what may come out of it: the contract between the work and whoever runs it.

A stage is a small class: typed parameters, a ``run`` whose argument names say what it reads, the columns it
writes, what it needs. It knows nothing of processes, caches or files of results; ``pipelines`` runs it::

    class Loudness(Stage):
        \"\"\"How loud a clip's sound is.\"\"\"

        name, version, writes = "loudness", 1, ("loudness_dbfs",)
        floor_dbfs: float = -100.0

        def run(self, wave):
            power = np.mean(np.square(wave / 32768.0))
            return Done({"loudness_dbfs": max(self.floor_dbfs, 10 * np.log10(power + 1e-12))})
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

from pydantic import BaseModel, ConfigDict

Level = Literal["take", "clip"]


@dataclass(frozen=True, slots=True)
class Take:
    """One recorded performance, as a stage sees it.

    ``take_id`` is the digest of the content (and of the sound file, where sound lies apart); the paths are
    only where that content happens to be: nothing that a stage returns may depend on them. For a capture by several cameras
    ``path`` is a folder and ``layout`` not empty.
    """

    take_id: str
    path: str
    sound_path: str
    duration_s: float
    layout: str = ""


@dataclass(frozen=True, slots=True)
class Done:
    """The work succeeded. ``columns`` holds what the stage writes.

    A stage that cuts takes into clips returns one mapping for each clip in ``clips`` instead.
    """

    columns: Mapping[str, Any] = field(default_factory=dict)
    clips: Sequence[Mapping[str, Any]] | None = None


@dataclass(frozen=True, slots=True)
class Rejected:
    """The item is sound but unfit: why, by which score, against which threshold.

    ``reason`` is a short constant, by which items are counted; what is particular goes into ``message``.
    """

    reason: str
    score: float | None = None
    threshold: float | None = None
    message: str = ""


@dataclass(frozen=True, slots=True)
class Failed:
    """The work could not be done. ``kind`` is one of ``FAILURES``; ``message`` is for a person."""

    kind: str
    message: str


Outcome = Done | Rejected | Failed


class Partial(Protocol):
    """Where a long stage keeps what it has done so far, so that one that was ended goes on instead of beginning anew.

    A stage that takes the argument ``partial`` gets one for each unit of work; it is emptied when the outcome is stored. Same in,
    same out holds for it too: whether anything is found here must not change the outcome.
    """

    def read(self, name: str) -> bytes | None:
        """What was written under ``name`` before, whole; ``None`` when nothing was, or it was damaged."""

    def write(self, name: str, data: bytes) -> None:
        """Keep ``data`` under ``name``."""


FAILURES = {
    "unreadable": "the file cannot be decoded",
    "missing": "the file is not where the source manifest says, or has changed since it was scanned",
    "crash": "the process that worked on it died, twice",
    "timeout": "it took longer than its stage allows, twice",
    "machine": "memory, disk or network failed",
    "error": "the stage raised an exception that it did not expect",
}

PASSING_FAILURES = ("missing", "machine")
"""Failures that say nothing of the item: they are not kept, so the next build tries again."""


class Unreadable(Exception):
    """Raised in ``prep`` when a file cannot be decoded; the runner makes it ``Failed("unreadable", ...)``."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What one running stage occupies, and how long it may take.

    A stage may take ``grace_s`` seconds and ``patience`` more for each second of media; past that its process is
    ended, which counts as one crash. ``pace`` (seconds of work on one core) and ``bytes_per_s`` (bytes
    kept), both for a second of media, are the plan's first guesses, replaced by what was measured.
    """

    cpus: float = 1.0
    memory_mb: int = 300
    grace_s: float = 120.0
    patience: float = 60.0
    pace: float = 0.01
    bytes_per_s: int = 1000

    def timeout_s(self, media_s: float) -> float:
        """Seconds that the stage may take for ``media_s`` seconds of media."""
        return self.grace_s + self.patience * media_s


class Stage(BaseModel):
    """Base of all stages. Subclass fields are its parameters: they are checked, and they enter its key.

    ``level`` says whether it works on a whole take or on one clip of it. A stage of level ``take`` with
    ``cuts = True`` is the one that turns takes into clips. Change ``version`` whenever the same inputs and
    parameters would give another result.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: ClassVar[str]
    version: ClassVar[int]
    level: ClassVar[Level] = "clip"
    cuts: ClassVar[bool] = False
    writes: ClassVar[tuple[str, ...]]
    needs: ClassVar[Needs] = Needs()

    def run(self, *args: Any, **inputs: Any) -> Outcome:
        """Turn the columns named by the arguments (or ``take``) into an outcome. Pure: same in, same out."""
        raise NotImplementedError

    @classmethod
    def reads(cls) -> tuple[str, ...]:
        """Names of the columns that ``run`` takes; ``take`` stands for the recording itself."""
        return tuple(name for name in inspect.signature(cls.run).parameters if name not in ("self", "partial"))

    @classmethod
    def goes_on(cls) -> bool:
        """Whether ``run`` takes ``partial``, and so goes on where it was ended."""
        return "partial" in inspect.signature(cls.run).parameters

    def models(self) -> tuple[str, ...]:
        """Names of the model files (see ``manifests.assets``) that these parameters use."""
        return ()

    def gpus(self) -> float:
        """Share of a GPU that these parameters ask for; a cluster gives workers that much of one."""
        return 0.0

    def rates(self) -> Mapping[str, str]:
        """Rates of written columns that follow from these parameters instead of the table of columns."""
        return {}

    def files(self) -> tuple[Path, ...]:
        """Other files that these parameters name (noise recordings, say); their digests enter the key."""
        return ()
