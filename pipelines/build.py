"""A build from recipe to verified dataset: takes, then parts, then the manifest, which is written last."""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from manifests.atomic import TEMPORARY, write_whole
from manifests.columns import FAMILIES, family_columns
from manifests.dataset import (
    DATASET_FILE,
    DatasetManifest,
    QuarantineFile,
    ShardFile,
    ShardPart,
    SourceRef,
    is_quarantine,
    quarantine_name,
)
from manifests.document import ManifestError, digest_of
from manifests.lock import alone_in
from manifests.recipe import Recipe
from manifests.shards import column_spec, is_shard
from manifests.source import SourceItem, SourceManifest
from manifests.stage import Failed
from pipelines.account import Accounts, runnable
from pipelines.environment import environment, merged
from pipelines.execute import ClipRow, TakeTask, partial_folder
from pipelines.plan import Plan, make_plan
from pipelines.rates import add_rates
from pipelines.runner import Died, Runner
from pipelines.store import DamagedResult, Store
from pipelines.work import PartTask, Task, Workbench

RUN_FILE = "run.json"
OWN_STORE = ".store"
"""Folder of the store in the dataset's, unless the recipe names another."""
CRASHES_THAT_POISON = 2
DEATHS_WITHOUT_A_TRACE = 8
"""Workers that may die over one task before any stage began; idle ones that died with their node are among them."""


StartRunner = Callable[[Workbench], Runner]
Progress = Callable[[str, int, int, float, float, "Accounts"], None]
"""Called with: what is being done, tasks done, tasks in all, media seconds done, media seconds in all, the accounts."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """A recipe with what it names, loaded and checked."""

    recipe: Recipe
    source: SourceManifest
    items: list[SourceItem]
    folder: Path
    plan: Plan

    def tasks(self) -> list[TakeTask]:
        """One task for each item that is readable and no duplicate, in the order of the source."""
        return [self._task(item) for item in runnable(self.items)[0]]

    def _task(self, item: SourceItem) -> TakeTask:
        source = {"take_id": item.take_id, "source_uri": item.name, "person": item.person, "stand_in": item.stand_in}
        return TakeTask(self.source.take(item, self.folder), source, item.sha256, item.sound_sha256)


def load_inputs(recipe: Recipe) -> Inputs:
    """Load the source of a recipe and make the plan. Raises ``ManifestError``."""
    plan = make_plan(recipe)
    if not recipe.source:
        raise ManifestError(f"recipe {recipe.name}: names no source; run headloom scan, then give --set source=FILE")
    path = Path(recipe.source)
    source = SourceManifest.load(path)
    return Inputs(recipe, source, source.items(path.parent), path.parent, plan)


def store_url(recipe: Recipe, out: Path) -> str:
    """Where results are kept: as the recipe says, else in the dataset's folder. Workers may run in another folder."""
    if "://" in recipe.store:
        return recipe.store
    return str(Path(recipe.store).absolute() if recipe.store else out.absolute() / OWN_STORE)


def build(inputs: Inputs, out: Path, start_runner: StartRunner, progress: Progress | None = None) -> dict[str, Any]:
    """Build the dataset in ``out`` and return the account of this run (also written to ``run.json``).

    May be ended at any moment and called again: only what is missing is done. Raises ``ManifestError`` when ``out``
    is in use by another build.
    """
    began = time.time()
    out = out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    # Two builds in one folder would remove each other's files, so the second is refused.
    with alone_in(out, f"{out}: another build is at work here; wait for it or choose another --out"):
        store = Store(store_url(inputs.recipe, out))
        store.sweep()
        bench = Workbench(inputs.plan, store, str(out), secrets.token_hex(4))
        with start_runner(bench) as runner:
            accounts, clips, parts = _Build(inputs, out, bench, runner, progress or (lambda *_: None)).run()
        store.remove_notes(f"doing/{bench.run_id}")
        _check_shards(out, parts)
        manifest = _manifest(inputs, out, clips, parts, accounts)
        manifest.save(out / DATASET_FILE)
        _remove_unlisted(out, manifest)
        add_rates(store, accounts)
        run = {
            "digest": manifest.digest,
            "store": "" if not inputs.recipe.store else store.url,
            "began": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(began)),
            "wall_s": round(time.time() - began, 2),
            "media_s": round(sum(task.take.duration_s for task in inputs.tasks()), 2),
            "stages": accounts.work_table(),
        }
        write_whole(out / RUN_FILE, json.dumps(run, indent=1).encode())
    return run


