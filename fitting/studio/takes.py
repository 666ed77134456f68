"""Recording people of the studio with one camera: an mp4 with sound for each take, and the answers beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fitting.studio.acting import SAMPLE_RATE, Conditions, act, answers, landmarks
from fitting.studio.backdrop import backdrop
from fitting.studio.light import light, sensor_noise
from fitting.studio.render import Shot, render, visible
from fitting.studio.rig import in_front
from fitting.studio.truth import MAPS, map_arrays, save_answers
from prep.children import in_children
from prep.write import Rate, TakeWriter, frame_times

RATES: tuple[Rate, ...] = (Fraction(25), Fraction(30000, 1001), Fraction(24000, 1001), "vfr")
"""Frame rates of successive takes."""

Progress = Callable[[int, int], None]
"""Is told how many pieces of work of how many are done."""

_PIECE = 16
"""Frames that are rendered before they are encoded: pictures of long takes do not pile up."""

_PATIENCE_S = 3600.0


def record_takes(
    folder: Path,
    takes: int,
    people: int,
    conditions: Conditions,
    workers: int | None = None,
    on_progress: Progress | None = None,
) -> list[Path]:
    """Record ``takes`` by ``people`` in turn into ``folder/personNNN/takeNN.mp4``; returns their paths.

    Beside each lie ``takeNN.truth.npz`` and ``takeNN.maps.npz`` (``fitting.studio.truth``). Takes are spread over ``workers``
    processes, by default one for each core; the bytes are the same for any number. Raises ``OSError`` when one goes wrong.
    """
    paths = [folder / f"person{take % people:03d}" / f"take{take:02d}.mp4" for take in range(takes)]
    work_in_children(_record, [(path, take % people, take, conditions) for take, path in enumerate(paths)], workers, on_progress)
    return paths


def work_in_children(
    work: Callable[..., Iterator[dict[str, Any]]],
    tasks: Sequence[tuple[Any, ...]],
    workers: int | None = None,
    on_progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """What ``work(*task)`` yielded for each task, in their order. The first of a task is a path, for messages."""
    results: list[dict[str, Any]] = [{} for _ in tasks]
    timeouts = [_PATIENCE_S] * len(tasks)
    for done, (number, said) in enumerate(in_children(work, tasks, timeouts, workers, doing="recording"), 1):
        if "trouble" in said:
            raise OSError(f"{tasks[number][0]}: {said['trouble']}")
        results[number] = said
        if on_progress:
            on_progress(done, len(tasks))
    return results


def _record(path: Path, number: int, take: int, conditions: Conditions) -> Iterator[dict[str, Any]]:
    record_take(path, number, take, conditions)
    yield {}


def record_take(path: Path, number: int, take: int, conditions: Conditions) -> None:
    """Record one take by person ``number``."""
    rng = np.random.default_rng([conditions.seed, take, 2])
    width, height = conditions.size
    times = frame_times(RATES[take % len(RATES)], conditions.seconds, rng)
    acted = act(number, np.array([float(time) for time in times]), conditions, take)
    camera = in_front(width, height, fill=rng.uniform(0.62, 0.72))
    lighting, room, grain = light(acted.times, rng), backdrop(width, height, rng), rng.uniform(0.5, 1.5)
    points, seen, pieces = landmarks(acted), [], []
    path.parent.mkdir(parents=True, exist_ok=True)
    with TakeWriter(path, times, acted.performance.sound[None], SAMPLE_RATE) as writer:
        for piece in torch.arange(len(times)).split(_PIECE):
            shot: Shot = render(acted.person.surface, acted.vertices[piece], camera, lighting[piece], room)
            for picture in sensor_noise(shot.pictures, rng, grain):
                writer.add(picture)
            seen.append(visible(points[piece], camera, torch.from_numpy(shot.depth)).numpy())
            pieces.append(map_arrays(shot))
    maps = {name: np.concatenate([piece[name] for piece in pieces]) for name in MAPS}
    save_answers(path.with_suffix(".maps.npz"), maps, MAPS)
    save_answers(path.with_suffix(".truth.npz"), answers(acted, [camera], lighting, np.concatenate(seen)[None]))
