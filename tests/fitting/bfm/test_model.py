"""The face model computes what the published code does, and what its formulas say."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from fitting.bfm.camera import project_y_up, to_camera
from fitting.bfm.coefficients import join, split
from fitting.bfm.files import load_bfm_file
from fitting.bfm.model import Bfm
from fitting.lighting import shade, spherical_harmonics
from tests.fitting.bfm.files import bfm_arrays, official_bfm_arrays, write_bfm
from tests.fitting.bfm.recorded import RECORDED, recorded_model
from tests.fitting.rule_weights import assert_close


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Bfm:
    """The random model with which the published code was run."""
    return Bfm.load(write_bfm(tmp_path_factory.mktemp("recorded"), recorded_model()))


@pytest.fixture(scope="module")
def bfm(tmp_path_factory: pytest.TempPathFactory) -> Bfm:
    """A small curved sheet in float64."""
    return Bfm.load(write_bfm(tmp_path_factory.mktemp("small"))).double()


def coefficients(*lead: int, seed: int = 0) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    vector = torch.randn(*lead, 257, generator=random, dtype=torch.float64)
    vector[..., 224:] *= 0.3
    return vector


# --- the published code's numbers ---


def test_the_shape_is_the_published_codes(recorded: Bfm):
    given, rows = split(torch.from_numpy(RECORDED["model_coeffs"])), RECORDED["model_rows"]
    assert_close(recorded.mean_shape[rows], RECORDED["out_mean_shape"], what="mean shape")
    assert_close(recorded.shape(given.identity, given.expression)[:, rows], RECORDED["out_shape"], what="shape")
    assert_close(recorded.texture(given.texture)[:, RECORDED["model_normal_rows"]], RECORDED["out_texture"], what="texture")


def test_posed_vertices_and_their_projection_are_the_published_codes(recorded: Bfm):
    given, rows = torch.from_numpy(RECORDED["model_coeffs"]), RECORDED["model_rows"]
    vertices = recorded(given).vertices[:, rows]
    assert_close(vertices, RECORDED["out_transformed"], what="posed")
    assert_close(to_camera(vertices), RECORDED["out_camera"], what="camera")
    assert_close(project_y_up(to_camera(vertices)), RECORDED["out_projected"], what="projected")
    landmarks = project_y_up(to_camera(recorded.landmarks(given)))[:, RECORDED["model_landmark_rows"]]
    assert_close(landmarks, RECORDED["out_landmarks"], what="landmarks")


def test_normals_and_colours_are_the_published_codes(recorded: Bfm):
    """The random faces around a vertex nearly cancel at some; there float32 keeps 1e-5, in the published code as in ours."""
    given, rows = torch.from_numpy(RECORDED["model_coeffs"]), RECORDED["model_normal_rows"]
    parts = split(given)
    normals = recorded.normals(recorded.shape(parts.identity, parts.expression))
    assert_close(normals[:, rows], RECORDED["out_normal"], 5e-5, what="normals")
    face = recorded(given)
    assert_close(face.normals[:, rows], RECORDED["out_normal_rotated"], 5e-5, what="turned normals")
    assert_close(face.colours[:, rows], RECORDED["out_color"], 5e-5, what="colours")


def test_every_vertex_agrees_with_the_whole_recording(shared: Path, tmp_path: Path):
    whole = np.load(shared / "golden" / "deep3d_face_model.npz")
    arrays = {key.removeprefix("model_"): whole[key] for key in whole.files if key.startswith("model_")}
    # Random numbers that reach beyond the front vertices; no output depends on them.
    arrays["tri_mask2"] = np.minimum(arrays["tri_mask2"], 300)
    bfm = Bfm.load(write_bfm(tmp_path, arrays))
    face = bfm(torch.from_numpy(whole["in_coeffs"]))
    assert_close(face.vertices, whole["out_transformed"], what="posed")
    assert_close(face.albedo, whole["out_texture"], what="texture")
    assert_close(face.normals, whole["out_normal_rotated"], 5e-5, what="normals")
    assert_close(face.colours, whole["out_color"], 5e-5, what="colours")
    assert_close(project_y_up(to_camera(bfm.landmarks(torch.from_numpy(whole["in_coeffs"])))), whole["out_landmarks"])


# --- the formulas, written slowly ---


def slow_face(arrays: dict[str, np.ndarray], vector: np.ndarray) -> dict[str, np.ndarray]:
    """Vertex by vertex in float64, from the arrays of the file."""
    a = {key: value.astype(np.float64) for key, value in arrays.items()}
    identity, expression, texture = vector[:80], vector[80:144], vector[144:224]
    (rx, ry, rz), gamma, translation = vector[224:227], vector[227:254], vector[254:]
    n = a["skinmask"].size
    mean = a["meanshape"].reshape(n, 3)
    centre = sum(mean[v] for v in range(n)) / n
    about_x = np.array([[1, 0, 0], [0, np.cos(rx), -np.sin(rx)], [0, np.sin(rx), np.cos(rx)]])
    about_y = np.array([[np.cos(ry), 0, np.sin(ry)], [0, 1, 0], [-np.sin(ry), 0, np.cos(ry)]])
    about_z = np.array([[np.cos(rz), -np.sin(rz), 0], [np.sin(rz), np.cos(rz), 0], [0, 0, 1]])
    rotation = about_z @ about_y @ about_x
    shape, albedo = np.zeros((n, 3)), np.zeros((n, 3))
    for v, k in itertools.product(range(n), range(3)):
        row = 3 * v + k
        shape[v, k] = mean[v, k] - centre[k] + a["idBase"][row] @ identity + a["exBase"][row] @ expression
        albedo[v, k] = (a["meantex"][0, row] + a["texBase"][row] @ texture) / 255
    face_normals = []
    for corners in a["tri"].astype(int) - 1:
        normal = np.cross(shape[corners[1]] - shape[corners[0]], shape[corners[2]] - shape[corners[0]])
        face_normals.append(normal / np.linalg.norm(normal))
    normals, colours = np.zeros((n, 3)), np.zeros((n, 3))
    for v in range(n):
        around = [int(f) - 1 for f in a["point_buf"][v] if int(f) - 1 < len(face_normals)]
        total = sum(face_normals[f] for f in around)
        normals[v] = rotation @ (total / np.linalg.norm(total))
        x, y, z = normals[v]
        a0, a1, a2 = np.pi, 2 * np.pi / np.sqrt(3), 2 * np.pi / np.sqrt(8)
        c0, c1, c2 = 1 / np.sqrt(4 * np.pi), np.sqrt(3) / np.sqrt(4 * np.pi), 3 * np.sqrt(5) / np.sqrt(12 * np.pi)
        basis = [a0 * c0, -a1 * c1 * y, a1 * c1 * z, -a1 * c1 * x, a2 * c2 * x * y, -a2 * c2 * y * z]
        basis += [a2 * c2 * (3 * z * z - 1) / (2 * np.sqrt(3)), -a2 * c2 * x * z, a2 * c2 * (x * x - y * y) / 2]
        for channel in range(3):
            lighting = gamma[9 * channel : 9 * channel + 9] + np.array([0.8, *[0] * 8])
            colours[v, channel] = albedo[v, channel] * (lighting @ basis)
    vertices = np.stack([rotation @ point + translation for point in shape])
    return {"vertices": vertices, "normals": normals, "albedo": albedo, "colours": colours}


def test_agrees_with_the_formulas_written_slowly(bfm: Bfm):
    vectors = coefficients(2)
    face = bfm(vectors)
    for k, vector in enumerate(vectors.numpy()):
        for name, expected in slow_face(bfm_arrays(), vector).items():
            # The file and the recentred mean are float32.
            assert_close(getattr(face, name)[k], expected, 1e-6, what=name)


def test_float32_agrees_with_float64(tmp_path: Path, bfm: Bfm):
    single = Bfm.load(write_bfm(tmp_path))(coefficients(3).float())
    for name, part in bfm(coefficients(3))._asdict().items():
        assert getattr(single, name).dtype == torch.float32
        assert_close(getattr(single, name), part.numpy(), 1e-5, what=name)


# --- what must hold ---


def test_leading_dimensions_are_free_and_frames_do_not_touch_each_other(bfm: Bfm):
    vectors = coefficients(2, 3)
    together = bfm(vectors)
    assert together.vertices.shape == (2, 3, bfm.n_vertices, 3)
    for i, j in itertools.product(range(2), range(3)):
        for name, part in bfm(vectors[i, j])._asdict().items():
            assert torch.allclose(part, getattr(together, name)[i, j], atol=1e-12), name
    assert bfm(coefficients(0)).colours.shape == (0, bfm.n_vertices, 3)


def test_landmarks_are_the_vertices_that_the_file_names(bfm: Bfm):
    vectors = coefficients(4)
    assert torch.allclose(bfm.landmarks(vectors), bfm(vectors).vertices[:, bfm.landmark_vertices], atol=1e-12)


def test_some_vertices_alone_are_the_same_as_among_all(bfm: Bfm):
    parts, some = split(coefficients(2)), torch.tensor([5, 0, 5, 77])
    assert torch.allclose(
        bfm.shape(parts.identity, parts.expression, some), bfm.shape(parts.identity, parts.expression)[:, some], atol=1e-12
    )


def test_one_identity_serves_many_expressions(bfm: Bfm):
    parts = split(coefficients(5))
    shared_identity = bfm.shape(parts.identity[0], parts.expression)
    repeated = bfm.shape(parts.identity[:1].expand(5, -1), parts.expression)
    assert torch.allclose(shared_identity, repeated, atol=1e-12)


def test_other_numbers_of_coefficients_are_named(bfm: Bfm):
    with pytest.raises(ValueError, match=r"identity have shape \(\.\.\., 80\), got \(2, 79\)"):
        bfm.shape(torch.zeros(2, 79).double(), torch.zeros(64).double())
    with pytest.raises(ValueError, match=r"texture have shape \(\.\.\., 80\), got \(64,\)"):
        bfm.texture(torch.zeros(64).double())


def test_the_mean_face_stands_at_the_origin(bfm: Bfm):
    """The file's mean shape does not: it lies 0.3 off. Expression and identity are not recentred."""
    assert torch.allclose(bfm.mean_shape.mean(dim=0), torch.zeros(3, dtype=torch.float64), atol=1e-7)
    moved = bfm.shape(*(split(coefficients())[:2]))
    assert moved.mean(dim=0).abs().max() > 1e-4


