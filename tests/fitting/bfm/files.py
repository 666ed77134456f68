"""Files in the layout of the official ones, filled with random numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import scipy.io
import torch
from safetensors.torch import save_file

from fitting.bfm.reconnet import ReconNet
from tests.fitting.rule_weights import rule_state

FIVE_3D = np.array(
    [
        [-0.31148, 0.29036, 0.13378],
        [0.30979, 0.28972, 0.13179],
        [0.00328, -0.04617, 0.55244],
        [-0.25216, -0.38133, 0.22405],
        [0.24848, -0.38128, 0.22235],
    ]
)
"""The five points that Deep3DFaceRecon aligns to: eyes, nose, mouth corners. Decimetres, y up."""


def bfm_arrays(rows: int = 12, columns: int = 10, seed: int = 0) -> dict[str, np.ndarray]:
    """A curved sheet of ``rows`` × ``columns`` vertices with the keys of ``BFM_model_front.mat``, indices counted from 1."""
    rng = np.random.default_rng(seed)
    n = rows * columns
    vertex = np.arange(n).reshape(rows, columns)
    corners = [vertex[:-1, :-1], vertex[1:, :-1], vertex[1:, 1:], vertex[:-1, 1:]]
    a, b, c, d = (corner.ravel() for corner in corners)
    # Counter-clockwise as seen from +z: rows run down, columns to the right.
    faces = np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])
    around = np.full((n, 8), len(faces))
    for v in range(n):
        touching = np.nonzero((faces == v).any(axis=1))[0]
        around[v, : len(touching)] = touching
    y, x = np.meshgrid(np.linspace(1, -1, rows), np.linspace(-0.8, 0.8, columns), indexing="ij")
    mean = np.stack([x, y, 0.6 - 0.4 * x * x - 0.2 * y * y], axis=-1) + 0.3
    front = np.sort(rng.permutation(n)[: n // 2])
    return {
        "meanshape": mean.reshape(1, -1).astype(np.float32),
        "idBase": rng.normal(0, 0.004, (3 * n, 80)).astype(np.float32),
        "exBase": rng.normal(0, 0.004, (3 * n, 64)).astype(np.float32),
        "meantex": rng.uniform(60, 220, (1, 3 * n)).astype(np.float32),
        "texBase": rng.normal(0, 1, (3 * n, 80)).astype(np.float32),
        "tri": (faces + 1).astype(np.float32),
        "point_buf": (around + 1).astype(np.float32),
        "keypoints": (rng.integers(0, n, (1, 68)) + 1).astype(np.float32),
        "frontmask2_idx": (front[:, None] + 1).astype(np.float32),
        "tri_mask2": (rng.integers(0, len(front), (40, 3)) + 1).astype(np.float32),
        "skinmask": (rng.random((1, n)) < 0.3).astype(np.float32),
    }


def official_bfm_arrays(seed: int = 0) -> dict[str, np.ndarray]:
    """Random numbers in exactly the official shapes: 35709 vertices, 70789 faces."""
    rng = np.random.default_rng(seed)
    n, f = 35709, 70789

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, np.float32)

    def indices(end: int, *shape: int) -> np.ndarray:
        return rng.integers(1, end + 1, shape).astype(np.float32)

    return {
        "meanshape": normal(1, 3 * n),
        "idBase": normal(3 * n, 80),
        "exBase": normal(3 * n, 64),
        "meantex": normal(1, 3 * n),
        "texBase": normal(3 * n, 80),
        "tri": indices(n, f, 3),
        "point_buf": indices(f + 1, n, 8),
        "keypoints": indices(n, 1, 68),
        "frontmask2_idx": (np.sort(rng.permutation(n)[:27660])[:, None] + 1).astype(np.float32),
        "tri_mask2": indices(27660, 54681, 3),
        "skinmask": indices(2, 1, n) - 1,
    }


def write_bfm(folder: Path, arrays: dict[str, np.ndarray] | None = None) -> Path:
    """``BFM_model_front.mat``; a small one unless ``arrays`` are given."""
    path = folder / "BFM_model_front.mat"
    scipy.io.savemat(path, bfm_arrays() if arrays is None else arrays)
    return path


def landmarks3d(seed: int = 0) -> np.ndarray:
    """68 landmarks (68, 3) whose five points are ``FIVE_3D``."""
    landmarks = np.random.default_rng(seed).uniform(-0.6, 0.6, (68, 3))
    landmarks[[36, 39, 42, 45]] = FIVE_3D[[0, 0, 1, 1]] + 0.1 * np.array([[-1, 0, 0], [1, 0, 0], [-1, 0, 0], [1, 0, 0]])
    landmarks[[30, 48, 54]] = FIVE_3D[2:]
    return landmarks.astype(np.float32)


def write_landmarks3d(folder: Path) -> Path:
    """``similarity_Lm3D_all.mat``."""
    path = folder / "similarity_Lm3D_all.mat"
    scipy.io.savemat(path, {"lm": landmarks3d()})
    return path


def reconnet_state(gain: float = 1.0) -> dict[str, torch.Tensor]:
    """Weights for ``ReconNet``, made by the rule."""
    with torch.device("meta"):
        shapes = {key: tuple(value.shape) for key, value in ReconNet().state_dict().items()}
    return rule_state(shapes, gain=gain)


def write_reconnet(folder: Path) -> Path:
    """``epoch_20.pth`` of Deep3DFaceRecon."""
    path = folder / "epoch_20.pth"
    torch.save({"net_recon": reconnet_state(), "opt_00": {"state": {}, "param_groups": []}, "sched_00": {"last_epoch": 20}}, path)
    return path


def write_sadtalker(folder: Path, size: int = 256) -> Path:
    """SadTalker's safetensors: Deep3DFaceRecon's network among others."""
    path = folder / f"SadTalker_V0.0.2_{size}.safetensors"
    others = {"audio2exp.mapping1.weight": torch.zeros(64, 577), "kp_extractor.kp.weight": torch.zeros(15, 32, 3, 3, 3)}
    save_file({**{f"face_3drecon.{key}": value for key, value in reconnet_state().items()}, **others}, path)
    return path


def write_sadtalker_mat(folder: Path, frames: int = 3, columns: int = 73) -> Path:
    """Coefficients as SadTalker stores them."""
    path = folder / "portrait.mat"
    rng = np.random.default_rng(1)
    full = {"full_3dmm": rng.normal(size=(1, 257)).astype(np.float32)} if columns == 73 else {}
    scipy.io.savemat(path, {"coeff_3dmm": rng.normal(size=(frames, columns)).astype(np.float32), **full})
    return path


def write_coefficients_mat(folder: Path, frames: int = 3) -> Path:
    """Coefficients as PIRender and DreamTalk store them."""
    path = folder / "clip.mat"
    rng = np.random.default_rng(2)
    arrays = {"coeff": rng.normal(size=(frames, 257)), "transform_params": rng.uniform(50, 250, (frames, 5))}
    scipy.io.savemat(path, {key: value.astype(np.float32) for key, value in arrays.items()})
    return path
