"""The one coordinate layer: other people's spaces and cameras, to and from the ones used here.

Inside there are only OpenCV cameras (``fitting.cameras``) and metres. A head model keeps its own space, and this says where
that lies; ``docs/space.md`` has the table. Matrices multiply columns from the left unless it says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fitting.bfm.camera import CENTRE_X, CENTRE_Y, DISTANCE, FOCAL, SIZE
from fitting.cameras import Camera
from fitting.rotations import euler_zyx_to_matrix, matrix_to_euler_zyx, matrix_to_quaternion, quaternion_to_matrix
from fitting.similarity import Similarity, rigid

NPHM_SCALE = 4.0
"""NPHM's unit is a quarter of a metre; its axes and its origin are FLAME's."""
DECIMETRE = 0.1
"""Metres in a unit of the Basel face model as Deep3DFaceRecon has it."""
FLAME_TO_NPHM = Similarity.scaling(NPHM_SCALE)
BFM_TO_METRES = Similarity.scaling(DECIMETRE)
"""The unit only: a Basel face's axes are FLAME's (y up, z out of the face), its origin is the mean of its vertices."""

COLMAP_MODELS: dict[str, tuple[int, ...]] = {
    "SIMPLE_PINHOLE": (0, 0, 1, 2),
    "PINHOLE": (0, 1, 2, 3),
    "SIMPLE_RADIAL": (0, 0, 1, 2, 3),
    "RADIAL": (0, 0, 1, 2, 3, 4),
    "OPENCV": (0, 1, 2, 3, 4, 5, 6, 7),
    "FULL_OPENCV": (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11),
}
"""COLMAP's camera models that an OpenCV camera can be: where fx, fy, cx, cy, k1, k2, p1, p2, k3 … k6 are in the parameters."""


class OpenGLCamera(NamedTuple):
    """A camera for OpenGL: clip = projection · view · point. x right, y up, z *backward*; depth -1 (near) to 1 (far)."""

    view: Tensor
    """(..., 4, 4) world to eye."""
    projection: Tensor
    """(..., 4, 4) eye to clip coordinates, not symmetric where the principal point is not the image's centre."""


class Pytorch3dCamera(NamedTuple):
    """The arguments of PyTorch3D's cameras: ``PerspectiveCameras(**camera._asdict())``, with one leading dimension.

    Its axes are x *left*, y up, z forward, and points are rows: seen = point · R + T.
    """

    R: Tensor
    """(..., 3, 3) multiplies rows from the right."""
    T: Tensor
    """(..., 3)."""
    focal_length: Tensor
    """(..., 2) in pixels, or in half sides of the image's shorter side for NDC."""
    principal_point: Tensor
    """(..., 2) in pixels, or for NDC from the image's centre to the left and up, in the same half sides."""
    image_size: Tensor
    """(..., 2) height and width."""
    in_ndc: bool


class ColmapCamera(NamedTuple):
    """A line of COLMAP's ``cameras.txt`` and one of its ``images.txt``; pixel centres at 0.5 as here."""

    model: str
    params: Tensor
    """(..., P) in COLMAP's order for the model."""
    quaternion: Tensor
    """(..., 4) w, x, y, z, world to camera."""
    translation: Tensor
    """(..., 3) t, not the camera's position."""


def to_opengl(camera: Camera, near: float, far: float) -> OpenGLCamera:
    """An OpenGL camera that shows the same; ``near`` and ``far`` in metres bound what it draws.

    A pixel (u, v) is at x = 2 u / width - 1 and y = 1 - 2 v / height in normalised device coordinates. Raises
    ``ValueError`` for a camera with distortion or an empty range of depths.
    """
    _refuse_distortion(camera, "OpenGL")
    if not 0 < near < far:
        raise ValueError(f"OpenGL draws from near to far with 0 < near < far, got {near} and {far}")
    k = camera.intrinsics
    to_ndc = k.new_tensor([[2 / camera.width, 0, -1], [0, -2 / camera.height, 1]])
    # Rows x and y of the clip coordinates of points in OpenCV's axes; y and z change sign in the eye's.
    upper = (to_ndc @ k) * k.new_tensor([1.0, -1.0, -1.0])
    upper = torch.nn.functional.pad(upper, (0, 1))
    depth = k.new_tensor([[0, 0, -(far + near) / (far - near), -2 * far * near / (far - near)], [0, 0, -1, 0]])
    projection = torch.cat([upper, depth.expand_as(upper)], dim=-2)
    return OpenGLCamera(_flip_y_z(camera.world_to_camera), projection)


