"""Sequences of which every answer is known: a person of the studio speaks, clouds are sampled where cameras see the surface."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from torch import Tensor

from fitting.cameras import Camera
from fitting.flame import Flame, Landmarks, load_regions
from fitting.flame_fit import FlameFit
from fitting.landmarks3d import Landmarks3d, triangulate
from fitting.raster import image_points, interpolate, rasterize, vertex_normals
from fitting.rotations import axis_angle_to_matrix
from fitting.similarity import Similarity
from fitting.studio.family import HeadFamily
from fitting.studio.flame_file import write_flame
from fitting.studio.people import PICTURED, face_labels
from fitting.studio.performance import perform
from fitting.studio.rig import sixteen
from fitting.studio.speaker import Speaker
from fitting.studio.spread import Size
from fitting.studio.truth import LABELS

SEEN_FROM = (0, 5, 8, 12, 15)
"""Cameras of the rig whose depth maps the clouds are."""
FACIAL = [LABELS.index(name) for name in ("skin", "lips", "mouth", "teeth", "eyes")]


class Cloud(NamedTuple):
    points: NDArray[np.float32]
    normals: NDArray[np.float32]


class Sequence(NamedTuple):
    """What is observed, and the truth."""

    clouds: list[Cloud]
    landmarks: Landmarks3d
    vertices: Tensor
    """(T, V, 3) float64 of the model's own mesh in the world."""
    large: Tensor
    """(T, V, 3) float64 of the mesh that was seen, in the world."""
    true_landmarks: Tensor
    """(T, 68, 3)."""
    rotation: Tensor
    """(T, 3, 3) of the face in the world."""
    world: Similarity
    """Of the studio's world to the one of the sequence."""
    cameras: Camera
    """(C,) in the world of the sequence."""


class Model(NamedTuple):
    flame: Flame
    regions: dict[str, Tensor]
    embedding: Landmarks
    folder: Path


def model(folder: Path, size: Size) -> Model:
    """The stand-in, read as FLAME's own files are."""
    paths = write_flame(folder, size)
    flame = Flame.load(paths["flame2020"])
    return Model(flame, load_regions(paths["flame-masks"]), Landmarks.load(paths["flame-landmarks"], flame), folder)


def an_arbitrary_world(seed: int = 0, scale: float = 1.06) -> Similarity:
    rng = np.random.default_rng([seed, 99])
    turn = Rotation.random(random_state=rng).as_matrix()
    return Similarity(torch.tensor(scale, dtype=torch.float64), torch.from_numpy(turn), torch.from_numpy(rng.normal(0, 1, 3)))


@lru_cache(maxsize=4)
def speaking(
    frames: int,
    points: int,
    size: Size,
    *,
    number: int = 1,
    start: float = 0.6,
    fps: float = 24.0,
    noise: float = 0.0003,
    outliers: float = 0.01,
    holes: int = 3,
    pixel_noise: float = 1.5,
    scale: float = 1.06,
) -> Sequence:
    """A person who speaks and moves the head, in a world of any place and scale. Noise is in metres of that world."""
    rng = np.random.default_rng([number, frames, points])
    identity, world = HeadFamily(PICTURED).people(number + 1)[number], an_arbitrary_world(number, scale)
    speaker = Speaker.draw(np.random.default_rng([0, number, 1]))
    performance = perform(speaker, start + frames / fps + 0.2, [0, number, 1], sample_rate=8000)
    controls = performance.at(start + np.arange(frames) / fps)
    large = HeadFamily(PICTURED).vertices(identity, controls).double()
    own = HeadFamily(size).vertices(identity, controls).double()
    facial = np.isin(face_labels(HeadFamily(PICTURED)), FACIAL)
    rig = sixteen(number).cameras
    clouds = []
    for frame in range(frames):
        points_seen, normals = surface_points(large[frame], facial, points, rng)
        clouds.append(spoiled(points_seen, normals, world, rng, noise, outliers, holes))
    true_landmarks = world.apply(HeadFamily(PICTURED).landmarks(large))
    cameras = rig.moved(world)
    pixels = cameras[:, None].project(true_landmarks)[0]
    pixels = pixels + pixel_noise * torch.from_numpy(rng.standard_normal(pixels.shape))
    seen = triangulate(pixels, torch.ones(pixels.shape[:-1]), cameras)
    turns = axis_angle_to_matrix(torch.from_numpy(controls.head)) @ axis_angle_to_matrix(torch.from_numpy(controls.neck))
    return Sequence(clouds, seen, world.apply(own), world.apply(large), true_landmarks, world.rotation @ turns, world, cameras)


