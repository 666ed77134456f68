"""NPHM's expression network: how far an expression moves each point of a head.

Giebenhain et al., "Learning Neural Parametric Head Models", CVPR 2023, §3.3: one DeepSDF-like network that is told the
expression code and something of the identity. The published NPHM network moves canonical points to where they are posed
(*forward*); FaceTalk's and MonoNPHM's move posed points back (*backward*). Both kinds may have the same shapes, so a network
carries its direction.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from enum import StrEnum
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from manifests.model_file import Shape, WrongModelFile, check_shapes
from prep.weights import load_state

SOFTPLUS_BETA = 100.0

GLOBAL_CODE = 64
"""Numbers of an identity code that describe the whole head; they come first."""

LOCAL_CODE = 32
"""Numbers of an identity code for each anchor."""

PUBLISHED_EXPRESSION_CODE = 200

Conditioning = Literal["compress", "glob_only", "expr_only", "GNN"]


class Direction(StrEnum):
    """From where to where the offsets lead."""

    forward = "forward"
    """Canonical to posed: the published NPHM."""
    backward = "backward"
    """Posed to canonical: FaceTalk, MonoNPHM, and what ``fitting.nphm.distil`` makes."""


class ExpressionCondition(NamedTuple):
    """What the network is told of S subjects, whatever their expression."""

    known: Tensor
    """(S, K). In training, NPHM adds Gaussian noise of standard deviation 1/200: ``condition._replace(known=known + noise)``."""


class Deformation(NamedTuple):
    """Where points go."""

    offset: Tensor
    """(B, N, 3) to be added to the points, in NPHM units."""
    hyper: Tensor
    """(B, N, H) hyper coordinates beside x, y, z; H is 0 for NPHM and 2 for MonoNPHM."""


class ExpressionNetwork(nn.Module):
    """Offsets of points for an expression code and a subject.

    What it is told of the identity depends on how it was trained; the shapes tell:

    - ``compress``: 32 numbers that a linear layer makes of the identity code and the anchors (the published network);
    - ``glob_only``: the global part of the identity code;
    - ``expr_only``: nothing;
    - ``GNN``: a combination of local codes and anchor positions, as long as the expression code.

    The state dict has the published keys. Works in float32 and float64 and on any device; can be differentiated twice.
    """

    def __init__(
        self,
        widths: list[tuple[int, int]],
        *,
        conditioning: Conditioning = "compress",
        known: int = 32,
        known_inputs: int = 1461,
        direction: Direction = Direction.forward,
    ):
        """``widths`` are (inputs, outputs) of the layers; where a layer takes more than the one before gives, it sees the
        network's input again. ``known_inputs`` is the size of identity code plus anchors for ``compress``, and of the global
        code plus the local codes of the anchors for ``GNN``.
        """
        super().__init__()
        self.conditioning, self.n_known, self.direction = conditioning, known, Direction(direction)
        self.n_expression = widths[0][0] - 3 - known
        self.n_hyper = widths[-1][1] - 3
        # Attributes are named as in the published checkpoints.
        self.defDeepSDF = nn.ModuleDict({f"lin{n}": nn.Linear(*width) for n, width in enumerate(widths)})
        if conditioning == "compress":
            self.compressor = nn.Sequential(nn.Linear(known_inputs, known))
        if conditioning == "GNN":
            self.pos_enc = _two_layers(3, LOCAL_CODE, LOCAL_CODE)
            self.local_combiner = _two_layers(LOCAL_CODE, LOCAL_CODE, LOCAL_CODE)
            self.global_combiner = _two_layers(known_inputs, 512, known)

    @classmethod
    def published(cls, direction: Direction = Direction.forward) -> Self:
        """An untrained network of the published NPHM sizes."""
        return cls([(235, 512), (512, 512), (512, 277), (512, 512), (512, 512), (512, 512), (512, 3)], direction=direction)

    @classmethod
    def from_state(
        cls,
        state: Mapping[str, Any],
        path: Path | str = "the state dict",
        direction: Direction | None = None,
    ) -> Self:
        """The network with the weights ``state``, all sizes and the conditioning read from its shapes.

        ``direction`` is what the weights are known to be. By default, networks with hyper coordinates are backward ones, and
        others forward, as the published ones are. The shapes of ``glob_only`` and ``expr_only`` do not tell the size of the
        expression code: it is taken to be the published 200. Raises ``WrongModelFile`` with every missing, unexpected and
        misshaped key, for hyper coordinates in a forward network, and for the conditioning ``interpolate``, which no
        published weights have.
        """
        shapes = {key.removeprefix("module."): tuple(value.shape) for key, value in state.items() if isinstance(value, Tensor)}
        numbers = [int(layer[1]) for key in shapes if (layer := re.fullmatch(r"defDeepSDF\.lin(\d+)\.weight", key))]
        last = max(numbers, default=6)
        expected: dict[str, Shape] = {}
        for n in range(last + 1):
            expected[f"defDeepSDF.lin{n}.weight"] = (f"out{n}", f"in{n}")
            expected[f"defDeepSDF.lin{n}.bias"] = (f"out{n}",)
        conditioning: Conditioning = "expr_only"
        if any(key.startswith("compressor.") for key in shapes):
            conditioning = "compress"
            expected |= {"compressor.0.weight": ("known", "known_inputs"), "compressor.0.bias": ("known",)}
        elif any(key.startswith("pos_enc.") for key in shapes):
            conditioning = "GNN"
            for name, inputs, hidden, outputs in (
                ("pos_enc", 3, LOCAL_CODE, LOCAL_CODE),
                ("local_combiner", LOCAL_CODE, LOCAL_CODE, LOCAL_CODE),
                ("global_combiner", "known_inputs", 512, "known"),
            ):
                expected |= {f"{name}.0.weight": (hidden, inputs), f"{name}.0.bias": (hidden,)}
                expected |= {f"{name}.2.weight": (outputs, hidden), f"{name}.2.bias": (outputs,)}
        found = check_shapes(path, shapes, expected)
        n_conditions = found["in0"] - 3
        known = found.get("known", n_conditions - PUBLISHED_EXPRESSION_CODE)
        if conditioning == "expr_only" and known:
            if known != GLOBAL_CODE:
                what = (
                    "that is the conditioning interpolate"
                    if known == GLOBAL_CODE + LOCAL_CODE
                    else "that is no known conditioning"
                )
                raise WrongModelFile(
                    f"{path} has {n_conditions} inputs beside the point, {n_conditions - known} of them the expression: {what}"
                )
            conditioning = "glob_only"
        widths = [(found[f"in{n}"], found[f"out{n}"]) for n in range(last + 1)]
        for (_, before), (after, _) in pairwise(widths):
            if after not in (before, before + found["in0"]):
                raise WrongModelFile(
                    f"{path} has a layer of {after} inputs after one of {before} outputs: no network of this kind"
                )
        if n_conditions - known < 1 or widths[-1][1] < 3:
            raise WrongModelFile(
                f"{path} has {n_conditions} inputs beside the point and {widths[-1][1]} outputs: no expression network"
            )
        hyper = widths[-1][1] > 3
        if hyper and direction is Direction.forward:
            raise WrongModelFile(f"{path} has hyper coordinates, which only backward networks have: load it as backward")
        network = cls(
            widths,
            conditioning=conditioning,
            known=known,
            known_inputs=found.get("known_inputs", 0),
            direction=direction or (Direction.backward if hyper else Direction.forward),
        )
        load_state(network, state, path)
        return network

    def condition(self, identity_code: Tensor, anchors: Tensor) -> ExpressionCondition:
        """What the network is told of subjects with ``identity_code`` (S, C) and ``anchors`` (S, A, 3). Differentiable."""
        if self.conditioning == "compress":
            told = torch.cat([identity_code, anchors.flatten(1)], dim=-1)
            if told.shape[1] != self.compressor[0].in_features:
                raise ValueError(
                    f"an identity code of {identity_code.shape[1]} and {anchors.shape[1]} anchors make {told.shape[1]} numbers; "
                    f"this network was trained on {self.compressor[0].in_features}"
                )
            return ExpressionCondition(self.compressor(told))
        if self.conditioning == "glob_only":
            return ExpressionCondition(identity_code[:, :GLOBAL_CODE])
        if self.conditioning == "GNN":
            end = GLOBAL_CODE + anchors.shape[1] * LOCAL_CODE
            local = identity_code[:, GLOBAL_CODE:end].unflatten(-1, (-1, LOCAL_CODE))
            combined = self.local_combiner(self.pos_enc(anchors) + local).flatten(1)
            return ExpressionCondition(self.global_combiner(torch.cat([identity_code[:, :GLOBAL_CODE], combined], dim=-1)))
        return ExpressionCondition(identity_code[:, :0])

    def forward(self, points: Tensor, expression: Tensor, condition: ExpressionCondition) -> Deformation:
        """Offsets of ``points`` (B, N, 3) for ``expression`` codes (B, E); the condition is of one subject, or of B."""
        told = self._told(points, expression, condition)
        x = points
        for n, (weight, bias) in enumerate(self._layers(told)):
            x = self._again(n, x, points)
            x = F.linear(x, weight) + bias
            if n < len(self.defDeepSDF) - 1:
                x = F.softplus(x, beta=SOFTPLUS_BETA)
        return Deformation(x[..., :3], x[..., 3:])

    def with_jacobian(self, points: Tensor, expression: Tensor, condition: ExpressionCondition) -> tuple[Deformation, Tensor]:
        """As ``forward``, and the derivative (B, N, 3, 3) of moved points x + offset(x) by x; entry [i, j] is of x_i by x_j.

        Three tangents go through the layers with the points, for the cost of three more points each.
        """
        told = self._told(points, expression, condition)
        identity = torch.eye(3, dtype=points.dtype, device=points.device)
        x, tangents = points, identity.expand(*points.shape[:2], 3, 3)
        first = tangents
        for n, (weight, bias) in enumerate(self._layers(told)):
            x, tangents = self._again(n, x, points), self._again(n, tangents, first)
            x, tangents = F.linear(x, weight) + bias, F.linear(tangents, weight)
            if n < len(self.defDeepSDF) - 1:
                tangents = tangents * torch.sigmoid(SOFTPLUS_BETA * x)[:, :, None]
                x = F.softplus(x, beta=SOFTPLUS_BETA)
        return Deformation(x[..., :3], x[..., 3:]), identity + tangents[..., :3].mT

    def _told(self, points: Tensor, expression: Tensor, condition: ExpressionCondition) -> Tensor:
        """(B, K + E): all inputs but the point; they are the same for all points of a batch item."""
        n_batch = len(points)
        if points.ndim != 3 or points.shape[-1] != 3 or expression.shape != (n_batch, self.n_expression):
            raise ValueError(
                f"points are (B, N, 3) and expression codes (B, {self.n_expression}), "
                f"got {tuple(points.shape)} and {tuple(expression.shape)}"
            )
        if len(condition.known) not in (1, n_batch):
            raise ValueError(
                f"the condition is of {len(condition.known)} subjects, the points are of {n_batch}: give 1 or {n_batch}"
            )
        return torch.cat([condition.known.expand(n_batch, -1), expression], dim=-1)

    def _layers(self, told: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Weights for what varies with the point, and biases (B, 1, out) that hold what does not, of each layer."""
        layers = []
        n_inputs = told.shape[1] + 3
        for n in range(len(self.defDeepSDF)):
            linear = self.defDeepSDF[f"lin{n}"]
            weight, bias = linear.weight, linear.bias
            if self._sees_input(n):
                weight = weight / math.sqrt(2)
            if n == 0 or self._sees_input(n):
                varying = weight.shape[1] - n_inputs + 3
                bias = F.linear(told, weight[:, varying:], bias)[:, None]
                weight = weight[:, :varying]
            layers.append((weight, bias))
        return layers

    def _sees_input(self, n: int) -> bool:
        return n > 0 and self.defDeepSDF[f"lin{n}"].in_features > self.defDeepSDF[f"lin{n - 1}"].out_features

    def _again(self, n: int, x: Tensor, points: Tensor) -> Tensor:
        return torch.cat([x, points], dim=-1) if self._sees_input(n) else x


def _two_layers(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs))
