"""Following a surface from coarse cells makes the mesh of the dense grid, for a fraction of the evaluations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import trimesh
from torch import Tensor

from fitting.isosurface import Mesh, extract

LOWER, UPPER = (-0.55, -0.5, -0.95), (0.55, 0.75, 0.4)


def sphere(points: Tensor, centre: tuple[float, float, float] = (0.0, 0.1, -0.2), radius: float = 0.35) -> Tensor:
    return (points - points.new_tensor(centre)).norm(dim=-1) - radius


def two_spheres(points: Tensor) -> Tensor:
    return torch.minimum(sphere(points, radius=0.3), sphere(points, (0.42, 0.5, 0.2), 0.03))


def shell(points: Tensor) -> Tensor:
    return sphere(points).abs() - 0.012


def torus(points: Tensor) -> Tensor:
    ring = points[:, :2].norm(dim=-1) - 0.3
    return torch.stack([ring, points[:, 2] + 0.2], dim=-1).norm(dim=-1) - 0.05


def waves(points: Tensor) -> Tensor:
    return points[:, 1] - 0.1 * torch.sin(7 * points[:, 0])


def hand(points: Tensor) -> Tensor:
    """Thin fingers on a ball: they run through cells whose corners are all outside."""
    fingers = [
        torch.maximum((points[:, [0, 2]] - points.new_tensor([x, -0.2])).norm(dim=-1) - 0.008, (points[:, 1] - 0.3).abs() - 0.3)
        for x in (-0.15, 0.0, 0.15)
    ]
    return torch.stack([sphere(points, radius=0.25), *fingers]).amin(dim=0)


def same(first: Mesh, second: Mesh) -> bool:
    return torch.equal(first.vertices, second.vertices) and torch.equal(first.faces, second.faces)


def closed(mesh: Mesh) -> trimesh.Trimesh:
    made = trimesh.Trimesh(mesh.vertices.numpy(), mesh.faces.numpy(), process=False)
    assert made.is_watertight
    return made


@pytest.mark.parametrize("field", [sphere, two_spheres, shell, torus, waves, hand])
@pytest.mark.parametrize("resolution", [20, 65, 90])
def test_the_mesh_is_that_of_the_dense_grid(field, resolution: int) -> None:
    few, all_points = (extract(field, LOWER, UPPER, resolution, dense=dense) for dense in (False, True))
    assert len(all_points.faces) > 100
    assert same(few, all_points)
    assert all_points.evaluations == resolution**3
    assert few.evaluations < all_points.evaluations / (1 if resolution < 65 else 4)


@pytest.mark.parametrize("field", [lambda p: 5 * sphere(p), lambda p: 0.05 * sphere(p), lambda p: sphere(p).clamp(-0.01, 0.01)])
def test_values_need_not_be_distances(field) -> None:
    assert same(extract(field, LOWER, UPPER, 50), extract(field, LOWER, UPPER, 50, dense=True))


def test_a_surface_is_followed_into_cells_whose_corners_do_not_show_it() -> None:
    def stretched(points: Tensor) -> Tensor:
        return 50 * hand(points)  # so that no value is small enough to look closer

    assert same(extract(stretched, LOWER, UPPER, 90), extract(stretched, LOWER, UPPER, 90, dense=True))


def waviness(seed: int, frequency: float):
    """Sums of waves with random directions and steepness: no distance at all, many pieces, thin bridges."""
    random = torch.Generator().manual_seed(seed)
    k, a, phase = (torch.randn(5, n, generator=random) for n in (3, 1, 1))

    def field(points: Tensor) -> Tensor:
        return 1e5 * ((torch.sin(points @ (frequency * k).T + phase[:, 0]) * a[:, 0]).sum(dim=-1) + 0.3)

    return field


@pytest.mark.parametrize("seed", range(8))
def test_pieces_of_steep_fields_that_are_found_are_found_whole(seed: int) -> None:
    field, box = waviness(seed, 12.0), ((-0.5,) * 3, (0.5,) * 3)
    few, all_points = (extract(field, *box, 40, dense=dense) for dense in (False, True))
    known = {tuple(vertex) for vertex in all_points.vertices.tolist()}
    assert {tuple(vertex) for vertex in few.vertices.tolist()} <= known
    assert len(few.faces) > 0.9 * len(all_points.faces)
    whole = trimesh.Trimesh(all_points.vertices.numpy(), all_points.faces.numpy())
    found = trimesh.Trimesh(few.vertices.numpy(), few.faces.numpy())
    sizes = [sorted(len(piece.faces) for piece in mesh.split(only_watertight=False)) for mesh in (whole, found)]
    for size in sizes[1]:
        sizes[0].remove(size)


def test_a_mesh_of_256_points_each_way_costs_a_twentieth() -> None:
    assert 256**3 / extract(sphere, LOWER, UPPER, 256).evaluations > 20


def test_vertices_lie_on_the_surface_and_faces_look_outwards() -> None:
    mesh = extract(sphere, LOWER, UPPER, 80)
    assert (sphere(mesh.vertices).abs() < 2e-3).all()
    ball = closed(mesh)
    assert ball.volume == pytest.approx(4 / 3 * np.pi * 0.35**3, rel=5e-3)
    outward = ball.vertices - np.array([0.0, 0.1, -0.2])
    assert (np.einsum("ij,ij->i", ball.vertex_normals, outward) > 0).all()


def test_pieces_and_holes() -> None:
    assert closed(extract(two_spheres, LOWER, UPPER, 90)).body_count == 2
    assert closed(extract(torus, LOWER, UPPER, 90)).euler_number == 0
    hollow = closed(extract(shell, LOWER, UPPER, 120))
    assert hollow.body_count == 2
    assert hollow.volume == pytest.approx(4 / 3 * np.pi * (0.362**3 - 0.338**3), rel=0.02)


def test_the_grid_includes_both_ends_of_each_axis() -> None:
    mesh = extract(lambda p: p[:, 0] - 0.5499, LOWER, UPPER, 30)
    assert mesh.vertices[:, 1].min() == pytest.approx(-0.5)
    assert mesh.vertices[:, 1].max() == pytest.approx(0.75)
    assert mesh.vertices[:, 0].numpy() == pytest.approx(0.5499)


def test_an_empty_box_gives_an_empty_mesh() -> None:
    mesh = extract(lambda p: torch.ones(len(p)), LOWER, UPPER, 40)
    assert (mesh.vertices.shape, mesh.faces.shape) == ((0, 3), (0, 3))


def test_points_come_in_chunks_and_none_twice() -> None:
    seen = []

    def field(points: Tensor) -> Tensor:
        seen.append(points)
        return sphere(points)

    mesh = extract(field, LOWER, UPPER, 40, chunk=1000)
    assert max(len(points) for points in seen) <= 1000
    asked = torch.cat(seen)
    assert len(torch.unique(asked, dim=0)) == len(asked) == mesh.evaluations


def test_what_cannot_be_meshed_is_refused() -> None:
    with pytest.raises(ValueError, match="is empty"):
        extract(sphere, UPPER, LOWER)
    with pytest.raises(ValueError, match="not finite at"):
        extract(lambda p: sphere(p).sqrt(), LOWER, UPPER, 40)
