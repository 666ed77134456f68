"""Studio pictures are good enough for what looks at pictures: stereo has texture to hold, detectors find the face."""

import cv2
import numpy as np
import pytest
import torch
from torch.nn.functional import grid_sample

from fitting.cameras import Camera
from fitting.studio.backdrop import backdrop
from fitting.studio.controls import EXPRESSIONS, JAW_OPEN
from fitting.studio.family import HeadFamily, still
from fitting.studio.light import light, sensor_noise
from fitting.studio.people import PICTURED, person
from fitting.studio.render import render, visible
from fitting.studio.rig import in_front, neighbours, sixteen
from fitting.studio.truth import LABELS

WINDOW = torch.stack(torch.meshgrid(torch.arange(-5, 6), torch.arange(-5, 6), indexing="xy"), dim=-1).reshape(-1, 2).float()
"""Pixels of an 11×11 patch about its middle."""


def patches(picture: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    """Values (N, P) of a grey picture (H, W) at pixels (N, P, 2), with mean 0 and deviation 1 in each row."""
    height, width = picture.shape
    place = 2 * at / at.new_tensor([width, height]) - 1
    values = grid_sample(picture[None, None], place[None], align_corners=False)[0, 0]
    return (values - values.mean(dim=1, keepdim=True)) / (values.std(dim=1, keepdim=True) + 1e-3)


def on_plane(
    camera: Camera, pixels: torch.Tensor, middle: torch.Tensor, normals: torch.Tensor, depth: torch.Tensor
) -> torch.Tensor:
    """World points (N, P, 3) of ``pixels`` (N, P, 2) on planes (N) through ``middle`` (N, 2) at ``depth`` (N,)."""
    inverse = torch.linalg.inv(camera.intrinsics)

    def rays(at: torch.Tensor) -> torch.Tensor:
        return torch.cat([at, torch.ones_like(at[..., :1])], dim=-1) @ inverse.T

    level = (rays(middle) * normals).sum(dim=-1) * depth
    depths = level[:, None] / (rays(pixels) * normals[:, None]).sum(dim=-1)
    return camera.unproject(pixels.flatten(0, 1), depths.flatten()).view(*pixels.shape[:2], 3)


@pytest.mark.parametrize(("number", "index"), [(0, 8), (1, 3), (2, 12)])
def test_along_epipolar_lines_the_best_match_of_a_skin_patch_is_the_true_one(number: int, index: int) -> None:
    """NCC of 11×11 patches on the true plane, moved by up to 2 cm in depth, within one pixel; neighbouring cameras."""
    everyone = sixteen().cameras.resize(550, 802)
    pair = everyone[torch.tensor([index, int(neighbours(everyone)[index])])].to(torch.float32)
    who, rng = person(number), np.random.default_rng(number)
    vertices = HeadFamily(PICTURED).vertices(who.identity, still())
    shot = render(who.surface, vertices[0], pair, light(np.zeros(1), rng)[0], backdrop(550, 802, rng))
    greys = torch.from_numpy(sensor_noise(shot.pictures, rng)).float().mean(dim=-1)
    depth, normals = torch.from_numpy(shot.depth), torch.from_numpy(shot.normals)[0]
    skin = torch.from_numpy(shot.labels[0] == LABELS.index("skin")) & (normals[..., 2] < -0.5)
    rows, columns = skin[20:-20, 20:-20].nonzero().T + 20
    chosen = torch.from_numpy(rng.choice(len(rows), 1500, replace=False))
    rows, columns = rows[chosen], columns[chosen]
    middle, far = torch.stack([columns, rows], dim=1) + 0.5, depth[0, rows, columns]
    points = pair[0].unproject(middle, far)
    seen = visible(points[None], pair[1], depth[1:], 0.002)[0]
    middle, far, facing, points = middle[seen], far[seen], normals[rows, columns][seen], points[seen]
    assert len(far) > 1000
    window = middle[:, None] + WINDOW
    mine = patches(greys[0], window)
    moves = torch.arange(-0.02, 0.0201, 0.0005)
    scores = []
    for move in moves:
        across = pair[1].project(on_plane(pair[0], window, middle, facing, far + move).flatten(0, 1)).pixels
        scores.append((mine * patches(greys[1], across.view(window.shape))).mean(dim=1))
    best = moves[torch.stack(scores).argmax(dim=0)]
    found = pair[1].project(pair[0].unproject(middle, far + best)).pixels
    off = (found - pair[1].project(points).pixels).norm(dim=1)
    assert (off < 1).float().mean() >= 0.9


def test_a_detector_that_ships_with_opencv_finds_the_face() -> None:
    """Near-frontal: turned by up to 15°, nodding by up to 10°, with all sorts of faces made."""
    detector = cv2.CascadeClassifier(cv2.data.haarcascades + "haarcascade_frontalface_alt2.xml")
    family, camera, rng = HeadFamily(PICTURED), in_front(256, 256), np.random.default_rng(0)
    found = []
    for number in range(8):
        who, count = person(number), 8
        controls = still(count)
        controls.expression[:] = (rng.random((count, len(EXPRESSIONS))) < 0.2) * rng.random((count, len(EXPRESSIONS)))
        controls.jaw[:, 0] = 0.5 * JAW_OPEN * rng.random(count)
        controls.head[:, 0] = np.radians(rng.uniform(-10, 10, count))
        controls.head[:, 1] = np.radians(rng.uniform(-15, 15, count))
        lighting = light(np.zeros(1), rng)[0]
        shot = render(who.surface, family.vertices(who.identity, controls), camera, lighting, backdrop(256, 256, rng))
        in_image = camera.to(torch.float32).project(family.landmarks(family.vertices(who.identity, controls))).pixels.mean(dim=1)
        for picture, middle in zip(sensor_noise(shot.pictures, rng), in_image.tolist(), strict=True):
            grey = np.ascontiguousarray(picture.mean(axis=-1).astype(np.uint8))
            boxes = np.asarray(detector.detectMultiScale(grey, 1.1, 3, minSize=(60, 60))).reshape(-1, 4)
            inside = [x < middle[0] < x + w and y < middle[1] < y + h for x, y, w, h in boxes]
            found.append(sum(inside) == 1)
    assert np.mean(found) >= 0.95
