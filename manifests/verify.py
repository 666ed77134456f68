"""Checking a dataset against its manifest, byte for byte and clip for clip."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from manifests.clock import sample_count
from manifests.columns import Column
from manifests.dataset import DATASET_FILE, DatasetManifest, ShardPart
from manifests.document import ManifestError, file_digest
from manifests.reader import stored_column


def verify(folder: Path) -> Iterator[str]:
    """Yield one line for each thing that is wrong with the dataset in ``folder``; nothing when it is whole.

    Every byte of every file is read. Found are: an edited manifest, missing or additional files, flipped bits,
    families that do not hold the same clips in the same order, arrays whose length does not fit their clip.
    """
    try:
        manifest = DatasetManifest.load(folder / DATASET_FILE)
    except ManifestError as error:
        yield str(error)
        return
    if not manifest.digest:
        yield f"{DATASET_FILE}: carries no digest, so an edit could not be noticed; build the dataset again"
    yield from _quarantine(folder, manifest)
    columns = {spec.name: stored_column(spec) for spec in manifest.columns}
    for part in manifest.parts:
        problems = [problem for family in part.files for problem in _file(folder, part, family)]
        yield from problems or _contents(folder, part, columns)
    if sum(part.clips for part in manifest.parts) != manifest.clips:
        yield f"{DATASET_FILE}: its parts hold {sum(p.clips for p in manifest.parts)} clips, it says {manifest.clips}"
    listed = {file.path for part in manifest.parts for file in part.files.values()}
    for family in manifest.families:
        for path in sorted((folder / family).glob("*.parquet")):
            if path.relative_to(folder).as_posix() not in listed:
                yield f"{path.relative_to(folder)}: is not in {DATASET_FILE}; left over from another build, may be removed"


def _quarantine(folder: Path, manifest: DatasetManifest) -> Iterator[str]:
    path = folder / manifest.quarantine.file
    if not path.is_file():
        yield f"{manifest.quarantine.file}: is missing"
    elif file_digest(path) != manifest.quarantine.sha256:
        yield f"{manifest.quarantine.file}: was changed since it was written"


def _file(folder: Path, part: ShardPart, family: str) -> Iterator[str]:
    file = part.files[family]
    path = folder / file.path
    if not path.is_file():
        yield f"{file.path}: is missing; build again to make it anew"
    elif path.stat().st_size != file.bytes:
        yield f"{file.path}: has {path.stat().st_size} bytes, the manifest says {file.bytes}; remove it and build again"
    elif file_digest(path) != file.sha256:
        yield f"{file.path}: its bytes do not fit their checksum; remove it and build again"


def _contents(folder: Path, part: ShardPart, columns: dict[str, Column]) -> Iterator[str]:
    order: list[str] | None = None
    lengths: dict[str, list[int]] = {}
    for family in ("clips", *(f for f in part.files if f != "clips")):
        name = part.files[family].path
        with pq.ParquetFile(folder / name, pre_buffer=False) as file:
            clips = file.read(columns=["clip_id"])["clip_id"].to_pylist()
            if family == "clips":
                index = file.read()
                lengths = _lengths(index)
                if (len(clips), sum(lengths["T"])) != (part.clips, part.frames):
                    yield f"{name}: holds {len(clips)} clips of {sum(lengths['T'])} frames, the manifest says otherwise"
            if order is not None and clips != order:
                yield f"{name}: does not hold the same clips in the same order as the family clips"
                continue
            order = clips
            yield from _array_lengths(file, name, [columns[n] for n in file.schema_arrow.names if n in columns], lengths)


def _lengths(index: pa.Table) -> dict[str, list[int]]:
    """Lengths that follow from the clip index, by the letter in column shapes."""
    frames = index["n_frames"].to_pylist()
    rates = zip(index["fps_num"].to_pylist(), index["fps_den"].to_pylist(), strict=True)
    samples = [sample_count(t, num, den) for t, (num, den) in zip(frames, rates, strict=True)]
    return {"T": frames, "S": samples}


def _array_lengths(file: pq.ParquetFile, name: str, columns: list[Column], lengths: dict[str, list[int]]) -> Iterator[str]:
    checked = [c for c in columns if not c.is_scalar and any(letter in lengths for letter in c.shape)]
    row = 0
    for group in range(file.num_row_groups if checked else 0):
        table = file.read_row_group(group, columns=[c.name for c in checked])
        for column in checked:
            axis = next(i for i, letter in enumerate(column.shape) if letter in lengths)
            for offset, value in enumerate(table.column(column.name)):
                got = column.from_stored(value.as_buffer()).shape[axis]
                want = lengths[str(column.shape[axis])][row + offset]
                if got != want:
                    yield f"{name}: clip {row + offset}: {column.name} has length {got}, its clip has {want}"
        row += table.num_rows
