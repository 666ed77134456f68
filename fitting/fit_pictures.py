"""Pictures that show how well fits lie on a capture: meshes over the camera's picture, and where the cloud is off the surface.

A strip has four panels side by side: the picture, FLAME over it, NPHM over it, and the frame's cloud coloured by its distance
from the NPHM surface. ``turned`` shows a mesh alone, from four sides. Everything is drawn at twice the size and made smaller.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fitting.cameras import Camera
from fitting.nearest import nearest, take
from fitting.raster import image_points, interpolate, rasterize, vertex_normals
from fitting.similarity import Similarity

WIDTH, HEIGHT = 208, 256
"""Pixels of a panel."""

FARTHEST_MM = 2.0
"""The distance that is red."""

REACH_MM = 10.0
"""Points of the cloud further from the surface are no part of the head that was fitted: they are grey."""

Picture = NDArray[np.uint8]

_OVER = 2
_MARGIN = 1.12
_SPLAT = 5
_OPAQUE = 0.7
_FLAME, _NPHM, _CLAY = (120, 170, 235), (240, 185, 110), (205, 200, 192)
_PAPER, _AWAY = 238, 95
_SCALE = np.array([(40, 70, 220), (60, 190, 225), (250, 215, 70), (215, 45, 35)], np.float64)
_YAWS = (-40.0, 0.0, 40.0, 80.0)
_SIDE = 50.0
_JPEG_QUALITY = 85


class Surface(NamedTuple):
    """A triangle mesh, its faces counter-clockwise seen from outside."""

    vertices: Tensor
    """(V, 3)."""
    faces: Tensor
    """(F, 3) int64."""


class Points(NamedTuple):
    """The cloud of one frame."""

    points: Tensor
    """(P, 3) metres, in the world."""
    normals: Tensor
    """(P, 3) out of the surface, of any length."""
    distance_mm: Tensor
    """(P,) from the surface that was fitted."""


def front_and_side(centres: Tensor, world_to_head: Similarity) -> list[int]:
    """Which of cameras at ``centres`` (C, 3) sees a head from the front, and which from the side, nearest to 50° from there.

    ``world_to_head`` is one map to a space with FLAME's axes. One camera alone is the only one named.
    """
    directions = torch.nn.functional.normalize(world_to_head.apply(centres.double()), dim=-1)
    front = int(directions[:, 2].argmax())
    turn = math.radians(_SIDE)
    nearness = directions[:, 0].abs() * math.sin(turn) + directions[:, 2] * math.cos(turn)
    nearness[front] = -torch.inf
    return [front, int(nearness.argmax())] if len(centres) > 1 else [front]


def distances_mm(points: Tensor, surface: Surface) -> Tensor:
    """(P,) of ``points`` (P, 3) from ``surface``, both in metres: to the plane through the nearest vertex.

    How far a point lies aside of that vertex, more than vertices are apart, counts, too. Points next to the mesh's border lie
    beyond it, so nothing is known of them: they are infinitely far, and so are all of a mesh without faces.
    """
    if not len(points) or not len(surface.faces):
        return points.new_full((len(points),), torch.inf)
    index = nearest(points[None], surface.vertices[None]).index
    offset = points - take(surface.vertices[None], index)[0, :, 0]
    normal = take(vertex_normals(surface.vertices, surface.faces)[None], index)[0, :, 0]
    across = (offset * normal).sum(dim=-1)
    corners = surface.vertices[surface.faces]
    apart = (corners - corners.roll(1, dims=1)).norm(dim=-1).mean()
    aside = ((offset - across[:, None] * normal).norm(dim=-1) - apart).clamp(min=0)
    beyond = torch.isin(index[0, :, 0], _border(surface.faces))
    return torch.where(beyond, torch.inf, 1000 * torch.hypot(across, aside))


def strip(picture: Picture, camera: Camera, head: Tensor, flame: Surface, nphm: Surface, cloud: Points) -> Picture:
    """(256, 832, 3) RGB: the four panels for a ``picture`` (H, W, 3) of ``camera``, cut out around the points ``head`` (N, 3).

    Everything is in the world of the camera, in metres; the camera is a pinhole.
    """
    shown, own = _around(picture, camera, head)
    panels = [shown, _overlay(shown, own, flame, _FLAME), _overlay(shown, own, nphm, _NPHM), _residual(shown, own, cloud)]
    return _smaller(np.concatenate(panels, axis=1))


def turned(surface: Surface) -> Picture:
    """(256, 832, 3) RGB: a mesh in NPHM's space from 40° to its right, the front, 40° to its left and the left side.

    The mesh fills a panel.
    """
    low, high = surface.vertices.amin(dim=0).double(), surface.vertices.amax(dim=0).double()
    wide, height, deep = (high - low).tolist()
    tall = max(height, max(wide, deep) * HEIGHT / WIDTH)
    focal, away = 4.0 * HEIGHT * _OVER / _MARGIN, 4.0 * tall
    intrinsics = torch.tensor([[focal, 0, WIDTH * _OVER / 2], [0, focal, HEIGHT * _OVER / 2], [0, 0, 1]], dtype=torch.float64)
    paper = np.full((HEIGHT * _OVER, WIDTH * _OVER, 3), _PAPER, np.uint8)
    panels = []
    for yaw in _YAWS:
        sine, cosine = math.sin(math.radians(yaw)), math.cos(math.radians(yaw))
        rotation = torch.tensor([[cosine, 0, -sine], [0, -1, 0], [-sine, 0, -cosine]], dtype=torch.float64)
        pose = torch.eye(4, dtype=torch.float64)
        pose[:3, :3], pose[:3, 3] = rotation, -rotation @ ((low + high) / 2)
        pose[2, 3] += away
        camera = Camera(intrinsics, pose, WIDTH * _OVER, HEIGHT * _OVER)
        panels.append(_overlay(paper, camera, surface, _CLAY, opaque=1.0))
    return _smaller(np.concatenate(panels, axis=1))


def to_jpeg(picture: Picture) -> bytes:
    """The RGB ``picture`` (H, W, 3) as a JPEG file."""
    data: bytes = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1].tobytes()
    return data


def colour_of(distance_mm: NDArray[np.float64]) -> Picture:
    """(..., 3) RGB of distances (...): blue at 0, red from 2 mm on, grey beyond what the fit reaches."""
    place = np.clip(distance_mm / FARTHEST_MM, 0, 1)
    stops = np.linspace(0, 1, len(_SCALE))
    colour = np.stack([np.interp(place, stops, channel) for channel in _SCALE.T], axis=-1)
    colour[distance_mm > REACH_MM] = _AWAY
    return colour.round().astype(np.uint8)


def _border(faces: Tensor) -> Tensor:
    """The vertices on sides that one face alone has."""
    one, other = faces.flatten(), faces.roll(1, dims=1).flatten()
    width = int(faces.max()) + 1
    side, count = (torch.minimum(one, other) * width + torch.maximum(one, other)).unique(return_counts=True)
    single = side[count == 1]
    return torch.cat([single // width, single % width])


def _around(picture: Picture, camera: Camera, points: Tensor) -> tuple[Picture, Camera]:
    """The part of the picture with the points, twice a panel's size, and its camera. Beyond the picture it is black."""
    height, width = picture.shape[:2]
    pixels = camera.project(points.double()).pixels.numpy()
    # A fit that went astray must not ask for a picture of any size.
    low, high = (np.clip(np.nan_to_num(end), -1, 2) for end in (pixels.min(0) / (width, height), pixels.max(0) / (width, height)))
    low, high = low * (width, height), high * (width, height)
    tall = _MARGIN * max(high[1] - low[1], (high[0] - low[0]) * HEIGHT / WIDTH, 2.0)
    size = np.array([max(round(tall * WIDTH / HEIGHT), 1), max(round(tall), 1)])
    corner = np.round((low + high) / 2 - size / 2).astype(int)
    end = corner + size
    inside_low, inside_high = np.clip(corner, 0, (width, height)), np.clip(end, 0, (width, height))
    cut = np.zeros((size[1], size[0], 3), np.uint8)
    (x0, y0), (x1, y1) = inside_low, inside_high
    cut[y0 - corner[1] : y1 - corner[1], x0 - corner[0] : x1 - corner[0]] = picture[y0:y1, x0:x1]
    wanted = (WIDTH * _OVER, HEIGHT * _OVER)
    how = cv2.INTER_AREA if size[1] > wanted[1] else cv2.INTER_LINEAR
    own = camera.crop(float(corner[0]), float(corner[1]), int(size[0]), int(size[1])).resize(*wanted)
    return np.asarray(cv2.resize(cut, wanted, interpolation=how)), own


