"""Opening recordings and decoding their pictures, by presentation timestamps.

Two stages look at pixels: ``faces`` at every frame of a take, ``crop`` at the frames of its clips. The take is
decoded once all the same: while ``faces`` runs, the ``Video`` copies from each frame the region around the
followed face (``keep``), until a memory budget is spent; ``regions`` hands these copies to ``crop`` and decodes
again only what is not held. ``video_of`` makes both stages, when they run in one process, use the same ``Video``.
What ``regions`` yields never depends on what was kept: a copy holds the very bytes that decoding gives.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

import av
import av.container
import av.error
import av.filter
import av.stream
import fsspec
import numpy as np

from manifests.stage import Take, Unreadable

Planes = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Y (H, W), U and V (ceil(H/2), ceil(W/2)): uint8, 4:2:0, limited range."""

Rect = tuple[int, int, int, int]
"""x0 y0 x1 y1 in whole pixels of the upright frame, x1 and y1 exclusive."""

KEPT_MB = 384
"""Default budget for the regions that one ``Video`` keeps."""

FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,mpegvideo,m4v,h264,hevc,flv,asf,ogg,mxf,dv,"
    "wav,w64,mp3,flac,aac,aiff,au,caf"
)
"""Containers that are opened. Playlists, which can point at other files, are not among them."""

_SEEK_MARGIN_US = 500_000
_READ_ON_US = 2_000_000


class Colour(NamedTuple):
    """How Y, U, V are to be shown: code points of ITU-T H.273. The range is always the limited one."""

    primaries: int
    transfer: int
    matrix: int


BT601 = Colour(6, 6, 6)
BT709 = Colour(1, 1, 1)


@dataclass(frozen=True, slots=True)
class Picture:
    """One upright frame. ``planes`` are views into the decoder's memory: copy what is to outlive the next frame."""

    pts_us: int
    planes: Planes
    damaged: bool


def open_container(path: str) -> av.container.InputContainer:
    """Open a recording: a local path, or a URL that fsspec knows.

    A local name is taken literally (``-x.mp4`` and ``concat:a|b`` are names like others), and nothing but that
    file is read. Raises ``Unreadable`` for what the data is to blame for, and so will be again, and ``OSError``
    when the file cannot be got at: it is not there, not allowed, or the disk or network fails.
    """
    options = {"format_whitelist": FORMATS}
    try:
        if "://" in path:
            return av.open(_opened(path), "r", options=options)
        return av.open(f"file:{Path(path).absolute()}", "r", options={**options, "protocol_whitelist": "file"})
    except (av.error.FFmpegError, OSError, ValueError) as error:
        # FFmpeg reports bad data as EIO too, and seeks to places before the start of too short a file.
        of_data = errno.EIO if isinstance(error, av.error.FFmpegError) else errno.EINVAL
        if isinstance(error, OSError) and error.errno != of_data:
            raise _plain(path, error) from None
        raise Unreadable(_complaint(path, error)) from None


def decoded(container: av.container.InputContainer, stream: Any) -> Iterator[tuple[av.Packet[Any] | None, list[Any] | None]]:
    """The packets of a stream, each with its frames: ``None`` instead of those where it is damaged, to go on after it.

    There is no packet where the container itself is damaged.
    """
    packets = container.demux(stream)
    while True:
        packet = None
        try:
            packet = next(packets)
            frames = packet.decode()
        except StopIteration:
            return
        except av.error.FFmpegError:
            yield packet, None
            continue
        yield packet, frames


def pictures_stream(container: av.container.InputContainer) -> av.VideoStream | None:
    """The stream that shows the performance: not a cover, default before others, then the largest, then the first."""
    cover = av.stream.Disposition.attached_pic | av.stream.Disposition.timed_thumbnails
    streams = [s for s in container.streams.video if not s.disposition & cover]
    default = av.stream.Disposition.default
    return max(streams, key=lambda s: (bool(s.disposition & default), s.width * s.height, -s.index), default=None)


def sound_stream(container: av.container.InputContainer) -> av.AudioStream | None:
    """The stream of sound: default before others, then the first."""
    default = av.stream.Disposition.default
    return max(container.streams.audio, key=lambda s: (bool(s.disposition & default), -s.index), default=None)


def to_us(pts: int, time_base: Fraction) -> int:
    """Microseconds of ``pts``, rounded to nearest, in whole numbers throughout."""
    numerator = pts * time_base.numerator * 1_000_000
    return (2 * numerator + time_base.denominator) // (2 * time_base.denominator)


