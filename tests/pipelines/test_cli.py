"""The command line: tables or JSON, exit codes, and one line for each mistake."""

import json
import shutil
from pathlib import Path

import pytest

from manifests.atomic import write_whole
from manifests.dataset import DATASET_FILE, DatasetManifest, QuarantineEntry
from manifests.reader import Dataset
from manifests.stage import Failed
from pipelines.store import Store
from tests.conftest import Headloom


def stored(dataset: Path) -> list[str]:
    """Take results from the store of the dataset that is there: what was computed once need not be again."""
    return ["--set", f"store={dataset / '.store'}"]


def source(takes: Path) -> str:
    return f"source={takes.parent / 'takes.yaml'}"


def test_the_built_dataset_is_whole(dataset: Path, headloom: Headloom) -> None:
    assert "whole" in headloom("verify", str(dataset)).stdout
    assert len(Dataset(dataset)) == 3


def test_a_flipped_bit_is_exit_code_1(dataset: Path, headloom: Headloom, tmp_path: Path) -> None:
    copy = shutil.copytree(dataset, tmp_path / "copy", ignore=shutil.ignore_patterns(".store"))
    path = next((copy / "media").glob("*.parquet"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    done = headloom("verify", str(copy), check=False)
    assert done.returncode == 1
    assert "checksum" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["build", "talking_clip"], "did you mean 'talking_clips'"),
        (["build", "talking_clips", "--set", "stages.mel.hopp=160"], "unknown key 'hopp'; did you mean 'hop'"),
        (["build", "talking_clips", "--set", "stages.mell.hop=160"], "unknown stage 'mell'; did you mean 'mel'"),
        (["build", "talking_clips", "--set", "limit.sharpness.min=1"], "unknown key 'limit'; did you mean 'limits'"),
        (["build", "talking_clips", "--set", "hop"], "wanted dotted.path=value"),
        (["build", "talking_clips"], "names no source; run headloom scan"),
        (["build", "talking_clips", "--set", "source=nowhere.yaml"], "nowhere.yaml: cannot be read"),
        (["verify", "nowhere"], ""),
        (["status", "nowhere"], "is no finished dataset; run headloom build first"),
        (["report", "nowhere"], "is no finished dataset"),
        (["scan", "nowhere", "-o", "x.yaml"], "nowhere"),
    ],
)
def test_a_mistake_is_one_line_that_says_the_mend(arguments: list[str], says: str, headloom: Headloom, tmp_path: Path) -> None:
    done = headloom(*arguments, cwd=tmp_path, check=False)
    assert done.returncode in (1, 2)
    assert says in done.stderr + done.stdout
    if done.returncode == 2:
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr
        assert list(tmp_path.iterdir()) == [], "nothing is left behind by a command that was refused"


def test_plan_shows_what_would_run_and_what_is_stored(takes: Path, dataset: Path, headloom: Headloom, tmp_path: Path) -> None:
    fresh = json.loads(headloom("plan", "talking_clips", "--set", source(takes), "--out", str(tmp_path), "--json").stdout)
    assert all(row["stored"] == 0 and row["to run (media s)"] > 8 for row in fresh)
    done = json.loads(headloom("plan", "talking_clips", "--set", source(takes), "--out", str(dataset), "--json").stdout)
    assert all(row["stored"] == 3 and row["to run (media s)"] == 0 for row in done)
    assert {row["rate"] for row in done} == {"measured"}
    other = json.loads(
        headloom(
            "plan", "talking_clips", "--set", source(takes), "--set", "stages.mel.padding=zero", "--out", str(dataset), "--json"
        ).stdout
    )
    assert [row["stage"] for row in other if row["to run (media s)"] > 0] == ["mel", "fbank"]
    assert "about" in headloom("plan", "talking_clips", "--set", source(takes), "--out", str(tmp_path)).stdout
    assert list(tmp_path.iterdir()) == [], "a plan writes nothing"


def test_status_adds_up(dataset: Path, headloom: Headloom) -> None:
    rows = json.loads(headloom("status", str(dataset), "--json").stdout)
    assert rows[0]["stage"] == "scan"
    for row in rows:
        assert row["in"] == row["done"] + row["rejected"] + row["failed"] + row["duplicate"]


def test_changing_the_hop_reruns_the_mel_only(takes: Path, dataset: Path, headloom: Headloom, tmp_path: Path) -> None:
    copy = shutil.copytree(dataset, tmp_path / "copy")
    before = DatasetManifest.load(copy / DATASET_FILE)
    headloom("build", "talking_clips", "--set", source(takes), "--set", "stages.mel.padding=zero", "--out", str(copy))
    after = DatasetManifest.load(copy / DATASET_FILE)
    run = json.loads((copy / "run.json").read_text())
    assert [row["stage"] for row in run["stages"] if row["computed"]] == ["mel"]
    changed = {f for old, new in zip(before.parts, after.parts, strict=True) for f in old.files if old.files[f] != new.files[f]}
    assert changed == {"audio"}


