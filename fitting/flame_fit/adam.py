"""The paper's way: Adam on all frames at once (FaceTalk, supplement D: 2500 steps)."""

from __future__ import annotations

import math
import time

import torch

from fitting.flame_fit.curve import Curve
from fitting.flame_fit.objective import Objective
from fitting.flame_fit.parameters import Parameters


def fit(objective: Objective, start: Parameters) -> tuple[Parameters, Curve]:
    """The parameters (float64) after ``settings.adam_steps``, and how the energy fell.

    Nearest points are searched every ``settings.refresh`` steps, within a gate that narrows over the first half; steps get
    shorter by a cosine. Raises ``ValueError`` where the energy is not finite in the end.
    """
    settings = objective.settings
    dtype = objective.face.flame.template.dtype
    now = Parameters(*(value.detach().to(dtype).clone().requires_grad_() for value in start))
    rates = {name: getattr(settings.learning_rates, name) for name in now._fields if name != "jaw" or objective.fit_jaw}
    optimiser = torch.optim.Adam([{"params": [getattr(now, name)], "lr": rate} for name, rate in rates.items()])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, settings.adam_steps)
    curve = Curve()
    began = time.process_time()
    points = objective.face(now)
    for step in range(settings.adam_steps):
        if step % settings.refresh == 0:
            matches = objective.search(points, settings.gate(2 * step / settings.adam_steps))
            curve.add(objective, now, points, matches, time.process_time() - began)
        optimiser.zero_grad(set_to_none=True)
        energy = objective.energy(now, points, matches)
        energy.backward()
        optimiser.step()
        schedule.step()
        points = objective.face(now)
    taken = time.process_time() - began
    curve.add(objective, now, points, objective.search(points, settings.last_gate), taken)
    if not math.isfinite(curve.energies[-1]):
        raise ValueError("Adam's energy is no longer finite: lower its learning rates")
    return Parameters(*(value.detach().double() for value in now)), curve
