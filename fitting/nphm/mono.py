"""MonoNPHM's identity network: a canonical head as blended local fields of signed distance and colour.

Giebenhain et al., "MonoNPHM: Dynamic Head Reconstruction from Monocular Videos", CVPR 2024, §3. Against NPHM's network, it takes
two hyper coordinates beside the position, asks only the members nearest to a point, blends them with a width that follows their
distance, and has a second branch that predicts colour from what the first one found.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from manifests.model_file import Shape, WrongModelFile, check_shapes
from prep.weights import load_state

NEIGHBOURS = 12
"""Local members asked at a point: those of its nearest anchors. The global member is asked everywhere."""

REACH = 8
STEEPNESS = 3.75
"""The blending's standard deviation at a point is the distance of its ``REACH``-th nearest anchor over ``STEEPNESS``."""

GLOBAL_DISTANCE = 0.75
"""How far the global member counts as being from any point, in NPHM units."""


class MonoSizes(NamedTuple):
    """What the shapes of a checkpoint tell; the defaults are those of the published networks."""

    pairs: int = 30
    """Mirrored pairs of anchors, which come first, alternating sides. A pair's two members share their weights."""
    global_code: int = 64
    local_code: int = 32
    hyper: int = 2
    """Coordinates beside x, y, z, by which an expression reaches shapes that no warp of the neutral head has."""
    hidden: int = 200
    depth: int = 4
    """Hidden layers of the geometry branch, ``hidden`` wide."""
    color_hidden: int = 200
    color_depth: int = 4
    message: int = 16
    """Numbers that the geometry branch hands to the colour branch."""
    anchor_hidden: int = 64


class MonoCondition(NamedTuple):
    """What depends on codes alone, for S subjects and A anchors; see ``MonoIdentityNetwork.condition``."""

    code: Tensor
    """(S, C) the geometry codes."""
    anchors: Tensor
    """(S, A, 3) in NPHM units."""
    geometry: Tensor
    """(S, A + 1, hidden): what codes and anchors contribute to each member's first layer."""
    appearance: Tensor | None
    """(S, A + 1, color_hidden) likewise in the colour branch. ``None``: colour is not computed."""


class MonoField(NamedTuple):
    """The canonical head at B × N points."""

    sdf: Tensor
    """(B, N) signed distance in NPHM units, negative inside."""
    color: Tensor | None
    """(B, N, 3) RGB, -1 black to 1 full, not clipped. ``None`` if the condition has no appearance."""


