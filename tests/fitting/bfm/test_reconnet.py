"""The network is Deep3DFaceRecon's: its names, its numbers, its files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from fitting.bfm.coefficients import split
from fitting.bfm.reconnet import HEADS, Bottleneck, ReconNet, load_reconnet, predict
from manifests.model_file import WrongModelFile
from tests.fitting.bfm.files import reconnet_state, write_reconnet, write_sadtalker
from tests.fitting.bfm.recorded import RECORDED
from tests.fitting.rule_weights import assert_close, recorded_shapes, redraw, rule_state


@pytest.fixture(scope="module")
def network() -> ReconNet:
    """With weights of the rule and gain √2, with which the output follows the picture."""
    network = ReconNet()
    network.load_state_dict(reconnet_state(gain=float(np.sqrt(2))))
    return network.eval()


@pytest.fixture(scope="module")
def pictures() -> torch.Tensor:
    return torch.rand(3, 3, 224, 224, generator=torch.Generator().manual_seed(0))


def test_names_shapes_and_size_are_the_published_networks(network: ReconNet):
    assert {key: tuple(value.shape) for key, value in network.state_dict().items()} == recorded_shapes(RECORDED)
    assert sum(parameter.numel() for parameter in network.parameters()) == 24_034_625


@pytest.mark.parametrize("gain", ["", "_sqrt2"])
def test_coefficients_and_features_are_the_published_networks(gain: str):
    meta = str(RECORDED[f"net_meta{gain}"])
    network = ReconNet().eval()
    network.load_state_dict(rule_state(recorded_shapes(RECORDED), gain=json.loads(meta)["gain"]))
    image = torch.from_numpy(redraw(meta)["image"])
    with torch.inference_mode():
        features = network.backbone(image)
        assert_close(features.flatten(1), RECORDED[f"net_feature{gain}"], what="features")
        assert_close(network(image), RECORDED[f"net_coeffs{gain}"], what="coefficients")
    assert_close(
        predict(network.to(memory_format=torch.channels_last), image), RECORDED[f"net_coeffs{gain}"], what="channels last"
    )


def slow_convolution(x: np.ndarray, weight: np.ndarray, stride: int) -> np.ndarray:
    """(C, H, W) by (O, C, k, k), zero padding k // 2, one output at a time."""
    k = weight.shape[-1]
    padded = np.pad(x, ((0, 0), (k // 2, k // 2), (k // 2, k // 2)))
    height, width = -(-x.shape[1] // stride), -(-x.shape[2] // stride)
    out = np.zeros((len(weight), height, width))
    for o, i, j in np.ndindex(*out.shape):
        out[o, i, j] = (padded[:, stride * i : stride * i + k, stride * j : stride * j + k] * weight[o]).sum()
    return out


def slow_norm(x: np.ndarray, state: dict[str, np.ndarray], name: str) -> np.ndarray:
    mean, var, weight, bias = (state[f"{name}.{key}"][:, None, None] for key in ("running_mean", "running_var", "weight", "bias"))
    return (x - mean) / np.sqrt(var + 1e-5) * weight + bias


@pytest.mark.parametrize(("channels", "stride"), [(8, 1), (6, 1), (8, 2)])
def test_a_block_agrees_with_its_formula_written_slowly(channels: int, stride: int):
    """The stride is in the middle convolution; the shortcut is convolved only where size or channels change."""
    block = Bottleneck(channels, 2, stride).eval()
    block.load_state_dict(rule_state({key: tuple(value.shape) for key, value in block.state_dict().items()}, gain=1.4))
    assert ("downsample.0.weight" in block.state_dict()) == (channels != 8 or stride != 1)
    state = {key: value.double().numpy() for key, value in block.state_dict().items()}
    x = np.random.default_rng(0).normal(size=(channels, 7, 8))
    y = np.maximum(slow_norm(slow_convolution(x, state["conv1.weight"], 1), state, "bn1"), 0)
    y = np.maximum(slow_norm(slow_convolution(y, state["conv2.weight"], stride), state, "bn2"), 0)
    y = slow_norm(slow_convolution(y, state["conv3.weight"], 1), state, "bn3")
    if "downsample.0.weight" in state:
        x = slow_norm(slow_convolution(x, state["downsample.0.weight"], stride), state, "downsample.1")
    with torch.inference_mode():
        actual = block.double()(torch.from_numpy(np.random.default_rng(0).normal(size=(1, channels, 7, 8))))
    assert_close(actual[0], np.maximum(y + x, 0), 1e-10)


def test_the_outputs_are_the_heads_in_order_without_an_activation(network: ReconNet, pictures: torch.Tensor):
    with torch.inference_mode():
        features, coefficients = network.backbone(pictures[:1]), network(pictures[:1])
        starts = np.cumsum([0, *HEADS])
        for k, head in enumerate(network.final_layers):
            part = coefficients[0, starts[k] : starts[k + 1]]
            assert torch.allclose(part, head.weight[:, :, 0, 0] @ features.flatten() + head.bias, atol=1e-4)
    assert [part.shape[-1] for part in split(coefficients)] == [80, 64, 80, 3, 27, 3]
    assert coefficients.min() < 0 < coefficients.max()


def test_predicting_in_batches_changes_nothing(network: ReconNet, pictures: torch.Tensor):
    together = predict(network, pictures)
    assert together.shape == (3, 257)
    assert not together.requires_grad
    assert_close(predict(network, pictures, batch=2), together.numpy())
    assert_close(predict(network, pictures[1:2])[0], together[1].numpy())
    assert predict(network, pictures[:0]).shape == (0, 257)


def test_gradients_reach_the_picture(network: ReconNet, pictures: torch.Tensor):
    """Against a finite difference in float64, with batch normalisation's recorded statistics."""
    double, picture = ReconNet().double().eval(), pictures[:1].double()
    double.load_state_dict(network.state_dict())
    direction = torch.randn(picture.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    weights = torch.randn(257, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    wanted = picture.clone().requires_grad_()
    (gradient,) = torch.autograd.grad((double(wanted) * weights).sum(), wanted)
    with torch.inference_mode():
        slope = ((double(picture + 1e-8 * direction) - double(picture - 1e-8 * direction)) * weights).sum() / 2e-8
    assert torch.isclose((gradient * direction).sum(), slope, rtol=1e-4)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """Deep3DFaceRecon's checkpoint and SadTalker's safetensors with the same weights."""
    folder = tmp_path_factory.mktemp("networks")
    deep3d, sadtalker = write_reconnet(folder), write_sadtalker(folder)
    yield deep3d, sadtalker
    deep3d.unlink()
    sadtalker.unlink()


def test_both_files_hold_the_same_network(files: tuple[Path, Path], pictures: torch.Tensor):
    first, second = (load_reconnet(path) for path in files)
    assert not first.training
    expected = reconnet_state()
    for network in (first, second):
        assert all(torch.equal(value, expected[key]) for key, value in network.state_dict().items())
    assert torch.equal(predict(first, pictures[:1]), predict(second, pictures[:1]))


def test_keys_saved_from_data_parallel_are_read(tmp_path: Path):
    path = tmp_path / "epoch_20.pth"
    torch.save({"net_recon": {f"module.{key}": value for key, value in reconnet_state().items()}}, path)
    assert torch.equal(load_reconnet(path).final_layers[6].bias, reconnet_state()["final_layers.6.bias"])


def test_missing_unexpected_and_misshaped_layers_are_named(tmp_path: Path):
    state = reconnet_state()
    del state["backbone.layer2.3.bn3.weight"]
    state["backbone.fc.weight"] = torch.zeros(257, 2048)
    state["final_layers.4.bias"] = torch.zeros(9)
    torch.save({"net_recon": state}, tmp_path / "epoch_20.pth")
    with pytest.raises(WrongModelFile, match=r"epoch_20\.pth") as caught:
        load_reconnet(tmp_path / "epoch_20.pth")
    for words in (
        "missing backbone.layer2.3.bn3.weight",
        "unexpected backbone.fc.weight",
        "final_layers.4.bias is 9 instead of 27",
    ):
        assert words in str(caught.value)


def test_other_networks_are_refused(tmp_path: Path):
    torch.save({"net_recog": {}}, tmp_path / "arcface.pth")
    save_file({"audio2exp.mapping1.weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    for name in ("arcface.pth", "other.safetensors"):
        with pytest.raises(WrongModelFile, match=r"neither net_recon, .*, nor face_3drecon\.\*"):
            load_reconnet(tmp_path / name)
