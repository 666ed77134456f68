"""COLMAP's dense workspace, written for cameras that are known, and read.

    images/<name>             sparse/cameras.txt, images.txt, points3D.txt
    stereo/patch-match.cfg    stereo/fusion.cfg
    stereo/depth_maps/<name>.photometric.bin, .geometric.bin      stereo/normal_maps/ the same

A map is the text ``width&height&channels&`` and then float32, little-endian, row by row, one channel after the other. COLMAP's
dense stereo and its fusion count pixel centres from 0 while its cameras count them from 0.5, so that the principal points that
are written here are half a pixel less: without it points are off by half a pixel. Nothing in this module needs COLMAP.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from fitting.space import to_colmap
from fitting.stereo.views import Cloud, DepthMaps, Floats, Views, check, check_maps
from manifests.atomic import write_whole

Kind = Literal["photometric", "geometric"]
"""COLMAP's maps after its first and its second pass."""

_POINT = np.dtype([("point", "<f4", 3), ("normal", "<f4", 3), ("colour", "u1", 3)])
"""A vertex of ``fused.ply``."""

_PROPERTIES = [f"property float {name}" for name in ("x", "y", "z", "nx", "ny", "nz")]
_PROPERTIES += [f"property uchar {name}" for name in ("red", "green", "blue")]


def write_map(path: Path, held: Floats) -> None:
    """A depth map (H, W) or a normal map (H, W, 3) as COLMAP stores it."""
    planes = np.atleast_3d(held).astype("<f4")
    height, width, channels = planes.shape
    write_whole(path, f"{width}&{height}&{channels}&".encode() + planes.transpose(2, 0, 1).tobytes())


def read_map(path: Path) -> Floats:
    """A map of COLMAP's: (H, W), or (H, W, channels) where it has several. Raises ``ValueError`` for another file."""
    data = path.read_bytes()
    parts = data[:64].split(b"&", 3)
    if len(parts) != 4 or not all(part.isdigit() for part in parts[:3]):
        raise ValueError(f"{path}: not a map of COLMAP's, which begins with width&height&channels&")
    width, height, channels = (int(part) for part in parts[:3])
    begin, wanted = sum(len(part) + 1 for part in parts[:3]), 4 * width * height * channels
    if len(data) - begin != wanted:
        raise ValueError(f"{path}: {width}x{height}x{channels} takes {wanted} bytes, has {len(data) - begin}")
    held = np.frombuffer(data, "<f4", offset=begin).reshape(channels, height, width).transpose(1, 2, 0).astype(np.float32)
    return np.asarray(held[..., 0] if channels == 1 else held, np.float32)


def write_workspace(
    folder: Path, views: Views, sources: NDArray[np.int64], distance: float, *, names: Sequence[str] | None = None
) -> list[str]:
    """Write pictures, cameras and settings of ``views`` into ``folder``; returns the names of the pictures.

    ``sources`` (C, k), -1 for none, says which views each is matched with (``fitting.stereo.sources``). COLMAP's fusion compares
    views that have points in common; as there is no reconstruction, a point at ``distance`` metres on each camera's axis stands
    for it. ``names`` are by default ``view_00.png`` and so on. Raises ``ValueError`` for skew, which COLMAP does not have.
    """
    check(views)
    names = [f"view_{view:02d}.png" for view in range(len(views.pictures))] if names is None else list(names)
    if len(set(names)) != len(views.pictures):
        raise ValueError(f"{len(views.pictures)} views want as many different names, got {names}")
    observed, points = _anchors(views, distance)
    cameras, images, settings = [], [], []
    for view, name in enumerate(names):
        told = to_colmap(views.cameras[view].to(torch.float64))
        params = told.params.numpy() - np.array([0, 0, 0.5, 0.5])
        cameras.append(f"{view + 1} {told.model} {views.cameras.width} {views.cameras.height} {_numbers(params)}\n")
        pose = f"{_numbers(told.quaternion.numpy())} {_numbers(told.translation.numpy())}"
        images.append(f"{view + 1} {pose} {view + 1} {name}\n{observed[view]}\n")
        settings.append(f"{name}\n{', '.join(names[other] for other in sources[view] if other >= 0)}\n")
        write_whole(folder / "images" / name, cv2.imencode(Path(name).suffix, views.pictures[view][..., ::-1])[1].tobytes())
    texts = {
        "sparse/cameras.txt": cameras,
        "sparse/images.txt": images,
        "sparse/points3D.txt": points,
        "stereo/patch-match.cfg": [text for text, row in zip(settings, sources, strict=True) if (row >= 0).any()],
        "stereo/fusion.cfg": [f"{name}\n" for name in names],
    }
    for path, lines in texts.items():
        write_whole(folder / path, "".join(lines).encode())
    for maps in ("depth_maps", "normal_maps", "consistency_graphs"):
        (folder / "stereo" / maps).mkdir(parents=True, exist_ok=True)
    return names


