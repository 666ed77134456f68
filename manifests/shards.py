"""Parquet shards: how one family of one part is written, so that a lone file explains itself and never changes.

Layout, chosen from measurements (``docs/format.md``): arrays and media are ``large_binary`` of little-endian bytes,
their dtype and shape in the field's metadata; one clip a row group, which is the unit of random access, except in the
family ``clips``, whose rows are scalars that are read all together; dictionaries only for text; media uncompressed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from manifests.atomic import whole_file
from manifests.columns import COLUMNS_VERSION, Column
from manifests.dataset import ColumnSpec, ShardFile
from manifests.document import canonical_json, digest_of, file_digest

SHARD_VERSION = 1
"""Raised when the same content would be written as other bytes."""

_COMPRESSION = {"scalar": "zstd", "raw": "none", "zstd": "zstd", "split": "zstd"}
_COMPRESSION_LEVEL = 3


def column_spec(column: Column) -> ColumnSpec:
    """The column as a dataset manifest describes it; ``replace(column, rate=...)`` where parameters changed its rate."""
    values = {name: value for name, value in asdict(column).items() if name != "level"}
    return ColumnSpec.model_validate(values | {"shape": list(column.shape)})


def family_schema(columns: list[Column], metadata: Mapping[str, Any]) -> pa.Schema:
    """Arrow schema of a family's columns. No field is nullable; each carries its ``ColumnSpec`` as metadata."""
    fields = [
        pa.field(c.name, c.arrow_type, nullable=False, metadata={"headloom": canonical_json(column_spec(c).model_dump())})
        for c in columns
    ]
    return pa.schema(fields, metadata={"headloom": canonical_json(metadata)})


def rows_per_group(family: str) -> int:
    """Clips in one row group."""
    return 8192 if family == "clips" else 1


def content_key(family: str, columns: list[Column], metadata: Mapping[str, Any], cells: Iterable[list[str]]) -> str:
    """Digest of everything that the bytes of a shard depend on; ``cells`` are digests of each clip's values."""
    return digest_of(
        [SHARD_VERSION, COLUMNS_VERSION, pa.__version__, family, [asdict(c) for c in columns], dict(metadata), list(cells)]
    )


def write_shard(
    path: Path, columns: list[Column], metadata: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]
) -> tuple[int, str]:
    """Write one family of one part; ``rows`` hold stored values (``Column.to_stored``), one clip each, in order.

    ``metadata`` names at least ``family``. Rows are taken one row group at a time, so memory is that of one
    group. Returns the size in bytes and the sha256.
    """
    schema = family_schema(columns, metadata)
    group_size = rows_per_group(str(metadata["family"]))
    with (
        whole_file(path) as file,
        pq.ParquetWriter(
            file,
            schema,
            compression={c.name: _COMPRESSION[c.encoding] for c in columns},
            compression_level={c.name: _COMPRESSION_LEVEL for c in columns if _COMPRESSION[c.encoding] == "zstd"},
            use_dictionary=[c.name for c in columns if c.dtype == "string"],
            write_statistics=[c.name for c in columns if c.is_scalar],
            data_page_version="2.0",
        ) as writer,
    ):
        group: list[Mapping[str, Any]] = []
        for row in rows:
            group.append(row)
            if len(group) == group_size:
                _write_group(writer, schema, group)
                group = []
        if group:
            _write_group(writer, schema, group)
    return path.stat().st_size, file_digest(path)


def _write_group(writer: pq.ParquetWriter, schema: pa.Schema, rows: list[Mapping[str, Any]]) -> None:
    arrays = [pa.array([row[field.name] for row in rows], type=field.type) for field in schema]
    writer.write_table(pa.Table.from_arrays(arrays, schema=schema), row_group_size=len(rows))


def shard_metadata(file: pq.ParquetFile) -> dict[str, Any]:
    """What a shard says of itself: family, part, stages, column table version."""
    return dict(json.loads(file.schema_arrow.metadata[b"headloom"]))


def shard_path(family: str, number: int, key: str) -> str:
    """Path of a shard in its dataset. The key in the name lets a new version stand beside the old until all is written."""
    return f"{family}/part-{number:05d}-{key[:12]}.parquet"


def is_shard(name: str) -> bool:
    """Whether a file's name is one that ``shard_path`` gives."""
    return re.fullmatch(r"part-\d{5,}-[0-9a-f]{12}\.parquet", name) is not None


def reusable(folder: Path, known: ShardFile | None, key: str) -> bool:
    """Whether ``known`` was made from the same content and still lies in ``folder`` with the right size."""
    return (
        known is not None
        and known.content_key == key
        and (folder / known.path).is_file()
        and (folder / known.path).stat().st_size == known.bytes
    )
