"""What each pixel of a face shows: BiSeNet (Yu et al., *Bilateral segmentation network*, ECCV 2018) with CelebAMask-HQ's classes.

The network and its keys are those of the published checkpoint ``79999_iter.pth`` (zllrunning/face-parsing.PyTorch): a ResNet-18
is the context path, and its features at an eighth of the size stand in for the paper's spatial path.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import interpolate, relu

from prep.weights import load_state, load_weights

CLASSES = (
    *("background", "skin", "left_brow", "right_brow", "left_eye", "right_eye", "glasses", "left_ear", "right_ear", "earring"),
    *("nose", "mouth", "upper_lip", "lower_lip", "neck", "necklace", "cloth", "hair", "hat"),
)
"""What ``parse_faces`` counts; "mouth" is its inside."""

FACE = ("skin", "left_brow", "right_brow", "left_eye", "right_eye", "nose", "mouth", "upper_lip", "lower_lip")
"""The classes of the facial area (FaceTalk, supplement D, does not name them): what moves with the face and is the person's own.

Ears are left out, as FLAME's face region leaves them out; so are the neck, hair and what is worn, glasses too. The inside of
the mouth stays: head models have one, and the edge of the lips would suffer from a hole beside it.
"""

SIDE = 512
"""Side in pixels of what the network was trained on."""

_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class _Convolution(nn.Module):
    """A convolution that keeps the size, with batch normalisation and ReLU."""

    def __init__(self, channels: int, out: int, kernel: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, out, kernel, padding=kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(out)

    def forward(self, x: Tensor) -> Tensor:
        return relu(self.bn(self.conv(x)))


class _Block(nn.Module):
    """Two 3×3 convolutions around a shortcut (He et al. 2016)."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or channels != out:
            self.downsample = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(relu(self.bn1(self.conv1(x)))))
        return relu(y + self.downsample(x))


class _ResNet18(nn.Module):
    """Features at an eighth (128 channels), a sixteenth (256) and a thirty-second (512) of the size."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = nn.Sequential(_Block(64, 64, 1), _Block(64, 64, 1))
        self.layer2 = nn.Sequential(_Block(64, 128, 2), _Block(128, 128, 1))
        self.layer3 = nn.Sequential(_Block(128, 256, 2), _Block(256, 256, 1))
        self.layer4 = nn.Sequential(_Block(256, 512, 2), _Block(512, 512, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        eighth = self.layer2(self.layer1(self.maxpool(relu(self.bn1(self.conv1(x))))))
        sixteenth = self.layer3(eighth)
        return eighth, sixteenth, self.layer4(sixteenth)


class _Attention(nn.Module):
    """The attention refinement module (ibid., §3.2): channels weighted by what the whole picture shows."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.conv = _Convolution(channels, out)
        self.conv_atten = nn.Conv2d(out, out, 1, bias=False)
        self.bn_atten = nn.BatchNorm2d(out)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x * torch.sigmoid(self.bn_atten(self.conv_atten(_mean(x))))


