"""``verify`` finds whatever happens to a dataset after it was written."""

import json
import random
import shutil
from pathlib import Path

import pytest

from manifests.columns import COLUMNS, family_columns
from manifests.dataset import DATASET_FILE, DatasetManifest
from manifests.document import file_digest
from manifests.shards import write_shard
from manifests.verify import verify
from tests.manifests.datasets import MADE, clip, write_dataset


def replace_shard(folder: Path, family: str, rows: list[dict]) -> None:
    """Write other rows into the first shard of a family, and make the manifest agree with the new bytes."""
    manifest = DatasetManifest.load(folder / DATASET_FILE)
    columns = family_columns(family, MADE)
    stored = [{c.name: c.to_stored(c.check(row[c.name])) for c in columns} for row in rows]
    file = manifest.parts[0].files[family]
    size, sha256 = write_shard(folder / file.path, columns, {"family": family, "part": 0}, stored)
    files = manifest.parts[0].files | {family: file.model_copy(update={"bytes": size, "sha256": sha256})}
    parts = [manifest.parts[0].model_copy(update={"files": files}), *manifest.parts[1:]]
    manifest.model_copy(update={"parts": parts}).sealed().save(folder / DATASET_FILE)


def test_a_whole_dataset_has_no_problems(tmp_path: Path) -> None:
    write_dataset(tmp_path)
    assert list(verify(tmp_path)) == []


@pytest.mark.parametrize("seed", range(12))
def test_any_flipped_bit_is_found(tmp_path: Path, seed: int) -> None:
    manifest = write_dataset(tmp_path)
    rng = random.Random(seed)
    file = rng.choice([f for part in manifest.parts for f in part.files.values()])
    data = bytearray((tmp_path / file.path).read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    (tmp_path / file.path).write_bytes(data)
    assert [p for p in verify(tmp_path) if file.path in p and "checksum" in p]


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    path = write_dataset(tmp_path).parts[1].files["audio"].path
    (tmp_path / path).unlink()
    assert list(verify(tmp_path)) == [f"{path}: is missing; build again to make it anew"]


def test_a_truncated_part_is_named(tmp_path: Path) -> None:
    path = write_dataset(tmp_path).parts[0].files["media"].path
    (tmp_path / path).write_bytes((tmp_path / path).read_bytes()[:-10])
    assert [p for p in verify(tmp_path) if path in p and "bytes" in p]


def test_a_family_out_of_step_is_found_though_its_checksum_fits(tmp_path: Path) -> None:
    write_dataset(tmp_path)
    replace_shard(tmp_path, "audio", [clip(n) for n in (0, 2, 1, 3)])
    assert [p for p in verify(tmp_path) if "same clips in the same order" in p]


def test_an_array_that_does_not_fit_its_clip_is_found(tmp_path: Path) -> None:
    write_dataset(tmp_path)
    short = clip(2) | {"face_box": clip(2)["face_box"][:-1]}
    replace_shard(tmp_path, "face", [clip(0), clip(1), short, clip(3)])
    assert [p for p in verify(tmp_path) if "face_box has length 6, its clip has 7" in p]


@pytest.mark.parametrize("change", [("name", "other"), ("clips", 8), ("seconds", 2.0), ("contains_stand_ins", False)])
def test_an_edited_manifest_is_found(tmp_path: Path, change: tuple[str, object]) -> None:
    write_dataset(tmp_path)
    values = json.loads((tmp_path / DATASET_FILE).read_text())
    values[change[0]] = change[1]
    (tmp_path / DATASET_FILE).write_text(json.dumps(values))
    assert [p for p in verify(tmp_path) if "edited" in p]


def test_a_manifest_without_its_digest_is_found(tmp_path: Path) -> None:
    write_dataset(tmp_path)
    values = json.loads((tmp_path / DATASET_FILE).read_text()) | {"digest": ""}
    (tmp_path / DATASET_FILE).write_text(json.dumps(values))
    assert [p for p in verify(tmp_path) if "carries no digest" in p]


def test_a_stray_shard_is_named(tmp_path: Path) -> None:
    path = tmp_path / write_dataset(tmp_path).parts[0].files["face"].path
    shutil.copy(path, path.with_name("part-00099-000000000000.parquet"))
    assert [p for p in verify(tmp_path) if "part-00099" in p and "may be removed" in p]


def test_a_changed_quarantine_is_found(tmp_path: Path) -> None:
    write_dataset(tmp_path)
    (tmp_path / "quarantine.jsonl").write_text("{}\n")
    assert [p for p in verify(tmp_path) if "quarantine.jsonl" in p]
    assert file_digest(tmp_path / "quarantine.jsonl")


def test_a_folder_without_dataset_is_a_problem_not_a_crash(tmp_path: Path) -> None:
    assert len(list(verify(tmp_path))) == 1


def test_columns_of_the_small_dataset_are_real_columns() -> None:
    assert set(COLUMNS) >= MADE
