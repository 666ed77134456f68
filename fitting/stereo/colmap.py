"""COLMAP's own dense stereo and fusion, where pycolmap is installed.

``pip install 'headloom[stereo]'`` has the fusion, on the CPU. PatchMatch takes a GPU, and a pycolmap that was built with CUDA.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np

from fitting.stereo.sources import choose_sources, shows_something
from fitting.stereo.views import Cloud, DepthMaps, Views, check, check_maps
from fitting.stereo.workspace import read_cloud, read_maps, write_maps, write_workspace

_NO_CUDA = "COLMAP's PatchMatch takes CUDA, which this pycolmap was built without: install pycolmap-cuda12, or use depth_maps"


def pycolmap() -> Any:
    """The module. Raises ``ImportError`` that says what to install."""
    try:
        return importlib.import_module("pycolmap")
    except ImportError:
        raise ImportError("COLMAP's dense stereo and fusion need pycolmap: pip install 'headloom[stereo]'") from None


def why_no_patch_match() -> str:
    """What ``patch_match`` lacks here; empty where it can run."""
    try:
        return "" if pycolmap().has_cuda else _NO_CUDA
    except ImportError as error:
        return str(error)


def patch_match(
    views: Views,
    folder: Path,
    *,
    depth_range: tuple[float, float] = (0.8, 1.4),
    neighbours: int = 4,
    window_radius: int = 5,
    least_correlation: float = 0.1,
) -> DepthMaps:
    """Depth and normals of ``views`` by COLMAP's PatchMatch on a GPU, both passes, in a workspace that is kept in ``folder``.

    Views whose maps are there already are not done again. Outside the masks there is no depth. Raises ``ImportError`` without
    pycolmap and ``RuntimeError`` where it was built without CUDA: ``fitting.stereo.depth_maps`` needs neither.
    """
    module = pycolmap()
    if not module.has_cuda:
        raise RuntimeError(_NO_CUDA)
    near, far = depth_range
    usable = shows_something(check(views).pictures)
    distance = 2 / (1 / near + 1 / far)
    sources = choose_sources(views.cameras, distance, neighbours, usable=usable)
    names = write_workspace(folder, views, sources, distance)
    options = module.PatchMatchOptions()
    options.depth_min, options.depth_max = near, far
    options.window_radius, options.filter_min_ncc = window_radius, least_correlation
    options.geom_consistency, options.filter = True, True
    module.patch_match_stereo(str(folder), options=options)
    maps = read_maps(folder, names, views)
    if views.masks is None:
        return maps
    return DepthMaps(maps.depth * views.masks, maps.normals * views.masks[..., None], maps.confidence * views.masks)


def colmap_fuse(views: Views, maps: DepthMaps, folder: Path, *, least_views: int = 3, pixels: float = 1.0) -> Cloud:
    """The cloud of ``maps`` by COLMAP's fusion, in one thread so that the same maps give the same bytes; ``folder`` is scratch.

    ``pixels`` is the largest error of reprojection. Raises ``ImportError`` without pycolmap.
    """
    module = pycolmap()
    check_maps(check(views), maps)
    known = maps.depth[maps.depth > 0]
    distance = float(np.median(known)) if len(known) else 1.0
    usable = shows_something(views.pictures)
    names = write_workspace(folder, views, choose_sources(views.cameras, distance, usable=usable), distance)
    write_maps(folder, names, maps)
    options = module.StereoFusionOptions()
    options.min_num_pixels, options.max_reproj_error, options.num_threads = least_views, pixels, 1
    module.stereo_fusion(str(folder / "fused.ply"), str(folder), options=options, output_type="ply")
    return read_cloud(folder / "fused.ply")
