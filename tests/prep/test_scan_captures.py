"""Scanning trees of multi-camera recordings: every sequence an item, with a digest of all that belongs to it."""

import shutil
from pathlib import Path

import pytest

from manifests.document import ManifestError
from manifests.source import SourceManifest
from prep.scan_captures import scan_captures
from tests.prep.test_capture import H, W, nersemble, plain


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both releases, a copy of one sequence, a capture that is damaged, and one of another layout."""
    root = tmp_path_factory.mktemp("tree")
    nersemble(root / "v1", "v1")
    nersemble(root / "v2", "v2")
    shutil.copytree(root / "v1", root / "v1-again")
    damaged = nersemble(root / "damaged", "v2")
    for video in (damaged / "images").glob("*.mp4"):
        video.write_bytes(b"not a video")
    plain(root / "own" / "mine")
    return root


def test_every_sequence_is_an_item(tree: Path, tmp_path: Path) -> None:
    found = scan_captures([str(tree)], tmp_path / "captures.yaml", "nersemble")
    items = {item.uri: item for item in found.items}
    one, two = items["v1/017/sequences/SEN-01-test"], items["v2/017/sequences/SEN-01-test"]
    assert (one.layout, two.layout) == ("nersemble-v1", "nersemble-v2")
    assert one.person == two.person == "017"
    assert one.cameras == two.cameras == 16
    assert one.stand_in
    assert two.stand_in
    assert one.video is not None
    assert (one.video.width, one.video.height, one.video.frames) == (W, H, 3)
    assert one.video.fps == pytest.approx(73 / 3, abs=0.01)
    assert one.audio is not None
    assert one.sound_uri == "v1/017/sequences/SEN-01-test/audio.wav"


def test_the_same_capture_twice_is_a_duplicate(tree: Path, tmp_path: Path) -> None:
    found = scan_captures([str(tree)], tmp_path / "captures.yaml", "nersemble")
    twice = [item for item in found.items if item.duplicate_of]
    assert len(twice) == 1
    assert {twice[0].uri, twice[0].duplicate_of.split("/", 1)[1]} == {
        "v1/017/sequences/SEN-01-test",
        "v1-again/017/sequences/SEN-01-test",
    }
    assert found.counts()["exact duplicates"] == 1


def test_a_damaged_capture_is_listed_with_what_is_wrong(tree: Path, tmp_path: Path) -> None:
    items = {item.uri: item for item in scan_captures([str(tree)], tmp_path / "captures.yaml", "nersemble").items}
    assert "cam_" in items["damaged/017/sequences/SEN-01-test"].probe_error


def test_the_plain_layout_is_asked_for_by_name(tree: Path, tmp_path: Path) -> None:
    found = scan_captures([str(tree)], tmp_path / "captures.yaml", "plain")
    assert [(item.uri, item.layout, item.cameras) for item in found.items] == [("own/mine", "plain", 3)]


def test_the_manifest_finds_the_folder_again(tree: Path, tmp_path: Path) -> None:
    scan_captures([str(tree)], tmp_path / "captures.yaml", "plain")
    manifest = SourceManifest.load(tmp_path / "captures.yaml")
    take = manifest.take(manifest.items(tmp_path)[0], tmp_path)
    assert (take.path, take.layout) == (str(tree / "own" / "mine"), "plain")


def test_where_there_is_nothing_one_line_says_so(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"no capture in .*: no camera_params\.json with sequences beside it"):
        scan_captures([str(tmp_path)], tmp_path / "captures.yaml", "nersemble")
    with pytest.raises(ManifestError, match="there is no such folder"):
        scan_captures([str(tmp_path / "gone")], tmp_path / "captures.yaml", "nersemble")
