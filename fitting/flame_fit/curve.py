"""How the energy of a fit fell."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from fitting.flame_fit.objective import Objective
from fitting.flame_fit.parameters import Parameters, Points
from fitting.nearest import Match


@dataclass(slots=True)
class Curve:
    """The energy with the last gate, with the nearest points of that moment: the same number for every way of fitting."""

    seconds: list[float] = field(default_factory=list)
    """Of the processor, so that other programs do not count."""
    energies: list[float] = field(default_factory=list)
    """Millimetres."""

    def add(self, objective: Objective, parameters: Parameters, points: Points, matches: Match, seconds: float) -> None:
        with torch.no_grad():
            last = objective.narrowed(matches, points, objective.settings.last_gate)
            self.energies.append(float(objective.energy(parameters, points, last)))
        self.seconds.append(seconds)

    def reached(self, energy: float) -> float:
        """Seconds until the energy was at or below ``energy``; infinite where it never was."""
        return next((at for at, value in zip(self.seconds, self.energies, strict=True) if value <= energy), float("inf"))