def from_opengl(camera: OpenGLCamera, width: int, height: int) -> Camera:
    """The camera that shows what an OpenGL camera does in an image of ``width`` × ``height``. Its near and far are dropped.

    Raises ``ValueError`` for a projection that is not a perspective, or is transposed.
    """
    if bool((camera.projection[..., 3, :] != camera.projection.new_tensor([0.0, 0.0, -1.0, 0.0])).any()):
        raise ValueError("not an OpenGL perspective: the last row of the projection must be 0, 0, -1, 0 (is it transposed?)")
    upper = camera.projection[..., :2, :3] * camera.projection.new_tensor([1.0, -1.0, -1.0])
    last = upper.new_tensor([[0.0, 0.0, 1.0]]).expand_as(upper[..., :1, :])
    to_pixels = upper.new_tensor([[width / 2, 0, width / 2], [0, -height / 2, height / 2], [0, 0, 1]])
    return Camera(to_pixels @ torch.cat([upper, last], dim=-2), _flip_y_z(camera.view), width, height)


def to_pytorch3d(camera: Camera, *, in_ndc: bool = True) -> Pytorch3dCamera:
    """PyTorch3D's camera that shows the same, in NDC (what its renderer works in) or in pixels (``in_ndc=False``).

    NDC go from -1 to 1 over the shorter side of the image, x to the left, y up. Raises ``ValueError`` for a
    camera with distortion or skew.
    """
    _refuse_distortion(camera, "PyTorch3D")
    _refuse_skew(camera, "PyTorch3D")
    k = camera.intrinsics
    focal, principal = k[..., [0, 1], [0, 1]], k[..., :2, 2]
    if in_ndc:
        half_side, centre = _pytorch3d_ndc(camera.width, camera.height, k)
        focal, principal = focal / half_side, (centre - principal) / half_side
    mirror = k.new_tensor([-1.0, -1.0, 1.0])
    rotation = (mirror[:, None] * camera.world_to_camera[..., :3, :3]).mT
    size = torch.tensor([camera.height, camera.width], device=k.device).expand(focal.shape)
    return Pytorch3dCamera(rotation, mirror * camera.world_to_camera[..., :3, 3], focal, principal, size, in_ndc)


def from_pytorch3d(camera: Pytorch3dCamera) -> Camera:
    """The camera that shows what PyTorch3D's does. Raises ``ValueError`` for a batch of images of several sizes."""
    sizes = camera.image_size.reshape(-1, 2).unique(dim=0)
    if len(sizes) != 1:
        raise ValueError(f"a batch of cameras has one image size, got {sizes.tolist()} (height, width): convert them one by one")
    height, width = (int(side) for side in sizes[0])
    focal, principal = camera.focal_length, camera.principal_point
    if camera.in_ndc:
        half_side, centre = _pytorch3d_ndc(width, height, focal)
        focal, principal = focal * half_side, centre - principal * half_side
    mirror = focal.new_tensor([-1.0, -1.0, 1.0])
    pose = rigid(mirror[:, None] * camera.R.mT, mirror * camera.T)
    return Camera(_intrinsics(focal, principal), pose.matrix(), width, height)


