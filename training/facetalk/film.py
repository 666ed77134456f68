"""Showing animations: rendered heads, a film with sound, and one picture with sound and mouth below the faces.

Meshes are in metres with FLAME's axes. The camera stands still, so what moves is the head.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Sequence
from fractions import Fraction

import av
import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from fitting.cameras import Camera
from fitting.isosurface import Mesh
from fitting.raster import image_points, interpolate, rasterize, vertex_normals
from prep.encode import Encoder
from prep.video import Planes

Picture = NDArray[np.uint8]

WIDTH, HEIGHT = 208, 256
"""Pixels of a rendered head."""
YAWS = (0.0, 40.0)
"""Degrees about y from which a film shows the head: the front, and from the person's left."""

_CENTRE, _TALL = (0.0, 0.012, -0.03), 0.285
"""Metres: what is in a picture's middle, and how much of the space there is in its height."""
_AWAY = 4 * _TALL
_OVER = 2
_CLAY, _PAPER, _INK, _SOUND, _MOUTH = (205, 200, 192), 238, (120, 120, 120), (70, 110, 170), (190, 70, 50)
_CURVE = 72
"""Pixels in height of the sound and of the mouth's opening."""
_SOUND_BITS = 128_000


def render(mesh: Mesh, yaws: Sequence[float] = (0.0,)) -> Picture:
    """(HEIGHT, WIDTH times the number of ``yaws``, 3) RGB: a head, lit from the camera, seen from each of these degrees."""
    vertices = mesh.vertices.double()
    normals = vertex_normals(vertices, mesh.faces)
    panels = []
    for yaw in yaws:
        camera = _camera(yaw)
        fragments = rasterize(image_points(camera, vertices), mesh.faces, (camera.height, camera.width))
        facing = interpolate(fragments, mesh.faces, camera.pose.apply_normals(normals))[0, ..., 2].abs().clamp(max=1)
        light = (0.2 + 0.8 * facing)[..., None] * torch.tensor(_CLAY, dtype=torch.float64)
        panels.append(torch.where(fragments.hit[0, ..., None], light, float(_PAPER)))
    shown = torch.cat(panels, dim=1).round().byte().numpy()
    return np.asarray(cv2.resize(shown, (WIDTH * len(yaws), HEIGHT), interpolation=cv2.INTER_AREA))


def preview(pictures: Iterable[Picture], fps: Fraction, wave: NDArray[np.float32], rate: int) -> bytes:
    """An mp4 of RGB ``pictures`` (H, W, 3) of even sides, with the sound ``wave`` (S,), -1 ... 1, of ``rate`` Hz.

    H.264, and AAC in mono. Film and sound begin together; the sound is cut, or goes on in silence, to the film's end. The same
    arguments give the same bytes. Raises ``ValueError`` for no picture.
    """
    encoder, n_frames = None, 0
    for picture in pictures:
        encoder = encoder or Encoder(picture.shape[1], picture.shape[0], fps)
        encoder.add(_planes_of(picture))
        n_frames += 1
    if encoder is None:
        raise ValueError("a film needs a picture at least: there are no frames to show")
    return _with_sound(encoder.finish(), fitted(wave, n_frames, fps, rate), rate)


def fitted(wave: NDArray[np.float32], n_frames: int, fps: Fraction, rate: int) -> NDArray[np.float32]:
    """The sound (S,) of ``rate`` Hz cut or filled up with silence to the length of ``n_frames`` frames."""
    wanted = round(n_frames * rate / fps)
    found: NDArray[np.float32] = np.pad(wave[:wanted], (0, max(wanted - len(wave), 0)))
    return found


