"""The camera sees what OpenCV's does, half a pixel aside, and knows the way back."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from fitting.cameras import Camera, distort_plane, pixel_grid, undistort_plane
from fitting.similarity import Similarity, rigid

LENSES = {
    4: [-0.28, 0.09, 1e-3, -2e-3],
    5: [0.12, -0.25, -1e-3, 5e-4, 0.1],
    8: [0.4, 0.1, 1e-3, 1e-3, 0.02, 0.6, 0.2, 0.03],
}
seeds = st.integers(0, 2**32 - 1)


def random_camera(seed: int, *batch: int, lens: int | None = None) -> Camera:
    """Looks at the origin from about a metre, a little off its centre."""
    generator = np.random.default_rng(seed)
    n = int(np.prod(batch))
    turn = Rotation.from_rotvec(generator.uniform(-0.5, 0.5, (n, 3))).as_matrix().reshape(*batch, 3, 3)
    move = generator.uniform([-0.05, -0.05, 0.9], [0.05, 0.05, 1.3], (*batch, 3))
    k = np.zeros((*batch, 3, 3))
    k[..., 0, 0], k[..., 1, 1], k[..., 2, 2] = generator.uniform(500, 900, batch), generator.uniform(500, 900, batch), 1
    k[..., 0, 2], k[..., 1, 2] = generator.uniform(300, 340, batch), generator.uniform(220, 260, batch)
    distortion = None if lens is None else torch.tensor(LENSES[lens], dtype=torch.float64)
    pose = rigid(torch.from_numpy(turn), torch.from_numpy(move)).matrix()
    return Camera(torch.from_numpy(k), pose, 640, 480, distortion)


def head_points(seed: int, *shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).uniform(-0.15, 0.15, (*shape, 3)))


@pytest.mark.parametrize("lens", [None, 4, 5, 8])
def test_projects_as_opencv_half_a_pixel_aside(lens):
    camera, points = random_camera(1, lens=lens), head_points(2, 50)
    turn, _ = cv2.Rodrigues(camera.world_to_camera[:3, :3].numpy())
    coefficients = None if lens is None else np.array(LENSES[lens])
    expected, _ = cv2.projectPoints(
        points.numpy(), turn, camera.world_to_camera[:3, 3].numpy(), camera.with_integer_centres().numpy(), coefficients
    )
    seen = camera.project(points)
    assert np.abs(seen.pixels.numpy() - 0.5 - expected[:, 0]).max() < 1e-9
    assert torch.allclose(seen.depth, (points @ camera.world_to_camera[2, :3]) + camera.world_to_camera[2, 3])
    back = Camera.from_integer_centres(camera.with_integer_centres(), camera.world_to_camera, 640, 480, camera.distortion)
    assert torch.allclose(back.project(points).pixels, seen.pixels)


def test_the_point_on_the_axis_is_in_the_middle_of_an_image_whose_principal_point_is():
    k = torch.tensor([[100.0, 0, 2.0], [0, 100, 1.5], [0, 0, 1]])
    camera = Camera(k, torch.eye(4), 4, 3)
    assert camera.project(torch.tensor([[0.0, 0, 1]])).pixels.tolist() == [[2.0, 1.5]]
    # x is right, y is down; the middle pixel of three rows has its centre at 1.5.
    assert camera.project(torch.tensor([[0.01, 0.01, 1]])).pixels.tolist() == [[3.0, 2.5]]
    assert pixel_grid(4, 3, k)[[0, 1, 4]].tolist() == [[0.5, 0.5], [1.5, 0.5], [0.5, 1.5]]
    assert pixel_grid(4, 3, k).shape == (12, 2)


@settings(deadline=None, max_examples=50)
@given(seeds, st.sampled_from([None, 4, 5, 8]))
def test_points_come_back_from_pixels_and_depths(seed, lens):
    camera, points = random_camera(seed, 3, lens=lens), head_points(seed, 3, 20)
    assert torch.allclose(camera.unproject(*camera.project(points)), points, atol=1e-12)
    assert torch.allclose(camera.project(camera.centre[:, None] + 1e-9).depth, torch.zeros(3, 1).double(), atol=1e-8)


@pytest.mark.parametrize("lens", [4, 5, 8])
def test_undistorts_as_opencv_does_when_it_is_given_time(lens):
    camera, pixels = random_camera(3, lens=lens), pixel_grid(640, 480, torch.zeros((), dtype=torch.float64))[::97]
    k, coefficients = camera.with_integer_centres().numpy(), np.array(LENSES[lens])
    patient = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 500, 1e-14)
    expected = cv2.undistortPointsIter(pixels.numpy()[:, None] - 0.5, k, coefficients, np.eye(3), k, patient)[:, 0] + 0.5
    found = camera.undistort(pixels)
    assert np.abs(found.numpy() - expected).max() < 1e-8
    assert torch.allclose(camera.distort(found), pixels, atol=1e-10)
    # The pinhole sees at the undistorted pixels what the lens shows.
    depth = torch.ones(len(pixels)).double()
    assert torch.allclose(camera.unproject(pixels, depth), camera.pinhole().unproject(found, depth), atol=1e-12)


@settings(deadline=None, max_examples=50)
@given(seeds)
def test_distortion_can_be_undone_wherever_it_does_not_fold(seed):
    generator = np.random.default_rng(seed)
    lens = torch.from_numpy(generator.uniform(-1, 1, 5) * [0.3, 0.1, 2e-3, 2e-3, 0.05])
    plane = torch.from_numpy(generator.uniform(-0.6, 0.6, (40, 2)))
    assert torch.allclose(undistort_plane(distort_plane(plane, lens), lens), plane, atol=1e-11)


def test_beyond_what_a_lens_shows_there_is_nothing():
    lens = torch.tensor([-0.3, 0, 0, 0], dtype=torch.float64)
    # r (1 - 0.3 r²) is largest at r = 1.054, where it is 0.7027.
    found = undistort_plane(torch.tensor([[0.70, 0], [0, 0.7026], [0.71, 0], [5.0, 5.0]]).double(), lens)
    assert found[:2].isfinite().all()
    assert (found[:2].norm(dim=-1) < 1.0541).all()
    assert found[2:].isnan().all()


@pytest.mark.parametrize("lens", [4, 5, 8])
def test_a_few_steps_of_newton_are_enough(lens):
    # Only the right derivative doubles the digits with each step.
    bend, plane = 2 * torch.tensor(LENSES[lens]).double(), head_points(0, 50)[:, :2] * 4
    shown = distort_plane(plane, bend)
    assert (shown - plane).abs().max() > 0.015
    assert torch.allclose(undistort_plane(shown, bend, max_steps=6), plane, atol=1e-12)
    shown.requires_grad_()
    bend.requires_grad_()
    assert torch.autograd.gradcheck(lambda s, b: undistort_plane(s[:5], b), (shown, bend), atol=1e-7, rtol=1e-6)


def test_a_lens_that_does_nothing():
    plane = head_points(0, 9)[:, :2]
    for length in LENSES:
        assert torch.equal(distort_plane(plane, torch.zeros(length).double()), plane)
        assert torch.equal(undistort_plane(plane, torch.zeros(length).double()), plane)


@pytest.mark.parametrize("lens", [4, 5, 8])
def test_derivatives(lens):
    camera, points = random_camera(5, 2, lens=lens), head_points(6, 2, 3).requires_grad_()
    k, pose, bend = (t.clone().requires_grad_() for t in (camera.intrinsics, camera.world_to_camera, camera.distortion))
    pixels, depth = camera.project(points.detach())

    def rows(matrix):
        return torch.cat([matrix[:, :-1], matrix[:, -1:].detach()], dim=1)

    assert torch.autograd.gradcheck(lambda k, p, b, x: Camera(rows(k), rows(p), 9, 9, b).project(x), (k, pose, bend, points))
    pixels, depth = pixels.clone().requires_grad_(), depth.clone().requires_grad_()
    # A tangent step in the pose leaves the rotations, for which alone there is a way back; so the pose stays.
    inputs = (k, bend, pixels, depth)
    assert torch.autograd.gradcheck(lambda k, b, x, d: Camera(rows(k), camera.world_to_camera, 9, 9, b).unproject(x, d), inputs)


@settings(deadline=None, max_examples=30)
@given(seeds, st.sampled_from([None, 5]))
def test_cropping_and_resizing_move_pixels_with_the_picture(seed, lens):
    camera, points = random_camera(seed, lens=lens), head_points(seed, 10)
    pixels = camera.project(points).pixels
    cropped = camera.crop(17.25, -3, 300, 200)
    assert torch.allclose(cropped.project(points).pixels, pixels - torch.tensor([17.25, -3]))
    assert (cropped.width, cropped.height) == (300, 200)
    half = camera.resize(320, 120)
    assert torch.allclose(half.project(points).pixels, pixels * torch.tensor([0.5, 0.25]))
    assert torch.allclose(half.resize(640, 480).intrinsics, camera.intrinsics)
    assert torch.allclose(cropped.crop(-17.25, 3, 640, 480).intrinsics, camera.intrinsics)


def test_resizing_agrees_with_the_pixels_that_opencv_makes():
    """A blob, drawn where a camera sees a point, is where the resized camera sees it in the resized image."""
    camera, point = random_camera(8), head_points(9, 1)
    y, x = np.mgrid[:480, :640] + 0.5
    u, v = camera.project(point).pixels[0].tolist()
    image = np.exp(-((x - u) ** 2 + (y - v) ** 2) / (2 * 12**2))
    small = cv2.resize(image, (160, 120), interpolation=cv2.INTER_AREA)
    y, x = np.mgrid[:120, :160] + 0.5
    found = np.array([(small * x).sum(), (small * y).sum()]) / small.sum()
    assert np.abs(camera.resize(160, 120).project(point).pixels[0].numpy() - found).max() < 0.01


def test_a_crop_for_each_frame():
    camera, points = random_camera(0), head_points(1, 4)
    left = torch.tensor([0.0, 10, 20])
    crops = camera.crop(left, 5.0, 64, 64)
    assert crops.batch == (3,)
    expected = camera.project(points).pixels - torch.stack([left, torch.full((3,), 5.0)], dim=-1)[:, None]
    assert torch.allclose(crops.project(points).pixels, expected)


@settings(deadline=None, max_examples=50)
@given(seeds, st.sampled_from([None, 5]))
def test_a_camera_moves_with_its_world(seed, lens):
    generator = np.random.default_rng(seed)
    turns = torch.from_numpy(Rotation.random(2, generator).as_matrix())
    change = Similarity(torch.tensor([4.0, 0.1]).double(), turns, torch.from_numpy(generator.uniform(-3, 3, (2, 3))))
    camera, points = random_camera(seed, 2, lens=lens), head_points(seed, 2, 10)
    before, after = camera.project(points), camera.moved(change).project(change.apply(points))
    assert torch.allclose(before.pixels, after.pixels, atol=1e-8)
    assert torch.allclose(after.depth, before.depth * change.scale[:, None], atol=1e-12)
    assert torch.allclose(camera.moved(change).moved(change.inverse()).world_to_camera, camera.world_to_camera, atol=1e-12)
    assert torch.allclose(camera.moved(change).centre, change.apply(camera.centre[:, None])[:, 0], atol=1e-11)


def test_normals_of_a_camera_turn_into_the_worlds():
    camera, x = random_camera(3), head_points(4, 3)
    seen = camera.pose.apply(x)
    normal_seen = torch.nn.functional.normalize(torch.linalg.cross(seen[1] - seen[0], seen[2] - seen[0]), dim=0)
    normal = torch.nn.functional.normalize(torch.linalg.cross(x[1] - x[0], x[2] - x[0]), dim=0)
    assert torch.allclose(camera.pose.inverse().apply_normals(normal_seen[None])[0], normal, atol=1e-10)


def test_a_depth_map_becomes_a_cloud_on_the_plane_that_was_seen():
    camera = random_camera(4)
    rays = camera.unproject(pixel_grid(640, 480, camera.intrinsics), torch.ones(480, 640).double().flatten()) - camera.centre
    # The plane z = 0.05 of the world, seen by every pixel.
    depth = ((0.05 - camera.centre[2]) / rays[:, 2]).reshape(480, 640)
    cloud = camera.unproject(pixel_grid(640, 480, depth), depth.flatten(-2))
    assert (cloud[:, 2] - 0.05).abs().max() < 1e-12
    assert torch.allclose(camera.project(cloud).pixels, pixel_grid(640, 480, depth), atol=1e-9)


def test_skew_is_seen_and_undone():
    camera = random_camera(0)
    skewed = Camera(camera.intrinsics + torch.tensor([[0, 30.0, 0], [0, 0, 0], [0, 0, 0]]), camera.world_to_camera, 640, 480)
    points = head_points(0, 6)
    seen = camera.pose.apply(points)
    straight, leaning = camera.project(points).pixels, skewed.project(points).pixels
    assert torch.allclose(leaning[:, 0] - straight[:, 0], 30 * seen[:, 1] / seen[:, 2])
    assert torch.allclose(skewed.unproject(*skewed.project(points)), points)


def test_batches_broadcast_and_can_be_indexed():
    many = random_camera(0, 5, lens=5)
    shared = Camera(many.intrinsics[0], many.world_to_camera, 640, 480, many.distortion[0])
    assert shared.batch == (5,)
    points = head_points(1, 7)
    assert shared.project(points).pixels.shape == (5, 7, 2)
    assert torch.equal(shared[3].project(points).pixels, shared.project(points).pixels[3])
    assert shared[1:3].batch == (2,)
    assert len(list(shared)) == 5
    with pytest.raises(IndexError, match="one camera"):
        shared[0][0]


def test_results_follow_the_points():
    camera, points = random_camera(0, lens=5), head_points(1, 7)
    narrow = camera.to(torch.float32)
    assert narrow.distortion.dtype == narrow.intrinsics.dtype == torch.float32
    exact = camera.project(points).pixels
    for seen in (camera.project(points.float()), narrow.project(points.float())):
        assert seen.pixels.dtype == torch.float32
        assert (seen.pixels - exact).abs().max() < 1e-3
    assert (narrow.unproject(*narrow.project(points.float())) - points).abs().max() < 1e-6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.eye(4), torch.eye(4), 8, 8), r"got \(4, 4\) and \(4, 4\)"),
        ((torch.eye(3), torch.eye(4)[:3], 8, 8), r"world_to_camera \(..., 4, 4\), got"),
        ((torch.eye(3), torch.eye(4), 8, 8, torch.zeros(6)), r"got \(6,\)"),
        ((torch.eye(3).expand(2, 3, 3), torch.eye(4).expand(3, 4, 4), 8, 8), "leading dimensions"),
        ((torch.eye(3), torch.eye(4), 0, 8), "0 x 8"),
    ],
)
def test_complaints(arguments, message):
    with pytest.raises(ValueError, match=message):
        Camera(*arguments)
