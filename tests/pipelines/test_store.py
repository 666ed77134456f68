"""The store: what is put under a key is what comes back, or nothing."""

import math
import os
import time
from pathlib import Path

import numpy as np
import pytest

from manifests.columns import ColumnError
from manifests.stage import Done, Failed, Rejected
from pipelines.store import DamagedResult, Store

KEY = "ab" * 32
WRITES = ("wave", "loudness_dbfs", "person")
WAVE = np.arange(-500, 500, dtype=np.int16)


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store") if request.param == "local" else f"memory://{tmp_path.name}")


def test_nothing_is_under_a_new_key(store: Store) -> None:
    assert store.get(KEY) is None


def test_arrays_and_scalars_come_back(store: Store) -> None:
    store.put(KEY, Done({"wave": WAVE, "loudness_dbfs": -math.inf, "person": "Ä'\""}), WRITES)
    result = store.get(KEY)
    assert result is not None
    np.testing.assert_array_equal(result.value("wave"), WAVE)
    assert result.scalar("loudness_dbfs") == -math.inf
    assert result.scalar("person") == "Ä'\""
    assert result.media_bytes == WAVE.nbytes


def test_rejections_and_failures_come_back_whole(store: Store) -> None:
    for outcome in (Rejected("no face", 0.1, 0.5, "in 25 looks"), Failed("unreadable", "no index")):
        store.put(KEY, outcome)
        result = store.get(KEY)
        assert result is not None
        assert result.outcome == outcome


def test_a_long_header_is_read_whole(store: Store) -> None:
    clips = [{"clip_id": f"{n:032x}", "motion": n / 3} for n in range(3000)]
    store.put(KEY, Done(clips=clips), ("clip_id", "motion"))
    result = store.get(KEY)
    assert result is not None
    assert len(result.rows) == 3000
    assert result.scalar("clip_id", 2999) == f"{2999:032x}"


def test_a_value_that_does_not_fit_its_column_is_not_stored(store: Store) -> None:
    with pytest.raises(ColumnError):
        store.put(KEY, Done({"wave": WAVE.astype(float), "loudness_dbfs": 0.0, "person": ""}), WRITES)
    assert store.get(KEY) is None


def test_equal_values_have_equal_content_keys(store: Store) -> None:
    one = store.put(KEY, Done({"wave": WAVE, "loudness_dbfs": 1.0, "person": "a"}), WRITES)
    two = store.put("cd" * 32, Done({"wave": WAVE.copy(), "loudness_dbfs": 2.0, "person": "a"}), WRITES)
    assert one.content_key("wave") == two.content_key("wave")
    assert one.content_key("person") == two.content_key("person")
    assert one.content_key("loudness_dbfs") != two.content_key("loudness_dbfs")


def test_discarded_is_gone(store: Store) -> None:
    store.put(KEY, Failed("error", "x"))
    store.discard(KEY)
    assert store.get(KEY) is None
    store.discard(KEY)


@pytest.mark.parametrize("position", [0, 5, 40, 200, -1])
def test_a_changed_byte_never_comes_back_as_a_value(tmp_path: Path, position: int) -> None:
    store = Store(str(tmp_path))
    store.put(KEY, Done({"wave": WAVE, "loudness_dbfs": 1.0, "person": "a"}), WRITES)
    path = tmp_path / KEY[:2] / KEY[2:]
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)
    result = store.get(KEY)
    if result is None:
        assert not path.exists(), "a damaged header is removed, so that the result is made again"
    else:
        with pytest.raises(DamagedResult):
            result.value("wave")


def test_what_was_left_half_written_is_swept(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.put(KEY, Failed("error", "x"))
    old, new = tmp_path / "ab" / ".headloom-tmp-1", tmp_path / "ab" / ".headloom-tmp-2"
    old.write_bytes(b"half")
    new.write_bytes(b"half")
    os.utime(old, (time.time() - 2 * 86400,) * 2)
    store.sweep()
    assert not old.exists()
    assert new.exists(), "another build that shares the store may be writing it"
    assert store.get(KEY) is not None


def test_notes_are_replaced_and_removed(store: Store) -> None:
    assert store.read_note("rates.json") is None
    store.write_note("rates.json", b"1")
    store.write_note("rates.json", b"2")
    assert store.read_note("rates.json") == b"2"
    store.remove_note("rates.json")
    assert store.read_note("rates.json") is None
