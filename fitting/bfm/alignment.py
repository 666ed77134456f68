"""Where in a frame the 224×224 crop lies that Deep3DFaceRecon's network wants, and the way back to the frame.

The crop is the frame scaled and moved, never turned, so that five landmarks fall near those of a mean face. There are two
modes:

``exact`` places the crop with sub-pixel accuracy: what the model's camera projects to a pixel of the crop is seen there.

``deep3d`` repeats the published code, for parity with coefficients that were made with it. That code cuts the scaled frame's
size and the crop's corner down to whole pixels: the crop jumps by a pixel while the head moves slowly, and the jumps
end up in the coefficients.

Landmarks and pixels are of the kind used everywhere here: x right, y down, the centre of the top-left pixel at (0.5, 0.5).
``trans_params`` alone keep the published convention, indices of pixels with y up, so that they can be exchanged.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from fitting.bfm.camera import CENTRE_X, CENTRE_Y, SIZE
from fitting.bfm.coefficients import check_last
from fitting.cameras import Camera

FACE_SCALE = 102.0
"""Pixels of the crop for a decimetre at the distance of the face."""

Mode = Literal["exact", "deep3d"]


@dataclass(frozen=True, slots=True)
class Alignment:
    """A crop for each frame: crop = scale · frame + offset. float64, whatever the landmarks were."""

    scale: Tensor
    """(..., 2) pixels of the crop for a pixel of the frame, in x and y. They differ only in mode ``deep3d``, by its rounding."""
    offset: Tensor
    """(..., 2) pixels of the crop."""
    trans_params: Tensor
    """(..., 5) the published parameters: frame width, frame height, scale, t0, t1."""
    mode: Mode

    def to_crop(self, points: Tensor) -> Tensor:
        """Pixels of the frame (..., P, 2) to pixels of the crop."""
        return (points * self.scale[..., None, :] + self.offset[..., None, :]).to(points.dtype)

    def to_frame(self, points: Tensor) -> Tensor:
        """Pixels of the crop (..., P, 2) to pixels of the frame."""
        return ((points - self.offset[..., None, :]) / self.scale[..., None, :]).to(points.dtype)

    def camera_to_frame(self, camera: Camera) -> Camera:
        """The camera of the full frame that sees there what ``camera`` sees in the crop, from the same place.

        With ``fitting.space.deep3d_camera`` that is the camera for predicted coefficients. Raises ``ValueError`` where the
        frames are of several sizes.
        """
        sizes = self.trans_params[..., :2].flatten(0, -2)
        if len(sizes) == 0 or (sizes != sizes[0]).any():
            raise ValueError("a batch of cameras has images of one size: take frames of one size at once, and at least one")
        zero, one = torch.zeros_like(self.scale[..., 0]), torch.ones_like(self.scale[..., 0])
        shift = -self.offset / self.scale
        rows = [
            torch.stack([1 / self.scale[..., 0], zero, shift[..., 0]], dim=-1),
            torch.stack([zero, 1 / self.scale[..., 1], shift[..., 1]], dim=-1),
            torch.stack([zero, zero, one], dim=-1),
        ]
        intrinsics = (torch.stack(rows, dim=-2) @ camera.intrinsics.to(self.scale)).to(camera.intrinsics)
        return replace(camera, intrinsics=intrinsics, width=int(sizes[0, 0]), height=int(sizes[0, 1]))


def five_points(landmarks: Tensor) -> Tensor:
    """Five points (..., 5, D) of 68 landmarks (..., 68, D): eye at the picture's left, eye at its right, tip of the nose,
    mouth corner at the left, at the right. An eye is the middle between its two corners.
    """
    eyes = [(landmarks[..., first, :] + landmarks[..., second, :]) / 2 for first, second in ((36, 39), (42, 45))]
    return torch.stack([*eyes, *(landmarks[..., k, :] for k in (30, 48, 54))], dim=-2)


class ScaledOrthography(NamedTuple):
    """A camera that scales and moves: the pose from orthography and scaling (POS) of Dementhon and Davis, 1995."""

    scale: Tensor
    """(...) pixels for a unit of the model."""
    translation: Tensor
    """(..., 2) the pixel at which the model's origin is seen."""


