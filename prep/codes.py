"""FaceTalk's folders of NPHM codes and sound: what lies in one, and the stages that make clips of them.

The layout is the one that FaceTalk's authors announced and ``headloom export --format facetalk-npz`` writes::

    <person>_<sequence>/
        audio/cleaned_audio.wav
        nphm_tracking/nphm_expressions/frame_00000.npz   expression (200,)
        nphm_tracking/nphm_identity.npz                  identity (1344,); may be missing
        headloom.json                                    fps, person, stand_in, frames; may be missing
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from manifests.clock import SAMPLE_RATE, sample_count
from manifests.document import file_digest
from manifests.model_file import WrongModelFile
from manifests.pickles import load_npz
from manifests.stage import Done, Level, Needs, Outcome, Rejected, Stage, Take, Unreadable
from prep.cut import clip_id
from prep.sound import NoSound, decode_sound

LAYOUT = "facetalk"
"""Name of the layout in source manifests."""

UNFINISHED = ".headloom-unfinished"
"""Ending of a folder that is being written."""

EXPRESSIONS = "nphm_tracking/nphm_expressions"
IDENTITY = "nphm_tracking/nphm_identity.npz"
SOUND = "audio/cleaned_audio.wav"
ORIGIN = "headloom.json"

EXPRESSION_SIZE, IDENTITY_SIZE = 200, 1344
_FRAME = re.compile(r"frame_(\d+)\.npz")


class WrongCodes(Exception):
    """Codes cannot be used. ``reason`` is short; the text says which file and what is wrong with it."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class CodesFolder:
    """One folder of the layout. ``open_codes`` makes it."""

    path: Path

    @cached_property
    def origin(self) -> dict[str, Any]:
        """The content of its ``headloom.json``; empty where there is none. Raises ``Unreadable``."""
        path = self.path / ORIGIN
        if not path.is_file():
            return {}
        try:
            origin = json.loads(path.read_text("utf-8"))
        except ValueError as error:
            raise Unreadable(f"{ORIGIN} is not JSON ({error})") from None
        if not isinstance(origin, dict):
            raise Unreadable(f"{ORIGIN} holds {type(origin).__name__}, wanted a mapping")
        return origin

    @property
    def person(self) -> str:
        """Who speaks: as ``headloom.json`` says, else the name up to its first underscore."""
        return str(self.origin.get("person") or self.path.name.partition("_")[0])

    @property
    def stand_in(self) -> bool:
        """Whether headloom made it up."""
        return self.origin.get("stand_in") is True

    @property
    def fps(self) -> tuple[int, int] | None:
        """Frames a second as a fraction; ``None`` where nothing says it. Raises ``Unreadable``."""
        given = self.origin.get("fps")
        if given is None:
            return None
        if not (isinstance(given, list) and len(given) == 2 and all(type(part) is int and part > 0 for part in given)):
            raise Unreadable(f"{ORIGIN} says fps {given!r}, wanted [numerator, denominator]")
        return given[0], given[1]

    @property
    def sound(self) -> Path | None:
        """The sound file, if there is one."""
        path = self.path / SOUND
        return path if path.is_file() else None

    @cached_property
    def frames(self) -> dict[int, Path]:
        """The files of expression codes by frame number, ascending."""
        found = {int(name[1]): path for path in (self.path / EXPRESSIONS).iterdir() if (name := _FRAME.fullmatch(path.name))}
        return dict(sorted(found.items()))

    def files(self) -> list[Path]:
        """All files that are read, in the order of their names; meshes and the like beside them do not count."""
        single = [path for name in (SOUND, IDENTITY, ORIGIN) if (path := self.path / name).is_file()]
        return sorted([*single, *self.frames.values()])

    def digest(self) -> str:
        """sha256 of the names and digests of ``files()``: what the folder holds, wherever it lies."""
        listing = hashlib.sha256()
        for path in self.files():
            listing.update(f"{path.relative_to(self.path).as_posix()} {file_digest(path)}\n".encode())
        return listing.hexdigest()

    def expressions(self) -> NDArray[np.float32]:
        """Codes (T, 200). Raises ``WrongCodes`` for missing frames and for codes that are none, ``Unreadable``."""
        numbers = list(self.frames)
        if not numbers:
            raise WrongCodes("frames are missing", f"{EXPRESSIONS} holds no frame_NNNNN.npz")
        # Only who counts from 0 is known; other people's frames may be counted from 1.
        first = 0 if self.origin or numbers[0] != 1 else 1
        announced = self.origin.get("frames")
        count = announced if type(announced) is int else numbers[-1] + 1 - first
        missing = sorted(set(range(first, first + count)) - set(numbers))
        if missing:
            raise WrongCodes(
                "frames are missing", f"{EXPRESSIONS} lacks {len(missing)} of {count} frames, the first is number {missing[0]}"
            )
        return np.stack([_code(path, "expression", EXPRESSION_SIZE) for path in self.frames.values()])

    def identity(self) -> NDArray[np.float32]:
        """The code (1344,). Raises ``WrongCodes``, also where there is none, and ``Unreadable``."""
        path = self.path / IDENTITY
        if not path.is_file():
            raise WrongCodes("no identity code", f"there is no {IDENTITY}; to do without, leave out the stage codes_identity")
        return _code(path, "identity", IDENTITY_SIZE)


