"""A file with the keys and shapes of face-parsing.PyTorch's ``79999_iter.pth``, filled by a rule."""

from __future__ import annotations

from pathlib import Path

import torch

from tests.fitting.rule_weights import rule_state

Shapes = dict[str, tuple[int, ...]]


def official_shapes() -> Shapes:
    """Every entry of the published checkpoint."""
    shapes: Shapes = {}

    def convolution(key: str, out: int, channels: int, kernel: int) -> None:
        shapes[f"{key}.weight"] = (out, channels, kernel, kernel)

    def normalisation(key: str, channels: int) -> None:
        shapes.update({f"{key}.{name}": (channels,) for name in ("weight", "bias", "running_mean", "running_var")})
        shapes[f"{key}.num_batches_tracked"] = ()

    def both(key: str, out: int, channels: int, kernel: int) -> None:
        convolution(f"{key}.conv", out, channels, kernel)
        normalisation(f"{key}.bn", out)

    convolution("cp.resnet.conv1", 64, 3, 7)
    normalisation("cp.resnet.bn1", 64)
    before = 64
    for layer, width in enumerate((64, 128, 256, 512), 1):
        for block, channels in enumerate((before, width)):
            key = f"cp.resnet.layer{layer}.{block}"
            convolution(f"{key}.conv1", width, channels, 3)
            normalisation(f"{key}.bn1", width)
            convolution(f"{key}.conv2", width, width, 3)
            normalisation(f"{key}.bn2", width)
            if channels != width:
                convolution(f"{key}.downsample.0", width, channels, 1)
                normalisation(f"{key}.downsample.1", width)
        before = width
    for key, channels in (("cp.arm16", 256), ("cp.arm32", 512)):
        both(f"{key}.conv", 128, channels, 3)
        convolution(f"{key}.conv_atten", 128, 128, 1)
        normalisation(f"{key}.bn_atten", 128)
    both("cp.conv_head32", 128, 128, 3)
    both("cp.conv_head16", 128, 128, 3)
    both("cp.conv_avg", 128, 512, 1)
    both("ffm.convblk", 256, 256, 1)
    convolution("ffm.conv1", 64, 256, 1)
    convolution("ffm.conv2", 256, 64, 1)
    for key, channels, middle in (("conv_out", 256, 256), ("conv_out16", 128, 64), ("conv_out32", 128, 64)):
        both(f"{key}.conv", middle, channels, 3)
        convolution(f"{key}.conv_out", 19, middle, 1)
    return shapes


def write_face_parsing(folder: Path) -> Path:
    """``79999_iter.pth``: a bare state dict, as ``torch.save(net.state_dict())`` writes it."""
    path = folder / "79999_iter.pth"
    torch.save(rule_state(official_shapes(), gain=2**0.5), path)
    return path
