"""In everybody's convention, written out plainly, a point is seen at the same pixel; and every way has a way back."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from fitting.cameras import Camera
from fitting.similarity import Similarity
from fitting.space import (
    BFM_TO_METRES,
    DECIMETRE,
    FLAME_TO_NPHM,
    ColmapCamera,
    OpenGLCamera,
    deep3d_camera,
    deep3d_pose,
    from_colmap,
    from_mononphm_pose,
    from_opengl,
    from_pixels_y_up,
    from_pytorch3d,
    nersemble_cameras,
    nphm_scan_to_nphm,
    to_colmap,
    to_mononphm_pose,
    to_opengl,
    to_pixels_y_up,
    to_pytorch3d,
)
from tests.fitting.test_cameras import head_points, random_camera
from tests.fitting.test_similarity import random_similarity

seeds = st.integers(0, 2**32 - 1)
few = settings(deadline=None, max_examples=40)


def assert_same_camera(a: Camera, b: Camera) -> None:
    assert (a.width, a.height) == (b.width, b.height)
    assert torch.allclose(a.intrinsics, b.intrinsics, rtol=1e-11, atol=1e-9)
    assert torch.allclose(a.world_to_camera, b.world_to_camera, rtol=1e-11, atol=1e-12)
    assert (a.distortion is None) == (b.distortion is None)


# --- OpenGL


@few
@given(seeds)
def test_opengl_draws_a_point_where_the_camera_sees_it(seed):
    straight, points = random_camera(seed), head_points(seed, 8)
    skew = torch.tensor([[0, 12.5, 0], [0, 0, 0], [0, 0, 0]])
    camera = Camera(straight.intrinsics + skew, straight.world_to_camera, straight.width, straight.height)
    near, far = 0.5, 2.0
    gl = to_opengl(camera, near, far)
    view, projection = gl.view.numpy(), gl.projection.numpy()
    expected = camera.project(points)
    for point, pixel, depth in zip(points.numpy(), expected.pixels.numpy(), expected.depth.numpy(), strict=True):
        eye = view @ [*point, 1.0]
        clip = projection @ eye
        ndc = clip[:3] / clip[3]
        # glViewport(0, 0, w, h): window coordinates count from the bottom.
        window = [(ndc[0] + 1) / 2 * camera.width, (ndc[1] + 1) / 2 * camera.height]
        assert np.allclose([window[0], camera.height - window[1]], pixel, atol=1e-9)
        assert math.isclose(eye[2], -depth)
        assert math.isclose(ndc[2], (far + near - 2 * far * near / depth) / (far - near), abs_tol=1e-12)
    assert np.linalg.det(view[:3, :3]) > 0
    assert_same_camera(from_opengl(gl, camera.width, camera.height), camera)


def test_opengls_projection_of_a_centred_camera_is_glfrustums():
    focal, width, height, near, far = 100.0, 64, 48, 0.1, 10.0
    k = torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]], dtype=torch.float64)
    right, top = near * width / 2 / focal, near * height / 2 / focal
    expected = [
        [near / right, 0, 0, 0],
        [0, near / top, 0, 0],
        [0, 0, -(far + near) / (far - near), -2 * far * near / (far - near)],
        [0, 0, -1, 0],
    ]
    gl = to_opengl(Camera(k, torch.eye(4, dtype=torch.float64), width, height), near, far)
    assert torch.allclose(gl.projection, torch.tensor(expected, dtype=torch.float64))
    assert torch.equal(gl.view, torch.diag(torch.tensor([1.0, -1, -1, 1]).double()))


def test_near_and_far_are_the_ends_of_opengls_depth():
    camera = Camera(torch.tensor([[9.0, 0, 5], [0, 9, 5], [0, 0, 1]]), torch.eye(4), 10, 10)
    gl = to_opengl(camera, 0.25, 4.0)
    for z, expected in ((0.25, -1.0), (4.0, 1.0)):
        clip = gl.projection @ gl.view @ torch.tensor([0.0, 0, z, 1])
        assert float(clip[2] / clip[3]) == pytest.approx(expected)


# --- PyTorch3D


@few
@given(seeds, st.booleans(), st.sampled_from([(640, 480), (480, 640), (512, 512)]))
def test_pytorch3d_draws_a_point_where_the_camera_sees_it(seed, in_ndc, size):
    width, height = size
    seen = random_camera(seed)
    camera, points = Camera(seen.intrinsics, seen.world_to_camera, width, height), head_points(seed, 8)
    theirs = to_pytorch3d(camera, in_ndc=in_ndc)
    R, T, f, p = (part.numpy() for part in theirs[:4])
    expected = camera.project(points)
    for point, pixel, depth in zip(points.numpy(), expected.pixels.numpy(), expected.depth.numpy(), strict=True):
        view = point @ R + T
        assert math.isclose(view[2], depth)
        if in_ndc:
            ndc = f * view[:2] / view[2] + p
        else:
            # Cameras in screen space: the same projection with the principal point negated, then to NDC by half the shorter side.
            ndc = (f * view[:2] / view[2] - p + np.array([width, height]) / 2) / (min(width, height) / 2)
        # NDC: +x left, +y up, ±1 at the ends of the shorter side.
        screen = np.array([width, height]) / 2 - ndc * min(width, height) / 2
        assert np.allclose(screen, pixel, atol=1e-9)
    assert np.linalg.det(R) > 0
    assert theirs.image_size.tolist() == [height, width]
    assert_same_camera(from_pytorch3d(theirs), camera)


def test_pytorch3ds_axes_point_left_and_up():
    camera = Camera(torch.tensor([[10.0, 0, 4], [0, 10, 4], [0, 0, 1]]), torch.eye(4), 8, 8)
    theirs = to_pytorch3d(camera)
    # Right and below of the axis in OpenCV is negative in both.
    assert (torch.tensor([0.1, 0.2, 1.0]) @ theirs.R + theirs.T).tolist() == pytest.approx([-0.1, -0.2, 1.0])
    assert theirs.focal_length.tolist() == [2.5, 2.5]
    assert theirs.principal_point.tolist() == [0.0, 0.0]


def test_the_arguments_are_pytorch3ds():
    batch = to_pytorch3d(random_camera(0, 3))
    assert set(batch._asdict()) == {"R", "T", "focal_length", "principal_point", "image_size", "in_ndc"}
    assert [tuple(t.shape) for t in batch[:5]] == [(3, 3, 3), (3, 3), (3, 2), (3, 2), (3, 2)]
    cameras = pytest.importorskip("pytorch3d.renderer.cameras", exc_type=ImportError)
    camera, points = random_camera(0, 3), head_points(1, 3, 8)
    for in_ndc in (True, False):
        theirs = cameras.PerspectiveCameras(**to_pytorch3d(camera.to(torch.float32), in_ndc=in_ndc)._asdict())
        screen = theirs.transform_points_screen(points.float())[..., :2]
        assert (screen - camera.project(points).pixels).abs().max() < 1e-2


# --- COLMAP


@few
@given(seeds, st.sampled_from([None, 4, 5, 8]))
def test_colmap_sees_a_point_where_the_camera_does(seed, lens):
    camera, points = random_camera(seed, lens=lens), head_points(seed, 8)
    theirs = to_colmap(camera)
    assert theirs.model == {None: "PINHOLE", 4: "OPENCV", 5: "FULL_OPENCV", 8: "FULL_OPENCV"}[lens]
    w, x, y, z = theirs.quaternion.tolist()
    assert math.isclose(w * w + x * x + y * y + z * z, 1)
    R, t = Rotation.from_quat([x, y, z, w]).as_matrix(), theirs.translation.numpy()
    fx, fy, cx, cy, *bend = theirs.params.tolist()
    k1, k2, p1, p2, k3, k4, k5, k6 = bend + [0.0] * (8 - len(bend))
    for point, pixel in zip(points.numpy(), camera.project(points).pixels.numpy(), strict=True):
        seen = R @ point + t
        a, b = seen[:2] / seen[2]
        r2 = a * a + b * b
        radial = (1 + k1 * r2 + k2 * r2**2 + k3 * r2**3) / (1 + k4 * r2 + k5 * r2**2 + k6 * r2**3)
        a, b = (
            a * radial + 2 * p1 * a * b + p2 * (r2 + 2 * a * a),
            b * radial + 2 * p2 * a * b + p1 * (r2 + 2 * b * b),
        )
        assert np.allclose([fx * a + cx, fy * b + cy], pixel, atol=1e-9)
    back = from_colmap(theirs, camera.width, camera.height)
    assert_same_camera(back, camera)
    assert torch.allclose(back.project(points).pixels, camera.project(points).pixels)


@pytest.mark.parametrize(
    ("model", "params", "k", "bend"),
    [
        ("SIMPLE_PINHOLE", [500, 320, 240], (500, 500, 320, 240), None),
        ("SIMPLE_RADIAL", [500, 320, 240, 0.1], (500, 500, 320, 240), [0.1, 0, 0, 0]),
        ("RADIAL", [500, 320, 240, 0.1, 0.2], (500, 500, 320, 240), [0.1, 0.2, 0, 0]),
        ("OPENCV", [500, 510, 320, 240, 0.1, 0.2, 0.3, 0.4], (500, 510, 320, 240), [0.1, 0.2, 0.3, 0.4]),
    ],
)
def test_colmaps_smaller_models(model, params, k, bend):
    theirs = ColmapCamera(model, torch.tensor(params).double(), torch.tensor([1.0, 0, 0, 0]), torch.zeros(3))
    camera = from_colmap(theirs, 640, 480)
    assert camera.intrinsics[[0, 1, 0, 1], [0, 1, 2, 2]].tolist() == list(k)
    assert (camera.distortion is None and bend is None) or camera.distortion.tolist() == pytest.approx(bend)


def test_a_batch_becomes_lines_of_colmap():
    theirs = to_colmap(random_camera(0, 4, lens=4))
    assert theirs.params.shape == (4, 8)
    assert theirs.quaternion.shape == (4, 4)


# --- NeRSemble


def calibration(**extra) -> dict:
    cameras = random_camera(0, 3)
    poses = dict(zip(("222200042", "222200044", "220700191"), cameras.world_to_camera.tolist(), strict=True))
    return {"world_2_cam": poses, "intrinsics": cameras.intrinsics[0].tolist(), **extra}


def test_nersembles_cameras_are_opencvs():
    serials, cameras = nersemble_cameras(calibration(), (2200, 3208))
    assert serials == ["222200042", "222200044", "220700191"]
    assert cameras.batch == (3,)
    assert (cameras.width, cameras.height) == (2200, 3208)
    point = head_points(0, 1)
    file = calibration()
    for camera, serial in zip(cameras, serials, strict=True):
        x = np.array(file["intrinsics"]) @ (np.array(file["world_2_cam"][serial]) @ [*point[0].tolist(), 1])[:3]
        assert np.allclose(camera.project(point).pixels[0].numpy(), x[:2] / x[2])
    # Published images are half as large: half of everything, the principal point too.
    half = cameras.resize(1100, 1604)
    assert torch.allclose(half.project(point).pixels, cameras.project(point).pixels / 2)


def test_nersembles_size_is_never_guessed():
    with pytest.raises(ValueError, match="pass size"):
        nersemble_cameras(calibration())
    _, cameras = nersemble_cameras(calibration(width=640, height=480), (2200, 3208))
    assert (cameras.width, cameras.height) == (640, 480)


def test_poses_that_are_not_rigid_are_refused():
    file = calibration()
    file["world_2_cam"]["222200042"] = (torch.diag(torch.tensor([2.0, 2, 2, 1])).double()).tolist()
    with pytest.raises(ValueError, match="scales by 1 to 2"):
        nersemble_cameras(file, (2200, 3208))
    file["world_2_cam"]["222200042"] = random_camera(0).world_to_camera.mT.tolist()
    with pytest.raises(ValueError, match="transposed"):
        nersemble_cameras(file, (2200, 3208))


# --- FLAME, NPHM, MonoNPHM


def test_nphm_is_flame_times_four():
    points = head_points(0, 5)
    assert torch.equal(FLAME_TO_NPHM.apply(points), 4 * points)
    assert torch.equal(FLAME_TO_NPHM.inverse().apply(FLAME_TO_NPHM.apply(points.float())), points.float())


@few
@given(seeds)
def test_raw_scans_come_back_by_the_published_formula(seed):
    to_nphm, raw = random_similarity(seed), head_points(seed, 9)
    s, R, t = (part.numpy() for part in to_nphm)
    loaded = nphm_scan_to_nphm(s[None], R, t[None])
    nphm = loaded.apply(raw)
    assert np.allclose(nphm.numpy(), (s * R @ raw.numpy().T).T + t)
    # Published for rows: x_raw = (1 / s) (x_nphm - t) R.
    published = (1 / s) * (nphm.numpy() - t) @ R
    assert np.allclose(published, raw.numpy(), atol=1e-10)
    assert torch.allclose(loaded.inverse().apply(nphm), raw, atol=1e-10)


@few
@given(seeds)
def test_mononphms_pose_starts_from_a_world_times_four(seed):
    pose, world = random_similarity(seed, 2), head_points(seed, 2, 5)
    world_to_nphm = from_mononphm_pose(*pose)
    s, R, t = (part.numpy() for part in pose)
    for b in range(2):
        for x, y in zip(world[b].numpy(), world_to_nphm.apply(world)[b].numpy(), strict=True):
            assert np.allclose(s[b] * R[b] @ (4 * x) + t[b], y)
    assert all(torch.allclose(a, b) for a, b in zip(to_mononphm_pose(world_to_nphm), pose, strict=True))


@few
@given(seeds)
def test_a_camera_sees_the_head_in_every_space_at_the_same_pixels(seed):
    """World to NPHM to FLAME: three spaces, three cameras, one picture."""
    world_to_nphm, camera, world = random_similarity(seed), random_camera(seed, lens=5), head_points(seed, 6)
    nphm_to_flame = FLAME_TO_NPHM.inverse()
    in_nphm, in_flame = camera.moved(world_to_nphm), camera.moved(nphm_to_flame.compose(world_to_nphm))
    pixels = camera.project(world).pixels
    nphm = world_to_nphm.apply(world)
    assert torch.allclose(in_nphm.project(nphm).pixels, pixels, atol=1e-7)
    assert torch.allclose(in_flame.project(nphm / 4).pixels, pixels, atol=1e-7)


# --- BFM


def published_deep3d_pixels(points: np.ndarray, angles: np.ndarray, translation: np.ndarray) -> np.ndarray:
    """Deep3DFaceRecon's way, point by point, in decimetres: pixels counted from the bottom of 224 rows."""
    x, y, z = angles
    Rx = np.array([[1, 0, 0], [0, math.cos(x), -math.sin(x)], [0, math.sin(x), math.cos(x)]])
    Ry = np.array([[math.cos(y), 0, math.sin(y)], [0, 1, 0], [-math.sin(y), 0, math.cos(y)]])
    Rz = np.array([[math.cos(z), -math.sin(z), 0], [math.sin(z), math.cos(z), 0], [0, 0, 1]])
    pixels = []
    for point in points:
        posed = point @ (Rz @ Ry @ Rx).T + translation
        depth = 10 - posed[2]
        pixels.append([1015 * posed[0] / depth + 112, 1015 * posed[1] / depth + 112])
    return np.array(pixels)


