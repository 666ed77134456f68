"""Masks: the landmarks' hull keeps the true face of the studio's people, and each kind of mask is what it says."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fitting.cameras import Camera
from fitting.stereo.cleaning import clean
from fitting.stereo.masks import Masks, face_hull, head_crops, hull_masks, masker, usable
from fitting.stereo.views import Cloud, Views
from fitting.studio.acting import Conditions, act, landmarks
from fitting.studio.family import HeadFamily
from fitting.studio.light import light
from fitting.studio.people import PICTURED
from fitting.studio.render import render
from fitting.studio.rig import sixteen
from fitting.studio.truth import LABELS

SIZE = (138, 202)
HEIGHT, WIDTH = SIZE[::-1]
CAMERAS = [0, 3, 6, 8, 11, 15]
ALL_VALID = np.ones(68, bool)


class Seen(NamedTuple):
    """One moment of a person as six cameras see it."""

    pictures: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    regions: NDArray[np.uint8]
    """(C, H, W) 1 on FLAME's region "face", 2 on that part of it that is forehead."""
    landmarks: NDArray[np.float64]
    cameras: Camera
    vertices: NDArray[np.float64]


@pytest.fixture(scope="module", params=[(0, 0, 0.5), (3, 1, 0.8)], ids=["one person", "another"])
def seen(request: pytest.FixtureRequest) -> Seen:
    person, seed, moment = request.param
    acted = act(person, np.array([0.0, moment]), Conditions(2.0, SIZE, seed), person)
    cameras = sixteen(seed).cameras.resize(*SIZE)[CAMERAS]
    surface, vertices = acted.person.surface, acted.vertices[1].expand(len(CAMERAS), -1, -1)
    region = torch.zeros(acted.vertices.shape[1], dtype=torch.uint8)
    for number, name in enumerate(("face", "forehead"), 1):
        region[torch.from_numpy(HeadFamily(PICTURED).regions[name])] = number
    marked = surface._replace(labels=region[surface.faces].amin(dim=1))
    backdrop = np.zeros((HEIGHT, WIDTH, 3), np.float32)
    lighting = light(acted.times, np.random.default_rng(0), change=0.0)[1]
    shot, regions = (render(held, vertices, cameras, lighting, backdrop) for held in (surface, marked))
    points = landmarks(acted)[1].numpy()
    return Seen(shot.pictures, shot.labels, regions.labels, points, cameras, acted.vertices[1].double().numpy())


def kept(masks: NDArray[np.bool_], where: NDArray[np.bool_]) -> float:
    return float(masks[where].mean())


def test_the_hull_keeps_the_face_and_its_forehead(seen: Seen) -> None:
    masks = hull_masks(seen.landmarks, seen.cameras)
    assert masks.shape == (len(CAMERAS), HEIGHT, WIDTH)
    assert kept(masks, seen.regions > 0) > 0.98
    for mask, region in zip(masks, seen.regions, strict=True):
        assert kept(mask, region > 0) > 0.96
        assert kept(mask, region == 2) > 0.99


def test_the_hull_drops_shoulders_and_most_of_the_rest(seen: Seen) -> None:
    masks = hull_masks(seen.landmarks, seen.cameras)
    assert kept(masks, seen.labels == LABELS.index("clothes")) == 0
    assert kept(masks, seen.labels == LABELS.index("hair")) < 0.45
    assert kept(masks, (seen.labels == LABELS.index("skin")) & (seen.regions == 0)) < 0.2
    assert kept(masks, seen.labels == LABELS.index("background")) < 0.05


def test_a_cloud_that_is_cleaned_by_hulls_is_the_face(seen: Seen) -> None:
    points = seen.vertices.astype(np.float32)
    number = np.arange(len(points), dtype=np.float32)
    cloud = Cloud(points, points, np.zeros(points.shape, np.uint8), number)
    views = Views(seen.pictures, seen.cameras, hull_masks(seen.landmarks, seen.cameras))
    stayed = np.zeros(len(points), bool)
    stayed[clean(cloud, views=views).confidence.astype(int)] = True
    regions = HeadFamily(PICTURED).regions
    assert stayed[regions["face"]].mean() > 0.97
    assert stayed[regions["forehead"]].mean() > 0.99
    assert stayed[regions["neck"]].mean() < 0.05
    assert stayed[regions["scalp"]].mean() < 0.3


