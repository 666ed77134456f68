"""Checkpoints in the published layout load; what is missing, unexpected, misshaped or another network is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fitting.nphm import (
    Direction,
    load_anchors,
    load_code_statistic,
    load_codes,
    load_expression,
    load_identity,
    save_expression,
)
from manifests.model_file import WrongModelFile
from tests.fitting.nphm.files import (
    checkpoint,
    expression_shapes,
    random_anchors,
    write_anchors,
    write_expression,
    write_identity,
    write_statistics,
)
from tests.fitting.nphm.heads import draw, draw_points, small_expression
from tests.fitting.nphm.mono_files import write_mononphm
from tests.fitting.rule_weights import rule_state


def test_published_checkpoints_load(tmp_path: Path) -> None:
    identity = load_identity(write_identity(tmp_path), write_anchors(tmp_path))
    assert (identity.n_members, identity.code_size) == (40, 1344)
    np.testing.assert_allclose(identity.mean_anchors, random_anchors(), atol=1e-6)
    expression = load_expression(write_expression(tmp_path))
    assert (expression.n_expression, expression.direction) == (200, Direction.forward)
    assert not any(weights.requires_grad for network in (identity, expression) for weights in network.parameters())
    tables = load_codes(tmp_path / "checkpoint_epoch_15000.tar")
    assert tables.training.shape == (12, 1344)
    assert tables.validation.shape == (3, 1344)
    mean, std = (load_code_statistic(path) for path in write_statistics(tmp_path))
    assert mean.shape == std.shape == (1344,)


def test_weights_alone_are_enough(tmp_path: Path) -> None:
    torch.save({"decoder_state_dict": rule_state(expression_shapes())}, tmp_path / "weights.tar")
    assert load_expression(tmp_path / "weights.tar").n_known == 32
    assert load_codes(tmp_path / "weights.tar") == (None, None)


def test_codes_are_named_by_the_user_and_counted(tmp_path: Path) -> None:
    tables = load_codes(write_identity(tmp_path))
    named = tables.of([f"{n:03d}" for n in range(12)])
    assert torch.equal(named["003"], tables.training[3])
    with pytest.raises(ValueError, match="11 names were given for 12 training codes"):
        tables.of([f"{n:03d}" for n in range(11)])


def test_codes_are_as_the_published_embedding_gives_them(tmp_path: Path) -> None:
    table = torch.randn(5, 1344) * torch.tensor([0.001, 0.01, 0.1, 1, 10])[:, None]
    torch.save({"decoder_state_dict": {}, "latent_codes_state_dict": {"weight": table}}, tmp_path / "c.tar")
    published = torch.nn.Embedding(5, 1344, max_norm=1.0)
    published.load_state_dict({"weight": table})
    torch.testing.assert_close(load_codes(tmp_path / "c.tar").training, published(torch.arange(5)).detach())


def test_one_network_is_not_taken_for_the_other(tmp_path: Path) -> None:
    identity, expression, anchors = write_identity(tmp_path), write_expression(tmp_path), write_anchors(tmp_path)
    with pytest.raises(WrongModelFile, match="holds an expression network, not an identity network: give the other checkpoint"):
        load_identity(expression, anchors)
    with pytest.raises(WrongModelFile, match="holds an identity network, not an expression network"):
        load_expression(identity)
    with pytest.raises(WrongModelFile, match=r"is a MonoNPHM checkpoint: load it with fitting\.nphm\.load_mononphm"):
        load_expression(write_mononphm(tmp_path))
    torch.save({"decoder_state_dict": {"conv.weight": torch.zeros(1)}}, tmp_path / "other.tar")
    with pytest.raises(WrongModelFile, match="holds neither of NPHM's networks"):
        load_expression(tmp_path / "other.tar")
    torch.save({"net_recon": {}}, tmp_path / "other.tar")
    with pytest.raises(WrongModelFile, match="has no decoder_state_dict, but net_recon"):
        load_expression(tmp_path / "other.tar")


def test_wrong_keys_and_shapes_are_named(tmp_path: Path) -> None:
    state = rule_state(expression_shapes())
    state["defDeepSDF.lin7.weight"] = torch.zeros(3, 3)
    del state["compressor.0.bias"]
    torch.save(checkpoint(state, 200, epoch=2500), tmp_path / "c.tar")
    with pytest.raises(WrongModelFile, match=r"c.tar .* missing defDeepSDF.lin7.bias, compressor.0.bias"):
        load_expression(tmp_path / "c.tar")
    torch.save(checkpoint(rule_state(expression_shapes()), 200, epoch=2500) | {"extra": 1}, tmp_path / "c.tar")
    with pytest.raises(WrongModelFile, match="unexpected extra"):
        load_expression(tmp_path / "c.tar")
    torch.save({"decoder_state_dict": {}, "latent_codes_state_dict": {}}, tmp_path / "c.tar")
    with pytest.raises(WrongModelFile, match="latent_codes_state_dict, does not hold what it should: missing weight"):
        load_codes(tmp_path / "c.tar")
    torch.save({"decoder_state_dict": {}, "latent_codes_state_dict": {"weight": [1.0]}}, tmp_path / "c.tar")
    with pytest.raises(WrongModelFile, match="latent_codes_state_dict, does not hold what it should: missing weight"):
        load_codes(tmp_path / "c.tar")
    for said in ("sideways", 3, ["backward"]):
        torch.save({"decoder_state_dict": rule_state(expression_shapes()), "direction": said}, tmp_path / "c.tar")
        with pytest.raises(WrongModelFile, match=r"its direction is .*, which is neither forward nor backward"):
            load_expression(tmp_path / "c.tar")


def test_anchors_are_checked(tmp_path: Path) -> None:
    np.save(tmp_path / "anchors_39.npy", np.zeros((39, 2)))
    with pytest.raises(WrongModelFile, match="anchors is 39×2 instead of anchors×3"):
        load_anchors(tmp_path / "anchors_39.npy")
    np.save(tmp_path / "anchors_39.npy", np.full((39, 3), np.nan))
    with pytest.raises(WrongModelFile, match="not all finite"):
        load_anchors(tmp_path / "anchors_39.npy")
    np.save(tmp_path / "anchors_39.npy", np.zeros((38, 3)))
    with pytest.raises(WrongModelFile, match="has 39 anchors, 38 were given"):
        load_identity(write_identity(tmp_path), tmp_path / "anchors_39.npy")


def test_the_direction_travels_with_the_files_that_headloom_writes(tmp_path: Path) -> None:
    network = small_expression(Direction.backward)
    save_expression(network, tmp_path / "backward.tar", distilled_from="nphm_expression.tar", error_mm=0.4)
    again = load_expression(tmp_path / "backward.tar").double()
    assert again.direction is Direction.backward
    arguments = draw_points(1, 5), draw(1, 6)
    known = draw(1, 45), draw(1, 9, 3)
    expected = network(*arguments, network.condition(*known)).offset
    torch.testing.assert_close(again(*arguments, again.condition(*known)).offset, expected)
    assert torch.load(tmp_path / "backward.tar", weights_only=True)["provenance"]["error_mm"] == 0.4
    with pytest.raises(WrongModelFile, match="says that it goes backward, forward was asked for"):
        load_expression(tmp_path / "backward.tar", "forward")
    published = write_expression(tmp_path)
    assert load_expression(published, "backward").direction is Direction.backward
