"""What an NPHM fit sees of a cloud: what is near the fitted head, in front of the throat."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse

from fitting.nphm_clouds import THROAT, FittedHead, fitted_head, head_clouds, heights, neutral_frames
from fitting.studio.flame_file import write_flame
from tests.fitting.head_columns import head_columns

CORNERS = np.array([[0.0, -0.3, 0.2], [-0.3, -0.4, -0.3], [0.3, -0.4, -0.3]])
"""A throat in NPHM's space: it falls towards the nape."""
IN_THE_WORLD = np.diag([0.25, 0.25, 0.25, 1.0])[None]


@pytest.fixture(scope="module")
def flame_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("flame")
    write_flame(folder)
    return folder


def some_head(order: tuple[int, int, int], turn: np.ndarray | None = None) -> FittedHead:
    """A ball of a head with a face in front, and the corners of the throat in any order."""
    rng = np.random.default_rng(0)
    ball = rng.standard_normal((THROAT[0] + 100, 3))
    vertices = 0.3 * ball / np.linalg.norm(ball, axis=1, keepdims=True)
    vertices[list(THROAT)] = CORNERS[list(order)]
    face = np.setdiff1d(np.nonzero(vertices[:, 2] > 0.15)[0], THROAT)
    return FittedHead(vertices[None] @ (np.eye(3) if turn is None else turn).T, face, numbered_as_flame=True)


def seen(points: np.ndarray, head: FittedHead, reach_mm: float, near: str = "head") -> np.ndarray:
    counts = np.array([len(points)])
    return head_clouds(points, counts, IN_THE_WORLD, head, reach_mm, near)[0].numpy()  # type: ignore[arg-type]


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1), (2, 1, 0)])
@pytest.mark.parametrize("degrees", [0.0, 90.0, 180.0])
def test_what_is_behind_the_throat_is_dropped_whichever_way_its_corners_run_and_the_head_is_turned(
    order: tuple[int, int, int], degrees: float
) -> None:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])
    points = np.random.default_rng(1).uniform((-0.45, -0.45, -0.45), (0.45, 0.45, 0.35), (2000, 3))
    in_front = heights(points, CORNERS) * heights(np.array([[0, 0.5, 0.0]]), CORNERS)[0] > 0
    found = seen(points @ turn.T, some_head(order, turn), reach_mm=1000)
    assert 0.05 < 1 - in_front.mean() < 0.5
    np.testing.assert_allclose(found, points[in_front] @ turn.T, atol=1e-6)


def test_points_count_within_reach_of_the_face_or_of_the_head() -> None:
    head = some_head((0, 1, 2))
    before, behind, crown = np.array([0, 0, 0.304]), np.array([0, 0, -0.304]), np.array([0, 0.304, 0])
    points = np.stack([before, behind, crown, [0, 0, 0.39]])
    assert len(seen(points, head, 8.0)) == 3
    np.testing.assert_allclose(seen(points, head, 8.0, "face"), before[None], atol=1e-6)
    assert len(seen(points, head, 30.0)) == 4


def test_frames_can_be_chosen_and_may_have_no_points() -> None:
    head = some_head((0, 1, 2))._replace(vertices=np.repeat(some_head((0, 1, 2)).vertices, 3, axis=0))
    points = np.array([[0, 0, 0.3], [0, 0.3, 0], [0, 0.3, 0.01]])
    clouds = head_clouds(points, np.array([1, 0, 2]), np.repeat(IN_THE_WORLD, 3, axis=0), head, 20.0, "head", [1, 2])
    assert [len(cloud) for cloud in clouds] == [0, 2]
    np.testing.assert_allclose(clouds[1].numpy(), points[1:], atol=1e-6)