def surface_points(
    vertices: Tensor, facial: NDArray[np.bool_], count: int, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """About ``count`` points (N, 3) and normals of the ``facial`` faces that the cameras see."""
    faces = torch.from_numpy(HeadFamily(PICTURED).mesh.faces)
    side = int(np.sqrt(count)) + 24
    cameras = sixteen().cameras[list(SEEN_FROM)].resize(side * 11 // 16, side)
    found = rasterize(image_points(cameras, vertices.expand(len(SEEN_FROM), -1, -1).float()), faces, (side, side * 11 // 16))
    attributes = torch.cat([vertices, vertex_normals(vertices, faces)], dim=-1)[None].float()
    values = interpolate(found, faces, attributes)[found.hit & torch.from_numpy(facial)[found.face]].double().numpy()
    chosen = values[rng.permutation(len(values))[:count]]
    return chosen[:, :3], chosen[:, 3:] / np.linalg.norm(chosen[:, 3:], axis=1, keepdims=True)


def spoiled(
    points: NDArray[np.float64],
    normals: NDArray[np.float64],
    world: Similarity,
    rng: np.random.Generator,
    noise: float,
    outliers: float,
    holes: int,
) -> Cloud:
    """The points in the world, with noise, points that are anywhere, and round holes."""
    for centre in points[rng.integers(len(points), size=holes)]:
        kept = np.linalg.norm(points - centre, axis=1) > 0.012
        points, normals = points[kept], normals[kept]
    moved, turned = world.apply(torch.from_numpy(points)).numpy(), world.apply_normals(torch.from_numpy(normals)).numpy()
    moved = moved + noise * rng.standard_normal(moved.shape)
    turned = turned + 0.08 * rng.standard_normal(turned.shape)
    wrong = rng.random(len(moved)) < outliers
    moved[wrong] += 0.05 * rng.standard_normal((int(wrong.sum()), 3))
    turned /= np.linalg.norm(turned, axis=1, keepdims=True)
    return Cloud(moved.astype(np.float32), turned.astype(np.float32))


def vertex_mm(fit: FlameFit, truth: Sequence, face: Tensor) -> Tensor:
    """(T, face vertices) millimetres from the truth."""
    return 1000 * (fit.vertices.double() - truth.vertices)[:, face].norm(dim=-1)


def landmark_mm(fit: FlameFit, truth: Sequence, embedding: Landmarks) -> Tensor:
    """(T, 68) millimetres from the truth."""
    return 1000 * (embedding(fit.vertices).double() - truth.true_landmarks).norm(dim=-1)


def rotation_deg(fit: FlameFit, truth: Sequence) -> Tensor:
    """(T,) degrees from the truth."""
    between = axis_angle_to_matrix(fit.rotation).mT @ truth.rotation
    return torch.rad2deg(torch.acos(((between.diagonal(dim1=-2, dim2=-1).sum(dim=-1) - 1) / 2).clamp(-1, 1)))


def movement_mm(vertices: Tensor) -> float:
    """Root mean square difference between neighbouring frames of vertices (T, V, 3)."""
    return float(1000 * (vertices[1:] - vertices[:-1]).square().sum(dim=-1).mean().sqrt())


def jitter_mm(vertices: Tensor) -> float:
    """Root mean square second difference of vertices (T, V, 3) in time: what trembles, and not what moves evenly."""
    return float(1000 * (vertices[2:] - 2 * vertices[1:-1] + vertices[:-2]).square().sum(dim=-1).mean().sqrt())
