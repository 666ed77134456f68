"""The two kinds of work that a build hands to workers: running a take, and writing a part of the dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from manifests.columns import COLUMNS, family_columns
from manifests.dataset import ShardFile, ShardPart
from manifests.document import digest_of
from manifests.shards import content_key, reusable, shard_path, write_shard
from pipelines.execute import ClipRow, TakeReport, TakeRun, TakeTask
from pipelines.plan import Plan
from pipelines.store import DamagedResult, Result, Store


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
    """Write the files of one part, one for each family; a file that would hold the same is kept.

    Raises ``DamagedResult`` when a stored value was changed.
    """
    clips = [_Values(plan.makers, store, clip) for clip in task.clips]
    files = {}
    for family in task.families:
        columns = [replace(c, rate=plan.rates.get(c.name, c.rate)) for c in family_columns(family, plan.made)]
        names = [c.name for c in columns]
        makers = [planned.record().model_dump() for planned in plan.stages if set(planned.stage.writes) & set(names)]
        metadata = {"format": "headloom/shard", "family": family, "part": task.number, "stages": makers}
        key = content_key(family, columns, metadata, ([clip.content_key(name) for name in names] for clip in clips))
        known = task.known.get(family)
        if known is not None and reusable(out, known, key):
            files[family] = known
            continue
        path = shard_path(family, task.number, key)
        rows = ({name: clip.stored(name) for name in names} for clip in clips)
        size, sha256 = write_shard(out / path, columns, metadata, rows)
        files[family] = ShardFile(path=path, bytes=size, sha256=sha256, content_key=key)
    return ShardPart(
        clips=len(task.clips),
        frames=sum(clip.n_frames for clip in task.clips),
        first_clip=task.clips[0].clip_id,
        last_clip=task.clips[-1].clip_id,
        files=files,
    )


class _Values:
    """The columns of one clip, wherever they are stored; each result's header is read once."""

    def __init__(self, makers: Mapping[str, str], store: Store, clip: ClipRow) -> None:
        self._makers = makers
        self._source = clip.source
        self._results: dict[str, tuple[Result, int]] = {}
        for stage, (key, row) in clip.results.items():
            result = store.get(key)
            if result is None:
                raise DamagedResult(key)  # removed, or its header was found damaged: either way it is made again
            self._results[stage] = result, row

    def content_key(self, name: str) -> str:
        if name in self._source:
            return digest_of(self._source[name])
        result, row = self._results[self._makers[name]]
        return result.content_key(name, row)

    def stored(self, name: str) -> Any:
        if name in self._source:
            return COLUMNS[name].to_stored(COLUMNS[name].check(self._source[name]))
        result, row = self._results[self._makers[name]]
        return result.stored(name, row)
