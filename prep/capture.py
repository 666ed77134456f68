"""A performance recorded by several calibrated cameras: what lies in its folder, and its moments in true colours.

Three layouts are read: the two releases of NeRSemble (Kirschstein et al., SIGGRAPH 2023), of which version 1 has a folder of
PNG files for each frame and version 2 an mp4 for each camera, and a plain one that anybody can write (docs/captures.md). The
cameras are given as the files have them; ``fitting.captures`` makes cameras of them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from manifests.document import file_digest
from manifests.source import STAND_IN
from manifests.stage import Unreadable
from prep.colour import affine, mix
from prep.video import Video, to_rgb

Layout = Literal["nersemble-v1", "nersemble-v2", "plain"]

NERSEMBLE_RATE = 73
"""Frames a second that NeRSemble's frame numbers count."""

NERSEMBLE_SIZE = (2200, 3208)
"""Width and height in pixels of its images, which its intrinsics are for where its file does not say."""

DEPTH_STEPS = 32767
"""Steps in a metre of its depth maps, which are counted from 1; 0 is no depth."""

ANNOTATIONS = ".truth.npz"
"""Ending of a file of answers beside a capture's folder, ``<folder>.truth.npz``, which belongs to the capture."""

PICTURES = (".png", ".jpg", ".jpeg")
SOUNDS = ("audio.wav", "audio.flac", "audio.m4a")
_V1_PICTURES, _V1_ALPHA, _V1_DEPTH = "images-2x-73fps", "alpha_map-73fps", "colmap-73fps/depth_maps_compressed"


class Moment(NamedTuple):
    """What the C cameras of a capture saw at one time; cameras that have no picture of it show black."""

    pictures: NDArray[np.uint8]
    """(C, H, W, 3) RGB in true colours."""
    present: NDArray[np.bool_]
    """(C,) which cameras have a picture."""
    alpha: NDArray[np.uint8] | None
    """(C, H, W) 255 on the person, and all over a camera that has no such map; None where no camera has one."""
    depth: NDArray[np.uint16] | None
    """(C, H, W) shipped depth in steps of 1/32767 m counted from 1, 0 for none; None where the capture has none."""


