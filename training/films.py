"""Films of a dataset as frames: any of them, without decoding the rest.

Films are short H.264 files in closed groups of pictures (``prep.encode``); one of them is decoded whole to see any of its frames.
A film is taken apart into its packets once, for opening it takes as long as decoding half a group. Groups are kept as the decoder
gave them, which is half the size of RGB, by whoever reads films; turning a frame into RGB takes a tenth of decoding it.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from manifests.columns import Column

if TYPE_CHECKING:
    import av

Frames = NDArray[np.uint8]


def is_film(column: Column) -> bool:
    """Whether a column's values are films."""
    return column.dtype == "bytes" and column.rate == "fps"


class Group(NamedTuple):
    """Decoded frames of a group of pictures."""

    frames: dict[int, av.VideoFrame]
    """By their number in the film."""
    nbytes: int


Keep = Callable[[int, Callable[[], Group]], Group]
"""Given a group's number and what decodes it: the group, decoded now or before."""


class Film:
    """The mp4 ``data``, which is read as if it were an array of frames, (T, H, W, 3) RGB of ``shape``.

    Frames are those of ``prep.encode.decode_mp4``, to the bit. ``keep`` may hold decoded groups for another time. Raises
    ``ValueError`` for data that is no film and, when frames are asked for, where they are damaged.
    """

    def __init__(self, data: bytes, keep: Keep = lambda _, decode: decode()) -> None:
        import av

        try:
            with av.open(io.BytesIO(data), "r") as container:
                stream = container.streams.video[0]
                self._codec, self._extradata = stream.codec_context.name, stream.codec_context.extradata
                self._packets = [packet for packet in container.demux(stream) if packet.pts is not None]
                self.shape = (len(self._packets), stream.height, stream.width, 3)
        except (av.FFmpegError, IndexError) as error:
            raise ValueError(f"a film cannot be read: {error}") from None
        self.nbytes, self._keep = len(data), keep
        times = sorted(cast(int, packet.pts) for packet in self._packets)
        self._number = {time: number for number, time in enumerate(times)}
        """Which frame is shown at a time."""
        self._starts = np.flatnonzero([packet.is_keyframe for packet in self._packets])
        """First packet of each group; the groups are closed, so it is also the group's first frame."""

    def __getitem__(self, frames: slice) -> Frames:
        return self.take(np.arange(self.shape[0])[frames])

    def take(self, numbers: NDArray[np.int64], axis: int = 0) -> Frames:
        """Frames ``numbers`` (N,), in their order: (N, H, W, 3). ``axis`` is that of frames, 0, as for arrays."""
        pictures = np.empty((len(numbers), *self.shape[1:]), np.uint8)
        groups = (np.searchsorted(self._starts, numbers, side="right") - 1).tolist()
        decoded = {group: self._keep(group, lambda group=group: self._decoded(group)) for group in sorted(set(groups))}  # type: ignore[misc]
        for place, (group, number) in enumerate(zip(groups, numbers.tolist(), strict=True)):
            pictures[place] = decoded[group].frames[number].reformat(format="rgb24", threads=1).to_ndarray()
        return pictures

    def _decoded(self, group: int) -> Group:
        import av

        decoder = cast("av.VideoCodecContext", av.CodecContext.create(self._codec, "r"))
        decoder.extradata, decoder.thread_count, decoder.options = self._extradata, 1, {"err_detect": "explode"}
        packets = self._packets[slice(*np.append(self._starts, len(self._packets))[group : group + 2])]
        try:
            shown = [frame for packet in [*packets, None] for frame in decoder.decode(packet)]
        except av.FFmpegError as error:
            raise ValueError(f"a film does not decode: {error}") from None
        frames = {self._number[cast(int, frame.pts)]: frame for frame in shown if not frame.is_corrupt}
        if len(frames) < len(packets):
            raise ValueError(f"of {len(packets)} frames of a film {len(frames)} decode")
        return Group(frames, sum(plane.buffer_size for frame in shown for plane in frame.planes))
