"""Attributes at pixels are those of the surface there; normals stand on it."""

from __future__ import annotations

import pytest
import torch

from fitting.raster import interpolate, rasterize, vertex_normals
from tests.fitting.raster.meshes import ball, random_triangles, seen

SIZE = (24, 30)


def test_linear_attributes_of_space_stay_linear_on_the_surface() -> None:
    # A slanted plane seen in perspective: what is linear in space is not linear in the picture.
    points, faces = random_triangles(5, 4, SIZE)
    found = rasterize(points, faces, SIZE)
    in_space = torch.cat([points[..., :2] * points[..., 2:], points[..., 2:]], dim=-1)
    there = interpolate(found, faces, in_space)[0]
    y, x = torch.meshgrid(torch.arange(SIZE[0]) + 0.5, torch.arange(SIZE[1]) + 0.5, indexing="ij")
    hit = found.hit[0]
    assert hit.float().mean() > 0.3
    torch.testing.assert_close(there[..., 2][hit], found.depth[0][hit])
    torch.testing.assert_close((there[..., 0] / there[..., 2])[hit], x.double()[hit])
    torch.testing.assert_close((there[..., 1] / there[..., 2])[hit], y.double()[hit])
    assert (there[~hit] == 0).all()


def test_it_is_differentiable_by_attributes_and_points() -> None:
    points, faces = random_triangles(7, 3, (6, 7))
    attributes = torch.randn(2, points.shape[1], 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    points = torch.cat([points, points * torch.tensor([0.9, 0.9, 1.1])])
    # Keep to pixels that small steps do not take from their face.
    hit = rasterize(points, faces, (6, 7)).hit

    def pixels(points: torch.Tensor, attributes: torch.Tensor) -> torch.Tensor:
        return interpolate(rasterize(points, faces, (6, 7)), faces, attributes)[hit]

    assert torch.autograd.gradcheck(pixels, (points.requires_grad_(), attributes.requires_grad_()), atol=1e-6)


def test_attributes_may_be_common_to_all_images() -> None:
    mesh = ball(100)
    points = torch.cat([seen(mesh.vertices, SIZE), seen(mesh.vertices, SIZE, distance=0.3)])
    found = rasterize(points, mesh.faces, SIZE)
    common = interpolate(found, mesh.faces, mesh.uv)
    assert common.shape == (2, *SIZE, 2)
    assert torch.equal(common, interpolate(found, mesh.faces, mesh.uv.expand(2, -1, -1)))
    assert torch.equal(common, interpolate(found, mesh.faces, mesh.uv[None]))
    own = interpolate(found, mesh.faces, torch.stack([mesh.uv, mesh.uv + 1]))
    torch.testing.assert_close(own[1], common[1] + found.hit[1, ..., None])
    with pytest.raises(ValueError, match=r"shape \(2, V, C\) or \(V, C\)"):
        interpolate(found, mesh.faces, mesh.uv.expand(3, -1, -1))


@pytest.mark.parametrize("size", [1.0, 1e-9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_normals_of_a_ball_point_outwards_whatever_its_size(size: float, dtype: torch.dtype) -> None:
    mesh = ball(4000, radius=size)
    vertices = torch.cat([mesh.vertices, mesh.vertices[:1]]).to(dtype)
    normals = vertex_normals(vertices.expand(2, -1, -1), mesh.faces)
    assert normals.dtype == dtype
    # Poles and the seam have few faces around; the last vertex has none.
    inner = ((mesh.uv > 0.05) & (mesh.uv < 0.95)).all(dim=-1)
    towards = torch.nn.functional.normalize(mesh.vertices, dim=-1).to(dtype)
    assert ((normals[0, :-1] * towards).sum(dim=-1)[inner] > 0.999).all()
    torch.testing.assert_close(normals[0, :-1].norm(dim=-1)[inner], torch.ones(int(inner.sum()), dtype=dtype))
    assert (normals[:, -1] == 0).all()


def test_larger_faces_weigh_more_in_a_normal() -> None:
    vertices = torch.tensor([[0.0, 0, 0], [2, 0, 0], [0, 3, 0], [0, 0, 1]])
    normals = vertex_normals(vertices, torch.tensor([[0, 1, 2], [0, 2, 3]]))
    torch.testing.assert_close(normals[0], torch.nn.functional.normalize(torch.tensor([3.0, 0, 6]), dim=0))


def test_normals_are_differentiable() -> None:
    mesh = ball(30, bumps=0.1)
    vertices = mesh.vertices.clone().requires_grad_()
    inner = ((mesh.uv > 0.05) & (mesh.uv < 0.95)).all(dim=-1)
    assert torch.autograd.gradcheck(lambda vertices: vertex_normals(vertices, mesh.faces)[inner], (vertices,))
