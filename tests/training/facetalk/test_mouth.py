"""How far mouths are open."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fitting.studio.controls import EXPRESSIONS
from fitting.studio.models import write_models
from fitting.studio.nphm_codes import nphm_expression
from manifests.assets import MissingAsset, looking_in
from tests.training.facetalk.speech import spoken
from training.facetalk.model import FaceTalk
from training.facetalk.mouth import MeanHead, landmark_opening
from training.facetalk.settings import FaceTalkSettings


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_models(folder)
    return folder


def test_landmarks_open_by_the_distance_of_the_inner_lips() -> None:
    points = np.zeros((2, 68, 3))
    points[1, 62, 1], points[1, 66, 2] = 3, 4
    assert landmark_opening(points).tolist() == [0, 5]


def test_an_open_jaw_opens_the_mean_head(models: Path) -> None:
    jaw = np.zeros((6, 3))
    jaw[:, 0] = np.linspace(0, 0.3, 6)
    codes = torch.from_numpy(nphm_expression(np.zeros((6, len(EXPRESSIONS))), jaw)).float()
    with looking_in(models):
        opening = MeanHead().opening(codes)
    assert (np.diff(opening) > 0).all()
    assert opening[0] < 3
    assert opening[-1] > 15


def test_the_opening_is_read_from_codes_by_what_the_networks_pose(models: Path) -> None:
    model = FaceTalk(FaceTalkSettings(latent=32, blocks=1, heads=4, mouth="networks"), (24, 1))
    held_out = torch.from_numpy(spoken(5, 0)["nphm_expression"]).float()
    with looking_in(models):
        model.prepare([spoken(person, 0) for person in range(4)])
        truth = MeanHead().opening(held_out)
    assert np.corrcoef((held_out @ model.readout).numpy(), truth)[0, 1] > 0.95


def test_networks_that_are_not_here_are_named(tmp_path: Path) -> None:
    with looking_in(tmp_path), pytest.raises(MissingAsset, match="nphm_identity"):
        MeanHead()
