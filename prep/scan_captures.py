"""Scanning trees of multi-camera recordings into a source manifest: one item for each sequence of each person.

As with videos, every capture is read in a child process, so that one that crashes or hangs a decoder costs only itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from manifests.document import ManifestError
from manifests.source import SourceItem, SourceManifest, VideoFacts
from manifests.stage import Unreadable
from prep.capture import find_captures, open_capture
from prep.children import in_children
from prep.duplicates import find_duplicates
from prep.probe import probe
from prep.scan import PATIENCE_S, Scanned, absolute, root_name, stored_root

_PATIENCE_PER_BYTE = 1 / 5_000_000


def scan_captures(
    paths: Sequence[str],
    out: Path,
    layout: Literal["nersemble", "plain"],
    name: str = "",
    on_progress: Callable[[int, int], None] | None = None,
) -> Scanned:
    """Write the source manifest ``out`` of the captures in these folders, at any depth.

    ``layout`` ``nersemble`` finds both releases; their persons are named as their folders. A capture's digest is that of the
    names and bytes of all files that belong to it. Raises ``ManifestError`` when a path does not exist or no capture is found.
    """
    wanted = "camera_params.json" if layout == "nersemble" else "cameras.json"

    def find(folder: Path) -> list[Path]:
        return [capture for capture in find_captures(folder) if (capture / "cameras.json").is_file() == (layout == "plain")]

    lacking = f"no capture in {{}}: no {wanted} with sequences beside it"
    return scan_folders(
        paths, out, find, examine, "nersemble-v2" if layout == "nersemble" else "plain", lacking, name, on_progress
    )


def scan_folders(
    paths: Sequence[str],
    out: Path,
    find: Callable[[Path], list[Path]],
    examine: Callable[[str], Iterator[dict[str, Any]]],
    layout: str,
    lacking: str,
    name: str = "",
    on_progress: Callable[[int, int], None] | None = None,
) -> Scanned:
    """Write the source manifest ``out`` of the takes that are folders and that ``find`` finds in ``paths``.

    ``examine`` is run in a child process for each and yields what is in it, piece by piece; ``layout`` is that of takes of which
    it cannot say. Raises ``ManifestError`` when a path does not exist, and when nothing is found: ``lacking`` says so, ``{}`` in
    it being the paths.
    """
    roots: dict[str, Path] = {}
    found: list[tuple[str, Path]] = []
    for given in paths:
        folder = absolute(given)
        if not folder.is_dir():
            raise ManifestError(f"{given}: there is no such folder; check the path")
        root = root_name(folder, roots)
        found += [(root, take) for take in find(folder)]
    if not found:
        raise ManifestError(lacking.format(", ".join(map(str, paths))))
    sizes = [sum(file.stat().st_size for file in take.rglob("*") if file.is_file()) for _, take in found]
    facts: list[dict[str, Any]] = [{}] * len(found)
    timeouts = [PATIENCE_S + size * _PATIENCE_PER_BYTE for size in sizes]
    for done, (number, said) in enumerate(in_children(examine, [(str(take),) for _, take in found], timeouts), 1):
        facts[number] = said
        if on_progress:
            on_progress(done, len(found))
    items = []
    for (root, take), size, said in zip(found, sizes, facts, strict=True):
        sound = said.get("sound", "")
        items.append(
            SourceItem(
                uri=take.relative_to(roots[root]).as_posix() or ".",
                root=root,
                sha256=said.get("sha256", ""),
                bytes=size,
                sound_uri=Path(sound).relative_to(roots[root]).as_posix() if sound else "",
                person=said.get("person", ""),
                stand_in=said.get("stand_in", False),
                video=said.get("video"),
                audio=said.get("audio"),
                layout=said.get("layout", layout),
                cameras=said.get("cameras", 0),
                probe_error=" ".join(said.get("trouble", "").split()),
            )
        )
    for number, (kept, kind) in find_duplicates(items, [None] * len(items)).items():
        items[number] = items[number].model_copy(update={"duplicate_of": items[kept].name, "duplicate_kind": kind})
    stored = {root: stored_root(folder, out) for root, folder in roots.items()}
    return Scanned(SourceManifest.write(out, name or out.stem, stored, items), tuple(items), Counter())


def examine(path: str) -> Iterator[dict[str, Any]]:
    """What is in one capture, piece by piece, so that what was known is not lost when the next piece ends the process.

    Keys: ``layout``, ``cameras``, ``person``, ``stand_in``, ``sha256``, ``video``, ``sound``, ``audio``, and ``trouble``, one
    line, when it cannot be read.
    """
    try:
        capture = open_capture(Path(path))
        yield {
            "layout": capture.layout,
            "cameras": len(capture.serials),
            "person": "" if capture.layout == "plain" else capture.home.name,
            "stand_in": capture.stand_in,
        }
        yield {"sha256": capture.digest()}
        seen = np.flatnonzero(capture.present(range(len(capture.times_us))).any(axis=1))
        if not len(seen):
            raise Unreadable("no camera has a picture")
        height, width = next(capture.moments([int(seen[0])])).pictures.shape[1:3]
        steps = np.diff(capture.times_us)
        usual = float(np.median(steps)) if len(steps) else 40_000.0
        yield {
            "video": VideoFacts(
                codec="png" if capture.layout == "nersemble-v1" else "",
                width=width,
                height=height,
                fps=round(1e6 / usual, 6),
                variable_rate=bool(len(steps) and (np.abs(steps - usual) > 0.1 * usual).any()),
                frames=len(capture.times_us),
                duration_s=float(capture.times_us[-1] - capture.times_us[0] + usual) / 1e6,
            )
        }
        if capture.sound:
            yield {"sound": str(capture.sound), "audio": probe(str(capture.sound)).audio}
    except Unreadable as error:
        yield {"trouble": str(error)}
    except OSError as error:
        yield {"trouble": f"it cannot be read: {error.strerror or error}"}
