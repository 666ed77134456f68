"""Running a take: reuse by content, limits without recomputing, and an account in which nothing disappears."""

from dataclasses import replace
from pathlib import Path

import pytest

from manifests.columns import COLUMNS
from manifests.recipe import Limit
from manifests.stage import Done, Outcome, Partial
from pipelines.account import Accounts
from pipelines.execute import TakeReport, TakeRun
from pipelines.plan import Plan
from pipelines.store import Store
from tests.pipelines.toys import Blur, toy_inputs, toy_plan


def run(folder: Path, text: str, plan: Plan | None = None, compute: bool = True) -> TakeReport:
    inputs = toy_inputs(folder, {"a.txt": text}, plan)
    return TakeRun(inputs.plan, Store(str(folder / "store")), inputs.tasks()[0], compute=compute).run()


def computed(report: TakeReport) -> set[str]:
    return {event.stage for event in report.events if not event.reused}


def test_everything_is_computed_once_and_then_reused(tmp_path: Path) -> None:
    first = run(tmp_path, "good")
    assert len(first.clips) == 4
    assert computed(first) == {"probe", "cut", "sound", "quality", "mel"}
    again = run(tmp_path, "good")
    assert computed(again) == set()
    assert again.clips == first.clips


def test_another_parameter_reruns_its_stage_and_readers_only(tmp_path: Path) -> None:
    run(tmp_path, "good")
    assert computed(run(tmp_path, "good", toy_plan(pitch=2))) == {"sound", "mel"}


def test_the_same_content_under_another_name_is_reused(tmp_path: Path) -> None:
    run(tmp_path, "good")
    inputs = toy_inputs(tmp_path, {"b other.txt": "good"})
    report = TakeRun(inputs.plan, Store(str(tmp_path / "store")), inputs.tasks()[0]).run()
    assert computed(report) == set()
    assert report.clips[0].source["source_uri"] == "takes/b other.txt"


def test_a_limit_rejects_where_the_score_is_made_and_may_change_for_free(tmp_path: Path) -> None:
    strict = run(tmp_path, "good", toy_plan(limits={"motion": Limit(min=2.0)}))
    assert [clip.clip_id[-1] for clip in strict.clips] == ["2", "3"]
    rejected = [event for event in strict.events if event.outcome == "rejected"]
    assert [(e.stage, e.level, e.reason, e.score, e.threshold) for e in rejected] == [
        ("cut", "clip", "motion below its limit", 0.0, 2.0),
        ("cut", "clip", "motion below its limit", 1.0, 2.0),
    ]
    assert len([e for e in strict.events if e.stage == "sound"]) == 2, "no work is spent on what was rejected"
    loose = run(tmp_path, "good", toy_plan(limits={"motion": Limit(min=1.0)}))
    assert len(loose.clips) == 3
    assert {e.unit[-1] for e in loose.events if not e.reused} == {"1"}


def test_a_limit_at_a_stage_of_clips_counts_each_clip_once(tmp_path: Path) -> None:
    report = run(tmp_path, "good", toy_plan(limits={"sharpness": Limit(max=0.15)}))
    accounts = Accounts(toy_plan())
    accounts.add(report)
    quality = next(a for a in accounts.table() if a.stage == "quality")
    assert (quality.entered, quality.done, quality.rejected) == (4, 2, {"sharpness above its limit": 2})
    assert all(account.adds_up for account in accounts.table())


@pytest.mark.parametrize(
    ("text", "outcome", "reason", "message"),
    [
        ("broken", "failed", "unreadable", "the text is broken"),
        ("strange", "failed", "error", "RuntimeError: did not expect that (toys.py:"),
        ("unfit", "rejected", "too strange", "a longer story"),
    ],
)
def test_what_goes_wrong_is_an_outcome(tmp_path: Path, text: str, outcome: str, reason: str, message: str) -> None:
    report = run(tmp_path, text)
    (event,) = report.events
    assert (event.outcome, event.reason) == (outcome, reason)
    assert message in event.message
    assert report.clips == []
    assert run(tmp_path, text).events[0].reused