@dataclass(frozen=True)
class Capture:
    """One sequence of a multi-camera recording. ``open_capture`` makes it."""

    path: Path
    """The sequence's folder."""
    layout: Layout
    serials: tuple[str, ...]
    """Names of the cameras, in the order of the calibration."""
    calibration: Mapping[str, Any]
    """The content of its ``camera_params.json`` or ``cameras.json``."""
    times_us: NDArray[np.int64]
    """(F,) times of all frames, ascending, on the clock of the sound."""
    sound: Path | None

    @property
    def stand_in(self) -> bool:
        """Whether headloom made it."""
        return self.calibration.get("comment") == STAND_IN

    @property
    def home(self) -> Path:
        """The folder that holds all that belongs to the capture: NeRSemble's is that of the person."""
        return self.path if self.layout == "plain" else self.path.parent.parent

    @property
    def annotations(self) -> Path:
        """Where its annotations lie, if it has any."""
        return self.path.with_name(self.path.name + ANNOTATIONS)

    def files(self) -> list[Path]:
        """All files that the capture consists of, sorted."""
        home, name = self.home, self.path.name
        beside = [self.annotations]
        if self.layout == "nersemble-v1":
            beside += [home / "camera_params.json", *(home / "annotations" / name / "color_correction").glob("*.npy")]
        elif self.layout == "nersemble-v2":
            beside += [home / "calibration" / "camera_params.json", home / "calibration" / "color_calibration.json"]
        within = (path for path in self.path.rglob("*") if path.is_file() and not path.name.startswith("."))
        return sorted({*(path for path in beside if path.is_file()), *within})

    def digest(self) -> str:
        """sha256 of the names and digests of all files: what the capture is, wherever it lies."""
        listing = hashlib.sha256()
        for path in self.files():
            # A plain capture's annotations lie outside its folder, whose name is not part of what it is.
            name = path.relative_to(self.home).as_posix() if path.is_relative_to(self.home) else ANNOTATIONS
            listing.update(f"{name} {file_digest(path)}\n".encode())
        return listing.hexdigest()

    def present(self, frames: Sequence[int]) -> NDArray[np.bool_]:
        """(F, C) which cameras have a picture of the ``frames``: files of images are looked for, not read."""
        if self.layout == "nersemble-v1":
            folders = _v1_frames(self.path)
            images = [[folders[frame] / _V1_PICTURES / f"cam_{serial}.png" for serial in self.serials] for frame in frames]
            return np.array([[path.is_file() for path in moment] for moment in images]).reshape(len(frames), len(self.serials))
        cameras, names = [], _names(self.path, self.serials)
        for serial in self.serials:
            video = _v2_video(self.path, serial) if self.layout == "nersemble-v2" else self.path / f"{serial}.mp4"
            if video.is_file():
                cameras.append(_nearest(_times(video), self.times_us[list(frames)])[1])
            else:
                stills = _stills(self.path / serial)
                cameras.append(np.array([frame < len(names) and names[frame] in stills for frame in frames]))
        return np.stack(cameras, axis=1)

    def size_within(self, width: int, frame: int) -> tuple[int, int]:
        """Width and height of the pictures at ``frame``, reduced to ``width`` where they are wider."""
        recorded_height, recorded_width = next(self.moments([frame])).pictures.shape[1:3]
        used = min(width, recorded_width)
        return used, round(used * recorded_height / recorded_width)

    def moments(self, frames: Sequence[int], size: tuple[int, int] | None = None) -> Iterator[Moment]:
        """The ``frames``, ascending numbers into ``times_us``, in the ``size`` (width, height) or as they were recorded.

        Pictures are reduced by areas, depth and alpha by nearest pixels. Raises ``Unreadable`` for pictures that cannot be read.
        """
        reader = {"nersemble-v1": self._v1, "nersemble-v2": self._v2, "plain": self._plain}[self.layout]
        for views in reader(frames):
            yield _moment(views, size)

    def _v1(self, frames: Sequence[int]) -> Iterator[list[_View]]:
        folders = _v1_frames(self.path)
        corrections = {serial: _v1_correction(self.home, self.path.name, serial) for serial in self.serials}
        for frame in frames:
            yield [self._v1_view(folders[frame], serial, corrections[serial]) for serial in self.serials]

    def _v1_view(self, folder: Path, serial: str, correction: NDArray[np.float64] | None) -> _View:
        picture = _read(folder / _V1_PICTURES / f"cam_{serial}.png")
        if picture is not None and correction is not None:
            picture = affine(picture, correction)
        alpha = _read(folder / _V1_ALPHA / f"cam_{serial}.png", cv2.IMREAD_GRAYSCALE)
        return _View(picture, alpha, _read(folder / _V1_DEPTH / f"cam_{serial}.png", cv2.IMREAD_UNCHANGED))

    def _v2(self, frames: Sequence[int]) -> Iterator[list[_View]]:
        path = self.home / "calibration" / "color_calibration.json"
        to_true = _json(path) if path.is_file() else {}
        cameras = [_frames_at(_v2_video(self.path, serial), self.times_us[list(frames)]) for serial in self.serials]
        for pictures in zip(*cameras, strict=True):
            yield [
                _View(mix(picture, np.array(to_true[serial])) if picture is not None and serial in to_true else picture)
                for serial, picture in zip(self.serials, pictures, strict=True)
            ]

    def _plain(self, frames: Sequence[int]) -> Iterator[list[_View]]:
        lenses = [_lens(self.calibration["cameras"][name]) for name in self.serials]
        names = _names(self.path, self.serials)
        cameras = [_plain_pictures(self.path, name, self.times_us, names, frames) for name in self.serials]
        masks = [_plain_masks(self.path, name, self.times_us, names, frames) for name in self.serials]
        for pictures, alphas in zip(zip(*cameras, strict=True), zip(*masks, strict=True), strict=True):
            yield [
                _View(_straight(picture, lens), _straight(alpha, lens))
                for picture, alpha, lens in zip(pictures, alphas, lenses, strict=True)
            ]