def fit_scaled_orthography(points: Tensor, model: Tensor) -> ScaledOrthography:
    """Least-squares fit of ``model`` (P, 3), P ≥ 4, to ``points`` (..., P, 2) with y up.

    x and y of the points are each fitted by an affine function of the model's coordinates; the scale is the mean length of
    the two gradients. The model's points must not lie in one plane.
    """
    homogeneous = torch.cat([model, torch.ones_like(model[:, :1])], dim=-1)
    solution = torch.linalg.pinv(homogeneous) @ points
    return ScaledOrthography(solution[..., :3, :].norm(dim=-2).mean(dim=-1), solution[..., 3, :])


def align(landmarks: Tensor, width: int, height: int, landmarks3d: Tensor, mode: Mode = "exact") -> Alignment:
    """Place the crop for ``landmarks`` (..., 68, 2) or (..., 5, 2) of frames of ``width`` × ``height`` pixels.

    ``landmarks3d`` (68, 3) or (5, 3) are the mean face's (``load_landmarks3d``). Raises ``ValueError`` where landmarks
    are not finite or fall in one point: frames without a face have to be left out or filled first.
    """
    points = _five(landmarks.to(torch.float64))
    index_y_up = torch.stack([points[..., 0] - 0.5, height - 0.5 - points[..., 1]], dim=-1)
    fitted = fit_scaled_orthography(index_y_up, _five(landmarks3d.to(index_y_up)))
    usable = torch.isfinite(fitted.scale) & (fitted.scale > 1e-6)
    if not usable.all():
        where = torch.nonzero(~usable)[0].tolist()
        raise ValueError(f"landmarks of frame {', '.join(map(str, where))} are not finite or fall in one point: leave it out")
    size = torch.tensor([width, height], dtype=torch.float64, device=points.device).expand_as(fitted.translation)
    trans_params = torch.cat([size, FACE_SCALE / fitted.scale[..., None], fitted.translation], dim=-1)
    return alignment_from_trans_params(trans_params, mode)


def alignment_from_trans_params(trans_params: Tensor, mode: Mode = "exact") -> Alignment:
    """The alignment that published ``trans_params`` (..., 5) stand for: width, height, scale, t0, t1.

    For coefficients that Deep3DFaceRecon or SadTalker made, ``mode="deep3d"`` is where their crop was. Raises ``ValueError``
    for another number of parameters or another mode.
    """
    check_last(trans_params, 5, "trans_params")
    if mode not in get_args(Mode):
        raise ValueError(f"an alignment's mode is one of {', '.join(get_args(Mode))}, not {mode}")
    trans_params = trans_params.to(torch.float64)
    size, scale, t = trans_params[..., :2], trans_params[..., 2:3], trans_params[..., 3:]
    if mode == "exact":
        centre = torch.stack([t[..., 0] + 0.5, size[..., 1] - 0.5 - t[..., 1]], dim=-1)
        offset = scale.new_tensor([CENTRE_X, CENTRE_Y]) - scale * centre
        return Alignment(scale.expand_as(size), offset, trans_params, mode)
    scaled = (size * scale).trunc()
    from_centre = torch.stack([t[..., 0] - size[..., 0] / 2, size[..., 1] / 2 - t[..., 1]], dim=-1)
    corner = (scaled / 2 - SIZE / 2 + from_centre * scale).trunc()
    return Alignment(scaled / size, -corner, trans_params, mode)


def _five(points: Tensor) -> Tensor:
    if points.shape[-2] == 5:
        return points
    if points.shape[-2] != 68:
        raise ValueError(f"alignment takes 68 or 5 landmarks, got shape {tuple(points.shape)}")
    return five_points(points)
