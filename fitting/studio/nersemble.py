"""Writing a multi-camera recording as NeRSemble's two releases lay theirs out, so that one loader reads both.

Version 1, that of the paper, has a folder of PNG files for each frame, alpha maps and COLMAP's depth; version 2 has one mp4
for each camera. Times are frames of 73 a second, of which every third is kept, at its true time. Two things that the releases
do not tell are the studio's own: sound lies in ``sequences/<SEQUENCE>/audio.wav``, and ``camera_params.json`` says the ``width``
and ``height`` that its intrinsics are for.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np
import soundfile
from numpy.typing import NDArray

from fitting.studio.rig import Rig
from manifests.atomic import whole_file, write_whole
from manifests.source import STAND_IN
from prep.capture import DEPTH_STEPS, NERSEMBLE_RATE, NERSEMBLE_SIZE
from prep.colour import affine, mix
from prep.write import TakeWriter

KEPT = 3
"""Every third frame is kept."""

DEPTH_UNIT = 1 / DEPTH_STEPS
"""Metres in a step of a depth map, which are counted from 1; 0 is no depth."""

Release = Literal["v1", "v2"]


class View(NamedTuple):
    """One moment as one camera sees it, in true colours."""

    picture: NDArray[np.uint8]
    """(H, W, 3) RGB."""
    alpha: NDArray[np.uint8]
    """(H, W) 255 on the person."""
    depth: NDArray[np.float32]
    """(H, W) metres along the optical axis, 0 where there is nothing."""


def depth_steps(depth: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Depth in metres, 0 for none, as NeRSemble stores it."""
    return np.where(depth > 0, np.rint(depth / DEPTH_UNIT) + 1, 0).clip(0, 65535).astype(np.uint16)


def frame_numbers(seconds: float) -> range:
    """Which of the 73 frames a second are kept of so many seconds."""
    return range(0, int(seconds * NERSEMBLE_RATE), KEPT)


def moments(numbers: range) -> list[Fraction]:
    """Seconds of these frames."""
    return [Fraction(number, NERSEMBLE_RATE) for number in numbers]


def begin_sequence(
    folder: Path, person: int, sequence: str, rig: Rig, sound: NDArray[np.float32], sound_rate: int, release: Release = "v2"
) -> Path:
    """Write a person's calibration and the sound of one of its sequences; returns the person's folder, ``folder/<person>``."""
    home = folder / f"{person:03d}"
    recording = home / "sequences" / sequence
    recording.mkdir(parents=True, exist_ok=True)
    with whole_file(recording / "audio.wav") as file:
        soundfile.write(file, sound, sound_rate, subtype="PCM_16", format="WAV")
    if release == "v1":
        _write_json(home / "camera_params.json", _calibration(rig))
        for serial, matrix in zip(rig.serials, rig.to_true, strict=True):
            with whole_file(home / "annotations" / sequence / "color_correction" / f"{serial}.npy") as file:
                np.save(file, np.hstack([matrix, np.zeros((3, 1))]))
        return home
    _write_json(home / "calibration" / "camera_params.json", _calibration(rig))
    _write_json(home / "calibration" / "color_calibration.json", dict(zip(rig.serials, rig.to_true.tolist(), strict=True)))
    return home


def write_camera(
    home: Path,
    sequence: str,
    rig: Rig,
    camera: int,
    numbers: range,
    views: Iterator[View],
    background: NDArray[np.uint8],
    release: Release = "v2",
) -> None:
    """Write what one ``camera`` of the rig saw in a sequence that was begun, in the person's folder ``home``.

    ``views`` gives what it sees at each of the frames ``numbers``; ``background`` (H, W, 3) is what it sees with nobody there
    (version 2 only). Colours are written as the camera would see them: its calibration brings them back to the true ones.
    """
    recording, serial = home / "sequences" / sequence, rig.serials[camera]
    seen_as = np.linalg.inv(rig.to_true[camera])
    if release == "v1":
        for number, view in zip(numbers, views, strict=True):
            _write_frame(recording / f"frame_{number:05d}", serial, seen_as, view)
        return
    _write_image(home / "sequences" / "BACKGROUND" / f"image_{serial}.jpg", mix(background, seen_as))
    (recording / "images").mkdir(parents=True, exist_ok=True)
    with TakeWriter(recording / "images" / f"cam_{serial}.mp4", moments(numbers), crf=12) as writer:
        for view in views:
            writer.add(mix(view.picture, seen_as))


def write_metadata(folder: Path, sequences: dict[int, list[str]]) -> None:
    """Version 2's tables beside the people: which of them has which sequence. ``sequences`` has their names by person."""
    names = sorted({name for held in sequences.values() for name in held})
    _write_table(folder / "metadata_participants.csv", ["id"], [[f"{person:03d}"] for person in sequences])
    rows = [[f"{person:03d}", *("x" if name in held else "" for name in names)] for person, held in sequences.items()]
    _write_table(folder / "metadata_sequences.csv", ["id", *names], rows)


def _calibration(rig: Rig) -> dict[str, Any]:
    """What ``fitting.space.nersemble_cameras`` reads."""
    poses = dict(zip(rig.serials, rig.cameras.world_to_camera.tolist(), strict=True))
    width, height = NERSEMBLE_SIZE
    intrinsics = rig.cameras.intrinsics[0].tolist()
    return {"world_2_cam": poses, "intrinsics": intrinsics, "width": width, "height": height, "comment": STAND_IN}


def _write_frame(folder: Path, serial: str, seen_as: NDArray[np.float64], view: View) -> None:
    maps: dict[str, NDArray[Any]] = {
        "images-2x-73fps": affine(view.picture, np.hstack([seen_as, np.zeros((3, 1))])),
        "alpha_map-73fps": view.alpha,
        "colmap-73fps/depth_maps_compressed": depth_steps(view.depth),
    }
    for kind, held in maps.items():
        _write_image(folder / kind / f"cam_{serial}.png", held)


def _write_image(path: Path, held: NDArray[Any]) -> None:
    """A PNG of RGB, grey or 16 bits, or a JPEG; quickly rather than small."""
    options = [cv2.IMWRITE_PNG_COMPRESSION, 1] if path.suffix == ".png" else [cv2.IMWRITE_JPEG_QUALITY, 95]
    written, data = cv2.imencode(path.suffix, held[..., ::-1] if held.ndim == 3 else held, options)
    if not written:
        raise ValueError(f"{path}: OpenCV cannot write {held.dtype} {held.shape} so")
    write_whole(path, data.tobytes())


def _write_json(path: Path, content: Any) -> None:
    write_whole(path, (json.dumps(content, indent=1) + "\n").encode())


def _write_table(path: Path, columns: list[str], rows: list[list[str]]) -> None:
    table = io.StringIO()
    csv.writer(table).writerows([columns, *rows])
    write_whole(path, table.getvalue().encode())
