"""Pickles give arrays and nothing else: whatever they want to run is refused by name, and does not run."""

from __future__ import annotations

import bz2
import gzip
import io
import pickle
import pickletools
import sys
import tracemalloc
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
        "set": {1, "two"},
    }
    read = load_pickle(written(tmp_path, held, protocol))
    assert list(read) == list(held)
    for name in ("rows", "columns", "big endian", "unsigned", "scalar"):
        np.testing.assert_array_equal(read[name], held[name])
    assert read["big endian"].dtype == np.float32
    assert (read["text"], read["bytes"], read["list"]) == ("generic", b"raw\xff", [1, (2.5, None), True])
    np.testing.assert_array_equal(read["ordered"]["a"], MATRIX)
    assert list(read["objects"]) == [1, "two", None]
    assert read["set"] == {1, "two"}


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


def whole(n: int) -> bytes:
    """An opcode with a number."""
    return b"\x8a\x09" + n.to_bytes(9, "little", signed=True)


def text(value: str) -> bytes:
    return b"X" + len(value.encode()).to_bytes(4, "little") + value.encode()


def array_opcodes(length: int, dtype: str, raw: bytes) -> bytes:
    """Opcodes of an array of one dimension, whose bytes the opcodes ``raw`` give."""
    made = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    return made + b"(K\x01" + whole(length) + b"\x85cnumpy\ndtype\n" + text(dtype) + b"K\x00K\x01\x87R\x89" + raw + b"tb"


def sparse_opcodes(rows: int, columns: int, indices: list[int], indptr: list[int]) -> bytes:
    def part(name: str, values: list[int], dtype: str) -> bytes:
        raw = np.array(values, dtype).tobytes()
        return text(name) + array_opcodes(len(values), dtype, b"B" + len(raw).to_bytes(4, "little") + raw)

    parts = part("data", [1] * len(indices), "f8") + part("indices", indices, "i4") + part("indptr", indptr, "i4")
    empty = b"ccopy_reg\n_reconstructor\ncscipy.sparse.csc\ncsc_matrix\nc__builtin__\nobject\nN\x87R"
    return empty + b"}(" + text("_shape") + whole(rows) + whole(columns) + b"\x86" + parts + b"ub"


def bombs() -> dict[str, bytes]:
    """Small pickles that would take much memory, or for ever; ``h`` and a number say again what ``q`` put under it."""
    laughs = b"Nq\x000" + b"".join(b"]q%c(h%ch%ce0" % (i + 1, i, i) for i in range(40)) + b"h\x28"
    tensor = bytearray(pickle.dumps(torch.zeros(1), 2))
    at = tensor.index(b"K\x00K\x01\x85")  # offset 0, size (1,), then the stride
    repeated = bytes(tensor[:at]) + b"K\x00" + whole(10**10) + b"\x85" + tensor[at + 5 :].replace(b"K\x01\x85", b"K\x00\x85", 1)
    megabyte = b"B" + (10**6).to_bytes(4, "little") + bytes(10**6) + b"q\x000"
    letters = b"X" + (10**6).to_bytes(4, "little") + b"a" * 10**6 + b"q\x000"
    pairs = b"](" + b"".join(b"M" + i.to_bytes(2, "little") + b"N\x86" for i in range(5_000)) + b"eq\x000"
    return {
        "a value numbered two billion": b"\x80\x02Nr\xff\xff\xff\x7f0" + b"cos\nsystem\n.",
        "the same numbers often": b"\x80\x02" + megabyte + b"](" + array_opcodes(125_000, "f8", b"h\x00") * 300 + b"e.",
        "encoded often": b"\x80\x02" + letters + b"](" + (b"c_codecs\nencode\nh\x00" + text("latin1") + b"\x86R") * 300 + b"e.",
        "dicts of one list": b"\x80\x02" + pairs + b"](" + b"ccollections\nOrderedDict\nh\x00\x85R" * 300 + b"e.",
        "sets of one list": b"\x80\x02" + pairs + b"](" + b"cbuiltins\nset\nh\x00\x85R" * 300 + b"e.",
        "bytes of a number": b"\x80\x02" + array_opcodes(25 * 10**8, "f8", whole(2 * 10**10)) + b".",
        "a sparse matrix of all the world": b"\x80\x02" + sparse_opcodes(2**40, 1, [0], [0, 1]) + b".",
        "a sparse matrix with columns without end": b"\x80\x02" + sparse_opcodes(1, 5 * 10**9, [0], [0, 1]) + b".",
        "one number of a tensor again and again": repeated,
        "a name that is 2^40 long when written out": b"\x80\x02" + laughs + b"Q.",
        "a type that is 2^40 long when written out": b"\x80\x02"
        + array_opcodes(1, "f8", b"U\x08" + bytes(8)).replace(text("f8"), laughs)
        + b".",
    }