def to_colmap(camera: Camera) -> ColmapCamera:
    """What COLMAP is told of a camera: model PINHOLE, OPENCV or FULL_OPENCV. Raises ``ValueError`` where there is skew."""
    _refuse_skew(camera, "COLMAP")
    k, parts, model = camera.intrinsics, [camera.intrinsics[..., [0, 1], [0, 1]], camera.intrinsics[..., :2, 2]], "PINHOLE"
    if camera.distortion is not None:
        model = "OPENCV" if camera.distortion.shape[-1] == 4 else "FULL_OPENCV"
        missing = len(COLMAP_MODELS[model]) - 4 - camera.distortion.shape[-1]
        parts.append(torch.nn.functional.pad(camera.distortion.to(k), (0, missing)))
    pose = camera.pose
    return ColmapCamera(model, torch.cat(parts, dim=-1), matrix_to_quaternion(pose.rotation), pose.translation)


def from_colmap(camera: ColmapCamera, width: int, height: int) -> Camera:
    """The camera of COLMAP's lines. Raises ``ValueError`` for a model that is not OpenCV's, or a wrong number of parameters."""
    if camera.model not in COLMAP_MODELS:
        known = ", ".join(COLMAP_MODELS)
        raise ValueError(f"COLMAP's camera model {camera.model} is not one of {known}: undistort the images with COLMAP first")
    where = COLMAP_MODELS[camera.model]
    if camera.params.shape[-1] != max(where) + 1:
        raise ValueError(f"COLMAP's {camera.model} has {max(where) + 1} parameters, got {camera.params.shape[-1]}")
    values = camera.params[..., list(where)]
    distortion = values[..., 4:] if len(where) > 4 else None
    if distortion is not None and distortion.shape[-1] < 4:
        distortion = torch.nn.functional.pad(distortion, (0, 4 - distortion.shape[-1]))
    pose = rigid(quaternion_to_matrix(camera.quaternion), camera.translation)
    return Camera(_intrinsics(values[..., :2], values[..., 2:4]), pose.matrix(), width, height, distortion)


def nersemble_cameras(calibration: Mapping[str, Any], size: tuple[int, int] | None = None) -> tuple[list[str], Camera]:
    """Serial numbers and cameras (C,), float64, of NeRSemble's ``camera_params.json``, in the file's order.

    ``size`` is the width and height that the intrinsics are for, where the file does not say: (2200, 3208) for NeRSemble's
    own. Raises ``ValueError`` where neither does, and for poses that are not rigid. ``resize`` the cameras for smaller images.
    """
    if "width" in calibration and "height" in calibration:
        size = int(calibration["width"]), int(calibration["height"])
    if size is None:
        raise ValueError("the camera file gives no width and height: pass size, (2200, 3208) for NeRSemble's own")
    serials = list(calibration["world_2_cam"])
    matrices = torch.tensor([calibration["world_2_cam"][serial] for serial in serials], dtype=torch.float64)
    pose = Similarity.from_matrix(matrices)
    if ((pose.scale - 1).abs() > 1e-3).any():
        raise ValueError(f"world_2_cam scales by {float(pose.scale.min()):.4g} to {float(pose.scale.max()):.4g}: not metres")
    return serials, Camera(torch.tensor(calibration["intrinsics"], dtype=torch.float64), matrices, *size)


def nphm_scan_to_nphm(s: Any, R: Any, t: Any) -> Similarity:
    """Raw scan to NPHM's space, from the arrays of its ``s.npy``, ``R.npy``, ``t.npy``: x_nphm = s R x_raw + t. float64."""
    s, R, t = (torch.as_tensor(array, dtype=torch.float64) for array in (s, R, t))
    return Similarity(s.reshape(()), R.reshape(3, 3), t.reshape(3))


def from_mononphm_pose(scale: Tensor, rotation: Tensor, translation: Tensor) -> Similarity:
    """World in metres to NPHM's space, from MonoNPHM's ``scale`` (...), ``rot`` (..., 3, 3) and ``trans`` (..., 3).

    Its tracker has multiplied the world by 4 before: x_nphm = scale · R · (4 x) + t.
    """
    return Similarity(scale * NPHM_SCALE, rotation, translation)


def to_mononphm_pose(world_to_nphm: Similarity) -> Similarity:
    """MonoNPHM's scale, rotation and translation; the inverse of ``from_mononphm_pose``."""
    return world_to_nphm._replace(scale=world_to_nphm.scale / NPHM_SCALE)


