"""FLAME fitted to a sequence of point clouds."""

from fitting.flame_fit.objective import Cloud
from fitting.flame_fit.sequence import FlameFit, fit_sequence, to_nphm
from fitting.flame_fit.settings import LearningRates, Settings

__all__ = ["Cloud", "FlameFit", "LearningRates", "Settings", "fit_sequence", "to_nphm"]
