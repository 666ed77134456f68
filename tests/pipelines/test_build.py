"""Builds: the same bytes whoever does the work, and a bad item never takes a good one with it."""

import time
from pathlib import Path
from typing import Any

import pytest

from manifests.dataset import DATASET_FILE, Account, DatasetManifest
from manifests.document import ManifestError
from manifests.reader import Dataset
from manifests.recipe import Limit
from manifests.verify import verify
from pipelines.build import Inputs, build
from pipelines.local_runner import LocalRunner
from pipelines.work import Workbench
from tests.pipelines.toys import toy_inputs, toy_plan

GOOD = {f"take {n}.txt": "good" + "." * n for n in range(6)}


def build_locally(inputs: Inputs, out: Path, workers: int = 1) -> dict[str, Any]:
    return build(inputs, out, lambda bench: LocalRunner(bench, workers))


def accounts(out: Path) -> dict[tuple[str, str], Account]:
    return {(a.stage, a.level): a for a in DatasetManifest.load(out / DATASET_FILE).accounting}


def test_a_build_is_whole_and_holds_every_clip(tmp_path: Path) -> None:
    build_locally(toy_inputs(tmp_path, GOOD), tmp_path / "out")
    dataset = Dataset(tmp_path / "out")
    assert list(verify(tmp_path / "out")) == []
    assert len(dataset) == sum(len(text) % 5 for text in GOOD.values())
    assert dataset.clips["clip_id"].to_pylist() == sorted(dataset.clips["clip_id"].to_pylist())
    assert dataset.read(0, "wave")["wave"].shape == (5 * 640,)
    assert all(account.adds_up for account in dataset.manifest.accounting)


def test_one_worker_or_two_the_bytes_are_the_same(tmp_path: Path) -> None:
    inputs = toy_inputs(tmp_path, GOOD)
    digests = {build_locally(inputs, tmp_path / f"out{workers}", workers)["digest"] for workers in (1, 2)}
    assert len(digests) == 1
    first, second = (sorted((tmp_path / f"out{w}").rglob("*.parquet")) for w in (1, 2))
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]


def test_a_second_build_reuses_everything_and_says_so(tmp_path: Path) -> None:
    inputs = toy_inputs(tmp_path, GOOD)
    first = build_locally(inputs, tmp_path / "out")
    shards = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.parquet")}
    again = build_locally(inputs, tmp_path / "out")
    assert again["digest"] == first["digest"]
    assert all(row["computed"] == 0 and row["reused"] > 0 for row in again["stages"])
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.parquet")} == shards


def test_refitting_one_column_rewrites_its_family_alone(tmp_path: Path) -> None:
    build_locally(toy_inputs(tmp_path, GOOD, families=["clips", "audio"]), tmp_path / "out")
    before = DatasetManifest.load(tmp_path / "out" / DATASET_FILE)
    run = build_locally(toy_inputs(tmp_path, GOOD, toy_plan(gain=2)), tmp_path / "out")
    after = DatasetManifest.load(tmp_path / "out" / DATASET_FILE)
    assert {row["stage"] for row in run["stages"] if row["computed"]} == {"mel"}
    for old, new in zip(before.parts, after.parts, strict=True):
        assert old.files["clips"] == new.files["clips"], "no column of this family was made anew"
        assert old.files["audio"].sha256 != new.files["audio"].sha256
    assert list(verify(tmp_path / "out")) == []


def test_limits_change_the_clips_without_computing(tmp_path: Path) -> None:
    build_locally(toy_inputs(tmp_path, GOOD), tmp_path / "out")
    whole = len(Dataset(tmp_path / "out"))
    run = build_locally(toy_inputs(tmp_path, GOOD, toy_plan(limits={"motion": Limit(max=0.5)})), tmp_path / "out")
    assert sum(row["computed"] for row in run["stages"]) == 0
    assert 0 < len(Dataset(tmp_path / "out")) < whole
    assert list(verify(tmp_path / "out")) == []


