"""Scanning folders of recordings into a source manifest: what is there, what is in it, and what was given twice.

Every file is read in a child process, so that one that crashes or hangs the media library costs only itself.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from manifests.document import ManifestError, file_digest
from manifests.source import STAND_IN, SourceItem, SourceManifest
from manifests.stage import Unreadable
from prep.children import in_children
from prep.duplicates import find_duplicates, fingerprint
from prep.probe import probe
from prep.video import open_container

VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".vob", ".ts", ".mts", ".m2ts"),
    *(".flv", ".wmv", ".asf", ".3gp", ".3g2", ".ogv", ".mxf", ".dv"),
)
"""Files with these suffixes, in any case, become items; all others are ignored and counted."""

SOUND_SUFFIXES = (".wav", ".flac", ".m4a", ".mp3")
"""Where the sound of a video without any is looked for: beside it, under its name with one of these, the first first."""

PATIENCE_S = 60.0
"""Seconds that reading one file may take, apart from a second for each ``_SLOWEST`` bytes of it."""

_SLOWEST = 5_000_000


@dataclass(frozen=True, slots=True)
class Scanned:
    """A source manifest that was written, its items, and how many files with which suffix were not made items."""

    manifest: SourceManifest
    items: tuple[SourceItem, ...]
    ignored: Counter[str]

    def counts(self) -> dict[str, int]:
        """What to print: files, seconds of video, and how many were peculiar in which way."""
        read = [item for item in self.items if not item.probe_error]
        counts = {
            "files": len(self.items),
            "seconds": round(sum(item.duration_s for item in read)),
            "without picture": sum(item.video is None for item in read),
            "without sound": sum(item.audio is None for item in read),
            "unreadable": len(self.items) - len(read),
            "exact duplicates": sum(item.duplicate_kind == "exact" for item in self.items),
            "re-encoded duplicates": sum(item.duplicate_kind == "re-encoded" for item in self.items),
        }
        return counts | {f"ignored: {what}": count for what, count in sorted(self.ignored.items())}


def scan(
    paths: Sequence[str],
    out: Path,
    name: str = "",
    person_from: Literal["", "folder"] = "",
    mark_duplicates: bool = True,
    on_progress: Callable[[int, int], None] | None = None,
) -> Scanned:
    """Write the source manifest ``out`` of these videos and folders of videos.

    Folders are searched to any depth, links to folders and hidden files left out. A root is made of each folder, and
    of the folder of each file, relative where it lies in the folder of ``out``. ``person_from="folder"`` takes the
    name of the folder that a file lies in for the person. Without ``mark_duplicates`` only files with the same bytes count once.
    ``on_progress`` is told how many files are done, and of how many. The same files give the same bytes. Raises
    ``ManifestError`` when a path does not exist or no video is found.
    """
    listing = _list(paths)
    if not listing.videos:
        raise ManifestError(f"no video among {', '.join(map(str, paths))}; known suffixes are {' '.join(VIDEO_SUFFIXES)}")
    tasks = [(str(listing.roots[root] / uri), _sounds_beside(listing.roots[root] / uri)) for root, uri in listing.videos]
    timeouts = [PATIENCE_S + _size(path) / _SLOWEST for path, _ in tasks]
    found: list[dict[str, Any]] = [{}] * len(tasks)
    for done, (number, facts) in enumerate(in_children(examine, tasks, timeouts), 1):
        found[number] = facts
        if on_progress:
            on_progress(done, len(tasks))
    items = []
    heard = set()
    for (root, uri), (path, _), facts in zip(listing.videos, tasks, found, strict=True):
        sound = facts.get("sound_path", "")
        heard.add(sound)
        items.append(
            SourceItem(
                uri=uri,
                root=root,
                sha256=facts.get("sha256", ""),
                bytes=_size(path),
                sound_uri=Path(sound).relative_to(listing.roots[root]).as_posix() if sound else "",
                sound_sha256=facts.get("sound_sha256", ""),
                person=Path(path).parent.name if person_from == "folder" else "",
                stand_in=facts.get("stand_in", False),
                video=facts.get("video"),
                audio=facts.get("audio"),
                probe_error=" ".join(facts.get("trouble", "").split()),
            )
        )
    fingerprints = [facts.get("fingerprint") for facts in found]
    for number, (kept, kind) in find_duplicates(items, fingerprints).items() if mark_duplicates else ():
        items[number] = items[number].model_copy(update={"duplicate_of": items[kept].name, "duplicate_kind": kind})
    ignored = listing.ignored
    ignored.update(Path(other).suffix.lower() or "no suffix" for other in listing.others if other not in heard)
    roots = {root: stored_root(folder, out) for root, folder in listing.roots.items()}
    return Scanned(SourceManifest.write(out, name or out.stem, roots, items), tuple(items), ignored)


# --- what is there


@dataclass(frozen=True, slots=True)
class _Listing:
    """``roots``: absolute folders by name. ``videos``: (root, uri) in order. ``others``: paths of other files."""

    roots: dict[str, Path]
    videos: list[tuple[str, str]]
    others: list[str]
    ignored: Counter[str]


def _list(paths: Iterable[str]) -> _Listing:
    listing = _Listing({}, [], [], Counter())
    seen: set[Path] = set()
    for given in paths:
        path = absolute(given)
        if not path.exists():
            raise ManifestError(f"{given}: there is no such file or folder; check the path")
        folder = path if path.is_dir() else path.parent
        files = sorted(_walk(path, listing.ignored), key=lambda file: file.relative_to(path).parts) if path.is_dir() else [path]
        for file in files:
            if file in seen:
                continue
            seen.add(file)
            if not _is_text(file):
                listing.ignored["name that is not UTF-8"] += 1
            elif not file.is_file():
                listing.ignored["broken link or special file"] += 1
            elif file.suffix.lower() in VIDEO_SUFFIXES:
                listing.videos.append((root_name(folder, listing.roots), file.relative_to(folder).as_posix()))
            else:
                listing.others.append(str(file))
    return listing


def _walk(folder: Path, ignored: Counter[str]) -> Iterator[Path]:
    def unreadable(error: OSError) -> None:
        ignored["folder that cannot be read"] += 1

    for here, folders, files in os.walk(folder, onerror=unreadable):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(here, name) for name in files if not name.startswith("."))


def absolute(path: str | Path) -> Path:
    """Without ``..``, links as they are: what a person gave a link to is known under the link's name."""
    return Path(os.path.abspath(path))  # noqa: PTH100


