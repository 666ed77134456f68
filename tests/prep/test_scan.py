"""From folders of recordings to a source manifest."""

import shutil
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from manifests.document import ManifestError, file_digest
from manifests.source import SourceItem, SourceManifest
from prep.scan import Scanned, scan
from tests.portrait import make_takes

ODD_NAMES = ["-dash first.mp4", 'it\'s "quoted".mp4', "größe 日本.mp4", "two\nlines.mp4", "UPPER.MP4"]


def remuxed(source: Path, target: Path, kinds: tuple[str, ...] = ("video", "audio")) -> Path:
    """The same packets in another container, or only those of the picture or of the sound."""
    with av.open(str(source)) as given, av.open(str(target), "w") as made:
        streams = {s.index: made.add_stream_from_template(s) for s in given.streams if s.type in kinds}
        for packet in given.demux():
            if packet.stream.index in streams and packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                made.mux(packet)
    return target


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as people have them."""
    home = tmp_path_factory.mktemp("scan")
    takes = home / "takes"
    anna, ben = make_takes(home / "made", 2, seconds=1.5, size=(160, 120))
    for name in ("anna", "ben", "odd", "bad", ".hidden"):
        (takes / name).mkdir(parents=True)
    shutil.copy(anna, takes / "anna" / "00001.mp4")
    shutil.copy(ben, takes / "ben" / "00001.mp4")
    remuxed(anna, takes / "anna" / "00002.mkv")
    for k, name in enumerate(ODD_NAMES):  # other bytes, so that they are not exact duplicates
        (takes / "odd" / name).write_bytes(ben.read_bytes() + bytes(4) + bytes([k]))
    remuxed(anna, takes / "odd" / "silent.mp4", ("video",))
    soundfile.write(takes / "odd" / "silent.wav", np.sin(np.arange(24000) / 9), 16000)
    remuxed(anna, takes / "odd" / "only sound.mp4", ("audio",))
    soundfile.write(takes / "odd" / "lone.wav", np.zeros(1600), 16000)
    shutil.copy(anna, takes / ".hidden" / "x.mp4")
    shutil.copy(anna, takes / ".x.mp4")
    (takes / "bad" / "empty.mp4").touch()
    (takes / "bad" / "text.avi").write_text("hello\n" * 100)
    (takes / "bad" / "cut.mp4").write_bytes(anna.read_bytes()[:5000])
    (takes / "notes.TXT").touch()
    (takes / "face.jpg").touch()
    (takes / "README").touch()
    return home


@pytest.fixture(scope="module")
def scanned(tree: Path) -> Scanned:
    return scan([str(tree / "takes")], tree / "source.yaml", person_from="folder")


def by_uri(scanned: Scanned) -> dict[str, SourceItem]:
    return {item.uri: item for item in scanned.items}


def test_every_video_is_an_item_in_order_of_its_path(scanned: Scanned) -> None:
    expected = [
        *("anna/00001.mp4", "anna/00002.mkv", "bad/cut.mp4", "bad/empty.mp4", "bad/text.avi", "ben/00001.mp4"),
        *(f"odd/{name}" for name in sorted([*ODD_NAMES, "only sound.mp4", "silent.mp4"])),
    ]
    assert [item.uri for item in scanned.items] == expected


def test_the_manifest_can_be_read_and_leads_to_the_files(tree: Path, scanned: Scanned) -> None:
    manifest = SourceManifest.load(tree / "source.yaml")
    assert manifest == scanned.manifest
    assert manifest.name == "source"
    items = manifest.items(tree)
    assert tuple(items) == scanned.items
    for item in items:
        path = Path(manifest.locate(item.root, item.uri, tree))
        assert (file_digest(path), path.stat().st_size) == (item.sha256, item.bytes)


def test_facts_are_those_of_the_container(scanned: Scanned) -> None:
    item = by_uri(scanned)["ben/00001.mp4"]
    assert item.video
    assert item.audio
    assert (item.video.codec, item.video.width, item.video.height) == ("h264", 160, 120)
    assert item.video.duration_s == pytest.approx(1.5, abs=0.05)
    assert (item.audio.codec, item.audio.rate) == ("aac", 44100)
    assert item.stand_in


def test_what_cannot_be_read_says_why_in_one_line(scanned: Scanned) -> None:
    items = by_uri(scanned)
    assert items["bad/empty.mp4"].probe_error == "the file is empty (0 bytes)"
    for uri, item in items.items():
        assert bool(item.probe_error) == uri.startswith("bad/")
        assert "\n" not in item.probe_error


def test_sound_beside_a_silent_video_belongs_to_it(tree: Path, scanned: Scanned) -> None:
    item = by_uri(scanned)["odd/silent.mp4"]
    assert item.sound_uri == "odd/silent.wav"
    assert item.sound_sha256 == file_digest(tree / "takes" / item.sound_uri)
    assert item.audio
    assert (item.audio.rate, item.audio.duration_s) == (16000, 1.5)
    assert item.take_id != item.sha256
    take = scanned.manifest.take(item, tree)
    assert take.sound_path == str(tree / "takes" / "odd" / "silent.wav")


def test_a_container_of_sound_only_is_an_item_without_picture(scanned: Scanned) -> None:
    item = by_uri(scanned)["odd/only sound.mp4"]
    assert item.video is None
    assert item.audio
    assert not item.probe_error


def test_duplicates_point_at_what_is_kept(scanned: Scanned) -> None:
    items = by_uri(scanned)
    by_name = {item.name: item for item in scanned.items}
    assert all(by_name[item.duplicate_of].duplicate_of == "" for item in scanned.items if item.duplicate_of)
    one, other = items["anna/00001.mp4"], items["anna/00002.mkv"]
    assert {one.duplicate_of, other.duplicate_of} in ({"", one.name}, {"", other.name})
    ben = ["ben/00001.mp4", *(f"odd/{name}" for name in ODD_NAMES)]
    assert sorted(items[uri].duplicate_kind for uri in ben) == ["", *["re-encoded"] * len(ODD_NAMES)]


def test_the_folder_names_the_person_when_asked_to(scanned: Scanned) -> None:
    assert by_uri(scanned)["anna/00002.mkv"].person == "anna"
    assert by_uri(scanned)["ben/00001.mp4"].person == "ben"


def test_everything_is_counted(scanned: Scanned) -> None:
    assert scanned.counts() == {
        "files": 13,
        "seconds": 14,  # nine takes of 1.5 s, some a frame longer
        "without picture": 1,
        "without sound": 0,
        "unreadable": 3,
        "exact duplicates": 0,
        "re-encoded duplicates": 6,
        "ignored: .jpg": 1,
        "ignored: .txt": 1,
        "ignored: .wav": 1,
        "ignored: no suffix": 1,
    }


def test_scanning_again_gives_the_same_bytes(tree: Path, scanned: Scanned) -> None:
    files = [tree / "source.yaml", tree / "source.items.jsonl"]
    before = [file.read_bytes() for file in files]
    told: list[tuple[int, int]] = []
    scan([str(tree / "takes")], tree / "source.yaml", person_from="folder", on_progress=lambda *step: told.append(step))
    assert [file.read_bytes() for file in files] == before
    assert told == [(done, 13) for done in range(1, 14)]


def test_each_path_is_a_root_and_files_of_one_name_are_told_apart(tree: Path, tmp_path: Path) -> None:
    for place in ("a", "b"):
        shutil.copytree(tree / "takes" / "ben", tmp_path / place / "ben")
    shutil.copy(tree / "takes" / "anna" / "00001.mp4", tmp_path / "alone.mp4")
    (tmp_path / "out").mkdir()
    given = [str(tmp_path / name) for name in ("a/ben", "b/ben", "alone.mp4", "a/ben/00001.mp4")]
    found = scan(given, tmp_path / "out" / "source.json", name="mine")
    assert found.manifest.name == "mine"
    assert found.manifest.roots == {
        "ben": str(tmp_path / "a" / "ben"),
        "ben-2": str(tmp_path / "b" / "ben"),
        tmp_path.name: str(tmp_path),
    }
    assert [(item.root, item.uri) for item in found.items] == [
        ("ben", "00001.mp4"),
        ("ben-2", "00001.mp4"),
        (tmp_path.name, "alone.mp4"),
    ]
    assert [item.duplicate_kind for item in found.items] == ["", "exact", ""]
    assert not any(item.person for item in found.items)


def test_roots_inside_the_manifests_folder_are_relative_so_that_both_can_move(tree: Path, scanned: Scanned) -> None:
    assert scanned.manifest.roots == {"takes": "takes"}


def test_a_path_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="nowhere: there is no such file or folder"):
        scan([str(tmp_path / "nowhere")], tmp_path / "source.yaml")


def test_nothing_to_scan_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ManifestError, match=r"no video among .*known suffixes are \.mp4"):
        scan([str(tmp_path)], tmp_path / "source.yaml")
    assert not (tmp_path / "source.yaml").exists()