class MonoIdentityNetwork(nn.Module):
    """Signed distance and colour of a canonical head, from a geometry and an appearance code.

    Either code is [global, local of anchor 0, …, local of anchor A - 1, local of the global member]; that makes
    64 + 66 · 32 = 2176 numbers in the published networks, in which the numbers of both kinds are equal. The anchors are the
    mean ones plus offsets that a small network reads from the global geometry code. The state dict has the published keys;
    the mean anchors are not in it.
    """

    mean_anchors: Tensor
    _mirror: Tensor
    _weight_set: Tensor

    def __init__(self, anchors: Tensor, sizes: MonoSizes | None = None):
        """``anchors`` (A, 3): the mean anchors in NPHM units. ``sizes`` default to the published ones."""
        super().__init__()
        self.sizes = sizes = sizes or MonoSizes()
        code = sizes.global_code + sizes.local_code
        n_sets = len(anchors) + 1 - sizes.pairs
        geometry = [code + 3 + sizes.hyper, *[sizes.hidden] * sizes.depth, 1]
        color = [code + sizes.message, *[sizes.color_hidden] * sizes.color_depth, 3]
        # Attributes are named as in the published checkpoints, spelling included.
        self.deepSDFensemble = _Ensemble(n_sets, sizes.pairs, geometry, nn.Softplus(beta=100))
        self.communcation_bottleneck1 = nn.Linear(sizes.hidden, sizes.message)
        self.communcation_bottleneck2 = nn.Linear(sizes.message, sizes.message)
        self.aggr_app = _Ensemble(n_sets, sizes.pairs, color, nn.ReLU())
        self.mlp_pos = nn.Sequential(
            nn.Linear(sizes.global_code, sizes.anchor_hidden),
            nn.ReLU(),
            nn.Linear(sizes.anchor_hidden, sizes.anchor_hidden),
            nn.ReLU(),
            nn.Linear(sizes.anchor_hidden, 3 * len(anchors)),
        )
        member = torch.arange(len(anchors) + 1)
        weight_set = torch.where(member < 2 * sizes.pairs, member // 2, member - sizes.pairs)
        mirror = torch.ones(len(member), 3)
        mirror[1 : 2 * sizes.pairs : 2, 0] = -1  # every second one of a pair sees its twin's side
        self.register_buffer("mean_anchors", anchors.detach().to(mirror.dtype), persistent=False)
        self.register_buffer("_mirror", mirror, persistent=False)
        self.register_buffer("_weight_set", weight_set, persistent=False)

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor], anchors: Tensor, path: Path | str = "the state dict") -> Self:
        """The network whose state dict is ``state``, with all sizes read from its shapes.

        ``anchors`` (A, 3) are the mean anchors that came with it, ``path`` is for messages. Raises ``WrongModelFile`` with every
        missing, unexpected and misshaped key.
        """
        network = cls(anchors, _sizes_of(state, len(anchors), path))
        load_state(network, state, path)
        return network

    @property
    def code_size(self) -> int:
        """Numbers in a code of either kind."""
        return self.sizes.global_code + len(self._mirror) * self.sizes.local_code

    def condition(self, geometry_code: Tensor, appearance_code: Tensor | None = None) -> MonoCondition:
        """What depends on codes alone, to be computed once for many points.

        ``geometry_code`` and ``appearance_code`` are (S, code_size), of S subjects. Without an appearance code no colour is
        computed; ``condition._replace(appearance=None)`` saves that work where only distance is wanted. Raises ``ValueError``
        for codes of another shape.
        """
        codes = self._member_codes(geometry_code, "geometry")
        anchors = self.mean_anchors + self.mlp_pos(geometry_code[:, : self.sizes.global_code]).unflatten(-1, (-1, 3))
        # A member sees the (mirrored) point minus its anchor, the global one the point itself.
        centres = F.pad(anchors, (0, 0, 0, 1)) * self._mirror
        geometry = self.deepSDFensemble.constants(torch.cat([codes, -centres], dim=-1), self._weight_set)
        if appearance_code is None:
            return MonoCondition(geometry_code, anchors, geometry, None)
        codes = self._member_codes(appearance_code, "appearance")
        return MonoCondition(geometry_code, anchors, geometry, self.aggr_app.constants(codes, self._weight_set))

    def forward(self, points: Tensor, hyper: Tensor, condition: MonoCondition) -> MonoField:
        """The canonical head at ``points`` (B, N, 3) in NPHM units, with hyper coordinates ``hyper`` (B, N, sizes.hyper).

        ``condition`` is of one subject, for all B, or of B. Where another anchor becomes a point's twelfth nearest, the field
        jumps a little: in and around a head that member weighs 0.0007 in the median, 0.05 at most. Raises ``ValueError`` for
        shapes that do not fit.
        """
        n_batch, n_points = points.shape[:2] if points.ndim == 3 else (-1, -1)
        if points.shape != (n_batch, n_points, 3) or hyper.shape != (n_batch, n_points, self.sizes.hyper):
            raise ValueError(
                f"points are (B, N, 3) and hyper coordinates (B, N, {self.sizes.hyper}), "
                f"got {tuple(points.shape)} and {tuple(hyper.shape)}"
            )
        n_subjects = len(condition.anchors)
        if n_subjects not in (1, n_batch):
            raise ValueError(f"the condition is of {n_subjects} subjects, the points are of {n_batch}: give 1 or {n_batch}")
        members, weights = _neighbourhood(points, condition.anchors)
        position = points[:, :, None] * self._mirror[members]
        inputs = torch.cat([position, hyper[:, :, None].expand(*members.shape, -1)], dim=-1)
        rows = self._group(members, n_subjects)
        values, features = self.deepSDFensemble(inputs.flatten(0, 2).index_select(0, rows.order), condition.geometry, rows)
        if condition.appearance is not None:
            message = self.communcation_bottleneck2(torch.relu(self.communcation_bottleneck1(torch.cat(features))))
            color, _ = self.aggr_app(message, condition.appearance, rows)
            values = torch.cat([values, color], dim=-1)
        values = torch.empty_like(values).index_copy(0, rows.order, values).unflatten(0, members.shape)
        blended = (weights[..., None] * values).sum(dim=2)
        return MonoField(blended[..., 0], None if condition.appearance is None else blended[..., 1:])

    def _member_codes(self, code: Tensor, kind: str) -> Tensor:
        """The (S, A + 1, global + local) inputs of the members in a code (S, code_size)."""
        if code.ndim != 2 or code.shape[1] != self.code_size:
            raise ValueError(f"{kind} codes are (S, {self.code_size}), got {tuple(code.shape)}")
        local = code[:, self.sizes.global_code :].unflatten(-1, (-1, self.sizes.local_code))
        return torch.cat([code[:, None, : self.sizes.global_code].expand(-1, local.shape[1], -1), local], dim=-1)

    def _group(self, members: Tensor, n_subjects: int) -> _Rows:
        """Sort the questions by weight set; ``members`` (B, N, K) are whom each point asks."""
        weight_set = self._weight_set[members]
        subject = torch.arange(n_subjects, device=members.device)[:, None, None]
        paired = members < 2 * self.sizes.pairs
        column = torch.where(paired, 2 * subject + members % 2, subject).flatten()
        order = weight_set.flatten().argsort()
        counts = torch.bincount(weight_set.flatten(), minlength=len(self._mirror) - self.sizes.pairs)
        return _Rows(order, column[order], counts.tolist())


