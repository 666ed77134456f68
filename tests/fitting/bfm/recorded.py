"""Numbers recorded from the published code (sicxu/Deep3DFaceRecon_pytorch @ 9167c71), and the random model they belong to."""

from __future__ import annotations

from pathlib import Path

import numpy as np

RECORDED = np.load(Path(__file__).with_name("recorded.npz"))


def recorded_model() -> dict[str, np.ndarray]:
    """The model as the arrays of its ``.mat``. Rows of the bases that no recorded number depends on are left 0."""
    n = RECORDED["model_meanshape"].size // 3
    arrays = {
        key: RECORDED[f"model_{key}"].astype(np.float32)
        for key in ("meanshape", "meantex", "tri", "point_buf", "keypoints", "frontmask2_idx", "skinmask")
    }
    # What the published code does with these faces is not recorded: a few of our own.
    arrays["tri_mask2"] = np.array([[1, 2, 3], [300, 299, 298]], np.float32)
    for key, rows in (("idBase", "model_rows"), ("exBase", "model_rows"), ("texBase", "model_normal_rows")):
        basis = np.zeros((n, *RECORDED[f"model_{key}"].shape[1:]), np.float32)
        basis[RECORDED[rows]] = RECORDED[f"model_{key}"]
        arrays[key] = basis.reshape(3 * n, -1)
    return arrays
