"""The family's NPHM in the layout of the official files, from the weights that ship with headloom.

The shipped networks are narrower than the published ones (128 wide instead of 200, 176 instead of 512); codes, anchors and the
tensors' names are as published. The surface is that of ``nphm_truth``: skin, lids over eyeballs, lips, and no teeth.

How far they are from the family, in millimetres, on people and expressions that training did not see (``nphm_errors``, written to
``weights/nphm_small.json``):

=============================================================  ======  ============
                                                                 mean  95 percent
=============================================================  ======  ============
mesh and true skin, both ways, face, forward network             0.37          0.98
the same, backward network                                       0.38          1.00
the same, the whole head, forward network                        0.46          1.27
identity: distance given at the true canonical skin, face        0.30          0.79
forward: places of the face's vertices (unmoved 2.06, 9.31)      0.17          0.57
backward: the same, on the way back                              0.22          0.67
opening of the mouth                                             0.26          0.74
opening of the eyes                                              0.30          1.06
shut eyes                                                        0.67          1.06
=============================================================  ======  ============

Meshes are of 128 points each way. A mouth opens by 1.005 times the true opening. What the identity network smooths away are
details of about a millimetre: the lids' edges, nostrils, the folds of ears and single strands of brows; and it webs the corners
of the mouth, so that open mouths look narrower than they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fitting.nphm.expression import Direction, ExpressionNetwork
from fitting.nphm.files import DECODER, DIRECTION
from fitting.nphm.identity import IdentityNetwork
from fitting.studio.nphm_codes import (
    ANCHORS,
    EXPRESSION_SCALE,
    GLOBAL,
    GLOBAL_SCALE,
    IDENTITY_CODE,
    KNOWN,
    LOCAL,
    anchors,
    known_map,
    nphm_expression,
    nphm_identity,
    spread,
)
from fitting.studio.nphm_truth import head_surface, random_controls
from fitting.studio.surface import Floats
from manifests.atomic import whole_file
from prep.weights import load_weights

__all__ = ["Networks", "nphm_expression", "nphm_identity", "shipped", "write_networks", "write_nphm"]

WEIGHTS = Path(__file__).parent / "weights" / "nphm_small.safetensors"

GLOBAL_GAIN, LOCAL_GAIN, KNOWN_GAIN = 5.0, 4.0, 10.0
"""Networks are trained on codes times these, so that all inputs are of one size; the files' weights have them multiplied in."""

TRAINING_PEOPLE, TRAINING_EXPRESSIONS = 1001, 1002
"""Seeds of ``HeadFamily.people`` and ``random_controls`` in training. The studio's own people have others."""
TABLED_PEOPLE, TABLED_EXPRESSIONS = 300, 1000
"""Rows of the tables of codes: the first people of the training, and expressions drawn as those were."""


class Networks(NamedTuple):
    """The three networks, for codes as ``nphm_identity`` and ``nphm_expression`` give them."""

    identity: IdentityNetwork
    forward: ExpressionNetwork
    backward: ExpressionNetwork


@lru_cache
def shipped() -> Networks:
    """The small networks that come with headloom."""
    return networks_of(load_weights(WEIGHTS))


def write_nphm(folder: Path) -> dict[str, Path]:
    """Write the shipped networks in the official layout; returns the paths by the names of ``manifests.assets``."""
    return write_networks(shipped(), folder)