def even_rect(x0: float, y0: float, x1: float, y1: float, width: int, height: int) -> Rect:
    """The smallest rectangle on even pixels that holds the given one, cut off at the frame's edges."""
    return (
        max(0, int(x0 // 2) * 2),
        max(0, int(y0 // 2) * 2),
        min(width, int(-(-x1 // 2)) * 2),
        min(height, int(-(-y1 // 2)) * 2),
    )


def cut_planes(planes: Planes, rect: Rect, origin: tuple[int, int] = (0, 0)) -> Planes:
    """Views of ``rect`` in planes whose top-left pixel is ``origin``; both lie on even pixels."""
    x0, y0, x1, y1 = rect[0] - origin[0], rect[1] - origin[1], rect[2] - origin[0], rect[3] - origin[1]
    chroma = slice(y0 // 2, (y1 + 1) // 2), slice(x0 // 2, (x1 + 1) // 2)
    return planes[0][y0:y1, x0:x1], planes[1][chroma], planes[2][chroma]


def to_frame(planes: Planes) -> av.VideoFrame:
    """A frame that holds a copy of ``planes``."""
    height, width = planes[0].shape
    frame = av.VideoFrame(width, height, "yuv420p")
    for to, plane in zip(frame.planes, planes, strict=True):
        np.frombuffer(memoryview(to), np.uint8).reshape(-1, to.line_size)[: to.height, : to.width] = plane
    return frame


def to_rgb(planes: Planes, colour: Colour) -> np.ndarray:
    """(H, W, 3) uint8 RGB of planes as a decoder hands them out."""
    matrix = "ITU709" if colour.matrix == BT709.matrix else "ITU601"
    return to_frame(planes).reformat(format="rgb24", src_colorspace=matrix, src_color_range="MPEG", threads=1).to_ndarray()


class Video:
    """The pictures of one take.

    Iterating decodes all frames in display order, each with the time that the container gives it (a clock shared
    with the sound; not shifted to zero). Frames that an edit list hides are not shown, the display matrix is
    applied, interlaced frames are deinterlaced (yadif, one frame for one frame), anything but 8-bit 4:2:0 in
    limited range is converted to that. The decoder goes on after damage.

    ``width``, ``height``: the upright frame. ``rotation``: clockwise degrees that were applied. After a full
    pass: ``shown`` frames, ``announced`` frames, ``damaged`` frames among those shown, ``interlaced``.

    Raises ``Unreadable`` when there is no picture stream or no frame at all decodes.
    """

    def __init__(self, path: str, stream_index: int | None = None, budget_mb: int = KEPT_MB):
        self.path = path
        self._stream_index = stream_index
        self._budget = budget_mb << 20
        self._kept: dict[int, tuple[Rect, Planes]] = {}
        self._reader: Iterator[Picture] = iter(())
        self._read: Picture | None = None
        self.width = self.height = self.rotation = 0
        self.colour = BT709
        self._upright = _Upright()
        self.shown = self.announced = self.damaged = 0
        self.interlaced = False
        for picture in self._pictures():
            self.first_pts_us = picture.pts_us
            return
        raise Unreadable("not a single frame of the video decodes")

    def __iter__(self) -> Iterator[Picture]:
        self.shown = self.damaged = 0
        for picture in self._pictures():
            self.shown += 1
            self.damaged += picture.damaged
            yield picture

    def keep(self, picture: Picture, rect: Rect) -> None:
        """Hold a copy of ``rect`` of this frame for ``regions``, unless the budget is spent."""
        copies = tuple(plane.copy() for plane in cut_planes(picture.planes, rect))
        size = sum(plane.nbytes for plane in copies)
        if size <= self._budget and picture.pts_us not in self._kept:
            self._kept[picture.pts_us] = rect, cast(Planes, copies)
            self._budget -= size

    def regions(self, pts_us: Iterable[int], rect: Rect) -> Iterator[Planes]:
        """The planes of ``rect`` (on even pixels, within the frame) of the frames shown at these ascending times.

        Raises ``Unreadable`` when the file no longer has a frame at one of these times.
        """
        for time in pts_us:
            held, planes = self._kept.get(time, ((0, 0, 0, 0), None))
            if planes is not None and _contains(held, rect):
                yield cut_planes(planes, rect, held[:2])
            else:
                yield cut_planes(self._frame(time).planes, rect)

    def _frame(self, time: int) -> Picture:
        """The frame shown at ``time``. The reader stands where it was left, so clips in order are read straight on."""
        if self._read is None or not self._read.pts_us <= time <= self._read.pts_us + _READ_ON_US:
            self._reader, self._read = self._pictures(time - _SEEK_MARGIN_US), None
        for _ in range(2):
            while self._read is None or self._read.pts_us < time:
                self._read = next(self._reader, None)
                if self._read is None:
                    break
            if self._read is not None and self._read.pts_us == time:
                return self._read
            # The seek landed too late, or in damage: only reading from the start is sure to give the same frames.
            self._reader, self._read = self._pictures(), None
        raise Unreadable(f"there is no frame at {time / 1e6:.3f} s any more; the file has changed or its seeking is broken")

    def _pictures(self, from_us: int | None = None) -> Iterator[Picture]:
        """Decode from the start, or from a keyframe at or before ``from_us``. Ends early on damage after a seek."""
        with open_container(self.path) as container:
            stream = pictures_stream(container) if self._stream_index is None else container.streams[self._stream_index]
            if not isinstance(stream, av.VideoStream):
                raise Unreadable("there is no picture in it, only sound")
            # Workers share the machine; and with one thread no byte depends on the number of cores.
            stream.thread_count = 1
            last = -(1 << 62)
            for pts, frame, damaged in _deinterlaced(self._frames(container, stream, from_us)):
                if pts <= last:  # a time given twice, or the frame that _deinterlaced repeats
                    continue
                last = pts
                planes = self._upright(frame)
                self.height, self.width = planes[0].shape
                self.rotation, self.colour = self._upright.clockwise, self._upright.colour
                yield Picture(to_us(pts, cast(Fraction, stream.time_base)), planes, damaged)

    def _frames(self, container: av.container.InputContainer, stream: av.VideoStream, from_us: int | None) -> Iterator[_Decoded]:
        """Decoded frames as they come, with times filled in where the container has none."""
        time_base = cast(Fraction, stream.time_base)
        if from_us is not None:
            try:
                container.seek(round(Fraction(from_us, 1_000_000) / time_base), stream=stream)
            except av.error.FFmpegError:
                return
        step = round(1 / (stream.average_rate or stream.guessed_rate or 25) / time_base)
        announced, next_pts = 0, stream.start_time or 0
        for packet, frames in decoded(container, stream):
            announced += packet is not None and packet.size > 0 and not packet.is_discard
            if frames is None and from_us is not None:
                return
            for frame in frames or ():
                if from_us is not None and (frame.is_corrupt or frame.pts is None):
                    return
                pts = next_pts if frame.pts is None else frame.pts
                next_pts = pts + step
                if frame.interlaced_frame and from_us is None:
                    self.interlaced = True
                yield _Decoded(pts, frame, frame.is_corrupt)
        if from_us is None:
            indexed = sum(not entry.is_discard for entry in stream.index_entries)
            self.announced = max(announced, indexed)


_video: tuple[str, Video] | None = None


def video_of(take: Take) -> Video:
    """The ``Video`` of this take; the last one is remembered in this process, with the regions it keeps."""
    global _video
    if _video is None or _video[0] != take.take_id:
        _video = None
        _video = take.take_id, Video(take.path)
    return _video[1]


class _Decoded(NamedTuple):
    pts: int
    frame: av.VideoFrame
    damaged: bool


class _Upright:
    """Turns decoded frames into upright planes; size, rotation and colour are those of the first frame.

    One serves all passes over a recording: after a seek another frame would come first.
    """

    def __init__(self) -> None:
        self.size: tuple[int, int] | None = None
        self.clockwise = 0
        self.colour = BT709

    def __call__(self, frame: av.VideoFrame) -> Planes:
        if self.size is None:
            self.size = frame.width, frame.height
            self.clockwise = -round(frame.rotation / 90) * 90 % 360
            self.colour = _colour(frame)
        full_range = frame.color_range == 2 or frame.format.name.startswith("yuvj")
        if frame.format.name != "yuv420p" or full_range or (frame.width, frame.height) != self.size:
            frame = frame.reformat(
                *self.size,
                format="yuv420p",
                dst_colorspace=("ITU709" if self.colour == BT709 else "ITU601") if frame.format.is_rgb else None,
                interpolation="BICUBIC",
                src_color_range="JPEG" if full_range else None,
                dst_color_range="MPEG",
                threads=1,
            )
        turns = self.clockwise // 90
        planes = []
        for plane in frame.planes:
            view = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width]
            planes.append(np.rot90(view, -turns) if turns else view)
        return cast(Planes, tuple(planes))


def _colour(frame: av.VideoFrame) -> Colour:
    """What the frame is tagged with; where it is silent, BT.709 for more than standard definition, else BT.601."""
    usual = BT709 if frame.width >= 1280 or frame.height > 576 else BT601
    given = Colour(frame.color_primaries, frame.color_trc, frame.colorspace)
    return Colour(*(tag if tag not in (0, 2, 3) else silent for tag, silent in zip(given, usual, strict=True)))


def _deinterlaced(frames: Iterator[_Decoded]) -> Iterator[_Decoded]:
    """Pass frames through, from the first interlaced one on through yadif, which leaves progressive frames alone.

    The frame before the first interlaced one goes in too (and so comes out twice), so that the result does not
    depend on where decoding started.
    """
    yadif: _Yadif | None = None
    before: _Decoded | None = None
    for decoded in frames:
        if yadif is None and decoded.frame.interlaced_frame:
            yadif = _Yadif(decoded.frame)
            if before is not None:
                yield from yadif.push(before)
        if yadif is None:
            before = decoded
            yield decoded
        else:
            yield from yadif.push(decoded)
    if yadif is not None:
        yield from yadif.push(None)


class _Yadif:
    """One frame out for one frame in, one frame late; times are those that went in."""

    def __init__(self, frame: av.VideoFrame):
        self.graph = av.filter.Graph()
        self.graph.threads = 1
        self.graph.link_nodes(
            self.graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base),
            self.graph.add("yadif", "mode=send_frame:parity=auto:deint=interlaced"),
            self.graph.add("buffersink"),
        ).configure()
        self.inside: deque[tuple[int, bool]] = deque()

    def push(self, decoded: _Decoded | None) -> Iterator[_Decoded]:
        self.graph.vpush(None if decoded is None else decoded.frame)
        if decoded is not None:
            self.inside.append((decoded.pts, decoded.damaged))
        while True:
            try:
                frame = self.graph.vpull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return
            pts, damaged = self.inside.popleft()
            yield _Decoded(pts, frame, damaged)


def _contains(outer: Rect, inner: Rect) -> bool:
    return outer[0] <= inner[0] and outer[1] <= inner[1] and outer[2] >= inner[2] and outer[3] >= inner[3]


def _opened(path: str) -> IO[bytes]:
    """The file at a URL or a local path. Raises ``OSError``, whatever the library of the URL's protocol raises."""
    try:
        if "://" in path:
            return cast(IO[bytes], fsspec.open(path, "rb").open())
        return Path(path).open("rb")
    except Exception as error:
        raise _plain(path, error) from None


def _plain(path: str, error: Exception) -> OSError:
    """The same trouble as an ``OSError`` of Python's own, which can be sent to other processes."""
    number = getattr(error, "errno", None)
    return OSError(number if isinstance(number, int) else errno.EIO, getattr(error, "strerror", None) or str(error), path)


def _complaint(path: str, error: Exception) -> str:
    """Why a file did not open, in a line for a person: looks at what the file is instead. Raises ``OSError``."""
    with _opened(path) as file:
        head = file.read(4096)
        boxes = _top_boxes(file) if head[4:8] in (b"ftyp", b"mdat", b"free", b"wide", b"skip") else None
        if isinstance(error, OSError):  # FFmpeg's EIO: if it is not the data, reading fails here too
            file.seek(0)
            while file.read(1 << 20):
                pass
    text = head.lstrip()[:64].lower()
    if not head:
        return "the file is empty (0 bytes)"
    if text.startswith(b"version https://git-lfs"):
        return "the file is a git-LFS pointer, not the recording; fetch it with git lfs pull"
    if text.startswith((b"<!doctype html", b"<html")):
        return "the file is an HTML page, not a recording; the download went wrong"
    if boxes is not None and b"moov" not in boxes:
        return "the file has no index (moov box): recording or copying stopped before its end"
    reason = getattr(error, "strerror", None) or str(error)
    if isinstance(error, av.error.ArgumentError):
        reason = "it is not one of the containers that are opened"
    return f"the file does not open: {reason}"


def _top_boxes(file: IO[bytes]) -> list[bytes]:
    """Types of the top-level boxes of an mp4 or mov file (ISO/IEC 14496-12 §4.2)."""
    boxes: list[bytes] = []
    at, end = 0, file.seek(0, 2)
    while at < end and len(boxes) < 1000:
        file.seek(at)
        header = file.read(16)
        if len(header) < 8:
            break
        size = int.from_bytes(header[:4], "big")
        boxes.append(header[4:8])
        if size == 1:
            size = int.from_bytes(header[8:16], "big")
        if size < 8:
            break
        at += size
    return boxes
