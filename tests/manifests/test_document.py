"""Manifests: strict, digested, and with errors that say how to mend them."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.document import ManifestError, canonical_json, digest_of
from manifests.recipe import Recipe, load_recipe
from manifests.reference import generated
from manifests.shipped import RECIPES, find, shipped, with_settings
from manifests.source import SourceItem, SourceManifest
from manifests.training import TrainingManifest, Window

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def recipe_values(**more: Any) -> dict[str, Any]:
    return {"format": "headloom/recipe", "name": "r", "stages": {"probe": {}}, **more}


@given(plain)
def test_the_canonical_text_survives_a_round_trip(value: Any) -> None:
    text = canonical_json(value)
    assert canonical_json(json.loads(text)) == text


@given(st.dictionaries(st.text(), plain, min_size=2, max_size=6))
def test_the_digest_does_not_depend_on_the_order_of_keys(value: dict[str, Any]) -> None:
    assert digest_of(value) == digest_of(dict(reversed(value.items())))


def test_nan_has_no_canonical_text() -> None:
    with pytest.raises(ValueError, match="JSON"):
        canonical_json(float("nan"))


def test_an_unknown_key_is_refused_with_the_nearest_known() -> None:
    with pytest.raises(ManifestError, match=r"clips.yaml: unknown key 'familys'; did you mean 'families'\?"):
        Recipe.parse(recipe_values(familys=["clips"]), "clips.yaml")


def test_an_unknown_key_inside_a_mapping_is_found_too() -> None:
    with pytest.raises(ManifestError, match=r"unknown key 'limits.sharpness.mim'; did you mean 'min'\?"):
        Recipe.parse(recipe_values(limits={"sharpness": {"mim": 1}}), "r")


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (recipe_values(limits={"sharpnes": {"min": 1}}), "unknown score 'sharpnes' in limits; did you mean 'sharpness'"),
        (recipe_values(families=["audoi"]), "unknown family 'audoi'; did you mean 'audio'"),
        (recipe_values(limits={"sharpness": {}}), "a limit needs min or max"),
        (recipe_values(version="1.0"), "'version'"),
        ({"format": "headloom/recipe", "name": "r"}, "'stages' is missing"),
        ({"format": "headloom/dataset"}, "is it another kind of file"),
        (recipe_values(format_version=2), "format_version 2, this headloom reads 1"),
        ([], "is a mapping, this is list"),
    ],
)
def test_mistakes_are_named_in_one_line(values: Any, says: str) -> None:
    with pytest.raises(ManifestError) as caught:
        Recipe.parse(values, "r.yaml")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".json", ".yaml"])
def test_saved_and_loaded_is_the_same(tmp_path: Path, suffix: str) -> None:
    recipe = Recipe.parse(recipe_values(notes="größe ‘x’"), "r").sealed()
    recipe.save(tmp_path / f"r{suffix}")
    assert Recipe.load(tmp_path / f"r{suffix}") == recipe


def test_an_edit_after_sealing_is_noticed(tmp_path: Path) -> None:
    Recipe.parse(recipe_values(), "r").sealed().save(tmp_path / "r.json")
    (tmp_path / "r.json").write_text((tmp_path / "r.json").read_text().replace('"clips_per_part": 128', '"clips_per_part": 64'))
    with pytest.raises(ManifestError, match="edited"):
        Recipe.load(tmp_path / "r.json")


@pytest.mark.parametrize(("text", "says"), [("a: [", "line"), ("{", "line"), ("\xff\xfe", "mapping")])
def test_a_broken_file_says_where(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "r.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ManifestError, match=says):
        Recipe.load(tmp_path / "r.yaml")


def test_a_missing_file_is_one_line() -> None:
    with pytest.raises(ManifestError, match="cannot be read"):
        Recipe.load(Path("nowhere.yaml"))


def test_settings_reach_into_the_recipe() -> None:
    values = with_settings(recipe_values(), ["stages.mel.hop=160", "limits.sharpness.min=0.5", "source=my clips.yaml"])
    assert values["stages"]["mel"] == {"hop": 160}
    assert values["limits"] == {"sharpness": {"min": 0.5}}
    assert values["source"] == "my clips.yaml"


@pytest.mark.parametrize("setting", ["hop", "=3", "name.deeper=1"])
def test_a_setting_of_another_form_is_refused(setting: str) -> None:
    with pytest.raises(ManifestError, match="--set"):
        with_settings(recipe_values(), [setting])


def test_shipped_recipes_are_found_by_name_and_by_their_path_in_the_repository() -> None:
    path = shipped(RECIPES)["talking_clips"]
    assert find("talking_clips", RECIPES, "recipe") == find("manifests/talking_clips.yaml", RECIPES, "recipe").resolve() == path
    assert load_recipe("talking_clips", ["source=x.yaml"]).source == "x.yaml"
    with pytest.raises(ManifestError, match="did you mean 'talking_clips'"):
        find("talking_clip", RECIPES, "recipe")


def test_items_of_a_source_are_checked_against_its_header(tmp_path: Path) -> None:
    item = SourceItem(uri="a b/ü'\"\u2028\u0085.mp4", root="videos", sha256="0" * 64, bytes=1)
    written = SourceManifest.write(tmp_path / "s.yaml", "s", {"videos": "v"}, [item])
    loaded = SourceManifest.load(tmp_path / "s.yaml")
    assert loaded == written
    assert loaded.items(tmp_path) == [item]
    assert loaded.take(item, tmp_path).path == str(tmp_path / "v" / "a b/ü'\"\u2028\u0085.mp4")
    items = tmp_path / "s.items.jsonl"
    items.write_text(items.read_text().replace("mp4", "mov"))
    with pytest.raises(ManifestError, match="edited; run headloom scan again"):
        loaded.items(tmp_path)


def test_a_take_with_sound_of_its_own_has_its_own_identity() -> None:
    silent = SourceItem(uri="a", root="r", sha256="0" * 64, bytes=1)
    assert silent.take_id == silent.sha256
    assert silent.model_copy(update={"sound_sha256": "1" * 64}).take_id != silent.sha256


def test_a_training_manifest_wants_shares_that_add_up() -> None:
    values = {
        "format": "headloom/training",
        "name": "t",
        "datasets": [{"path": "data"}],
        "window": {"length": 48},
        "model": "facetalk",
        "out": "runs/t",
    }
    assert TrainingManifest.parse(values, "t").window == Window(length=48)
    with pytest.raises(ManifestError, match="add up to 1"):
        TrainingManifest.parse(values | {"split": {"train": 0.5}}, "t")


def test_generated_files_are_up_to_date() -> None:
    root = Path(__file__).parents[2]
    stale = [path for path, text in generated().items() if (root / path).read_text("utf-8") != text]
    assert stale == [], "run make docs"
