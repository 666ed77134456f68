"""Pictures of a head and the truth at their pixels: a ball, of which all is known, stands for the head."""

import numpy as np
import pytest
import torch
import trimesh

from fitting.cameras import Camera, pixel_grid
from fitting.studio.light import lamp
from fitting.studio.render import Shot, Surface, render, visible
from fitting.studio.rig import in_front, look_at
from prep.colour import to_linear

RADIUS = 0.1
CAMERA = in_front(96, 64)
SKY = np.full((64, 96, 3), 0.25, np.float32)


def ball() -> tuple[torch.Tensor, Surface]:
    mesh = trimesh.creation.icosphere(5, RADIUS)
    faces = torch.tensor(np.asarray(mesh.faces), dtype=torch.int64)
    vertices = torch.tensor(np.asarray(mesh.vertices), dtype=torch.float32)
    labels = torch.where(vertices[faces].mean(dim=1)[:, 1] > 0, 2, 1).to(torch.uint8)
    uv = torch.stack([(vertices[:, 0] / RADIUS + 1) / 2, (vertices[:, 1] / RADIUS + 1) / 2], dim=1)
    albedo = torch.full((8, 8, 3), 0.5)
    albedo[:4] = torch.tensor([0.8, 0.1, 0.1])  # the upper half
    return vertices, Surface(faces, uv, faces, albedo, labels)


@pytest.fixture(scope="module")
def shot() -> Shot:
    vertices, surface = ball()
    light = lamp(torch.tensor([0.0, 0.0, 1.0]), torch.ones(3))
    return render(surface, vertices[None], CAMERA, light, SKY)


def test_depth_and_normals_are_those_of_the_ball(shot: Shot) -> None:
    depth = torch.from_numpy(shot.depth[0]).double()
    points = CAMERA.unproject(pixel_grid(96, 64, depth), depth.flatten()).view(64, 96, 3)
    hit = depth > 0
    assert 0.1 < hit.double().mean() < 0.6
    assert (points[hit].norm(dim=-1) - RADIUS).abs().max() < 3e-4
    in_camera = torch.from_numpy(shot.normals[0]).double()
    in_world = in_camera @ CAMERA.world_to_camera[:3, :3]
    torch.testing.assert_close(in_world[hit], points[hit] / RADIUS, atol=0.02, rtol=0)
    assert (in_camera[hit][:, 2] < 0.05).all()  # towards the camera
    assert (in_camera[~hit] == 0).all()


def test_labels_are_those_of_the_faces(shot: Shot) -> None:
    assert set(np.unique(shot.labels)) == {0, 1, 2}
    rows = [np.nonzero((shot.labels[0] == label).any(axis=1))[0].mean() for label in (1, 2)]
    assert rows[0] > rows[1]
    np.testing.assert_array_equal(shot.labels[0] > 0, shot.depth[0] > 0)


def test_the_middle_is_lit_and_the_sky_shows_around(shot: Shot) -> None:
    sky = to_linear(shot.pictures[0, 0, 0] / 255)
    np.testing.assert_allclose(sky, 0.25, atol=0.01)
    upper, lower = (to_linear(shot.pictures[0, row, 48] / 255) for row in (24, 40))
    assert upper[0] > 4 * upper[1]
    assert np.ptp(lower) < 0.02


def test_outlines_are_mixed_with_the_backdrop_in_light(shot: Shot) -> None:
    partly = (shot.alpha[0] > 0) & (shot.alpha[0] < 255)
    assert 20 < partly.sum() < 400
    assert (shot.alpha[0][shot.depth[0] == 0] < 255).all()


def test_cameras_and_heads_go_together_in_a_batch() -> None:
    vertices, surface = ball()
    centres = torch.tensor([[0.0, 0, 0.9], [0.6, 0.2, 0.7]], dtype=torch.float64)
    poses = look_at(centres, torch.zeros(2, 3, dtype=torch.float64))
    cameras = Camera(CAMERA.intrinsics, poses, 96, 64)
    light = lamp(torch.tensor([0.6, 0.0, 0.8]), torch.ones(3))
    both = render(surface, vertices, cameras, light, SKY)
    for index in range(2):
        alone = render(surface, vertices, cameras[index], light, SKY)
        for one, many in zip(alone, both, strict=True):
            np.testing.assert_array_equal(one[0], many[index])


def test_points_behind_the_ball_or_outside_the_picture_are_not_visible(shot: Shot) -> None:
    points = torch.tensor([[[0.0, 0, RADIUS], [0, 0, -RADIUS], [0.9, 0, 0], [0, 0, 2.0], [0.12, 0.02, 0]]])
    camera = CAMERA.to(torch.float32)
    assert visible(points, camera, torch.from_numpy(shot.depth)).tolist() == [[True, False, False, False, True]]
