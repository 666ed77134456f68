"""Rasterizing a head-like mesh in plain torch, against PyTorch3D's own way on the same machine.

The mesh is a bumpy ball that fills most of the picture, seen from all sides but without culling, as a fit with an open mesh
would. Times are the best of several rounds, for one process with torch's default number of threads. PyTorch3D is used as its
documentation says, not through our contract.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor

from fitting.raster import coverage, interpolate, pytorch3d_backend, rasterize
from fitting.raster.pytorch3d_backend import to_ndc
from tests.fitting.raster.meshes import ball, seen

GOALS = {"forward_speedup": "≥ 30", "backward_speedup": "≥ 5", "same_face_share": "≥ 0.999", "forward_s_20k_256": "≤ 0.04"}

ROUNDS = 7

TASKS = [("256", 1, (256, 256)), ("256", 8, (256, 256)), ("550x802", 1, (802, 550)), ("550x802", 4, (802, 550))]
"""Size as it is called, images in a batch, (height, width)."""


def run() -> dict[str, float]:
    mesh, size = ball(70_000, bumps=0.05), (224, 224)
    points = seen(mesh.vertices, size).float()

    def ours(points: Tensor) -> tuple[Tensor, ...]:
        return rasterize(points, mesh.faces, size, backend="torch")

    forward, backward = (min(seconds) for seconds in zip(*[measure(ours, points) for _ in range(ROUNDS)], strict=True))
    figures = {"forward_s_70k_224": forward, "backward_s_70k_224": backward}
    if pytorch3d_backend.available():

        def theirs(points: Tensor) -> tuple[Tensor, ...]:
            return with_pytorch3d(points, mesh.faces, size)

        pairs = [measure(theirs, points) for _ in range(2)]
        their_forward, their_backward = (min(seconds) for seconds in zip(*pairs, strict=True))
        figures |= {"forward_speedup": their_forward / forward, "backward_speedup": their_backward / backward}
        figures["same_face_share"] = float((ours(points)[0] == theirs(points)[0]).float().mean())

    for name, images, size in TASKS:
        batch = f"_batch_{images}" if images > 1 else ""
        figures |= {f"{part}_s_20k_{name}{batch}": seconds for part, seconds in per_image(images, size).items()}
    return figures


def per_image(images: int, size: tuple[int, int]) -> dict[str, float]:
    """Seconds for each image of a batch, without gradients."""
    mesh = ball(20_000, bumps=0.05)
    points, uv = seen(mesh.vertices, size).float().expand(images, -1, -1), mesh.uv.float()
    fragments = rasterize(points, mesh.faces, size, backend="torch")
    parts = {
        "forward": best(lambda: rasterize(points, mesh.faces, size, backend="torch")),
        "interpolate": best(lambda: interpolate(fragments, mesh.faces, uv)),
        "coverage": best(lambda: coverage(fragments, points, mesh.faces)),
    }
    return {part: seconds / images for part, seconds in parts.items()}


def with_pytorch3d(points: Tensor, faces: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    from pytorch3d.renderer.mesh.rasterize_meshes import rasterize_meshes
    from pytorch3d.structures import Meshes

    meshes = Meshes(list(to_ndc(points, size)), [faces] * len(points))
    face, depth, barycentric, _ = rasterize_meshes(meshes, image_size=size, faces_per_pixel=1, perspective_correct=True)
    return face[..., 0], barycentric[..., 0, :], depth[..., 0]


def measure(see: Callable[[Tensor], tuple[Tensor, ...]], points: Tensor) -> tuple[float, float]:
    """Seconds forward and backward."""
    points = points.clone().requires_grad_()
    start = time.perf_counter()
    face, barycentric, depth = see(points)
    middle = time.perf_counter()
    (barycentric.square().sum() + depth[face >= 0].sum()).backward()
    return middle - start, time.perf_counter() - middle


def best(work: Callable[[], object]) -> float:
    """Seconds, without gradients."""
    found = []
    with torch.no_grad():
        for _ in range(ROUNDS):
            start = time.perf_counter()
            work()
            found.append(time.perf_counter() - start)
    return min(found)