@few
@given(seeds)
def test_deep3ds_camera_sees_the_face_where_it_did(seed):
    generator = np.random.default_rng(seed)
    angles, translation = generator.uniform(-0.8, 0.8, (2, 3)), generator.uniform(-0.7, 0.7, (2, 3))
    face = generator.uniform(-1, 1, (2, 12, 3))
    camera = deep3d_camera(torch.from_numpy(angles), torch.from_numpy(translation))
    metres = BFM_TO_METRES.apply(torch.from_numpy(face))
    seen = camera.project(metres)
    for b in range(2):
        up = published_deep3d_pixels(face[b], angles[b], translation[b])
        # Row j from the bottom of 224 rows of pixels is row 223 - j from the top, and centres are at one half.
        assert np.allclose(seen.pixels[b].numpy(), np.stack([up[:, 0] + 0.5, 223 - up[:, 1] + 0.5], axis=1), atol=1e-9)
        assert np.allclose(to_pixels_y_up(seen.pixels[b], 224).numpy(), up, atol=1e-9)
    assert torch.allclose(from_pixels_y_up(to_pixels_y_up(seen.pixels, 224), 224), seen.pixels)
    # About a metre away: 10 decimetres less the translation towards the camera.
    origin = camera.project(torch.zeros(2, 1, 3).double()).depth[:, 0]
    assert np.allclose(origin.numpy(), (10 - translation[:, 2]) * DECIMETRE)
    back_angles, back_translation = deep3d_pose(camera)
    assert np.allclose(back_angles.numpy(), angles, atol=1e-12)
    assert np.allclose(back_translation.numpy(), translation, atol=1e-12)


