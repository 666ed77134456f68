"""Finding recordings that were given twice, before work is spent on them: the same bytes, or one performance encoded anew.

A performance is known by how its picture *changes*: from a few small grey frames their mean is taken away, and what
is left correlates at 0.99 between two encodings of it, at whatever size, rate or brightness, but not between two
sentences that the same person says before the same wall. The loudness of the sound over time has to agree as well,
within 40 ms: a copy with late sound, or with none, is another recording. Where nothing moves nothing is found;
to miss a duplicate costs time, to invent one costs data.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal, NamedTuple, cast

import av
import av.container
import cv2
import numpy as np
from numpy.typing import NDArray

from manifests.source import SourceItem
from prep.probe import Facts
from prep.video import decoded, open_container, pictures_stream, sound_stream

Singles = NDArray[np.float32]
Kind = Literal["exact", "re-encoded"]

SAME_PICTURE = 0.75
"""Correlation of the moving parts from which two pictures are one, if their sounds are one as well. On public clips
encodings of one recording reach 0.99, one darkened to a quarter 0.83; different recordings stay below 0.25."""

SAME_PICTURE_ALONE = 0.95
"""The same where there is no sound to bear it out."""

SAME_SOUND = 0.93
"""Correlation of the envelopes from which two sounds are one. On public clips: 0.96 and more for one sound (even
clipped, quieter by 40 dB, or at 8 kHz); at most 0.9 when it is shifted by 80 ms, 0.85 among sentences of one length."""

DURATION_TOLERANCE_S = 0.15
"""Encodings of one recording may differ by this much: a frame or two more or less at the end."""

SHORTEST_S = 1.0
"""Videos shorter than this say too little to be recognised."""

_THUMBS = 12
_SIDE = 16
_ENVELOPE_HZ = 50
_MOST_LAG = 2
_ENVELOPE_S = 60.0
_READ_ON_S = 4.0
_CODING_NOISE = 0.3
_BLOCK = 512


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What a recording is recognised by.

    ``thumbs`` (12, 16, 16) float16, grey levels 0 to 255 of the upright frames shown at the middles of twelve equal
    parts of the video; ``envelope`` (n,) float32, log energy of the sound in 50 steps a second, of its first minute,
    from the first frame on, or ``None`` when it has no sound or a silent one.
    """

    duration_s: float
    thumbs: NDArray[np.float16]
    envelope: Singles | None


class Similarity(NamedTuple):
    """Correlations in [-1, 1]; that of ``sound`` is 1 when both are without, -1 when only one is."""

    picture: float
    sound: float


def fingerprint(path: str, facts: Facts, sound_path: str = "") -> Fingerprint | None:
    """Look at a dozen frames and listen to the first minute; ``sound_path`` is given where the sound lies apart.

    ``None`` when there is no picture, it lasts less than ``SHORTEST_S``, or does not decode. Raises ``Unreadable``.
    """
    if facts.video is None or facts.video.duration_s < SHORTEST_S:
        return None
    duration_s = facts.video.duration_s
    with open_container(path) as container:
        stream = pictures_stream(container)
        assert stream is not None
        sound = None if sound_path else sound_stream(container)
        for one in (stream, sound):
            if one is not None:
                one.codec_context.thread_count = 1  # now: not after the first frame, and seeking reads several first ones
        start_s = _start_s(stream)
        times = [start_s + (k + 0.5) / _THUMBS * duration_s for k in range(_THUMBS)]
        thumbs = list(_thumbs(container, stream, times))
        envelope = None if sound is None else _envelope(container, sound, start_s, duration_s)
    if sound_path:
        with open_container(sound_path) as container:
            sound = sound_stream(container)
            # Two files have two clocks; recordings that lie apart start together.
            envelope = None if sound is None else _envelope(container, sound, _start_s(sound), duration_s)
    return Fingerprint(duration_s, np.stack(thumbs), envelope) if len(thumbs) == _THUMBS else None


def similarity(one: Fingerprint, other: Fingerprint) -> Similarity:
    """How alike two recordings of about the same duration are."""
    picture = _moving(one) @ _moving(other)
    return Similarity(float(picture), _same_sound(one.envelope, other.envelope))


def find_duplicates(items: Sequence[SourceItem], fingerprints: Sequence[Fingerprint | None]) -> dict[int, tuple[int, Kind]]:
    """For each item that is a duplicate: the number of the item to keep instead, and the kind of likeness.

    Of each group the one with the most pixels is kept, among those the largest file, then the first uri. What is
    kept is never a duplicate itself, and every duplicate is like the kept one, not only like some third. Pictures
    are compared only among durations within ``DURATION_TOLERANCE_S``, in blocks: 10 000 equally long items take
    seconds.
    """
    order = sorted(range(len(items)), key=lambda number: _preference(items[number]))
    first: dict[str, int] = {}
    copies: dict[int, int] = {}
    for number in order:
        item = items[number]
        if item.sha256 and first.setdefault(item.take_id, number) != number:
            copies[number] = first[item.take_id]
    known = [number for number in order if number not in copies and fingerprints[number] is not None]
    alike: dict[int, list[int]] = {}
    for a, b in _alike(cast(list[Fingerprint], [fingerprints[number] for number in known])):
        alike.setdefault(known[a], []).append(known[b])
        alike.setdefault(known[b], []).append(known[a])
    found: dict[int, tuple[int, Kind]] = {}
    kept: set[int] = set()
    for number in known:
        if number not in found:
            kept.add(number)
            found |= {
                other: (number, "re-encoded") for other in alike.get(number, ()) if other not in found and other not in kept
            }
    for number, twin in copies.items():
        found[number] = (found[twin][0], "re-encoded") if twin in found else (twin, "exact")
    return found


