"""A file for every head-model asset, with the official keys and shapes and random numbers, under its official name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.fitting.bfm import files as bfm
from tests.fitting.flame import files as flame
from tests.fitting.nphm import files as nphm
from tests.fitting.nphm import mono_files as mono
from tests.prep import face_parsing_file

WRITERS: dict[str, Callable[[Path], Path]] = {
    "face-parsing": face_parsing_file.write_face_parsing,
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
    "nphm-identity": nphm.write_identity,
    "nphm-expression": nphm.write_expression,
    "nphm-backward": lambda folder: nphm.write_expression(folder, "nphm_backward.tar"),
    "nphm-anchors": nphm.write_anchors,
    "nphm-code-mean": lambda folder: nphm.write_statistics(folder)[0],
    "nphm-code-std": lambda folder: nphm.write_statistics(folder)[1],
    "mononphm": mono.write_mononphm,
    "mononphm-anchors": mono.write_mononphm_anchors,
}
