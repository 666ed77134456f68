"""The FLAME head: its official files, posing it, landmarks on it."""

from fitting.flame.files import load_regions
from fitting.flame.landmarks import ContourLandmarks, Landmarks
from fitting.flame.model import Flame, FlameMesh

__all__ = ["ContourLandmarks", "Flame", "FlameMesh", "Landmarks", "load_regions"]