def strip(
    meshes: Sequence[Mesh],
    frames: Sequence[int],
    n_frames: int,
    fps: Fraction,
    opening_mm: NDArray[np.float64],
    wave: NDArray[np.float32],
    rate: int,
) -> Picture:
    """(H, W, 3) RGB: the heads of some ``frames`` of ``n_frames`` side by side, below them the sound and the mouth's opening.

    ``meshes`` are those frames' heads. Sound ``wave`` (S,) of ``rate`` Hz and ``opening_mm`` (T,) are drawn over the whole time;
    lines mark the frames. The opening's axis begins at 0 and its top is 10 mm or the widest opening.
    """
    heads = np.concatenate([render(mesh) for mesh in meshes], axis=1)
    width = heads.shape[1]
    sound, mouth = (np.full((_CURVE, width, 3), 255, np.uint8) for _ in range(2))
    for curve in (sound, mouth):
        curve[:, [_place(frame, n_frames, width) for frame in frames]] = _PAPER - 30
    _draw_sound(sound, fitted(wave, n_frames, fps, rate))
    top = max(10.0, float(opening_mm.max()))
    x = [_place(frame, n_frames, width) for frame in range(n_frames)]
    y = (_CURVE - 4) - (_CURVE - 8) * opening_mm / top
    points = np.stack([x, y], axis=1).round().astype(np.int32)
    cv2.polylines(mouth, [points], False, _MOUTH, 1, cv2.LINE_AA)
    for curve, name in ((sound, "sound"), (mouth, f"mouth, 0 to {top:.0f} mm")):
        cv2.putText(curve, name, (4, 11), cv2.FONT_HERSHEY_SIMPLEX, 0.35, _INK, 1, cv2.LINE_AA)
    return np.concatenate([heads, sound, mouth])


def _camera(yaw: float) -> Camera:
    """Seen from so many degrees about y; straight from the front at 0. Axes are OpenCV's: x right, y down, z away."""
    sine, cosine = math.sin(math.radians(yaw)), math.cos(math.radians(yaw))
    rotation = torch.tensor([[cosine, 0, -sine], [0, -1, 0], [-sine, 0, -cosine]], dtype=torch.float64)
    pose = torch.eye(4, dtype=torch.float64)
    pose[:3, :3], pose[:3, 3] = rotation, -rotation @ torch.tensor(_CENTRE, dtype=torch.float64)
    pose[2, 3] += _AWAY
    width, height = WIDTH * _OVER, HEIGHT * _OVER
    focal = height * _AWAY / _TALL
    intrinsics = torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]], dtype=torch.float64)
    return Camera(intrinsics, pose, width, height)


def _planes_of(picture: Picture) -> Planes:
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), "rgb24")
    frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG", threads=1)
    y, u, v = (
        np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width]
        for plane in frame.planes
    )
    return y, u, v


def _with_sound(film: bytes, wave: NDArray[np.float32], rate: int) -> bytes:
    """The mp4 ``film`` with the sound beside its pictures, which are copied as they are."""
    file = io.BytesIO()
    with (
        av.open(io.BytesIO(film), "r") as source,
        av.open(file, "w", format="mp4", container_options={"fflags": "+bitexact"}) as container,
    ):
        pictures = container.add_stream_from_template(source.streams.video[0])
        sound = container.add_stream("aac", rate, {"flags": "+bitexact"}, layout="mono", bit_rate=_SOUND_BITS)
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = pictures
                container.mux(packet)
        samples = av.AudioFrame.from_ndarray(np.clip(wave, -1, 1)[None].astype(np.float32), "fltp", "mono")
        samples.sample_rate, samples.pts = rate, 0
        container.mux(sound.encode(samples))
        container.mux(sound.encode(None))
    return file.getvalue()


def _place(frame: int, n_frames: int, width: int) -> int:
    """The column of a picture as wide as ``n_frames`` frames that is in the middle of a frame."""
    return int((frame + 0.5) * width / n_frames)


def _draw_sound(picture: Picture, wave: NDArray[np.float32]) -> None:
    """The wave over the picture's whole width, each column from its least to its greatest sample; full scale is the loudest."""
    height, width = picture.shape[:2]
    starts = np.arange(width) * len(wave) // width
    low, high = (ufunc.reduceat(wave, starts) for ufunc in (np.minimum, np.maximum))
    scale = (height / 2 - 4) / max(float(np.abs(wave).max()), 1e-3)
    rows = np.arange(height)[:, None]
    picture[(rows >= np.floor(height / 2 - scale * high)) & (rows <= np.ceil(height / 2 - scale * low))] = _SOUND
