"""Training of the NPHM-like networks on the family's true signed distances and true correspondences.

``python -m fitting.studio.nphm_training --size small --out FOLDER`` makes what ships with headloom, on one core of a CPU in less
than an hour; ``--size official`` has the published widths and is work for a GPU. Codes are known (``nphm_codes``), so only
weights are trained. The backward network begins as the forward one turned round.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors.torch import save
from scipy.spatial import cKDTree
from torch import Tensor, nn

from fitting.nphm.compose import LOWER, UPPER
from fitting.nphm.expression import Direction, ExpressionCondition, ExpressionNetwork
from fitting.nphm.identity import IdentityNetwork
from fitting.studio.controls import Controls
from fitting.studio.nphm_codes import (
    GLOBAL,
    KNOWN,
    LOCAL,
    N_CONTROLS,
    controls_vector,
    nphm_identity,
)
from fitting.studio.nphm_errors import held_out_errors
from fitting.studio.nphm_file import (
    GLOBAL_GAIN,
    LOCAL_GAIN,
    TRAINING_EXPRESSIONS,
    TRAINING_PEOPLE,
    known,
    mean_anchors,
    networks_of,
    position_layers,
    write_networks,
)
from fitting.studio.nphm_truth import MM, HeadSurface, head_surface, random_controls, signed_distances, vertex_normals
from fitting.studio.surface import Floats
from manifests.atomic import whole_file


class Plan(NamedTuple):
    """How large networks are and how long they are trained."""

    identity_hidden: int
    expression_widths: list[tuple[int, int]]
    people: int
    points: int
    """Of each person's canonical space."""
    performances: int
    """Pairs of a person and an expression."""
    pairs: int
    """Points of each performance."""
    steps: tuple[int, int, int]
    """Of the identity, the forward and the backward network."""
    heads_at_once: tuple[int, int]
    """People in a step, and points of each."""
    moves_at_once: tuple[int, int]
    """Performances in a step, and pairs of each."""
    learning_rate: float


_INPUTS = 3 + KNOWN + N_CONTROLS


def _widened(hidden: int) -> list[tuple[int, int]]:
    again = hidden + _INPUTS
    return [(_INPUTS, hidden), (hidden, hidden), (hidden, hidden), (again, hidden), (hidden, hidden), (hidden, 3)]


PLANS = {
    "small": Plan(128, _widened(176), 2000, 3000, 4000, 2500, (8000, 8000, 4000), (12, 330), (32, 128), 2e-3),
    # The published widths: once codes are widened to 200 numbers, the fourth layer takes 277 + 235 = 512.
    "official": Plan(
        200,
        [(_INPUTS, 512), (512, 512), (512, 277), (277 + _INPUTS, 512), (512, 512), (512, 512), (512, 3)],
        4000, 20_000, 10_000, 10_000, (100_000, 100_000, 50_000), (32, 1000), (64, 500), 5e-4,
    ),
}  # fmt: skip


# --- data --------------------------------------------------------------------------------------------------------------------


class CanonicalPoints(NamedTuple):
    """Of N people."""

    people: Floats
    """(N, 300)."""
    points: Tensor
    """(N, P, 3) float32."""
    distances: Tensor
    """(N, P)."""


class MovedPoints(NamedTuple):
    """Of N performances."""

    known: Tensor
    """(N, 32)."""
    controls: Tensor
    """(N, 29)."""
    canonical: Tensor
    """(N, P, 3) float32."""
    posed: Tensor
    """(N, P, 3)."""
    weight: Tensor
    """(N, P) 1 at the skin, less away from it, 0 where a point belongs to no place on it."""