@pytest.mark.timeout(120)
def test_every_kind_of_trouble_is_set_aside_and_the_good_are_unharmed(tmp_path: Path) -> None:
    trouble = {"a.txt": "broken", "b.txt": "strange", "c.txt": "unfit", "d.txt": "crash", "e.txt": "hang"}
    build_locally(toy_inputs(tmp_path / "good", GOOD), tmp_path / "good" / "out")
    inputs = toy_inputs(tmp_path / "all", {**trouble, **GOOD})
    build_locally(inputs, tmp_path / "all" / "out", workers=2)
    assert list(verify(tmp_path / "all" / "out")) == []
    good, mixed = Dataset(tmp_path / "good" / "out"), Dataset(tmp_path / "all" / "out")
    assert mixed.clips["clip_id"].to_pylist() == good.clips["clip_id"].to_pylist()
    assert [part.files for part in mixed.manifest.parts] == [part.files for part in good.manifest.parts]
    probe = accounts(tmp_path / "all" / "out")["probe", "take"]
    assert probe.failed == {"crash": 1, "error": 1, "timeout": 1, "unreadable": 1}
    assert probe.rejected == {"too strange": 1}
    assert probe.adds_up
    told = {entry.source_uri: entry.message for entry in mixed.manifest.quarantine.read(tmp_path / "all" / "out")}
    assert "SIGKILL" in told["takes/d.txt"]
    assert "took over" in told["takes/e.txt"]
    again = build_locally(inputs, tmp_path / "all" / "out")
    assert sum(row["computed"] for row in again["stages"]) == 0, "what is poisoned is not tried again by itself"


def test_duplicates_and_unreadable_items_are_accounted_at_the_scan(tmp_path: Path) -> None:
    inputs = toy_inputs(tmp_path, {**GOOD, "copy.txt": "good"})
    items = [item.model_copy(update={"probe_error": "no index"}) if item.uri == "take 3.txt" else item for item in inputs.items]
    build_locally(Inputs(inputs.recipe, inputs.source, items, inputs.folder, inputs.plan), tmp_path / "out")
    scan = accounts(tmp_path / "out")["scan", "take"]
    assert (scan.entered, scan.done, scan.duplicate, scan.failed) == (7, 5, 1, {"unreadable": 1})
    told = DatasetManifest.load(tmp_path / "out" / DATASET_FILE).quarantine.read(tmp_path / "out")
    assert "exact duplicate of takes/take 0.txt" in [entry.message for entry in told]


def test_a_build_of_nothing_but_trouble_is_an_empty_dataset(tmp_path: Path) -> None:
    build_locally(toy_inputs(tmp_path, {"a.txt": "broken"}), tmp_path / "out")
    assert len(Dataset(tmp_path / "out")) == 0
    assert Dataset(tmp_path / "out").clips.num_rows == 0
    assert list(verify(tmp_path / "out")) == []


def test_nothing_is_visible_before_it_is_whole(tmp_path: Path) -> None:
    inputs = toy_inputs(tmp_path, GOOD)
    seen = []

    def look(*_: object) -> None:
        seen.append((tmp_path / "out" / DATASET_FILE).exists())

    build(inputs, tmp_path / "out", lambda bench: LocalRunner(bench, 1), look)
    assert seen
    assert not any(seen)


def test_two_builds_in_one_folder_are_refused(tmp_path: Path) -> None:
    inputs = toy_inputs(tmp_path, GOOD)
    refused = []

    def build_again(*_: object) -> None:
        if not refused:
            with pytest.raises(ManifestError, match="another build is at work here"):
                build_locally(inputs, tmp_path / "out")
            refused.append(True)

    build(inputs, tmp_path / "out", lambda bench: LocalRunner(bench, 1), build_again)
    assert refused == [True]


def test_the_order_in_which_takes_finish_does_not_matter(tmp_path: Path) -> None:
    slow_first = {"a.txt": "slow", **GOOD}
    inputs = toy_inputs(tmp_path, slow_first)
    one = build_locally(inputs, tmp_path / "one", 1)
    two = build_locally(inputs, tmp_path / "two", 2)
    assert one["digest"] == two["digest"]


