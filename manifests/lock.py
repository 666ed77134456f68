"""One process at a time in a folder that is written to."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from manifests.document import ManifestError


@contextmanager
def alone_in(folder: Path, busy: str) -> Iterator[None]:
    """Keep others who ask for this out of ``folder`` until the block ends. Raises ``ManifestError(busy)`` when one is there."""
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ManifestError(busy) from None
        yield