def canonical_points(people: Floats, count: int, seed: int) -> CanonicalPoints:
    """Points about the canonical heads of ``people`` (N, 300) and their signed distances; most of them within millimetres."""
    surface = head_surface()
    points = np.empty((len(people), count, 3), np.float32)
    distances = np.empty((len(people), count), np.float32)
    for k, person in enumerate(people):
        rng = np.random.default_rng([seed, k])
        vertices = surface.canonical(person[None])[0]
        on, normals = _on_surface(rng, surface, vertices[None], surface.detailed, count)
        deviation = rng.choice(np.array([0.5, 2.0, 10.0]) / MM, count, p=[0.5, 0.35, 0.15])
        drawn = on[0] + (deviation * rng.standard_normal(count))[:, None] * normals[0]
        anywhere = rng.random(count) < 0.05
        drawn[anywhere] = rng.uniform(LOWER, UPPER, (anywhere.sum(), 3))
        points[k], distances[k] = drawn, signed_distances(drawn, vertices, surface.faces)
    return CanonicalPoints(people, torch.from_numpy(points), torch.from_numpy(distances))


def moved_points(people: Floats, controls: Controls, count: int, seed: int) -> MovedPoints:
    """Points about the heads of ``people`` (N, 300) and where their expressions take them.

    A point off the skin keeps its height above its place there. Where it comes nearer to another place, before or after, it is
    nobody's, and does not count.
    """
    surface = head_surface()
    canonical = np.empty((len(people), count, 3), np.float32)
    posed, weight = np.empty_like(canonical), np.empty((len(people), count), np.float32)
    for k, person in enumerate(people):
        rng = np.random.default_rng([seed, k])
        moment = controls.expression[k : k + 1], controls.jaw[k : k + 1]
        both = np.concatenate([surface.canonical(person[None]), surface.posed(person[None], *moment)])
        # Lids are small, and all that moves in many an expression.
        moving = np.linalg.norm(both[1] - both[0], axis=-1) + 1 / MM
        on, normals = _on_surface(rng, surface, both, moving, count)
        deviation = rng.choice(np.array([0.0, 1.5, 6.0, 25.0]) / MM, count, p=[0.4, 0.3, 0.2, 0.1])
        height = deviation * rng.standard_normal(count)
        moved = on + height[:, None] * normals
        near = [cKDTree(vertices).query(points)[0] for vertices, points in zip(both, moved, strict=True)]
        own = np.minimum(*near) > 0.8 * np.abs(height) - 1 / MM
        flat = (normals == 0).all(axis=-1).any(axis=0)
        canonical[k], posed[k] = moved
        weight[k] = own * ~flat / (1 + np.abs(height) * MM / 4)
    given = known(people), controls_vector(controls.expression, controls.jaw)
    return MovedPoints(*(torch.from_numpy(array).float() for array in (*given, canonical, posed, weight)))


def _on_surface(
    rng: np.random.Generator, surface: HeadSurface, vertices: Floats, sought: Floats, count: int
) -> tuple[Floats, Floats]:
    """The same random places (T, count, 3) on T meshes (T, V, 3) and the normals there. A quarter of them is spread evenly, a
    quarter as densely as the mesh, which is finer where the face is, and half of them besides as ``sought`` (V,) says. What is
    below the box of NPHM is left out."""
    corners = vertices[0][surface.faces]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    within = corners[:, :, 1].max(axis=1) > LOWER[1] - 0.05
    densities = (0.25, area), (0.25, np.ones_like(area)), (0.5, sought[surface.faces].mean(axis=1))
    share = np.sum([part * within * density / (within * density).sum() for part, density in densities], axis=0)
    chosen = surface.faces[rng.choice(len(share), count, p=share)]
    weight = rng.dirichlet(np.ones(3), count)[:, :, None]
    normals = (vertex_normals(vertices, surface.faces)[:, chosen] * weight).sum(axis=2)
    length = np.linalg.norm(normals, axis=-1, keepdims=True)
    unit = np.divide(normals, length, out=np.zeros_like(normals), where=length > 1e-6)
    return (vertices[:, chosen] * weight).sum(axis=2), unit


# --- training ----------------------------------------------------------------------------------------------------------------