def test_half_written_files_of_a_killed_build_are_swept_up(tmp_path: Path) -> None:
    inputs = toy_inputs(tmp_path, GOOD)
    build_locally(inputs, tmp_path / "out")
    (tmp_path / "out" / "audio" / ".headloom-tmp-0123").write_bytes(b"half")
    (tmp_path / "out" / "audio" / "part-00007-0123456789ab.parquet").write_bytes(b"of an earlier build")
    own = tmp_path / "out" / "audio" / "my own.parquet"
    own.write_bytes(b"the user's")
    build_locally(inputs, tmp_path / "out")
    assert own.read_bytes() == b"the user's", "what we did not write is not ours to remove"
    own.unlink()
    assert list(verify(tmp_path / "out")) == []
    assert not list((tmp_path / "out").rglob(".headloom-tmp*"))


def test_a_result_damaged_in_the_store_is_made_again_when_its_shard_is_written(tmp_path: Path) -> None:
    inputs = toy_inputs(tmp_path, GOOD)
    digest = build_locally(inputs, tmp_path / "out")["digest"]
    for path in (tmp_path / "out").rglob("*.parquet"):
        path.unlink()
    largest = max((tmp_path / "out" / ".store").glob("??/*"), key=lambda path: path.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[-100] ^= 1
    largest.write_bytes(data)
    run = build_locally(inputs, tmp_path / "out", workers=2)
    assert run["digest"] == digest
    assert sum(row["computed"] for row in run["stages"]) == 1
    assert list(verify(tmp_path / "out")) == []


def test_idle_workers_that_die_cost_nothing(tmp_path: Path) -> None:
    inputs = toy_inputs(tmp_path, GOOD)
    runners: list[LocalRunner] = []

    def start(bench: Workbench) -> LocalRunner:
        runners.append(LocalRunner(bench, 2))
        return runners[-1]

    def kill_the_idle(phase: str, done: int, *_: object) -> None:
        if phase == "takes" and done == len(GOOD):
            for worker in runners[0]._idle:
                worker.process.kill()

    build(inputs, tmp_path / "out", start, kill_the_idle)
    assert list(verify(tmp_path / "out")) == []


def test_a_build_cut_short_at_its_end_leaves_the_old_dataset_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build_locally(toy_inputs(tmp_path, GOOD), tmp_path / "out")

    def cut_short(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(DatasetManifest, "save", cut_short)
        with pytest.raises(KeyboardInterrupt):
            build_locally(toy_inputs(tmp_path, {**GOOD, "more.txt": "unfit"}, toy_plan(gain=2)), tmp_path / "out")
    left_over = [problem for problem in verify(tmp_path / "out") if "may be removed" not in problem]
    assert left_over == [], "shards and quarantine of the old manifest are still there"
    build_locally(toy_inputs(tmp_path, {**GOOD, "more.txt": "unfit"}, toy_plan(gain=2)), tmp_path / "out")
    assert list(verify(tmp_path / "out")) == []
    assert len(list((tmp_path / "out").glob("quarantine-*"))) == 1


def test_results_made_with_other_versions_do_not_pass_for_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = toy_inputs(tmp_path, GOOD)
    build_locally(inputs, tmp_path / "out")
    ours = DatasetManifest.load(tmp_path / "out" / DATASET_FILE).environment
    monkeypatch.setattr("pipelines.build.environment", lambda: {**ours, "numpy": "99"})
    build_locally(inputs, tmp_path / "out")
    assert DatasetManifest.load(tmp_path / "out" / DATASET_FILE).environment["numpy"] == f"{ours['numpy']}, 99"


def test_relative_folders_mean_the_same_to_every_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = toy_inputs(tmp_path, GOOD)
    monkeypatch.chdir(tmp_path)
    benches: list[Workbench] = []

    def start(bench: Workbench) -> LocalRunner:
        benches.append(bench)
        return LocalRunner(bench, 1)

    build(inputs, Path("out"), start)
    assert Path(benches[0].out).is_absolute()
    assert Path(benches[0].store.url).is_absolute()
    assert not list((tmp_path / "out" / ".store").glob("doing/*")), "notes of what is being done go with the build"


def test_idle_workers_are_let_go(tmp_path: Path) -> None:
    inputs = toy_inputs(tmp_path, GOOD)
    began = time.monotonic()
    build_locally(inputs, tmp_path / "out", workers=2)
    assert time.monotonic() - began < 60
