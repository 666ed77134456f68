"""Films as arrays of frames."""

from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests.columns import COLUMNS
from prep.encode import decode_mp4, encode_mp4
from training.films import Film, Group, is_film

FRAMES = 31


def small_film(frames: int, seed: int = 0, size: int = 64) -> bytes:
    """A film of a bright square that wanders over a rough ground."""
    rng = np.random.default_rng(seed)
    luma = np.repeat(rng.integers(40, 90, (1, size, size), dtype=np.uint8), frames, axis=0)
    for number, picture in enumerate(luma):
        at = (3 * number + seed) % (size - 16)
        picture[at : at + 16, at // 2 : at // 2 + 16] = 220
    chroma = np.full((size // 2, size // 2), 128, np.uint8)
    return encode_mp4(((picture, chroma, chroma + seed) for picture in luma), size, size, Fraction(24))


@pytest.fixture(scope="module")
def data() -> bytes:
    return small_film(FRAMES)


@pytest.fixture(scope="module")
def frames(data: bytes) -> np.ndarray:
    return decode_mp4(data)


def test_a_film_is_an_array_of_its_frames(data: bytes, frames: np.ndarray) -> None:
    film = Film(data)
    assert film.shape == (FRAMES, 64, 64, 3)
    np.testing.assert_array_equal(film[0:FRAMES], frames)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, FRAMES - 1), min_size=1, max_size=6))
def test_frames_are_the_same_asked_for_together_or_alone(data: bytes, frames: np.ndarray, numbers: list[int]) -> None:
    np.testing.assert_array_equal(Film(data).take(np.array(numbers)), frames[numbers])


def test_a_group_of_pictures_is_decoded_once_where_it_is_kept(data: bytes, frames: np.ndarray) -> None:
    kept: dict[int, Group] = {}
    decoded: list[int] = []

    def keep(group: int, decode: Callable[[], Group]) -> Group:
        if group not in kept:
            kept[group] = decode()
            decoded.append(group)
        return kept[group]

    film = Film(data, keep)
    film[1:3]
    assert decoded == [0], "and no other group is decoded"
    np.testing.assert_array_equal(film[0:FRAMES], frames)
    assert decoded == sorted(set(decoded))
    assert sum(len(group.frames) for group in kept.values()) == FRAMES
    assert all(group.nbytes >= len(group.frames) * 64 * 64 * 3 / 2 for group in kept.values())


def test_damage_is_noticed(data: bytes) -> None:
    with pytest.raises(ValueError, match="a film cannot be read"):
        Film(b"no film at all" * 10)
    with pytest.raises(ValueError, match="a film cannot be read"):
        Film(data[: len(data) // 2])


def test_damage_to_one_group_leaves_the_others(data: bytes, frames: np.ndarray) -> None:
    first = Film(data)._starts[1]
    place = data.index(bytes(Film(data)._packets[first]))
    film = Film(data[: place + 50] + bytes(200) + data[place + 250 :])
    np.testing.assert_array_equal(film[0:first], frames[:first])
    with pytest.raises(ValueError, match=r"does not decode|frames of a film"):
        film[first : first + 1]


def test_what_is_a_film() -> None:
    assert is_film(COLUMNS["video256"])
    assert not is_film(COLUMNS["frame_number"])
