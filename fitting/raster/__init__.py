"""Triangle meshes as pictures, differentiably: one contract, two ways of finding what is visible. See ``docs/raster.md``."""

from fitting.raster.fragments import Backend, Fragments, choose_backend, rasterize
from fitting.raster.interpolate import interpolate, vertex_normals
from fitting.raster.projection import image_points
from fitting.raster.shading import normal_map, sample_texture, shade_pixels
from fitting.raster.silhouette import antialias, coverage

__all__ = [
    "Backend",
    "Fragments",
    "antialias",
    "choose_backend",
    "coverage",
    "image_points",
    "interpolate",
    "normal_map",
    "rasterize",
    "sample_texture",
    "shade_pixels",
    "vertex_normals",
]