def test_deep3ds_camera_in_decimetres_is_the_same_camera_in_another_world():
    camera = deep3d_camera(torch.tensor([[0.1, -0.2, 0.3]]).double(), torch.tensor([[0.1, 0.2, 0.3]]).double())
    face = head_points(0, 1, 5) * 5
    in_decimetres = camera.moved(BFM_TO_METRES.inverse())
    assert torch.allclose(in_decimetres.project(face).pixels, camera.project(face * DECIMETRE).pixels)
    assert torch.allclose(in_decimetres.project(face).depth, camera.project(face * DECIMETRE).depth * 10)


def test_a_face_with_y_up_stands_upright_in_the_image():
    camera = deep3d_camera(torch.zeros(3), torch.zeros(3))
    brow, chin, nose, left_ear = camera.project(torch.tensor([[0, 0.05, 0], [0, -0.05, 0], [0, 0, 0.05], [0.05, 0, 0]])).pixels
    assert brow[1] < chin[1]
    # The subject's left, +x, is at the right of the image.
    assert left_ear[0] > nose[0]
    assert camera.project(torch.tensor([[0, 0, 0.05]])).depth < camera.project(torch.zeros(1, 3)).depth


# --- what cannot be converted


def test_what_a_convention_does_not_know_is_refused():
    bent, plain = random_camera(0, lens=4), random_camera(0)
    skewed = Camera(plain.intrinsics + torch.tensor([[0, 1.0, 0], [0, 0, 0], [0, 0, 0]]), plain.world_to_camera, 640, 480)
    unit, gl = torch.tensor([1.0, 0, 0, 0]), to_opengl(plain, 0.1, 1)
    theirs = to_pytorch3d(random_camera(0, 2))
    refused = [
        (lambda: to_opengl(bent, 0.1, 1), "pinhole"),
        (lambda: to_opengl(plain, 1, 1), "near < far"),
        (lambda: from_opengl(OpenGLCamera(gl.view, gl.projection.mT), 640, 480), "transposed"),
        (lambda: to_pytorch3d(bent), "PyTorch3D knows no distortion"),
        (lambda: to_pytorch3d(skewed), "PyTorch3D knows no skew"),
        (lambda: to_colmap(skewed), "COLMAP knows no skew"),
        (lambda: from_colmap(ColmapCamera("OPENCV_FISHEYE", torch.zeros(8), unit, unit[1:]), 8, 8), "OPENCV_FISHEYE is not"),
        (lambda: from_colmap(ColmapCamera("PINHOLE", torch.zeros(3), unit, unit[1:]), 8, 8), "PINHOLE has 4 parameters, got 3"),
        (lambda: from_pytorch3d(theirs._replace(image_size=torch.tensor([[4, 5], [4, 6]]))), "one image size"),
        (lambda: deep3d_pose(plain), "not the camera of Deep3DFaceRecon"),
    ]
    for call, message in refused:
        with pytest.raises(ValueError, match=message):
            call()


