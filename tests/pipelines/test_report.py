"""The report: what its numbers say, that nothing in it comes from elsewhere, and how it looks in a browser."""

import functools
import html
import json
import re
import shutil
import subprocess
from fractions import Fraction
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from manifests.columns import COLUMNS, FAMILIES, family_columns
from manifests.dataset import (
    DATASET_FILE,
    Account,
    DatasetManifest,
    QuarantineEntry,
    QuarantineFile,
    ShardFile,
    ShardPart,
    SourceRef,
    StageRecord,
)
from manifests.document import ManifestError, file_digest
from manifests.reader import Dataset
from manifests.recipe import Limit
from manifests.shards import column_spec, shard_path, write_shard
from pipelines.report import QUARANTINE_ROWS, mistakes, shares, write_report
from pipelines.report_scores import Score, bin_edges, counts, gather_scores
from prep.encode import encode_mp4
from tests.manifests import datasets

MAGENTA = (106, 202, 222)
"""Y, U and V of a colour that the page has nowhere else."""
NASTY = '<script>alert("1")</script> & "schön" 株式 $title'
CHROME = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@functools.lru_cache
def film(side: int, frames: int) -> bytes:
    planes = tuple(np.full((n, n), value, np.uint8) for n, value in zip((side, side // 2, side // 2), MAGENTA, strict=True))
    return encode_mp4([planes] * frames, side, side, Fraction(25))


def row(number: int, **more: Any) -> dict[str, Any]:
    """A clip with all that the report can show."""
    rng = np.random.default_rng(number)
    frames = 20
    wave = (8000 * np.sin(np.arange(frames * 640) / 9) * np.hanning(frames * 640)).astype(np.int16)
    return {
        "clip_id": f"{number:032x}",
        "take_id": f"{number // 2:064x}",
        "source_uri": f"takes/{number}.mp4",
        "person": "Ada",
        "stand_in": True,
        "start_us": 1_500_000,
        "n_frames": frames,
        "fps_num": 25,
        "fps_den": 1,
        "source_width": 1280,
        "source_height": 720,
        "decoded_share": 1.0 - 0.01 * (number // 2),
        "face_size_px": 100.0 + 10 * number,
        "sharpness": 0.1 * number,
        "loudness_dbfs": -20.0,
        "face_box": (np.array([500, 200, 700, 420]) + rng.normal(size=(frames, 4)) * 5).astype(np.float32),
        "frame_pts_us": np.arange(frames, dtype=np.int64) * 40_000,
        "video256": film(256, frames),
        "crop256_box": np.array([450, 150, 760, 460], np.float32),
        "video512": film(512, frames),
        "crop512_box": np.array([400, 100, 820, 520], np.float32),
        "wave": wave,
        "wave_clean": wave // 2,
        "mel": rng.uniform(-4, 4, (80, 65)).astype(np.float32),
    } | more


def write_dataset(
    folder: Path, rows: list[dict[str, Any]], quarantine: list[QuarantineEntry] | None = None, **header: Any
) -> None:
    """A dataset of these rows, in two parts, written through the public pieces; ``header`` changes its manifest."""
    made = set(rows[0]) if rows else {"clip_id", "n_frames", "face_size_px"}
    families = [f for f in FAMILIES if f == "clips" or any(COLUMNS[n].family == f for n in made)]
    parts = []
    for number, own in enumerate([rows[:3], rows[3:]]):
        files = {}
        for family in families if own else []:
            columns = family_columns(family, made)
            stored = [{c.name: c.to_stored(c.check(clip[c.name])) for c in columns} for clip in own]
            path = shard_path(family, number, "0" * 64)
            size, sha256 = write_shard(folder / path, columns, {"family": family, "part": number}, stored)
            files[family] = ShardFile(path=path, bytes=size, sha256=sha256, content_key="0" * 64)
        if own:
            first, last = own[0]["clip_id"], own[-1]["clip_id"]
            parts.append(ShardPart(clips=len(own), frames=20 * len(own), first_clip=first, last_clip=last, files=files))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "quarantine.jsonl"
    path.write_text("".join(entry.model_dump_json() + "\n" for entry in quarantine or []), "utf-8")
    values = {
        "format": "headloom/dataset",
        "name": "pictured",
        "source": SourceRef(name="takes", digest="a" * 64, items=9),
        "recipe": {"limits": {"face_size_px": {"min": 90.0, "max": None}, "sharpness": {"min": None, "max": 0.9}}},
        "recipe_digest": "b" * 64,
        "stages": [
            StageRecord(
                name="mel",
                version=3,
                level="clip",
                parameters={"hop": 200},
                models={"net": "c" * 64},
                reads=["wave"],
                writes=["mel"],
            )
        ],
        "columns": [column_spec(COLUMNS[name]) for name in sorted(made)],
        "families": families,
        "parts": parts,
        "clips": len(rows),
        "frames": 20 * len(rows),
        "seconds": 0.8 * len(rows),
        "contains_stand_ins": True,
        "accounting": [
            Account(stage="cut", level="clip", entered=len(rows) + 1, done=len(rows), rejected={"motion above its limit": 1})
        ],
        "quarantine": QuarantineFile(file=path.name, sha256=file_digest(path), count=len(quarantine or [])),
        "environment": {"numpy": "2.9.9"},
    }
    DatasetManifest.model_validate(values | header).sealed().save(folder / DATASET_FILE)


def refused(number: int, reason: str, score: float | None = None, **more: Any) -> QuarantineEntry:
    values = {"stage": "cut", "level": "clip", "unit": f"{number:032x}", "source_uri": f"takes/{number}.mp4"}
    if reason.endswith("its limit"):
        values["score_name"] = reason.split()[0]
    return QuarantineEntry(**{**values, "outcome": "rejected", "reason": reason, "score": score, **more})


def report_of(folder: Path) -> str:
    write_report(folder, folder / "report.html")
    return (folder / "report.html").read_text("utf-8")


class _Page(HTMLParser):
    """Elements and attributes of a page; raises when elements do not nest."""

    void = {"meta", "img", "br", "wbr"}

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in self.void:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def score(kept: list[float], refused: list[float] | None = None, limit: Limit | None = None, whole: bool = False) -> Score:
    return Score("s", "px", "about", whole, "clip", False, np.array(kept), np.array(refused or [], dtype=float), 0, limit)


# --- numbers


def test_every_value_is_in_one_bin() -> None:
    rng = np.random.default_rng(0)
    some = score(rng.normal(size=500).tolist(), (rng.normal(size=70) - 3).tolist(), Limit(min=-2.0))
    kept, gone = counts(some)
    assert kept.sum() == 500
    assert gone.sum() == 70
    assert bin_edges(some)[0] == some.values.min()
    assert bin_edges(some)[-1] == some.values.max()


def test_no_bin_holds_kept_and_refused() -> None:
    rng = np.random.default_rng(1)
    values = rng.uniform(0, 10, 400)
    middle = score(values[abs(values - 5) < 3.3].tolist(), values[abs(values - 5) >= 3.3].tolist(), Limit(min=1.7, max=8.3))
    lengths = np.arange(3, 300)
    long = score(lengths[lengths >= 48].tolist(), lengths[lengths < 48].tolist(), Limit(min=47.5), whole=True)
    edge = score(rng.uniform(90, 500, 50).tolist(), [85.0], Limit(min=90.0))
    for some in (middle, long, edge):
        kept, gone = counts(some)
        assert (kept.sum(), gone.sum()) == (some.kept.size, some.refused.size)
        assert not (kept * gone).any()
    assert np.ptp(np.diff(bin_edges(long))) == 0
    assert np.diff(bin_edges(edge)).min() > 10


def test_whole_numbers_have_a_bin_each() -> None:
    kept, gone = counts(score([1, 1, 2, 5], [3], whole=True))
    assert kept.tolist() == [2, 1, 0, 0, 1]
    assert gone.tolist() == [0, 0, 1, 0, 0]


def test_a_near_limit_is_on_the_axis_and_a_far_one_is_not() -> None:
    assert bin_edges(score([1.0, 2.0], limit=Limit(min=0.5)))[0] == 0.5
    assert bin_edges(score([1.0, 2.0], limit=Limit(min=-65.0)))[0] == 1.0
    assert bin_edges(score([1.0, 1.0], limit=Limit(min=0.95)))[0] == 0.95
    assert np.ptp(bin_edges(score([3.0]))) > 0


def test_scores_of_takes_are_counted_once_and_refused_ones_by_their_reason(tmp_path: Path) -> None:
    entries = [
        refused(1, "face_size_px below its limit", 20.0),
        refused(2, "face_size_px below its limit", None),
        refused(3, "two people speak", 0.5),
    ]
    write_dataset(tmp_path, [row(n) for n in range(5)] + [row(5, sharpness=float("nan"))], entries)
    scores = {s.name: s for s in gather_scores(Dataset(tmp_path), entries)}
    assert scores["decoded_share"].kept.size == 3
    assert scores["decoded_share"].of == "take"
    assert scores["face_size_px"].kept.size == 6
    assert scores["face_size_px"].refused.tolist() == [20.0]
    assert scores["face_size_px"].limit == Limit(min=90.0)
    assert (scores["sharpness"].kept.size, scores["sharpness"].odd) == (5, 1)
    assert "fps_num" not in scores
    assert not scores["loudness_dbfs"].telling


def test_accounts_that_do_not_add_up_are_found() -> None:
    good = [
        Account(stage="scan", level="take", entered=5, done=3, failed={"unreadable": 1}, duplicate=1),
        Account(stage="cut", level="take", entered=3, done=3),
        Account(stage="cut", level="clip", entered=7, done=6, rejected={"short": 1}),
        Account(stage="mel", level="clip", entered=6, done=6),
    ]
    assert mistakes(good, 6) == ["", "", "", ""]
    assert mistakes(good, 5)[3] == "the dataset holds 5"
    assert mistakes([good[0], good[1].model_copy(update={"entered": 2, "done": 2})], 0)[1] == "scan handed on 3"
    assert mistakes([good[2].model_copy(update={"done": 5})], 5) == ["7 in, but 6 accounted for"]


@pytest.mark.parametrize(
    ("sizes", "most", "given"), [([3, 500, 500], 200, [3, 98, 99]), ([1, 2], 200, [1, 2]), ([], 200, []), ([300], 200, [200])]
)
def test_rows_are_shared_among_reasons(sizes: list[int], most: int, given: list[int]) -> None:
    assert shares(sizes, most) == given


# --- the page


def test_the_page_loads_nothing_and_is_well_formed(tmp_path: Path) -> None:
    write_dataset(tmp_path, [row(n) for n in range(5)], [refused(9, "face_size_px below its limit", 20.0)])
    page = _Page(report_of(tmp_path))
    links = [value for name, value in page.attributes if name in ("src", "href", "srcset", "xlink:href", "action", "data")]
    assert len(links) > 20
    assert all(link.startswith(("data:image/jpeg;base64,", "#")) for link in links)
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert "url(" not in (tmp_path / "report.html").read_text("utf-8")
    assert page.tags.count("article") == 5
    assert sorted(path.name for path in tmp_path.glob("*") if path.is_file()) == [DATASET_FILE, "quarantine.jsonl", "report.html"]


def test_what_comes_from_data_is_escaped(tmp_path: Path) -> None:
    clip = row(0, clip_id=NASTY, person=NASTY, source_uri=NASTY)
    entry = refused(1, NASTY, 1.0, stage=NASTY, level=NASTY, unit=NASTY, source_uri=NASTY, message=NASTY)
    stage = StageRecord(
        name=NASTY, version=1, level=NASTY, parameters={NASTY: NASTY}, models={NASTY: NASTY}, reads=[], writes=[NASTY]
    )
    write_dataset(
        tmp_path,
        [clip],
        [entry],
        name=NASTY,
        notes=NASTY,
        licence=NASTY,
        source=SourceRef(name=NASTY, digest=NASTY, items=1),
        recipe={NASTY: NASTY},
        recipe_digest=NASTY,
        stages=[stage],
        accounting=[Account(stage=NASTY, level=NASTY, entered=2, done=0, rejected={NASTY: 1}, failed={NASTY: 1})],
        environment={NASTY: NASTY},
    )
    text = report_of(tmp_path)
    assert "script" not in _Page(text).tags
    assert text.count(html.escape(NASTY)) >= 20
    assert NASTY not in text


def test_accounts_reuse_and_provenance_are_told(tmp_path: Path) -> None:
    accounting = [
        Account(stage="probe", level="take", entered=4, done=3, failed={"unreadable": 1}),
        Account(stage="cut", level="clip", entered=9, done=5, rejected={"motion above its limit": 3}),
    ]
    write_dataset(tmp_path, [row(n) for n in range(5)], accounting=accounting)
    work = {"stage": "probe", "level": "take", "computed": 1, "reused": 3, "seconds": 12.5, "media_s": 50.0, "bytes": 10}
    digest = Dataset(tmp_path).manifest.digest
    run = {"digest": digest, "wall_s": 70.0, "media_s": 50.0, "began": "2031-01-01T00:00:00Z", "stages": [work]}
    (tmp_path / "run.json").write_text(json.dumps(run))
    text = report_of(tmp_path)
    assert "3 of 4 results (75%) were reused" in text
    assert "0.250" in text  # seconds per media second
    assert text.count("✓ adds up") == 1
    assert "✗ 9 in, but 8 accounted for" in text
    assert "1 of 2 accounts do not add up" in text
    for told in (
        "contains stand-ins",
        digest,
        "takes, 9 items",
        "hop=200",
        "c" * 12,
        "2.9.9",
        "media/part-00000-0000",
        "3 × motion",
    ):
        assert told in text, told

    (tmp_path / "run.json").write_text(json.dumps(run | {"digest": "f" * 64}))
    assert "tells of another build" in report_of(tmp_path)


def test_a_long_quarantine_is_cut_short_but_shows_every_reason(tmp_path: Path) -> None:
    entries = [refused(n, "motion above its limit", 2.0 + n, threshold=1.0) for n in range(500)]
    entries.append(refused(501, "unreadable", outcome="failed", message="the file is empty (0 bytes)", source_uri="rare.mp4"))
    write_dataset(tmp_path, [row(0)], entries)
    text = report_of(tmp_path)
    section = text[text.index('id="quarantine"') : text.index('id="provenance"')]
    assert section.count("<tr><td") == QUARANTINE_ROWS
    assert "rare.mp4" in section
    assert "the file is empty (0 bytes)" in section
    assert "and 301 more" in section


def test_a_dataset_without_clips_has_a_report(tmp_path: Path) -> None:
    write_dataset(tmp_path, [], [refused(1, "face_size_px below its limit", 20.0)], accounting=[], stages=[], recipe={})
    text = report_of(tmp_path)
    assert "The dataset holds no clips." in text
    assert "takes/1.mp4" in text
    _Page(text)


@pytest.mark.parametrize("kept", ["clips", "clips media", "clips audio", "clips face"])
def test_families_and_columns_may_be_absent(tmp_path: Path, kept: str) -> None:
    least = {"clip_id", "start_us", "n_frames", "fps_num", "fps_den"}
    rows = [
        {n: v for n, v in row(k).items() if n in least or (COLUMNS[n].family in kept.split() and COLUMNS[n].family != "clips")}
        for k in range(2)
    ]
    write_dataset(tmp_path, rows)
    page = _Page(report_of(tmp_path))
    assert page.tags.count("article") == 2
    assert page.tags.count("img") == (8 if "media" in kept else 0)
    assert page.tags.count("path") == (4 if "audio" in kept else 0)


def test_a_film_that_does_not_decode_is_said_to(tmp_path: Path) -> None:
    datasets.write_dataset(tmp_path)  # its films are random bytes
    text = report_of(tmp_path)
    assert text.count("video256 does not decode") == 7
    _Page(text)


def test_a_missing_quarantine_is_told(tmp_path: Path) -> None:
    write_dataset(tmp_path, [row(0)], [refused(1, "short")])
    (tmp_path / "quarantine.jsonl").unlink()
    assert "quarantine.jsonl is missing or empty; it listed 1" in report_of(tmp_path)


def test_no_dataset_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no finished dataset"):
        write_report(tmp_path, tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_a_sheet_of_many_clips_is_even_and_small(tmp_path: Path) -> None:
    rows = [row(n) for n in range(47)]
    write_dataset(tmp_path, rows)
    text = report_of(tmp_path)
    shown = [int(n, 16) for n in re.findall(r'<code title="(\w{32})">', text)]
    assert shown == list(range(0, 47, 2))
    assert len(text) < 3_000_000


# --- looked at in a real browser


def browse(*options: str, page: Path, folder: Path) -> str:
    """Open a page in a headless browser of its own and return what it prints; nothing may be wrong on its console."""
    assert CHROME is not None
    quiet = (
        "--disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync"
    )
    fixed = f"--hide-scrollbars --blink-settings=preferredColorScheme=1 --virtual-time-budget=2000 --user-data-dir={folder}"
    command = [CHROME, "--headless", "--no-sandbox", *quiet.split(), *fixed.split(), "--enable-logging=stderr", *options]
    done = subprocess.run([*command, page.as_uri()], capture_output=True, text=True, encoding="utf-8", timeout=60, check=True)
    # Whatever the page's policy stops would be reported here.
    assert "CONSOLE" not in done.stderr
    return done.stdout


@pytest.mark.skipif(CHROME is None, reason="no chromium and no chrome here to look at the page with")
def test_looked_at_in_a_real_browser(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    write_dataset(tmp_path, [row(0), row(1, source_uri=NASTY)], [refused(9, "face_size_px below its limit", 20.0)])
    write_report(tmp_path, page)
    dom = browse("--dump-dom", page=page, folder=tmp_path / "profile")
    shot = tmp_path / "shot.png"
    browse(f"--screenshot={shot}", "--window-size=1280,4000", page=page, folder=tmp_path / "profile")

    headings = re.findall(r"<h2>(.*?)</h2>", dom)
    assert headings == ["What became of every item", "Scores and limits", "Clips", "Quarantine", "Provenance"]
    assert "✓ adds up" in dom
    assert dom.count("<article") == 2
    assert html.escape(NASTY, quote=False) in dom

    picture = cv2.imread(str(shot))
    assert picture is not None
    assert picture.shape == (4000, 1280, 3)
    blue, green, red = (picture[..., k].astype(int) for k in range(3))
    magenta = (red > 200) & (green < 80) & (blue > 200)
    # Two clips, of each three small frames and a large one, all shown 120 px wide.
    assert magenta.sum() == pytest.approx(8 * 120 * 120, rel=0.05)
    assert magenta.any(axis=0).sum() == pytest.approx(4 * 120, abs=8), "the frames of a clip lie side by side"
    kept = (abs(red - 0x2F) < 12) & (abs(green - 0x6F) < 12) & (abs(blue - 0x9F) < 12)
    assert kept.sum() > 3000, "histograms, bars and waves are drawn"
    ink = picture.max(axis=2) < 90
    assert 0.003 < ink.mean() < 0.3, "there is text, on paper"
