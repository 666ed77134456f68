"""Recipe: which stages turn a source into a dataset, with which parameters, limits and families."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from manifests.columns import COLUMNS, FAMILIES
from manifests.document import Manifest, Part, did_you_mean, read_plain
from manifests.shipped import RECIPES, find, with_settings


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


def load_recipe(name: str, settings: list[str] | None = None) -> Recipe:
    """Find, set and check a recipe. A relative ``source`` in the file is taken from the file's folder."""
    path = find(name, RECIPES, "recipe")
    values = read_plain(path)
    if isinstance(values, dict) and values.get("source") and not Path(str(values["source"])).is_absolute():
        values["source"] = str(path.parent / str(values["source"]))
    return Recipe.parse(with_settings(values, settings or []), str(path))
