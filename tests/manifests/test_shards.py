"""Shards: what is written is read back, byte for byte the same each time, and explains itself."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from manifests.document import ManifestError
from manifests.reader import Dataset
from manifests.shards import shard_metadata
from tests.manifests.datasets import MADE, clip, write_dataset


def test_every_clip_is_read_back_as_it_was(tmp_path: Path) -> None:
    write_dataset(tmp_path)
    dataset = Dataset(tmp_path)
    assert len(dataset) == 7
    for number in range(7):
        given, read = clip(number), dataset.read(number)
        assert set(read) == MADE
        for name in MADE:
            np.testing.assert_array_equal(read[name], np.float32(given[name]) if name == "sharpness" else given[name])
            if isinstance(given[name], np.ndarray):
                assert read[name].dtype == given[name].dtype
                assert read[name].shape == given[name].shape


def test_clips_are_found_by_id_and_single_columns_are_read_alone(tmp_path: Path) -> None:
    write_dataset(tmp_path)
    assert list(Dataset(tmp_path).read(f"{5:032x}", "mel")) == ["mel"]
    np.testing.assert_array_equal(Dataset(tmp_path).read(f"{5:032x}", "mel")["mel"], clip(5)["mel"])


def test_the_same_clips_give_the_same_bytes(tmp_path: Path) -> None:
    first, second = write_dataset(tmp_path / "a"), write_dataset(tmp_path / "b")
    assert first.digest == second.digest
    assert [p.files for p in first.parts] == [p.files for p in second.parts]


def test_a_dataset_is_read_through_fsspec(tmp_path: Path) -> None:
    write_dataset(tmp_path)
    remote = Dataset(f"file://{tmp_path}")
    np.testing.assert_array_equal(remote.read(6, "wave")["wave"], clip(6)["wave"])
    assert remote.clips.num_rows == 7


def test_one_clip_is_one_row_group_and_media_are_not_compressed(tmp_path: Path) -> None:
    manifest = write_dataset(tmp_path)
    with pq.ParquetFile(tmp_path / manifest.parts[0].files["media"].path) as file:
        assert file.num_row_groups == 4
        group = file.metadata.row_group(0)
        codecs = {group.column(i).path_in_schema: group.column(i).compression for i in range(group.num_columns)}
        assert codecs["video256"] == "UNCOMPRESSED"
        assert codecs["frame_pts_us"] == "ZSTD"


def test_a_lone_shard_says_what_it_holds(tmp_path: Path) -> None:
    manifest = write_dataset(tmp_path)
    with pq.ParquetFile(tmp_path / manifest.parts[1].files["audio"].path) as file:
        assert shard_metadata(file) == {"family": "audio", "part": 1}
        mel = json.loads(file.schema_arrow.field("mel").metadata[b"headloom"])
    assert (mel["dtype"], mel["shape"], mel["rate"], mel["encoding"]) == ("float32", [80, "M"], "80/s", "split")


def test_no_field_may_be_null(tmp_path: Path) -> None:
    manifest = write_dataset(tmp_path)
    for file in manifest.parts[0].files.values():
        assert not any(field.nullable for field in pq.read_schema(tmp_path / file.path))


def test_an_unknown_column_is_named_with_the_nearest(tmp_path: Path) -> None:
    write_dataset(tmp_path)
    with pytest.raises(ManifestError, match="holds no column 'mell'; did you mean 'mel'"):
        Dataset(tmp_path).read(0, "mell")


def test_a_clip_out_of_range_is_an_index_error(tmp_path: Path) -> None:
    write_dataset(tmp_path)
    with pytest.raises(IndexError, match="clip 7 of 7"):
        Dataset(tmp_path).read(7, "mel")


def test_a_folder_without_manifest_is_no_dataset(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no finished dataset"):
        Dataset(tmp_path)