def write_networks(networks: Networks, folder: Path) -> dict[str, Path]:
    """Write networks and what goes with them into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {
        "nphm-identity": folder / "checkpoint_epoch_15000.tar",
        "nphm-expression": folder / "checkpoint_epoch_2500.tar",
        "nphm-backward": folder / "nphm_backward.tar",
        "nphm-anchors": folder / "anchors_39.npy",
        "nphm-code-mean": folder / "nphm_lat_mean.npy",
        "nphm-code-std": folder / "nphm_lat_std.npy",
    }
    table = nphm_identity(head_surface().family.people(TABLED_PEOPLE, TRAINING_PEOPLE)).astype(np.float32)
    performance = random_controls(np.random.default_rng(TRAINING_EXPRESSIONS), TABLED_EXPRESSIONS)
    expressions = nphm_expression(performance.expression, performance.jaw).astype(np.float32)
    _checkpoint(paths["nphm-identity"], networks.identity, table)
    _checkpoint(paths["nphm-expression"], networks.forward, expressions)
    _checkpoint(paths["nphm-backward"], networks.backward, expressions)
    for name, array in (("anchors", anchors().mean), ("code-mean", table.mean(axis=0)), ("code-std", table.std(axis=0))):
        with whole_file(paths[f"nphm-{name}"]) as file:
            np.save(file, array.astype(np.float32))
    return paths


def _checkpoint(path: Path, network: IdentityNetwork | ExpressionNetwork, table: Floats) -> None:
    held: dict[str, Any] = {
        DECODER: dict(network.state_dict()),
        "latent_codes_state_dict": {"weight": torch.from_numpy(table)},
    }
    if isinstance(network, ExpressionNetwork):
        held[DIRECTION] = network.direction.value
    with whole_file(path) as file:
        torch.save(held, file)


def networks_of(weights: Mapping[str, Any]) -> Networks:
    """The networks of weights as training keeps them (float16, on scaled codes), fit for the official codes."""
    parts: dict[str, dict[str, Tensor]] = {"identity": {}, "forward": {}, "backward": {}}
    for key, value in weights.items():
        part, name = key.split(".", 1)
        parts[part][name] = value.float()
    return Networks(
        official_identity(parts["identity"]),
        official_expression(parts["forward"], Direction.forward),
        official_expression(parts["backward"], Direction.backward),
    )


def mean_anchors() -> Tensor:
    """(39, 3) float32."""
    return torch.from_numpy(anchors().mean).float()


def position_layers() -> dict[str, Tensor]:
    """``mlp_pos`` for codes times ``GLOBAL_GAIN``: anchors are linear in the global code, so it is written down, not trained.

    Numbers of a code are raised by eight standard deviations, so that no ReLU cuts them off, and lowered again in the last layer.
    """
    raised = 8 * GLOBAL_GAIN * GLOBAL_SCALE
    last = torch.from_numpy(anchors().directions.reshape(GLOBAL, -1).T / (GLOBAL_GAIN * GLOBAL_SCALE)).float()
    one = torch.eye(GLOBAL)
    lift = torch.full((GLOBAL,), raised)
    return {
        "mlp_pos.0.weight": one,
        "mlp_pos.0.bias": lift,
        "mlp_pos.2.weight": one.clone(),
        "mlp_pos.2.bias": torch.zeros(GLOBAL),
        "mlp_pos.4.weight": last,
        "mlp_pos.4.bias": -last @ lift,
    }


def official_identity(trained: Mapping[str, Tensor]) -> IdentityNetwork:
    """The identity network for unscaled codes of weights that were trained on scaled ones; they need no ``mlp_pos``."""
    state = {**trained, **position_layers()}
    gain = torch.cat([torch.ones(3), torch.full((GLOBAL,), GLOBAL_GAIN), torch.full((LOCAL,), LOCAL_GAIN)])
    state["ensembled_deep_sdf.lin0.weight"] = state["ensembled_deep_sdf.lin0.weight"] * gain
    again = state["ensembled_deep_sdf.lin2.weight"].clone()
    again[:, :, -len(gain) :] *= gain
    state["ensembled_deep_sdf.lin2.weight"] = again
    state["mlp_pos.0.weight"] = GLOBAL_GAIN * state["mlp_pos.0.weight"]
    network = IdentityNetwork.from_state(state, mean_anchors())
    network.requires_grad_(False)
    return network


def known(identity: Floats) -> Floats:
    """(N, 32) what an expression network is told of people (N, 300)."""
    found: Floats = KNOWN_GAIN * identity[:, :GLOBAL] @ known_map().T
    return found


def official_expression(trained: Mapping[str, Tensor], direction: Direction) -> ExpressionNetwork:
    """The expression network for official codes of weights that were trained on ``known`` and ``controls_vector``."""
    state = dict(trained)
    widen = torch.from_numpy(spread().T / EXPRESSION_SCALE).float()
    n_controls = len(widen)
    n_inputs = 3 + KNOWN + n_controls
    for layer in _layers_that_see_the_input(trained, n_inputs):
        weight = state[f"defDeepSDF.lin{layer}.weight"]
        state[f"defDeepSDF.lin{layer}.weight"] = torch.cat([weight[:, :-n_controls], weight[:, -n_controls:] @ widen], dim=1)
    compress = torch.zeros(KNOWN, IDENTITY_CODE + 3 * ANCHORS)
    compress[:, :GLOBAL] = torch.from_numpy(KNOWN_GAIN * known_map() / GLOBAL_SCALE).float()
    state |= {"compressor.0.weight": compress, "compressor.0.bias": torch.zeros(KNOWN)}
    network = ExpressionNetwork.from_state(state, direction=direction)
    network.requires_grad_(False)
    return network


def _layers_that_see_the_input(state: Mapping[str, Tensor], n_inputs: int) -> list[int]:
    """The first, and those that take more than the one before gives."""
    weights = [state[f"defDeepSDF.lin{n}.weight"] for n in range(sum(key.endswith(".weight") for key in state))]
    return [n for n, weight in enumerate(weights) if n == 0 or weight.shape[1] == len(weights[n - 1]) + n_inputs]
