"""Reading a dataset: the clip index, and single clips at random. Needs no decoder, no Torch and no Ray."""

from __future__ import annotations

import json
import os
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from manifests.columns import Column
from manifests.dataset import DATASET_FILE, ColumnSpec, DatasetManifest
from manifests.document import ManifestError, did_you_mean
from manifests.shards import rows_per_group

_OPEN_FILES = 128
"""Files that a dataset keeps open: enough for the parts that a loader reads at a time, far below a process's limit."""


def stored_column(spec: ColumnSpec) -> Column:
    """The column that a dataset describes, which need not be in this headloom's own table."""
    values = spec.model_dump()
    return Column(**{**values, "shape": tuple(values["shape"])})


class Dataset:
    """A built dataset, in a local folder or at an fsspec URL.

    ``dataset.clips`` is the clip index as an Arrow table, one row a clip; ``dataset.read(i, "video256", "mel")`` reads
    chosen columns of one clip. Files are opened when first needed and kept open, the last 128 of them; of each are read the
    footer and the row groups and columns asked for, no more (``pre_buffer=False``: the default reads ahead and costs ten times
    the memory). A dataset may be pickled, and used in a process that was forked: files are opened anew there.
    """

    def __init__(self, place: str | Path) -> None:
        self.place = str(place)
        self._connect()
        if self._filesystem is not None:
            try:
                text = self._filesystem.cat_file(f"{self._root}/{DATASET_FILE}").decode()
            except FileNotFoundError:
                raise ManifestError(f"{self.place}: has no {DATASET_FILE}, so is no finished dataset") from None
            self.manifest = DatasetManifest.parse(json.loads(text), self.place)
        else:
            if not (Path(self.place) / DATASET_FILE).is_file():
                raise ManifestError(f"{self.place}: has no {DATASET_FILE}, so is no finished dataset; run headloom build first")
            self.manifest = DatasetManifest.load(Path(self.place) / DATASET_FILE)
        self.columns = {spec.name: stored_column(spec) for spec in self.manifest.columns}
        self._starts = [0]
        for part in self.manifest.parts:
            self._starts.append(self._starts[-1] + part.clips)

    def __reduce__(self) -> tuple[type[Dataset], tuple[str]]:
        return type(self), (self.place,)

    def __len__(self) -> int:
        return self.manifest.clips

    @cached_property
    def clips(self) -> pa.Table:
        """The family ``clips`` of all parts: identity, span, source and scores of each clip."""
        schema = self._file(0, "clips").schema_arrow if self.manifest.parts else pa.schema([("clip_id", pa.string())])
        tables = [self._file(part, "clips").read() for part in range(len(self.manifest.parts))]
        return pa.concat_tables(tables) if tables else schema.empty_table()

    @cached_property
    def rows(self) -> dict[str, int]:
        """Row of each clip by its id."""
        return {clip: row for row, clip in enumerate(self.clips["clip_id"].to_pylist())}

    def read(self, clip: int | str, *names: str) -> dict[str, Any]:
        """Columns ``names`` (all when none are named) of one clip, given by row or by id.

        Arrays come with their column's dtype and shape, media as ``bytes``. Raises ``ManifestError`` for a column
        that the dataset does not hold, ``IndexError`` or ``KeyError`` for a clip that is not there.
        """
        wanted = self._by_family(names or self.columns)
        row = self.rows[clip] if isinstance(clip, str) else clip
        if not 0 <= row < len(self):
            raise IndexError(f"{self.place}: clip {row} of {len(self)}")
        part = bisect_right(self._starts, row) - 1
        row -= self._starts[part]
        values = {}
        for family, columns in wanted.items():
            group, offset = divmod(row, rows_per_group(family))
            table = self._file(part, family).read_row_group(group, columns=columns, use_threads=False)
            for name in columns:
                scalar = table.column(name).chunk(0)[offset]
                column = self.columns[name]
                values[name] = column.from_stored(scalar.as_py() if column.is_scalar else scalar.as_buffer())
        return values

    def require(self, *names: str) -> None:
        """Raises ``ManifestError`` for the first of the columns ``names`` that the dataset does not hold."""
        self._by_family(names)

    def _by_family(self, names: Iterable[str]) -> dict[str, list[str]]:
        families: dict[str, list[str]] = {}
        for name in names:
            if name not in self.columns:
                raise ManifestError(f"{self.place}: holds no column '{name}'{did_you_mean(name, self.columns)}")
            families.setdefault(self.columns[name].family, []).append(name)
        return families

    def _connect(self) -> None:
        self._process = os.getpid()
        self._filesystem: Any = None
        self._root = self.place
        if "://" in self.place:
            self._filesystem, self._root = fsspec.core.url_to_fs(self.place)
        self._open: OrderedDict[str, pq.ParquetFile] = OrderedDict()

    def _file(self, part: int, family: str) -> pq.ParquetFile:
        if self._process != os.getpid():
            self._connect()
        path = self.manifest.parts[part].files[family].path
        if path not in self._open:
            full = f"{self._root}/{path}"
            # No cache of the file system's: it would fetch blocks of megabytes where a row group is asked for. No memory map:
            # the pages would count as this process's, and reading from a file that was cut short would kill it.
            source = full if self._filesystem is None else self._filesystem.open(full, cache_type="none")
            self._open[path] = pq.ParquetFile(source, pre_buffer=False)
            if len(self._open) > _OPEN_FILES:
                self._open.popitem(last=False)
        self._open.move_to_end(path)
        return self._open[path]
