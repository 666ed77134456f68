"""The small stand-in, a short sequence of it, and its fit."""

from __future__ import annotations

import pytest

from fitting.flame_fit import FlameFit, fit_sequence
from tests.fitting.flame_fit.sequences import Model, Sequence, model, speaking


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return model(tmp_path_factory.mktemp("flame"), "small")


@pytest.fixture(scope="session")
def spoken() -> Sequence:
    return speaking(6, 4000, "small")


@pytest.fixture(scope="session")
def fitted(small: Model, spoken: Sequence) -> FlameFit:
    return fit(small, spoken)


def fit(head: Model, seen: Sequence, **others: object) -> FlameFit:
    """``fit_sequence`` of what is seen, with ``others`` in the place of some of it."""
    given = {"clouds": seen.clouds, "landmarks": seen.landmarks.points, "valid": seen.landmarks.valid}
    given |= {"regions": head.regions, "embedding": head.embedding} | others
    return fit_sequence(head.flame, given.pop("clouds"), given.pop("landmarks"), given.pop("valid"), **given)  # type: ignore[arg-type]