def test_cameras_stay_float32_and_have_derivatives():
    camera = random_camera(0).to(torch.float32)
    assert to_opengl(camera, 0.1, 2).projection.dtype == torch.float32
    assert all(part.dtype == torch.float32 for part in to_pytorch3d(camera)[:4])
    assert to_colmap(camera).params.dtype == torch.float32
    angles, translation = torch.zeros(2, 3).double().requires_grad_(), torch.zeros(2, 3).double().requires_grad_()
    points = head_points(1, 2, 3)
    assert torch.autograd.gradcheck(lambda a, t: deep3d_camera(a, t).project(points).pixels, (angles, translation))
    assert torch.autograd.gradcheck(lambda a, t: deep3d_pose(deep3d_camera(a, t)), (angles, translation))


def test_one_formula_for_a_world_that_is_rescaled_in_everybodys_convention():
    """A camera that moved with its world shows the same after conversion too."""
    camera, points = random_camera(3), head_points(3, 5)
    change = Similarity(torch.tensor(4.0).double(), random_similarity(1).rotation, torch.ones(3).double())
    for there_and_back in (
        lambda c: from_opengl(to_opengl(c, 0.1, 9), 640, 480),
        lambda c: from_pytorch3d(to_pytorch3d(c)),
        lambda c: from_colmap(to_colmap(c), 640, 480),
    ):
        moved = there_and_back(camera).moved(change)
        assert torch.allclose(moved.project(change.apply(points)).pixels, camera.project(points).pixels)
