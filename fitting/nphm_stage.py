"""The stage that fits NPHM's expression codes to the clouds of a clip. Torch is imported when it runs."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import Field

from manifests.assets import find
from manifests.stage import Done, Needs, Outcome, Partial, Rejected, Stage

if TYPE_CHECKING:
    from torch import Tensor

    from fitting.nphm_fit import Window

CODE_SIZE = 1344


class NphmExpression(Stage):
    """NPHM expression codes of a clip, for a person whose identity code is known (FaceTalk, §5; ``docs/nphm_fit.md``).

    ``identities`` is a folder with ``<person>.npy``, (1344,) each: the person is that of the source manifest. Points count that
    lie within ``reach_mm`` of FLAME's face as it was fitted: hair, throat and shoulders are no expression. Each window is kept
    as it is done: work that was ended goes on to the same codes. Rejects clips of people without a code.
    """

    name: ClassVar[str] = "nphm"
    version: ClassVar[int] = 1
    needs: ClassVar[Needs] = Needs(memory_mb=4000, grace_s=3600, patience=36_000, pace=600.0, bytes_per_s=30_000)
    writes: ClassVar[tuple[str, ...]] = (
        "nphm_identity",
        "nphm_expression",
        "nphm_residual_mm",
        "nphm_inliers",
        "nphm_converged",
        "nphm_error_mm",
        "jitter_mae",
        "jitter_rmse",
        "jitter_autocorrelation",
    )

    identities: Path
    composition: Literal["backward", "forward"] = "backward"
    method: Literal["gauss_newton", "adam"] = "gauss_newton"
    window: int = Field(default=10, ge=1)
    overlap: int = Field(default=2, ge=0)
    points: int = Field(default=5000, ge=10)
    temporal: float = Field(default=0.1, ge=0)
    reach_mm: float = Field(default=8.0, gt=0)

    def models(self) -> tuple[str, ...]:
        network = "nphm-backward" if self.composition == "backward" else "nphm-expression"
        return ("nphm-identity", "nphm-anchors", network, "flame2020", "flame-masks")

    def files(self) -> tuple[Path, ...]:
        return tuple(sorted(self.identities.glob("*.npy")))

    def run(
        self,
        person: str,
        cloud_points: np.ndarray,
        cloud_counts: np.ndarray,
        flame_identity: np.ndarray,
        flame_expression: np.ndarray,
        flame_jaw: np.ndarray,
        world_to_nphm: np.ndarray,
        partial: Partial,
    ) -> Outcome:
        import torch

        from fitting.nphm import Nphm, load_expression, load_identity
        from fitting.nphm_fit import Sequence, Settings, fit_sequences

        code = _identity_code(self.identities, person)
        if code is None:
            return Rejected("no identity code of the person", message=f"{person or 'unnamed'}.npy is not in {self.identities}")
        network = "nphm-backward" if self.composition == "backward" else "nphm-expression"
        head = Nphm(load_identity(find("nphm-identity"), find("nphm-anchors")), load_expression(find(network), self.composition))
        subjects = head.subject(torch.from_numpy(code)[None])
        face = _face(flame_identity, flame_expression, flame_jaw)
        clouds = _near_faces(cloud_points, cloud_counts, world_to_nphm, face, 0.004 * self.reach_mm)
        settings = Settings(
            method=self.method, window=self.window, overlap=self.overlap, points=self.points, temporal=self.temporal
        )
        known = {}
        for first in range(len(clouds)):
            kept = partial.read(f"window{first}.npy")
            if kept is not None:
                known[0, first] = torch.from_numpy(np.load(io.BytesIO(kept)))

        def keep(_: int, window: Window, codes: Tensor) -> None:
            file = io.BytesIO()
            np.save(file, codes.numpy())
            partial.write(f"window{window.first}.npy", file.getvalue())

        (fit,) = fit_sequences(head, subjects, [Sequence(clouds, 0)], settings, known, keep)
        jitter = fit.jitter
        return Done(
            {
                "nphm_identity": code,
                "nphm_expression": fit.codes.numpy(),
                "nphm_residual_mm": fit.residual_mm.numpy(),
                "nphm_inliers": fit.inlier_share.numpy(),
                "nphm_converged": fit.converged_share.numpy(),
                "nphm_error_mm": float(fit.residual_mm.nanmean()),
                "jitter_mae": jitter.mae,
                "jitter_rmse": jitter.rmse,
                "jitter_autocorrelation": jitter.autocorrelation,
            }
        )


def _identity_code(folder: Path, person: str) -> np.ndarray | None:
    path = folder / f"{person}.npy"
    if not person or not path.is_file():
        return None
    code: np.ndarray = np.asarray(np.load(path, allow_pickle=False), np.float32).reshape(-1)
    if code.shape != (CODE_SIZE,):
        raise ValueError(f"{path} holds {code.size} numbers, an identity code has {CODE_SIZE}")
    return code


def _face(identity: np.ndarray, expression: np.ndarray, jaw: np.ndarray) -> list[np.ndarray]:
    """Vertices of FLAME's face in each frame, in NPHM's space."""
    import torch

    from fitting.flame import Flame, load_regions

    flame = Flame.load(find("flame2020"))
    region = load_regions(find("flame-masks"))["face"]
    with torch.no_grad():
        turned = torch.from_numpy(jaw) if flame.has_jaw else None
        posed = flame(torch.from_numpy(identity)[None], torch.from_numpy(expression), jaw=turned).vertices
    return [4 * frame[region].numpy() for frame in posed]


def _near_faces(
    points: np.ndarray, counts: np.ndarray, world_to_nphm: np.ndarray, faces: list[np.ndarray], reach: float
) -> list[Tensor]:
    """The clouds in NPHM's space, of each only what is within ``reach`` of a vertex of the face."""
    import torch
    from scipy.spatial import cKDTree

    ends = np.cumsum(counts)
    clouds = []
    for count, end, matrix, face in zip(counts, ends, world_to_nphm.astype(np.float64), faces, strict=True):
        own = points[end - count : end] @ matrix[:3, :3].T + matrix[:3, 3]
        near = cKDTree(face).query(own, distance_upper_bound=reach)[0] < np.inf if len(own) else np.zeros(0, bool)
        clouds.append(torch.from_numpy(own[near].astype(np.float32)))
    return clouds
