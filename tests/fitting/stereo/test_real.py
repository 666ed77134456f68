"""Real objects with known cameras, where they are."""

from __future__ import annotations

import pytest

from tests.fitting.stereo import real

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not real.MULTIVIEW.is_dir(), reason="the real scenes are not here"),
]


def test_a_walnut_from_cameras_thirty_degrees_apart_is_whole() -> None:
    figures = real.walnut_figures(reduction=4)
    assert figures["walnut_accuracy_median_mm"] < 0.3
    assert figures["walnut_accuracy_1mm"] > 0.8
    assert figures["walnut_completeness_1mm"] > 0.95
    assert figures["walnut_completeness_2mm"] > 0.98


@pytest.mark.parametrize(("scene", "covered"), [(real.TEMPLE, 0.6), (real.FACADE, 0.7)])
def test_scenes_are_covered(scene: str, covered: float) -> None:
    cloud, share, _ = real.cloud_of(scene)
    assert share > covered
    assert len(cloud.points) > 100_000