@pytest.mark.parametrize("name", bombs())
def test_small_files_take_little_memory(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("manifests.pickles.SPARE", 10**7)
    (tmp_path / "file.pkl").write_bytes(bombs()[name])
    tracemalloc.start()
    try:
        with pytest.raises(WrongModelFile):
            load_pickle(tmp_path / "file.pkl")
        assert tracemalloc.get_traced_memory()[1] < 10**8
    finally:
        tracemalloc.stop()


def test_an_archive_that_unpacks_to_much_more_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez_compressed(tmp_path / "file.npz", a=np.zeros(10**6))
    assert load_npz(tmp_path / "file.npz")["a"].shape == (10**6,)
    monkeypatch.setattr("manifests.pickles.SPARE", 10**6)
    with pytest.raises(WrongModelFile, match=r"unpacks to .* GB, which no model file does"):
        load_npz(tmp_path / "file.npz")


@pytest.mark.parametrize(("indices", "indptr"), [([-1, 0], [0, 1, 2]), ([0, 3], [0, 1, 2]), ([0, 1], [0, 2]), ([0], [0, 3, 1])])
def test_sparse_matrices_with_wrong_indices_are_damaged(indices: list[int], indptr: list[int], tmp_path: Path) -> None:
    (tmp_path / "file.pkl").write_bytes(b"\x80\x02" + sparse_opcodes(3, 2, indices, indptr) + b".")
    with pytest.raises(WrongModelFile, match="damaged"):
        load_pickle(tmp_path / "file.pkl")


def test_names_in_a_file_do_not_break_the_line_or_steer_the_terminal(tmp_path: Path) -> None:
    for module in ("os\n\x1b[31mheadloom: all is well", "a" * 100_000):
        (tmp_path / "file.pkl").write_bytes(b"\x80\x04" + text(module) + text("system") + b"\x93.")
        with pytest.raises(WrongModelFile) as refusal:
            load_pickle(tmp_path / "file.pkl")
        assert str(refusal.value).isprintable()
        assert len(str(refusal.value)) < 3000
        assert str(refusal.value).startswith(str(tmp_path))


@pytest.mark.parametrize(
    "header",
    [
        f"{{'descr': '<f8', 'fortran_order': False, 'shape': ({10**30},)}}",
        "{'descr': '<f8', 3: False, 'shape': (1,)}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': ((((((",
    ],
)
def test_damaged_headers_of_arrays_are_said_to_be(header: str, tmp_path: Path) -> None:
    raw = b"\x93NUMPY\x01\x00" + (len(header) + 1).to_bytes(2, "little") + header.encode() + b"\n" + bytes(80)
    (tmp_path / "file.npy").write_bytes(raw)
    with pytest.raises(WrongModelFile, match="truncated or damaged"):
        load_npy(tmp_path / "file.npy")


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_damaged_members_of_archives_are_said_to_be(method: int, tmp_path: Path) -> None:
    member = io.BytesIO()
    np.save(member, np.random.default_rng(0).random(1000))
    with zipfile.ZipFile(tmp_path / "file.npz", "w", method) as archive:
        archive.writestr("a.npy", member.getvalue())
    raw = bytearray((tmp_path / "file.npz").read_bytes())
    raw[60] ^= 0xFF
    (tmp_path / "file.npz").write_bytes(raw)
    with pytest.raises(WrongModelFile, match=r"damaged at a\.npy"):
        load_npz(tmp_path / "file.npz")


def test_paths_may_be_text(tmp_path: Path) -> None:
    assert load_pickle(str(written(tmp_path, [1]))) == [1]
    np.save(tmp_path / "file.npy", MATRIX)
    np.savez(tmp_path / "file.npz", a=MATRIX)
    np.testing.assert_array_equal(load_npy(str(tmp_path / "file.npy")), load_npz(str(tmp_path / "file.npz"))["a"])