class _Rows(NamedTuple):
    """The P = B · N · K questions of points to members, sorted by the weight set that answers them."""

    order: Tensor
    """(P,) where each row stood before."""
    column: Tensor
    """(P,) which of its weight set's constants a row has."""
    counts: list[int]
    """Rows of each weight set."""


class _Member(nn.Module):
    def __init__(self, widths: Sequence[int], activation: nn.Module):
        super().__init__()
        linears = [nn.Linear(before, after) for before, after in pairwise(widths)]
        self.layers = nn.Sequential(*[layer for linear in linears for layer in (linear, activation)][:-1])


class _Ensemble(nn.Module):
    """Small networks of one shape, one for each weight set; the first ``pairs`` sets serve two members, the others one."""

    def __init__(self, n_sets: int, pairs: int, widths: Sequence[int], activation: nn.Module):
        super().__init__()
        self.pairs = pairs
        self.last_hidden = 2 * (len(widths) - 3)
        self.layers = nn.ModuleList(_Member(widths, activation) for _ in range(n_sets))

    def constants(self, inputs: Tensor, weight_set: Tensor) -> Tensor:
        """What the first C inputs (S, M, C) of M members, and the bias, contribute to their first layers: (S, M, H)."""
        first = [member.layers[0] for member in self.layers]
        weight = torch.stack([linear.weight[:, : inputs.shape[-1]] for linear in first])[weight_set]
        bias = torch.stack([linear.bias for linear in first])[weight_set]
        return torch.einsum("smc,mhc->smh", inputs, weight) + bias

    def forward(self, inputs: Tensor, constants: Tensor, rows: _Rows) -> tuple[Tensor, list[Tensor]]:
        """The answers (P, out) to sorted ``inputs`` (P, I), which feed the last I columns of the first layer.

        Also returns, of each weight set, the last hidden layer before its activation.
        """
        n_subjects, _, width = constants.shape
        twins = constants[:, : 2 * self.pairs].reshape(n_subjects, self.pairs, 2, width)
        tables = [*twins.transpose(0, 1).flatten(1, 2), *constants[:, 2 * self.pairs :].unbind(1)]
        answers, features = [], []
        for member, table, x, column in zip(
            self.layers, tables, inputs.split(rows.counts), rows.column.split(rows.counts), strict=True
        ):
            # Constants are picked by a product with one-hot rows: cheap beside the rest, and unlike a gather it has a fast and
            # reproducible gradient where many rows share few constants.
            one_hot = F.one_hot(column, len(table)).to(x.dtype)
            first = torch.cat([member.layers[0].weight[:, -x.shape[1] :], table.T], dim=1)
            x = member.layers[1 : self.last_hidden + 1](F.linear(torch.cat([x, one_hot], dim=1), first))
            features.append(x)
            answers.append(member.layers[self.last_hidden + 1 :](x))
        return torch.cat(answers), features


