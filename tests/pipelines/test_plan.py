"""The plan: mistakes are found before anything runs, each in one line that says how to mend it."""

from pathlib import Path
from typing import Any

import pytest

from manifests.document import ManifestError
from manifests.recipe import Recipe, load_recipe
from pipelines.plan import make_plan

TAKES = {"probe": {}, "faces": {}, "cut": {}}


def recipe(stages: dict[str, Any], **more: Any) -> Recipe:
    return Recipe.parse({"format": "headloom/recipe", "name": "r", "stages": stages, **more}, "r")


def test_the_shipped_recipe_is_sound() -> None:
    plan = make_plan(load_recipe("talking_clips"))
    names = [planned.name for planned in plan.stages]
    assert names[:3] == ["probe", "faces", "cut"]
    assert names.index("sound") < names.index("crop"), "no picture is encoded for a clip that is rejected for its sound"


@pytest.mark.parametrize(
    ("stages", "says"),
    [
        ({**TAKES, "croop": {}}, "unknown stage 'croop'; did you mean 'crop'"),
        ({**TAKES, "sound": {}, "mel": {"hopp": 160}}, "stage mel: unknown key 'hopp'; did you mean 'hop'"),
        ({**TAKES, "sound": {}, "mel": {"hop": "many"}}, "stage mel: 'hop'"),
        ({**TAKES, "mel": {}}, "stage mel reads column wave, which no stage before it makes; add stage sound"),
        ({"probe": {}, "cut": {}}, "which no stage before it makes; add stage faces"),
        ({"probe": {}, "faces": {}, "sound": {}}, "works on clips, so a stage that cuts (cut) must stand before it"),
        ({"faces": {}, "cut": {}, "probe": {}}, "must stand before cut"),
        ({"probe": {}, "faces": {}}, "no stage cuts takes into clips"),
    ],
)
def test_stages_that_do_not_fit_are_refused(stages: dict[str, Any], says: str) -> None:
    with pytest.raises(ManifestError) as caught:
        make_plan(recipe(stages))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_family_that_nobody_fills_is_refused() -> None:
    with pytest.raises(ManifestError, match="no stage fills family 'audio'; add one of"):
        make_plan(recipe(TAKES, families=["clips", "audio"]))


def test_a_limit_on_a_score_that_nobody_makes_is_refused() -> None:
    with pytest.raises(ManifestError, match="limit on 'sharpness' needs stage quality"):
        make_plan(recipe(TAKES, limits={"sharpness": {"min": 0.1}}))


def test_a_missing_model_file_is_named_when_the_build_is_planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADLOOM_MODELS", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(ManifestError, match=r"stage faces: model file s3fd-619a316812.pth .* is missing: get it from"):
        make_plan(recipe({"probe": {}, "faces": {"detector": "s3fd"}, "cut": {}}))


def test_a_model_file_enters_the_key_by_its_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADLOOM_MODELS", str(tmp_path))
    keys = []
    for content in (b"one", b"another"):
        (tmp_path / "s3fd-619a316812.pth").write_bytes(content)
        plan = make_plan(recipe({"probe": {}, "faces": {"detector": "s3fd"}, "cut": {}}))
        keys.append(plan.stages[1].key({"take": "x"}))
    assert keys[0] != keys[1]