def test_some_landmarks_may_be_missing(seen: Seen) -> None:
    some = seen.landmarks.copy()
    some[[3, 7, 20, 33, 45, 60]] = np.nan
    assert usable(some, np.isfinite(some).all(axis=1))
    assert np.isfinite(face_hull(some)).all()
    assert kept(hull_masks(some, seen.cameras), seen.regions > 0) > 0.97


def test_the_hull_moves_with_the_face() -> None:
    rng = np.random.default_rng(0)
    points = rng.standard_normal((68, 3))
    turn = torch.linalg.qr(torch.from_numpy(rng.standard_normal((3, 3)))).Q.numpy()
    np.testing.assert_allclose(face_hull(2 * points @ turn + 5), 2 * face_hull(points) @ turn + 5)


@pytest.mark.parametrize("missing", [slice(0, 35), slice(6, 11), slice(17, 27)], ids=["more than half", "the chin", "the brows"])
def test_landmarks_that_do_not_say_where_the_face_is_are_not_used(missing: slice) -> None:
    points = np.random.default_rng(0).random((68, 3))
    points[missing] = np.nan
    assert not usable(points, np.isfinite(points).all(axis=1))


def test_landmarks_that_were_bridged_have_a_place_but_do_not_count_as_valid() -> None:
    points = np.random.default_rng(0).random((68, 3))
    assert usable(points, np.arange(68) < 34)
    assert not usable(points, np.arange(68) < 33)


def test_a_face_behind_a_camera_is_nowhere(seen: Seen) -> None:
    assert not hull_masks(seen.landmarks + np.array([0, 0, 5.0]), seen.cameras).any()


def test_crops_show_the_head_with_the_face_about_half_as_high(seen: Seen) -> None:
    for crop, labels, regions in zip(head_crops(seen.landmarks, seen.cameras), seen.labels, seen.regions, strict=True):
        x0, y0, x1, y1 = crop.tolist()
        assert abs((x1 - x0) - (y1 - y0)) <= 1
        rows = np.flatnonzero((regions > 0).any(axis=1))
        assert 0.4 < (rows[-1] - rows[0]) / (y1 - y0) < 0.75
        head = (labels > 0) & (labels != LABELS.index("clothes"))
        inside = np.zeros_like(head)
        inside[max(y0, 0) : y1, max(x0, 0) : x1] = True
        # What is missing is neck and the back of the head.
        assert head[inside].sum() > 0.85 * head.sum()


@pytest.mark.parametrize("placed", [True, False], ids=["with landmarks", "without"])
@pytest.mark.parametrize("came", [True, False], ids=["with masks", "without"])
def test_each_kind_takes_what_it_says(seen: Seen, came: bool, placed: bool) -> None:
    shipped = np.where(seen.labels > 0, 255, 0).astype(np.uint8) if came else None
    points = seen.landmarks if placed else np.full((68, 3), np.nan)
    valid = np.isfinite(points).all(axis=1)

    def made(kind: str) -> Masks | None:
        return masker(kind, points, valid)(seen.pictures, seen.cameras, shipped)  # type: ignore[arg-type]

    captured = Masks(seen.labels > 0, outline=True) if came else None
    hull = Masks(hull_masks(seen.landmarks, seen.cameras), outline=True) if placed else None
    either = captured or hull or Masks(None)
    for kind, wanted in (("capture", captured), ("landmarks", hull), ("auto", either), ("none", Masks(None))):
        got = made(kind)
        assert (got is None) == (wanted is None), kind
        if got is not None and wanted is not None:
            assert got.outline == wanted.outline
            np.testing.assert_array_equal(got.inside, wanted.inside)


def test_parsing_without_its_network_is_an_error(seen: Seen) -> None:
    with pytest.raises(ValueError, match="load_face_parsing"):
        masker("parsing", seen.landmarks, ALL_VALID)(seen.pictures, seen.cameras, None)
