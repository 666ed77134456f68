"""What is shown of an animation: rendered heads, a film that is in time with its sound, and a picture of it all."""

from __future__ import annotations

import io
from fractions import Fraction

import av
import numpy as np
import pytest
import torch

from fitting.isosurface import Mesh
from prep.encode import decode_mp4
from training.facetalk.film import HEIGHT, WIDTH, fitted, preview, render, strip

FPS, RATE = Fraction(25), 16000


def sheet(x: float, y: float, z: float = 0.0, half: float = 0.02) -> Mesh:
    """A square that faces the front, in metres."""
    corners = [(x - half, y - half, z), (x + half, y - half, z), (x + half, y + half, z), (x - half, y + half, z)]
    return Mesh(torch.tensor(corners), torch.tensor([[0, 1, 2], [0, 2, 3]]), 0)


def shown(picture: np.ndarray) -> tuple[float, float]:
    """The middle of what is drawn: column and row."""
    rows, columns = np.nonzero((picture != picture[0, 0]).any(axis=-1))
    return columns.mean(), rows.mean()


def test_from_the_front_the_persons_left_is_on_the_right_and_up_is_up() -> None:
    picture = render(sheet(0.0, 0.0))
    assert picture.shape == (HEIGHT, WIDTH, 3)
    column, row = shown(picture)
    assert shown(render(sheet(0.05, 0.0)))[0] > column + 20
    assert shown(render(sheet(0.0, 0.05)))[1] < row - 20


def test_from_the_persons_left_what_is_in_front_is_on_the_left() -> None:
    near, far = (render(sheet(0.0, 0.0, z), (40.0,)) for z in (0.08, -0.08))
    assert shown(near)[0] < shown(far)[0] - 40
    assert render(sheet(0.0, 0.0), (0.0, 40.0)).shape == (HEIGHT, 2 * WIDTH, 3)


def pictures(n_frames: int) -> list[np.ndarray]:
    """Pictures that get brighter."""
    return [np.full((64, 96, 3), 40 + 10 * number, np.uint8) for number in range(n_frames)]


def sound_of(film: bytes) -> tuple[float, np.ndarray]:
    """When the sound begins in seconds, and its samples."""
    with av.open(io.BytesIO(film)) as container:
        frames = list(container.decode(container.streams.audio[0]))
    return float(frames[0].time), np.concatenate([frame.to_ndarray()[0] for frame in frames])


def test_a_film_shows_each_picture_once_with_the_sound_beside_it() -> None:
    wave = np.zeros(RATE, np.float32)
    wave[RATE // 2 : RATE // 2 + 160] = 0.8
    film = preview(iter(pictures(20)), FPS, wave, RATE)
    decoded = decode_mp4(film)
    np.testing.assert_allclose(decoded.mean(axis=(1, 2, 3)), 40 + 10 * np.arange(20), atol=3)
    start, samples = sound_of(film)
    loudest = start + np.abs(samples).argmax() / RATE
    assert loudest == pytest.approx(0.505, abs=0.01)


def test_the_same_pictures_and_sound_give_the_same_bytes() -> None:
    wave = np.random.default_rng(0).uniform(-0.5, 0.5, 5000).astype(np.float32)
    assert preview(pictures(5), FPS, wave, RATE) == preview(pictures(5), FPS, wave, RATE)


def test_a_film_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a picture"):
        preview([], FPS, np.zeros(10, np.float32), RATE)


def test_sound_is_as_long_as_the_frames() -> None:
    wave = np.ones(1000, np.float32)
    assert len(fitted(wave, 1, FPS, RATE)) == 640
    longer = fitted(wave, 2, FPS, RATE)
    assert len(longer) == 1280
    assert longer[:1000].all()
    assert not longer[1000:].any()


def test_a_strip_has_the_sound_where_it_is_loud_and_the_mouth_where_it_is_open() -> None:
    n_frames, heads = 40, [sheet(0.0, 0.0)] * 3
    wave = np.zeros(round(n_frames * RATE / FPS), np.float32)
    wave[len(wave) // 2 :] = np.sin(np.arange(len(wave) // 2))
    opening = np.zeros(n_frames)
    opening[:10] = 20
    picture = strip(heads, [0, 20, 39], n_frames, FPS, opening, wave, RATE)
    assert picture.shape[1] == 3 * WIDTH
    np.testing.assert_array_equal(picture[:HEIGHT], np.concatenate([render(head) for head in heads], axis=1))
    sound, mouth = np.split(picture[HEIGHT:].astype(int), 2)
    blue, red = sound[..., 2] - sound[..., 0] > 50, mouth[..., 0] - mouth[..., 2] > 50
    middle = 3 * WIDTH // 2
    assert blue[:, : middle - 5].sum(axis=0).max() <= 2
    assert blue[:, middle + 5 :].sum(axis=0).min() > 20
    assert np.nonzero(red[:, 20:120])[0].max() < 20
    assert np.nonzero(red[:, -320:-20])[0].min() > 50