def test_normals_point_out_of_the_face_and_have_unit_length(bfm: Bfm):
    normals = bfm.normals(bfm.mean_shape)
    assert torch.allclose(normals.norm(dim=-1), torch.ones(bfm.n_vertices, dtype=torch.float64))
    assert (normals[:, 2] > 0.3).all()


def test_no_light_coefficients_is_white_light_from_everywhere():
    normals = torch.nn.functional.normalize(torch.randn(50, 3, dtype=torch.float64), dim=-1)
    colours = shade(torch.ones(50, 3, dtype=torch.float64), normals, torch.zeros(27, dtype=torch.float64))
    assert torch.allclose(colours, torch.full_like(colours, 0.8 * np.pi / np.sqrt(4 * np.pi)))


def test_each_channel_has_nine_coefficients_of_its_own():
    normals = torch.nn.functional.normalize(torch.randn(50, 3), dim=-1)
    lighting = torch.zeros(3, 9)
    lighting[1, 3] = 1.0
    change = shade(torch.ones(50, 3), normals, lighting.flatten()) - shade(torch.ones(50, 3), normals, torch.zeros(27))
    assert change[:, [0, 2]].abs().max() == 0
    assert torch.allclose(change[:, 1], spherical_harmonics(normals)[:, 3], atol=1e-6)


