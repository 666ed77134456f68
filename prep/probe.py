"""What a recording's container says of its picture and sound, without decoding more than one frame."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar, cast

import av
import av.error
import numpy as np

from manifests.source import AudioFacts, VideoFacts
from manifests.stage import Done, Level, Needs, Outcome, Rejected, Stage, Take
from prep.video import Video, open_container, pictures_stream, sound_stream

RATE_TOLERANCE = 0.1
"""Frame intervals that differ by more than this share of the usual one make a variable rate."""


@dataclass(frozen=True, slots=True)
class Facts:
    """Picture and sound of one file; ``None`` where it has none."""

    video: VideoFacts | None
    audio: AudioFacts | None


def probe(path: str) -> Facts:
    """Read the facts from the packets' times: the file is read once, and one frame is decoded for its rotation.

    The frame rate is the mean by presentation times; frames that an edit list hides do not count. Raises
    ``Unreadable``.
    """
    with open_container(path) as container:
        picture = pictures_stream(container)
        sound = sound_stream(container)
        streams = [s for s in (picture, sound) if s is not None]
        times: dict[int, list[tuple[int, int]]] = {s.index: [] for s in streams}
        packets = container.demux(streams) if streams else iter(())
        while True:
            try:
                packet = next(packets, None)
            except av.error.FFmpegError:
                continue
            if packet is None:
                break
            pts = packet.dts if packet.pts is None else packet.pts
            if pts is not None and packet.size and not packet.is_discard:
                times[packet.stream_index].append((pts, packet.duration or 0))
        video = None
        if picture is not None:
            indexed = sum(not entry.is_discard for entry in picture.index_entries)
            video = _video_facts(path, picture, sorted(times[picture.index]), indexed)
        audio = None
        if sound is not None:
            offset_ms = 0.0 if picture is None else 1000 * (_start_s(sound, times) - _start_s(picture, times))
            audio = AudioFacts(
                codec=sound.codec_context.codec.canonical_name,
                rate=sound.codec_context.sample_rate,
                channels=sound.codec_context.channels,
                duration_s=round(_duration_s(sorted(times[sound.index]), cast(Fraction, sound.time_base)), 6),
                offset_ms=round(offset_ms, 3),
            )
    return Facts(video, audio)


class Probe(Stage):
    """What the take's container says of its picture and sound.

    Rejected when there is no picture. Raises ``Unreadable``. Sound that lies in a file of its own is looked up
    there.
    """

    name: ClassVar[str] = "probe"
    version: ClassVar[int] = 1
    level: ClassVar[Level] = "take"
    needs: ClassVar[Needs] = Needs(memory_mb=200, pace=0.002, bytes_per_s=10)
    writes: ClassVar[tuple[str, ...]] = (
        "source_width",
        "source_height",
        "source_fps",
        "source_codec",
        "rotation",
        "variable_rate",
        "duration_s",
        "audio_rate",
        "audio_channels",
        "audio_offset_ms",
    )

    def run(self, take: Take) -> Outcome:
        facts = probe(take.path)
        video, audio = facts.video, facts.audio
        if video is None:
            return Rejected("the take has no picture")
        if take.sound_path != take.path:
            audio = probe(take.sound_path).audio
        return Done(
            {
                "source_width": video.width,
                "source_height": video.height,
                "source_fps": video.fps,
                "source_codec": video.codec,
                "rotation": video.rotation,
                "variable_rate": video.variable_rate,
                "duration_s": video.duration_s,
                "audio_rate": audio.rate if audio else 0,
                "audio_channels": audio.channels if audio else 0,
                "audio_offset_ms": audio.offset_ms if audio else 0.0,
            }
        )


def _video_facts(path: str, stream: av.VideoStream, times: list[tuple[int, int]], indexed: int) -> VideoFacts:
    upright = Video(path, stream.index)
    time_base = cast(Fraction, stream.time_base)
    pts = np.unique(np.array([t for t, _ in times], np.int64))
    fps = float(stream.average_rate or stream.guessed_rate or 0)
    variable = False
    if len(pts) > 1:
        steps = np.diff(pts)
        fps = float((len(pts) - 1) / (int(pts[-1] - pts[0]) * time_base))
        usual = float(np.median(steps))
        # Containers round times to their ticks; half a tolerance allows for that where ticks are fine enough.
        variable = bool(steps.max() - steps.min() > RATE_TOLERANCE * usual + min(1.0, RATE_TOLERANCE / 2 * usual))
    return VideoFacts(
        codec=stream.codec_context.codec.canonical_name,
        width=upright.width,
        height=upright.height,
        rotation=upright.rotation,
        fps=round(fps, 6),
        variable_rate=variable,
        frames=max(len(pts), indexed),
        duration_s=round(_duration_s(times, time_base), 6),
    )


def _duration_s(times: list[tuple[int, int]], time_base: Fraction) -> float:
    """From the first packet's time to the end of the last one."""
    return float((times[-1][0] + times[-1][1] - times[0][0]) * time_base) if times else 0.0


def _start_s(stream: av.VideoStream | av.AudioStream, times: dict[int, list[tuple[int, int]]]) -> float:
    """When the stream starts to be shown or heard; the container knows of samples that a decoder drops, if anyone."""
    start = stream.start_time
    if start is None:
        start = min((pts for pts, _ in times[stream.index]), default=0)
    return float(start * cast(Fraction, stream.time_base))
