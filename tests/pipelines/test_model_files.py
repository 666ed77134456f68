"""``headloom assets``: a downloaded file is known by its content, checked by its loader, put in place with its record."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from manifests import assets
from manifests.assets import ASSETS, MissingAsset
from manifests.document import file_digest
from manifests.model_file import WrongModelFile
from pipelines.model_files import LOADERS, add, contents, problems, recognise
from tests.conftest import Headloom
from tests.fitting.official_files import WRITERS


@pytest.fixture(scope="module")
def official(model_files: Path) -> dict[str, Path]:
    """A file for every asset of the head models."""
    return {
        name: next(model_files / file for file in ASSETS[name].file_names if (model_files / file).is_file()) for name in WRITERS
    }


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty place for model files."""
    monkeypatch.setenv("HEADLOOM_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "models"


def test_every_asset_has_a_loader_and_a_place_of_its_own() -> None:
    assert LOADERS.keys() == ASSETS.keys()
    assert WRITERS.keys() == ASSETS.keys() - {"s3fd", "fan"}
    places = [asset.file_names[0] for asset in ASSETS.values()]
    assert len(set(places)) == len(places)
    assert all(asset.purpose and asset.licence and asset.where and asset.marks for asset in ASSETS.values())


@pytest.mark.parametrize("name", WRITERS)
def test_official_files_are_known_checked_and_put_in_place(name: str, official: dict[str, Path], home: Path) -> None:
    with pytest.raises(MissingAsset, match="headloom assets add"):
        assets.find(name)
    asset, place, holds = add(official[name])
    assert (asset.name, place) == (name, home / ASSETS[name].file_names[0])
    assert assets.find(name) == place
    assert assets.record(place)["sha256"] == file_digest(official[name]) == assets.digest(name)
    assert assets.record(place)["source"] == str(official[name])
    assert assets.record(place)["holds"] == holds != ""
    assert problems(name) == []


@pytest.mark.parametrize("name", [name for name in WRITERS if name not in {"flame2020", "deep3d"}])
def test_files_are_known_under_any_name(name: str, official: dict[str, Path], tmp_path: Path) -> None:
    """Some share their content's form with others: those are asked for, and taken when told."""
    path = tmp_path / "download (1)"
    path.symlink_to(official[name])
    alike = [asset.name for asset in ASSETS.values() if (asset.kind, asset.marks) == (ASSETS[name].kind, ASSETS[name].marks)]
    if len(alike) == 1:
        assert recognise(path).name == name
    else:
        with pytest.raises(WrongModelFile, match=f"may be .*{name}.*--as NAME"):
            recognise(path)
    assert recognise(path, name).name == name


def test_a_file_is_not_taken_for_another(official: dict[str, Path], home: Path) -> None:
    with pytest.raises(WrongModelFile, match="is not bfm: that is a MATLAB file, and this a pickle"):
        add(official["flame-masks"], "bfm")
    with pytest.raises(WrongModelFile, match="is not flame2020: it lacks v_template, shapedirs"):
        add(official["flame-masks"], "flame2020")
    with pytest.raises(WrongModelFile, match="no model file is called 'flame_2020'; did you mean 'flame2020'"):
        add(official["flame-masks"], "flame_2020")
    assert not home.exists()


def test_what_is_missing_is_named(tmp_path: Path, home: Path) -> None:
    held = {key: np.zeros((4, 3)) for key in ("v_template", "shapedirs", "posedirs", "kintree_table", "weights", "f")}
    (tmp_path / "generic_model.pkl").write_bytes(pickle.dumps(held))
    with pytest.raises(WrongModelFile, match=r"looks like flame2020, but it lacks J_regressor"):
        add(tmp_path / "generic_model.pkl")
    (tmp_path / "other.pkl").write_bytes(pickle.dumps({"a": 1, "b": 2}))
    with pytest.raises(WrongModelFile, match="a pickle with a, b, no model file"):
        add(tmp_path / "other.pkl")


def test_shapes_are_checked_before_anything_is_put_in_place(tmp_path: Path, official: dict[str, Path], home: Path) -> None:
    weights = torch.load(official["deep3d"], weights_only=True)
    weights["net_recon"]["final_layers.1.weight"] = torch.zeros(63, 2048, 1, 1)
    torch.save(weights, tmp_path / "epoch_20.pth")
    with pytest.raises(WrongModelFile, match=r"final_layers\.1\.weight is 63×2048×1×1 instead of 64×2048×1×1"):
        add(tmp_path / "epoch_20.pth")
    assert not home.exists()


def test_a_different_file_does_not_replace_the_one_in_place_unasked(
    official: dict[str, Path], home: Path, tmp_path: Path
) -> None:
    add(official["nphm-anchors"])
    first = assets.digest("nphm-anchors")
    add(official["nphm-anchors"])  # again: nothing to say
    np.save(tmp_path / "anchors_39.npy", np.ones((39, 3)))
    with pytest.raises(WrongModelFile, match="--replace"):
        add(tmp_path / "anchors_39.npy")
    assert assets.digest("nphm-anchors") == first
    add(tmp_path / "anchors_39.npy", replace=True)
    assert assets.digest("nphm-anchors") != first


def test_files_put_there_by_hand_are_found_and_can_be_added_where_they_are(official: dict[str, Path], home: Path) -> None:
    home.mkdir()
    shutil.copy(official["nphm-anchors"], home / "anchors_39.npy")
    assert assets.find("nphm-anchors") == home / "anchors_39.npy"
    assert assets.record(home / "anchors_39.npy") == {}
    assert problems("nphm-anchors") == []
    add(home / "anchors_39.npy")
    assert assets.record(home / "anchors_39.npy")["asset"] == "nphm-anchors"


def test_damage_since_it_was_added_is_found(official: dict[str, Path], home: Path) -> None:
    _, place, _ = add(official["nphm-anchors"])
    data = bytearray(place.read_bytes())
    data[-1] ^= 1
    place.write_bytes(data)
    assert problems("nphm-anchors") == [f"{place} has changed since it was added: add it again from its source"]


def test_a_damaged_record_is_found(official: dict[str, Path], home: Path) -> None:
    _, place, _ = add(official["nphm-anchors"])
    assets.record_path(place).write_text("{")
    assert problems("nphm-anchors") == [f"{place}.json is damaged: headloom assets add {place} writes it anew"]
    add(place)
    assert problems("nphm-anchors") == []


def test_dicts_in_many_places_and_in_themselves_are_listed_once(tmp_path: Path) -> None:
    held: dict[str, object] = {"weight": torch.zeros(3)}
    for _ in range(60):  # 2^60 if each were followed wherever it is
        held = {"a": held, "b": held}
    held["self"] = held
    torch.save(held, tmp_path / "file.pth")
    _, shapes = contents(tmp_path / "file.pth")
    assert shapes == {"a." * 60 + "weight": (3,)}


def test_a_damaged_safetensors_file_is_named(tmp_path: Path) -> None:
    header = b'{"a": {"dtype": "X9", "shape": [1], "data_offsets": [0, 4]}}'
    (tmp_path / "file").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(WrongModelFile, match="file is damaged"):
        recognise(tmp_path / "file")


def test_contents_are_flat(official: dict[str, Path]) -> None:
    _, shapes = contents(official["deep3d"])
    assert shapes["net_recon.final_layers.0.weight"] == (80, 2048, 1, 1)
    _, shapes = contents(official["nphm-anchors"])
    assert shapes == {"39×3": (39, 3)}


def test_the_command_line(official: dict[str, Path], home: Path, headloom: Headloom, tmp_path: Path) -> None:
    added = json.loads(headloom("assets", "add", str(official["flame-masks"]), str(official["bfm-landmarks"]), "--json").stdout)
    assert [row["name"] for row in added] == ["flame-masks", "bfm-landmarks"]
    listed = {row["name"]: row for row in json.loads(headloom("assets", "list", "--json").stdout)}
    assert listed.keys() == ASSETS.keys()
    assert listed["flame-masks"]["here"] == str(home / "FLAME_masks.pkl")
    assert listed["flame2020"]["here"] == "no"
    checked = json.loads(headloom("assets", "check", "--json").stdout)
    assert [row["problems"] for row in checked] == ["none", "none"]

    (home / "FLAME_masks.pkl").write_bytes(b"<html>")
    done = headloom("assets", "check", check=False)
    assert done.returncode == 1
    assert "web page" in done.stdout
    done = headloom("assets", "add", str(home / "FLAME_masks.pkl"), check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("headloom: ")
    assert done.stderr.count("\n") == 1
    assert headloom("assets", "add", str(tmp_path / "nowhere.pkl"), check=False).returncode == 2