def test_gradients_agree_with_finite_differences(bfm: Bfm):
    directions = coefficients(6, seed=1)
    start = coefficients(seed=2)
    weights = {name: torch.randn(part.shape, dtype=part.dtype) for name, part in bfm(start)._asdict().items()}

    def total(vector: torch.Tensor) -> torch.Tensor:
        face = bfm(vector)
        parts = sum((weights[name] * part).sum() for name, part in face._asdict().items())
        return parts + (bfm.landmarks(vector) ** 2).sum()

    vector = start.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(total(vector), vector)
    for direction in directions:
        step = 1e-6 * direction
        slope = (total(start + step) - total(start - step)) / 2e-6
        assert torch.isclose(gradient @ direction, slope, rtol=1e-6, atol=1e-6)


def test_gradcheck_through_landmarks(bfm: Bfm):
    vector = coefficients(1).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: project_y_up(to_camera(bfm.landmarks(v)))[:, ::23], vector, fast_mode=True)


def test_a_checkpoint_of_what_contains_the_model_does_not_carry_it(bfm: Bfm):
    assert dict(torch.nn.ModuleList([bfm]).state_dict()) == {}
    assert list(bfm.parameters()) == []


def test_everything_follows_the_module_to_its_device(tmp_path: Path):
    """On the device ``meta`` any tensor made elsewhere on the way would raise."""
    bfm = Bfm(load_bfm_file(write_bfm(tmp_path))).to("meta")
    vectors = torch.empty(2, 257, device="meta")
    assert all(part.device.type == "meta" for part in bfm(vectors))
    assert bfm.landmarks(vectors).device.type == "meta"


def test_the_official_size_computes(tmp_path: Path):
    bfm = Bfm.load(write_bfm(tmp_path, official_bfm_arrays()))
    face = bfm(join(split(torch.zeros(1, 257))))
    assert face.vertices.shape == face.colours.shape == (1, 35709, 3)
    assert torch.equal(face.vertices[0], bfm.mean_shape)
    assert bfm.landmarks(torch.zeros(257)).shape == (68, 3)
