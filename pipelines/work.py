"""The two kinds of work that a build hands to workers: running a take, and writing a part of the dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from manifests.columns import COLUMNS, family_columns
from manifests.dataset import ShardFile, ShardPart
from manifests.shards import content_key, reusable, shard_path, write_shard
from pipelines.execute import ClipRow, TakeReport, TakeRun, TakeTask
from pipelines.plan import Plan
from pipelines.store import Store


@dataclass(frozen=True, slots=True)
class PartTask:
    """One part to write: its clips in order, and the files of the last build that may still serve."""

    number: int
    clips: Sequence[ClipRow]
    families: Sequence[str]
    known: Mapping[str, ShardFile]

    @property
    def name(self) -> str:
        return f"part-{self.number:05d}"


Task = TakeTask | PartTask


@dataclass(frozen=True, slots=True)
class Workbench:
    """What every worker of a build has at hand."""

    plan: Plan
    store: Store
    out: str
    run_id: str

    def marker(self, task: Task) -> str:
        """Name of the note that says what is being done to a task; see ``TakeRun``."""
        return f"doing/{self.run_id}/{task.name}"

    def perform(self, task: Task) -> TakeReport | ShardPart:
        """Do one task."""
        if isinstance(task, TakeTask):
            return TakeRun(self.plan, self.store, task, marker=self.marker(task)).run()
        return write_part(self.plan, self.store, Path(self.out), task)


def write_part(plan: Plan, store: Store, out: Path, task: PartTask) -> ShardPart:
    """Write the files of one part, one for each family; a file that would be the same is kept."""
    files = {}
    for family in task.families:
        columns = family_columns(family, plan.made)
        names = [c.name for c in columns]
        makers = [planned.record().model_dump() for planned in plan.stages if set(planned.stage.writes) & set(names)]
        metadata = {"format": "headloom/shard", "family": family, "part": task.number, "stages": makers}
        cells = [
            (clip.clip_id, *(str(clip.cells[n] if n in clip.cells else clip.source[n]) for n in names if n != "clip_id"))
            for clip in task.clips
        ]
        key = content_key(family, columns, metadata, cells)
        known = task.known.get(family)
        if known is not None and reusable(out, known, key):
            files[family] = known
            continue
        path = shard_path(family, task.number, key)
        size, sha256 = write_shard(out / path, columns, metadata, (_row(store, clip, names) for clip in task.clips))
        files[family] = ShardFile(path=path, bytes=size, sha256=sha256, content_key=key)
    return ShardPart(
        clips=len(task.clips),
        frames=sum(clip.n_frames for clip in task.clips),
        first_clip=task.clips[0].clip_id,
        last_clip=task.clips[-1].clip_id,
        files=files,
    )


def _row(store: Store, clip: ClipRow, names: Sequence[str]) -> dict[str, Any]:
    """Stored values of one clip's columns, each result file opened once."""
    results = {key: store.get(key) for key in {clip.cells[n][0] for n in names if n in clip.cells}}
    row: dict[str, Any] = {}
    for name in names:
        if name not in clip.cells:
            row[name] = COLUMNS[name].to_stored(COLUMNS[name].check(clip.source[name]))
            continue
        key, number = clip.cells[name]
        result = results[key]
        if result is None:
            raise FileNotFoundError(f"store {store.url}: result {key} has gone; run the same command again")
        row[name] = result.stored(name, number)
    return row
