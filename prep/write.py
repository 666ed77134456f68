"""Writing recordings of headloom's own making: h264 and AAC in an mp4, each picture at its time, marked as a stand-in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import av
import av.container
import numpy as np
from numpy.typing import NDArray

from manifests.atomic import whole_file
from manifests.source import STAND_IN

Rate = Fraction | Literal["vfr"]
"""Frames a second; "vfr" is 30 of which about a fifth are missing, the others at their true times."""

_VFR_NOMINAL = Fraction(30)
_TICKS = 90000


def frame_times(fps: Rate, seconds: float, rng: np.random.Generator) -> list[Fraction]:
    """Presentation times in seconds, from 0; a variable rate keeps the first and the last frame."""
    if fps != "vfr":
        return [k / fps for k in range(round(seconds * fps))]
    count = round(seconds * _VFR_NOMINAL)
    kept = rng.random(count) > 0.2
    kept[[0, -1]] = True
    return [Fraction(int(k)) / _VFR_NOMINAL for k in np.flatnonzero(kept)]


def write_take(
    path: Path,
    pictures: Iterable[NDArray[np.uint8]],
    times: Sequence[Fraction],
    sound: NDArray[Any] | None = None,
    sound_rate: int = 48_000,
) -> None:
    """Write an mp4 of RGB ``pictures`` (H, W, 3), H and W even, at ``times`` in seconds, and ``sound`` from time 0 on.

    ``sound`` (channels, S) is mono or stereo, from -1 to 1; None writes none. The same arguments give the same bytes on one
    machine.
    """
    with TakeWriter(path, times, sound, sound_rate) as writer:
        for picture in pictures:
            writer.add(picture)


class TakeWriter:
    """The same, picture by picture, for several cameras at once: ``with TakeWriter(...) as writer: writer.add(picture)``.

    ``crf`` is x264's quality, less being better. The file appears when it is whole. Raises ``ValueError`` at the end when there
    were not as many pictures as times.
    """

    def __init__(
        self,
        path: Path,
        times: Sequence[Fraction],
        sound: NDArray[Any] | None = None,
        sound_rate: int = 48_000,
        crf: int = 20,
    ) -> None:
        step = min((b - a for a, b in pairwise(times)), default=Fraction(1, 25))
        regular = all(b - a == step for a, b in pairwise(times))
        self._path, self._times, self._done = path, times, 0
        self._file = ExitStack()
        self._container = av.open(self._file.enter_context(whole_file(path)), "w", format="mp4")
        self._container.metadata["comment"] = STAND_IN
        # Without mbtree: x264's AVX-512 code for it reads beyond rows of other than 16 blocks, and bytes differ from run to run.
        options = {"crf": str(crf), "preset": "veryfast", "x264-params": "mbtree=0"}
        self._video = self._container.add_stream("libx264", rate=1 / step, options=options)
        self._video.pix_fmt = "yuv420p"
        codec = self._video.codec_context
        codec.time_base = step if regular else Fraction(1, _TICKS)
        # One thread, or the bytes would depend on the number of cores.
        codec.thread_count = 1
        codec.color_range = codec.colorspace = codec.color_primaries = codec.color_trc = 1
        self._time_base = codec.time_base
        self._track = None if sound is None else _Track(self._container, np.asarray(sound, np.float32), sound_rate)

    def __enter__(self) -> Self:
        return self

    def add(self, picture: NDArray[np.uint8]) -> None:
        """The next picture (H, W, 3)."""
        if not self._done:
            self._video.height, self._video.width = picture.shape[:2]
        time = self._times[self._done]
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), "rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")
        frame.pts, frame.time_base = int(time / self._time_base), self._time_base
        self._container.mux(self._video.encode(frame))
        if self._track:
            self._track.write(float(time + 1))
        self._done += 1

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self._file, self._container:
            if error is not None:
                raise error  # here, so that nothing is left of the file
            if self._done != len(self._times):
                raise ValueError(f"{self._path}: {self._done} pictures were given for {len(self._times)} times")
            if self._track:
                self._track.write()
            self._container.mux(self._video.encode(None))
            if self._track:
                self._container.mux(self._track.stream.encode(None))


class _Track:
    """The sound of a file, written bit by bit, so that it lies near its pictures."""

    def __init__(self, container: av.container.OutputContainer, sound: NDArray[np.float32], rate: int) -> None:
        self.layout = "mono" if len(sound) == 1 else "stereo"
        self.stream = container.add_stream("aac", rate=rate, layout=self.layout, options={"b": "128k"})
        self._container, self._sound, self._written = container, sound, 0

    def write(self, until_s: float | None = None) -> None:
        """Encode the samples up to this time; all that are left without one."""
        end = self._sound.shape[1]
        until = end if until_s is None else min(round(until_s * self.stream.rate), end)
        if until > self._written:
            samples = np.ascontiguousarray(self._sound[:, self._written : until])
            frame = av.AudioFrame.from_ndarray(samples, "fltp", self.layout)
            frame.sample_rate, frame.pts, frame.time_base = self.stream.rate, self._written, Fraction(1, self.stream.rate)
            self._container.mux(self.stream.encode(frame))
            self._written = until