def write_maps(folder: Path, names: Sequence[str], maps: DepthMaps, kind: Kind = "geometric") -> None:
    """Depth and normals of the views ``names`` into the workspace."""
    for name, depth, normals in zip(names, maps.depth, maps.normals, strict=True):
        write_map(folder / "stereo" / "depth_maps" / f"{name}.{kind}.bin", depth)
        write_map(folder / "stereo" / "normal_maps" / f"{name}.{kind}.bin", normals)


def read_maps(folder: Path, names: Sequence[str], views: Views, kind: Kind = "geometric") -> DepthMaps:
    """The maps of a workspace; views without a file have no depth. Confidence is 1 where there is a depth.

    Raises ``ValueError`` for files that are no maps, or of another size than the ``views``.
    """
    size = views.pictures.shape[:3]
    depth, normals = np.zeros(size, np.float32), np.zeros((*size, 3), np.float32)
    for view, name in enumerate(names):
        path = folder / "stereo" / "depth_maps" / f"{name}.{kind}.bin"
        if path.is_file():
            found = read_map(path), read_map(folder / "stereo" / "normal_maps" / f"{name}.{kind}.bin")
            if found[0].shape != size[1:] or found[1].shape != (*size[1:], 3):
                raise ValueError(f"{path}: pictures are {size[2]}x{size[1]}, the map is {found[0].shape[1]}x{found[0].shape[0]}")
            known = found[0] > 0
            depth[view], normals[view] = np.where(known, found[0], 0), np.where(known[..., None], found[1], 0)
    return check_maps(views, DepthMaps(depth, normals, (depth > 0).astype(np.float32)))


def read_cloud(path: Path) -> Cloud:
    """COLMAP's ``fused.ply``, with the numbers of views out of ``fused.ply.vis`` beside it. Raises ``ValueError`` for others."""
    data = path.read_bytes()
    head, found, body = data.partition(b"end_header\n")
    lines = head.decode("ascii", "replace").splitlines()
    if (
        not found
        or "format binary_little_endian 1.0" not in lines
        or [s for s in lines if s.startswith("property")] != _PROPERTIES
    ):
        raise ValueError(f"{path}: not a cloud of COLMAP's fusion")
    count = next(int(line.split()[2]) for line in lines if line.startswith("element vertex"))
    held = np.frombuffer(body, _POINT, count)
    seen = np.frombuffer(path.with_name(f"{path.name}.vis").read_bytes(), "<u4", offset=8)
    numbers = np.zeros(count, np.float32)
    place = 0
    for point in range(count):
        numbers[point] = seen[place]
        place += 1 + int(seen[place])
    return Cloud(held["point"].copy(), held["normal"].copy(), held["colour"].copy(), numbers)


def _anchors(views: Views, distance: float) -> tuple[list[str], list[str]]:
    """Points on the cameras' axes and who pictures them: the lines of ``images.txt`` and of ``points3D.txt``."""
    cameras = views.cameras.to(torch.float64)
    places = cameras.centre + distance * cameras.world_to_camera[:, 2, :3]
    pixels, depth = cameras.project(places)
    size = torch.tensor([cameras.width, cameras.height])
    seen = (depth > 0) & (pixels >= 0).all(dim=-1) & (pixels < size).all(dim=-1)
    count = len(places)
    observed = [
        " ".join(f"{_numbers(pixels[view, point].numpy())} {point + 1}" for point in range(count) if seen[view, point])
        for view in range(count)
    ]
    # A track counts a view's observations from 0, in the order of its line.
    index = seen.long().cumsum(dim=1) - 1
    points = []
    for point in range(count):
        track = " ".join(f"{view + 1} {int(index[view, point])}" for view in range(count) if seen[view, point])
        points.append(f"{point + 1} {_numbers(places[point].numpy())} 128 128 128 0 {track}\n")
    return observed, points


def _numbers(values: NDArray[np.float64]) -> str:
    return " ".join(repr(float(value)) for value in values)
