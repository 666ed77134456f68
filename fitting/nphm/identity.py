"""NPHM's identity network: the signed distance of a canonical head, blended from small networks around anchors.

Giebenhain et al., "Learning Neural Parametric Head Models", CVPR 2023, §3.2, eq. 3 to 6. Each of 39 anchors on the face has a
member that sees points relative to it; a global member fills the space between. Members left and right of the face share
their weights: the right one sees mirrored points.

All that a member is told of the codes is constant over the points, so it is multiplied once and kept (``condition``). And
of the 40 members only those are asked whose weight at a point matters: near a face about eight.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from manifests.model_file import Shape, WrongModelFile, check_shapes
from prep.weights import load_state

STANDARD_DEVIATION = 0.1
"""Of the Gaussian around an anchor, times √2 of a usual one: its weight is exp(-d² / 0.1²), in NPHM units."""

GLOBAL_WEIGHT = math.exp(-20)
"""Weight of the global member before weights are normalised: exp(-0.2 / 0.1²), about 2e-9."""

FLOOR = 1e-6
"""Added to the sum of weights. It exceeds the global member's weight, so beyond about 0.37 units from every anchor all
weights, and with them the distance, fall to about zero: there the field says on which side a point is, not how far away."""

EPSILON = 1e-7
"""Members whose normalised weight at a point is at most this are not asked there."""

SOFTPLUS_BETA = 100.0


class Background(StrEnum):
    """What the global member counts as."""

    member = "member"
    """As it was trained, which is what the published code computes in either mode."""
    outside = "outside"
    """+1 everywhere: keeps space far from the head empty. The published evaluation mode means to do this; in fact it sets the
    last point of every batch."""


class IdentityCondition(NamedTuple):
    """What depends on codes alone, for S subjects; A anchors, M = A + 1 members, the global one last."""

    code: Tensor
    """(S, C) the codes."""
    anchors: Tensor
    """(S, A, 3) in NPHM units."""
    first: Tensor
    """(S, M, H) what code and anchor contribute to each member's first layer."""
    skip: Tensor
    """(S, M, H) likewise to the layer that sees the input again."""


