"""A file for every head-model asset, with the official keys and shapes and random numbers, under its official name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.fitting.bfm import files as bfm
from tests.fitting.flame import files as flame


def _array(name: str, *shape: int) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        np.save(folder / name, np.random.default_rng(0).normal(0, 0.1, shape))
        return folder / name

    return write


WRITERS: dict[str, Callable[[Path], Path]] = {
    "flame2020": lambda folder: flame.write_model(folder / "generic_model.pkl"),
    "flame2020-female": lambda folder: flame.write_model(folder / "female_model.pkl"),
    "flame2020-male": lambda folder: flame.write_model(folder / "male_model.pkl"),
    "flame2023": lambda folder: flame.write_model(folder / "flame2023.pkl"),
    "flame2023-no-jaw": lambda folder: flame.write_model(folder / "flame2023_no_jaw.pkl", jaw=False),
    "flame-masks": lambda folder: flame.write_regions(folder / "FLAME_masks.pkl"),
    "flame-landmarks": lambda folder: flame.write_landmarks(folder / "landmark_embedding.npy"),
    "flame-landmarks-static": lambda folder: flame.write_ringnet(folder)[0],
    "flame-landmarks-contour": lambda folder: flame.write_ringnet(folder)[1],
    "flame-landmarks-mediapipe": lambda folder: flame.write_mediapipe(folder / "mediapipe_landmark_embedding.npz"),
    "flame-eyelid-left": lambda folder: flame.write_eyelids(folder)[0],
    "flame-eyelid-right": lambda folder: flame.write_eyelids(folder)[1],
    "bfm": lambda folder: bfm.write_bfm(folder, bfm.official_bfm_arrays()),
    "bfm-landmarks": bfm.write_landmarks3d,
    "deep3d": bfm.write_reconnet,
    "sadtalker-256": lambda folder: bfm.write_sadtalker(folder, 256),
    "sadtalker-512": lambda folder: bfm.write_sadtalker(folder, 512),
    "nphm-anchors": _array("anchors_39.npy", 39, 3),
    "nphm-code-mean": _array("nphm_lat_mean.npy", 1344),
    "nphm-code-std": _array("nphm_lat_std.npy", 1344),
    "mononphm-anchors": _array("anchors_65.npy", 65, 3),
}
