"""The written BFM loads with our loader and follows the family to hundredths of a millimetre."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fitting.bfm.alignment import five_points
from fitting.bfm.files import load_bfm_file, load_landmarks3d
from fitting.bfm.model import Bfm
from fitting.studio.bfm_file import bfm_codes, front_face, performance, write_bfm
from fitting.studio.family import HeadFamily, still
from pipelines.model_files import LOADERS, recognise

FAMILY = HeadFamily("large")


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    return write_bfm(tmp_path_factory.mktemp("bfm"))


@pytest.fixture(scope="module")
def bfm(paths):
    return Bfm.load(paths["bfm"]).double()


def in_metres(bfm: Bfm, shape: torch.Tensor) -> np.ndarray:
    """Of the loaded model's decimetres about its centre, in the family's space."""
    return 0.1 * shape.numpy() + front_face().mean.mean(axis=0)


def test_files_are_recognised_and_load(paths):
    for name, path in paths.items():
        assert recognise(path, name).name == name
        assert LOADERS[name](path)


def test_vertices_agree_at_the_codes_of_new_people_and_performances(bfm):
    errors = []
    for person, identity in enumerate(FAMILY.people(3, seed=41)):
        controls = performance(np.random.default_rng(person), 25)
        codes = bfm_codes(identity, controls)
        shape = bfm.shape(torch.from_numpy(codes.identity), torch.from_numpy(codes.expression))
        truth = FAMILY.vertices(identity, controls, torch.float64).numpy()[:, front_face().vertices]
        distance = 1e3 * np.linalg.norm(in_metres(bfm, shape) - truth, axis=-1)
        assert np.allclose(distance.mean(axis=1), codes.residual, atol=2e-4)
        errors.append(distance)
    assert np.mean(errors) < 0.01
    assert np.max(errors) < 0.2


def test_turning_the_head_changes_no_code():
    identity = FAMILY.people(1, seed=6)[0]
    controls = performance(np.random.default_rng(5), 4)
    turned = controls._replace(head=np.full((4, 3), 0.2), neck=np.full((4, 3), 0.1), translation=np.ones((4, 3)))
    assert np.allclose(bfm_codes(identity, controls).expression, bfm_codes(identity, turned).expression, atol=1e-9)


def test_the_identitys_code_is_the_familys_and_rest_is_zero():
    identity = FAMILY.people(1, seed=7)[0]
    codes = bfm_codes(identity, still(2))
    assert np.allclose(codes.identity, identity[:80], atol=1e-9)
    assert np.abs(codes.expression).max() < 1e-6
    assert codes.residual.max() < 1e-6


def test_expression_codes_have_unit_size():
    codes = np.concatenate(
        [bfm_codes(who, performance(np.random.default_rng(k), 60)).expression for k, who in enumerate(FAMILY.people(4, seed=8))]
    )
    assert np.sqrt((codes**2).mean(axis=0))[:30] == pytest.approx(1, abs=0.35)


def test_landmarks_are_the_familys(bfm, paths):
    mean = in_metres(bfm, bfm.mean_shape)
    assert np.allclose(mean[bfm.landmark_vertices.numpy()], FAMILY.mesh.rest[FAMILY.mesh.landmarks], atol=1e-7)
    standard = load_landmarks3d(paths["bfm-landmarks"])
    assert torch.allclose(standard, bfm.mean_shape[bfm.landmark_vertices], atol=1e-5)
    eyes = five_points(standard)[:2]
    assert eyes[0, 0] < 0 < eyes[1, 0]
    assert 0.5 < float(eyes[1, 0] - eyes[0, 0]) < 0.7  # decimetres


def test_faces_look_out_and_there_are_holes_for_eyes_and_mouth(bfm):
    assert float(bfm.normals(bfm.mean_shape)[..., 2].mean()) > 0.4
    assert 4000 < bfm.n_vertices < 9000
    faces = bfm.faces.numpy()
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    _, count = np.unique(edges, axis=0, return_counts=True)
    rims = np.unique(edges, axis=0)[count == 1]
    assert len(rims) - len(np.unique(rims)) == 0  # closed rings
    groups: dict[int, int] = {int(v): int(v) for v in np.unique(rims)}

    def root(v: int) -> int:
        while groups[v] != v:
            v = groups[v]
        return v

    for a, b in rims:
        groups[root(int(a))] = root(int(b))
    assert len({root(v) for v in groups}) == 4  # the outer rim, the mouth and two eyes


def test_front_faces_lie_between_front_vertices_and_skin_is_bare(paths):
    file = load_bfm_file(paths["bfm"])
    assert np.isin(file.front_faces, file.front_vertices).all()
    whole = set(map(tuple, file.faces))
    assert set(map(tuple, file.front_faces)) <= whole
    assert len(file.front_faces) > 0.6 * len(file.faces)
    skin = file.skin > 0
    lips = np.unique(file.landmark_vertices[36:])
    assert not skin[lips].any()
    assert 0.2 < skin.mean() < 0.7


def test_vertex_faces_are_the_faces_around(paths):
    file = load_bfm_file(paths["bfm"])
    for vertex in range(0, len(file.mean_shape), 97):
        around = np.nonzero((file.faces == vertex).any(axis=1))[0]
        listed = file.vertex_faces[vertex]
        assert set(listed[listed < len(file.faces)]) == set(around[:8])


def test_textures_look_like_skin(bfm):
    codes = torch.from_numpy(np.random.default_rng(0).standard_normal((30, 80)))
    colours = bfm.texture(codes)
    mean = bfm.texture(torch.zeros(80, dtype=torch.float64))
    assert 0.05 < mean.min() < mean.max() < 1
    red, _, blue = mean[bfm.skin > 0].mean(dim=0)
    assert red > 1.2 * blue
    assert 0.03 < float(colours[:, bfm.skin > 0].mean(dim=(1, 2)).std()) < 0.3