class IdentityNetwork(nn.Module):
    """Signed distance (NPHM units, negative inside) of a canonical head for an identity code.

    The code is [global, local of anchor 0, …, local of the last anchor, local of the global member]: 64 + 40 · 32 = 1344
    numbers in the published network. The first ``2 · pairs`` anchors alternate between the sides of the face. The anchors are the
    mean ones plus offsets that a small network reads from the global code. The state dict has the published keys; the mean
    anchors are not in it. Works in float32 and float64 and on any device; can be differentiated twice.
    """

    mean_anchors: Tensor
    _mirror: Tensor

    def __init__(
        self,
        anchors: Tensor,
        *,
        pairs: int = 16,
        global_code: int = 64,
        local_code: int = 32,
        hidden: int = 200,
        anchor_hidden: int = 256,
    ):
        """``anchors`` (A, 3): the mean anchors in NPHM units. The sizes default to the published ones."""
        super().__init__()
        self.pairs, self.global_code, self.local_code = pairs, global_code, local_code
        n_members = len(anchors) + 1
        # Attributes are named as in the published checkpoints.
        self.ensembled_deep_sdf = _Ensemble(n_members - pairs, 3 + global_code + local_code, hidden)
        self.mlp_pos = nn.Sequential(
            nn.Linear(global_code, anchor_hidden),
            nn.ReLU(),
            nn.Linear(anchor_hidden, anchor_hidden),
            nn.ReLU(),
            nn.Linear(anchor_hidden, 3 * len(anchors)),
        )
        mirror = torch.ones(n_members, 3)
        mirror[1 : 2 * pairs : 2, 0] = -1
        self.register_buffer("mean_anchors", anchors.detach().to(mirror.dtype), persistent=False)
        self.register_buffer("_mirror", mirror, persistent=False)

    @classmethod
    def from_state(cls, state: Mapping[str, Any], anchors: Tensor, path: Path | str = "the state dict") -> Self:
        """The network with the weights ``state``, all sizes read from its shapes; ``path`` is for messages.

        Raises ``WrongModelFile`` with every missing, unexpected and misshaped key.
        """
        shapes = {key.removeprefix("module."): tuple(value.shape) for key, value in state.items() if isinstance(value, Tensor)}
        found = check_shapes(path, shapes, _shapes())
        n_members, n_codes = len(anchors) + 1, found["inputs"] - 3
        pairs, local_code = n_members - found["sets"], n_codes - found["global_code"]
        if found["anchor_numbers"] != 3 * len(anchors):
            raise WrongModelFile(
                f"{path} has {found['anchor_numbers'] / 3:g} anchors, {len(anchors)} were given: take those that came with it"
            )
        if not 0 <= 2 * pairs <= len(anchors) or local_code < 1 or found["narrowed"] != found["hidden"] - found["inputs"]:
            raise WrongModelFile(
                f"{path} has {found['sets']} weight sets with {found['inputs']} inputs, which fit no NPHM ensemble"
            )
        network = cls(
            anchors,
            pairs=pairs,
            global_code=found["global_code"],
            local_code=local_code,
            hidden=found["hidden"],
            anchor_hidden=found["anchor_hidden"],
        )
        load_state(network, state, path)
        return network

    @property
    def n_members(self) -> int:
        return len(self._mirror)

    @property
    def code_size(self) -> int:
        """Numbers in a code."""
        return self.global_code + self.n_members * self.local_code

    def condition(self, code: Tensor) -> IdentityCondition:
        """What depends on ``code`` (S, code_size) alone: compute it once, ask many points. Differentiable."""
        if code.ndim != 2 or code.shape[1] != self.code_size:
            raise ValueError(f"identity codes are (subjects, {self.code_size}), got {tuple(code.shape)}")
        local = code[:, self.global_code :].unflatten(-1, (self.n_members, self.local_code))
        known = torch.cat([code[:, None, : self.global_code].expand(-1, self.n_members, -1), local], dim=-1)
        anchors = self.mean_anchors + self.mlp_pos(code[:, : self.global_code]).unflatten(-1, (-1, 3))
        # A member sees the (mirrored) point minus its anchor; the global member sees the point itself.
        centres = F.pad(anchors, (0, 0, 0, 1)) * self._mirror
        inputs = torch.cat([-centres, known], dim=-1)
        first, skip = (
            torch.einsum("smi,mhi->smh", inputs, weight) + bias
            for weight, bias in self.ensembled_deep_sdf.of_members(self._weight_set())
        )
        return IdentityCondition(code, anchors, first, skip)

    def forward(
        self,
        points: Tensor,
        condition: IdentityCondition,
        *,
        background: Background = Background.member,
        epsilon: float = EPSILON,
        floor: float = FLOOR,
    ) -> Tensor:
        """Signed distance (B, N) at canonical ``points`` (B, N, 3) in NPHM units.

        ``condition`` is of one subject, for all B, or of B. Members whose normalised weight at a point is at most ``epsilon`` are
        left out, which changes the distance by at most 40 · epsilon times the largest member's value there; with 0 all are asked.
        ``floor`` 0 takes away the fall to zero far from the anchors, for whoever needs distances there.
        """
        n_batch, n_subjects = len(points), len(condition.anchors)
        if points.ndim != 3 or points.shape[-1] != 3 or n_subjects not in (1, n_batch):
            raise ValueError(
                f"points are (B, N, 3) with a condition of 1 or B subjects, got {tuple(points.shape)} and {n_subjects}"
            )
        weights = self.weights(points, condition, floor)
        asked = weights.detach() > epsilon if epsilon else torch.ones_like(weights, dtype=torch.bool)
        if background is Background.outside:
            asked[-1] = False
        values = torch.zeros_like(weights).masked_scatter(asked, self._ask(points, condition, asked))
        blended = (weights * values).sum(dim=0)
        return blended + weights[-1] if background is Background.outside else blended

    def weights(self, points: Tensor, condition: IdentityCondition, floor: float = FLOOR) -> Tensor:
        """How much each member counts at ``points`` (B, N, 3): (M, B, N), eq. 5 and 6."""
        # The published 1e-5 keeps the root differentiable at an anchor; so does adding it below the root.
        squared = (points - condition.anchors.transpose(0, 1)[:, :, None]).square().sum(dim=-1)
        near = torch.exp(-((squared.clamp(min=1e-20).sqrt() + 1e-5) ** 2) / STANDARD_DEVIATION**2)
        weights = torch.cat([near, torch.full_like(near[:1], GLOBAL_WEIGHT)])
        return weights / (weights.sum(dim=0) + floor)

    def member_values(self, points: Tensor, condition: IdentityCondition) -> Tensor:
        """What every member says at every one of ``points`` (B, N, 3), before blending: (M, B, N)."""
        everywhere = torch.ones(self.n_members, *points.shape[:2], dtype=torch.bool, device=points.device)
        return self._ask(points, condition, everywhere).unflatten(0, everywhere.shape)

    def _weight_set(self) -> Tensor:
        """Which weights each member has (M,): the two of a pair share theirs."""
        member = torch.arange(self.n_members, device=self._mirror.device)
        return torch.where(member < 2 * self.pairs, member // 2, member - self.pairs)

    def _ask(self, points: Tensor, condition: IdentityCondition, asked: Tensor) -> Tensor:
        """The values (P,) of the members at the points where ``asked`` (M, B, N), in its order."""
        n_batch, n_points = points.shape[:2]
        where = asked.flatten().nonzero()[:, 0]
        member, point = where.div(n_batch * n_points, rounding_mode="floor"), where % (n_batch * n_points)
        seen = points.flatten(0, 1)[point] * self._mirror[member]
        # Rows of a weight set lie together. Each picks its constants, those of its member and subject, by a product with a
        # one-hot row: cheap beside the rest and, unlike a gather, with a fast and reproducible gradient.
        n_subjects = len(condition.anchors)
        subject = torch.zeros_like(point) if n_subjects == 1 else point.div(n_points, rounding_mode="floor")
        ends = torch.tensor([2 * (n + 1) if n < self.pairs else n + 1 + self.pairs for n in range(self.n_members - self.pairs)])
        counts = asked.flatten(1).sum(dim=1).cumsum(0).cpu()[ends - 1].diff(prepend=torch.zeros(1, dtype=torch.int64)).tolist()
        values, start = [seen[:0, 0]], 0
        for n_set, count in enumerate(counts):
            rows, start = slice(start, start + count), start + count
            if not count:
                continue
            members = slice(2 * n_set, 2 * n_set + 2) if n_set < self.pairs else slice(n_set + self.pairs, n_set + self.pairs + 1)
            tables = [constants[:, members].flatten(0, 1) for constants in (condition.first, condition.skip)]
            n_of_set = members.stop - members.start
            chosen = F.one_hot(subject[rows] * n_of_set + member[rows] - members.start, len(tables[0])).to(seen.dtype)
            inputs = torch.cat([seen[rows], chosen], dim=-1)
            values.append(self.ensembled_deep_sdf(n_set, inputs, *tables))
        return torch.cat(values)


class _Linears(nn.Module):
    """One linear layer for each weight set."""

    def __init__(self, n_sets: int, inputs: int, outputs: int):
        super().__init__()
        bound = 1 / math.sqrt(inputs)
        self.weight = nn.Parameter(torch.empty(n_sets, outputs, inputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(n_sets, outputs).uniform_(-bound, bound))


class _Ensemble(nn.Module):
    """DeepSDF networks of four hidden layers, one for each weight set; the third sees the input again (a skip, over √2)."""

    def __init__(self, n_sets: int, inputs: int, hidden: int):
        super().__init__()
        self.lin0 = _Linears(n_sets, inputs, hidden)
        self.lin1 = _Linears(n_sets, hidden, hidden - inputs)
        self.lin2 = _Linears(n_sets, hidden, hidden)
        self.lin3 = _Linears(n_sets, hidden, hidden)
        self.lin4 = _Linears(n_sets, hidden, 1)

    def of_members(self, weight_set: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Weights (M, H, I) that the input meets in the first and in the skip layer, and their biases (M, H)."""
        narrowed = self.lin1.bias.shape[1]
        skip = self.lin2.weight[:, :, narrowed:] / math.sqrt(2)
        return [(self.lin0.weight[weight_set], self.lin0.bias[weight_set]), (skip[weight_set], self.lin2.bias[weight_set])]

    def forward(self, n_set: int, inputs: Tensor, first: Tensor, skip: Tensor) -> Tensor:
        """Values (P,) of ``inputs`` (P, 3 + T): positions, and which of the T constants ``first`` and ``skip`` (T, H) to add."""
        narrowed = self.lin1.bias.shape[1]
        w0, w2 = self.lin0.weight[n_set, :, :3], self.lin2.weight[n_set] / math.sqrt(2)
        x = _softplus(F.linear(inputs, torch.cat([w0, first.T], dim=1)))
        x = _softplus(F.linear(x, self.lin1.weight[n_set], self.lin1.bias[n_set]))
        again = torch.cat([w2[:, :narrowed], w2[:, narrowed : narrowed + 3], skip.T], dim=1)
        x = _softplus(F.linear(torch.cat([x, inputs], dim=1), again))
        x = _softplus(F.linear(x, self.lin3.weight[n_set], self.lin3.bias[n_set]))
        return F.linear(x, self.lin4.weight[n_set], self.lin4.bias[n_set])[:, 0]


def _softplus(x: Tensor) -> Tensor:
    return F.softplus(x, beta=SOFTPLUS_BETA)


def _shapes() -> dict[str, Shape]:
    widths = ("inputs", "hidden", "narrowed", "hidden", "hidden", 1)
    shapes: dict[str, Shape] = {}
    for layer in range(5):
        inputs = "hidden" if layer else "inputs"
        output = widths[layer + 1]
        shapes[f"ensembled_deep_sdf.lin{layer}.weight"] = ("sets", output, inputs)
        shapes[f"ensembled_deep_sdf.lin{layer}.bias"] = ("sets", output)
    for layer, (before, after) in zip(
        (0, 2, 4),
        (("global_code", "anchor_hidden"), ("anchor_hidden", "anchor_hidden"), ("anchor_hidden", "anchor_numbers")),
        strict=True,
    ):
        shapes[f"mlp_pos.{layer}.weight"] = (after, before)
        shapes[f"mlp_pos.{layer}.bias"] = (after,)
    return shapes
