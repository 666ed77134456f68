"""Windows that are fitted together: their frames in one row, whatever sequences they are of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fitting.nphm.compose import Nphm, Subject
from fitting.nphm_fit.objective import Settings, Terms, distances, huber, of_frames

_AT_ONCE = 20_000
"""Points whose derivatives are asked for together."""


class Batch(NamedTuple):
    """F frames of W windows, those of a window one after the other."""

    clouds: list[Tensor]
    """F point clouds (N, 3) in NPHM's space; N may be 0."""
    window: Tensor
    """(F,) int64, the window of each frame, 0 to W - 1, ascending."""
    subject: Tensor
    """(F,) int64, whose frame it is."""
    held: Tensor
    """(F,) bool: frames whose codes stay as they are."""
    codes: Tensor
    """(F, E) where the fit begins."""
    generators: list[torch.Generator]
    """One for each window, for its samples."""

    @property
    def n_windows(self) -> int:
        return len(self.generators)

    @property
    def neighbours(self) -> Tensor:
        """(P,) int64: frames that have a next one in their window."""
        return (self.window[1:] == self.window[:-1]).nonzero()[:, 0]

    def only(self, chosen: Sequence[int]) -> tuple[Batch, Tensor]:
        """The windows ``chosen`` alone, and which frames (G,) those are."""
        frames = torch.isin(self.window, torch.tensor(chosen)).nonzero()[:, 0]
        renumbered = torch.searchsorted(torch.tensor(chosen), self.window[frames])
        clouds = [self.clouds[frame] for frame in frames.tolist()]
        generators = [self.generators[window] for window in chosen]
        part = Batch(clouds, renumbered, self.subject[frames], self.held[frames], self.codes[frames], generators)
        return part, frames

    def sample(self, count: int) -> tuple[Tensor, Tensor]:
        """``count`` points of each cloud, drawn with repetition: (F, count, 3); and which frames have any (F,) bool."""
        drawn = self.codes.new_zeros(len(self.clouds), count, 3)
        for frame, (cloud, window) in enumerate(zip(self.clouds, self.window.tolist(), strict=True)):
            if len(cloud):
                index = torch.randint(len(cloud), (count,), generator=self.generators[window])
                drawn[frame] = cloud[index.to(cloud.device)]
        return drawn, torch.tensor([len(cloud) > 0 for cloud in self.clouds], device=drawn.device)

    def sum_by_window(self, values: Tensor) -> Tensor:
        """(W,) sums of what frames have, (F,)."""
        return values.new_zeros(self.n_windows).index_add(0, self.window.to(values.device), values)


def data(
    nphm: Nphm, subjects: Subject, batch: Batch, codes: Tensor, points: Tensor, present: Tensor, limit: float
) -> tuple[Tensor, Tensor]:
    """For ``codes`` (F, E) and sampled ``points`` (F, N, 3): the mean absolute distance (F,) of those within ``limit``, 0 where
    there are none, and its derivatives by the codes (F, E). Frames that are held are not asked: 0. A few frames at a time: that
    bounds memory."""
    sizes, slopes = codes.new_zeros(len(codes)), torch.zeros_like(codes)
    for frames in (~batch.held).nonzero()[:, 0].split(max(1, _AT_ONCE // points.shape[1])):
        own = codes[frames].detach().requires_grad_()
        with torch.enable_grad():
            sdf, counts = distances(nphm, points[frames], own, of_frames(subjects, batch.subject[frames]))
            size = sdf.abs()
            kept = counts & (size.detach() <= limit) & present[frames, None]
            mean = torch.where(kept, size, 0.0).sum(dim=1) / kept.sum(dim=1).clamp(min=1)
            (slopes[frames],) = torch.autograd.grad(mean.sum(), own)
        sizes[frames] = mean.detach()
    return sizes, slopes


def terms(batch: Batch, codes: Tensor, sizes: Tensor, settings: Settings) -> Terms:
    """The loss's parts for ``codes`` (F, E) whose points have the mean absolute distances ``sizes`` (F,)."""
    first = batch.neighbours.to(codes.device)
    steps = huber(codes[first + 1] - codes[first], settings.huber).sum(dim=1)
    between = codes.new_zeros(len(codes)).index_add(0, first, steps)
    return Terms(*(batch.sum_by_window(values) for values in (sizes, between, codes.square().sum(dim=1))))
