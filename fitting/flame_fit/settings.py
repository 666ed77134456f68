"""What the paper leaves open, as numbers with names and defaults. ``docs/flame_fit.md`` says why these."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class LearningRates:
    """Adam's steps, for each kind of parameter; the paper gives none."""

    scale: float = 1e-3
    rotation: float = 3e-3
    translation: float = 1e-3
    identity: float = 3e-2
    expression: float = 3e-2
    jaw: float = 3e-3


@dataclass(frozen=True, slots=True)
class Settings:
    """How a sequence is fitted. Raises ``ValueError`` for numbers that make no sense.

    Distances are in metres of the head model (the world's, where its scale is 1), and the energy is in millimetres.
    """

    method: Literal["gauss_newton", "adam"] = "gauss_newton"
    """``adam`` is the paper's way, 2500 steps; ``gauss_newton`` finds the same minimum in a few."""

    # Eq. 22-24.
    point_weight: float = 0.1
    plane_weight: float = 0.9
    huber: float = 0.001
    """Distances count as in an L1 norm beyond this and quadratically within: the paper's L1 has no derivative at 0."""
    first_gate: float = 0.02
    last_gate: float = 0.005
    """Points further from a vertex than this are not its match: at the start, and at the end."""
    max_angle_deg: float = 60.0
    """Nor are points whose normal differs by more from the vertex's."""
    side_gate: float = 2.0
    """Nor points so far to the side, along the cloud's surface, in its spacings (distance to the fourth nearest point)."""
    refresh: int = 25
    """Adam's steps between two searches for nearest points. Gauss-Newton searches before each of its steps."""

    # Eq. 21 and 31.
    geometry: float = 1.0
    landmarks: float = 0.3
    jaw_line: float = 0.3
    """Weight of landmarks 0-16, which lie where no feature fixes them along the contour."""
    eyes: float = 1.5
    mouth: float = 2.0
    brows_and_nose: float = 1.0
    outlier: float = 0.02
    """Landmarks further than this from the rigidly aligned template are dropped. The paper's number."""

    # Eq. 25-28; the paper has one factor for all.
    regularise_identity: float = 1e-5
    regularise_expression: float = 2e-4
    regularise_rigid: float = 1e-5
    regularise_jaw: float = 1e-3
    # Eq. 29 and 30.
    smooth_expression: float = 2e-3
    smooth_rigid: float = 50.0
    smooth_jaw: float = 0.02
    norm: Literal["squared", "plain"] = "squared"
    """Whether norms of Eq. 25-30 are squared. Printed they are not."""

    jaw: bool | None = None
    """Whether the jaw turns; None: where the model has one. The paper's parameters have none, which suits a FLAME whose
    expressions open the mouth."""

    adam_steps: int = 2500
    learning_rates: LearningRates = field(default_factory=LearningRates)
    steps: int = 40
    """At most so many Gauss-Newton steps."""
    narrowing_steps: int = 4
    """The gate gets narrower in so many of the first; Adam's does in the first half of its steps."""
    curvature_stride: int = 4
    """The curvature is that of every so manieth vertex."""
    keep_curvature: int = 5
    """It is computed anew after so many steps."""
    tolerance: float = 1e-4
    """Gauss-Newton stops when three steps in a row do not lower the energy by this share."""
    min_inliers: float = 0.3
    """A frame in which a smaller share of the asked vertices found a match is flagged as not converged."""

    def __post_init__(self) -> None:
        for name in ("huber", "first_gate", "last_gate", "max_angle_deg", "side_gate", "outlier"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}: give a positive number")
        weights = ["point_weight", "plane_weight", "geometry", "landmarks", "jaw_line", "eyes", "mouth", "brows_and_nose"]
        weights += [name for name in self.__slots__ if name.startswith(("regularise_", "smooth_"))]
        for name in weights:
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}: a weight is not negative")
        if self.first_gate < self.last_gate:
            raise ValueError(f"gates get narrower: first_gate {self.first_gate} is below last_gate {self.last_gate}")
        for name in ("refresh", "adam_steps", "steps", "narrowing_steps", "curvature_stride", "keep_curvature"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: give at least 1")

    def gate(self, progress: float) -> float:
        """Metres, from the first gate at 0 to the last at 1 and after."""
        narrowing = self.last_gate / self.first_gate
        return float(self.first_gate * narrowing ** min(1.0, progress))
