"""Reading single clips of a dataset."""

import os
import pickle
from pathlib import Path

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFile

from manifests import reader
from manifests.document import ManifestError
from manifests.reader import Dataset
from tests.manifests.datasets import clip, write_dataset


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reader")
    write_dataset(folder, clips=7, clips_per_part=3)
    return folder


def test_clips_are_read_by_row_and_by_id(folder: Path) -> None:
    dataset = Dataset(folder)
    for row in range(7):
        values = dataset.read(row, "mel", "video256", "sharpness")
        np.testing.assert_array_equal(values["mel"], clip(row)["mel"])
        assert values["video256"] == clip(row)["video256"]
        assert values["sharpness"] == pytest.approx(0.1 * row)
        np.testing.assert_array_equal(dataset.read(clip(row)["clip_id"], "mel")["mel"], values["mel"])


def test_what_is_not_there_is_refused(folder: Path) -> None:
    dataset = Dataset(folder)
    with pytest.raises(ManifestError, match="holds no column 'mell'; did you mean 'mel'"):
        dataset.read(0, "mell")
    with pytest.raises(IndexError, match="clip 7 of 7"):
        dataset.read(7, "mel")
    with pytest.raises(IndexError, match="clip -1 of 7"):
        dataset.read(-1, "mel")


def test_few_files_are_open_at_a_time(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "_OPEN_FILES", 2)
    dataset = Dataset(folder)
    for row in (0, 6, 3, 0, 5, 1):
        np.testing.assert_array_equal(dataset.read(row, "face_box")["face_box"], clip(row)["face_box"])
        assert len(dataset._open) <= 2


def test_a_dataset_may_be_pickled(folder: Path) -> None:
    dataset = Dataset(folder)
    dataset.read(0, "mel")
    again = pickle.loads(pickle.dumps(dataset))
    np.testing.assert_array_equal(again.read(4, "mel")["mel"], clip(4)["mel"])


def test_a_forked_process_opens_files_of_its_own(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = Dataset(folder)
    dataset.read(0, "mel")
    inherited = list(dataset._open.values())
    process = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: process + 1)
    np.testing.assert_array_equal(dataset.read(0, "mel")["mel"], clip(0)["mel"])
    assert dataset._open
    assert not any(file in inherited for file in dataset._open.values())


def test_of_a_remote_file_only_the_columns_asked_for_are_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_dataset(tmp_path, clips=120, clips_per_part=120)
    memory = fsspec.filesystem("memory")
    memory.put(str(tmp_path), "/reader", recursive=True)
    dataset = Dataset("memory://reader")
    np.testing.assert_array_equal(dataset.read(0, "mel")["mel"], clip(0)["mel"])
    fetched: list[int] = []
    intact = MemoryFile.read

    def read(self: MemoryFile, *size: int) -> bytes:
        data = intact(self, *size)
        fetched.append(len(data))
        return data

    monkeypatch.setattr(MemoryFile, "read", read)
    values = dataset.read(100, "mel")
    memory.rm("/reader", recursive=True)
    np.testing.assert_array_equal(values["mel"], clip(100)["mel"])
    assert sum(fetched) < values["mel"].nbytes * 1.1, "the wave, which lies beside it, is left where it is"