def open_codes(path: Path) -> CodesFolder:
    """The folder at ``path``. Raises ``Unreadable`` when it is not of this layout."""
    if not (path / EXPRESSIONS).is_dir():
        raise Unreadable(f"{path} has no folder {EXPRESSIONS}")
    return CodesFolder(path)


def find_codes(root: Path) -> list[Path]:
    """All folders of the layout in ``root``, at any depth, sorted; none that is hidden or unfinished."""
    return sorted(_walk(root))


def _walk(folder: Path) -> Iterator[Path]:
    if (folder / EXPRESSIONS).is_dir():
        yield folder
        return
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink() and not path.name.startswith(".") and not path.name.endswith(UNFINISHED):
            yield from _walk(path)


def _code(path: Path, name: str, size: int) -> NDArray[np.float32]:
    """A code of ``size`` numbers: the array ``name`` of an archive, or the only one of that size that it holds."""
    try:
        held = load_npz(path)
    except WrongModelFile as error:
        raise Unreadable(str(error)) from None
    array = held.get(name, next(iter(held.values())) if len(held) == 1 else None)
    where = f"{path.parent.name}/{path.name}"
    if array is None:
        raise WrongCodes("codes of another kind", f"{where} holds {', '.join(sorted(held))}; wanted {name}, or one array alone")
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu" or array.size != size:
        what = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
        raise WrongCodes("codes of another kind", f"{where} holds {what}; wanted {size} numbers")
    code = array.reshape(size).astype(np.float32)
    if not np.isfinite(code).all():
        raise WrongCodes("codes are not finite", f"{where} holds NaN or infinity")
    return code


class Codes(Stage):
    """A clip of each folder of NPHM codes in FaceTalk's layout, all of its frames at its own rate.

    The rate is that of the folder's ``headloom.json``, or ``fps_num / fps_den`` where there is none. Frames and sound begin
    together and are cut to the same length; the stage ``sound`` after it reads the sound. Rejects folders with missing frames,
    with codes of another length or with NaN, without sound or with a silent one, those whose sound ends more than ``max_gap_s``
    before the frames do, what is shorter than ``min_frames``, and takes that are no such folders.
    """

    name: ClassVar[str] = "codes"
    version: ClassVar[int] = 1
    level: ClassVar[Level] = "take"
    cuts: ClassVar[bool] = True
    needs: ClassVar[Needs] = Needs(memory_mb=300, pace=0.02, bytes_per_s=20_000)
    writes: ClassVar[tuple[str, ...]] = ("clip_id", "start_us", "n_frames", "fps_num", "fps_den", "nphm_expression")

    fps_num: int = Field(default=24, gt=0)
    fps_den: int = Field(default=1, gt=0)
    min_frames: int = Field(default=3, ge=1)
    max_gap_s: float = Field(default=0.2, gt=0)

    def run(self, take: Take) -> Outcome:
        if take.layout != LAYOUT:
            return Rejected("no folder of codes")
        folder = open_codes(Path(take.path))
        fps_num, fps_den = folder.fps or (self.fps_num, self.fps_den)
        try:
            expressions = folder.expressions()
            if folder.sound is None:
                return Rejected("the take has no sound", message=f"there is no {SOUND}")
            wave = decode_sound(str(folder.sound)).wave()
        except WrongCodes as wrong:
            return Rejected(wrong.reason, message=str(wrong))
        except NoSound:
            return Rejected("the take has no sound", message=f"{SOUND} holds none")
        if not wave.any():
            return Rejected("the sound is silent")
        count, sounding = len(expressions), _frames_of(len(wave), fps_num, fps_den)
        lacking_s = (count * fps_den / fps_num) - len(wave) / SAMPLE_RATE
        if lacking_s > self.max_gap_s:
            return Rejected("the sound ends before the frames", score=lacking_s, threshold=self.max_gap_s)
        count = min(count, sounding)
        if count < self.min_frames:
            return Rejected("too short", score=float(count), threshold=float(self.min_frames))
        clip = {
            "clip_id": clip_id(take.take_id, 0, count, fps_num, fps_den),
            "start_us": 0,
            "n_frames": count,
            "fps_num": fps_num,
            "fps_den": fps_den,
            "nphm_expression": expressions[:count],
        }
        return Done(clips=[clip])


class CodesIdentity(Stage):
    """The identity code that lies with the expression codes. Rejects clips of folders that have none, or no whole one."""

    name: ClassVar[str] = "codes_identity"
    version: ClassVar[int] = 1
    needs: ClassVar[Needs] = Needs(memory_mb=200, pace=0.001, bytes_per_s=2000)
    writes: ClassVar[tuple[str, ...]] = ("nphm_identity",)

    def run(self, take: Take) -> Outcome:
        try:
            return Done({"nphm_identity": open_codes(Path(take.path)).identity()})
        except WrongCodes as wrong:
            return Rejected(wrong.reason, message=str(wrong))


def _frames_of(samples: int, fps_num: int, fps_den: int) -> int:
    """The most frames whose sound is no longer than ``samples`` at 16 kHz."""
    count = samples * fps_num // (SAMPLE_RATE * fps_den) + 1
    while sample_count(count, fps_num, fps_den) > samples:
        count -= 1
    return count