def open_capture(path: Path) -> Capture:
    """The capture whose folder is ``path``: a sequence of NeRSemble's, or a folder with ``cameras.json``.

    Raises ``Unreadable`` where the folder is none of these, or something in it cannot be read.
    """
    home = path.parent.parent
    if (path / "cameras.json").is_file():
        calibration = _json(path / "cameras.json")
        _check_plain(path, calibration)
        serials = tuple(calibration["cameras"])
        return Capture(path, "plain", serials, calibration, _plain_times(path, calibration, serials), _sound(path))
    if (home / "calibration" / "camera_params.json").is_file():
        calibration, serials = _nersemble(home / "calibration" / "camera_params.json")
        return Capture(path, "nersemble-v2", serials, calibration, _v2_times(path, serials), _sound(path))
    if (home / "camera_params.json").is_file():
        calibration, serials = _nersemble(home / "camera_params.json")
        times = [_microseconds(Fraction(_number(folder), NERSEMBLE_RATE)) for folder in _v1_frames(path)]
        return Capture(path, "nersemble-v1", serials, calibration, _some(times, path), _sound(path))
    raise Unreadable(f"{path} is no capture: it has no cameras.json, and NeRSemble's camera_params.json is not two folders above")


def find_captures(root: Path) -> list[Path]:
    """The folders of all captures below ``root``, sorted; ``BACKGROUND`` and sequences without pictures are none."""
    found = {path.parent for path in root.rglob("cameras.json")}
    for calibration in root.rglob("camera_params.json"):
        home = calibration.parent.parent if calibration.parent.name == "calibration" else calibration.parent
        for sequence in (home / "sequences").glob("*"):
            if (sequence / "images").is_dir() or next(sequence.glob("frame_*"), None):
                found.add(sequence)
    return sorted(found)


# --- pictures


class _View(NamedTuple):
    """One camera's share of a moment; None for what is not there."""

    picture: NDArray[np.uint8] | None
    alpha: NDArray[Any] | None = None
    depth: NDArray[Any] | None = None


def _moment(views: Sequence[_View], size: tuple[int, int] | None) -> Moment:
    shape = next((view.picture.shape for view in views if view.picture is not None), None)
    if size is None:
        size = (shape[1], shape[0]) if shape else (1, 1)
    width, height = size
    black = np.zeros((height, width, 3), np.uint8)
    pictures = [black if view.picture is None else _sized(view.picture, size, cv2.INTER_AREA) for view in views]
    present = np.array([view.picture is not None for view in views])
    alpha = depth = None
    if any(view.alpha is not None for view in views):
        whole = np.full((height, width), 255, np.uint8)
        alpha = np.stack([whole if view.alpha is None else _sized(view.alpha, size, cv2.INTER_NEAREST) for view in views])
    if any(view.depth is not None for view in views):
        nowhere = np.zeros((height, width), np.uint16)
        depth = np.stack([nowhere if view.depth is None else _sized(view.depth, size, cv2.INTER_NEAREST) for view in views])
    return Moment(np.stack(pictures), present, alpha, depth)


def _sized(held: NDArray[Any], size: tuple[int, int], how: int) -> NDArray[Any]:
    if (held.shape[1], held.shape[0]) == size:
        return held
    # Areas are for smaller pictures; larger ones are interpolated.
    grows = how == cv2.INTER_AREA and size[0] > held.shape[1]
    return np.asarray(cv2.resize(held, size, interpolation=cv2.INTER_LINEAR if grows else how))


def _read(path: Path, how: int = cv2.IMREAD_COLOR) -> NDArray[Any] | None:
    """An image, None where there is no file. Colours are RGB."""
    try:
        data = np.frombuffer(path.read_bytes(), np.uint8)
    except FileNotFoundError:
        return None
    held = cv2.imdecode(data, how) if len(data) else None
    if held is None:
        raise Unreadable(f"{path.name} in {path.parent} is no image that can be read")
    return np.ascontiguousarray(held[..., ::-1]) if how == cv2.IMREAD_COLOR else held


def _frames_at(path: Path, times_us: NDArray[np.int64]) -> Iterator[NDArray[np.uint8] | None]:
    """The picture of a video that is shown nearest to each time; None where none is within half a usual interval."""
    if not path.is_file():
        yield from (None for _ in times_us)
        return
    times = _nearest(_times(path), times_us)
    video = Video(str(path))
    for time, near in zip(*times, strict=True):
        if not near:
            yield None
            continue
        rect = (0, 0, video.width, video.height)
        yield to_rgb(next(video.regions([int(time)], rect)), video.colour)


