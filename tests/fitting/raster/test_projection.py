"""What a camera projects is what is drawn."""

from __future__ import annotations

import pytest
import torch

from fitting.cameras import Camera, pixel_grid
from fitting.raster import image_points, interpolate, rasterize
from tests.fitting.raster.meshes import ball

DISTORTION = torch.tensor([-0.25, 0.05, 0.001, -0.002, 0.0], dtype=torch.float64)


def camera(distance: float = 0.6, distortion: torch.Tensor | None = None) -> Camera:
    """On +z, looking back at the origin."""
    world_to_camera = torch.diag(torch.tensor([1.0, -1, -1, 1], dtype=torch.float64))
    world_to_camera[2, 3] = distance
    intrinsics = torch.tensor([[150.0, 0, 34], [0, 150, 26], [0, 0, 1]], dtype=torch.float64)
    return Camera(intrinsics, world_to_camera, 64, 48, distortion)


@pytest.mark.parametrize("distortion", [None, DISTORTION])
def test_depth_maps_unproject_onto_the_surface(distortion: torch.Tensor | None) -> None:
    mesh, view = ball(20_000), camera(0.3, distortion)
    fragments = rasterize(image_points(view, mesh.vertices), mesh.faces, (view.height, view.width))
    cloud = view.unproject(pixel_grid(view.width, view.height, fragments.depth), fragments.depth.flatten(-2))
    on_surface = interpolate(fragments, mesh.faces, mesh.vertices).flatten(1, 2)
    hit = fragments.hit.flatten(1, 2)
    assert hit.float().mean() > 0.4
    # Sides stay straight: with a lens that bends, their middles are off by much less than a face.
    torch.testing.assert_close(cloud[hit], on_surface[hit], rtol=0, atol=1e-9 if distortion is None else 5e-5)


def test_cameras_and_vertices_come_alone_or_in_batches() -> None:
    vertices = ball(50).vertices
    cameras = Camera(camera().intrinsics, torch.stack([camera(distance).world_to_camera for distance in (0.4, 0.6)]), 64, 48)
    one = image_points(camera(0.6), vertices)
    assert one.shape == (1, len(vertices), 3)
    several = image_points(cameras, vertices)
    assert several.shape == (2, len(vertices), 3)
    torch.testing.assert_close(several[1:], one)
    torch.testing.assert_close(image_points(cameras, vertices.expand(2, -1, -1)), several)
    torch.testing.assert_close(image_points(camera(0.6), vertices.expand(3, -1, -1)), one.expand(3, -1, -1))
    with pytest.raises(ValueError, match="flatten leading dimensions"):
        image_points(cameras, vertices.expand(3, 2, -1, -1))


def test_what_a_lens_would_fold_back_into_the_picture_is_not_drawn() -> None:
    # With k1 = -0.25 the picture ends at a radius of 1.155 times the focal length; here 2.2 is seen where 0.05 should be.
    vertices = torch.tensor([[0.0, 0.0, 0.0], [0.1, 0, 0], [1.98 * 0.6, 0, 0], [1.98 * 0.6, 0.01, 0]], dtype=torch.float64)
    lens = torch.tensor([-0.25, 0, 0, 0], dtype=torch.float64)
    folded = camera(0.6, lens).project(vertices).pixels
    assert ((folded[2:] > 0) & (folded[2:] < 48)).all()
    points = image_points(camera(0.6, lens), vertices)[0]
    assert points[:2].isfinite().all()
    assert points[2:].isnan().all()
    assert image_points(camera(0.6), vertices).isfinite().all()


def test_what_is_behind_the_camera_is_not_drawn() -> None:
    mesh, view = ball(200), camera(-0.6)
    assert not rasterize(image_points(view, mesh.vertices), mesh.faces, (48, 64)).hit.any()
