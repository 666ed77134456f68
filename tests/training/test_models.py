"""The registry of models."""

from __future__ import annotations

import subprocess
import sys

import pytest

from manifests.document import ManifestError
from training.model import Model
from training.models import MODELS, model_class


@pytest.mark.parametrize("name", MODELS)
def test_every_name_stands_for_a_model(name: str) -> None:
    assert issubclass(model_class(name), Model)
    assert model_class(name).Settings()


def test_a_wrong_name_is_refused_with_the_right_one() -> None:
    with pytest.raises(ManifestError, match="unknown model 'facetlak'; did you mean 'facetalk'"):
        model_class("facetlak")


def test_a_model_of_ones_own_is_named_by_module_and_class() -> None:
    assert model_class("training.facetalk.model:FaceTalk") is model_class("facetalk")
    with pytest.raises(ManifestError, match="give module:class of an installed package"):
        model_class("nowhere.models:Mine")


def test_naming_models_does_not_import_torch() -> None:
    subprocess.run([sys.executable, "-c", "import sys, training.models; assert 'torch' not in sys.modules"], check=True)