def test_a_changed_or_missing_file_fails_but_is_tried_again(tmp_path: Path) -> None:
    inputs = toy_inputs(tmp_path, {"a.txt": "good"})
    task, store = inputs.tasks()[0], Store(str(tmp_path / "store"))
    path = tmp_path / "takes" / "a.txt"
    path.write_text("gold")
    assert TakeRun(inputs.plan, store, task).run().events[0].reason == "missing"
    path.unlink()
    assert "put it back" in TakeRun(inputs.plan, store, task).run().events[0].message
    path.write_text("good")
    assert len(TakeRun(inputs.plan, store, task).run().clips) == 4


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"sharpness": 1.0, "motion": 1.0}, "declares other columns than it writes: motion"),
        ({}, "declares other columns than it writes: sharpness"),
        ({"sharpness": "blurred"}, "column sharpness wants float32"),
        ({"sharpness": [[1.0], [1.0, 2.0]]}, "inhomogeneous"),
    ],
)
def test_a_stage_that_breaks_its_word_fails_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, columns: dict, says: str
) -> None:
    monkeypatch.setattr(Blur, "run", lambda self, start_us: Done(columns))
    report = run(tmp_path, "good")
    failed = [event for event in report.events if event.outcome == "failed"]
    assert {(event.stage, event.reason) for event in failed} == {("quality", "error")}
    assert all(says in event.message for event in failed)


def test_a_fault_of_the_machine_is_not_held_against_the_item(tmp_path: Path) -> None:
    for _ in range(2):
        (event,) = run(tmp_path, "poor").events
        assert (event.outcome, event.reason, event.reused) == ("failed", "machine", False)


def test_another_stored_form_of_a_column_is_another_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path, "good")
    monkeypatch.setitem(COLUMNS, "mel", replace(COLUMNS["mel"], encoding="zstd"))
    assert computed(run(tmp_path, "good")) == {"mel"}


def test_a_damaged_result_is_made_again(tmp_path: Path) -> None:
    first = run(tmp_path, "good")
    key = first.clips[0].results["sound"][0]
    path = tmp_path / "store" / key[:2] / key[2:]
    good = path.read_bytes()
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    again = run(tmp_path, "good", Plan((*toy_plan().stages[:4],), {}))
    assert computed(again) == set(), "nobody reads it, so nobody notices"
    mel = first.clips[0].results["mel"][0]
    (tmp_path / "store" / mel[:2] / mel[2:]).unlink()
    assert computed(run(tmp_path, "good")) == {"sound", "mel"}
    assert path.read_bytes() == good


def test_without_computing_the_pass_ends_where_results_end(tmp_path: Path) -> None:
    assert run(tmp_path, "good", compute=False).missing == [("probe", 1.0)]
    run(tmp_path, "good")
    report = run(tmp_path, "good", toy_plan(pitch=2), compute=False)
    assert report.missing == [("sound", 0.2)] * 4
    assert report.clips == []


class Interrupted(BaseException):
    """What ends a process, as far as the stage can tell."""


def steps_of(monkeypatch: pytest.MonkeyPatch, ended_at: int) -> list[int]:
    """Make the stage of sharpness count to three in steps that it keeps; the first time it is ended at one of them."""
    counted: list[int] = []

    def run(self: Blur, start_us: int, partial: Partial) -> Outcome:
        for step in range(3):
            if partial.read(f"step{step}") != bytes([step]):
                counted.append(step)
                if counted == list(range(ended_at + 1)):
                    raise Interrupted
                partial.write(f"step{step}", bytes([step]))
        return Done({"sharpness": start_us / 10})

    monkeypatch.setattr(Blur, "run", run)
    return counted


def test_a_long_stage_goes_on_where_it_was_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = steps_of(monkeypatch, ended_at=1)
    with pytest.raises(Interrupted):
        run(tmp_path, "g")
    report = run(tmp_path, "g")
    assert counted == [0, 1, 1, 2]
    assert len(report.clips) == 1
    assert not (tmp_path / "store" / "partial").exists() or not any((tmp_path / "store" / "partial").iterdir())


def test_a_damaged_piece_of_a_long_stage_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = steps_of(monkeypatch, ended_at=2)
    with pytest.raises(Interrupted):
        run(tmp_path, "g")
    piece = next((tmp_path / "store" / "partial").glob("*/step0"))
    piece.write_bytes(piece.read_bytes()[:-1] + b"\x07")
    run(tmp_path, "g")
    assert counted == [0, 1, 2, 0, 2]


def test_what_a_stage_keeps_for_itself_is_no_column() -> None:
    class Long(Blur):
        def run(self, start_us: int, partial: Partial) -> Outcome:  # type: ignore[override]
            return Done({})

    assert Long.reads() == ("start_us",)
    assert Long.goes_on()
    assert not Blur.goes_on()
