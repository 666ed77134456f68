"""People of the studio as FaceTalk's folders of NPHM codes and sound (``prep.codes``), at once: no picture is rendered.

The codes are the true ones. ``headloom export`` writes the same folders out of a dataset that was fitted to pictures.
"""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from fitting.studio.acting import Conditions, act
from fitting.studio.family import HeadFamily
from fitting.studio.nphm_codes import nphm_expression, nphm_identity
from fitting.studio.people import PICTURED
from fitting.studio.takes import Progress, work_in_children
from manifests.clock import SAMPLE_RATE, sample_count
from prep.codes import EXPRESSIONS, IDENTITY, ORIGIN, SOUND, UNFINISHED

FPS = 24
"""Frames a second, as FaceTalk has them."""

TRUTH = "truth.npz"
"""In each folder: ``mouth_opening_mm`` (T,) between the middles of the inner lips, and ``times`` (T,) in seconds."""


def record_codes(
    folder: Path,
    takes: int,
    people: int,
    conditions: Conditions,
    workers: int | None = None,
    on_progress: Progress | None = None,
) -> list[Path]:
    """Record ``takes`` by ``people`` in turn as ``folder/<NNN>_SEN-<NN>-studio``; returns these folders.

    People, words and movement are those of ``record_captures`` with the same numbers. Beside sound, codes and ``headloom.json``,
    which says that it is a stand-in, lies ``TRUTH``. Takes are spread over ``workers`` processes, by default one for each core;
    the bytes are the same for any number. A folder of that name is replaced. Raises ``OSError`` when a take goes wrong.
    """
    paths = [folder / f"{take % people:03d}_SEN-{take // people + 1:02d}-studio" for take in range(takes)]
    work_in_children(_record, [(path, take % people, take, conditions) for take, path in enumerate(paths)], workers, on_progress)
    return paths


def _record(path: Path, number: int, take: int, conditions: Conditions) -> Iterator[dict[str, Any]]:
    record_folder(path, number, take, conditions)
    yield {}


def record_folder(path: Path, number: int, take: int, conditions: Conditions) -> None:
    """Record one take by person ``number``; ``path`` appears whole."""
    count = int(conditions.seconds * FPS)
    times = np.arange(count) / FPS
    acted = act(number, times, conditions, take, SAMPLE_RATE)
    codes = nphm_expression(acted.controls.expression, acted.controls.jaw).astype(np.float32)
    opening = 1000 * HeadFamily(PICTURED).openings(acted.vertices).mouth
    sound = io.BytesIO()
    soundfile.write(sound, acted.performance.sound[: sample_count(count, FPS, 1)], SAMPLE_RATE, subtype="PCM_16", format="WAV")
    files = {
        SOUND: sound.getvalue(),
        IDENTITY: _archive(identity=nphm_identity(acted.person.identity).astype(np.float32)),
        **{f"{EXPRESSIONS}/frame_{frame:05d}.npz": _archive(expression=code) for frame, code in enumerate(codes)},
        TRUTH: _archive(mouth_opening_mm=opening, times=times),
        ORIGIN: json.dumps({"person": f"{number:03d}", "stand_in": True, "fps": [FPS, 1], "frames": count}, indent=1).encode(),
    }
    unfinished = path.with_name(path.name + UNFINISHED)
    for old in (unfinished, path):
        shutil.rmtree(old, ignore_errors=True)
    for name, data in files.items():
        (unfinished / name).parent.mkdir(parents=True, exist_ok=True)
        (unfinished / name).write_bytes(data)
    unfinished.rename(path)


def _archive(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()
