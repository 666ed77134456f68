"""Scanning trees of folders in FaceTalk's layout (``prep.codes``) into a source manifest: one item for each folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from manifests.stage import Unreadable
from prep.codes import EXPRESSIONS, LAYOUT, find_codes, open_codes
from prep.probe import probe
from prep.scan import Scanned
from prep.scan_captures import scan_folders


def scan_codes(paths: Sequence[str], out: Path, name: str = "", on_progress: Callable[[int, int], None] | None = None) -> Scanned:
    """Write the source manifest ``out`` of the folders of codes in these folders, at any depth.

    A digest is that of the names and bytes of the files that are read: codes, sound, ``headloom.json``. Raises ``ManifestError``
    when a path does not exist or no such folder is found.
    """
    lacking = f"no folder of codes in {{}}: none with {EXPRESSIONS}"
    return scan_folders(paths, out, find_codes, examine, LAYOUT, lacking, name, on_progress)


def examine(path: str) -> Iterator[dict[str, Any]]:
    """What is in one folder, piece by piece: ``layout``, ``cameras``, ``person``, ``stand_in``, ``sha256``, ``sound``, ``audio``,
    and ``trouble``, one line, when it cannot be read."""
    try:
        folder = open_codes(Path(path))
        yield {"layout": LAYOUT, "cameras": 0, "sha256": folder.digest()}
        yield {"person": folder.person, "stand_in": folder.stand_in}
        if folder.sound:
            yield {"sound": str(folder.sound), "audio": probe(str(folder.sound)).audio}
    except Unreadable as error:
        yield {"trouble": str(error)}
    except OSError as error:
        yield {"trouble": f"it cannot be read: {error.strerror or error}"}
