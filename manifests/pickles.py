"""Reading pickles that somebody else wrote, without running anything that they ask for.

A pickle is a program. This reader lets it build plain containers, and lets it *name* the few array types that head
models are stored with: NumPy arrays, SciPy sparse matrices, chumpy variables, PyTorch tensors. Behind each of those names
stands an inert record of our own, never the library's class or function; the records are turned into NumPy arrays when the
pickle has been read. Whatever else it names is refused, with that name. So neither chumpy nor PyTorch need be installed.

A few bytes can also claim any amount of memory, or ask for the same numbers a thousand times. What is unpacked may take
twice the file's size and ``SPARE`` besides.
"""

from __future__ import annotations

import io
import math
import pickle
import re
import zipfile
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np

from manifests.model_file import Kind, WrongModelFile, kind_of

SPARE = 2**30
"""Bytes that a file may unpack to beyond twice its own size. Dense forms of sparse matrices and zeros need a little."""


def load_pickle(path: Path | str) -> Any:
    """The content of a pickle: dicts, lists and tuples, text, numbers, and NumPy arrays for all array types.

    Sparse matrices come out dense, chumpy variables and PyTorch tensors as arrays. Text of Python 2 is read as latin1.
    Raises ``WrongModelFile`` for anything that is not a pickle, is truncated, or asks for more than arrays.
    """
    if (kind := kind_of(path)) is not Kind.pickle:
        raise WrongModelFile(f"{path} is a {kind}, not a pickle")
    with Path(path).open("rb") as file:
        return _read(file, str(path))


def load_npy(path: Path | str) -> Any:
    """The array of a ``.npy`` file; one that holds a single pickled object gives that object, read as ``load_pickle`` does."""
    if (kind := kind_of(path)) is not Kind.npy:
        raise WrongModelFile(f"{path} is a {kind}, not a NumPy array")
    with Path(path).open("rb") as file:
        return _read_npy(file, str(path))


def load_npz(path: Path | str) -> dict[str, Any]:
    """The arrays of a ``.npz`` file by name; pickled ones are read as ``load_pickle`` does."""
    if (kind := kind_of(path)) is not Kind.npz:
        raise WrongModelFile(f"{path} is a {kind}, not a NumPy archive")
    arrays = {}
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(member.file_size for member in archive.infolist())
        if unpacked > 2 * Path(path).stat().st_size + SPARE:
            raise WrongModelFile(f"{path} unpacks to {unpacked / 1e9:.1f} GB, which no model file does: get it from its source")
        for name in archive.namelist():
            try:
                data = archive.read(name)
            except Exception as error:  # a damaged member may raise anything
                raise WrongModelFile(f"{path} is damaged at {name} ({error}): download it again") from error
            arrays[name.removesuffix(".npy")] = _read_npy(io.BytesIO(data), f"{path}:{name}")
    return arrays


def _read_npy(file: IO[bytes], where: str) -> Any:
    try:
        version = np.lib.format.read_magic(file)
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        *_, dtype = header(file)
        if not dtype.hasobject:
            file.seek(0)
            return np.lib.format.read_array(file, allow_pickle=False)
    except Exception as error:  # a damaged header may raise anything
        raise WrongModelFile(f"{where} is truncated or damaged ({error}): download it again") from error
    held = _read(file, where)
    return held.item() if isinstance(held, np.ndarray) and held.dtype == object and held.ndim == 0 else held


def _read(file: IO[bytes], where: str) -> Any:
    start = file.tell()
    size = file.seek(0, 2) - start
    file.seek(start)
    try:
        return _Plain(2 * size + SPARE)(_Unpickler(file).load())
    except _Refused as error:
        raise WrongModelFile(
            f"{where} wants to use {error}, which no model file needs: none of it was run; get the file from its source"
        ) from error
    except RecursionError as error:
        raise WrongModelFile(f"{where} is nested too deeply for a model file: get it from its official source") from error
    except Exception as error:  # a damaged pickle may raise anything
        what = str(error) or type(error).__name__
        raise WrongModelFile(f"{where} is truncated or damaged ({what}): download it again") from error


