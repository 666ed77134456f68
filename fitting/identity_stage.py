"""The stage that gives a clip its person's NPHM identity code: a known one, or one fitted. Torch is imported when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from fitting.nphm_networks import Composition, load_networks, network_files
from manifests.assets import find
from manifests.stage import Done, Needs, Outcome, Rejected, Stage
from prep.device import GPU_SHARE, Device, device_of

CODE_SIZE = 1344


class NphmIdentity(Stage):
    """NPHM's identity code of a clip's person, and where NPHM's head is in the clip (``docs/facetalk_data.md``).

    ``identities`` is a folder with ``<person>.npy``, (1344,) or the published (1, 1, 1344): the person is that of the source
    manifest. A code that is there is taken. Where there is none, one is fitted to the clip's ``frames`` most neutral frames, or,
    with ``missing`` ``reject``, the clip is set aside. Where FLAME's fit puts the head is corrected by a similarity, the same in
    all frames, that brings those frames' clouds onto NPHM's surface. Points count that lie within ``reach_mm`` of the head as
    FLAME was fitted.
    """

    name: ClassVar[str] = "identity"
    version: ClassVar[int] = 1
    needs: ClassVar[Needs] = Needs(memory_mb=2000, grace_s=7200, patience=60.0, pace=10.0, bytes_per_s=1000)
    writes: ClassVar[tuple[str, ...]] = ("nphm_identity", "world_to_nphm", "nphm_identity_error_mm", "nphm_identity_given")

    identities: Path | None = None
    missing: Literal["fit", "reject"] = "fit"
    composition: Composition = "backward"
    device: Device = "cpu"
    frames: int = Field(default=5, ge=1)
    iterations: int = Field(default=120, ge=1)
    points: int = Field(default=400, ge=10)
    reach_mm: float = Field(default=20.0, gt=0)

    def gpus(self) -> float:
        return GPU_SHARE if self.device == "cuda" else 0.0

    def models(self) -> tuple[str, ...]:
        return (*network_files(self.composition), "nphm-code-mean", "nphm-code-std", "flame2020", "flame-masks")

    def files(self) -> tuple[Path, ...]:
        return tuple(sorted(self.identities.glob("*.npy"))) if self.identities else ()

    def run(
        self,
        person: str,
        cloud_points: np.ndarray,
        cloud_counts: np.ndarray,
        flame_identity: np.ndarray,
        flame_expression: np.ndarray,
        flame_jaw: np.ndarray,
        world_to_flame: np.ndarray,
    ) -> Outcome:
        import torch

        from fitting.nphm import load_code_statistic
        from fitting.nphm_clouds import fitted_head, head_clouds, neutral_frames
        from fitting.nphm_fit import IdentitySettings, fit_identity
        from fitting.similarity import Similarity
        from fitting.space import FLAME_TO_NPHM

        given = None if self.identities is None else _code_of(self.identities, person)
        if given is None and self.missing == "reject":
            where = "no folder of identities was given"
            if self.identities is not None:
                where = f"{person or 'unnamed'}.npy is not in {self.identities}"
            return Rejected("no identity code of the person", message=where)
        device = device_of(self.device)
        head = load_networks(self.composition).to(device)
        statistics = load_code_statistic(find("nphm-code-mean")), load_code_statistic(find("nphm-code-std"))
        chosen = neutral_frames(flame_expression, flame_jaw, np.asarray(cloud_counts), self.frames)
        flame = fitted_head(flame_identity, flame_expression, flame_jaw)
        seen = head_clouds(cloud_points, cloud_counts, world_to_flame, flame, self.reach_mm, "head", chosen)
        clouds = [cloud.to(device) for cloud in seen]
        if not any(map(len, clouds)):
            return Rejected("no points of the head in neutral frames")
        settings = IdentitySettings(iterations=self.iterations, points=self.points)
        known = None if given is None else torch.from_numpy(given)
        fit = fit_identity(head, clouds, settings, statistics, known)
        by_flame = FLAME_TO_NPHM.compose(Similarity.from_matrix(torch.from_numpy(world_to_flame)))
        return Done(
            {
                "nphm_identity": fit.code.cpu().numpy(),
                "world_to_nphm": Similarity(*(part.cpu() for part in fit.placement)).compose(by_flame).matrix().numpy(),
                "nphm_identity_error_mm": float(fit.residual_mm.nanmean()),
                "nphm_identity_given": int(given is not None),
            }
        )


def _code_of(folder: Path, person: str) -> np.ndarray | None:
    path = folder / f"{person}.npy"
    if not person or not path.is_file():
        return None
    code: np.ndarray = np.asarray(np.load(path, allow_pickle=False), np.float32).reshape(-1)
    if code.shape != (CODE_SIZE,):
        raise ValueError(f"{path} holds {code.size} numbers, an identity code has {CODE_SIZE}")
    return code
