"""Short H.264 films in memory: encoding planes once, and reading some of the frames back."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Literal

import av
import numpy as np

from prep.video import BT709, Colour, Planes, to_frame

Preset = Literal["ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow", "placebo"]
"""How much work libx264 puts into small files."""

KEYFRAME_EVERY = 12
"""Frames in a closed group of pictures: what must be decoded at most to see one frame."""


class Encoder:
    """Encodes frames of 4:2:0 planes to an mp4 in memory, by libx264.

    ``fps`` is exact: frame k is shown at k / fps. The same frames give the same bytes on any number of cores:
    one thread, nothing of time or place in the container.
    """

    def __init__(
        self, width: int, height: int, fps: Fraction, colour: Colour = BT709, crf: float = 18.0, preset: Preset = "medium"
    ):
        self._file = io.BytesIO()
        self._container = av.open(self._file, "w", format="mp4", container_options={"fflags": "+bitexact"})
        options = {
            "crf": str(crf),
            "preset": preset,
            "x264-params": f"keyint={KEYFRAME_EVERY}:min-keyint=1:open-gop=0:threads=1:lookahead-threads=1",
        }
        self._stream = self._container.add_stream("libx264", fps, options)
        self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, "yuv420p"
        self._stream.time_base = 1 / fps
        context = self._stream.codec_context
        context.time_base = 1 / fps
        context.thread_count = 1
        context.color_primaries, context.color_trc, context.colorspace = colour
        context.color_range = 1
        self._frames = 0

    def add(self, planes: Planes) -> None:
        """Append a frame: Y (H, W), U and V of half that size, uint8."""
        frame = to_frame(planes)
        frame.pts = self._frames
        frame.time_base = self._stream.codec_context.time_base
        self._frames += 1
        self._container.mux(self._stream.encode(frame))

    def finish(self) -> bytes:
        """The whole film. Nothing can be added any more."""
        self._container.mux(self._stream.encode(None))
        self._container.close()
        return self._file.getvalue()


def encode_mp4(
    frames: Iterable[Planes],
    width: int,
    height: int,
    fps: Fraction,
    colour: Colour = BT709,
    crf: float = 18.0,
    preset: Preset = "medium",
) -> bytes:
    """The mp4 of these frames; see ``Encoder``."""
    encoder = Encoder(width, height, fps, colour, crf, preset)
    for planes in frames:
        encoder.add(planes)
    return encoder.finish()


def decode_mp4(data: bytes, frames: Sequence[int] | None = None) -> np.ndarray:
    """Frames of an mp4 made here as (T, H, W, 3) uint8 RGB: all, or those of the given numbers, in their order.

    Only the groups of pictures that hold wanted frames are decoded. Raises ``IndexError`` for numbers that the
    film does not have.
    """
    with av.open(io.BytesIO(data), "r") as container:
        stream = container.streams.video[0]
        stream.thread_count = 1
        length = stream.frames
        wanted = list(range(length)) if frames is None else [int(number) for number in frames]
        if wanted and not 0 <= min(wanted) <= max(wanted) < length:
            raise IndexError(f"frames {min(wanted)} to {max(wanted)} are asked of a film of {length}")
        step = Fraction(1) / (Fraction(stream.average_rate or 0) * Fraction(stream.time_base or 0))
        pictures: dict[int, np.ndarray] = {}
        at = 0
        decoded = container.decode(stream)
        for number in sorted(set(wanted)):
            if number // KEYFRAME_EVERY > at // KEYFRAME_EVERY:
                container.seek(round(number * step), stream=stream)
                decoded = container.decode(stream)
            for frame in decoded:
                at = round((frame.pts or 0) / step)
                if at == number:
                    pictures[number] = frame.reformat(format="rgb24", threads=1).to_ndarray()
                    break
        if not wanted:
            return np.zeros((0, stream.height, stream.width, 3), np.uint8)
        return np.stack([pictures[number] for number in wanted])