def test_strict_is_exit_code_3_when_something_was_refused(takes: Path, dataset: Path, headloom: Headloom, tmp_path: Path) -> None:
    folder = tmp_path / "mixed"
    shutil.copytree(takes, folder)
    (folder / "empty.mp4").write_bytes(b"")
    headloom("scan", str(folder), "-o", str(tmp_path / "s.yaml"))
    arguments = [
        "build",
        "talking_clips",
        "--set",
        f"source={tmp_path / 's.yaml'}",
        "--out",
        str(tmp_path / "d"),
        *stored(dataset),
    ]
    assert headloom(*arguments, "--strict", check=False).returncode == 3
    assert headloom(*arguments, check=False).returncode == 0
    told = json.loads(headloom("quarantine", str(tmp_path / "d"), "--json").stdout)
    assert [(entry["source_uri"], entry["outcome"]) for entry in told] == [("mixed/empty.mp4", "failed")]


def test_names_of_any_kind_and_equal_names_in_different_folders(
    takes: Path, dataset: Path, headloom: Headloom, tmp_path: Path
) -> None:
    given = sorted(takes.iterdir())
    names = ["-dash & 'quotes\" <blink>.mp4", "ünï côdé 電影/same.mp4", "other folder/same.mp4"]
    for path, name in zip(given, names, strict=True):
        (tmp_path / "videos" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, tmp_path / "videos" / name)
    headloom("scan", str(tmp_path / "videos"), "-o", str(tmp_path / "s.yaml"))
    headloom("build", "talking_clips", "--set", f"source={tmp_path / 's.yaml'}", "--out", str(tmp_path / "d"), *stored(dataset))
    run = json.loads((tmp_path / "d" / "run.json").read_text())
    assert sum(row["computed"] for row in run["stages"]) == 0, "the same content under another name is known"
    assert sorted(Dataset(tmp_path / "d").clips["source_uri"].to_pylist()) == sorted(f"videos/{name}" for name in names)
    headloom("report", str(tmp_path / "d"))
    assert "<blink>" not in (tmp_path / "d" / "report.html").read_text()


def test_a_file_that_comes_back_is_tried_again_by_itself(takes: Path, headloom: Headloom, tmp_path: Path) -> None:
    shutil.copytree(takes, tmp_path / "videos")
    victim = next(iter(sorted((tmp_path / "videos").iterdir())))
    headloom("scan", str(tmp_path / "videos"), "-o", str(tmp_path / "s.yaml"))
    whole = victim.read_bytes()
    victim.unlink()
    arguments = ["build", "talking_clips", "--set", f"source={tmp_path / 's.yaml'}", "--out", str(tmp_path / "d")]
    headloom(*arguments)
    assert len(Dataset(tmp_path / "d")) == 2
    victim.write_bytes(whole)
    headloom(*arguments)
    assert len(Dataset(tmp_path / "d")) == 3


def test_retry_forgets_failures_wherever_the_dataset_lies(takes: Path, headloom: Headloom, tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "damaged.mp4").write_bytes(next(iter(sorted(takes.iterdir()))).read_bytes())
    headloom("scan", "videos", "-o", "s.yaml", cwd=tmp_path)
    store = Store(str(tmp_path / "d" / ".store"))
    headloom("build", "talking_clips", "--set", "source=s.yaml", "--out", "d", cwd=tmp_path)
    (clip,) = Dataset(tmp_path / "d").clips["clip_id"].to_pylist()
    entry = QuarantineEntry(
        stage="probe", level="take", unit=clip, source_uri="x", outcome="failed", reason="error", key="ab" * 32
    )
    store.put(entry.key, Failed("error", "as if it had failed"))
    manifest = DatasetManifest.load(tmp_path / "d" / DATASET_FILE)
    write_whole(tmp_path / "d" / manifest.quarantine.file, (entry.model_dump_json() + "\n").encode())
    (tmp_path / "d").rename(tmp_path / "moved")
    assert "1 failures forgotten" in headloom("quarantine", ".", "--retry", cwd=tmp_path / "moved").stderr
    assert "0 failures forgotten" in headloom("quarantine", "moved", "--retry", cwd=tmp_path).stderr


def test_another_hop_is_another_rate(takes: Path, dataset: Path, headloom: Headloom, tmp_path: Path) -> None:
    hop = ["--set", "stages.mel.hop=160"]
    headloom("build", "talking_clips", "--set", source(takes), *hop, "--out", str(tmp_path / "d"), *stored(dataset))
    data = Dataset(tmp_path / "d")
    assert data.columns["mel"].rate == "100/s"
    clip = data.read(0, "mel", "wave")
    assert clip["mel"].shape == (80, 1 + len(clip["wave"]) // 160)
