"""The versions of what the bytes of results depend on."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import lru_cache
from importlib import metadata

_LIBRARIES = (
    *("headloom", "numpy", "scipy", "pyarrow", "av", "opencv-python-headless", "noisereduce"),
    *("torch", "face-alignment"),
)


@lru_cache(maxsize=1)
def environment() -> dict[str, str]:
    """Versions of Python and of the libraries that are installed here."""
    versions = {"python": platform.python_version()}
    for name in _LIBRARIES:
        with suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


def merged(environments: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """One mapping for several; where versions differ all are named, so that a mixture does not pass for one."""
    versions: dict[str, set[str]] = {}
    for one in environments:
        for name, version in one.items():
            versions.setdefault(name, set()).add(version)
    return {name: ", ".join(sorted(found)) for name, found in sorted(versions.items())}
