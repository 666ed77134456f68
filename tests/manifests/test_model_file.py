"""What went wrong with a downloaded file is told from its bytes; wrong keys and shapes are named."""

from __future__ import annotations

import gzip
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
from safetensors.torch import save_file

from manifests.model_file import Kind, WrongModelFile, check_shapes, kind_of


def make(kind: Kind, path: Path) -> Path:
    weights = {"a.weight": torch.randn(64, 64)}
    match kind:
        case Kind.torch:
            torch.save(weights, path)
        case Kind.safetensors:
            save_file(weights, path)
        case Kind.pickle:
            path.write_bytes(pickle.dumps({"a": np.zeros(1000)}, 2))
        case Kind.npy:
            with path.open("wb") as file:
                np.save(file, np.zeros(1000))
        case Kind.npz:
            with path.open("wb") as file:
                np.savez(file, a=np.zeros(1000))
        case Kind.mat:
            with path.open("wb") as file:
                scipy.io.savemat(file, {"a": np.zeros(1000)})
    return path


@pytest.mark.parametrize("kind", Kind)
def test_the_kind_is_told_by_content(kind: Kind, tmp_path: Path) -> None:
    assert kind_of(make(kind, tmp_path / "checkpoint.tar")) is kind


def test_old_checkpoints_and_text_pickles_are_known(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(2)}, tmp_path / "old", _use_new_zipfile_serialization=False)
    assert kind_of(tmp_path / "old") is Kind.torch
    for protocol in range(6):
        for held in ({"a": 1}, [1], {}, (1, 2)):
            (tmp_path / "text").write_bytes(pickle.dumps(held, protocol))
            assert kind_of(tmp_path / "text") is Kind.pickle


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 3\n", "Git LFS pointer.*git lfs pull"),
        (b"\n <!DOCTYPE html><html><head><title>Sign in</title>", "web page"),
        (b"\xef\xbb\xbf<html>", "web page"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "web page"),
        (gzip.compress(b"weights", mtime=0), "compressed .gzip."),
        (b"MATLAB 7.3 MAT-file, Platform: GLNXA64", "-v7"),
        (b"PK\x03\x04" + b"\0" * 300, "truncated"),
        (b"Access denied\n", "no kind of model file"),
    ],
)
def test_failed_downloads_have_messages_of_their_own(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "generic_model.pkl"
    path.write_bytes(content)
    with pytest.raises(WrongModelFile, match=message) as refusal:
        kind_of(path)
    assert str(path) in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("kind", [Kind.torch, Kind.safetensors, Kind.npz])
def test_truncated_archives_say_so(kind: Kind, tmp_path: Path) -> None:
    path = make(kind, tmp_path / "file")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(WrongModelFile, match="truncated"):
        kind_of(path)


@pytest.mark.parametrize("header", [b'{"a":' + b"[" * 100_000, b'{"a": {"data_offsets": []}}', b'{"a": [1, 2]}'])
def test_damaged_safetensors_headers_are_said_to_be(header: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(WrongModelFile, match="damaged safetensors header"):
        kind_of(tmp_path / "file")


def test_damaged_directories_of_archives_are_said_to_be(tmp_path: Path) -> None:
    raw = make(Kind.npz, tmp_path / "file").read_bytes()
    entry = raw.index(b"PK\x01\x02")
    (tmp_path / "file").write_bytes(raw[: entry + 6] + b"\x63" + raw[entry + 7 :])  # needs version 9.9 to be unpacked
    with pytest.raises(WrongModelFile, match="damaged zip archive"):
        kind_of(tmp_path / "file")


def test_archives_of_other_files_are_to_be_unpacked(tmp_path: Path) -> None:
    (tmp_path / "generic_model.pkl").write_bytes(b"x")
    with tarfile.open(tmp_path / "FLAME2020.tar", "w") as archive:
        archive.add(tmp_path / "generic_model.pkl")
    with pytest.raises(WrongModelFile, match="tar archive"):
        kind_of(tmp_path / "FLAME2020.tar")


EXPECTED = {"f": ("faces", 3), "v_template": ("vertices", 3), "shapedirs": ("vertices", 3, 400)}


def test_free_dimensions_are_returned() -> None:
    found = {"f": (9976, 3), "v_template": (5023, 3), "shapedirs": (5023, 3, 400)}
    assert check_shapes("x.pkl", found, EXPECTED) == {"faces": 9976, "vertices": 5023}


def test_all_that_is_wrong_is_named_in_one_line() -> None:
    found = {"v_template": (5023, 3), "shapedirs": (5024, 3, 300), "faces": (1, 3), "notes": ()}
    with pytest.raises(WrongModelFile) as refusal:
        check_shapes("x.pkl", found, EXPECTED)
    assert str(refusal.value) == (
        "x.pkl does not hold what it should: missing f; unexpected faces, notes; shapedirs is 5024×3×300 instead of 5023×3×400"
    )
    check_shapes("x.pkl", {"a": (1,), "z": (2,)}, {"a": (1,)}, ignore_others=True)
    check_shapes("x.pkl", {"a": (1,)}, {"a": (1,)}, optional={"b": (2,)})
    with pytest.raises(WrongModelFile, match="b is 3 instead of 2"):
        check_shapes("x.pkl", {"a": (1,), "b": (3,)}, {"a": (1,)}, optional={"b": (2,)})


def test_a_misspelt_key_is_matched_with_the_missing_one() -> None:
    with pytest.raises(WrongModelFile, match="is v_templat meant to be v_template"):
        check_shapes("x.pkl", {"v_templat": (3,)}, {"v_template": (3,)})


def test_long_lists_are_cut() -> None:
    with pytest.raises(WrongModelFile, match="lin5 and 14 more"):
        check_shapes("x.tar", {}, {f"lin{i}": (1,) for i in range(20)})
