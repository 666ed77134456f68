"""Writing files so that nothing is visible under its final name before it is whole and on disk."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

TEMPORARY = ".headloom-tmp-"
"""Prefix of unfinished files; whatever carries it was left by a process that was ended and may be removed."""


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for writing that appears as ``path`` only when the block ends well.

    The data is synced before the rename and the folder after it, so that a crash leaves either the old file
    or the new one. When the block raises, nothing is left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{TEMPORARY}{secrets.token_hex(6)}")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_whole(path: Path, data: bytes) -> None:
    """``whole_file`` for data that is already in memory."""
    with whole_file(path) as file:
        file.write(data)
