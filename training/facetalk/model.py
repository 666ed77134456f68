"""FaceTalk: speech to expression codes by latent diffusion (Aneja et al. 2024, section 4). docs/facetalk.md is the guide."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from manifests.training import Window
from training import metrics
from training.draws import Draws
from training.facetalk.conditions import condition_of
from training.facetalk.curves import curves
from training.facetalk.decoder import Decoder
from training.facetalk.diffusion import Overlap, cosine_schedule, denoise, noised
from training.facetalk.mouth import MeanHead, landmark_opening
from training.facetalk.settings import FaceTalkSettings, Sampling, Target
from training.facetalk.statistics import Moments
from training.model import Batch, Losses, Model, Needs, Update

COLUMNS: dict[Target, dict[str, int]] = {
    "nphm": {"nphm_expression": 200},
    "flame": {"flame_expression": 100, "flame_jaw": 3},
}
"""Columns that make up a frame's codes, in their order, and their widths."""

POSED, POSED_OF_A_CLIP = 1024, 16
"""Frames of training codes that the networks pose, before step 0, and how many of a clip."""


class FaceTalk(Model):
    """Codes are handed in and out as the columns have them; inside they are standardised: less their mean, over one scale."""

    Settings: ClassVar[type[FaceTalkSettings]] = FaceTalkSettings
    settings: FaceTalkSettings
    mean: Tensor
    """(D,) of codes."""
    scale: Tensor
    """() root of the mean variance of a code's numbers."""
    heard_mean: Tensor
    """(F,) of the condition."""
    heard_scale: Tensor
    """(F,) standard deviations of the condition."""
    readout: Tensor
    """(D,) a linear measure of codes that figures and pictures show: the mouth's opening, or else the strongest direction."""

    @classmethod
    def needs(cls, settings: FaceTalkSettings) -> Needs:
        condition = condition_of(settings.condition)
        columns = (*COLUMNS[settings.target], *condition.columns, *(("landmarks3d",) if settings.mouth == "landmarks" else ()))
        window = Window(length=settings.window, context=(condition.context, condition.context), edge="clamp")
        return Needs(tuple(dict.fromkeys(columns)), window)

    def __init__(self, settings: FaceTalkSettings, fps: tuple[int, int]) -> None:
        super().__init__(settings, fps)
        self.condition = condition_of(settings.condition)
        self.width = sum(COLUMNS[settings.target].values())
        self.decoder = Decoder(settings, self.width, self.condition.width)
        self.shares = cosine_schedule(settings.steps)
        for name, value in (("mean", torch.zeros(self.width)), ("scale", torch.ones(())), ("readout", torch.zeros(self.width))):
            self.register_buffer(name, value)
        self.register_buffer("heard_mean", torch.zeros(self.condition.width))
        self.register_buffer("heard_scale", torch.ones(self.condition.width))

    def prepare(self, clips: Iterable[Mapping[str, Any]]) -> None:
        """One pass over whole clips: means and scales of codes and condition, and the linear measure that figures show."""
        codes, heard, both = Moments(self.width), Moments(self.condition.width), Moments(self.width + 1)
        head = MeanHead() if self.settings.mouth == "networks" else None
        for clip in clips:
            told = np.concatenate([clip[name] for name in COLUMNS[self.settings.target]], axis=-1)
            codes.add(told)
            heard.add(self.condition.whole(clip, len(told), self.fps).numpy())
            if self.settings.mouth == "landmarks":
                both.add(np.concatenate([told, landmark_opening(clip["landmarks3d"])[:, None]], axis=-1))
            elif head and both.count < POSED:
                some = told[:: max(1, len(told) // POSED_OF_A_CLIP)]
                both.add(np.concatenate([some, head.opening(torch.from_numpy(some))[:, None]], axis=-1))
        found = {
            "mean": codes.mean,
            "scale": np.sqrt(np.trace(codes.covariance) / self.width) + 1e-8,
            "heard_mean": heard.mean,
            "heard_scale": np.sqrt(np.diag(heard.covariance).clip(0)) + 1e-4,
            "readout": both.regression() if both.count else codes.strongest(),
        }
        for name, value in found.items():
            getattr(self, name).copy_(torch.from_numpy(np.asarray(value)))

    def loss(self, batch: Batch, draws: Draws) -> Losses:
        """Mean squared error of the predicted clean codes (Eq. 4), standardised; timestep, factor (Eq. 8), noise and null
        conditions are drawn for each sample."""
        settings = self.settings
        codes = self._codes(batch)
        heard = self.condition.windows(batch, codes.shape[1], self.fps)
        low, high = settings.augmentation
        clean = self._standard((low + (high - low) * draws.uniform(1, 1)) * codes)
        time = draws.integers(settings.steps)
        deaf = draws.uniform() < settings.null_share
        if settings.diffusion:
            shares = torch.as_tensor(self.shares, dtype=clean.dtype, device=clean.device)
            noisy = noised(clean, draws.normal(*clean.shape[1:]), shares[time])
        else:
            noisy, time = torch.zeros_like(clean), torch.zeros_like(time)
        found = self.decoder(noisy, time, self._heard(heard), deaf)
        return {"loss": (found.float() - clean).square().mean()}

    def updates(self) -> list[Update]:
        """Adam on everything."""
        return [Update("decoder", self.loss, torch.optim.Adam(self.decoder.parameters(), lr=self.settings.learning_rate))]

    @torch.no_grad()
    def sample(self, condition: Tensor, draws: Draws, sampling: Sampling | None = None) -> Tensor:
        """(B, T, D) codes for raw features ``condition`` (B, T, F), as the condition's ``windows`` and ``whole`` give them.

        T is any number of frames: beyond the training window, windows that overlap are denoised together. All randomness comes
        from ``draws``, of B rows. Guidance mixes predictions of clean codes with and without the condition (Eq. 10).
        """
        how = sampling or self.settings.sampling
        overlap = Overlap.of(condition.shape[1], self.settings.window, condition.device)
        heard = overlap.cut(self._heard(condition))
        hears = torch.zeros(len(heard), dtype=torch.bool, device=heard.device)

        def predict(noisy: Tensor, time: int) -> Tensor:
            seen, at = overlap.cut(noisy), torch.full((len(heard),), time, device=heard.device)
            if how.guidance == 1:
                return overlap.blend(self.decoder(seen, at, heard, hears).float())
            both = self.decoder(*(torch.cat([part, part]) for part in (seen, at, heard)), torch.cat([hears, ~hears]))
            told, untold = both.float().chunk(2)
            return overlap.blend(how.guidance * told + (1 - how.guidance) * untold)

        shape = (condition.shape[1], self.width)
        if self.settings.diffusion:
            found = denoise(predict, draws.normal(*shape), self.shares, draws, sampler=how.sampler, steps=how.steps)
        else:
            found = predict(torch.zeros(len(condition), *shape, device=condition.device), 0)
        return found * self.scale + self.mean

    def measure(self, batches: Iterable[Batch], draws: Draws) -> dict[str, float]:
        """Two sequences made for each of the batches' sounds, against the truth and each other.

        ``correlation`` of the linear measure with the true one, and with that of the next sample (``shuffled``); diversity, and
        jitter of the generated and the true codes. With the setting ``mouth`` they are called ``mouth_correlation``.
        """
        true, made = [], []
        for batch in batches:
            codes = self._codes(batch)
            heard = self.condition.windows(batch, codes.shape[1], self.fps)
            true.append(codes)
            made.append(torch.stack([self.sample(heard, draws) for _ in range(2)], dim=1))
        truth, pairs = torch.cat(true), torch.cat(made)
        name = "correlation" if self.settings.mouth == "none" else "mouth_correlation"
        tracks = (pairs[:, 0] @ self.readout).unbind(), (truth @ self.readout).unbind()
        own, known = metrics.jitter(pairs[:, 0]), metrics.jitter(truth)
        figures = {
            name: metrics.mouth_correlation(*tracks),
            "diversity": metrics.diversity(pairs),
            **{f"jitter_{part}": value for part, value in own._asdict().items()},
            **{f"true_jitter_{part}": value for part, value in known._asdict().items()},
        }
        if len(truth) > 1:
            figures[f"{name}_shuffled"] = metrics.mouth_correlation(*tracks, shuffled=True)
        return figures

    def pictures(self, batch: Batch, draws: Draws) -> dict[str, NDArray[np.uint8]]:
        """Curves of the linear measure over the first samples' frames: the truth dark, two generated sequences orange."""
        codes = self._codes(batch)
        heard = self.condition.windows(batch, codes.shape[1], self.fps)
        count = min(len(codes), 6)
        few = draws.part(0, count)
        made = torch.stack([self.sample(heard[:count], few) for _ in range(2)], dim=1)
        true, drawn = ((part @ self.readout).cpu().numpy() for part in (codes[:count], made))
        return {"curves": curves(true, drawn)}

    def produce(self, **given: Any) -> list[Path]:
        """Codes, meshes, a film and a picture out of sound: see ``training.facetalk.speak``."""
        from training.facetalk.speak import produce

        return produce(self, **given)

    def _codes(self, batch: Batch) -> Tensor:
        """(B, T, D) of the window's own frames."""
        whole = torch.cat([batch[name] for name in COLUMNS[self.settings.target]], dim=-1)
        return whole[:, self.condition.context : whole.shape[1] - self.condition.context]

    def _standard(self, codes: Tensor) -> Tensor:
        return (codes - self.mean) / self.scale

    def _heard(self, condition: Tensor) -> Tensor:
        return (condition - self.heard_mean) / self.heard_scale
