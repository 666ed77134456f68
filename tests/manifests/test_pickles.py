"""Pickles give arrays and nothing else: whatever they want to run is refused by name, and does not run."""

from __future__ import annotations

import bz2
import gzip
import io
import pickle
import pickletools
import sys
import types
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch

from manifests.model_file import WrongModelFile
from manifests.pickles import load_npy, load_npz, load_pickle

MATRIX = np.arange(12.0).reshape(3, 4)


def written(folder: Path, value: Any, protocol: int = 2) -> Path:
    path = folder / "file.pkl"
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    return path


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_come_out_as_they_went_in(tmp_path: Path, protocol: int) -> None:
    held = {
        "rows": MATRIX,
        "columns": np.asfortranarray(MATRIX),
        "big endian": MATRIX.astype(">f4"),
        "unsigned": np.uint32([2**32 - 1]),
        "scalar": np.float32(0.5),
        "text": "generic",
        "bytes": b"raw\xff",
        "list": [1, (2.5, None), True],
        "ordered": OrderedDict(a=MATRIX),
        "objects": np.array([1, "two", None], object),
    }
    read = load_pickle(written(tmp_path, held, protocol))
    assert list(read) == list(held)
    for name in ("rows", "columns", "big endian", "unsigned", "scalar"):
        np.testing.assert_array_equal(read[name], held[name])
    assert read["big endian"].dtype == np.float32
    assert (read["text"], read["bytes"], read["list"]) == ("generic", b"raw\xff", [1, (2.5, None), True])
    np.testing.assert_array_equal(read["ordered"]["a"], MATRIX)
    assert list(read["objects"]) == [1, "two", None]


def test_arrays_of_python_2_are_text_in_latin1(tmp_path: Path) -> None:
    # What cPickle wrote: the numbers are a str, so that they arrive as text.
    raw = np.array([1.0, -2.0], "<f8").tobytes()
    pickled = (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x02\x85cnumpy\ndtype\nU\x02f8K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
        b"U" + bytes([len(raw)]) + raw + b"tb."
    )
    (tmp_path / "file.pkl").write_bytes(pickled)
    np.testing.assert_array_equal(load_pickle(tmp_path / "file.pkl"), [1.0, -2.0])


@pytest.mark.parametrize("form", ["csc", "csr"])
def test_sparse_matrices_come_out_dense(tmp_path: Path, form: str) -> None:
    dense = np.random.default_rng(0).random((5, 30)) * (np.random.default_rng(1).random((5, 30)) < 0.2)
    np.testing.assert_array_equal(load_pickle(written(tmp_path, scipy.sparse.csr_matrix(dense).asformat(form))), dense)


def test_chumpy_variables_need_no_chumpy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chumpy, ch = types.ModuleType("chumpy"), types.ModuleType("chumpy.ch")
    ch.Ch = type("Ch", (), {"__module__": "chumpy.ch", "__qualname__": "Ch"})  # type: ignore[attr-defined]
    variable = ch.Ch()
    variable.__dict__.update(x=MATRIX, _dirty_vars=set(), _itr=None)
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "chumpy", chumpy)
        patched.setitem(sys.modules, "chumpy.ch", ch)
        path = written(tmp_path, {"shapedirs": variable})
    np.testing.assert_array_equal(load_pickle(path)["shapedirs"], MATRIX)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64, torch.uint8, torch.bool, torch.float16])
def test_tensors_inside_pickles_become_arrays(tmp_path: Path, dtype: torch.dtype) -> None:
    tensor = torch.arange(24).reshape(4, 6).to(dtype)
    parameter = torch.nn.Parameter(torch.ones(3))
    views = {"whole": tensor, "turned": tensor.T, "part": tensor[1:3, ::2], "none": tensor[:0], "parameter": parameter}
    np.save(tmp_path / "file.npy", views, allow_pickle=True)
    read = load_npy(tmp_path / "file.npy")
    for name, view in views.items():
        np.testing.assert_array_equal(read[name], view.detach().numpy())


def test_plain_and_pickled_members_of_archives(tmp_path: Path) -> None:
    np.savez(tmp_path / "plain.npz", a=MATRIX, b=np.array({"c": MATRIX}, object))
    read = load_npz(tmp_path / "plain.npz")
    np.testing.assert_array_equal(read["a"], MATRIX)
    np.testing.assert_array_equal(read["b"]["c"], MATRIX)


class Calls:
    """Pickles as a call of ``function`` with ``arguments``."""

    def __init__(self, function: Any, *arguments: Any):
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def global_call(module: str, name: str, argument: str) -> bytes:
    """Protocol 0: a call of ``module.name`` with one text."""
    return f"c{module}\n{name}\n(S'{argument}'\ntR.".encode()


