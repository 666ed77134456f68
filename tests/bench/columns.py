"""How each kind of column is best stored: size against the raw bytes, and the time to read one clip's value.

The candidates are those of the table of columns (``raw``, ``zstd``, ``split``) and what Parquet offers by default (a list of
numbers with dictionary and snappy) or for floats (a list with BYTE_STREAM_SPLIT). ``docs/format.md`` holds the figures.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.signal import lfilter

from manifests.columns import COLUMNS, Column
from prep.fbank import filter_banks
from prep.mel import mel_spectrogram

GOALS: dict[str, str] = {}
CLIPS, SECONDS, FPS = 64, 5, 25


def run() -> dict[str, float]:
    """Figures named ``<column>.<encoding>.size`` (share of raw) and ``.read_us``."""
    rng = np.random.default_rng(0)
    waves = [_speech_like(rng) for _ in range(CLIPS)]
    frames = SECONDS * FPS
    values: dict[str, list[Any]] = {
        "wave": waves,
        "mel": [mel_spectrogram(wave) for wave in waves],
        "fbank": [filter_banks(wave) for wave in waves],
        "face_box": [np.cumsum(rng.normal(size=(frames, 4)), axis=0).astype(np.float32) + 200 for _ in waves],
        "frame_pts_us": [np.arange(frames, dtype=np.int64) * 40_000 + int(rng.integers(10**6)) for _ in waves],
    }
    figures: dict[str, float] = {}
    for name, arrays in values.items():
        for encoding in ("raw", "zstd", "split", "list default", "list byte_stream_split"):
            size, read_us = _measure(COLUMNS[name], encoding, arrays)
            figures[f"{name}.{encoding}.size"] = size / sum(a.nbytes for a in arrays)
            figures[f"{name}.{encoding}.read_us"] = read_us
    return figures


def _speech_like(rng: np.random.Generator) -> np.ndarray:
    """Filtered noise and a buzz with a syllable's envelope: compresses about as speech does."""
    t = np.arange(SECONDS * 16000) / 16000
    buzz = np.sign(np.sin(2 * np.pi * (120 + 20 * np.sin(t)) * t)) + 0.3 * rng.normal(size=t.size)
    sound = lfilter([1.0], [1.0, -1.6, 0.8], buzz) * np.clip(np.sin(2 * np.pi * 3 * t) + 0.3, 0.01, None)
    return (sound / np.abs(sound).max() * 12000).astype(np.int16)


def _measure(column: Column, encoding: str, arrays: list[np.ndarray]) -> tuple[int, float]:
    listed = encoding.startswith("list")
    if listed:
        array = pa.array([a.reshape(-1) for a in arrays])
        plain = encoding == "list default"
        options: dict[str, Any] = {} if plain else {"compression": "zstd", "use_dictionary": False, "use_byte_stream_split": True}
    else:
        values = {name: getattr(column, name) for name in column.__dataclass_fields__} | {"encoding": encoding}
        column = Column(**values)
        array = pa.array([column.to_stored(a) for a in arrays], pa.large_binary())
        options = {"compression": "none" if encoding == "raw" else "zstd", "use_dictionary": False, "write_statistics": False}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.parquet"
        pq.write_table(pa.table({"x": array}), path, row_group_size=1, **options)
        with pq.ParquetFile(path, memory_map=True, pre_buffer=False) as file:
            times = []
            for row in np.random.default_rng(1).permutation(np.arange(CLIPS).repeat(4)):
                began = time.perf_counter()
                value = file.read_row_group(int(row), columns=["x"]).column("x").chunk(0)[0]
                got = value.values.to_numpy(zero_copy_only=False) if listed else column.from_stored(value.as_buffer())
                times.append(time.perf_counter() - began)
                assert got.size == arrays[row].size
            stored = sum(file.metadata.row_group(g).column(0).total_compressed_size for g in range(CLIPS))
    return stored, float(np.median(times) * 1e6)