def test_only_the_box_of_heads_bounds_a_cloud_where_the_throat_is_not_known(
    flame_files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADLOOM_MODELS", str(flame_files))
    columns = head_columns(2, 2)
    head = fitted_head(columns["flame_identity"], columns["flame_expression"], columns["flame_jaw"])
    assert not head.numbered_as_flame, "the studio numbers vertices in its own way"
    near_head = head_clouds(columns["cloud_points"], columns["cloud_counts"], columns["world_to_flame"], head, 1000.0, "head")[0]
    assert columns["cloud_points"][:, 1].min() < -0.15
    assert near_head.numpy()[:, 1].min() >= -0.5
    assert len(near_head) > 0.6 * columns["cloud_counts"][0]


def test_a_file_that_numbers_its_throat_as_flame_does_is_cut_there(
    flame_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = renumbered(flame_files, tmp_path)
    monkeypatch.setenv("HEADLOOM_MODELS", str(tmp_path))
    columns = head_columns(2, 2)
    head = fitted_head(columns["flame_identity"], columns["flame_expression"], columns["flame_jaw"])
    assert head.numbered_as_flame
    np.testing.assert_allclose(head.vertices[0, list(THROAT)].mean(axis=0), 4 * places.mean(axis=0), atol=0.1)
    given = columns["cloud_points"], columns["cloud_counts"], columns["world_to_flame"]
    clouds = head_clouds(*given, head, 1000.0, "head")
    uncut = head_clouds(*given, head._replace(numbered_as_flame=False), 1000.0, "head")
    for cloud, whole, vertices in zip(clouds, uncut, head.vertices, strict=True):
        sides = heights(cloud.double().numpy(), vertices[list(THROAT)])
        assert (sides > 0).all() or (sides < 0).all()
        assert 0.7 < len(cloud) / len(whole) < 0.99
        # A cut through the throat leaves the whole face.
        assert len(cloud[cloud[:, 2] > 0.15]) == len(whole[whole[:, 2] > 0.15])


def test_flame_files_with_fewer_vertices_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_flame(tmp_path, "small")
    monkeypatch.setenv("HEADLOOM_MODELS", str(tmp_path))
    columns = head_columns(2, 2)
    with pytest.raises(ValueError, match=r"vertices, the throat is among FLAME's 5023: give a full model"):
        fitted_head(columns["flame_identity"], columns["flame_expression"], columns["flame_jaw"])


def test_neutral_frames_have_the_least_expression_and_jaw_and_some_points() -> None:
    expression, jaw = np.zeros((6, 100)), np.zeros((6, 3))
    expression[[0, 3], 5] = 2.0, -0.5
    jaw[[1, 4], 0] = 0.3, 0.02
    counts = np.array([9, 9, 0, 9, 9, 9])
    assert neutral_frames(expression, jaw, counts, 2).tolist() == [4, 5]
    assert neutral_frames(expression, jaw, counts, 4).tolist() == [0, 3, 4, 5]
    assert neutral_frames(expression, jaw, counts, 50).tolist() == [0, 1, 3, 4, 5]


def renumbered(source: Path, target: Path) -> np.ndarray:
    """Write the model so that three vertices of the throat have FLAME's numbers; returns their places (3, 3), metres."""
    model = pickle.loads((source / "generic_model.pkl").read_bytes())
    masks = pickle.loads((source / "FLAME_masks.pkl").read_bytes())
    wanted = np.array([[0.0, -0.105, 0.02], [-0.05, -0.11, -0.06], [0.05, -0.11, -0.06]])
    order = np.arange(len(model["v_template"]))
    for number, place in zip(THROAT, wanted, strict=True):
        nearest = int(np.linalg.norm(model["v_template"] - place, axis=1).argmin())
        order[[number, nearest]] = order[[nearest, number]]
    for name in ("v_template", "shapedirs", "posedirs", "weights"):
        model[name] = model[name][order]
    model["J_regressor"] = scipy.sparse.csc_matrix(model["J_regressor"][:, order])
    now = np.argsort(order)
    model["f"] = now[model["f"].astype(np.int64)].astype(np.uint32)
    for path, held in (("generic_model.pkl", model), ("FLAME_masks.pkl", {name: now[region] for name, region in masks.items()})):
        (target / path).write_bytes(pickle.dumps(held, protocol=2))
    return model["v_template"][list(THROAT)]