def _nearest(known: NDArray[np.int64], times_us: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The ``known`` time nearest to each of ``times_us``, and whether it is within half a usual interval."""
    reach = int(np.median(np.diff(known))) // 2 if len(known) > 1 else 500_000
    nearest = known[np.abs(known[None] - times_us[:, None]).argmin(axis=1)]
    return nearest, np.abs(nearest - times_us) <= reach


def _times(path: Path) -> NDArray[np.int64]:
    try:
        return np.array([picture.pts_us for picture in Video(str(path))], np.int64)
    except Unreadable as error:
        raise Unreadable(f"{path.name}: {error}") from None


# --- NeRSemble


def _nersemble(path: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
    calibration = _json(path)
    if not isinstance(calibration.get("world_2_cam"), dict) or not calibration["world_2_cam"] or "intrinsics" not in calibration:
        raise Unreadable(f"{path} has no world_2_cam with cameras, or no intrinsics: it is no NeRSemble calibration")
    return calibration, tuple(calibration["world_2_cam"])


def _v1_frames(path: Path) -> list[Path]:
    return sorted((folder for folder in path.glob("frame_*") if folder.is_dir()), key=_number)


def _number(folder: Path) -> int:
    digits = folder.name.removeprefix("frame_")
    if not digits.isdecimal():
        raise Unreadable(f"{folder.name} in {folder.parent} is no frame: a number belongs after frame_")
    return int(digits)


def _v1_correction(home: Path, sequence: str, serial: str) -> NDArray[np.float64] | None:
    path = home / "annotations" / sequence / "color_correction" / f"{serial}.npy"
    if not path.is_file():
        return None
    try:
        matrix = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError):
        raise Unreadable(f"{path} is no array that can be read") from None
    if matrix.shape != (3, 4):
        raise Unreadable(f"{path} has shape {matrix.shape}, a colour correction has (3, 4)")
    return np.asarray(matrix, np.float64)


def _v2_video(path: Path, serial: str) -> Path:
    return path / "images" / f"cam_{serial}.mp4"


def _v2_times(path: Path, serials: Iterable[str]) -> NDArray[np.int64]:
    """Those of the camera that has the most frames; cameras record at the same times."""
    videos = [video for serial in serials if (video := _v2_video(path, serial)).is_file()]
    return _longest(videos, path)


def _longest(videos: Sequence[Path], path: Path) -> NDArray[np.int64]:
    readable, trouble = [], "it has no pictures"
    for video in videos:
        try:
            readable.append(_times(video))
        except Unreadable as error:
            trouble = str(error)
    if not readable:
        raise Unreadable(f"{path}: {trouble}")
    return max(readable, key=len)


# --- the plain layout


class _Lens(NamedTuple):
    intrinsics: NDArray[np.float64]
    distortion: NDArray[np.float64]


def _check_plain(path: Path, calibration: Mapping[str, Any]) -> None:
    cameras = calibration.get("cameras")
    if not all(isinstance(calibration.get(side), int) for side in ("width", "height")):
        raise Unreadable(f"{path / 'cameras.json'} does not say the width and height of the pictures that K is for")
    if not isinstance(cameras, dict) or not cameras:
        raise Unreadable(f"{path / 'cameras.json'} names no cameras")
    for name, camera in cameras.items():
        for key, shape in (("K", (3, 3)), ("R", (3, 3)), ("t", (3,))):
            try:
                held = np.asarray(camera[key], np.float64)
            except (KeyError, TypeError, ValueError):
                raise Unreadable(f"{path / 'cameras.json'}: camera {name} has no {key} of numbers") from None
            if held.shape != shape or not np.isfinite(held).all():
                raise Unreadable(f"{path / 'cameras.json'}: {key} of camera {name} has shape {held.shape} instead of {shape}")


def _plain_times(path: Path, calibration: Mapping[str, Any], serials: Sequence[str]) -> NDArray[np.int64]:
    """As ``times_s`` says, else by ``fps``, else those of the videos."""
    if "times_s" in calibration:
        times = np.rint(1e6 * np.asarray(calibration["times_s"], np.float64)).astype(np.int64)
        if times.ndim != 1 or (np.diff(times) <= 0).any():
            raise Unreadable(f"{path / 'cameras.json'}: times_s is no list of ascending times")
        return _some(times.tolist(), path)
    videos = [video for name in serials if (video := path / f"{name}.mp4").is_file()]
    if videos:
        return _longest(videos, path)
    count = len(_names(path, serials))
    if count > 1 and "fps" not in calibration:
        raise Unreadable(f"{path / 'cameras.json'} has neither fps nor times_s, so nobody knows when its pictures were taken")
    rate = Fraction(calibration.get("fps", 1)).limit_denominator(1_000_000)
    return _some([_microseconds(frame / rate) for frame in range(count)], path)


def _plain_pictures(
    path: Path, name: str, times_us: NDArray[np.int64], names: Sequence[str], frames: Sequence[int]
) -> Iterator[NDArray[np.uint8] | None]:
    if (path / f"{name}.mp4").is_file():
        yield from _frames_at(path / f"{name}.mp4", times_us[list(frames)])
        return
    stills = _stills(path / name)
    for frame in frames:
        yield _still(stills, names, frame)


def _plain_masks(
    path: Path, name: str, times_us: NDArray[np.int64], names: Sequence[str], frames: Sequence[int]
) -> Iterator[NDArray[np.uint8] | None]:
    """One for each picture of the camera, of the same name or, beside a video, in order; or none at all."""
    masks, film = _stills(path / f"{name}.masks"), (path / f"{name}.mp4").is_file()
    pictures = len(times_us) if film else len(_stills(path / name))
    if masks and len(masks) != pictures:
        raise Unreadable(f"{path / name}.masks has {len(masks)} masks for {pictures} pictures: give one for each, or none")
    for frame in frames:
        yield _still(masks, sorted(masks) if film else names, frame, cv2.IMREAD_GRAYSCALE)


def _names(path: Path, serials: Sequence[str]) -> list[str]:
    """Of the moments of a plain capture that has stills: those of one moment have the same name in every camera's folder.

    So a picture that is missing leaves a gap, and those after it stay where they belong.
    """
    folders = [held for serial in serials if (held := _stills(path / serial))]
    names = sorted({name for held in folders for name in held})
    if len(names) > sum(map(len, folders)) // 2 and len(folders) > 1 and not set.intersection(*map(set, folders)):
        raise Unreadable(f"{path}: the pictures of a moment have other names in each camera's folder: name them alike")
    return names


def _stills(folder: Path) -> dict[str, Path]:
    return {path.stem: path for path in sorted(folder.glob("*")) if path.suffix.lower() in PICTURES}


def _still(stills: Mapping[str, Path], names: Sequence[str], frame: int, how: int = cv2.IMREAD_COLOR) -> NDArray[Any] | None:
    return _read(stills[names[frame]], how) if frame < len(names) and names[frame] in stills else None


def _lens(camera: Mapping[str, Any]) -> _Lens | None:
    bent = np.asarray(camera.get("distortion") or [0.0], np.float64)
    return _Lens(np.asarray(camera["K"], np.float64), bent) if bent.any() else None


def _straight(picture: NDArray[Any] | None, lens: _Lens | None) -> NDArray[Any] | None:
    """What a pinhole with the same K would have seen. OpenCV counts pixels' centres from 0, headloom from 0.5."""
    if picture is None or lens is None:
        return picture
    centred = lens.intrinsics - np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])
    return np.asarray(cv2.undistort(picture, centred, lens.distortion))


# --- what all have


def _sound(path: Path) -> Path | None:
    return next((path / name for name in SOUNDS if (path / name).is_file()), None)


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise Unreadable(f"{path} is no JSON: {error}") from None
    if not isinstance(content, dict):
        raise Unreadable(f"{path} holds a {type(content).__name__} instead of names and values")
    return content


def _microseconds(time: Fraction) -> int:
    return round(time * 1_000_000)


def _some(times: Sequence[int], path: Path) -> NDArray[np.int64]:
    if not times:
        raise Unreadable(f"{path}: it has no pictures")
    return np.asarray(times, np.int64)
