"""The NPHM networks that stages work with: the model files of a composition, and the head that they make.

Torch is imported when they are loaded, so that stages can be listed without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from manifests.assets import find

if TYPE_CHECKING:
    from fitting.nphm import Nphm

Composition = Literal["backward", "forward"]
"""As FaceTalk's networks are put together, or as the published ones are."""


def network_files(composition: Composition) -> tuple[str, ...]:
    """Names of the model files."""
    return ("nphm-identity", "nphm-anchors", "nphm-backward" if composition == "backward" else "nphm-expression")


def load_networks(composition: Composition) -> Nphm:
    """The head, on the CPU. Raises ``manifests.assets.MissingAsset`` where a file is not there."""
    from fitting.nphm import Nphm, load_expression, load_identity

    identity, anchors, expression = (find(name) for name in network_files(composition))
    return Nphm(load_identity(identity, anchors), load_expression(expression, composition))
