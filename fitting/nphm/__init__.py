"""NPHM and MonoNPHM: heads as blended signed distance fields, with expressions that deform them."""

from fitting.nphm.compose import Composition, Distance, Nphm, Subject
from fitting.nphm.expression import Direction, ExpressionNetwork
from fitting.nphm.files import load_anchors, load_code_statistic, load_codes, load_expression, load_identity, save_expression
from fitting.nphm.identity import Background, IdentityNetwork
from fitting.nphm.mono import MonoIdentityNetwork
from fitting.nphm.mono_files import load_mononphm

__all__ = [
    "Background",
    "Composition",
    "Direction",
    "Distance",
    "ExpressionNetwork",
    "IdentityNetwork",
    "MonoIdentityNetwork",
    "Nphm",
    "Subject",
    "load_anchors",
    "load_code_statistic",
    "load_codes",
    "load_expression",
    "load_identity",
    "load_mononphm",
    "save_expression",
]
