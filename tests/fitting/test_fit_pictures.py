"""Pictures of fits: what lies where in a strip, and that colours mean distances. The head is a ball of 10 cm with a nose."""

import cv2
import numpy as np
import pytest
import torch
import trimesh

from fitting.cameras import Camera
from fitting.fit_pictures import (
    HEIGHT,
    WIDTH,
    Points,
    Surface,
    colour_of,
    distances_mm,
    front_and_side,
    strip,
    to_jpeg,
    turned,
)
from fitting.similarity import Similarity

GREEN = (40, 160, 60)


def ball(radius: float = 0.1, nose: float = 0.0) -> Surface:
    mesh = trimesh.creation.icosphere(subdivisions=6, radius=radius)
    vertices = np.array(mesh.vertices)
    vertices += nose * np.clip(20 * (mesh.vertices[:, 2:] / radius - 0.95), 0, 1) * [0, 0, 1]
    return Surface(torch.from_numpy(vertices), torch.from_numpy(np.array(mesh.faces, np.int64)))


def camera(width: int = 600, height: int = 700) -> Camera:
    """A metre in front of the ball, looking at it."""
    intrinsics = torch.tensor([[1500.0, 0, width / 2], [0, 1500.0, height / 2], [0, 0, 1]], dtype=torch.float64)
    pose = torch.diag(torch.tensor([1.0, -1, -1, 1], dtype=torch.float64))
    pose[2, 3] = 1.0
    return Camera(intrinsics, pose, width, height)


def cloud(surface: Surface, distance_mm: torch.Tensor) -> Points:
    normals = torch.nn.functional.normalize(surface.vertices, dim=-1)
    return Points(surface.vertices, normals, distance_mm)


def panels(picture: np.ndarray) -> np.ndarray:
    """(4, H, W, 3) int."""
    assert picture.shape == (HEIGHT, 4 * WIDTH, 3)
    return np.stack(np.split(picture.astype(int), 4, axis=1))


# --- distances


def test_points_off_a_surface_are_as_far_as_they_are() -> None:
    generator = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(400, 3, generator=generator, dtype=torch.float64), dim=-1)
    for off in (-1.5, 0.0, 0.5, 4.0):
        found = distances_mm(directions * (0.1 + off / 1000), ball())
        torch.testing.assert_close(found, torch.full_like(found, abs(off)), atol=0.08, rtol=0)


def test_what_lies_beyond_the_border_of_a_mesh_is_not_compared() -> None:
    whole = ball()
    upper = Surface(whole.vertices, whole.faces[(whole.vertices[whole.faces][..., 1] > 0).all(dim=1)])
    there = torch.unique(upper.faces)
    place = torch.full((len(whole.vertices),), -1)
    place[there] = torch.arange(len(there))
    upper = Surface(whole.vertices[there], place[upper.faces])
    below, above = (distances_mm(torch.tensor([[0.06, y, 0.08]], dtype=torch.float64), upper) for y in (-0.01, 0.02))
    assert torch.isinf(below).all()
    assert above < 3


def test_nothing_is_near_a_mesh_without_faces() -> None:
    nothing = Surface(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.int64))
    assert torch.isinf(distances_mm(torch.zeros(2, 3), nothing)).all()
    assert distances_mm(torch.zeros(0, 3), ball()).shape == (0,)


def test_near_is_blue_far_is_red_and_beyond_the_fit_is_grey() -> None:
    near, middle, far, further, beyond = colour_of(np.array([0.0, 1.0, 2.0, 9.0, np.inf])).astype(int)
    assert near[2] > 200
    assert near[0] < 60
    assert middle[1] > max(near[1], far[1]) + 50
    assert far[0] > 200
    assert far[2] < 60
    np.testing.assert_array_equal(far, further)
    assert np.ptp(beyond) == 0


# --- cameras


def test_the_camera_before_the_face_and_the_one_nearest_to_fifty_degrees_are_taken() -> None:
    yaws = np.radians([-80, -44, 5, 20, 65, 180])
    centres = torch.from_numpy(np.stack([np.sin(yaws), 0 * yaws, np.cos(yaws)], axis=1))
    there = Similarity.scaling(4.0)
    assert front_and_side(centres, there) == [2, 1]
    assert front_and_side(centres[[4, 3, 2]], there) == [2, 0]
    assert front_and_side(centres[3:4], there) == [0]


def test_which_camera_is_in_front_depends_on_how_the_head_is_turned() -> None:
    centres = torch.tensor([[0.0, 0, 1], [1.0, 0, 0]], dtype=torch.float64)
    to_left = torch.tensor([[0.0, 0, -1], [0, 1, 0], [1, 0, 0]], dtype=torch.float64)
    assert front_and_side(centres, Similarity(torch.tensor(4.0), to_left, torch.zeros(3))) == [1, 0]


# --- strips


