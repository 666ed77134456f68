"""The models that a training manifest can name. Each is imported when it is asked for, so that naming them stays light."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from manifests.document import ManifestError, did_you_mean

if TYPE_CHECKING:
    from training.model import Model

MODELS: dict[str, str] = {
    "facetalk": "training.facetalk.model:FaceTalk",
}
"""Where the class of each model is, ``module:class``."""


def model_class(name: str) -> type[Model]:
    """The class of the model called ``name``: one of ``MODELS``, or ``module:class`` of a package of your own.

    Raises ``ManifestError`` for a name that means neither.
    """
    from training.model import Model

    if name not in MODELS and ":" not in name:
        raise ManifestError(f"unknown model '{name}'{did_you_mean(name, MODELS)}")
    module, _, attribute = MODELS.get(name, name).partition(":")
    try:
        found = getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        if name in MODELS:
            raise
        raise ManifestError(f"model '{name}': {error}; give module:class of an installed package") from None
    if not (isinstance(found, type) and issubclass(found, Model)):
        raise ManifestError(f"model '{name}': is no subclass of training.model.Model; give module:class of one")
    return found