def train_identity(
    plan: Plan, data: CanonicalPoints, seed: int, on_step: Callable[[int, float], None], device: torch.device
) -> IdentityNetwork:
    """The identity network, for scaled codes."""
    torch.manual_seed(seed)
    network = IdentityNetwork(mean_anchors(), hidden=plan.identity_hidden, anchor_hidden=GLOBAL)
    network.mlp_pos.load_state_dict({key.removeprefix("mlp_pos."): value for key, value in position_layers().items()})
    network.mlp_pos.requires_grad_(False)
    ensemble = network.ensembled_deep_sdf
    with torch.no_grad():
        _begin(ensemble.lin0.weight, 5.0)
        for layer in (ensemble.lin1, ensemble.lin2, ensemble.lin3):
            _begin(layer.weight, math.sqrt(6 / layer.weight.shape[-1]))
        _begin(ensemble.lin2.weight[:, :, -3 - GLOBAL - LOCAL :], 5.0)
        for layer in (ensemble.lin0, ensemble.lin2):
            layer.weight[:, :, -GLOBAL - LOCAL : -LOCAL] *= 0.02
        ensemble.lin4.weight.mul_(0.3)
    network.to(device)
    codes = torch.from_numpy(_scaled(nphm_identity(data.people))).float()
    rng = np.random.default_rng([seed, 1])
    trained = [weight for weight in network.parameters() if weight.requires_grad]
    for step, optimizer in _steps(trained, plan.learning_rate, plan.steps[0]):
        who = rng.integers(len(codes), size=plan.heads_at_once[0])
        which = torch.from_numpy(rng.integers(data.points.shape[1], size=plan.heads_at_once))
        rows = torch.from_numpy(who)[:, None]
        points, truth = (array[rows, which].to(device) for array in (data.points, data.distances))
        found = network(points, network.condition(codes[who].to(device)), floor=0.0, epsilon=1e-3)
        error = (found - truth).abs() * MM
        loss = (error / (1 + truth.abs() * MM / 4)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        on_step(step, float(error.detach()[truth.abs() < 1 / MM].mean()))
    network.requires_grad_(False)
    return network


def train_expression(
    plan: Plan,
    data: MovedPoints,
    direction: Direction,
    seed: int,
    on_step: Callable[[int, float], None],
    device: torch.device,
    undoes: ExpressionNetwork | None = None,
) -> ExpressionNetwork:
    """An expression network, for ``known`` and ``controls_vector``. One that ``undoes`` another begins with its offsets negated,
    which is the inverse to first order."""
    torch.manual_seed(seed)
    network = ExpressionNetwork(plan.expression_widths, conditioning="expr_only", known=KNOWN, direction=direction)
    with torch.no_grad():
        for n, layer in enumerate(network.defDeepSDF.values()):
            _begin(layer.weight, math.sqrt(6 / layer.in_features))
            if n == 0 or layer.in_features > network.defDeepSDF[f"lin{n - 1}"].out_features:
                first = layer.in_features - _INPUTS
                _begin(layer.weight[:, first : first + 3], 4.0)
                _begin(layer.weight[:, first + 3 :], 0.3)
        layer.weight.mul_(0.05)
        if undoes is not None:
            network.load_state_dict(undoes.state_dict())
            layer.weight.neg_()
            layer.bias.neg_()
    network.to(device)
    start, end = (data.canonical, data.posed) if direction is Direction.forward else (data.posed, data.canonical)
    rng = np.random.default_rng([seed, 2])
    steps = plan.steps[1 if direction is Direction.forward else 2]
    for step, optimizer in _steps(list(network.parameters()), plan.learning_rate, steps):
        rows = torch.from_numpy(rng.integers(len(start), size=plan.moves_at_once[0]))
        which = torch.from_numpy(rng.integers(start.shape[1], size=plan.moves_at_once))
        points, target, weight = (array[rows[:, None], which].to(device) for array in (start, end, data.weight))
        given, told = data.controls[rows].to(device), ExpressionCondition(data.known[rows].to(device))
        offset = network(points, given, told).offset
        error = (points + offset - target).square().sum(dim=-1).clamp(min=1e-14).sqrt() * MM
        # The length alone would give up what is small and rare, as blinks are; its square alone what is nearly right.
        loss = (weight * (error + error.square() / 2)).sum() / weight.sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        on_step(step, float((weight * error.detach()).sum() / weight.sum()))
    network.requires_grad_(False)
    return network


def _scaled(codes: Floats) -> Floats:
    scaled: Floats = codes * np.concatenate([np.full(GLOBAL, GLOBAL_GAIN), np.full(codes.shape[1] - GLOBAL, LOCAL_GAIN)])
    return scaled


def _begin(weight: Tensor, bound: float) -> None:
    weight.uniform_(-bound, bound)


def _steps(weights: list[nn.Parameter], learning_rate: float, steps: int) -> Iterator[tuple[int, torch.optim.Optimizer]]:
    """Adam, warmed up over a fiftieth of the steps, then on a cosine to zero."""
    optimizer = torch.optim.Adam(weights, lr=learning_rate, betas=(0.9, 0.99))
    warm = max(1, steps // 50)

    def rate(step: int) -> float:
        return min(1.0, (step + 1) / warm) * 0.5 * (1 + math.cos(math.pi * step / steps))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    for step in range(steps):
        yield step, optimizer
        schedule.step()


def train(plan: Plan, name: str, out: Path, seed: int = 0, *, held_out: int = 4, resolution: int = 128) -> None:
    """Make the data, train the three networks, measure them on ``held_out`` people, and write into ``out`` their weights
    ``<name>.safetensors`` with a record ``<name>.json`` and the official files."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    family, began = head_surface().family, time.perf_counter()

    def told(part: str) -> Callable[[int, float], None]:
        errors: list[float] = []

        def tell(step: int, error: float) -> None:
            errors.append(error)
            if (step + 1) % 100 == 0:
                print(f"{part} {step + 1}: {np.mean(errors):.3f} mm, {time.perf_counter() - began:.0f} s", flush=True)
                errors.clear()

        return tell

    heads = canonical_points(family.people(plan.people, TRAINING_PEOPLE), plan.points, seed)
    state = train_identity(plan, heads, seed, told("identity"), device).state_dict()
    trained = {"identity": {key: value for key, value in state.items() if not key.startswith("mlp_pos")}}
    controls = random_controls(np.random.default_rng(TRAINING_EXPRESSIONS), plan.performances)
    moves = moved_points(family.people(plan.performances, TRAINING_EXPRESSIONS), controls, plan.pairs, seed)
    forward = train_expression(plan, moves, Direction.forward, seed, told("forward"), device)
    backward = train_expression(plan, moves, Direction.backward, seed, told("backward"), device, forward)
    trained |= {"forward": forward.state_dict(), "backward": backward.state_dict()}
    weights = {f"{part}.{key}": value.to("cpu", torch.float16) for part, state in trained.items() for key, value in state.items()}
    networks = networks_of(weights)
    write_networks(networks, out)
    with whole_file(out / f"{name}.safetensors") as file:
        file.write(save(weights))
    record = {
        "seed": seed,
        "plan": plan._asdict(),
        "torch": torch.__version__,
        "seconds": round(time.perf_counter() - began),
        "errors_mm": held_out_errors(networks, held_out, resolution),
    }
    (out / f"{name}.json").write_text(json.dumps(record, indent=2) + "\n")


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Train the studio's NPHM-like networks.")
    parser.add_argument("--size", choices=list(PLANS), default="small")
    parser.add_argument("--out", type=Path, required=True, help="a folder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, nargs=3, help="of the identity, the forward and the backward network")
    given = parser.parse_args(arguments)
    plan = PLANS[given.size]
    train(plan._replace(steps=tuple(given.steps or plan.steps)), f"nphm_{given.size}", given.out, given.seed)


if __name__ == "__main__":
    main()
