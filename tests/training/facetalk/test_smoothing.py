"""Facial smoothing keeps what a face does, and takes away what its surroundings do (FaceTalk, eq. 11 to 15)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fitting.nphm import Nphm
from fitting.nphm.compose import LOWER, UPPER
from fitting.studio.nphm_codes import nphm_expression, nphm_identity
from fitting.studio.nphm_file import shipped
from fitting.studio.nphm_truth import head_surface, random_controls
from training.facetalk.smoothing import Smoothing


def grid(resolution: int) -> torch.Tensor:
    axes = [torch.linspace(low, high, resolution, dtype=torch.float64) for low, high in zip(LOWER, UPPER, strict=True)]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)


def test_the_weight_is_that_of_equations_12_to_14_over_a_grid_of_the_box() -> None:
    points, smoothing = grid(101), Smoothing((0.05, -0.2, 0.1), (0.3, 0.4, 0.2))
    centre, sigma = np.array(smoothing.centre), np.array(smoothing.sigma)
    distance = np.sqrt((((points.numpy() - centre) / sigma) ** 2).sum(axis=-1))
    gauss = np.exp(-0.5 * distance**2) / (2 * np.pi * sigma.prod())
    wanted = (gauss - gauss.min()) / (gauss.max() - gauss.min())
    # The grid may miss the centre by half a step.
    np.testing.assert_allclose(smoothing.weight(points).numpy(), wanted, atol=1e-3)


def test_the_weight_is_1_at_the_mouth_and_0_at_the_farthest_corner() -> None:
    smoothing = Smoothing()
    assert smoothing.weight(torch.tensor(smoothing.centre)) == 1
    corner = torch.tensor([LOWER[0], UPPER[1], LOWER[2]])
    assert smoothing.weight(corner) == pytest.approx(0, abs=1e-7)
    weights = smoothing.weight(grid(20))
    assert 0 <= weights.min() <= weights.max() <= 1


def kept() -> dict[str, float]:
    """The share of the backward network's offsets that is left in parts of six heads with random expressions."""
    surface, networks = head_surface(), shipped()
    people, controls = surface.family.people(6, 5), random_controls(np.random.default_rng(0), 6)
    posed = torch.from_numpy(surface.posed(people, controls.expression, controls.jaw)).float()
    rest = surface.canonical(people).mean(axis=0)
    head = Nphm(networks.identity, networks.backward)
    subject = head.subject(torch.from_numpy(nphm_identity(people)).float())
    codes = torch.from_numpy(nphm_expression(controls.expression, controls.jaw)).float()
    with torch.no_grad():
        length = head.expression(posed, codes, subject.expression).offset.norm(dim=-1).numpy()
    left = length * Smoothing().weight(posed).numpy()
    face, inside = np.isin(np.arange(len(rest)), surface.region["face"]), rest[:, 1] > LOWER[1]
    x, y, z = rest.T
    parts = {
        "lips": np.isin(np.arange(len(rest)), surface.region["lips"]),
        "eyes": np.isin(np.arange(len(rest)), surface.region["eye"]),
        "cheeks": face & (np.abs(x) > 0.1) & (y > -0.2) & (y < -0.02) & (z > 0.05),
        "chin": face & (y < -0.22) & (z > 0.1),
        "neck": inside & np.isin(np.arange(len(rest)), surface.region["neck"]) & (z < -0.15),
        "back": inside & (z < -0.3),
    }
    return {name: float(left[:, part].sum() / length[:, part].sum()) for name, part in parts.items()}


def test_lips_cheeks_chin_and_eyes_keep_their_movement_and_neck_and_back_lose_it() -> None:
    found = kept()
    assert min(found[name] for name in ("lips", "cheeks")) > 0.9, found
    assert min(found[name] for name in ("chin", "eyes")) > 0.75, found
    assert max(found[name] for name in ("neck", "back")) < 0.1, found
