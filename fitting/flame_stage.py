"""The stage that fits FLAME to the clouds of a clip. Torch is imported when it runs, not when stages are listed."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from manifests.assets import find
from manifests.stage import Done, Needs, Outcome, Rejected, Stage


class FlameSequence(Stage):
    """FLAME for all frames of a clip together (FaceTalk, supplement D), and with it the way to NPHM's space.

    ``method`` ``adam`` is the paper's 2500 steps, ``gauss_newton`` gets there sooner; see ``docs/flame_fit.md``. Rejects clips
    without a landmark to begin with.
    """

    name: ClassVar[str] = "flame"
    version: ClassVar[int] = 2
    needs: ClassVar[Needs] = Needs(memory_mb=3000, grace_s=1800, patience=3600, pace=60.0, bytes_per_s=30_000)
    writes: ClassVar[tuple[str, ...]] = (
        "flame_identity",
        "flame_expression",
        "flame_jaw",
        "flame_rotation",
        "flame_translation",
        "flame_scale",
        "flame_residual_mm",
        "flame_inliers",
        "flame_error_mm",
        "flame_inlier_share",
        "world_to_flame",
    )

    method: Literal["gauss_newton", "adam"] = "gauss_newton"

    def models(self) -> tuple[str, ...]:
        return ("flame2020", "flame-masks", "flame-landmarks")

    def run(
        self,
        cloud_points: np.ndarray,
        cloud_normals: np.ndarray,
        cloud_colours: np.ndarray,
        cloud_views: np.ndarray,
        cloud_counts: np.ndarray,
        landmarks3d: np.ndarray,
        landmarks3d_valid: np.ndarray,
    ) -> Outcome:
        import torch

        from fitting.flame import Flame
        from fitting.flame_fit import Settings, fit_sequence
        from fitting.stereo.moments import from_columns

        valid = torch.from_numpy(landmarks3d_valid.astype(bool))
        if not bool((valid.sum(dim=1) >= _ENOUGH).any()):
            return Rejected("no frame has landmarks to begin with")
        clouds = from_columns(cloud_points, cloud_normals, cloud_colours, cloud_views, cloud_counts)
        flame = Flame.load(find("flame2020"))
        places = torch.from_numpy(np.nan_to_num(landmarks3d)).double()
        fit = fit_sequence(flame, clouds, places, valid, settings=Settings(method=self.method))
        return Done(
            {
                "flame_identity": fit.identity.numpy(),
                "flame_expression": fit.expression.numpy(),
                "flame_jaw": fit.jaw.numpy(),
                "flame_rotation": fit.rotation.numpy(),
                "flame_translation": fit.translation.numpy(),
                "flame_scale": float(fit.scale),
                "flame_residual_mm": fit.residual_mm.numpy(),
                "flame_inliers": fit.inliers.numpy(),
                "flame_error_mm": float(fit.residual_mm.nanmean()),
                "flame_inlier_share": float(fit.inliers.mean()),
                "world_to_flame": fit.similarity.inverse().matrix().numpy(),
            }
        )


_ENOUGH = 6
"""Landmarks of a frame that fix where a head is."""
