"""Textures lie the right way up, light falls as it should, what is missed stays black."""

from __future__ import annotations

import torch
from torch import Tensor

from fitting.lighting import AMBIENT, shade, spherical_harmonics
from fitting.raster import Fragments, interpolate, normal_map, rasterize, sample_texture, shade_pixels, vertex_normals
from tests.fitting.raster.meshes import ball, seen

SQUARE = torch.tensor([[[1.0, 1.0, 1.0], [1.0, 5.0, 1.0], [5.0, 5.0, 1.0], [5.0, 1.0, 1.0]]])
FACES = torch.tensor([[0, 1, 2], [0, 2, 3]])
CORNERS = torch.tensor([[0.0, 1.0], [0.0, 0.0], [1.0, 0.0], [1.0, 1.0]])
"""u, v of the square's corners: its bottom left corner is that of the texture."""


def square() -> Fragments:
    return rasterize(SQUARE, FACES, (6, 7))


def test_a_texture_shown_pixel_for_pixel_is_itself() -> None:
    texture = torch.rand(4, 4, 3, generator=torch.Generator().manual_seed(0))
    picture = sample_texture(square(), FACES, CORNERS, texture)
    assert picture.shape == (1, 6, 7, 3)
    torch.testing.assert_close(picture[0, 1:5, 1:5], texture)
    assert (picture[~square().hit] == 0).all()


def test_between_the_centres_of_texels_colours_are_mixed_and_beyond_them_go_on() -> None:
    ramp = torch.tensor([[0.0, 1.0]])[..., None]
    picture = sample_texture(square(), FACES, CORNERS, ramp)
    # Centres of texels at u = 1/4 and 3/4, of pixels at u = 1/8, 3/8, 5/8, 7/8.
    torch.testing.assert_close(picture[0, 1:5, 1:5, 0], torch.tensor([0.0, 0.25, 0.75, 1.0]).expand(4, -1))


def test_a_texture_may_have_faces_of_its_own_and_differ_between_images() -> None:
    found = rasterize(SQUARE.expand(2, -1, -1), FACES, (6, 7))
    own_faces = torch.tensor([[2, 3, 4], [2, 4, 5]])
    coordinates = torch.cat([torch.full((2, 2), 9.0), CORNERS])
    textures = torch.rand(2, 4, 4, 1, generator=torch.Generator().manual_seed(0))
    picture = sample_texture(found, own_faces, coordinates, textures)
    torch.testing.assert_close(picture[:, 1:5, 1:5], textures)


def test_textures_are_differentiable_by_texels_and_coordinates() -> None:
    texture = torch.rand(5, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    coordinates = (0.07 + 0.8 * CORNERS.double()).requires_grad_()
    found = rasterize(SQUARE.double(), FACES, (6, 7))
    assert torch.autograd.gradcheck(lambda t, c: sample_texture(found, FACES, c, t), (texture, coordinates), atol=1e-6)


def test_normals_of_a_ball_in_a_picture_are_its_directions() -> None:
    size, mesh = (64, 80), ball(8000)
    found = rasterize(seen(mesh.vertices, size), mesh.faces, size, cull_backfaces=True)
    shown = normal_map(found, mesh.faces, vertex_normals(mesh.vertices, mesh.faces))
    place = torch.nn.functional.normalize(interpolate(found, mesh.faces, mesh.vertices), dim=-1)
    assert ((shown * place).sum(dim=-1)[found.hit] > 0.999).all()
    assert (shown[~found.hit] == 0).all()
    assert shown[0, 32, 40, 2] > 0.99
    assert shown[0, 10, 40, 1] > 0.5
    assert shown[0, 32, 60, 0] > 0.5


def lit_from(direction: Tensor) -> Tensor:
    """Coefficients (27,) of white light, brightest where normals are ``direction``, without any constant part."""
    coefficients = spherical_harmonics(direction)[1:4]
    return torch.cat([torch.tensor([1 - AMBIENT]), coefficients, torch.zeros(5)]).repeat(3)


def test_light_falls_on_the_side_that_it_comes_from() -> None:
    size, mesh = (40, 40), ball(2000)
    found = rasterize(seen(mesh.vertices, size).float(), mesh.faces, size, cull_backfaces=True)
    normals = normal_map(found, mesh.faces, vertex_normals(mesh.vertices, mesh.faces).float())
    albedo = torch.where(found.hit[..., None], torch.tensor([0.8, 0.4, 0.2]), 0.0)
    picture = shade_pixels(albedo, normals, lit_from(torch.tensor([1.0, 0.0, 0.0])))
    assert picture[0, 20, 34, 0] > 2 * picture[0, 20, 6, 0]
    torch.testing.assert_close(picture[0, 20, 34, 0] / picture[0, 20, 34, 2], torch.tensor(4.0))
    assert (picture[~found.hit] == 0).all()


def test_each_image_has_its_own_light_as_the_face_model_shades() -> None:
    rng = torch.Generator().manual_seed(0)
    albedo, lighting = torch.rand(2, 3, 4, 3, generator=rng), torch.randn(2, 27, generator=rng)
    normals = torch.nn.functional.normalize(torch.randn(2, 3, 4, 3, generator=rng), dim=-1)
    picture = shade_pixels(albedo, normals, lighting)
    for k in range(2):
        torch.testing.assert_close(picture[k], shade(albedo[k], normals[k], lighting[k]))