def _overlay(
    picture: Picture, camera: Camera, surface: Surface, colour: tuple[int, int, int], opaque: float = _OPAQUE
) -> Picture:
    """The mesh over the picture, lit from the camera."""
    if not len(surface.faces):
        return picture
    points = image_points(camera, surface.vertices.double())
    fragments = rasterize(points, surface.faces, (camera.height, camera.width))
    normals = camera.pose.apply_normals(vertex_normals(surface.vertices.double(), surface.faces))
    facing = interpolate(fragments, surface.faces, normals)[0, ..., 2].abs().clamp(max=1)
    light = (0.2 + 0.8 * facing)[..., None] * torch.tensor(colour, dtype=torch.float64)
    share = opaque * fragments.hit[0, ..., None].double()
    mixed: Picture = ((1 - share) * torch.from_numpy(picture) + share * light).round().clamp(0, 255).byte().numpy()
    return mixed


def _residual(picture: Picture, camera: Camera, cloud: Points) -> Picture:
    """The points that face the camera, coloured by distance, over a dark grey picture; what is nearer hides what is behind."""
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[..., None] * 0.35
    shown: Picture = np.repeat(grey, 3, axis=-1).round().astype(np.uint8)
    pixels, depth = camera.project(cloud.points.double())
    facing = ((camera.centre - cloud.points) * cloud.normals).sum(dim=-1) > 0
    place = pixels.floor().nan_to_num(-1e6).long()
    reach = _SPLAT // 2
    limits = torch.tensor([camera.width - reach, camera.height - reach])
    kept = facing & (depth > 0) & (place >= reach).all(dim=-1) & (place < limits).all(dim=-1)
    order = depth[kept].argsort(descending=True, stable=True)
    x, y = place[kept][order].T.numpy()
    colours = colour_of(cloud.distance_mm[kept][order].double().numpy())
    steps = np.arange(_SPLAT) - reach
    # Of several values for one pixel the last one stays, which is the nearest point's.
    rows, columns = np.broadcast_arrays(y[:, None, None] + steps[:, None], x[:, None, None] + steps)
    shown[rows, columns] = colours[:, None, None]
    return shown


def _smaller(picture: Picture) -> Picture:
    height, width = picture.shape[:2]
    return np.asarray(cv2.resize(picture, (width // _OVER, height // _OVER), interpolation=cv2.INTER_AREA))