def _neighbourhood(points: Tensor, anchors: Tensor) -> tuple[Tensor, Tensor]:
    """Whom ``points`` (B, N, 3) ask and how much each answer weighs: (B, N, K) members and weights, the global one last."""
    n_anchors = anchors.shape[1]
    squared = (points[:, :, None] - anchors[:, None]).square().sum(dim=-1)
    nearest = squared.topk(min(NEIGHBOURS, n_anchors), largest=False)
    variance = nearest.values[..., min(REACH, n_anchors) - 1, None] / STEEPNESS**2
    members = F.pad(nearest.indices, (0, 1), value=n_anchors)
    squared = F.pad(nearest.values, (0, 1), value=GLOBAL_DISTANCE**2)
    weights = torch.exp(-squared / (2 * variance))
    return members, weights / (weights.sum(dim=-1, keepdim=True) + 1e-8)


def _sizes_of(state: Mapping[str, Any], n_anchors: int, path: Path | str) -> MonoSizes:
    """The sizes in a state dict; raises ``WrongModelFile`` where its keys or shapes are not those of such a network."""
    shapes = {key.removeprefix("module."): tuple(value.shape) for key, value in state.items() if isinstance(value, Tensor)}
    if (moved := (shapes.get("mlp_pos.4.weight") or (3 * n_anchors,))[0]) != 3 * n_anchors:
        raise WrongModelFile(f"{path} has {moved / 3:g} anchors, {n_anchors} were given: take the file that came with it")
    published = MonoSizes()
    n_sets = _highest(r"(?:deepSDFensemble|aggr_app)\.layers\.(\d+)\.", shapes, n_anchors - published.pairs) + 1
    depth = _highest(r"deepSDFensemble\.layers\.\d+\.layers\.(\d+)\.", shapes, 2 * published.depth) // 2
    color_depth = _highest(r"aggr_app\.layers\.\d+\.layers\.(\d+)\.", shapes, 2 * published.color_depth) // 2
    expected = _linears("mlp_pos", ["global_code", "anchor_hidden", "anchor_hidden", 3 * n_anchors])
    for name, width in (("communcation_bottleneck1", "hidden"), ("communcation_bottleneck2", "message")):
        expected |= {f"{name}.weight": ("message", width), f"{name}.bias": ("message",)}
    for n in range(n_sets):
        expected |= _linears(f"deepSDFensemble.layers.{n}.layers", ["input", *["hidden"] * depth, 1])
        expected |= _linears(f"aggr_app.layers.{n}.layers", ["color_input", *["color_hidden"] * color_depth, 3])
    found = check_shapes(path, shapes, expected)
    n_inputs, n_color_inputs = found.pop("input"), found.pop("color_input")
    local_code = n_color_inputs - found["global_code"] - found["message"]
    hyper = n_inputs - found["global_code"] - local_code - 3
    sizes = MonoSizes(n_anchors + 1 - n_sets, local_code=local_code, hyper=hyper, depth=depth, color_depth=color_depth, **found)
    if not 0 <= 2 * sizes.pairs <= n_anchors or sizes.local_code < 1 or sizes.hyper < 0:
        raise WrongModelFile(
            f"{path} has {n_sets} weight sets with {n_inputs} and {n_color_inputs} inputs, which fit no network "
            f"with {n_anchors} anchors: is it MonoNPHM's id_decoder?"
        )
    return sizes


def _highest(pattern: str, keys: Iterable[str], default: int) -> int:
    """The highest number that ``pattern`` captures at the start of a key."""
    return max((int(found[1]) for key in keys if (found := re.match(pattern, key))), default=default)


def _linears(prefix: str, widths: Sequence[int | str]) -> dict[str, Shape]:
    """Keys and shapes of linear layers with an activation between any two."""
    shapes: dict[str, Shape] = {}
    for number, (before, after) in enumerate(pairwise(widths)):
        shapes |= {f"{prefix}.{2 * number}.weight": (after, before), f"{prefix}.{2 * number}.bias": (after,)}
    return shapes
