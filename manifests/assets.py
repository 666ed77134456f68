"""The registry of model files: what each is for, whose it is, and where it lies when the user has put it there.

headloom ships no weights and downloads none. ``find`` looks in the folders of ``search_path``.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from manifests.document import file_digest


class MissingAsset(FileNotFoundError):
    """A model file is needed and not there: the message names the file and says where to get and put it."""


@dataclass(frozen=True, slots=True)
class Asset:
    """One model file: what it is for, its licence, where people get it, the file names it comes under."""

    name: str
    purpose: str
    licence: str
    where: str
    file_names: tuple[str, ...]


ASSETS = {
    asset.name: asset
    for asset in (
        Asset(
            name="s3fd",
            purpose="face detection by stage faces with detector: s3fd (needs the package face-alignment)",
            licence="BSD-3 (face-alignment)",
            where="the first use of the face-alignment package downloads it to the torch hub folder",
            file_names=("s3fd-619a316812.pth",),
        ),
    )
}


def search_path() -> list[Path]:
    """Folders in which model files are looked for, first found wins."""
    home = Path(os.environ.get("HEADLOOM_MODELS", "~/.local/share/headloom/models")).expanduser()
    torch_home = Path(os.environ.get("TORCH_HOME", "~/.cache/torch")).expanduser()
    return [home, torch_home / "hub" / "checkpoints"]


def find(name: str) -> Path:
    """Path of the model file ``name``. Raises ``MissingAsset`` when it is not there."""
    asset = ASSETS[name]
    for folder in search_path():
        for file_name in asset.file_names:
            if (folder / file_name).is_file():
                return folder / file_name
    raise MissingAsset(
        f"model file {asset.file_names[0]} ({asset.purpose}) is missing: get it from {asset.where}, "
        f"put it into {search_path()[0]}"
    )


def digest(name: str) -> str:
    """sha256 of the model file ``name``; computed once for each state of the file."""
    path = find(name)
    status = path.stat()
    return _digest(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=64)
def _digest(path: Path, size: int, mtime_ns: int) -> str:
    return file_digest(path)
