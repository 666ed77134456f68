"""The answers beside a studio take: what they are, in one table, and the files that hold them.

``<take>.truth.npz`` has what is small; ``<take>.maps.npz`` has a depth, a normal and a label for each pixel. Multi-camera takes
have the maps of depth where NeRSemble's releases have them. Both are plain NumPy archives: ``numpy.load(path)["jaw"]``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fitting.studio.nersemble import depth_steps
from fitting.studio.render import Shot
from manifests.atomic import whole_file


class Answer(NamedTuple):
    """One array of the truth. Letters in a shape are lengths that differ from take to take."""

    dtype: str
    shape: tuple[str | int, ...]
    unit: str
    about: str


LABELS = ("background", "skin", "clothes", "hair", "lips", "mouth", "teeth", "eyes")
"""What ``labels`` counts; "mouth" is its inside."""

TRUTH = {
    "times": Answer("float64", ("T",), "s", "presentation times of the frames"),
    "person": Answer("int64", (), "", "who it is: the same number is the same head, skin, voice and style"),
    "identity": Answer("float64", (300,), "", "code of the head family, unit deviation"),
    "activations": Answer("float64", ("T", 26), "", "the face, in the order of `fitting.studio.controls.EXPRESSIONS`; 1 is full"),
    "jaw": Answer("float64", ("T", 3), "rad", "axis-angle"),
    "neck": Answer("float64", ("T", 3), "rad", "axis-angle"),
    "head": Answer("float64", ("T", 3), "rad", "axis-angle, of the whole about the root joint"),
    "translation": Answer("float64", ("T", 3), "m", "of the whole"),
    "gaze": Answer("float64", ("T", 3), "rad", "axis-angle of both eyes in the head"),
    "flame_expression": Answer(
        "float64", ("T", 100), "", "the face in the FLAME-like files' codes; their identity is `identity`"
    ),
    "bfm_identity": Answer("float64", (80,), "", "of the BFM-like file, the nearest to the family"),
    "bfm_expression": Answer("float64", ("T", 64), "", "of the BFM-like file, the nearest to the family"),
    "bfm_residual_mm": Answer("float64", ("T",), "mm", "mean distance of that nearest one from the family"),
    "nphm_identity": Answer("float64", (1344,), "", "of the NPHM-like networks"),
    "nphm_expression": Answer("float64", ("T", 200), "", "of the NPHM-like networks"),
    "vertices": Answer("float32", ("T", "V", 3), "m", "of the large FLAME-like mesh, in the world"),
    "landmarks68": Answer("float64", ("T", 68, 3), "m", "in the world, iBUG's order"),
    "landmarks68_image": Answer("float64", ("C", "T", 68, 2), "px", "in each camera's image, centres of pixels at 0.5"),
    "landmarks68_visible": Answer("bool", ("C", "T", 68), "", "whether the camera sees the point, or something hides it"),
    "mouth_opening_mm": Answer("float64", ("T",), "mm", "between the middles of the inner lips"),
    "eye_opening_mm": Answer("float64", ("T", 2), "mm", "between the middles of the lids, left and right eye"),
    "blink": Answer("float64", ("T", 2), "", "0 is open, 1 is shut; left and right eye"),
    "intrinsics": Answer("float64", ("C", 3, 3), "px", "for the size of the written images"),
    "world_to_camera": Answer("float64", ("C", 4, 4), "m", "OpenCV's axes; the world is FLAME's space at rest"),
    "lighting": Answer("float64", ("T", 27), "", "for `fitting.lighting.shade`, on normals in the world and linear albedo"),
    "phonemes": Answer("str", ("P",), "", "symbols of `fitting.studio.phonemes`, silences too"),
    "phoneme_times": Answer("float64", ("P", 2), "s", "start and end of each"),
    "sound_clean": Answer("float32", ("S",), "", "the voice without the noise that was added, -1 to 1"),
}
"""Of every take, in ``.truth.npz``. T frames, C cameras, V vertices, P phonemes, S samples."""

MAPS = {
    "depth": Answer("uint16", ("T", "H", "W"), "m / 32767", "along the optical axis, counted from 1; 0 is no depth"),
    "normals": Answer("int8", ("T", "H", "W", 3), "1 / 127", "unit normals in the camera's axes; 0 where there is none"),
    "labels": Answer("uint8", ("T", "H", "W"), "", "number in `LABELS`: " + ", ".join(LABELS)),
}
"""Of takes with one camera, in ``.maps.npz``; with sixteen, of one frame, with cameras in the place of frames."""


def save_answers(path: Path, answers: Mapping[str, Any], table: Mapping[str, Answer] = TRUTH) -> None:
    """Write all arrays of a ``table`` whole or not at all; the same arrays give the same bytes.

    Raises ``ValueError`` when one is missing, unknown, of another shape or dtype, or when equal letters have unequal lengths.
    """
    missing, unknown = set(table) - set(answers), set(answers) - set(table)
    if missing or unknown:
        raise ValueError(f"{path}: answers missing {sorted(missing)}, unknown {sorted(unknown)}")
    lengths: dict[str, int] = {}
    arrays: dict[str, NDArray[Any]] = {}
    for name, answer in table.items():
        array = np.asarray(answers[name])
        fits = array.dtype.kind == "U" if answer.dtype == "str" else array.dtype == answer.dtype
        of_letters = zip(answer.shape, array.shape, strict=False)
        fits &= array.ndim == len(answer.shape) and all(
            have == (lengths.setdefault(want, have) if isinstance(want, str) else want) for want, have in of_letters
        )
        if not fits:
            wanted = f"{answer.dtype} {answer.shape}, {lengths}"
            raise ValueError(f"{path}: {name} is {array.dtype} {array.shape} instead of {wanted}")
        arrays[name] = array
    with whole_file(path) as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def map_arrays(shot: Shot) -> dict[str, NDArray[Any]]:
    """The maps of a shot as ``MAPS`` stores them."""
    return {
        "depth": depth_steps(shot.depth),
        "normals": np.rint(127 * shot.normals).astype(np.int8),
        "labels": shot.labels,
    }


def reference() -> str:
    """The tables of the documentation, in Markdown."""
    rows = []
    for file, table in ((".truth.npz", TRUTH), (".maps.npz", MAPS)):
        rows += [f"| in `{file}` | type | shape | unit | |", "| --- | --- | --- | --- | --- |"]
        for name, answer in table.items():
            shape = " × ".join(map(str, answer.shape)) or "one"
            rows.append(f"| `{name}` | {answer.dtype} | {shape} | {answer.unit} | {answer.about} |")
        rows.append("")
    return "\n".join(rows)