def _check_shards(out: Path, parts: Sequence[ShardPart]) -> None:
    """Workers write the shards, perhaps on other machines; here they must be seen before the manifest names them."""
    for file in (file for part in parts for file in part.files.values()):
        path = out / file.path
        if not path.is_file() or path.stat().st_size != file.bytes:
            raise ManifestError(f"{path}: was written by a worker but is not here; --out must lie where all nodes see it")


@dataclass(slots=True)
class _Build:
    """The part of a build that needs workers."""

    inputs: Inputs
    out: Path
    bench: Workbench
    runner: Runner
    progress: Progress

    def run(self) -> tuple[Accounts, list[ClipRow], list[ShardPart]]:
        """Run takes, then write parts. A stored result that turns out damaged while parts are written is made again."""
        for _ in range(10):
            try:
                accounts, clips = self._takes()
                return accounts, clips, self._parts(clips, accounts)
            except DamagedResult as damaged:
                self.bench.store.discard(damaged.key)
        raise ManifestError(f"{self.bench.store.url}: stored results keep being damaged; check the disk")

    def _takes(self) -> tuple[Accounts, list[ClipRow]]:
        accounts = Accounts(self.inputs.plan)
        accounts.add_source(self.inputs.items)
        clips: list[ClipRow] = []
        tasks = self.inputs.tasks()
        total_s = sum(task.take.duration_s for task in tasks)
        done, done_s = 0, 0.0
        self.progress("takes", 0, len(tasks), 0.0, total_s, accounts)
        for task, report in self._drive(tasks):
            accounts.add(report)
            clips += report.clips
            done, done_s = done + 1, done_s + task.take.duration_s
            self.progress("takes", done, len(tasks), done_s, total_s, accounts)
        return accounts, sorted(clips, key=lambda clip: clip.clip_id)

    def _parts(self, clips: Sequence[ClipRow], accounts: Accounts) -> list[ShardPart]:
        known = _known_files(self.out)
        families = _families(self.inputs.recipe)
        size = self.inputs.recipe.clips_per_part
        tasks = [
            PartTask(number, clips[first : first + size], families, known[number] if number < len(known) else {})
            for number, first in enumerate(range(0, len(clips), size))
        ]
        parts: dict[int, ShardPart] = {}
        for task, part in self._drive(tasks):
            parts[task.number] = part
            self.progress("parts", len(parts), len(tasks), len(parts), len(tasks), accounts)
        return [parts[number] for number in sorted(parts)]

    def _drive(self, tasks: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
        """Give tasks to the runner until all have a result; a task whose worker died is given out again.

        When the work raises, what is still under way is waited for, so that the runner is free for what comes next.
        """
        waiting = deque(tasks)
        at_work = 0
        deaths: Counter[str] = Counter()
        trouble: Exception | None = None
        while at_work or (waiting and trouble is None):
            while waiting and trouble is None and self.runner.free:
                self.runner.submit(waiting.popleft())
                at_work += 1
            for task, result in self.runner.wait(timeout_s=1.0):
                at_work -= 1
                if isinstance(result, Died):
                    self._after_death(task, result, deaths)
                    waiting.appendleft(task)
                elif isinstance(result, Exception):
                    trouble = trouble or result
                elif trouble is None:
                    yield task, result
        if trouble is not None:
            raise trouble

    def _after_death(self, task: Task, death: Died, deaths: Counter[str]) -> None:
        """Count a worker's death. The second over the same work is stored as its outcome, so the next try passes it by."""
        store, marker = self.bench.store, self.bench.marker(task)
        text = store.read_note(marker)
        store.remove_note(marker)
        if not text:
            deaths[task.name] += 1
            if deaths[task.name] >= DEATHS_WITHOUT_A_TRACE:
                raise ManifestError(
                    f"{task.name}: {DEATHS_WITHOUT_A_TRACE} workers died over it outside of any stage ({death.message}); "
                    "is memory short, or does a script call build() without if __name__ == '__main__'?"
                )
            return
        note = json.loads(text)
        deaths[note["key"]] += 1
        if deaths[note["key"]] < CRASHES_THAT_POISON:
            return
        if time.time() - note["began"] >= note["allowed_s"]:
            outcome = Failed("timeout", f"stage {note['stage']} took over {note['allowed_s']:.0f} s, twice")
        else:
            outcome = Failed("crash", f"two workers died in stage {note['stage']}: {death.message}")
        store.put(note["key"], outcome)
        store.remove_notes(partial_folder(note["key"]))


def _families(recipe: Recipe) -> list[str]:
    """The families to write; ``clips`` is always among them, and first."""
    return ["clips", *(family for family in recipe.families if family != "clips")]


def _known_files(out: Path) -> list[dict[str, ShardFile]]:
    """Files of the parts of the dataset that is in ``out`` now, which may serve again."""
    try:
        return [part.files for part in DatasetManifest.load(out / DATASET_FILE).parts]
    except ManifestError:
        return []


def _manifest(inputs: Inputs, out: Path, clips: Sequence[ClipRow], parts: list[ShardPart], accounts: Accounts) -> DatasetManifest:
    """Write the quarantine and describe the dataset."""
    recipe = inputs.recipe
    families = _families(recipe)
    lines = [entry.model_dump_json() + "\n" for entry in accounts.sorted_quarantine()]
    # Named by its content, as shards are: until the manifest is replaced, the old one keeps the list that it names.
    data = "".join(lines).encode()
    sha256 = hashlib.sha256(data).hexdigest()
    quarantine = QuarantineFile(file=quarantine_name(sha256), sha256=sha256, count=len(lines))
    write_whole(out / quarantine.file, data)
    # Where the source and the store lie says nothing of the data, and would make equal datasets differ.
    content = recipe.content() | {"source": "", "store": ""}
    return DatasetManifest(
        format="headloom/dataset",
        name=recipe.name,
        version=recipe.version,
        notes=recipe.notes,
        licence=inputs.source.licence,
        contains_personal_data=inputs.source.contains_personal_data,
        source=SourceRef(name=inputs.source.name, digest=inputs.source.digest, items=len(inputs.items)),
        recipe=content,
        recipe_digest=digest_of(content),
        stages=[planned.record() for planned in inputs.plan.stages],
        columns=[
            column_spec(replace(c, rate=inputs.plan.rates.get(c.name, c.rate)))
            for family in families
            for c in family_columns(family, inputs.plan.made)[family != "clips" :]
        ],
        families=families,
        parts=parts,
        clips=len(clips),
        frames=sum(clip.n_frames for clip in clips),
        seconds=round(sum(clip.seconds for clip in clips), 6),
        contains_stand_ins=any(clip.source["stand_in"] for clip in clips),
        accounting=accounts.table(),
        quarantine=quarantine,
        environment=merged([environment(), *accounts.made_with]),
    ).sealed()


def _remove_unlisted(out: Path, manifest: DatasetManifest) -> None:
    """Remove what earlier builds wrote or left half written, now that the manifest names what counts."""
    listed = {out / file.path for part in manifest.parts for file in part.files.values()}
    for family in FAMILIES:
        for path in (out / family).glob("*"):
            if path not in listed and (is_shard(path.name) or path.name.startswith(TEMPORARY)):
                path.unlink()
    for path in out.glob("*"):
        old = is_quarantine(path.name) and path.name != manifest.quarantine.file
        if old or path.name.startswith(TEMPORARY):
            path.unlink()
