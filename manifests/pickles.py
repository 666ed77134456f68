"""Reading pickles that somebody else wrote, without running anything that they ask for.

A pickle is a program. This reader lets it build plain containers, and lets it *name* the few array types that head
models are stored with: NumPy arrays, SciPy sparse matrices, chumpy variables, PyTorch tensors. Behind each of those names
stands an inert record of our own, never the library's class or function; the records are turned into NumPy arrays when the
pickle has been read. Whatever else it names is refused, with that name. So neither chumpy nor PyTorch need be installed.
"""

from __future__ import annotations

import io
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np

from manifests.model_file import Kind, WrongModelFile, kind_of


def load_pickle(path: Path) -> Any:
    """The content of a pickle: dicts, lists and tuples, text, numbers, and NumPy arrays for all array types.

    Sparse matrices come out dense, chumpy variables and PyTorch tensors as arrays. Text of Python 2 is read as latin1.
    Raises ``WrongModelFile`` for anything that is not a pickle, is truncated, or asks for more than arrays.
    """
    if (kind := kind_of(path)) is not Kind.pickle:
        raise WrongModelFile(f"{path} is a {kind}, not a pickle")
    with path.open("rb") as file:
        return _read(file, str(path))


def load_npy(path: Path) -> Any:
    """The array of a ``.npy`` file; one that holds a single pickled object gives that object, read as ``load_pickle`` does."""
    if (kind := kind_of(path)) is not Kind.npy:
        raise WrongModelFile(f"{path} is a {kind}, not a NumPy array")
    with path.open("rb") as file:
        return _read_npy(file, str(path))


def load_npz(path: Path) -> dict[str, Any]:
    """The arrays of a ``.npz`` file by name; pickled ones are read as ``load_pickle`` does."""
    if (kind := kind_of(path)) is not Kind.npz:
        raise WrongModelFile(f"{path} is a {kind}, not a NumPy archive")
    arrays = {}
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            try:
                data = archive.read(name)
            except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError) as error:
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
    except (ValueError, EOFError, MemoryError) as error:
        raise WrongModelFile(f"{where} is truncated or damaged ({error}): download it again") from error
    held = _read(file, where)
    return held.item() if isinstance(held, np.ndarray) and held.dtype == object and held.ndim == 0 else held


def _read(file: IO[bytes], where: str) -> Any:
    try:
        return _Plain()(_Unpickler(file).load())
    except _Refused as error:
        raise WrongModelFile(
            f"{where} wants to use {error}, which no model file needs: none of it was run; get the file from its source"
        ) from error
    except RecursionError as error:
        raise WrongModelFile(f"{where} is nested too deeply for a model file: get it from its official source") from error
    except Exception as error:  # a damaged pickle may raise anything
        raise WrongModelFile(f"{where} is truncated or damaged ({error}): download it again") from error


class _Refused(Exception):
    """What a pickle asked for and does not get."""


class _Record:
    """An inert stand-in for something that a pickle names: it keeps what it is given and does nothing."""

    state: Any = None

    def __init__(self, *arguments: Any):
        self.arguments = arguments

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def array(self, plain: Callable[[Any], Any]) -> Any:
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

    def array(self, plain: Callable[[Any], Any]) -> Any:
        _, shape, dtype, fortran, raw = self.state
        kind = dtype.dtype()
        order: Literal["C", "F"] = "F" if fortran else "C"
        if kind.hasobject:
            held: np.ndarray[Any, Any] = np.empty(len(raw), object)
            held[:] = [plain(item) for item in raw]
            return held.reshape(shape, order=order)
        return _from_bytes(raw, kind, shape, order)


class _FromBuffer(_Record):
    """``numpy._core.numeric._frombuffer(bytes, dtype, shape, order)``, with which protocol 5 stores arrays."""

    def array(self, plain: Callable[[Any], Any]) -> Any:
        raw, dtype, shape, order = self.arguments
        return _from_bytes(bytes(raw), dtype.dtype(), shape, "F" if order == "F" else "C")


class _Scalar(_Record):
    def array(self, plain: Callable[[Any], Any]) -> Any:
        dtype, raw = self.arguments
        return _from_bytes(raw, dtype.dtype(), (1,), "C")[0]


class _SparseColumns(_Record):
    """A compressed sparse matrix of SciPy; its state is the dict of its parts."""

    by_column = True

    def array(self, plain: Callable[[Any], Any]) -> Any:
        state = self.state[1] if isinstance(self.state, tuple) else self.state
        rows, columns = (int(n) for n in state.get("_shape", state.get("shape")))
        data, indices, indptr = (np.asarray(plain(state[key])) for key in ("data", "indices", "indptr"))
        major = np.repeat(np.arange(columns if self.by_column else rows), np.diff(indptr))
        dense = np.zeros((rows, columns), data.dtype)
        np.add.at(dense, (indices, major) if self.by_column else (major, indices), data)
        return dense


