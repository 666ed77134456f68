"""Where results are kept, each under the key of what it was made from, in a folder or at any fsspec URL.

A result is one file: a line with the header's length and checksum, the header (JSON: the outcome, scalars, and
where each array or video lies and its checksum), then those bytes. So a resumed build reads headers only, and
whoever reads a value knows that it is the one that was written.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec

from manifests.atomic import TEMPORARY, write_whole
from manifests.columns import COLUMNS, ColumnError
from manifests.document import canonical_json
from manifests.stage import Done, Failed, Outcome, Rejected
from pipelines.environment import environment

_MAGIC = "headloom-result-1"
_LEFT_OVER_S = 24 * 3600.0
_LINE = len(_MAGIC) + 1 + 12 + 1 + 64 + 1


class DamagedResult(Exception):
    """A stored result does not fit its checksum. ``key`` names it."""

    def __init__(self, key: str) -> None:
        super().__init__(key)  # the arguments are what travels between processes
        self.key = key

    def __str__(self) -> str:
        return f"stored result {self.key} is damaged"


@dataclass(frozen=True, slots=True)
class Blob:
    """Where a value's bytes lie in the file of a result."""

    offset: int
    length: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Result:
    """A stored outcome. ``rows`` is one mapping of columns for a Done stage, one for each clip for one that cuts."""

    key: str
    outcome: Done | Rejected | Failed
    rows: Sequence[Mapping[str, Any]]
    media_bytes: int
    made_with: Mapping[str, str]
    store: Store

    def scalar(self, column: str, row: int = 0) -> Any:
        """Value of a scalar column; costs nothing, it is in the header."""
        return self.rows[row][column]

    def stored(self, column: str, row: int = 0) -> Any:
        """A column's value as Parquet stores it. Raises ``DamagedResult`` when the bytes were changed."""
        value = self.rows[row][column]
        if not isinstance(value, Blob):
            return value
        data = self.store._read(self.key, value.offset, value.length)
        if hashlib.sha256(data).hexdigest() != value.sha256:
            raise DamagedResult(self.key)
        return data

    def value(self, column: str, row: int = 0) -> Any:
        """A column's value as stages see it: scalar, ``bytes`` or array."""
        return COLUMNS[column].from_stored(self.stored(column, row))

    def content_key(self, column: str, row: int = 0) -> str:
        """Digest of the value itself."""
        value = self.rows[row][column]
        if isinstance(value, Blob):
            return value.sha256
        return hashlib.sha256(canonical_json(value)).hexdigest()


