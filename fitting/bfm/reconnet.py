"""Deep3DFaceRecon's network: a ResNet-50 that predicts the 257 coefficients from an aligned crop (Deng et al. 2019, §3.2).

The layout of the ResNet is torchvision's, with the stride in the 3×3 convolution, so that published weights load.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fitting.bfm.coefficients import N_COEFFICIENTS
from manifests.model_file import WrongModelFile
from prep.weights import load_state, load_weights

HEADS = (80, 64, 80, 3, 27, 2, 1)
"""Outputs of the heads: identity, expression, texture, angles, lighting, translation in x and y, in z."""

SADTALKER_PREFIX = "face_3drecon."


class Bottleneck(nn.Module):
    """1×1, 3×3, 1×1 convolutions around a shortcut (He et al. 2016)."""

    def __init__(self, channels: int, width: int, stride: int):
        super().__init__()
        out = 4 * width
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or channels != out:
            self.downsample = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return self.relu(y + self.downsample(x))  # type: ignore[no-any-return]


class ResNet50(nn.Module):
    """torchvision's ``resnet50`` without its last layer: pictures (B, 3, H, W) to features (B, 2048, 1, 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = _stage(64, 64, 3, stride=1)
        self.layer2 = _stage(256, 128, 4, stride=2)
        self.layer3 = _stage(512, 256, 6, stride=2)
        self.layer4 = _stage(1024, 512, 3, stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        return self.avgpool(self.layer4(self.layer3(self.layer2(self.layer1(x)))))  # type: ignore[no-any-return]


def _stage(channels: int, width: int, blocks: int, stride: int) -> nn.Sequential:
    first = Bottleneck(channels, width, stride)
    return nn.Sequential(first, *(Bottleneck(4 * width, width, 1) for _ in range(blocks - 1)))


class ReconNet(nn.Module):
    """Crops (B, 3, 224, 224), RGB in 0..1 without ImageNet's normalisation, to coefficients (B, 257)."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = ResNet50()
        self.final_layers = nn.ModuleList(nn.Conv2d(2048, size, 1) for size in HEADS)

    def forward(self, crops: Tensor) -> Tensor:
        features = self.backbone(crops)
        return torch.cat([head(features) for head in self.final_layers], dim=1).flatten(1)


def load_reconnet(path: Path | str) -> ReconNet:
    """The network, in evaluation mode, with the weights of Deep3DFaceRecon's ``epoch_20.pth`` or SadTalker's safetensors.

    Raises ``WrongModelFile`` when the file holds neither, or other layers.
    """
    weights = load_weights(path)
    network = ReconNet()
    state, prefix = _found(weights, path)
    load_state(network, state, path, prefix)
    # Channels last: 1.1 to 1.5 times as fast on a CPU, most with large batches; the numbers differ by rounding only.
    network.to(memory_format=torch.channels_last).eval()
    return network


def _found(weights: dict[str, Any], path: Path | str) -> tuple[dict[str, Any], str]:
    if isinstance(weights.get("net_recon"), dict):
        return weights["net_recon"], ""
    if any(key.startswith(SADTALKER_PREFIX) for key in weights):
        return weights, SADTALKER_PREFIX
    raise WrongModelFile(
        f"{path} has neither net_recon, as Deep3DFaceRecon's epoch_20.pth, nor {SADTALKER_PREFIX}*, as SadTalker's safetensors"
    )


@torch.inference_mode()
def predict(network: ReconNet, crops: Tensor, batch: int = 8) -> Tensor:
    """Coefficients (T, 257), without gradients, of ``crops`` (T, 3, 224, 224), ``batch`` at once on the network's device."""
    device = next(network.parameters()).device
    parts = [network(some.to(device)) for some in crops.split(batch)] if len(crops) else []
    return torch.cat(parts) if parts else torch.empty((0, N_COEFFICIENTS), device=device)
