"""Multi-view stereo: from calibrated pictures of one moment to depth maps and a cloud; ``docs/stereo.md`` tells how well."""

from fitting.stereo.agreement import Tolerance, consistent
from fitting.stereo.cleaning import clean, clean_maps
from fitting.stereo.colmap import colmap_fuse, patch_match
from fitting.stereo.fusion import fuse
from fitting.stereo.shipped import from_shipped
from fitting.stereo.sweep import PASSES, Pass, depth_maps
from fitting.stereo.views import Cloud, DepthMaps, Views

__all__ = [
    "PASSES",
    "Cloud",
    "DepthMaps",
    "Pass",
    "Tolerance",
    "Views",
    "clean",
    "clean_maps",
    "colmap_fuse",
    "consistent",
    "depth_maps",
    "from_shipped",
    "fuse",
    "patch_match",
]
