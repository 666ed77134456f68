"""The cloud of one moment of a capture, and clouds as a dataset's columns hold them."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fitting.captures import cameras_of
from fitting.stereo.cleaning import clean, clean_maps
from fitting.stereo.colmap import patch_match
from fitting.stereo.fusion import fuse
from fitting.stereo.masks import Masker, Masks
from fitting.stereo.shipped import from_shipped
from fitting.stereo.sweep import depth_maps
from fitting.stereo.views import Cloud, Views
from prep.capture import Capture, Moment

Method = Literal["auto", "stereo", "patch_match", "shipped"]


def cloud_of(
    capture: Capture,
    moment: Moment,
    masker: Masker | None = None,
    *,
    method: Method = "auto",
    depth_range: tuple[float, float],
    least_views: int,
    points: int,
) -> Cloud:
    """The cloud of a ``moment``: from the depth maps that came with it (``auto`` where there are some), or by stereo, headloom's
    own or COLMAP's ``patch_match``.

    Only what the ``masker``'s masks show; where it has none there are no points, and without a masker all is taken. Cameras
    without a picture are left out; with too few left there are no points. Of more than ``points`` an even part is kept.
    """
    there = np.flatnonzero(moment.present)
    shipped = method == "shipped" or (method == "auto" and moment.depth is not None)
    if len(there) < max(least_views, 2) or (shipped and moment.depth is None):
        return _EMPTY
    height, width = moment.pictures.shape[1:3]
    pictures, cameras = moment.pictures[there], cameras_of(capture, (width, height))[there.tolist()]
    masks = Masks(None) if masker is None else masker(pictures, cameras, None if moment.alpha is None else moment.alpha[there])
    if masks is None:
        return _EMPTY
    views = Views(pictures, cameras, masks.inside)
    if shipped:
        assert moment.depth is not None
        maps = from_shipped(views, moment.depth[there], depth_range=depth_range)
    elif method == "patch_match":
        with tempfile.TemporaryDirectory() as folder:
            maps = patch_match(views, Path(folder), depth_range=depth_range)
    else:
        maps = depth_maps(views, depth_range=depth_range)
    cloud = fuse(views, clean_maps(views, maps, depth_range=depth_range), least_views=least_views)
    return chosen(clean(cloud, views=views) if masks.outline else cloud, points)


def chosen(cloud: Cloud, count: int) -> Cloud:
    """At most ``count`` points, evenly out of all."""
    index = np.linspace(0, len(cloud.points) - 1, min(count, len(cloud.points))).astype(np.int64)
    return Cloud(cloud.points[index], cloud.normals[index], cloud.colours[index], cloud.confidence[index])


def to_columns(clouds: list[Cloud]) -> dict[str, NDArray[np.generic]]:
    """The columns of the family ``cloud``; normals in steps of 1/127."""
    return {
        "cloud_points": np.concatenate([cloud.points for cloud in clouds]),
        "cloud_normals": np.rint(127 * np.concatenate([cloud.normals for cloud in clouds])).astype(np.int8),
        "cloud_colours": np.concatenate([cloud.colours for cloud in clouds]),
        "cloud_views": np.concatenate([cloud.confidence for cloud in clouds]).astype(np.uint8),
        "cloud_counts": np.array([len(cloud.points) for cloud in clouds], np.int32),
    }


def from_columns(
    cloud_points: NDArray[np.float32],
    cloud_normals: NDArray[np.int8],
    cloud_colours: NDArray[np.uint8],
    cloud_views: NDArray[np.uint8],
    cloud_counts: NDArray[np.int32],
) -> list[Cloud]:
    """The T clouds of a clip."""
    normals = cloud_normals.astype(np.float32)
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-6)
    ends = np.cumsum(cloud_counts)
    rows = [slice(end - count, end) for end, count in zip(ends, cloud_counts, strict=True)]
    views = cloud_views.astype(np.float32)
    return [Cloud(cloud_points[row], normals[row], cloud_colours[row], views[row]) for row in rows]


def packed(cloud: Cloud) -> bytes:
    """A cloud as bytes, exactly."""
    file = io.BytesIO()
    np.savez(file, **cloud._asdict())
    return file.getvalue()


def unpacked(data: bytes) -> Cloud:
    """The inverse of ``packed``."""
    with np.load(io.BytesIO(data)) as held:
        return Cloud(held["points"], held["normals"], held["colours"], held["confidence"])


_EMPTY = Cloud(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.float32), np.zeros((0, 3), np.uint8), np.zeros(0, np.float32))
