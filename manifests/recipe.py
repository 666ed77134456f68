"""Recipe: which stages turn a source into a dataset, with which parameters, limits and families."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, model_validator

from manifests.columns import COLUMNS, FAMILIES
from manifests.document import Manifest, ManifestError, Part, did_you_mean, read_plain


class Limit(Part):
    """The range in which a score is accepted. It is applied after the score is stored, and is in no key."""

    min: float | None = None
    max: float | None = None

    @model_validator(mode="after")
    def _not_empty(self) -> Limit:
        if self.min is None and self.max is None:
            raise ValueError("a limit needs min or max")
        return self

    def broken_by(self, score: float) -> tuple[str, float] | None:
        """``("below", min)`` or ``("above", max)`` when ``score`` lies outside; NaN lies outside of everything."""
        if self.min is not None and not score >= self.min:
            return "below", self.min
        if self.max is not None and not score <= self.max:
            return "above", self.max
        return None


class Recipe(Manifest):
    """A build: ``source`` is the path of a source manifest, ``store`` where results are kept for reuse.

    ``stages`` maps stage names to parameters, in the order in which they run. ``limits`` maps scores (numeric
    columns of the family ``clips``) to the accepted range. ``store`` may be a folder or an fsspec URL; empty
    means ``.store`` in the dataset's folder.
    """

    kind = "recipe"

    source: str = ""
    stages: dict[str, dict[str, Any]] = Field(min_length=1)
    limits: dict[str, Limit] = {}
    families: list[str] = Field(default=["clips"], min_length=1)
    clips_per_part: int = Field(default=128, ge=1)
    store: str = ""

    @model_validator(mode="after")
    def _names_exist(self) -> Recipe:
        for family in self.families:
            if family not in FAMILIES:
                raise ValueError(f"unknown family '{family}'{did_you_mean(family, FAMILIES)}")
        scores = [c.name for c in COLUMNS.values() if c.family == "clips" and c.is_scalar and c.dtype not in ("string", "bool")]
        for score in self.limits:
            if score not in scores:
                raise ValueError(f"unknown score '{score}' in limits{did_you_mean(score, scores)}")
        return self


def shipped_recipes() -> dict[str, Path]:
    """The recipes that come with the package, by name."""
    folder = Path(str(resources.files("manifests")))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def find_recipe(name: str) -> Path:
    """Path of a recipe named by path, or by the name of one that ships with the package."""
    path = Path(name)
    if path.is_file():
        return path
    shipped = shipped_recipes()
    if path.stem in shipped and path.parent.as_posix() in (".", "manifests"):
        return shipped[path.stem]
    raise ManifestError(f"recipe '{name}' is neither a file nor a shipped recipe{did_you_mean(path.stem, shipped)}")


def with_settings(values: Any, settings: list[str]) -> Any:
    """Plain manifest values with ``--set`` settings applied; each is ``dotted.path=value``, the value read as YAML.

    Keys are checked later, when the values are parsed, so a new key may be set where the manifest has defaults.
    Raises ``ManifestError`` when a setting is not of that form or leads through something that is no mapping.
    """
    if settings and not isinstance(values, dict):
        raise ManifestError(f"--set {settings[0]}: the recipe is {type(values).__name__}, not a mapping")
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals or not path:
            raise ManifestError(f"--set {setting}: wanted dotted.path=value, as in --set stages.mel.hop=160")
        *parents, last = path.split(".")
        place = values
        for step in parents:
            place = place.setdefault(step, {}) if isinstance(place, dict) else None
            if not isinstance(place, dict):
                raise ManifestError(f"--set {setting}: '{step}' is not a mapping that holds further keys")
        try:
            place[last] = yaml.safe_load(text) if text else ""
        except yaml.YAMLError:
            place[last] = text
    return values


def load_recipe(name: str, settings: list[str] | None = None) -> Recipe:
    """Find, set and check a recipe. A relative ``source`` in the file is taken from the file's folder."""
    path = find_recipe(name)
    values = read_plain(path)
    if isinstance(values, dict) and values.get("source") and not Path(str(values["source"])).is_absolute():
        values["source"] = str(path.parent / str(values["source"]))
    return Recipe.parse(with_settings(values, settings or []), str(path))
