"""What a good fit of expression codes is: FaceTalk, eq. 16 to 18.

    L = λ_sdf Σ_i mean_k |SDF(S_i^k)| + λ_temp Σ_i ‖θ_{i+1} - θ_i‖_ε + λ_reg Σ_i ‖θ_i‖²

over the frames i of a window, the points k of a sample of a frame's cloud, and codes θ. ‖·‖_ε is Huber's norm, summed over a
code's entries; the paper says neither ε, nor whether squares are halved, nor whether the last norm is squared (``Settings``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from fitting.nphm.compose import Nphm, Subject
from fitting.nphm.expression import ExpressionCondition
from fitting.nphm.identity import IdentityCondition
from fitting.nphm.mono import MonoCondition
from fitting.nphm_fit.windows import Overlap


@dataclass(frozen=True, slots=True)
class Settings:
    """All that a fit may be told. Defaults are the paper's where it says, else the choices in docs/nphm_fit.md."""

    method: str = "gauss_newton"
    """``adam`` is the paper's way."""
    window: int = 10
    overlap: int = 2
    handling: Overlap = "frozen"
    points: int = 5000
    """Drawn afresh from each frame's cloud at every iteration."""
    sdf: float = 10.0
    temporal: float = 0.1
    regularization: float = 0.0025
    huber: float = 0.05
    """ε in units of the codes: larger differences between neighbours count by their size, smaller ones by its square."""
    trimming: tuple[tuple[float, float], ...] = ((0.0, 0.1), (0.25, 0.05), (0.5, 0.0075))
    """(from this share of the iterations on, distance in NPHM units beyond which a point is left out): NPHM's own schedule."""
    iterations: int = 500
    step_size: float = 1e-3
    late_step_size: float = 1e-4
    late: int = 300
    """Iteration from which on the late step size holds."""
    newton_steps: int = 8
    patience: float = 1e-3
    """A window whose loss falls by less than this share over 25 iterations of Adam, or changes by less over a Gauss-Newton step
    at the last distance of the trimming, is done. 0 makes all iterations or steps be taken."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in ("adam", "gauss_newton"):
            raise ValueError(f"there is no method {self.method!r} for fitting expression codes: choose adam or gauss_newton")


class Terms(NamedTuple):
    """Parts of the loss, unweighted, one number for each of W windows."""

    sdf: Tensor
    temporal: Tensor
    regularization: Tensor

    def total(self, settings: Settings) -> Tensor:
        """(W,) eq. 16."""
        weighted = settings.sdf * self.sdf + settings.temporal * self.temporal
        return weighted + settings.regularization * self.regularization


def huber(difference: Tensor, epsilon: float) -> Tensor:
    """Huber's norm, entry by entry: d² up to ``epsilon``, then ε (2 |d| - ε). Not halved, as the L2 term is not."""
    size = difference.abs()
    return torch.where(size <= epsilon, size.square(), epsilon * (2 * size - epsilon))


class Trimming(Protocol):
    """Settings of a fit that leaves far points out, fewer and fewer of them."""

    @property
    def trimming(self) -> tuple[tuple[float, float], ...]:
        """(from this share of the iterations on, distance beyond which a point is left out)."""


def trim_at(settings: Trimming, share: float) -> float:
    """Distance beyond which points are left out when this ``share`` of the iterations is done."""
    return min((limit for begin, limit in settings.trimming if share >= begin), default=float("inf"))


def distances(nphm: Nphm, points: Tensor, codes: Tensor, subjects: Subject) -> tuple[Tensor, Tensor]:
    """Signed distances (F, N) of ``points`` (F, N, 3) in frames with ``codes`` (F, E), and which of them count (F, N)."""
    known = nphm(points, codes, subjects)
    return known.sdf, known.converged


def of_frames(subjects: Subject, index: Tensor) -> Subject:
    """The subjects (F,) that frames belong to, of S ``subjects``."""

    def chosen(condition: IdentityCondition | MonoCondition) -> IdentityCondition | MonoCondition:
        # One subject serves all frames as it is.
        return type(condition)(*(part if part is None or len(part) == 1 else part[index] for part in condition))

    expression = subjects.expression
    known = expression.known if len(expression.known) == 1 else expression.known[index]
    return Subject(chosen(subjects.identity), ExpressionCondition(known))