_CONTAINED = 100
"""Bytes, about, for each thing in a container."""


class _Refused(Exception):
    """What a pickle asked for and does not get."""


class _Record:
    """An inert stand-in for something that a pickle names: it keeps what it is given and does nothing."""

    state: Any = None

    def __init__(self, *arguments: Any):
        self.arguments = arguments

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def array(self, plain: _Plain) -> Any:
        """What the record stands for, as a NumPy array or plain value; ``plain`` does the same for what it holds."""
        raise _Refused(f"an object of type {type(self).__name__.strip('_')}")


class _Name(_Record):
    """A type that is only handed on as an argument, such as ``numpy.ndarray`` to its own constructor."""


class _Dtype(_Record):
    def dtype(self) -> np.dtype[Any]:
        text = _text(self.arguments[0])
        if not re.fullmatch(r"[<>=|]?([biufc]\d{1,2}|[SU]\d{1,6}|O8?|b1)", text):
            raise _Refused(f"arrays of type {text}")
        swapped = self.state and _text(self.state[1]) == ">"
        return np.dtype(text).newbyteorder(">" if swapped else "=")


class _Array(_Record):
    """``numpy.core.multiarray._reconstruct(type, shape, type code)``, then the state (version, shape, dtype, order, bytes)."""

    def array(self, plain: _Plain) -> Any:
        _, shape, dtype, fortran, raw = self.state
        kind = dtype.dtype()
        order: Literal["C", "F"] = "F" if fortran else "C"
        if kind.hasobject:
            held: np.ndarray[Any, Any] = np.empty(len(raw), object)
            held[:] = [plain(item) for item in raw]
            return held.reshape(shape, order=order)
        return plain.numbers(raw, kind, shape, order)


class _FromBuffer(_Record):
    """``numpy._core.numeric._frombuffer(bytes, dtype, shape, order)``, with which protocol 5 stores arrays."""

    def array(self, plain: _Plain) -> Any:
        raw, dtype, shape, order = self.arguments
        return plain.numbers(raw, dtype.dtype(), shape, "F" if order == "F" else "C")


class _Scalar(_Record):
    def array(self, plain: _Plain) -> Any:
        dtype, raw = self.arguments
        return plain.numbers(raw, dtype.dtype(), (1,), "C")[0]


class _SparseColumns(_Record):
    """A compressed sparse matrix of SciPy; its state is the dict of its parts."""

    by_column = True

    def array(self, plain: _Plain) -> Any:
        state = self.state[1] if isinstance(self.state, tuple) else self.state
        rows, columns = (int(n) for n in state.get("_shape", state.get("shape")))
        data, indices, indptr = (np.asarray(plain(state[key])) for key in ("data", "indices", "indptr"))
        n_major, n_minor = (columns, rows) if self.by_column else (rows, columns)
        counts = np.diff(indptr)
        if len(counts) != n_major or (len(indices) and not 0 <= indices.min() <= indices.max() < n_minor):
            raise ValueError(f"a sparse matrix with indices outside of its {rows}×{columns}")
        plain.claim(rows * columns * data.itemsize)
        dense = np.zeros((rows, columns), data.dtype)
        major = np.repeat(np.arange(n_major), counts)
        np.add.at(dense, (indices, major) if self.by_column else (major, indices), data)
        return dense


class _SparseRows(_SparseColumns):
    by_column = False


class _Chumpy(_Record):
    """``chumpy.ch.Ch``: a variable whose value is its attribute ``x``."""

    def array(self, plain: _Plain) -> Any:
        if not isinstance(self.state, dict) or "x" not in self.state:
            raise _Refused("a chumpy expression that is not a plain variable")
        return plain(self.state["x"])


