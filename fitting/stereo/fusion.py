"""Depth maps of several views made one cloud.

As in COLMAP's fusion (Schönberger et al., *Pixelwise view selection for unstructured multi-view stereo*, ECCV 2016) a point is
a mean of pixels that agree, and a pixel takes part in one point only. Unlike there the views are asked all at once, one view's
pixels after another's, instead of walking from pixel to pixel, and what a view says is where its plane meets the ray.
"""

from __future__ import annotations

import numpy as np

from fitting.stereo.agreement import Surfaces, Tolerance
from fitting.stereo.views import Cloud, DepthMaps, Floats, Views


def fuse(views: Views, maps: DepthMaps, *, least_views: int = 3, tolerance: Tolerance | None = None) -> Cloud:
    """The cloud of what at least ``least_views`` of the ``maps`` have, the point's own view counted.

    Points are means, weighted by confidence and by how straight a view looks at the surface; so are normals and colours. The
    same maps give the same bytes. Raises ``ValueError`` for maps of other views.
    """
    surfaces = Surfaces(views, maps, tolerance)
    count = len(maps.depth)
    colours = views.pictures.reshape(count, -1, 3)
    used = np.zeros(surfaces.depth.shape, bool)
    parts: list[Cloud] = []
    for view in range(count):
        pixel = np.flatnonzero((surfaces.depth[view] > 0) & ~used[view])
        rays = surfaces.rays(view, pixel)
        turn = surfaces.rotation[view].astype(np.float32)
        own = surfaces.normals[view, pixel]
        weight = surfaces.confidence[view, pixel] * _facing(rays, own)
        depth, normal = weight * surfaces.depth[view, pixel], weight[:, None] * own @ turn
        colour = weight[:, None] * colours[view, pixel]
        agreeing = np.ones(len(pixel), np.float32)
        seen_by = []
        for other in range(count):
            if other == view:
                continue
            said = surfaces.ask(view, pixel, other)
            hit, theirs = np.flatnonzero(said.agrees), said.pixel[said.agrees]
            normals = surfaces.normals[other, theirs]
            share = surfaces.confidence[other, theirs] * _facing(surfaces.rays(other, theirs), normals)
            depth[hit] += share * said.depth[hit]
            normal[hit] += share[:, None] * (normals @ surfaces.rotation[other].astype(np.float32))
            colour[hit] += share[:, None] * colours[other, theirs]
            weight[hit] += share
            agreeing[hit] += 1
            seen_by.append((other, hit, theirs))
        enough = agreeing >= least_views
        for other, hit, theirs in seen_by:
            used[other, theirs[enough[hit]]] = True
        weight, normal = weight[enough, None], normal[enough]
        here = rays[enough] * (depth[enough, None] / weight)
        points = (here - surfaces.translation[view].astype(np.float32)) @ turn
        normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
        parts.append(Cloud(points, normal, np.rint(colour[enough] / weight).astype(np.uint8), agreeing[enough]))
    return Cloud(*(np.concatenate(held) for held in zip(*parts, strict=True)))


def _facing(rays: Floats, normals: Floats) -> Floats:
    """The cosine between the way to the camera and the normal, at least a little."""
    cosine = -(rays * normals).sum(axis=1) / np.linalg.norm(rays, axis=1)
    return np.asarray(np.maximum(cosine, 0.05), np.float32)
