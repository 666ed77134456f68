"""Pictures from fragments: normals, textures, light. All are (B, H, W, C), and 0 where a pixel is missed."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import grid_sample, normalize

from fitting.lighting import shade
from fitting.raster.fragments import Fragments
from fitting.raster.interpolate import interpolate


def normal_map(fragments: Fragments, faces: Tensor, normals: Tensor) -> Tensor:
    """Unit normals (B, H, W, 3), interpolated from ``normals`` (B, V, 3) or (V, 3), in the space that those are in."""
    return normalize(interpolate(fragments, faces, normals), dim=-1)


def sample_texture(fragments: Fragments, faces: Tensor, coordinates: Tensor, texture: Tensor) -> Tensor:
    """Colours (B, H, W, C) of ``texture`` (B, h, w, C) or (h, w, C), bilinear.

    ``coordinates`` (B, V, 2) or (V, 2) are u, v as in OBJ files: u right, v up, (0, 0) the bottom left corner of the
    texture, (1, 1) its top right corner; the texture's first row is its top. The centre of the texel in row i, column j is at
    ((j + 0.5) / w, 1 - (i + 0.5) / h). Beyond the outermost centres their texels go on. ``faces`` (F, 3) index the
    coordinates and correspond to the faces of the geometry. Differentiable by texture, coordinates and points. A texture
    that is finer than the picture flickers: render larger and average, or make it smaller first.
    """
    uv = interpolate(fragments, faces, coordinates)
    place = torch.stack([2 * uv[..., 0] - 1, 1 - 2 * uv[..., 1]], dim=-1)
    texture = texture.expand(len(place), *texture.shape[-3:]).permute(0, 3, 1, 2)
    found = grid_sample(texture, place, mode="bilinear", padding_mode="border", align_corners=False)
    return torch.where(fragments.hit[..., None], found.permute(0, 2, 3, 1), 0.0)


def shade_pixels(albedo: Tensor, normals: Tensor, lighting: Tensor) -> Tensor:
    """Colours (B, H, W, 3) of ``albedo`` (B, H, W, 3) with ``normals`` (B, H, W, 3) under ``lighting`` (B, 27) or (27,).

    Light is that of ``fitting.lighting.shade``, in the space of the normals, here for each pixel. Shading vertices and
    interpolating the colours, as Deep3DFaceRecon does, is cheaper where there are fewer vertices than pixels. Not clipped.
    """
    return shade(albedo.flatten(1, 2), normals.flatten(1, 2), lighting).unflatten(1, albedo.shape[1:3])