class _Storage(_Record):
    """The numbers of a PyTorch tensor, as ``torch.save`` wrote them before its files were zip archives: pickles again."""

    def array(self, plain: _Plain) -> Any:
        file = io.BytesIO(_bytes(plain(self.arguments[0])))
        for _ in range(3):  # a magic number, the protocol, and facts about the machine
            _Unpickler(file).load()
        _, kind, key, _, count, *_ = _Unpickler(file).load()
        (stored,) = _Unpickler(file).load()
        if not isinstance(key, str) or stored != key or not issubclass(kind, _TorchType):
            raise _Refused("a PyTorch storage that is a view of another")
        if int.from_bytes(file.read(8), "little") != count:
            raise _Refused("a PyTorch storage that is longer than it says")
        return plain.numbers(file.read(), np.dtype(kind.code), (count,), "C")


class _Tensor(_Record):
    """``torch._utils._rebuild_tensor_v2(storage, offset, size, stride, …)``; offset and strides count elements."""

    def array(self, plain: _Plain) -> Any:
        storage, offset, size, stride = self.arguments[:4]
        numbers = plain(storage)
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        if 0 in size:
            return np.zeros(size, numbers.dtype)
        if offset < 0 or min(stride, default=0) < 0 or last >= len(numbers):
            raise _Refused("a PyTorch tensor that reaches beyond its storage")
        plain.claim(math.prod(size) * numbers.itemsize)
        strides = [step * numbers.itemsize for step in stride]
        return np.lib.stride_tricks.as_strided(numbers[offset:], size, strides).copy()


class _Parameter(_Record):
    def array(self, plain: _Plain) -> Any:
        return plain(self.arguments[0])


class _TorchType(_Record):
    code = ""


class _OrderedDict(_Record):
    """``collections.OrderedDict``, of the pairs that it is made of and those that are put in later."""

    def __init__(self, *arguments: Any):
        super().__init__(*arguments)
        self.put_in: list[tuple[Any, Any]] = []

    def __setitem__(self, key: Any, value: Any) -> None:
        self.put_in.append((key, value))

    def array(self, plain: _Plain) -> Any:
        made_of = self.arguments[0] if self.arguments else []
        plain.claim(_CONTAINED * len(made_of))
        return {plain(key): plain(value) for key, value in [*made_of, *self.put_in]}


class _Set(_Record):
    """``set``, of which chumpy's variables carry one."""

    def array(self, plain: _Plain) -> Any:
        (members,) = self.arguments
        plain.claim(_CONTAINED * len(members))
        return {plain(member) for member in members}


class _Encoded(_Record):
    """``_codecs.encode``, with which Python 3 writes bytes in pickles that Python 2 can read."""

    def array(self, plain: _Plain) -> Any:
        text, encoding = self.arguments
        if encoding != "latin1":
            raise _Refused(f"the text encoding {_text(encoding)}")
        plain.claim(len(text))
        return text.encode("latin1")


