"""The plan of a build: the stages with their parameters and files, checked against each other before anything runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from manifests import assets
from manifests.columns import COLUMNS, SOURCE_COLUMNS
from manifests.dataset import StageRecord
from manifests.document import ManifestError, did_you_mean, digest_of, file_digest, first_mistake
from manifests.recipe import Limit, Recipe
from manifests.stage import Stage
from pipelines.stages import STAGES


@dataclass(frozen=True, slots=True)
class PlannedStage:
    """A stage and the part of its key that does not depend on the item: version, parameters, digests of files."""

    stage: Stage
    models: Mapping[str, str]
    files: Mapping[str, str]

    @property
    def name(self) -> str:
        return self.stage.name

    @property
    def level(self) -> str:
        return self.stage.level

    @property
    def parameters(self) -> dict[str, Any]:
        return self.stage.model_dump(mode="json")

    @property
    def _places(self) -> set[str]:
        """Parameters that say where files are; what is in them is in ``files``."""
        values = {name: getattr(self.stage, name) for name in type(self.stage).model_fields}
        return {n for n, v in values.items() if isinstance(v, Path) or (isinstance(v, tuple) and v and isinstance(v[0], Path))}

    def key(self, inputs: Mapping[str, str]) -> str:
        """Key of this stage's result for inputs with these keys."""
        return digest_of(
            {
                "stage": self.name,
                "version": self.stage.version,
                "parameters": {name: value for name, value in self.parameters.items() if name not in self._places},
                "models": dict(self.models),
                "files": list(self.files.values()),
                "columns": [(c.name, c.dtype, c.shape, c.encoding) for c in map(COLUMNS.__getitem__, self.stage.writes)],
                "inputs": dict(inputs),
            }
        )

    def record(self) -> StageRecord:
        """What the dataset manifest says of it."""
        return StageRecord(
            name=self.name,
            version=self.stage.version,
            level=self.level,
            parameters=self.parameters,
            models={**self.models, **self.files},
            reads=list(self.stage.reads()),
            writes=list(self.stage.writes),
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """The checked stages of a recipe: those of takes first, one of which cuts, then those of clips."""

    stages: tuple[PlannedStage, ...]
    limits: Mapping[str, Limit]

    @property
    def makers(self) -> dict[str, str]:
        """The stage that makes each column."""
        return {name: planned.name for planned in self.stages for name in planned.stage.writes}

    @property
    def rates(self) -> dict[str, str]:
        """Rates of columns that follow from parameters instead of the table."""
        return {name: rate for planned in self.stages for name, rate in planned.stage.rates().items()}

    @property
    def made(self) -> set[str]:
        """All columns that exist once the stages have run."""
        return {*SOURCE_COLUMNS, *(name for planned in self.stages for name in planned.stage.writes)}


def make_plan(recipe: Recipe) -> Plan:
    """Check a recipe's stages and return the plan.

    Raises ``ManifestError`` for unknown stages and parameters, for columns that are read before they are made or
    at the wrong level, for families without columns, limits on scores that nobody makes, and missing model files.
    """
    planned = tuple(_planned(name, parameters) for name, parameters in recipe.stages.items())
    _check_order(planned)
    plan = Plan(planned, recipe.limits)
    for family in recipe.families:
        if family != "clips" and not any(COLUMNS[name].family == family for name in plan.made):
            makers = sorted({c.made_by for c in COLUMNS.values() if c.family == family})
            raise ManifestError(f"recipe {recipe.name}: no stage fills family '{family}'; add one of {', '.join(makers)}")
    for score in recipe.limits:
        if score not in plan.made:
            raise ManifestError(
                f"recipe {recipe.name}: limit on '{score}' needs stage {COLUMNS[score].made_by}; add it to stages"
            )
    return plan


def _planned(name: str, parameters: Mapping[str, Any]) -> PlannedStage:
    if name not in STAGES:
        raise ManifestError(f"unknown stage '{name}'{did_you_mean(name, STAGES)}")
    try:
        stage = STAGES[name].model_validate(parameters or {})
    except ValidationError as error:
        raise ManifestError(f"stage {name}: {first_mistake(error, STAGES[name], parameters)}") from None
    try:
        models = {model: assets.digest(model) for model in stage.models()}
        files = {str(path): _digest_of_file(name, path) for path in stage.files()}
    except assets.MissingAsset as error:
        raise ManifestError(f"stage {name}: {error}") from None
    return PlannedStage(stage, models, files)


def _digest_of_file(stage: str, path: Path) -> str:
    try:
        return file_digest(path)
    except OSError as error:
        raise ManifestError(f"stage {stage}: {path} cannot be read ({error.strerror}); check the path") from None


def _check_order(planned: tuple[PlannedStage, ...]) -> None:
    """What a stage reads must have been made before it, and by a stage whose level it can see."""
    made = {"take": "take", **dict.fromkeys(SOURCE_COLUMNS, "take")}
    cutter = ""
    for one in planned:
        if one.level == "take" and cutter:
            raise ManifestError(f"stage {one.name} works on whole takes, so it must stand before {cutter}")
        if one.level == "clip" and not cutter:
            raise ManifestError(f"stage {one.name} works on clips, so a stage that cuts (cut) must stand before it")
        for name in one.stage.reads():
            if name not in made:
                maker = COLUMNS[name].made_by if name in COLUMNS else "none"
                raise ManifestError(f"stage {one.name} reads column {name}, which no stage before it makes; add stage {maker}")
        level = "clip" if one.stage.cuts else one.level
        for name in one.stage.writes:
            if name in made:
                raise ManifestError(f"stage {one.name} writes column {name}, which is already made; leave one of the stages out")
            made[name] = level
        if one.stage.cuts:
            cutter = one.name
    if not cutter:
        raise ManifestError("no stage cuts takes into clips; add stage cut")