def deep3d_camera(angles: Tensor, translation: Tensor) -> Camera:
    """The camera of Deep3DFaceRecon's 224×224 crop, in a world that is the Basel face's space *in metres*.

    ``angles`` (..., 3) in radians and ``translation`` (..., 3) in decimetres are the network's. Multiply the model's
    points by ``DECIMETRE`` before they are projected. The published camera sees z = 10 - z, y up, and counts pixels from the
    bottom; this one sees the same.
    """
    flip, away = _deep3d_axes(translation)
    pose = rigid(flip[:, None] * euler_zyx_to_matrix(angles), DECIMETRE * (flip * translation + away))
    return Camera(_deep3d_intrinsics(translation), pose.matrix(), SIZE, SIZE)


def deep3d_pose(camera: Camera) -> tuple[Tensor, Tensor]:
    """Angles (..., 3) in radians and translation (..., 3) in decimetres; the inverse of ``deep3d_camera``.

    Raises ``ValueError`` where the intrinsics are not those of Deep3DFaceRecon's crop: no pose would mean the same there.
    """
    pose = camera.pose
    expected = _deep3d_intrinsics(camera.intrinsics).expand_as(camera.intrinsics)
    if not torch.allclose(camera.intrinsics, expected, rtol=1e-6, atol=1e-3):
        raise ValueError("not the camera of Deep3DFaceRecon's crop (focal length 1015, centre 112): it has no pose of that kind")
    flip, away = _deep3d_axes(pose.translation)
    return matrix_to_euler_zyx(flip[:, None] * pose.rotation), flip * (pose.translation / DECIMETRE - away)


def to_pixels_y_up(pixels: Tensor, height: int) -> Tensor:
    """Deep3DFaceRecon's pixels (..., 2), indices counted from the bottom, of ``pixels`` (..., 2) in an image ``height`` high."""
    return torch.stack([pixels[..., 0] - 0.5, height - 0.5 - pixels[..., 1]], dim=-1)


def from_pixels_y_up(pixels: Tensor, height: int) -> Tensor:
    """The inverse of ``to_pixels_y_up``."""
    return torch.stack([pixels[..., 0] + 0.5, height - 0.5 - pixels[..., 1]], dim=-1)


def _deep3d_intrinsics(like: Tensor) -> Tensor:
    return like.new_tensor([[FOCAL, 0.0, CENTRE_X], [0.0, FOCAL, CENTRE_Y], [0.0, 0.0, 1.0]])


def _deep3d_axes(like: Tensor) -> tuple[Tensor, Tensor]:
    """Signs that turn y up, z towards the camera into OpenCV's axes, and where the origin then is, in decimetres."""
    return like.new_tensor([1.0, -1.0, -1.0]), like.new_tensor([0.0, 0.0, DISTANCE])


def _flip_y_z(world_to_camera: Tensor) -> Tensor:
    return world_to_camera.new_tensor([1.0, -1.0, -1.0, 1.0])[:, None] * world_to_camera


def _pytorch3d_ndc(width: int, height: int, like: Tensor) -> tuple[float, Tensor]:
    return min(width, height) / 2, like.new_tensor([width / 2, height / 2])


def _intrinsics(focal: Tensor, principal: Tensor) -> Tensor:
    upper = torch.cat([torch.diag_embed(focal), principal[..., None]], dim=-1)
    return torch.cat([upper, upper.new_tensor([0.0, 0.0, 1.0]).expand_as(upper[..., :1, :])], dim=-2)


def _refuse_distortion(camera: Camera, whose: str) -> None:
    if camera.distortion is not None:
        raise ValueError(f"{whose} knows no distortion: undistort the image and convert camera.pinhole()")


def _refuse_skew(camera: Camera, whose: str) -> None:
    if bool((camera.intrinsics[..., 0, 1] != 0).any()):
        raise ValueError(f"{whose} knows no skew: intrinsics[0, 1] must be zero")