class _Reconstructor:
    """``copyreg._reconstructor``: an empty object of a type, which gets its state next. Nothing can be set on it."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        raise _Refused("a changed function")

    def __call__(self, kind: Any, base: Any, state: Any) -> Any:
        if not (isinstance(kind, type) and issubclass(kind, _Record)):
            raise _Refused("an object of an unknown type")
        return kind()


_KNOWN: dict[str, Any] = {
    "numpy.ndarray": _Name,
    "numpy.dtype": _Dtype,
    "builtins.object": _Name,
    "__builtin__.object": _Name,
    "copy_reg._reconstructor": _Reconstructor(),
    "copyreg._reconstructor": _Reconstructor(),
    "_codecs.encode": _Encoded,
    "collections.OrderedDict": _OrderedDict,
    "builtins.set": _Set,
    "__builtin__.set": _Set,
    "chumpy.ch.Ch": _Chumpy,
    "torch._utils._rebuild_tensor_v2": _Tensor,
    "torch._utils._rebuild_parameter": _Parameter,
    "torch.storage._load_from_bytes": _Storage,
    **{f"numpy.{core}.multiarray._reconstruct": _Array for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray.scalar": _Scalar for core in ("core", "_core")},
    **{f"numpy.{core}.numeric._frombuffer": _FromBuffer for core in ("core", "_core")},
    **{f"scipy.sparse.{room}.csc_matrix": _SparseColumns for room in ("csc", "_csc")},
    **{f"scipy.sparse.{room}.csr_matrix": _SparseRows for room in ("csr", "_csr")},
    **{
        f"torch.{name}Storage": type(f"_{name}Storage", (_TorchType,), {"code": code})
        for name, code in (
            ("Float", "f4"),
            ("Double", "f8"),
            ("Half", "f2"),
            ("Long", "i8"),
            ("Int", "i4"),
            ("Byte", "u1"),
            ("Bool", "b1"),
        )
    },
}


class _Unpickler(pickle._Unpickler):
    """Python's own unpickler: the one in C fills gigabytes when a file of a dozen bytes numbers a value two billion."""

    def __init__(self, file: IO[bytes]):
        super().__init__(file, encoding="latin1")

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _KNOWN[f"{module}.{name}"]
        except KeyError:
            raise _Refused(f"{module}.{name}") from None

    def persistent_load(self, identifier: Any) -> Any:
        # Only a storage inside torch.storage._load_from_bytes has one; there it describes what follows the pickle.
        if isinstance(identifier, tuple) and len(identifier) >= 5 and identifier[0] == "storage":
            return identifier
        name = identifier if isinstance(identifier, str) else type(identifier).__name__
        raise _Refused(f"something outside the file ({name})")


class _Plain:
    """Turns what was read into containers and arrays; what is referred to twice is turned once.

    ``room`` are the bytes that it may take for that.
    """

    def __init__(self, room: int) -> None:
        self._room = room
        self._done: dict[int, Any] = {}

    def __call__(self, value: Any) -> Any:
        if not isinstance(value, _Record | dict | list | tuple | set | frozenset | type | _Reconstructor):
            return value
        if id(value) not in self._done:
            self._done[id(value)] = _Refused("an object that contains itself")
            self._done[id(value)] = self._turned(value)
        done = self._done[id(value)]
        if isinstance(done, _Refused):
            raise done
        return done

    def claim(self, n_bytes: int) -> None:
        """Take so many bytes of the room. To be asked before memory is filled."""
        self._room -= n_bytes
        if self._room < 0:
            raise _Refused("much more memory than the file's own size")

    def numbers(self, raw: Any, dtype: np.dtype[Any], shape: Any, order: Literal["C", "F"]) -> np.ndarray[Any, Any]:
        """An array of ``raw`` bytes, or of a record of such, in the machine's byte order and C order."""
        raw = _bytes(self(raw))
        self.claim(len(raw))
        flat: np.ndarray[Any, Any] = np.frombuffer(raw, dtype)
        return np.array(flat.reshape(shape, order=order), dtype.newbyteorder("="), order="C")

    def _turned(self, value: Any) -> Any:
        if isinstance(value, _Record):
            return value.array(self)
        if isinstance(value, dict):
            return {self(key): self(item) for key, item in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            kind = next(kind for kind in (list, tuple, set, frozenset) if isinstance(value, kind))
            return kind(self(item) for item in value)
        raise _Refused("a type or function as a value")


def _bytes(raw: Any) -> bytes:
    if isinstance(raw, str):
        return raw.encode("latin1")
    if isinstance(raw, bytes | bytearray):
        return bytes(raw)
    raise TypeError(f"{type(raw).__name__} instead of bytes")


def _text(raw: Any) -> str:
    if isinstance(raw, str):
        return raw
    if isinstance(raw, bytes):
        return raw.decode("latin1")
    raise TypeError(f"{type(raw).__name__} instead of text")
