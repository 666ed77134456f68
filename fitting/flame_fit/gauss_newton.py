"""The fast way to the same minimum: Gauss-Newton steps with nearest points searched after each.

Huber's function becomes weights that are renewed with the curvature (IRLS). Every residual depends on the parameters of one
frame and on the scale and the identity that all share; first differences tie neighbouring frames. So the normal equations are
an arrowhead: a block for each frame, diagonal blocks between neighbours, a border. The gradient is exact, of all vertices and
in every step. The curvature, which costs most, need not be: it is that of every ``curvature_stride``-th vertex, and is kept for
several steps.
"""

from __future__ import annotations

import time

import torch
from torch import Tensor

from fitting.flame_fit.arrowhead import Arrowhead
from fitting.flame_fit.curve import Curve
from fitting.flame_fit.derivatives import FaceDerivatives
from fitting.flame_fit.objective import MILLIMETRES, Objective, phi_slope, rows
from fitting.flame_fit.parameters import Parameters, Points
from fitting.nearest import Match

SLIDING = 0.1
"""Share of the distance to a point that resists a motion along the surface. A vertex that slides over a dense cloud finds another
point, so that its distance hardly grows; a Newton step on the distance to one point would not know that and creep."""

DAMPING = 1e-3
"""Share by which the diagonal grows: the curvature of some vertices may miss that of others."""
SHORTER = (1.0, 0.4, 0.16, 0.06)
"""Shares of a step that are tried until one lowers the energy."""
SLACK = 1e-4
"""Share by which a step may raise the energy: as nearest points change, it is not smooth."""
PATIENCE = 3


def fit(objective: Objective, start: Parameters) -> tuple[Parameters, Curve]:
    """The parameters (float64) of the least energy near ``start``, and how it fell."""
    settings = objective.settings
    curve, began = Curve(), time.process_time()
    derivatives = FaceDerivatives(objective, settings.curvature_stride)
    now = _leaves(start, objective)
    points = objective.face(now)
    matches = objective.search(points, settings.first_gate)
    curve.add(objective, now, points, matches, time.process_time() - began)
    best, factor, kept, idle = now, None, 0, 0
    for step in range(settings.steps):
        gate = settings.gate(step / settings.narrowing_steps)
        matches = objective.narrowed(matches, points, gate)
        energy = objective.energy(now, points, matches)
        gradient = torch.autograd.grad(energy, list(now), allow_unused=True, materialize_grads=True)
        if factor is None or kept >= settings.keep_curvature or step < settings.narrowing_steps:
            factor, kept = _curvature(objective, derivatives, now, points, matches).factored(DAMPING), 0
        own, common = factor.solve(*derivatives.stacked(Parameters(*gradient)))
        before = float(energy.detach())
        for share in SHORTER:
            new = _leaves(derivatives.moved(now, share * own, share * common), objective)
            new_points = objective.face(new)
            found = objective.search(new_points, gate)
            with torch.no_grad():
                lower = float(objective.energy(new, new_points, found)) <= before * (1 + SLACK)
            if lower:
                break
        if not lower and kept == 0:
            break
        if not lower:
            factor, points = None, objective.face(now)
            continue
        now, points, matches, kept = new, new_points, found, kept + 1
        lowest = min(curve.energies)
        curve.add(objective, now, points, matches, time.process_time() - began)
        idle = 0 if curve.energies[-1] < lowest * (1 - settings.tolerance) or step < settings.narrowing_steps else idle + 1
        if curve.energies[-1] < lowest or step < settings.narrowing_steps:
            best = now
        if idle >= PATIENCE:
            break
    return Parameters(*(value.detach().double() for value in best)), curve


def _leaves(parameters: Parameters, objective: Objective) -> Parameters:
    dtype = objective.face.flame.template.dtype
    return Parameters(*(value.detach().to(dtype).requires_grad_() for value in parameters))


def _curvature(objective: Objective, derivatives: FaceDerivatives, now: Parameters, points: Points, matches: Match) -> Arrowhead:
    """The curvature of the energy at ``now``."""
    with torch.no_grad():
        system = derivatives.curvature(now, *_roots(objective, derivatives.asked, points, matches))
        for penalty in objective.penalties:
            squared = rows(now, penalty).square().sum(dim=-1).double()
            weight = 2 * penalty.weight / penalty.unit**2 * phi_slope(squared, objective.settings)
            system.add_penalty(*derivatives.columns(penalty.name), weight.numpy(), difference=penalty.difference)
    return system


def _roots(objective: Objective, asked: Tensor, points: Points, matches: Match) -> tuple[Tensor, Tensor]:
    """Roots S of the weights S² = a I + b N Nᵀ of the ``asked`` among the vertices (T, A, 3, 3), and of the landmarks (T, L)."""
    settings = objective.settings
    assert matches.normals is not None
    normals, inlier = matches.normals[:, asked], matches.inlier[:, asked]
    offset = (points.vertices - matches.points)[:, asked]
    share = MILLIMETRES * settings.geometry / (objective.frames * len(asked)) * inlier
    apart, along = offset.norm(dim=-1), (offset * normals).sum(dim=-1).abs()
    point = settings.point_weight * share / apart.clamp(min=settings.huber)
    a, b = SLIDING * point, (1 - SLIDING) * point + settings.plane_weight * share / along.clamp(min=settings.huber)
    outer = normals[..., :, None] * normals[..., None, :]
    of_vertices = a.sqrt()[..., None, None] * torch.eye(3, dtype=a.dtype) + ((a + b).sqrt() - a.sqrt())[..., None, None] * outer
    off = (points.landmarks - objective.landmarks).norm(dim=-1)
    of_landmarks = MILLIMETRES * settings.landmarks * objective.landmark_weight / off.clamp(min=settings.huber)
    return of_vertices, of_landmarks.sqrt()