@pytest.fixture(scope="module")
def shown() -> np.ndarray:
    picture = np.full((700, 600, 3), GREEN, np.uint8)
    head, larger = ball(), ball(0.11)
    distance = torch.where(head.vertices[:, 0] < 0, 0.0, 2.0)
    return panels(strip(picture, camera(), ball(0.12).vertices, head, larger, cloud(head, distance)))


def test_the_first_panel_is_the_picture(shown: np.ndarray) -> None:
    assert (shown[0] == GREEN).all()


def test_meshes_cover_the_picture_where_they_are_and_nothing_else(shown: np.ndarray) -> None:
    areas = [(panel != GREEN).any(axis=-1).mean() for panel in shown[1:3]]
    # At the limb a ball of radius r in distance 1 is r / sqrt(1 - r²) wide; panels are as wide as the ball of 12 cm and a margin.
    scale = WIDTH / (2 * 1.12 * 0.12 / np.sqrt(1 - 0.12**2))
    expected = [np.pi * (scale * radius) ** 2 / (1 - radius**2) / (WIDTH * HEIGHT) for radius in (0.1, 0.11)]
    np.testing.assert_allclose(areas, expected, rtol=0.03)


def test_meshes_are_lit_from_the_camera_and_let_the_picture_through(shown: np.ndarray) -> None:
    flame, nphm = shown[1], shown[2]
    middle, edge = flame[HEIGHT // 2, WIDTH // 2], flame[HEIGHT // 2, WIDTH // 2 - 78]
    assert middle.sum() > edge.sum() + 100
    assert middle[2] > middle[0] + 50, "FLAME is blue"
    assert nphm[HEIGHT // 2, WIDTH // 2, 0] > nphm[HEIGHT // 2, WIDTH // 2, 2] + 50, "NPHM is yellow"
    assert (middle != np.array((120, 170, 235))).all(), "a share of the picture shows"


def test_the_cloud_is_coloured_by_its_distance_where_the_camera_sees_it(shown: np.ndarray) -> None:
    left, right = shown[3][HEIGHT // 2, [WIDTH // 2 - 30, WIDTH // 2 + 30]]
    assert left[2] - left[0] > 150
    assert right[0] - right[2] > 150
    assert (np.ptp(shown[3][:5], axis=-1) == 0).all(), "the picture behind is grey"


def test_the_far_side_of_a_cloud_is_not_seen() -> None:
    head = ball()
    distance = torch.where(head.vertices[:, 2] > 0, 0.0, 2.0)
    away = ball(0.02)
    # Behind the head, but facing the camera as the front does.
    both = Points(
        torch.cat([head.vertices, away.vertices - torch.tensor([0, 0, 0.5])]),
        torch.cat([cloud(head, distance).normals, torch.tensor([[0.0, 0, 1]]).expand_as(away.vertices)]),
        torch.cat([distance, torch.full((len(away.vertices),), 2.0)]),
    )
    black = np.zeros((700, 600, 3), np.uint8)
    residual = panels(strip(black, camera(), head.vertices, head, head, both))[3]
    assert (residual[..., 0] < 100).mean() > 0.98


def test_a_picture_is_black_beyond_its_border_and_a_fit_gone_astray_is_cut_off() -> None:
    picture = np.full((700, 600, 3), GREEN, np.uint8)
    head = ball()
    aside = Surface(head.vertices + torch.tensor([0.2, 0, 0]), head.faces)
    first = panels(strip(picture, camera(), aside.vertices, aside, aside, cloud(aside, torch.zeros(len(head.vertices)))))[0]
    assert (first[:, 0] == GREEN).all()
    assert (first[:, -1] == 0).all()
    for far in (1e6, torch.nan):
        astray = Surface(head.vertices + far, head.faces)
        panels(strip(picture, camera(), astray.vertices, astray, astray, cloud(astray, torch.zeros(len(head.vertices)))))


def test_a_mesh_alone_is_shown_from_both_sides_of_the_front_and_from_its_left() -> None:
    right, front, left, profile = panels(turned(ball(0.4, nose=0.3)))
    ink = [np.flatnonzero((panel != panel[0, 0]).any(axis=(0, 2))) for panel in (right, front, left, profile)]
    middle = [(columns[0] + columns[-1]) / 2 - (WIDTH - 1) / 2 for columns in ink]
    widths = [len(columns) for columns in ink]
    assert widths[3] > widths[0] > widths[1], "the nose sticks out to the side"
    assert widths[0] == pytest.approx(widths[2], abs=2)
    np.testing.assert_allclose(front, front[:, ::-1], atol=40)
    assert right[HEIGHT // 2, ink[0][-1] - 2].sum() > 0
    assert middle[0] == pytest.approx(-middle[2], abs=1)


def test_pictures_come_back_from_their_files(shown: np.ndarray) -> None:
    picture = np.concatenate(list(shown), axis=1).astype(np.uint8)
    data = to_jpeg(picture)
    assert data == to_jpeg(picture)
    back = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert np.abs(back.astype(int) - picture).mean() < 4
