"""Datasets for tests, written by hand through the public pieces."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from manifests.columns import COLUMNS, family_columns
from manifests.dataset import DATASET_FILE, DatasetManifest, QuarantineFile, ShardFile, ShardPart, SourceRef
from manifests.document import file_digest
from manifests.shards import column_spec, shard_path, write_shard


def clip(number: int) -> dict[str, Any]:
    """Values of one clip; lengths and contents differ from clip to clip."""
    rng = np.random.default_rng(number)
    frames = 5 + number
    return {
        "clip_id": f"{number:032x}",
        "take_id": f"{number:064x}",
        "person": "abc"[number % 3],
        "start_us": 40_000 * number,
        "n_frames": frames,
        "fps_num": 25,
        "fps_den": 1,
        "sharpness": 0.1 * number,
        "video256": rng.bytes(400 + number),
        "frame_pts_us": np.arange(frames, dtype=np.int64) * 40_000,
        "face_box": rng.normal(size=(frames, 4)).astype(np.float32),
        "wave": rng.integers(-32768, 32767, frames * 640, dtype=np.int16),
        "mel": rng.normal(size=(80, frames * 16 // 5)).astype(np.float32),
    }


MADE = set(clip(0))
"""Columns of it."""


def write_dataset(folder: Path, clips: int = 7, clips_per_part: int = 4) -> DatasetManifest:
    """Write clips 0.. into ``folder`` and return its manifest."""
    return write_clips(folder, [clip(number) for number in range(clips)], clips_per_part, "small")


def write_clips(
    folder: Path, clips: Sequence[Mapping[str, Any]], clips_per_part: int = 4, name: str = "clips"
) -> DatasetManifest:
    """Write a dataset of ``clips``, values by column, into ``folder``; all have the columns of the first.

    ``clip_id``, a rate of 24 frames a second, and nobody as ``person`` are added where they are lacking.
    """
    rows = [
        {"clip_id": f"{number:032x}", "take_id": f"{number:064x}", "person": "", "start_us": 0, "fps_num": 24, "fps_den": 1}
        | clip
        for number, clip in enumerate(clips)
    ]
    made = set(rows[0])
    families = list(dict.fromkeys(COLUMNS[column].family for column in COLUMNS if column in made))
    parts = []
    for number, first in enumerate(range(0, len(rows), clips_per_part)):
        own = rows[first : first + clips_per_part]
        files = {}
        for family in families:
            columns = family_columns(family, made)
            stored = ({c.name: c.to_stored(c.check(row[c.name])) for c in columns} for row in own)
            path = shard_path(family, number, "0" * 64)
            size, sha256 = write_shard(folder / path, columns, {"family": family, "part": number}, stored)
            files[family] = ShardFile(path=path, bytes=size, sha256=sha256, content_key="0" * 64)
        ends = {"first_clip": own[0]["clip_id"], "last_clip": own[-1]["clip_id"]}
        parts.append(ShardPart(clips=len(own), frames=sum(row["n_frames"] for row in own), files=files, **ends))
    (folder / "quarantine.jsonl").write_text("")
    frames = sum(part.frames for part in parts)
    manifest = DatasetManifest(
        format="headloom/dataset",
        name=name,
        source=SourceRef(name="none", digest="0" * 64, items=len(rows)),
        recipe={},
        recipe_digest="0" * 64,
        stages=[],
        columns=[column_spec(COLUMNS[column]) for column in sorted(made)],
        families=families,
        parts=parts,
        clips=len(rows),
        frames=frames,
        seconds=frames / 24,
        contains_stand_ins=True,
        accounting=[],
        quarantine=QuarantineFile(file="quarantine.jsonl", sha256=file_digest(folder / "quarantine.jsonl"), count=0),
        environment={},
    ).sealed()
    manifest.save(folder / DATASET_FILE)
    return manifest
