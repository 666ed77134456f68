"""FaceTalk's settings."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from training.facetalk.settings import FaceTalkSettings


def test_defaults_are_the_papers() -> None:
    settings = FaceTalkSettings()
    assert (settings.latent, settings.blocks, settings.heads, settings.feedforward) == (256, 4, 8, 1024)
    assert (settings.steps, settings.null_share, settings.learning_rate, settings.window) == (1000, 0.25, 1e-4, 48)


@pytest.mark.parametrize(
    ("wrong", "mend"),
    [
        ({"latent": 100}, "even multiple of the heads"),
        ({"latent": 9, "heads": 3}, "even multiple of the heads"),
        ({"augmentation": (1.2, 0.8)}, "0 < a <= b"),
        ({"augmentation": (0.0, 1.0)}, "0 < a <= b"),
        ({"steps": 20, "sampling": {"steps": 30}}, "at most the 20 steps of training"),
        ({"timestep": "fillm"}, "film"),
        ({"layers": 4}, "not permitted"),
    ],
)
def test_what_cannot_be_is_refused(wrong: dict, mend: str) -> None:
    with pytest.raises(ValidationError, match=mend):
        FaceTalkSettings(**wrong)
