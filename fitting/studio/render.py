"""Pictures of a head, and what is true at each of their pixels."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import avg_pool2d

from fitting.cameras import Camera
from fitting.lighting import shade
from fitting.raster import Fragments, image_points, interpolate, normal_map, rasterize, sample_texture, vertex_normals
from prep.colour import encode

SUPERSAMPLED = 2
"""Colours are means of so many samples along each side of a pixel: one sample leaves jagged edges that crawl."""


class Surface(NamedTuple):
    """What all pictures of a person have in common."""

    faces: Tensor
    """(F, 3) int64."""
    uv: Tensor
    """(M, 2) float32."""
    uv_faces: Tensor
    """(F, 3) int64, of ``uv``."""
    albedo: Tensor
    """(h, w, 3) float32, what share of the light the surface gives back: linear, not sRGB."""
    labels: Tensor
    """(F,) uint8 numbers in ``fitting.studio.truth.LABELS``."""


class Shot(NamedTuple):
    """B pictures and their truth, which holds at the pixels' centres."""

    pictures: NDArray[np.uint8]
    """(B, H, W, 3) sRGB."""
    depth: NDArray[np.float32]
    """(B, H, W) metres along the optical axis, 0 where there is nothing."""
    normals: NDArray[np.float32]
    """(B, H, W, 3) unit, in the camera's axes; 0 where there is nothing."""
    labels: NDArray[np.uint8]
    """(B, H, W) numbers in ``LABELS``."""
    alpha: NDArray[np.uint8]
    """(B, H, W) the share of the pixel that the head covers, times 255."""


@torch.no_grad()
def render(surface: Surface, vertices: Tensor, camera: Camera, lighting: Tensor, backdrop: NDArray[np.float32]) -> Shot:
    """What the cameras, one or B, see of ``vertices`` (B, V, 3) or (V, 3), metres in the world.

    ``lighting`` (B, 27) or (27,) is in the world, for ``fitting.lighting.shade``; ``backdrop`` (H, W, 3) or (B, H, W, 3)
    is light from 0 to 1.
    """
    count = max(len(vertices) if vertices.ndim == 3 else 1, *camera.batch, 1)
    vertices = vertices.float().expand(count, *vertices.shape[-2:])
    lighting = lighting.float().expand(count, lighting.shape[-1])
    behind = np.broadcast_to(backdrop, (count, *backdrop.shape[-3:]))
    # One picture after the other: a single one and all that is computed of it stay in a processor's cache, twice as fast.
    shots = [
        _render(surface, vertices[k : k + 1], camera[k] if camera.batch else camera, lighting[k : k + 1], behind[k])
        for k in range(count)
    ]
    return Shot(*(np.concatenate(maps) for maps in zip(*shots, strict=True)))


def _render(surface: Surface, vertices: Tensor, camera: Camera, lighting: Tensor, backdrop: NDArray[np.float32]) -> Shot:
    pose = camera.to(torch.float32).pose
    normals = vertex_normals(vertices, surface.faces)
    truth = _fragments(surface, vertices, camera)
    seen = normal_map(truth, surface.faces, pose.apply_normals(normals))
    fine = camera.resize(camera.width * SUPERSAMPLED, camera.height * SUPERSAMPLED)
    light, covered = _light(surface, _fragments(surface, vertices, fine), normals, lighting)
    pictures = encode(light.numpy() + (1 - covered[..., None].numpy()) * backdrop)
    labels = torch.where(truth.hit, surface.labels[truth.face], 0)
    return Shot(pictures, truth.depth.numpy(), seen.numpy(), labels.numpy(), np.rint(255 * covered.numpy()).astype(np.uint8))


def visible(points: Tensor, camera: Camera, depth: Tensor, tolerance: float = 0.004) -> Tensor:
    """Whether world ``points`` (B, N, 3) are in the picture and not behind what ``depth`` (B, H, W) shows: (B, N) bool.

    ``tolerance`` in metres: a point of the surface lies a little before or behind the pixel that it falls into.
    """
    pixels, far = camera.project(points)
    inside = (pixels >= 0).all(-1) & (pixels[..., 0] < camera.width) & (pixels[..., 1] < camera.height) & (far > 0)
    column = pixels[..., 0].long().clamp(0, camera.width - 1)
    row = pixels[..., 1].long().clamp(0, camera.height - 1)
    there = depth.flatten(1).gather(1, row * camera.width + column)
    return inside & ((there == 0) | (far < there + tolerance))


def _fragments(surface: Surface, vertices: Tensor, camera: Camera) -> Fragments:
    return rasterize(image_points(camera, vertices), surface.faces, (camera.height, camera.width))


def _light(surface: Surface, fragments: Fragments, normals: Tensor, lighting: Tensor) -> tuple[Tensor, Tensor]:
    """Light (B, H, W, 3) that pixels get from the head, and the share (B, H, W) of them that it covers."""
    albedo = sample_texture(fragments, surface.uv_faces, surface.uv, surface.albedo)
    # Vertices are as dense as pixels, and there are fewer of them: light that falls on the head is found there.
    arriving = shade(torch.ones_like(normals), normals, lighting)
    light = (albedo * interpolate(fragments, surface.faces, arriving)).clamp(0, 1)
    samples = torch.cat([light, fragments.hit[..., None].float()], dim=-1)
    pooled = avg_pool2d(samples.permute(0, 3, 1, 2), SUPERSAMPLED).permute(0, 2, 3, 1)
    return pooled[..., :3], pooled[..., 3]
