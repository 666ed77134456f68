"""Films are encoded once, the same bytes each time, and any frame of them can be read back."""

from __future__ import annotations

import io
from fractions import Fraction

import av
import numpy as np
import pytest

from prep.encode import KEYFRAME_EVERY, decode_mp4, encode_mp4
from prep.video import BT601, BT709, Planes
from tests.prep.test_video import HEIGHT, WIDTH, number_of, numbered

RATES = [Fraction(25), Fraction(24), Fraction(30000, 1001)]


def film(n: int = 40, fps: Fraction = RATES[0]) -> bytes:
    return encode_mp4(map(numbered, range(n)), WIDTH, HEIGHT, fps)


def numbers(pictures: np.ndarray) -> list[int]:
    return [number_of((picture[..., 1],) * 3) for picture in pictures]


def test_frames_survive() -> None:
    pictures = decode_mp4(film())
    assert (pictures.shape, pictures.dtype) == ((40, HEIGHT, WIDTH, 3), np.uint8)
    assert numbers(pictures) == list(range(40))


def test_the_same_frames_give_the_same_bytes() -> None:
    assert film() == film()


@pytest.mark.parametrize("fps", RATES)
def test_the_rate_is_exact_and_groups_are_short(fps: Fraction) -> None:
    with av.open(io.BytesIO(film(30, fps)), "r") as container:
        stream = container.streams.video[0]
        assert (stream.average_rate, stream.frames) == (fps, 30)
        frames = list(container.decode(stream))
        assert [Fraction(f.pts) * f.time_base for f in frames] == [k / fps for k in range(30)]
        assert max(np.diff([k for k, f in enumerate(frames) if f.key_frame])) <= KEYFRAME_EVERY


@pytest.mark.parametrize("wanted", [[], [0], [39], [7, 3, 3], [11, 12, 13, 30], [39, 0]])
def test_any_frames_can_be_read(wanted: list[int]) -> None:
    data = film()
    assert numbers(decode_mp4(data, wanted)) == wanted
    assert np.array_equal(decode_mp4(data, wanted), decode_mp4(data)[wanted])


@pytest.mark.parametrize("wanted", [[40], [-1]])
def test_frames_that_are_not_there_are_an_error(wanted: list[int]) -> None:
    with pytest.raises(IndexError, match="film of 40"):
        decode_mp4(film(), wanted)


@pytest.mark.parametrize("colour", [BT601, BT709])
def test_colour_tags_are_carried_and_obeyed(colour: tuple[int, int, int]) -> None:
    def plane(value: int, size: int) -> np.ndarray:
        return np.full((size, size), value, np.uint8)

    red: Planes = (
        (plane(81, 64), plane(90, 32), plane(240, 32)) if colour == BT601 else (plane(63, 64), plane(102, 32), plane(240, 32))
    )
    data = encode_mp4([red] * 3, 64, 64, Fraction(25), type(BT601)(*colour))
    with av.open(io.BytesIO(data), "r") as container:
        context = container.streams.video[0].codec_context
        assert (context.color_primaries, context.color_trc, context.colorspace, context.color_range) == (*colour, 1)
    assert np.abs(decode_mp4(data).astype(int) - [255, 0, 0]).max() <= 4