def _preference(item: SourceItem) -> tuple[int, int, str, str]:
    pixels = item.video.width * item.video.height if item.video else 0
    return -pixels, -item.bytes, item.uri, item.root


def _alike(prints: Sequence[Fingerprint]) -> Iterator[tuple[int, int]]:
    """Pairs of numbers of prints that show and say the same."""
    if not prints:
        return
    by_duration = sorted(range(len(prints)), key=lambda number: prints[number].duration_s)
    durations = np.array([prints[number].duration_s for number in by_duration])
    moving = np.stack([_moving(prints[number]) for number in by_duration])
    ends = np.searchsorted(durations, durations + DURATION_TOLERANCE_S, "right")
    for start in range(0, len(prints), _BLOCK):
        block = slice(start, min(start + _BLOCK, len(prints)))
        scores = moving[block] @ moving[start : ends[block.stop - 1]].T
        for row, column in np.argwhere(scores >= SAME_PICTURE) + start:
            one, other = by_duration[row], by_duration[column]
            if row < column < ends[row] and _same(scores[row - start, column - start], prints[one], prints[other]):
                yield one, other


def _same(picture: float, one: Fingerprint, other: Fingerprint) -> bool:
    alone = one.envelope is None and other.envelope is None
    enough = SAME_PICTURE_ALONE if alone else SAME_PICTURE
    return picture >= enough and _same_sound(one.envelope, other.envelope) >= SAME_SOUND


def _moving(one: Fingerprint) -> Singles:
    """What changes in the picture, as a vector (n,) of length 1, or shorter where hardly anything does."""
    thumbs = one.thumbs.astype(np.float32)
    moving = (thumbs - thumbs.mean(axis=0)).ravel()
    # These grey levels of coding noise, which is alike in no two encodings, must not count as movement.
    noise = _CODING_NOISE**2 * moving.size
    return cast(Singles, moving / np.sqrt(moving @ moving + noise))


def _same_sound(one: Singles | None, other: Singles | None) -> float:
    if one is None or other is None:
        return 1.0 if one is other else -1.0
    # Encoders that do not say how many samples they put before the first shift the sound by 20 to 40 ms.
    length = min(len(one), len(other)) - 2 * _MOST_LAG
    middle = one[_MOST_LAG : _MOST_LAG + length]
    with np.errstate(invalid="ignore"):  # a stretch without any change has no correlation: NaN, which is never enough
        return max(float(np.corrcoef(middle, other[lag : lag + length])[0, 1]) for lag in range(2 * _MOST_LAG + 1))


def _start_s(stream: Any) -> float:
    return float((stream.start_time or 0) * stream.time_base)


def _thumbs(
    container: av.container.InputContainer, stream: av.VideoStream, times: Sequence[float]
) -> Iterator[NDArray[np.float16]]:
    """Small grey pictures of the frames shown at these ascending times in seconds."""
    frames: Iterator[tuple[float, Any]] = iter(())
    shown: tuple[float, Any] | None = None
    coming: tuple[float, Any] | None = None
    for time in times:
        if shown is None or time - shown[0] > _READ_ON_S:
            container.seek(int(Fraction(time) / cast(Fraction, stream.time_base)), stream=stream)
            frames = _timed(container, stream)
            shown, coming = None, next(frames, None)
        while coming is not None and (shown is None or coming[0] <= time + 1e-4):
            shown, coming = coming, next(frames, None)
        if shown is None:
            return
        frame = shown[1]
        # From floats, or the small changes of a dark picture would be lost in rounding.
        grey = frame.to_ndarray(format="gray").astype(np.float32)
        small = cv2.resize(grey, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).astype(np.float16)
        yield np.rot90(small, round(frame.rotation / 90) % 4)


def _envelope(
    container: av.container.InputContainer, stream: av.AudioStream, start_s: float, duration_s: float
) -> Singles | None:
    """Log energy of the sound from ``start_s`` on, with a floor 30 dB below its mean; ``None`` for silence."""
    steps = int(min(duration_s, _ENVELOPE_S) * _ENVELOPE_HZ)
    energy = np.zeros(steps + 1)
    if stream.start_time is not None:
        container.seek(stream.start_time, stream=stream)
    for time, frame in _timed(container, stream):
        wave = frame.to_ndarray().astype(np.float64)
        if not frame.format.is_planar:
            wave = wave.reshape(frame.samples, -1).T
        power = np.square(wave - wave.mean(axis=1, keepdims=True)).mean(axis=0)
        step = np.floor((time - start_s + np.arange(frame.samples) / frame.sample_rate) * _ENVELOPE_HZ).astype(np.int64)
        if step.size and step[0] >= steps:
            break
        energy += np.bincount(np.clip(step, 0, steps), np.where(step >= 0, power, 0), minlength=steps + 1)
    energy = energy[:steps]
    envelope = np.log(energy + 1e-3 * energy.mean() + 1e-12)
    return envelope.astype(np.float32) if energy.any() and np.ptp(envelope) > 0 else None


def _timed(container: av.container.InputContainer, stream: Any) -> Iterator[tuple[float, Any]]:
    """Frames and their times in seconds; what is damaged is left out."""
    for _, frames in decoded(container, stream):
        for frame in frames or ():
            if frame.pts is not None and frame.time_base is not None:
                yield float(frame.pts * frame.time_base), frame
