"""Judging what was made of captures by their truth."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fitting.nphm import Nphm
from fitting.similarity import Similarity
from fitting.studio.judge import capture_of, judge, surface_mm, truth_of
from fitting.studio.nphm_file import shipped
from manifests.document import ManifestError
from manifests.reader import Dataset


@pytest.fixture(scope="module")
def truth(facetalk: Path):
    clip = Dataset(facetalk / "data").clips.to_pylist()[0]
    return truth_of(capture_of(clip, facetalk / "rig"), clip)


def test_a_dataset_of_the_studio_is_near_the_truth(facetalk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADLOOM_MODELS", str(facetalk / "models"))
    data = Dataset(facetalk / "data")
    figures = judge(data, facetalk / "rig", without=data)
    assert figures["cloud_within_1mm"] > 0.95
    assert figures["landmark_mm"] < 1
    assert figures["flame_vertex_mm"] < 0.7
    assert figures["rotation_deg"] < 0.3
    assert figures["nphm_surface_ratio"] < 1.3
    assert figures["jitter_mae_ratio"] == figures["jitter_rmse_ratio"] == 1
    assert abs(figures["temporal_surface_cost"]) < 1e-6


def test_the_true_place_of_the_face_moves_it_to_nphms_space(truth) -> None:
    scale = truth.world_to_nphm.scale
    torch.testing.assert_close(scale, torch.full_like(scale, 4.0), rtol=1e-3, atol=0)


def test_a_surface_that_is_moved_by_two_millimetres_is_that_much_worse(truth) -> None:
    networks = shipped()
    head = Nphm(networks.identity, networks.backward)
    codes = truth.nphm_identity, truth.nphm_expression[:1]
    place = Similarity(*(part[:1] for part in truth.world_to_nphm))
    aside = place._replace(translation=place.translation + torch.tensor([0.0, 0.0, 0.008]))
    right, wrong = (surface_mm(head, *codes, truth.vertices[:1], where) for where in (place, aside))
    assert right < 0.6
    assert right + 0.4 < wrong < right + 2


def test_captures_without_truth_are_refused(facetalk: Path) -> None:
    clip = Dataset(facetalk / "data").clips.to_pylist()[0]
    with pytest.raises(ManifestError, match="only captures of the studio"):
        truth_of(capture_of(clip, facetalk / "elsewhere"), clip)


def test_truth_is_that_of_the_clips_frames(facetalk: Path, truth) -> None:
    clip = Dataset(facetalk / "data").clips.to_pylist()[0]
    assert len(truth.vertices) == len(truth.landmarks) == clip["n_frames"]
    assert np.isfinite(truth.landmarks).all()