class _SparseRows(_SparseColumns):
    by_column = False


class _Chumpy(_Record):
    """``chumpy.ch.Ch``: a variable whose value is its attribute ``x``."""

    def array(self, plain: Callable[[Any], Any]) -> Any:
        if not isinstance(self.state, dict) or "x" not in self.state:
            raise _Refused("a chumpy expression that is not a plain variable")
        return plain(self.state["x"])


class _Storage(_Record):
    """The numbers of a PyTorch tensor, as ``torch.save`` wrote them before its files were zip archives: pickles again."""

    def array(self, plain: Callable[[Any], Any]) -> Any:
        return self.numbers()

    def numbers(self) -> np.ndarray[Any, Any]:
        file = io.BytesIO(_bytes(self.arguments[0]))
        for _ in range(3):  # a magic number, the protocol, and facts about the machine
            _Unpickler(file).load()
        _, kind, key, _, count, *_ = _Unpickler(file).load()
        (stored,) = _Unpickler(file).load()
        if stored != key or not issubclass(kind, _TorchType):
            raise _Refused("a PyTorch storage that is a view of another")
        if int.from_bytes(file.read(8), "little") != count:
            raise _Refused("a PyTorch storage that is longer than it says")
        return _from_bytes(file.read(), np.dtype(kind.code), (count,), "C")


class _Tensor(_Record):
    """``torch._utils._rebuild_tensor_v2(storage, offset, size, stride, …)``; offset and strides count elements."""

    def array(self, plain: Callable[[Any], Any]) -> Any:
        storage, offset, size, stride = self.arguments[:4]
        numbers = storage.numbers()
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        if 0 in size:
            return np.zeros(size, numbers.dtype)
        if offset < 0 or min(stride, default=0) < 0 or last >= len(numbers):
            raise _Refused("a PyTorch tensor that reaches beyond its storage")
        strides = [step * numbers.itemsize for step in stride]
        return np.lib.stride_tricks.as_strided(numbers[offset:], size, strides).copy()


class _Parameter(_Record):
    def array(self, plain: Callable[[Any], Any]) -> Any:
        return plain(self.arguments[0])


class _TorchType(_Record):
    code = ""


class _Dict(dict[Any, Any]):
    """``collections.OrderedDict``, without what its own class would let a pickle set."""

    def __setstate__(self, state: Any) -> None:
        pass


class _Call:
    """A function that pickles may call. Nothing can be set on it."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        raise _Refused("a changed function")


class _Encode(_Call):
    """``_codecs.encode``, with which Python 3 writes bytes in pickles that Python 2 can read."""

    __slots__ = ()

    def __call__(self, text: str, encoding: str) -> bytes:
        if encoding != "latin1":
            raise _Refused(f"the text encoding {encoding}")
        return text.encode("latin1")


class _Reconstructor(_Call):
    """``copyreg._reconstructor``: an empty object of a type, which gets its state next."""

    __slots__ = ()

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
    "_codecs.encode": _Encode(),
    "collections.OrderedDict": _Dict,
    "builtins.set": set,  # chumpy's variables carry one
    "__builtin__.set": set,
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


class _Unpickler(pickle.Unpickler):
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
        raise _Refused(f"something outside the file ({identifier!r:.60})")


class _Plain:
    """Turns what was read into containers and arrays; what is referred to twice is turned once."""

    def __init__(self) -> None:
        self._done: dict[int, Any] = {}

    def __call__(self, value: Any) -> Any:
        if not isinstance(value, _Record | dict | list | tuple | set | frozenset | type | _Call):
            return value
        if id(value) not in self._done:
            self._done[id(value)] = _Refused("an object that contains itself")
            self._done[id(value)] = self._turned(value)
        done = self._done[id(value)]
        if isinstance(done, _Refused):
            raise done
        return done

    def _turned(self, value: Any) -> Any:
        if isinstance(value, _Record):
            return value.array(self)
        if isinstance(value, dict):
            return {self(key): self(item) for key, item in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            kind = next(kind for kind in (list, tuple, set, frozenset) if isinstance(value, kind))
            return kind(self(item) for item in value)
        raise _Refused("a type or function as a value")


def _from_bytes(raw: Any, dtype: np.dtype[Any], shape: Any, order: Literal["C", "F"]) -> np.ndarray[Any, Any]:
    flat: np.ndarray[Any, Any] = np.frombuffer(_bytes(raw), dtype)
    return np.array(flat.reshape(shape, order=order), dtype.newbyteorder("="), order="C")


def _bytes(raw: Any) -> bytes:
    return raw.encode("latin1") if isinstance(raw, str) else bytes(raw)


def _text(raw: Any) -> str:
    return raw.decode("latin1") if isinstance(raw, bytes) else str(raw)
