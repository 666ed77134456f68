"""Expression codes of NPHM for sequences of point clouds: FaceTalk, §5, eq. 16 to 18."""

from fitting.nphm_fit.identity import IdentityFit, IdentitySettings, fit_identity
from fitting.nphm_fit.jitter import Jitter, jitter_of
from fitting.nphm_fit.objective import Settings
from fitting.nphm_fit.sequences import ExpressionFit, Sequence, fit_sequences
from fitting.nphm_fit.windows import Window, windows

__all__ = [
    "ExpressionFit",
    "IdentityFit",
    "IdentitySettings",
    "Jitter",
    "Sequence",
    "Settings",
    "Window",
    "fit_identity",
    "fit_sequences",
    "jitter_of",
    "windows",
]