class _ContextPath(nn.Module):
    """Features with the whole picture in view: (B, 128) at an eighth of the size, beside the ResNet's own."""

    def __init__(self) -> None:
        super().__init__()
        self.resnet = _ResNet18()
        self.arm16 = _Attention(256, 128)
        self.arm32 = _Attention(512, 128)
        self.conv_head32 = _Convolution(128, 128)
        self.conv_head16 = _Convolution(128, 128)
        self.conv_avg = _Convolution(512, 128, kernel=1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        eighth, sixteenth, thirty_second = self.resnet(x)
        context = self.arm32(thirty_second) + self.conv_avg(_mean(thirty_second))
        context = self.conv_head32(interpolate(context, sixteenth.shape[-2:]))
        context = self.arm16(sixteenth) + context
        return eighth, self.conv_head16(interpolate(context, eighth.shape[-2:]))


class _Fusion(nn.Module):
    """The feature fusion module (ibid., §3.3)."""

    def __init__(self) -> None:
        super().__init__()
        self.convblk = _Convolution(256, 256, kernel=1)
        self.conv1 = nn.Conv2d(256, 64, 1, bias=False)
        self.conv2 = nn.Conv2d(64, 256, 1, bias=False)

    def forward(self, own: Tensor, context: Tensor) -> Tensor:
        x = self.convblk(torch.cat([own, context], dim=1))
        return x + x * torch.sigmoid(self.conv2(relu(self.conv1(_mean(x)))))


class _Output(nn.Module):
    def __init__(self, channels: int, middle: int) -> None:
        super().__init__()
        self.conv = _Convolution(channels, middle)
        self.conv_out = nn.Conv2d(middle, len(CLASSES), 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_out(self.conv(x))  # type: ignore[no-any-return]


class BiSeNet(nn.Module):
    """Pictures (B, 3, H, W), RGB with ImageNet's normalisation, to logits (B, 19, H, W); H and W multiples of 32.

    ``conv_out16`` and ``conv_out32`` helped in training only; they are here because the checkpoint has them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.cp = _ContextPath()
        self.ffm = _Fusion()
        self.conv_out = _Output(256, 256)
        self.conv_out16 = _Output(128, 64)
        self.conv_out32 = _Output(128, 64)

    def forward(self, pictures: Tensor) -> Tensor:
        logits = self.conv_out(self.ffm(*self.cp(pictures)))
        return interpolate(logits, pictures.shape[-2:], mode="bilinear", align_corners=True)


def load_face_parsing(path: Path | str) -> BiSeNet:
    """The network, in evaluation mode, with the weights of ``79999_iter.pth``.

    Raises ``WrongModelFile`` when the file holds other layers.
    """
    network = BiSeNet()
    load_state(network, load_weights(path), path)
    network.eval()
    return network


@torch.inference_mode()
def parse_faces(
    network: BiSeNet, pictures: NDArray[np.uint8], crops: NDArray[np.int64] | None = None, batch: int = 4
) -> NDArray[np.uint8]:
    """Labels (N, H, W), numbers in ``CLASSES``, of ``pictures`` (N, H, W, 3) RGB, ``batch`` at once on the network's device.

    ``crops`` (N, 4) are squares x0 y0 x1 y1 in pixels that show the whole head, the face about half as high (as the pictures that
    the network was trained on): only they are looked at, and around them is background. They may reach beyond the picture, which
    is black there. Without crops whole pictures are. Both are resized to 512 × 512, and labels back to the nearest. Raises
    ``ValueError`` for crops that are empty or of another number.
    """
    count, height, width, _ = pictures.shape
    if crops is None:
        crops = np.broadcast_to(np.array([0, 0, width, height]), (count, 4))
    if crops.shape != (count, 4) or (crops[:, 2:] <= crops[:, :2]).any():
        raise ValueError(f"{count} pictures want as many crops (x0, y0, x1, y1) with x0 < x1 and y0 < y1, got {crops.tolist()}")
    mean, deviation = (torch.tensor(values)[:, None, None] for values in (_MEAN, _DEVIATION))
    device = next(network.parameters()).device
    labels = np.zeros((count, height, width), np.uint8)
    for some in np.array_split(np.arange(count), max(1, -(-count // batch))):
        shown = torch.stack([(_shown(pictures[n], crops[n]) - mean) / deviation for n in some]) if len(some) else None
        found = network(shown.to(device)).argmax(dim=1).byte().cpu() if shown is not None else ()
        for n, held in zip(some, found, strict=True):
            _put(labels[n], held, crops[n])
    return labels


def _shown(picture: NDArray[np.uint8], crop: NDArray[np.int64]) -> Tensor:
    """What the ``crop`` shows, (3, 512, 512) from 0 to 1, filtered against aliasing where it is made smaller."""
    x0, y0, x1, y1 = (int(side) for side in crop)
    held = torch.zeros(3, y1 - y0, x1 - x0)
    top, left, bottom, right = _inside(crop, picture.shape)
    part = np.ascontiguousarray(picture[top:bottom, left:right]).transpose(2, 0, 1)
    held[:, top - y0 : bottom - y0, left - x0 : right - x0] = torch.from_numpy(part).float() / 255
    return interpolate(held[None], (SIDE, SIDE), mode="bilinear", antialias=True)[0]


def _put(labels: NDArray[np.uint8], found: Tensor, crop: NDArray[np.int64]) -> None:
    """Write the labels ``found`` (512, 512) of a ``crop`` into those of its picture."""
    x0, y0, x1, y1 = (int(side) for side in crop)
    whole = interpolate(found[None, None].float(), (y1 - y0, x1 - x0), mode="nearest-exact")[0, 0].numpy()
    top, left, bottom, right = _inside(crop, labels.shape)
    labels[top:bottom, left:right] = whole[top - y0 : bottom - y0, left - x0 : right - x0]


def _inside(crop: NDArray[np.int64], shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Top, left, bottom and right of the part of the picture that the crop has; empty where it has none."""
    x0, y0, x1, y1 = (int(side) for side in crop)
    top, left = min(max(y0, 0), shape[0]), min(max(x0, 0), shape[1])
    return top, left, max(top, min(y1, shape[0])), max(left, min(x1, shape[1]))


def _mean(x: Tensor) -> Tensor:
    return x.mean(dim=(-2, -1), keepdim=True)
