"""What somebody else's model file is, told from its bytes, and whether it holds what it should.

Downloads go wrong in a few ways that all end in the same unreadable traceback later. Each has its own message here:
an empty file, a Git LFS pointer, a web page saved under the model's name, a compressed or truncated file.
"""

from __future__ import annotations

import difflib
import json
import re
import struct
import zipfile
from collections.abc import Iterable, Mapping
from enum import StrEnum
from pathlib import Path

Shape = tuple[int | str, ...]
"""An expected shape. A name stands for a free dimension, which must be the same wherever it is named."""


class WrongModelFile(ValueError):
    """A model file is not what it should be: one line that says which file, what is wrong and how to mend it."""

    def __init__(self, message: str):
        # Names come out of files that anybody may have made: they must not break the line, fill it, or steer the terminal.
        short = message if len(message) <= 2000 else f"{message[:1000]} … {message[-1000:]}"
        super().__init__("".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in short))


class Kind(StrEnum):
    """Formats in which model files come."""

    torch = "PyTorch checkpoint"
    safetensors = "safetensors"
    pickle = "pickle"
    npy = "NumPy array"
    npz = "NumPy archive"
    mat = "MATLAB file"


_TORCH_BEFORE_1_6 = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""The number with which ``torch.save`` began its files before they were zip archives, after the pickle's protocol."""

_PICKLE = re.compile(rb"\x80[\x02-\x05]|[(}\]][dliq(]|\(\w|c[\w.]+\r?\n[\w.]+\r?\n")
"""The protocol, from 2 on; before that a container, a mark or a name comes first."""

_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"(\xb5/\xfd": "zstd",
    b"7z\xbc\xaf": "7-zip",
    b"Rar!": "RAR",
}


def kind_of(path: Path | str) -> Kind:
    """The format of a model file, by content; its name does not matter.

    Raises ``WrongModelFile`` for what cannot be a model file, and ``FileNotFoundError`` where there is none.
    """
    path = Path(path)
    with path.open("rb") as file:
        head = file.read(4096)
    _refuse_failed_download(path, head)
    if head.startswith(b"PK\x03\x04"):
        return _kind_of_zip(path)
    if head.startswith(b"\x93NUMPY"):
        return Kind.npy
    if head.startswith(b"MATLAB 5.0"):
        return Kind.mat
    if head.startswith((b"MATLAB 7.3", b"\x89HDF")):
        raise WrongModelFile(f"{path} is an HDF5 (MATLAB 7.3) file: save it again from MATLAB with the flag -v7")
    if head[257:262] == b"ustar":
        raise WrongModelFile(f"{path} is a tar archive: unpack it and take the model file inside")
    if _is_safetensors(path, head):
        return Kind.safetensors
    if head[:1] == b"\x80" and head[2 : 2 + len(_TORCH_BEFORE_1_6)] == _TORCH_BEFORE_1_6:
        return Kind.torch
    if _PICKLE.match(head):
        return Kind.pickle
    raise WrongModelFile(f"{path} is no kind of model file that headloom knows ({', '.join(Kind)})")


def _refuse_failed_download(path: Path, head: bytes) -> None:
    if not head:
        raise WrongModelFile(f"{path} is empty: download it again")
    if head.startswith(b"version https://git-lfs"):
        raise WrongModelFile(f"{path} is a Git LFS pointer, not the file that it points to: run git lfs pull where it came from")
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype", b"<html", b"<head", b"<?xml", b"<!--", b"<script")):
        raise WrongModelFile(
            f"{path} is a web page saved under the model's name, such as a log-in or error page: download it in a browser"
        )
    for magic, name in _COMPRESSED.items():
        if head.startswith(magic):
            raise WrongModelFile(f"{path} is compressed ({name}): unpack it first")


def _kind_of_zip(path: Path) -> Kind:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile as error:
        raise WrongModelFile(f"{path} is truncated (the directory at its end is missing): download it again") from error
    except Exception as error:  # a damaged directory may raise anything
        raise WrongModelFile(f"{path} is a damaged zip archive ({error}): download it again") from error
    if any(name == "data.pkl" or name.endswith("/data.pkl") for name in names):
        return Kind.torch
    if names and all(name.endswith(".npy") for name in names):
        return Kind.npz
    raise WrongModelFile(f"{path} is a zip archive with {_listed(names)}: unpack it and take the model file inside")


def _is_safetensors(path: Path, head: bytes) -> bool:
    if len(head) < 10 or head[8:9] != b"{":
        return False
    length = struct.unpack("<Q", head[:8])[0]
    if length > 100_000_000:
        return False
    with path.open("rb") as file:
        file.seek(8)
        header = file.read(length)
        end = file.seek(0, 2)
    try:
        entries = json.loads(header)
        whole = (
            8 + length + max((entry["data_offsets"][1] for name, entry in entries.items() if name != "__metadata__"), default=0)
        )
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise WrongModelFile(f"{path} has a damaged safetensors header: download it again") from error
    if whole != end:
        raise WrongModelFile(f"{path} is truncated: {end} bytes instead of {whole}; download it again")
    return True


def check_shapes(
    path: Path | str,
    found: Mapping[str, tuple[int, ...]],
    expected: Mapping[str, Shape],
    *,
    optional: Mapping[str, Shape] | None = None,
    ignore_others: bool = False,
) -> dict[str, int]:
    """Check the keys and shapes of a model file; returns the sizes of the named dimensions.

    ``optional`` keys may be absent; with ``ignore_others`` unexpected keys are no error. Raises ``WrongModelFile``
    with every missing, unexpected and misshaped key.
    """
    wanted = {**expected, **(optional or {})}
    problems = []
    if missing := [key for key in expected if key not in found]:
        problems.append(f"missing {_listed(missing)}")
    if unexpected := [key for key in found if key not in wanted and not ignore_others]:
        near = difflib.get_close_matches(unexpected[0], missing, n=1)
        problems.append(f"unexpected {_listed(unexpected)}" + (f" (is {unexpected[0]} meant to be {near[0]}?)" if near else ""))
    sizes: dict[str, int] = {}
    misshaped = []
    for key, shape in wanted.items():
        if key in found and not _fits(found[key], shape, sizes):
            known = tuple(sizes.get(size, size) if isinstance(size, str) else size for size in shape)
            misshaped.append(f"{key} is {_shape(found[key])} instead of {_shape(known)}")
    if misshaped:
        problems.append(_listed(misshaped))
    if problems:
        raise WrongModelFile(f"{path} does not hold what it should: {'; '.join(problems)}")
    return sizes


def _fits(found: tuple[int, ...], expected: Shape, sizes: dict[str, int]) -> bool:
    """Whether a shape is as expected; ``sizes`` of named dimensions are filled in by the first key that has them."""
    if len(found) != len(expected):
        return False
    known = sizes | {
        name: size for size, name in zip(found, expected, strict=True) if isinstance(name, str) and name not in sizes
    }
    if any(size != (known[name] if isinstance(name, str) else name) for size, name in zip(found, expected, strict=True)):
        return False
    sizes.update(known)
    return True


def _shape(shape: Shape) -> str:
    return "×".join(map(str, shape)) or "a single number"


def _listed(names: Iterable[str], most: int = 6) -> str:
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
