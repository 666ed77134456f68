"""Recording people of the studio with sixteen cameras, in the folders and files of NeRSemble, and the answers beside them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fitting.cameras import Camera
from fitting.studio.acting import SAMPLE_RATE, Act, Conditions, act, answers, landmarks
from fitting.studio.backdrop import backdrop
from fitting.studio.light import light, sensor_noise
from fitting.studio.nersemble import Release, View, begin_sequence, frame_numbers, moments, write_camera, write_metadata
from fitting.studio.render import render, visible
from fitting.studio.rig import sixteen
from fitting.studio.takes import Progress, work_in_children
from fitting.studio.truth import MAPS, map_arrays, save_answers
from manifests.atomic import whole_file
from prep.colour import encode

IDENTITIES = "identities"
"""Folder of the people's identity codes beside the people."""

_GRAIN = 0.6
"""Noise of the cameras, which are better than a telephone's."""


def record_captures(
    folder: Path,
    takes: int,
    people: int,
    conditions: Conditions,
    release: Release = "v2",
    workers: int | None = None,
    on_progress: Progress | None = None,
) -> list[Path]:
    """Record ``takes`` by ``people`` in turn into ``folder``; returns the folders of the sequences.

    Beside each sequence ``SEN-NN-studio`` lie ``SEN-NN-studio.truth.npz`` and, of its middle frame as all cameras see it,
    ``SEN-NN-studio.maps.npz`` (``fitting.studio.truth``); ``identities/NNN.npy`` are the people's codes for the NPHM-like
    networks, as the stage ``identity`` reads them. Cameras are spread over ``workers`` processes, by default one for each
    core; the bytes are the same for any number. Raises ``OSError`` when one goes wrong.
    """
    rig = sixteen(conditions.seed)
    paths = [_home(folder, take % people) / "sequences" / _sequence(take, people) for take in range(takes)]
    tasks = [
        (path, folder, take % people, take, camera, conditions, release)
        for take, path in enumerate(paths)
        for camera in range(len(rig.serials))
    ]
    results = work_in_children(_record, tasks, workers, on_progress)
    for take, path in enumerate(paths):
        of_take = results[take * len(rig.serials) : (take + 1) * len(rig.serials)]
        save_answers(path.with_suffix(".maps.npz"), {name: np.stack([seen[name] for seen in of_take]) for name in MAPS}, MAPS)
        truth = of_take[0]["answers"] | {"landmarks68_visible": np.stack([seen["visible"] for seen in of_take])}
        save_answers(path.with_suffix(".truth.npz"), truth)
        with whole_file(folder / IDENTITIES / f"{take % people:03d}.npy") as file:
            np.save(file, truth["nphm_identity"].astype(np.float32))
    held: dict[int, list[str]] = {}
    for take, path in enumerate(paths):
        held.setdefault(take % people, []).append(path.name)
    write_metadata(folder, held)
    return paths


def _record(
    path: Path, folder: Path, number: int, take: int, camera: int, conditions: Conditions, release: Release
) -> Iterator[dict[str, Any]]:
    """What one camera sees, written; yields what the answers need of it, and the first camera's those of all."""
    rig, numbers = sixteen(conditions.seed), frame_numbers(conditions.seconds)
    acted = _act(number, conditions, take)
    sized = rig.cameras.resize(*conditions.size)
    lighting = light(acted.times, np.random.default_rng([conditions.seed, take, 3]), change=0.0)
    if camera == 0:
        begin_sequence(folder, number, path.name, rig, acted.performance.sound, SAMPLE_RATE, release)
        everybody = [sized[index] for index in range(len(rig.serials))]
        nobody = np.zeros((len(everybody), len(acted.times), 68), bool)
        yield {"answers": answers(acted, everybody, lighting, nobody)}
    rng = np.random.default_rng([conditions.seed, take, 4, camera])
    room = backdrop(*conditions.size, np.random.default_rng([conditions.seed, 5, camera]))
    found: dict[str, Any] = {}
    views = _views(acted, sized[camera], lighting, room, rng, found)
    empty = sensor_noise(encode(room), rng, _GRAIN)
    write_camera(_home(folder, number), path.name, rig, camera, numbers, views, empty, release)
    yield found


def _views(
    acted: Act,
    camera: Camera,
    lighting: torch.Tensor,
    room: NDArray[np.float32],
    rng: np.random.Generator,
    found: dict[str, Any],
) -> Iterator[View]:
    """What the camera sees of each frame; ``found`` gets the maps of the middle one, and which landmarks were visible."""
    points, seen = landmarks(acted), []
    for frame in range(len(acted.times)):
        shot = render(acted.person.surface, acted.vertices[frame], camera, lighting[frame], room)
        seen.append(visible(points[frame : frame + 1], camera, torch.from_numpy(shot.depth))[0].numpy())
        if frame == len(acted.times) // 2:
            found.update({name: held[0] for name, held in map_arrays(shot).items()})
        yield View(sensor_noise(shot.pictures[0], rng, _GRAIN), shot.alpha[0], shot.depth[0])
    found["visible"] = np.stack(seen)


@lru_cache(maxsize=1)
def _act(number: int, conditions: Conditions, take: int) -> Act:
    """A process records several cameras of a take."""
    times = [float(moment) for moment in moments(frame_numbers(conditions.seconds))]
    return act(number, np.array(times), conditions, take)


def _home(folder: Path, number: int) -> Path:
    return folder / f"{number:03d}"


def _sequence(take: int, people: int) -> str:
    """NeRSemble's name of a spoken sentence."""
    return f"SEN-{take // people + 1:02d}-studio"
