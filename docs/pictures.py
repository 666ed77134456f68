"""Draws the pictures of docs/studio.md: ``make docs``."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from fitting.studio.acting import Act, Conditions, act
from fitting.studio.backdrop import backdrop
from fitting.studio.light import light
from fitting.studio.render import render
from fitting.studio.rig import in_front, sixteen

OUT = Path(__file__).parent / "studio"
Pictures = NDArray[np.uint8]


def frames(acted: Act, side: int, fill: float = 0.66) -> Pictures:
    """(T, H, W, 3) of what a camera before the face sees."""
    rng = np.random.default_rng(acted.person.number)
    lighting, room = light(acted.times, rng), backdrop(side, side, rng)
    return render(acted.person.surface, acted.vertices, in_front(side, side, fill=fill), lighting, room).pictures


def speaking() -> Pictures:
    """One person at the middles of sounds that look different, each with its symbol."""
    conditions = Conditions(seconds=6.0, size=(256, 256))
    heard = act(0, np.zeros(1), conditions, take=0).performance.phonemes
    first: dict[str, float] = {}
    for phone in heard:
        first.setdefault(phone.symbol, (phone.start + phone.end) / 2)
    wanted = [first[symbol] for symbol in first if symbol != "sil"]
    times = np.array(sorted(wanted)[:12])
    symbols = {time: symbol for symbol, time in first.items()}
    shown = frames(act(0, times, conditions, take=0), 200, fill=0.95)
    for picture, time in zip(shown, times, strict=True):
        place, white = (8, 192), (255, 255, 255)
        cv2.putText(picture, f"{symbols[time]}  {time:.2f} s", place, cv2.FONT_HERSHEY_SIMPLEX, 0.45, white, 1, cv2.LINE_AA)
    return rows(shown, 6)


def people() -> Pictures:
    """Eight people while they speak."""
    conditions = Conditions(seconds=4.0, size=(256, 256))
    return rows(np.concatenate([frames(act(number, np.array([1.2]), conditions, take=0), 260) for number in range(8)]), 4)


def cameras() -> Pictures:
    """One moment from all sixteen cameras, in true colours."""
    conditions = Conditions(seconds=4.0, size=(550, 802))
    acted = act(2, np.array([1.3]), conditions, take=0)
    rig = sixteen(0)
    room = np.stack([backdrop(550, 802, np.random.default_rng([5, camera])) for camera in range(16)])
    lighting = light(acted.times, np.random.default_rng(3))
    seen = render(acted.person.surface, acted.vertices, rig.cameras.resize(550, 802), lighting, room)
    return rows(np.stack([cv2.resize(picture, (165, 241), interpolation=cv2.INTER_AREA) for picture in seen.pictures]), 8)


def rows(pictures: Pictures, columns: int) -> Pictures:
    """One picture out of many, ``columns`` in a row."""
    return np.concatenate([np.concatenate(list(pictures[k : k + columns]), axis=1) for k in range(0, len(pictures), columns)])


if __name__ == "__main__":
    OUT.mkdir(exist_ok=True)
    for draw in (speaking, people, cameras):
        cv2.imwrite(str(OUT / f"{draw.__name__}.jpg"), draw()[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])
