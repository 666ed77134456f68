"""Colours of skin, hair, eyes and teeth keep to their places and differ between people."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from fitting.raster import interpolate, rasterize, sample_texture, vertex_normals
from fitting.studio.controls import EXPRESSIONS
from fitting.studio.family import HeadFamily, still
from fitting.studio.features import SKIN
from fitting.studio.mesh import EYE_BOX, MOUTH_BOX
from fitting.studio.parts import LEFT_BALL
from fitting.studio.skin import colours, random_look, texture
from fitting.studio.surface import depth
from prep.detect import CascadeDetector

FAMILY = HeadFamily("medium")


def at(*xy: tuple[float, float]) -> np.ndarray:
    """Places on the front of the face."""
    points = np.array(xy)
    return np.concatenate([points, depth(points)[:, None]], axis=1)


def brightness(seed: int, *xy: tuple[float, float]) -> float:
    return float(colours(at(*xy), random_look(seed)).mean())


def patch_of(picture: np.ndarray, box) -> np.ndarray:
    size = len(picture)
    return picture[int((1 - box.v1) * size) + 2 : int((1 - box.v0) * size) - 2, int(box.u0 * size) + 2 : int(box.u1 * size) - 2]


def test_a_seed_is_a_person():
    assert random_look(3) == random_look(3)
    assert random_look(3) != random_look(4)
    assert np.array_equal(texture(random_look(3), 256), texture(random_look(3), 256))


def test_people_have_many_colours_of_skin_hair_and_eyes():
    looks = [random_look(seed) for seed in range(60)]
    assert np.ptp([np.mean(look.skin) for look in looks]) > 0.4
    assert np.ptp([np.mean(look.hair) for look in looks]) > 0.3
    assert np.ptp([look.iris[2] - look.iris[0] for look in looks]) > 0.2
    assert all(look.skin[0] > look.skin[1] > look.skin[2] for look in looks)


@pytest.mark.parametrize("seed", range(6))
def test_features_are_where_the_face_has_them(seed):
    cheek = ((0.035, -0.012), (-0.035, -0.012))
    assert brightness(seed, (0.022, 0.0435), (-0.024, 0.044), (0.03, 0.045)) < 0.88 * brightness(seed, *cheek)  # brows
    assert brightness(seed, (0.0066, -0.0214), (-0.0066, -0.0214)) < 0.5 * brightness(seed, *cheek)  # nostrils
    lips = colours(at((0.005, -0.0495), (-0.008, -0.0490)), random_look(seed)).mean(axis=0)
    skin = colours(at(*cheek), random_look(seed)).mean(axis=0)
    assert lips[0] / lips[1] > 1.08 * skin[0] / skin[1]
    scalp = FAMILY.mesh.sites.base[FAMILY.mesh.rest[:, 1] > 0.10]
    hair = colours(scalp, random_look(seed)).mean(axis=0)
    assert np.allclose(hair, random_look(seed).hair, rtol=0.2, atol=0.02)


def test_the_texture_has_the_colours_at_each_vertex():
    look = random_look(11)._replace(grain=0.0)
    picture = texture(look, 1024).astype(np.float64) / 255
    mesh = FAMILY.mesh
    chosen = np.nonzero((mesh.sites.patch == SKIN) & (mesh.rest[:, 2] > 0.02) & (mesh.rest[:, 1] < 0.04))[0]
    u, v = mesh.uv[chosen].T
    found = picture[((1 - v) * 1024).astype(int), (u * 1024).astype(int).clip(max=1023)]
    assert np.median(np.abs(found - colours(mesh.sites.base[chosen], look)).max(axis=1)) < 0.02


def test_the_inside_of_the_mouth_is_dark_and_eyes_have_pupil_iris_and_white():
    picture = texture(random_look(2), 512).astype(float)
    inside = patch_of(picture, MOUTH_BOX)
    assert inside[len(inside) // 3 : len(inside) // 2].mean() < 30
    eye = patch_of(picture, EYE_BOX)
    middle = len(eye) // 2
    iris, white = eye[middle, middle + int(0.27 * middle)], eye[middle, middle + int(0.45 * middle)]
    assert eye[middle, middle].mean() < 25 < iris.mean() < 160 < white.mean()


def test_skin_has_fine_grain_for_stereo():
    for seed in range(4):
        picture = texture(random_look(seed), 1024).astype(np.float32)
        cheek = picture[430:520, 590:680].mean(axis=2)
        fine = cheek - cv2.GaussianBlur(cheek, (0, 0), 5)
        assert 0.02 < fine.std() / cheek.mean() < 0.12


def test_grain_is_not_drawn_out_on_the_throat():
    picture = texture(random_look(1), 1024).astype(np.float32).mean(axis=2)
    throat = picture[740:800, 470:560]
    fine = throat - cv2.GaussianBlur(throat, (0, 0), 5)
    down, across = (
        np.corrcoef(fine[:-1].ravel(), fine[1:].ravel())[0, 1],
        np.corrcoef(fine[:, :-1].ravel(), fine[:, 1:].ravel())[0, 1],
    )
    assert down < across + 0.1


def pictures(count: int, side: int = 160) -> np.ndarray:
    """Grey pictures (count, side, side) of random people at random moments, turned by up to 15 degrees."""
    rng = np.random.default_rng(0)
    mesh = FAMILY.mesh
    faces, uv_faces, uv = (torch.from_numpy(part) for part in (mesh.faces, mesh.uv_faces, mesh.uv))
    found = []
    for person, identity in enumerate(FAMILY.people(count, seed=5)):
        controls = still()
        controls.expression[0] = rng.uniform(0, 1, len(EXPRESSIONS)) * (rng.random(len(EXPRESSIONS)) < 0.2)
        controls.jaw[0, 0] = rng.uniform(0, 0.2)
        controls.head[0] = rng.uniform(-1, 1, 3) * [0.1, 0.26, 0.1]
        vertices = FAMILY.vertices(identity, controls)
        depth_of = 1.0 - vertices[..., 2]
        scale = 2 * side / 0.34 / depth_of
        points = torch.stack([side + vertices[..., 0] * scale, side - (vertices[..., 1] + 0.02) * scale, depth_of], dim=-1)
        fragments = rasterize(points, faces, (2 * side, 2 * side))
        albedo = torch.from_numpy(texture(random_look(person), 512)).float() / 255
        normals = interpolate(fragments, faces, vertex_normals(vertices, faces))
        light = 0.35 + 0.65 * (normals @ torch.tensor([0.3, 0.4, 0.87])).clamp(min=0)
        picture = sample_texture(fragments, uv_faces, uv.float(), albedo).mean(dim=-1) * light
        picture = torch.where(fragments.hit, picture, 0.4)[0].numpy()
        found.append(cv2.resize((255 * picture).clip(0, 255).astype(np.uint8), (side, side), interpolation=cv2.INTER_AREA))
    return np.stack(found)


def test_a_face_detector_finds_the_faces():
    detector = CascadeDetector()
    found = [detector(picture, 40, 160) for picture in pictures(20)]
    assert np.mean([len(faces.boxes) > 0 and faces.scores.max() >= detector.sure for faces in found]) >= 0.95
    middles = np.array([faces.boxes[faces.scores.argmax()].reshape(2, 2).mean(axis=0) for faces in found if len(faces.boxes)])
    assert np.abs(middles - [80, 72]).max() < 25


def test_eyeballs_show_their_pupils():
    mesh = FAMILY.mesh
    pupil = np.nonzero(mesh.sites.patch == LEFT_BALL)[0][0]
    face = np.nonzero((mesh.faces == pupil).any(axis=1))[0][0]
    u, v = mesh.uv[mesh.uv_faces[face][mesh.faces[face] == pupil][0]]
    assert texture(random_look(0), 512)[int((1 - v) * 512), int(u * 512)].mean() < 25
