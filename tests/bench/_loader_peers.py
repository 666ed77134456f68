"""Other people's loaders behind one small face, for ``tests.bench.loader``."""

from __future__ import annotations

import importlib.machinery
import random
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Clip = dict[str, Any]


class Peer:
    """Writes clips, one a sample, and reads them: one after the other again and again, and at random where it can."""

    at_random: Callable[[int], Clip] | None = None

    def __init__(self, folder: Path, clips: Sequence[Clip]) -> None:
        raise NotImplementedError

    def in_line(self) -> Iterator[Clip]:
        raise NotImplementedError


class Streaming(Peer):
    """mosaicml-streaming, shards of MDS."""

    def __init__(self, folder: Path, clips: Sequence[Clip]) -> None:
        # It imports torchvision for datasets that are not used here.
        absent = [f"torchvision{name}" for name in ("", ".datasets", ".datasets.folder", ".transforms", ".transforms.functional")]
        sys.modules.update({name: _stand_in(name) for name in absent if name not in sys.modules})
        from streaming import MDSWriter, StreamingDataset

        columns = {name: "bytes" if isinstance(value, bytes) else "ndarray:float32" for name, value in clips[0].items()}
        with MDSWriter(out=str(folder), columns=columns) as out:
            for clip in clips:
                out.write(clip)
        self._dataset = StreamingDataset(local=str(folder), shuffle=False, batch_size=1)
        self.at_random = self._dataset.__getitem__

    def in_line(self) -> Iterator[Clip]:
        while True:
            yield from self._dataset


class Litdata(Peer):
    """litdata, chunks made by ``optimize``."""

    def __init__(self, folder: Path, clips: Sequence[Clip]) -> None:
        from litdata import StreamingDataset
        from litdata.streaming.writer import BinaryWriter

        folder.mkdir(parents=True)
        out = BinaryWriter(str(folder), chunk_bytes="64MB")
        for number, clip in enumerate(clips):
            out[number] = clip
        out.done()
        out.merge()
        self._dataset = StreamingDataset(str(folder), shuffle=False)
        self.at_random = self._dataset.__getitem__

    def in_line(self) -> Iterator[Clip]:
        while True:
            yield from self._dataset


class WebDataset(Peer):
    """webdataset, one tar; it reads from front to back only."""

    def __init__(self, folder: Path, clips: Sequence[Clip]) -> None:
        import webdataset

        folder.mkdir(parents=True)
        self._ends = {name: "bin" if isinstance(value, bytes) else "npy" for name, value in clips[0].items()}
        with webdataset.TarWriter(str(folder / "clips.tar")) as out:
            for number, clip in enumerate(clips):
                out.write({"__key__": f"{number:06d}"} | {f"{name}.{self._ends[name]}": value for name, value in clip.items()})
        self._dataset = webdataset.WebDataset(str(folder / "clips.tar"), shardshuffle=False).decode()

    def in_line(self) -> Iterator[Clip]:
        while True:
            for sample in self._dataset:
                yield {name: sample[f"{name}.{end}"] for name, end in self._ends.items()}


PEERS: Mapping[str, type[Peer]] = {"mosaicml-streaming": Streaming, "litdata": Litdata, "webdataset": WebDataset}


def shuffled(windows: Iterable[Clip], size: int) -> Iterator[Clip]:
    """The ``windows`` out of a buffer of ``size``, as loaders that read in line shuffle."""
    rng = random.Random(0)
    held: list[Clip] = []
    for window in windows:
        if len(held) < size:
            held.append(window)
            continue
        place = rng.randrange(size)
        held[place], window = window, held[place]
        yield window


def random_windows(counts: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Clips and numbers of windows, all of them in random order, again and again."""
    clips = np.repeat(np.arange(len(counts)), counts)
    numbers = np.concatenate([np.arange(count) for count in counts])
    rng = np.random.default_rng(0)
    while True:
        order = rng.permutation(len(clips))
        yield from zip(clips[order].tolist(), numbers[order].tolist(), strict=True)


def _stand_in(name: str) -> types.ModuleType:
    """A module that has a class of every name."""
    module = types.ModuleType(name)
    module.__spec__ = importlib.machinery.ModuleSpec(name, None)
    module.__path__ = []

    def any_class(asked: str) -> type:
        if asked.startswith("_"):
            raise AttributeError(asked)
        return type(asked, (), {})

    module.__getattr__ = any_class  # type: ignore[method-assign]
    return module
