"""Writing a multi-camera recording as NeRSemble's two releases lay theirs out, so that one loader reads both.

Version 1, that of the paper, has a folder of PNG files for each frame, alpha maps and COLMAP's depth; version 2 has one mp4
for each camera. Times are frames of 73 a second, of which every third is kept, at its true time. Two things that the releases
do not tell are the studio's own: sound lies in ``sequences/<SEQUENCE>/audio.wav``, and ``camera_params.json`` says the ``width``
and ``height`` that its intrinsics are for.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np
import soundfile
from numpy.typing import NDArray

from fitting.studio.rig import FULL_SIZE, Rig
from prep.colour import affine, mix
from prep.write import TakeWriter

RATE = 73
"""Frames a second of NeRSemble's cameras."""

KEPT = 3
"""Every third frame is kept."""

DEPTH_UNIT = 1 / 32767
"""Metres in a step of a depth map, which are counted from 1; 0 is no depth."""

Release = Literal["v1", "v2"]


class Views(NamedTuple):
    """One moment as all C cameras see it, in true colours."""

    pictures: NDArray[np.uint8]
    """(C, H, W, 3) RGB."""
    alpha: NDArray[np.uint8]
    """(C, H, W) 255 on the person."""
    depth: NDArray[np.float32]
    """(C, H, W) metres along the optical axis, 0 where there is nothing."""


def frame_numbers(seconds: float) -> range:
    """Which of the 73 frames a second are kept of so many seconds."""
    return range(0, int(seconds * RATE), KEPT)


def moments(numbers: range) -> list[Fraction]:
    """Seconds of these frames."""
    return [Fraction(number, RATE) for number in numbers]


def write_sequence(
    folder: Path,
    person: int,
    sequence: str,
    rig: Rig,
    numbers: range,
    views: Iterator[Views],
    background: NDArray[np.uint8],
    sound: NDArray[np.float32],
    sound_rate: int,
    release: Release = "v2",
) -> Path:
    """Write one sequence of a person and its calibration; returns the person's folder, ``folder/<person>``.

    ``views`` gives what the cameras see at each of the frames ``numbers``; ``background`` (C, H, W, 3) is what they see with
    nobody there (version 2 only). Each camera's colours are written as the camera would see them: its calibration brings them
    back to the true ones.
    """
    home = folder / f"{person:03d}"
    recording = home / "sequences" / sequence
    recording.mkdir(parents=True, exist_ok=True)
    soundfile.write(recording / "audio.wav", sound, sound_rate, subtype="PCM_16")
    if release == "v1":
        _write_json(home / "camera_params.json", _calibration(rig))
        for serial, matrix in zip(rig.serials, rig.to_true, strict=True):
            path = home / "annotations" / sequence / "color_correction" / f"{serial}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, np.hstack([matrix, np.zeros((3, 1))]))
        for number, seen in zip(numbers, views, strict=True):
            _write_frame(recording / f"frame_{number:05d}", rig, seen)
        return home
    _write_json(home / "calibration" / "camera_params.json", _calibration(rig))
    _write_json(home / "calibration" / "color_calibration.json", dict(zip(rig.serials, rig.to_true.tolist(), strict=True)))
    empty = home / "sequences" / "BACKGROUND"
    empty.mkdir(exist_ok=True)
    (recording / "images").mkdir(exist_ok=True)
    seen_as = np.linalg.inv(rig.to_true)
    with ExitStack() as files:
        writers = []
        for serial, matrix, picture in zip(rig.serials, seen_as, background, strict=True):
            _write_image(empty / f"image_{serial}.jpg", mix(picture, matrix))
            writer = TakeWriter(recording / "images" / f"cam_{serial}.mp4", moments(numbers), crf=12)
            writers.append(files.enter_context(writer))
        for seen in views:
            for writer, matrix, picture in zip(writers, seen_as, seen.pictures, strict=True):
                writer.add(mix(picture, matrix))
    return home


def write_metadata(folder: Path, sequences: dict[int, dict[str, float]]) -> None:
    """Version 2's tables beside the people: which of them has which sequence. ``sequences`` has seconds by name by person."""
    names = sorted({name for held in sequences.values() for name in held})
    _write_table(folder / "metadata_participants.csv", ["id"], [[f"{person:03d}"] for person in sequences])
    rows = [[f"{person:03d}", *("x" if name in held else "" for name in names)] for person, held in sequences.items()]
    _write_table(folder / "metadata_sequences.csv", ["id", *names], rows)


def _calibration(rig: Rig) -> dict[str, Any]:
    """What ``fitting.space.nersemble_cameras`` reads."""
    poses = dict(zip(rig.serials, rig.cameras.world_to_camera.tolist(), strict=True))
    width, height = FULL_SIZE
    return {"world_2_cam": poses, "intrinsics": rig.cameras.intrinsics[0].tolist(), "width": width, "height": height}


def _write_frame(folder: Path, rig: Rig, seen: Views) -> None:
    kinds = ("images-2x-73fps", "alpha_map-73fps", "colmap-73fps/depth_maps_compressed")
    for kind in kinds:
        (folder / kind).mkdir(parents=True, exist_ok=True)
    steps = np.where(seen.depth > 0, np.rint(seen.depth / DEPTH_UNIT) + 1, 0).clip(0, 65535).astype(np.uint16)
    for index, serial in enumerate(rig.serials):
        true_to_seen = np.hstack([np.linalg.inv(rig.to_true[index]), np.zeros((3, 1))])
        maps = (affine(seen.pictures[index], true_to_seen), seen.alpha[index], steps[index])
        for kind, held in zip(kinds, maps, strict=True):
            _write_image(folder / kind / f"cam_{serial}.png", held)


def _write_image(path: Path, held: NDArray[Any]) -> None:
    """A PNG of RGB, grey or 16 bits, or a JPEG; quickly rather than small."""
    options = [cv2.IMWRITE_PNG_COMPRESSION, 1] if path.suffix == ".png" else [cv2.IMWRITE_JPEG_QUALITY, 95]
    if not cv2.imwrite(str(path), held[..., ::-1] if held.ndim == 3 else held, options):
        raise OSError(f"{path} could not be written: is there room, and may the folder be written to?")


def _write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")


def _write_table(path: Path, columns: list[str], rows: list[list[str]]) -> None:
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(columns)
        table.writerows(rows)
