"""A take's sound: decoded once, by presentation timestamps, and cut to a clip on the clock of the pictures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any, ClassVar, cast

import av
import av.error
import av.filter
import numpy as np
from av.audio.frame import AudioFrame
from numpy.typing import NDArray

from manifests.clock import SAMPLE_RATE, sample_count
from manifests.stage import Done, Needs, Outcome, Rejected, Stage, Take, Unreadable
from prep.video import decoded, open_container, sound_stream, to_us, video_of

TOLERANCE = Fraction(5, 1000)
"""Seconds by which a timestamp may miss the samples before it and still count as the next one: containers round
timestamps (Matroska to 1 ms)."""

PATIENCE = Fraction(250, 1000)
"""Seconds for which timestamps must stay astray before it is a gap or an overlap: Ogg gives times to pages only, and
those of single packets are guesses that come right after a packet or two."""

SILENCE_DBFS = -120.0
"""Floor of the loudness, reached by digital silence."""


class NoSound(Exception):
    """Raised by ``decode_sound`` for a file without an audio stream."""


@dataclass(frozen=True, slots=True)
class Track:
    """Decoded sound, mono at 16 kHz: stretches that do not overlap, in order, with nothing between them.

    ``stretches``: (position, samples): the position in samples from time 0 of the container's clock, to the nearest,
    and the samples (n,) float32 in [-1, 1].
    """

    stretches: tuple[tuple[int, NDArray[np.float32]], ...]

    @property
    def start_us(self) -> int:
        """Time of the first sample."""
        return round(Fraction(self.stretches[0][0] * 1_000_000, SAMPLE_RATE))

    def cut(self, start_us: int, n_samples: int) -> NDArray[np.float32]:
        """``n_samples`` samples (S,) from ``start_us`` on. Where there is no sound there are zeros."""
        first = round(Fraction(start_us * SAMPLE_RATE, 1_000_000))
        wave = np.zeros(n_samples, dtype=np.float32)
        for position, samples in self.stretches:
            begin, end = max(first, position), min(first + n_samples, position + len(samples))
            if begin < end:
                wave[begin - first : end - first] = samples[begin - position : end - position]
        return wave

    def wave(self) -> NDArray[np.float32]:
        """All of it (S,), from ``start_us`` on, gaps as zeros."""
        position, samples = self.stretches[-1]
        return self.cut(self.start_us, position + len(samples) - self.stretches[0][0])


def decode_sound(path: str) -> Track:
    """Decode the sound of a file: a local path or an fsspec URL; any rate, any number of channels.

    Every sample is where its presentation timestamp puts it, on the clock that the pictures of the same file share:
    edit lists and encoder delay are honoured, sound that starts late starts late, a gap in the timestamps is a gap,
    and where stretches overlap the one decoded first stays. Packets that do not decode leave a gap. The stream is the
    one marked default, else the first. Channels are mixed by the usual coefficients (ITU-R BS.775), scaled such that
    nothing can clip; channels without known places are averaged.

    Raises ``NoSound`` when there is no audio stream, ``Unreadable`` when the file does not open or no sound decodes.
    """
    stretches: list[tuple[int, NDArray[np.float32]]] = []
    end = None
    for start, samples in _stretches(path):
        position = round(start * SAMPLE_RATE)
        overlap = 0 if end is None else max(0, end - position)
        if overlap < len(samples):
            stretches.append((position + overlap, samples[overlap:]))
            end = position + len(samples)
    if not stretches:
        raise Unreadable("there is an audio stream, but no sound decodes")
    return Track(tuple(stretches))


def _stretches(path: str) -> Iterator[tuple[Fraction, NDArray[np.float32]]]:
    """Start in seconds and samples of each stretch without a gap or a change of format."""
    resampler: _Resampler | None = None
    astray: list[AudioFrame] = []
    for frame in _frames(path):
        astray.append(frame)
        while astray:
            if resampler is None:
                resampler = _Resampler(astray[0])
                resampler.push(astray.pop(0))
            elif resampler.leads_to(astray):
                for each in astray:
                    resampler.push(each)
                astray.clear()
            elif _format(frame) != resampler.format or sum(map(_duration, astray)) > PATIENCE:
                yield resampler.start, resampler.finish()
                resampler = None
            else:
                break
    if resampler is not None:
        yield resampler.start, resampler.finish()
    if astray:
        resampler = _Resampler(astray[0])
        for each in astray:
            resampler.push(each)
        yield resampler.start, resampler.finish()


def _frames(path: str) -> Iterator[AudioFrame]:
    """Decoded frames; what is damaged is left out."""
    with open_container(path) as container:
        stream = sound_stream(container)
        if stream is None:
            raise NoSound("it has no sound")
        stream.codec_context.thread_count = 1
        for _, frames in decoded(container, stream):
            yield from (frame for frame in frames or () if frame.samples)


class _Resampler:
    """Turns the frames of one stretch into mono at 16 kHz; its first sample falls on that of the first frame."""

    def __init__(self, frame: AudioFrame) -> None:
        self.start = _start(frame) or Fraction(0)
        self.format = _format(frame)
        self._end = self.start
        self._pieces: list[NDArray[np.float32]] = []
        self._graph = av.filter.Graph()
        self._graph.threads = 1
        name, rate, layout, places_known = self.format
        self._graph.link_nodes(
            self._graph.add_abuffer(format=name, sample_rate=rate, layout=layout if places_known else "mono"),
            # Without the limit swresample mixes floats by coefficients that add up to more than 1.
            self._graph.add("aresample", "rematrix_maxval=1.0"),
            self._graph.add("aformat", f"sample_fmts=flt:sample_rates={SAMPLE_RATE}:channel_layouts=mono"),
            self._graph.add("abuffersink"),
        ).configure()

    def leads_to(self, frames: list[AudioFrame]) -> bool:
        """Whether the last of ``frames`` has the format of those pushed, and the time that follows from their samples."""
        start = _start(frames[-1])
        expected = self._end + sum(map(_duration, frames[:-1]))
        return _format(frames[-1]) == self.format and (start is None or abs(start - expected) <= TOLERANCE)

    def push(self, frame: AudioFrame) -> None:
        self._end += _duration(frame)
        self._graph.push(frame if self.format[3] else _averaged(frame))
        self._pull()

    def finish(self) -> NDArray[np.float32]:
        self._graph.push(None)
        self._pull()
        return np.concatenate([np.zeros(0, np.float32), *self._pieces])

    def _pull(self) -> None:
        while True:
            try:
                frame = cast(AudioFrame, self._graph.pull())
            except (av.error.BlockingIOError, av.error.EOFError):
                return
            self._pieces.append(cast(NDArray[np.float32], frame.to_ndarray().ravel()))


def _start(frame: AudioFrame) -> Fraction | None:
    return None if frame.pts is None or frame.time_base is None else frame.pts * frame.time_base


def _duration(frame: AudioFrame) -> Fraction:
    return Fraction(frame.samples, frame.sample_rate)


def _format(frame: AudioFrame) -> tuple[str, int, str, bool]:
    """Sample format, rate and layout, and whether the layout says where its channels belong."""
    layout = frame.layout.name
    return frame.format.name, frame.sample_rate, layout, not layout.endswith("channels")


def _averaged(frame: AudioFrame) -> AudioFrame:
    channels = frame.to_ndarray()
    if not frame.format.is_planar:
        channels = channels.reshape(frame.samples, -1).T
    mono = AudioFrame.from_ndarray(
        channels.mean(axis=0, keepdims=True).astype(channels.dtype), format=frame.format.name, layout="mono"
    )
    mono.sample_rate = frame.sample_rate
    return mono


def to_int16(wave: NDArray[Any]) -> NDArray[np.int16]:
    """A float wave (S,) in [-1, 1] as the columns store it; what lies beyond full scale becomes full scale."""
    return np.clip(np.rint(wave * np.float64(32768)), -32768, 32767).astype(np.int16)


def limited(wave: NDArray[Any], peak_dbfs: float = -1.0) -> NDArray[Any]:
    """A float wave (S,) scaled down as a whole, where necessary, until its peak is ``peak_dbfs``: never clipped."""
    highest = 10 ** (peak_dbfs / 20)
    peak = float(np.max(np.abs(wave), initial=0.0))
    return wave * (highest / peak) if peak > highest else wave


def loudness_dbfs(wave: NDArray[np.int16]) -> float:
    """Root mean square of ``wave`` (S,) in dB of full scale (a full-scale square wave is 0), at least -120."""
    power = float(np.mean(np.square(wave / 32768.0))) if wave.size else 0.0
    return max(SILENCE_DBFS, 10 * float(np.log10(power))) if power > 0 else SILENCE_DBFS


@lru_cache(maxsize=1)
def _sound_of(take: Take) -> tuple[Track, int]:
    """The sound of a take and what to add to a time of the pictures to get one of the sound, in µs.

    The clips of one take follow each other in one process, so that remembering the last take decodes each once.
    """
    if take.layout and take.sound_path == take.path:
        raise NoSound("the capture has no sound")
    track = decode_sound(take.sound_path)
    if take.sound_path == take.path or take.layout:
        return track, 0
    # Two files have two clocks: the first sound goes with the first picture, whatever else their containers hold.
    with open_container(take.sound_path) as container:
        stream = sound_stream(container)
        assert stream is not None
        start_us = to_us(stream.start_time or 0, cast(Fraction, stream.time_base))
    return track, start_us - video_of(take).first_pts_us


class Sound(Stage):
    """The sound of a clip at 16 kHz: exactly the span of its frames, S = round(T * 16000 / fps) samples.

    Silent where the take has no sound for a part of the span. Rejects takes without an audio stream.
    """

    name: ClassVar[str] = "sound"
    version: ClassVar[int] = 1
    writes: ClassVar[tuple[str, ...]] = ("wave", "loudness_dbfs")
    needs: ClassVar[Needs] = Needs(pace=0.01)

    def run(self, take: Take, start_us: int, n_frames: int, fps_num: int, fps_den: int) -> Outcome:  # type: ignore[override]
        try:
            track, shift_us = _sound_of(take)
        except NoSound:
            return Rejected("the take has no sound")
        wave = to_int16(track.cut(start_us + shift_us, sample_count(n_frames, fps_num, fps_den)))
        return Done({"wave": wave, "loudness_dbfs": loudness_dbfs(wave)})
