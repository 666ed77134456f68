"""The stage that fits NPHM's expression codes to the clouds of a clip. Torch is imported when it runs."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import Field

from fitting.nphm_networks import Composition, load_networks, network_files
from manifests.stage import Done, Needs, Outcome, Partial, Stage
from prep.device import GPU_SHARE, Device, device_of

if TYPE_CHECKING:
    from torch import Tensor

    from fitting.nphm_fit import Window


class NphmExpression(Stage):
    """NPHM expression codes of a clip, for a person whose identity code is known (FaceTalk, §5; ``docs/nphm_fit.md``).

    Points count that lie within ``reach_mm`` of FLAME's face as it was fitted, in front of the throat: hair and shoulders are no
    expression. ``iterations`` are Adam's. ``regularization`` is λ_reg, the paper's for the paper's networks: with networks of
    smaller codes it lets them drift along what does not show. Each window is kept as it is done: work that was ended goes on to
    the same codes.
    """

    name: ClassVar[str] = "nphm"
    version: ClassVar[int] = 3
    needs: ClassVar[Needs] = Needs(memory_mb=4000, grace_s=3600, patience=36_000, pace=600.0, bytes_per_s=30_000)
    writes: ClassVar[tuple[str, ...]] = (
        "nphm_expression",
        "nphm_residual_mm",
        "nphm_inliers",
        "nphm_converged",
        "nphm_error_mm",
        "nphm_inlier_share",
        "jitter_mae",
        "jitter_rmse",
        "jitter_autocorrelation",
    )

    composition: Composition = "backward"
    device: Device = "cpu"
    method: Literal["gauss_newton", "adam"] = "gauss_newton"
    iterations: int = Field(default=500, ge=1)
    window: int = Field(default=10, ge=1)
    overlap: int = Field(default=2, ge=0)
    points: int = Field(default=5000, ge=10)
    temporal: float = Field(default=0.1, ge=0)
    regularization: float = Field(default=0.0025, ge=0)
    reach_mm: float = Field(default=8.0, gt=0)

    def gpus(self) -> float:
        return GPU_SHARE if self.device == "cuda" else 0.0

    def models(self) -> tuple[str, ...]:
        return (*network_files(self.composition), "flame2020", "flame-masks")

    def run(
        self,
        nphm_identity: np.ndarray,
        cloud_points: np.ndarray,
        cloud_counts: np.ndarray,
        flame_identity: np.ndarray,
        flame_expression: np.ndarray,
        flame_jaw: np.ndarray,
        world_to_flame: np.ndarray,
        world_to_nphm: np.ndarray,
        partial: Partial,
    ) -> Outcome:
        import torch

        from fitting.nphm_clouds import fitted_head, head_clouds
        from fitting.nphm_fit import Sequence, Settings, fit_sequences

        device = device_of(self.device)
        head = load_networks(self.composition).to(device)
        subjects = head.subject(torch.from_numpy(np.array(nphm_identity, np.float32))[None].to(device))
        flame = fitted_head(flame_identity, flame_expression, flame_jaw)
        seen = head_clouds(cloud_points, cloud_counts, world_to_flame, flame, self.reach_mm, world_to_nphm=world_to_nphm)
        clouds = [cloud.to(device) for cloud in seen]
        settings = Settings(
            method=self.method,
            iterations=self.iterations,
            window=self.window,
            overlap=self.overlap,
            points=self.points,
            temporal=self.temporal,
            regularization=self.regularization,
        )
        known = {}
        for first in range(len(clouds)):
            kept = partial.read(f"window{first}.npy")
            if kept is not None:
                known[0, first] = torch.from_numpy(np.load(io.BytesIO(kept)))

        def keep(_: int, window: Window, codes: Tensor) -> None:
            file = io.BytesIO()
            np.save(file, codes.cpu().numpy())
            partial.write(f"window{window.first}.npy", file.getvalue())

        (fit,) = fit_sequences(head, subjects, [Sequence(clouds, 0)], settings, known, keep)
        jitter = fit.jitter
        return Done(
            {
                "nphm_expression": fit.codes.cpu().numpy(),
                "nphm_residual_mm": fit.residual_mm.cpu().numpy(),
                "nphm_inliers": fit.inlier_share.cpu().numpy(),
                "nphm_converged": fit.converged_share.cpu().numpy(),
                "nphm_error_mm": float(fit.residual_mm.nanmean()),
                "nphm_inlier_share": float(fit.inlier_share.mean()),
                "jitter_mae": jitter.mae,
                "jitter_rmse": jitter.rmse,
                "jitter_autocorrelation": jitter.autocorrelation,
            }
        )
