"""A small dataset written by hand through the public pieces, for tests of reading and checking."""

from pathlib import Path
from typing import Any

import numpy as np

from manifests.columns import COLUMNS, family_columns
from manifests.dataset import DATASET_FILE, DatasetManifest, QuarantineFile, ShardFile, ShardPart, SourceRef
from manifests.document import file_digest
from manifests.shards import column_spec, shard_path, write_shard

MADE = {
    "clip_id",
    "take_id",
    "person",
    "start_us",
    "n_frames",
    "fps_num",
    "fps_den",
    "sharpness",
    "video256",
    "frame_pts_us",
    "face_box",
    "wave",
    "mel",
}
FAMILIES = ["clips", "media", "audio", "face"]


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


def write_dataset(folder: Path, clips: int = 7, clips_per_part: int = 4) -> DatasetManifest:
    """Write clips 0.. into ``folder`` and return its manifest."""
    rows = [clip(number) for number in range(clips)]
    parts = []
    for number, first in enumerate(range(0, clips, clips_per_part)):
        own = rows[first : first + clips_per_part]
        files = {}
        for family in FAMILIES:
            columns = family_columns(family, MADE)
            stored = [{c.name: c.to_stored(c.check(row[c.name])) for c in columns} for row in own]
            path = shard_path(family, number, "0" * 64)
            size, sha256 = write_shard(folder / path, columns, {"family": family, "part": number}, stored)
            files[family] = ShardFile(path=path, bytes=size, sha256=sha256, content_key="0" * 64)
        frames = sum(row["n_frames"] for row in own)
        parts.append(
            ShardPart(clips=len(own), frames=frames, first_clip=own[0]["clip_id"], last_clip=own[-1]["clip_id"], files=files)
        )
    (folder / "quarantine.jsonl").write_text("")
    manifest = DatasetManifest(
        format="headloom/dataset",
        name="small",
        source=SourceRef(name="none", digest="0" * 64, items=clips),
        recipe={},
        recipe_digest="0" * 64,
        stages=[],
        columns=[column_spec(COLUMNS[name]) for name in sorted(MADE)],
        families=FAMILIES,
        parts=parts,
        clips=clips,
        frames=sum(part.frames for part in parts),
        seconds=1.0,
        contains_stand_ins=True,
        accounting=[],
        quarantine=QuarantineFile(file="quarantine.jsonl", sha256=file_digest(folder / "quarantine.jsonl"), count=0),
        environment={},
    ).sealed()
    manifest.save(folder / DATASET_FILE)
    return manifest
