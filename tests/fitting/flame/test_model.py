"""The posed head: against a plain version, against finite differences, and in the cases where people go wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from fitting.flame import ContourLandmarks, Flame, load_regions
from fitting.rotations import axis_angle_to_matrix
from tests.fitting.flame.files import random_head, write_eyelids, write_landmarks, write_model, write_regions
from tests.fitting.flame.slow import slow_flame

N = 120
SIZES = {"identity": 300, "expression": 100, "rotation": 3, "neck": 3, "jaw": 3, "eyes": 6, "translation": 3, "eyelids": 2}
SCALES = {"rotation": 0.7, "neck": 0.3, "jaw": 0.3, "eyes": 0.3, "eyelids": 0.5}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("flame")
    write_model(folder / "generic_model.pkl", random_head(N, 200))
    write_eyelids(folder, N)
    return folder


@pytest.fixture(scope="module")
def flame(folder: Path) -> Flame:
    return loaded(folder, torch.float64)


def loaded(folder: Path, dtype: torch.dtype) -> Flame:
    return Flame.load(folder / "generic_model.pkl", eyelids=(folder / "l_eyelid.npy", folder / "r_eyelid.npy"), dtype=dtype)


def inputs(*leading: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    drawn = {
        name: torch.randn(*leading, size, generator=rng, dtype=torch.float64) * SCALES.get(name, 1.0)
        for name, size in SIZES.items()
    }
    drawn["offsets"] = torch.randn(*leading, N, 3, generator=rng, dtype=torch.float64) * 1e-3
    return {name: value.to(dtype) for name, value in drawn.items()}


@pytest.mark.parametrize("mirrored", [False, True])
def test_agrees_with_the_plain_version_whichever_joint_is_the_left_eye(tmp_path: Path, mirrored: bool) -> None:
    head = random_head(N, 200)
    if mirrored:  # joint 3 is now on the person's right
        head["v_template"] = head["v_template"] * [-1, 1, 1]
    write_model(tmp_path / "generic_model.pkl", head)
    write_eyelids(tmp_path, N)
    flame = loaded(tmp_path, torch.float64)
    given = inputs(3)
    mesh = flame(**given)
    pose = torch.cat([given[name] for name in ("rotation", "neck", "jaw", "eyes")], dim=-1).unflatten(-1, (5, 3)).numpy()
    if mirrored:
        pose = pose[:, [0, 1, 2, 4, 3]]
    lids = np.load(tmp_path / "l_eyelid.npy"), np.load(tmp_path / "r_eyelid.npy")
    for frame in range(3):
        closed = given["eyelids"][frame].tolist()
        vertices, joints = slow_flame(
            head,
            given["identity"][frame].numpy(),
            given["expression"][frame].numpy(),
            pose[frame],
            given["translation"][frame].numpy(),
            eyelids=(closed[0], lids[0], closed[1], lids[1]),
            offsets=given["offsets"][frame].numpy(),
        )
        # Joints come from directions computed beforehand, which changes nothing but the rounding.
        np.testing.assert_allclose(mesh.joints[frame].numpy(), joints, atol=1e-12)
        np.testing.assert_allclose(mesh.vertices[frame].numpy(), vertices, atol=1e-12)


def test_float32_agrees_with_float64(folder: Path, flame: Flame) -> None:
    exact = flame(**inputs(4))
    rounded = loaded(folder, torch.float32)(**inputs(4, dtype=torch.float32))
    assert rounded.vertices.dtype == torch.float32
    torch.testing.assert_close(rounded.vertices.double(), exact.vertices, atol=1e-5, rtol=0)
    torch.testing.assert_close(rounded.joints.double(), exact.joints, atol=1e-5, rtol=0)


def test_at_rest_it_is_the_template(folder: Path, flame: Flame) -> None:
    template = random_head(N, 200)["v_template"]
    mesh = flame()
    assert mesh.vertices.shape == (N, 3)
    np.testing.assert_allclose(mesh.vertices.numpy(), template, atol=1e-15)
    assert torch.equal(mesh.rotations, torch.eye(3, dtype=torch.float64).expand(5, 3, 3))


@pytest.mark.parametrize("name", [*SIZES, "offsets"])
def test_each_input_counts_and_its_absence_is_zero(flame: Flame, name: str) -> None:
    given = inputs(2)
    without = {key: value for key, value in given.items() if key != name}
    zeroed = flame(**without, **{name: torch.zeros_like(given[name])})
    torch.testing.assert_close(flame(**without).vertices, zeroed.vertices, atol=1e-15, rtol=0)
    assert (flame(**given).vertices - zeroed.vertices).abs().max() > 1e-4


@pytest.mark.parametrize("at", ["somewhere", "rest"])
def test_gradients_agree_with_finite_differences(tmp_path: Path, at: str) -> None:
    head = random_head(12, 8, directions=20)
    write_model(tmp_path / "small.pkl", head)
    flame = Flame.load(tmp_path / "small.pkl", eyelids=write_eyelids(tmp_path, 12), dtype=torch.float64)
    sizes = {**SIZES, "identity": 10, "expression": 10}
    scale = 0.5 if at == "somewhere" else 0.0
    values = [(torch.randn(2, size, dtype=torch.float64) * scale).requires_grad_() for size in sizes.values()]
    offsets = torch.zeros(2, 12, 3, dtype=torch.float64, requires_grad=True)

    def posed(*values: Tensor) -> tuple[Tensor, ...]:
        return tuple(flame(**dict(zip([*sizes, "offsets"], values, strict=True))))

    torch.manual_seed(0)
    assert torch.autograd.gradcheck(posed, (*values, offsets), eps=1e-6, atol=1e-7)


def test_leading_dimensions_are_free_and_broadcast(flame: Flame) -> None:
    given = inputs(2, 3, seed=1)
    given["identity"] = given["identity"][:, :1]  # people
    given["translation"] = given["translation"][0, 0]  # one for all
    given["neck"] = given["neck"][:1]  # one sequence for both
    given["rotation"] = given["rotation"][:, :, None]  # seen from four sides
    given["rotation"] = given["rotation"] * torch.linspace(0.5, 2, 4, dtype=torch.float64)[:, None]
    given = {key: value[:, :, None] if value.ndim > 2 and key != "rotation" else value for key, value in given.items()}
    given.pop("offsets")
    mesh = flame(**given)
    assert mesh.vertices.shape == (2, 3, 4, N, 3)
    assert mesh.joints.shape == (2, 3, 4, 5, 3)
    assert mesh.rotations.shape == (2, 3, 4, 5, 3, 3)
    for person, frame, side in ((0, 0, 0), (1, 2, 3), (0, 2, 1)):
        one = {
            key: value.expand(2, 3, 4, value.shape[-1])[person, frame, side] if value.ndim > 1 else value
            for key, value in given.items()
        }
        alone = flame(**one)
        for batched, single in zip(mesh, alone, strict=True):
            torch.testing.assert_close(batched[person, frame, side], single, atol=1e-12, rtol=0)


def test_an_empty_batch_is_no_error(flame: Flame) -> None:
    assert flame(**{key: value for key, value in inputs(0).items() if key != "offsets"}).vertices.shape == (0, N, 3)


def test_an_identity_is_computed_once_for_all_frames(flame: Flame) -> None:
    def work(n_frames: int, identity: Tensor) -> int:
        with FlopCounterMode(display=False) as counter:
            flame(identity, inputs(2, n_frames)["expression"])
        return int(counter.get_total_flops())

    shared = work(40, inputs(2, 1)["identity"])
    each = work(40, inputs(2, 40)["identity"])
    one_identity = 2 * 300 * 3 * N
    assert each - shared >= 2 * 39 * one_identity
    # Of what a frame costs, nothing is left of the identity.
    assert work(41, inputs(2, 1)["identity"]) - shared < 2 * one_identity


def test_fewer_coefficients_are_the_first_ones(flame: Flame) -> None:
    given = inputs(2)
    some = flame(given["identity"][:, :50], given["expression"][:, :7])
    padded = [torch.nn.functional.pad(given[key][:, :n], (0, SIZES[key] - n)) for key, n in (("identity", 50), ("expression", 7))]
    torch.testing.assert_close(some.vertices, flame(*padded).vertices, atol=1e-14, rtol=0)


def test_directions_can_be_left_in_the_file(folder: Path, flame: Flame) -> None:
    small = Flame.load(folder / "generic_model.pkl", identity=20, expression=10, dtype=torch.float64)
    assert (small.n_identity, small.n_expression, small.n_vertices) == (20, 10, N)
    given = inputs(2)
    ours, whole = (model(given["identity"][:, :20], given["expression"][:, :10], jaw=given["jaw"]) for model in (small, flame))
    torch.testing.assert_close(ours.vertices, whole.vertices, atol=1e-14, rtol=0)
    assert small.digest == flame.digest


def test_a_part_has_the_same_vertices_and_joints(flame: Flame) -> None:
    chosen = torch.randperm(N, generator=torch.Generator().manual_seed(0))[:50]
    given = inputs(2)
    given["offsets"][:, ~torch.isin(torch.arange(N), chosen)] = 0
    whole = flame(**given)
    part = flame.part(chosen)
    mesh = part(**{**given, "offsets": given["offsets"][:, chosen]})
    torch.testing.assert_close(mesh.vertices, whole.vertices[:, chosen], atol=1e-13, rtol=0)
    torch.testing.assert_close(mesh.joints, whole.joints, atol=1e-13, rtol=0)
    assert flame.n_vertices == N
    assert flame().vertices.shape == (N, 3)  # the whole head is as it was


def test_faces_of_a_part_are_those_that_are_all_there(flame: Flame) -> None:
    chosen = torch.arange(N).flip(0)[:80]
    part = flame.part(chosen)
    there = torch.isin(flame.faces, chosen).all(1)
    assert 0 < there.sum() < len(flame.faces)
    assert torch.equal(chosen[part.faces], flame.faces[there])


def test_parts_by_mask_and_parts_of_parts(flame: Flame) -> None:
    mask = torch.arange(N) % 3 == 0
    twice = flame.part(mask).part(torch.tensor([5, 1]))
    torch.testing.assert_close(twice.v_template, flame.v_template[[15, 3]])


def test_a_region_of_the_official_size_is_a_part(tmp_path: Path) -> None:
    flame = Flame.load(write_model(tmp_path / "generic_model.pkl"))
    assert flame.n_vertices == 5023
    regions = load_regions(write_regions(tmp_path / "FLAME_masks.pkl"))
    mesh = flame.part(regions["face"])(torch.zeros(300))
    torch.testing.assert_close(mesh.vertices, flame.v_template[regions["face"]])


def test_each_eye_turns_its_own_side(flame: Flame) -> None:
    eyes = torch.zeros(2, 6, dtype=torch.float64)
    eyes[0, 1] = eyes[1, 4] = 0.5  # the left eye looks to the person's left, then the right eye
    rotations = flame(eyes=eyes).rotations
    left, right = flame.eye_joints
    assert flame.v_template[flame.weights[left] > 0.9, 0].mean() > 0.01
    assert flame.v_template[flame.weights[right] > 0.9, 0].mean() < -0.01
    turned = axis_angle_to_matrix(eyes[0, :3])
    torch.testing.assert_close(rotations[0, left], turned)
    torch.testing.assert_close(rotations[1, right], turned)
    assert torch.equal(rotations[0, right], torch.eye(3, dtype=torch.float64))


def test_positive_turns_about_y_are_to_the_persons_left(flame: Flame) -> None:
    mesh = flame(rotation=torch.tensor([0.0, torch.pi / 2, 0.0], dtype=torch.float64))
    nose = flame.v_template[:, 2].argmax()
    assert (mesh.vertices - mesh.joints[0])[nose, 0] > 0.05


def test_the_whole_head_turns_about_its_first_joint_and_not_the_origin(flame: Flame) -> None:
    given = inputs(3)
    still, turned = flame(given["identity"]), flame(given["identity"], rotation=given["rotation"])
    torch.testing.assert_close(turned.joints[:, 0], still.joints[:, 0])
    expected = (still.vertices - still.joints[:, :1]) @ axis_angle_to_matrix(given["rotation"]).mT + still.joints[:, :1]
    torch.testing.assert_close(turned.vertices, expected, atol=1e-12, rtol=0)
    assert (still.joints[0, 0] - still.joints[1, 0]).norm() > 1e-3  # and that lies elsewhere for each identity


def test_translation_comes_last(flame: Flame) -> None:
    given = inputs(2)
    moved = flame(**given)
    still = flame(**{key: value for key, value in given.items() if key != "translation"})
    torch.testing.assert_close(moved.vertices, still.vertices + given["translation"][:, None], atol=1e-12, rtol=0)
    torch.testing.assert_close(moved.joints, still.joints + given["translation"][:, None], atol=1e-12, rtol=0)


def test_eyelids_ride_on_the_head_and_leave_the_joints_alone(folder: Path, flame: Flame) -> None:
    half_turn = torch.tensor([0.0, torch.pi, 0.0], dtype=torch.float64)
    left_closed = torch.tensor([1.0, 0.0], dtype=torch.float64)
    lid = torch.from_numpy(np.load(folder / "l_eyelid.npy"))
    assert torch.allclose(flame(eyelids=left_closed).vertices - flame().vertices, lid, atol=1e-14)
    turned = flame(rotation=half_turn, eyelids=left_closed)
    moved = turned.vertices - flame(rotation=half_turn).vertices
    torch.testing.assert_close(moved, lid * torch.tensor([-1.0, 1.0, -1.0], dtype=torch.float64), atol=1e-14, rtol=0)
    torch.testing.assert_close(turned.joints, flame(rotation=half_turn).joints)


def test_pose_vectors_come_apart_and_together_again(flame: Flame) -> None:
    pose = torch.randn(4, 15, dtype=torch.float64)
    parts = flame.split_pose(pose)
    assert {name: part.shape[-1] for name, part in parts.items()} == {"rotation": 3, "neck": 3, "jaw": 3, "eyes": 6}
    assert torch.equal(flame.full_pose(**parts), pose)
    assert torch.equal(flame.full_pose(jaw=pose[:, :3])[:, 6:9], pose[:, :3])


@pytest.fixture(params=["no jaw in the weights", "no jaw in the name", "no jaw by argument"])
def without_jaw(request: pytest.FixtureRequest, tmp_path: Path) -> Flame:
    name = "flame2023_no_jaw.pkl" if request.param == "no jaw in the name" else "flame2023.pkl"
    write_model(tmp_path / name, n_vertices=N, n_faces=200, jaw=request.param != "no jaw in the weights")
    return Flame.load(tmp_path / name, jaw=False if request.param == "no jaw by argument" else None)


def test_a_head_without_jaw_refuses_to_turn_it(without_jaw: Flame) -> None:
    assert not without_jaw.has_jaw
    with pytest.raises(ValueError, match="has no jaw to rotate"):
        without_jaw(jaw=torch.tensor([[0.0, 0, 0], [0.1, 0, 0]]))
    assert without_jaw(jaw=torch.zeros(2, 3), expression=torch.ones(2, 100)).vertices.shape == (2, N, 3)


def test_heads_with_jaw_are_known(flame: Flame) -> None:
    assert flame.has_jaw


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"identity": torch.zeros(301)}, "identity has 301 numbers in its last dimension; generic_model takes at most 300"),
        ({"expression": torch.zeros(2, 101)}, "expression has 101 numbers"),
        ({"rotation": torch.zeros(2, 6)}, "rotation has 6 numbers in its last dimension; generic_model takes 3"),
        ({"eyes": torch.zeros(3)}, "eyes has 3 numbers in its last dimension; generic_model takes 6"),
        ({"neck": torch.tensor(0.0)}, "neck has 0 numbers"),
        ({"translation": torch.zeros(1)}, "translation has 1 numbers"),
        ({"jaw": torch.zeros(3).double()}, r"jaw is torch.float64, generic_model torch.float32: convert one of them"),
        ({"offsets": torch.zeros(N, 3).double()}, "offsets is torch.float64"),
        ({"eyelids": torch.zeros(2)}, "has no eyelids: load it with eyelids="),
        ({"identity": torch.tensor(0.0)}, "identity has 0 numbers"),
        (
            {"identity": torch.zeros(2, 300), "jaw": torch.zeros(3, 3), "offsets": torch.zeros(2, N, 3)},
            r"leading dimensions do not fit together: identity \(2,\), jaw \(3,\), offsets \(2,\)",
        ),
        ({"offsets": torch.zeros(5, 3)}, rf"offsets has shape \(5, 3\) instead of \(\.\.\., {N}, 3\)"),
    ],
)
def test_sizes_and_types_that_do_not_fit_are_named(folder: Path, given: dict[str, Any], complaint: str) -> None:
    flame = Flame.load(folder / "generic_model.pkl")
    with pytest.raises(ValueError, match=complaint):
        flame(**given)


def test_buffers_follow_to_and_stay_out_of_checkpoints(folder: Path) -> None:
    flame = loaded(folder, torch.float32).to(torch.float64)
    assert flame(torch.zeros(300, dtype=torch.float64)).vertices.dtype == torch.float64
    assert flame.faces.dtype == torch.int64
    assert not flame.state_dict()
    assert flame().vertices.device == flame.template.device


def test_nothing_is_left_behind_on_the_cpu(folder: Path) -> None:
    # Meta tensors refuse to meet CPU tensors, as those of a GPU do.
    given = {name: value.to("meta") for name, value in inputs(2, dtype=torch.float32).items()}
    flame = loaded(folder, torch.float32)
    landmarks = ContourLandmarks.load(write_landmarks(folder / "landmark_embedding.npy", 200), flame).to("meta")
    flame = flame.to("meta")
    assert flame(**given).vertices.device.type == "meta"
    assert landmarks(flame(**given), torch.eye(3, device="meta")).shape == (2, 68, 3)


def test_the_digest_is_that_of_the_directions(folder: Path, tmp_path: Path, flame: Flame) -> None:
    head = random_head(N, 200)
    assert flame.name == "generic_model"
    in_float32 = {**head, "shapedirs": head["shapedirs"].astype(np.float32)}
    assert Flame.load(write_model(tmp_path / "a.pkl", in_float32)).digest == flame.digest
    other = {**head, "shapedirs": head["shapedirs"] + 1e-6}
    assert Flame.load(write_model(tmp_path / "b.pkl", other)).digest != flame.digest