class Store:
    """Results by key. Safe for several processes and machines at once: a key has only one possible content."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._remote: Any = None
        self._root = url
        if "://" in url:
            self._remote, self._root = fsspec.core.url_to_fs(url)

    def __reduce__(self) -> tuple[type[Store], tuple[str]]:
        return Store, (self.url,)

    def get(self, key: str) -> Result | None:
        """The result under ``key``, or ``None``. A file whose header is damaged is removed and counts as absent."""
        try:
            head = self._read(key, 0, 1 << 14)
        except FileNotFoundError:
            return None
        try:
            magic, length, checksum = head[:_LINE].decode().split()
            size = int(length)
            header = head[_LINE : _LINE + size]
            if len(header) < size:
                header = self._read(key, _LINE, size)
            if magic != _MAGIC or hashlib.sha256(header).hexdigest() != checksum:
                raise ValueError
        except ValueError:
            self.discard(key)
            return None
        return self._result(key, json.loads(header), _LINE + size)

    def put(self, key: str, outcome: Outcome, writes: Sequence[str] = ()) -> Result:
        """Keep an outcome. ``writes`` are the columns that a Done must hold, no more and no fewer.

        Raises ``manifests.columns.ColumnError`` when it holds others, or a value does not fit its column.
        """
        blobs: list[bytes] = []
        header: dict[str, Any] = {"rows": [], "made_with": environment()}
        if isinstance(outcome, Done):
            header["outcome"] = "done"
            offset = 0
            for row in [outcome.columns] if outcome.clips is None else outcome.clips:
                if set(row) != set(writes):
                    raise ColumnError(f"declares other columns than it writes: {', '.join(sorted(set(row) ^ set(writes)))}")
                cells: dict[str, Any] = {}
                for name in writes:
                    column = COLUMNS[name]
                    stored = column.to_stored(column.check(row[name]))
                    if column.is_scalar:
                        cells[name] = _plain(stored)
                    else:
                        cells[name] = {"blob": [offset, len(stored), hashlib.sha256(stored).hexdigest()]}
                        blobs.append(stored)
                        offset += len(stored)
                header["rows"].append(cells)
        elif isinstance(outcome, Rejected):
            header |= {
                "outcome": "rejected",
                "reason": outcome.reason,
                "score": outcome.score,
                "threshold": outcome.threshold,
                "message": outcome.message,
            }
        else:
            header |= {"outcome": "failed", "kind": outcome.kind, "message": outcome.message}
        text = canonical_json(header)
        line = f"{_MAGIC} {len(text):012d} {hashlib.sha256(text).hexdigest()}\n".encode()
        self._write(self._path(key), b"".join([line, text, *blobs]))
        return self._result(key, header, _LINE + len(text))

    def discard(self, key: str) -> bool:
        """Forget a result; whether it was there."""
        try:
            Path(self._path(key)).unlink() if self._remote is None else self._remote.rm_file(self._path(key))
        except FileNotFoundError:
            return False
        return True

    def read_note(self, name: str) -> bytes | None:
        """A small file of the store's own (rates, markers), or ``None``."""
        path = f"{self._root}/{name}"
        try:
            return Path(path).read_bytes() if self._remote is None else self._remote.cat_file(path)
        except FileNotFoundError:
            return None

    def write_note(self, name: str, data: bytes, *, durable: bool = True) -> None:
        """Replace a small file of the store's own; when not ``durable`` it need not survive a power cut."""
        path = f"{self._root}/{name}"
        if durable or self._remote is not None:
            self._write(path, data)
        else:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).write_bytes(data)

    def remove_note(self, name: str) -> None:
        """Remove a small file of the store's own, if it is there."""
        path = f"{self._root}/{name}"
        if self._remote is None:
            Path(path).unlink(missing_ok=True)
        elif self._remote.exists(path):
            self._remote.rm_file(path)

    def remove_notes(self, folder: str) -> None:
        """Remove a folder of notes, if it is there."""
        path = f"{self._root}/{folder}"
        if self._remote is None:
            shutil.rmtree(path, ignore_errors=True)
        elif self._remote.exists(path):
            self._remote.rm(path, recursive=True)

    def sweep(self) -> None:
        """Remove what was left half written over a day ago (local stores only); what is newer another build may be writing."""
        if self._remote is not None:
            return
        left = [*Path(self._root).glob(f"*/{TEMPORARY}*"), *Path(self._root).glob("doing/*/*")]
        for path in left:
            with suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > _LEFT_OVER_S:
                    path.unlink()

    def _path(self, key: str) -> str:
        return f"{self._root}/{key[:2]}/{key[2:]}"

    def _read(self, key: str, start: int, length: int) -> bytes:
        if self._remote is not None:
            return bytes(self._remote.cat_file(self._path(key), start=start, end=start + length))
        with open(self._path(key), "rb") as file:
            file.seek(start)
            return file.read(length)

    def _write(self, path: str, data: bytes) -> None:
        if self._remote is None:
            write_whole(Path(path), data)
            return
        self._remote.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
        # Object stores show an object only when it is whole; for other remote file systems the rename does that.
        temporary = f"{path}{TEMPORARY}{secrets.token_hex(6)}"
        self._remote.pipe_file(temporary, data)
        self._remote.mv(temporary, path)

    def _result(self, key: str, header: dict[str, Any], blobs_at: int) -> Result:
        outcome: Done | Rejected | Failed
        if header["outcome"] == "done":
            outcome = Done()
        elif header["outcome"] == "rejected":
            outcome = Rejected(header["reason"], header["score"], header["threshold"], header["message"])
        else:
            outcome = Failed(header["kind"], header["message"])
        rows = [
            {
                name: Blob(blobs_at + cell["blob"][0], cell["blob"][1], cell["blob"][2])
                if isinstance(cell, dict)
                else _number(cell)
                for name, cell in cells.items()
            }
            for cells in header["rows"]
        ]
        blobs = [cell.length for row in rows for cell in row.values() if isinstance(cell, Blob)]
        return Result(key, outcome, rows, sum(blobs), header["made_with"], self)


def _plain(value: Any) -> Any:
    """JSON has no NaN and no infinities; they travel as text in a list."""
    return [repr(value)] if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))) else value


def _number(cell: Any) -> Any:
    return float(cell[0]) if isinstance(cell, list) else cell