def _is_text(path: Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def root_name(folder: Path, roots: dict[str, Path]) -> str:
    """The name of this root, which is made if need be: that of the folder, with a number where two are alike."""
    for name, known in roots.items():
        if known == folder:
            return name
    base = folder.name or "root"
    name = next(n for n in (base, *(f"{base}-{k}" for k in range(2, len(roots) + 3))) if n not in roots)
    roots[name] = folder
    return name


def stored_root(folder: Path, out: Path) -> str:
    """How a root is written into the manifest ``out``: relative where it lies below that one's folder."""
    home = absolute(out).parent
    return folder.relative_to(home).as_posix() if folder.is_relative_to(home) else str(folder)


def _sounds_beside(video: Path) -> tuple[str, ...]:
    beside = (video.with_suffix(suffix) for lower in SOUND_SUFFIXES for suffix in (lower, lower.upper()))
    return tuple(str(path) for path in beside if path.is_file())


def _size(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except OSError:
        return 0


# --- what is in it


def examine(path: str, sounds: Sequence[str]) -> Iterator[dict[str, Any]]:
    """What is in one file, piece by piece, so that what was known is not lost when the next piece ends the process.

    Keys: ``sha256``, ``video``, ``audio``, ``stand_in``, ``sound_path``, ``sound_sha256``, ``fingerprint``, and
    ``trouble``, one line, when the file cannot be read. ``sounds`` are files that may hold its sound.
    """
    try:
        yield {"sha256": file_digest(Path(path))}
        facts = probe(path)
        with open_container(path) as container:
            stand_in = container.metadata.get("comment") == STAND_IN
        yield {"video": facts.video, "audio": facts.audio, "stand_in": stand_in}
        sound = ""
        if facts.video is not None and facts.audio is None:
            for sound in sounds:
                try:
                    audio = probe(sound).audio
                except (Unreadable, OSError):
                    audio = None
                if audio is not None:
                    yield {"sound_path": sound, "sound_sha256": file_digest(Path(sound)), "audio": audio}
                    break
            else:
                sound = ""
        yield {"fingerprint": fingerprint(path, facts, sound)}
    except Unreadable as error:
        yield {"trouble": str(error)}
    except OSError as error:
        yield {"trouble": f"it cannot be read: {error.strerror or error}"}
