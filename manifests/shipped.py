"""Manifests that come with the package, found by name, and settings of the command line on top of any manifest."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from manifests.document import ManifestError, did_you_mean

RECIPES, TRAINING = "", "train"
"""Folders below the package's."""


def shipped(folder: str) -> dict[str, Path]:
    """The manifests of ``folder`` that come with the package, by name."""
    place = Path(str(resources.files("manifests"))) / folder
    return {path.stem: path for path in sorted(place.glob("*.yaml"))}


def find(name: str, folder: str, kind: str) -> Path:
    """Path of a manifest of a ``kind``, named by path, or by the name of one that ships with the package in ``folder``.

    A path that begins with the package's own folder names a shipped one, too, wherever the command runs.
    """
    path = Path(name)
    if path.is_file():
        return path
    known = shipped(folder)
    if path.stem in known and path.parent in (Path(), Path("manifests", folder)):
        return known[path.stem]
    raise ManifestError(f"{kind} '{name}' is neither a file nor a shipped {kind}{did_you_mean(path.stem, known)}")


def with_settings(values: Any, settings: list[str]) -> Any:
    """Plain manifest values with ``--set`` settings applied; each is ``dotted.path=value``, the value read as YAML.

    A number in the path counts items of a list. Keys are checked later, when the values are parsed, so a new key may be set where
    the manifest has defaults. Raises ``ManifestError`` when a setting is not of that form, or leads through what holds no keys.
    """
    if settings and not isinstance(values, dict):
        raise ManifestError(f"--set {settings[0]}: the manifest is {type(values).__name__}, not a mapping")
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals or not path:
            raise ManifestError(f"--set {setting}: wanted dotted.path=value, as in --set stages.mel.hop=160")
        *parents, last = path.split(".")
        place = values
        for step in parents:
            place = place.setdefault(step, {}) if isinstance(place, dict) else _item(place, step)
            if not isinstance(place, dict | list):
                raise ManifestError(f"--set {setting}: '{step}' is not a mapping that holds further keys")
        try:
            value = yaml.safe_load(text) if text else ""
        except yaml.YAMLError:
            value = text
        if isinstance(place, list) and _item(place, last) is None:
            raise ManifestError(f"--set {setting}: the list has {len(place)} items, counted from 0")
        place[int(last) if isinstance(place, list) else last] = value
    return values


def _item(values: Any, step: str) -> Any:
    """Item of a list by its number, or ``None``."""
    return values[int(step)] if isinstance(values, list) and step.isdecimal() and int(step) < len(values) else None