def hostile(mark: Path) -> dict[str, bytes]:
    """Pickles that would leave a file ``mark`` behind, or do as bad; most work with ``pickle.load``."""
    import builtins
    import importlib
    import os
    import subprocess

    touch = f"touch {mark}"
    write = f"open({str(mark)!r}, 'w').close()"
    dump = pickle.dumps
    inner = dump(Calls(os.system, touch))
    array = np.empty(1, object)
    array[0] = Calls(os.system, touch)
    stacked = pickletools.optimize(dump(Calls(os.system, touch), 4))
    return {
        "os.system": dump(Calls(os.system, touch)),
        "os.system, text protocol": dump(Calls(os.system, touch), 0),
        "os.system, protocol 4": stacked,
        "os.system under its old name": global_call("os", "system", touch),
        "eval": dump(Calls(eval, write)),
        "exec": dump(Calls(exec, write)),
        "eval of python 2": global_call("__builtin__", "eval", write),
        "subprocess": dump(Calls(subprocess.call, ["touch", str(mark)])),
        "open": dump(Calls(open, str(mark), "w")),
        "getattr chain": dump(Calls(getattr, Calls(importlib.import_module, "os"), "system")),
        "reduce chain": dump(Calls(builtins.map, Calls(getattr, Calls(__import__, "os"), "system"), [touch])),
        "inside a dict": dump({"v_template": MATRIX, "f": Calls(os.system, touch)}),
        "inside an object array": dump({"v_template": array}),
        "pickle in a pickle": dump(Calls(pickle.loads, inner)),
        "torch.load in a storage": b"\x80\x02ctorch.storage\n_load_from_bytes\nB"
        + len(inner).to_bytes(4, "little")
        + inner
        + b"\x85R.",
        "torch.load itself": dump(Calls(torch.load, str(mark))),
        "numpy.load with pickle": dump(Calls(np.load, str(mark), None, True)),
        "a dotted name": b"\x80\x04\x8c\x05numpy\x8c\x14core.multiarray.os.sy\x93.",
        "scipy's file reader": global_call("scipy.io", "loadmat", str(mark)),
        "sys.exit": dump(Calls(sys.exit, 3)),
        "setting what a known name means": b"\x80\x02c_codecs\nencode\nN}U\x0c__defaults__U\x06latin1s\x86b.",
        "setting an attribute of a class": b"\x80\x02cnumpy\ndtype\nN}U\x05arrayNs\x86b.",
        "calling what setstate left": b"\x80\x02cnumpy\ndtype\nU\x02f8\x85R}U\x07__class__cos\nsystem\nsb.",
        "an extension code": b"\x80\x02\x82\x01.",
        "a persistent name": b"Pposix.system\n.",
        "a compressed pickle": gzip.compress(inner),
        "a compressed pickle (bzip2)": bz2.compress(inner),
        "a pickle in a zip": zipped({"model.pkl": inner}),
        "os.system, protocol 3": dump(Calls(os.system, touch), 3),
    }


def zipped(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


@pytest.mark.parametrize("name", hostile(Path("mark")))
def test_hostile_pickles_are_refused_and_nothing_runs(name: str, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    path = tmp_path / "generic_model.pkl"
    path.write_bytes(hostile(mark)[name])
    with pytest.raises(WrongModelFile) as refusal:
        load_pickle(path)
    assert not mark.exists()
    assert "\n" not in str(refusal.value)
    assert str(path) in str(refusal.value)


@pytest.mark.parametrize("name", ["os.system", "eval", "inside a dict", "inside an object array"])
def test_the_same_pickles_inside_numpy_files_are_refused(name: str, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|O", "fortran_order": False, "shape": ()})
    member = header.getvalue() + hostile(mark)[name]
    (tmp_path / "file.npy").write_bytes(member)
    (tmp_path / "file.npz").write_bytes(zipped({"a.npy": member}))
    for load in (load_npy, load_npz):
        with pytest.raises(WrongModelFile):
            load(tmp_path / f"file.{load.__name__[-3:]}")
    assert not mark.exists()


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("os.system", "posix.system"),
        ("eval", "builtins.eval"),
        ("eval of python 2", "__builtin__.eval"),
        ("subprocess", "subprocess.call"),
        ("inside an object array", "posix.system"),
        ("torch.load in a storage", "posix.system"),
        ("a compressed pickle", "gzip"),
        ("a pickle in a zip", "model.pkl"),
    ],
)
def test_the_refusal_names_what_was_wanted(name: str, wanted: str, tmp_path: Path) -> None:
    path = tmp_path / "generic_model.pkl"
    path.write_bytes(hostile(tmp_path / "mark")[name])
    with pytest.raises(WrongModelFile, match=wanted):
        load_pickle(path)


def test_truncated_pickles_say_so(tmp_path: Path) -> None:
    whole = pickle.dumps({"v_template": MATRIX}, 2)
    for size in (3, len(whole) // 2, len(whole) - 1):
        (tmp_path / "file.pkl").write_bytes(whole[:size])
        with pytest.raises(WrongModelFile, match="truncated or damaged"):
            load_pickle(tmp_path / "file.pkl")


def test_shared_and_endless_objects(tmp_path: Path) -> None:
    laughs: list[Any] = [0]
    for _ in range(60):  # each level refers twice to the one before: 2^60 if it were copied
        laughs = [laughs, laughs]
    read = load_pickle(written(tmp_path, laughs))
    assert read[0] is read[1]
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(WrongModelFile, match="contains itself"):
        load_pickle(written(tmp_path, endless))


def test_arrays_that_lie_about_their_size_are_damaged(tmp_path: Path) -> None:
    whole = pickle.dumps(np.arange(1000, 1004, dtype="<i8"), 2)
    # The shape (4,) of the state, behind the version number, becomes (127,).
    lying = whole.replace(b"K\x01K\x04\x85", b"K\x01K\x7f\x85")
    assert lying != whole
    (tmp_path / "file.pkl").write_bytes(lying)
    with pytest.raises(WrongModelFile, match="damaged"):
        load_pickle(tmp_path / "file.pkl")


def test_tensors_that_reach_beyond_their_storage_are_refused(tmp_path: Path) -> None:
    tensor = torch.arange(4.0)
    raw = pickle.dumps(tensor, 2)
    lying = raw.replace(b"K\x00K\x04\x85", b"K\x00K\x7f\x85")
    assert lying != raw
    (tmp_path / "file.pkl").write_bytes(lying)
    with pytest.raises(WrongModelFile, match="beyond its storage"):
        load_pickle(tmp_path / "file.pkl")
