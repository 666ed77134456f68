"""Scanning folders in FaceTalk's layout: every folder an item, with a digest of what is read of it."""

import shutil
from pathlib import Path

import pytest

from manifests.document import ManifestError
from manifests.source import SourceManifest
from prep.codes import ORIGIN, SOUND
from prep.scan_codes import scan_codes
from tests.prep.test_codes import write_folder


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two takes, a copy of one, one without sound, and one whose ``headloom.json`` is damaged."""
    root = tmp_path_factory.mktemp("tree")
    write_folder(root / "017_SEN-01")
    write_folder(root / "more" / "018_SEN-01", frames=24, person="018", stand_in=True, fps=[24, 1])
    shutil.copytree(root / "017_SEN-01", root / "again" / "017_SEN-01")
    (write_folder(root / "019_SEN-01") / SOUND).unlink()
    (write_folder(root / "020_SEN-01") / ORIGIN).write_text("{")
    return root


def test_every_folder_is_an_item(tree: Path, tmp_path: Path) -> None:
    found = scan_codes([str(tree)], tmp_path / "codes.yaml")
    items = {item.uri: item for item in found.items}
    assert set(items) == {"017_SEN-01", "more/018_SEN-01", "again/017_SEN-01", "019_SEN-01", "020_SEN-01"}
    item = items["more/018_SEN-01"]
    assert (item.layout, item.person, item.stand_in) == ("facetalk", "018", True)
    assert item.sound_uri == "more/018_SEN-01/audio/cleaned_audio.wav"
    assert item.audio is not None
    assert (item.audio.rate, item.video) == (16_000, None)
    assert item.duration_s == pytest.approx(1.0)
    assert (items["017_SEN-01"].person, items["017_SEN-01"].stand_in) == ("017", False)


def test_what_is_peculiar_is_counted(tree: Path, tmp_path: Path) -> None:
    counts = scan_codes([str(tree)], tmp_path / "codes.yaml").counts()
    assert counts["exact duplicates"] == 1
    assert counts["unreadable"] == 1
    assert counts["without sound"] == 1
    assert counts["seconds"] == 2


def test_a_damaged_folder_is_listed_with_what_is_wrong(tree: Path, tmp_path: Path) -> None:
    items = {item.uri: item for item in scan_codes([str(tree)], tmp_path / "codes.yaml").items}
    assert "headloom.json is not JSON" in items["020_SEN-01"].probe_error


def test_the_same_folders_give_the_same_bytes(tree: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        scan_codes([str(tree)], tmp_path / name / "codes.yaml")
    for name in ("codes.yaml", "codes.items.jsonl"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_takes_say_where_folder_and_sound_are(tree: Path, tmp_path: Path) -> None:
    scan_codes([str(tree)], tmp_path / "codes.yaml")
    manifest = SourceManifest.load(tmp_path / "codes.yaml")
    item = next(item for item in manifest.items(tmp_path) if item.uri == "017_SEN-01")
    take = manifest.take(item, tmp_path)
    assert take.path == str(tree / "017_SEN-01")
    assert take.sound_path == str(tree / "017_SEN-01" / SOUND)
    assert take.duration_s == pytest.approx(0.5)


def test_a_folder_without_codes_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"no folder of codes in .*: none with nphm_tracking/nphm_expressions"):
        scan_codes([str(tmp_path)], tmp_path / "codes.yaml")
    with pytest.raises(ManifestError, match="there is no such folder"):
        scan_codes([str(tmp_path / "nowhere")], tmp_path / "codes.yaml")
