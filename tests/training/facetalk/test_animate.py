"""Codes become meshes, openings of the mouth and files, for NPHM's heads and for FLAME's."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import pytest
import torch
import trimesh

from fitting.flame import Flame
from fitting.flame.landmarks import Landmarks
from fitting.nphm import Nphm
from fitting.studio.flame_file import write_flame
from fitting.studio.nphm_codes import nphm_expression, nphm_identity
from fitting.studio.nphm_file import shipped
from fitting.studio.nphm_truth import MM, head_surface, random_controls
from manifests.document import ManifestError
from training.facetalk.animate import flame_lips, flame_meshes_of, frames_held, meshes_of, mouth_opening_mm, write_animation
from training.facetalk.smoothing import Smoothing

FPS = Fraction(24000, 1001)
FRAMES = 80


class Speaking(NamedTuple):
    """One person in many moments, whose mouth is known."""

    head: Nphm
    """With the backward network."""
    forward: Nphm
    codes: torch.Tensor
    identity: torch.Tensor
    lips: torch.Tensor
    opening_mm: np.ndarray


@pytest.fixture(scope="module")
def flame_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_flame(tmp_path_factory.mktemp("flame"), "small")


@pytest.fixture(scope="module")
def speaking(flame_files: dict[str, Path]) -> Speaking:
    surface, networks = head_surface(), shipped()
    person = surface.family.people(1, 5)
    controls = random_controls(np.random.default_rng(5), FRAMES)
    inner = np.searchsorted(surface.sources, surface.family.mesh.landmarks)[[62, 66]]
    posed = surface.pose(person[0], controls)[:, inner]
    flame = Flame.load(flame_files["flame2020"])
    landmarks = Landmarks.load(flame_files["flame-landmarks"], flame, "full")
    return Speaking(
        Nphm(networks.identity, networks.backward),
        Nphm(networks.identity, networks.forward),
        torch.from_numpy(nphm_expression(controls.expression, controls.jaw)).float(),
        torch.from_numpy(nphm_identity(person)[0]).float(),
        flame_lips(flame, landmarks, torch.from_numpy(person[0]).float()),
        MM * np.linalg.norm(posed[:, 0] - posed[:, 1], axis=-1),
    )


def test_meshes_are_those_of_the_head_in_metres(speaking: Speaking) -> None:
    codes = speaking.codes[:2]
    found = list(meshes_of(codes, speaking.identity, speaking.head, None, 24))
    wanted = speaking.head.meshes(codes, speaking.head.subject(speaking.identity[None]), resolution=24)
    for mesh, same in zip(found, wanted, strict=True):
        torch.testing.assert_close(4 * mesh.vertices, same.vertices)
        assert torch.equal(mesh.faces, same.faces)


def test_smoothing_stills_the_neck_and_the_back_of_the_head_and_keeps_the_mouth_open(speaking: Speaking) -> None:
    """Of a forward network, whose vertices can be followed: the widest mouth against the most closed one."""
    codes = speaking.codes[[int(speaking.opening_mm.argmin()), int(speaking.opening_mm.argmax())]]
    moved = {}
    for smoothing in (None, Smoothing()):
        shut, wide = (mesh.vertices for mesh in meshes_of(codes, speaking.identity, speaking.forward, smoothing, 32))
        moved[smoothing is not None] = 1000 * (wide - shut).norm(dim=-1)
    still = shut[:, 2] < -0.02
    chin = (shut[:, 2] > 0.03) & (shut[:, 1] < -0.05)
    assert moved[False][still].max() > 5
    assert moved[True][still].max() < 0.3 * moved[False][still].max()
    assert moved[True][chin].mean() > 0.85 * moved[False][chin].mean()


def test_the_opening_of_the_mouth_is_that_of_the_true_head(speaking: Speaking) -> None:
    for head in (speaking.head, speaking.forward):
        found = mouth_opening_mm(speaking.codes, speaking.identity, head, speaking.lips)
        assert found.shape == (FRAMES,)
        assert np.corrcoef(found, speaking.opening_mm)[0, 1] > 0.99
        assert np.abs(found - speaking.opening_mm).mean() < 1
        assert np.ptp(speaking.opening_mm) > 20


def test_the_opening_of_a_frame_does_not_depend_on_the_others_of_the_batch(speaking: Speaking) -> None:
    alone = mouth_opening_mm(speaking.codes[:1], speaking.identity, speaking.head, speaking.lips)
    together = mouth_opening_mm(speaking.codes, speaking.identity, speaking.head, speaking.lips)
    assert alone[0] == pytest.approx(together[0], abs=0.05)


def test_flame_meshes_are_flames_posed_by_expression_and_jaw(flame_files: dict[str, Path]) -> None:
    flame = Flame.load(flame_files["flame2020"])
    rng = torch.Generator().manual_seed(0)
    codes, identity = 0.1 * torch.randn(5, 103, generator=rng), torch.randn(300, generator=rng)
    found = list(flame_meshes_of(codes, identity, flame, batch=2))
    assert len(found) == 5
    for mesh, code in zip(found, codes, strict=True):
        torch.testing.assert_close(mesh.vertices, flame(identity, code[:100], jaw=code[100:]).vertices)
        assert torch.equal(mesh.faces, flame.faces)


def test_an_animation_is_a_mesh_for_each_frame_a_film_with_sound_and_the_codes(speaking: Speaking, tmp_path: Path) -> None:
    wave = np.sin(np.arange(4000, dtype=np.float32) / 5)
    folder, codes = tmp_path / "animation", speaking.codes[:3]
    write_animation(codes, speaking.identity, speaking.head, folder, FPS, wave, 16000, smoothing=Smoothing(), resolution=24)
    names = [f"frame_{number:05d}.ply" for number in range(3)]
    assert sorted(path.name for path in folder.iterdir()) == ["animation.json", "codes.npz", *names, "preview.mp4"]
    wanted = meshes_of(codes, speaking.identity, speaking.head, Smoothing(), 24)
    for name, mesh in zip(names, wanted, strict=True):
        read = trimesh.load(folder / name, process=False)
        np.testing.assert_array_equal(read.vertices, mesh.vertices.numpy())
    held = np.load(folder / "codes.npz")
    np.testing.assert_array_equal(held["codes"], codes.numpy())
    np.testing.assert_array_equal(held["wave"], wave)
    assert held["fps"].tolist() == [24000, 1001]
    with av.open(str(folder / "preview.mp4")) as film:
        assert film.streams.video[0].frames == 3
        assert film.streams.audio[0].sample_rate == 16000


def test_an_animation_takes_the_place_of_a_longer_one_and_has_the_same_bytes_again(
    flame_files: dict[str, Path], tmp_path: Path
) -> None:
    flame, wave = Flame.load(flame_files["flame2020"]), np.zeros(1000, np.float32)
    codes = 0.1 * torch.randn(4, 103, generator=torch.Generator().manual_seed(0))

    def written(n_frames: int, folder: Path) -> dict[str, bytes]:
        write_animation(codes[:n_frames], torch.zeros(300), flame, folder, FPS, wave, 16000)
        return {path.name: path.read_bytes() for path in folder.iterdir()}

    assert len(written(4, tmp_path / "one")) == 7
    again = written(2, tmp_path / "one")
    assert len(again) == 5
    assert again == written(2, tmp_path / "other")


@pytest.mark.parametrize("name", ["frame_00000.ply", "preview.mp4", "codes.npz", "animation.json", "thesis.tex"])
def test_a_folder_that_holds_something_else_is_left_as_it_is(flame_files: dict[str, Path], tmp_path: Path, name: str) -> None:
    """Others write such names, too: an export's meshes, and codes alone."""
    np.savez(tmp_path / "codes.npz", codes=np.zeros((1, 103)), fps=[24, 1])
    (tmp_path / "codes.npz").replace(tmp_path / name)
    before = (tmp_path / name).read_bytes()
    flame, wave = Flame.load(flame_files["flame2020"]), np.zeros(1000, np.float32)
    with pytest.raises(ManifestError, match=f"holds {name}, which is no part of an animation of headloom's; give a new folder"):
        write_animation(torch.zeros(1, 103), torch.zeros(300), flame, tmp_path, FPS, wave, 16000)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {name: before}


def test_what_a_user_puts_beside_an_animation_stays(flame_files: dict[str, Path], tmp_path: Path) -> None:
    flame, wave = Flame.load(flame_files["flame2020"]), np.zeros(1000, np.float32)
    write_animation(torch.zeros(2, 103), torch.zeros(300), flame, tmp_path, FPS, wave, 16000)
    assert frames_held(tmp_path) == 2
    (tmp_path / "frame_00002.ply").write_bytes(b"of something longer")
    with pytest.raises(ManifestError, match=r"holds frame_00002\.ply"):
        write_animation(torch.zeros(2, 103), torch.zeros(300), flame, tmp_path, FPS, wave, 16000)
    assert len(list(tmp_path.iterdir())) == 6


def test_an_animation_without_its_marker_is_known_by_its_codes(flame_files: dict[str, Path], tmp_path: Path) -> None:
    flame, wave = Flame.load(flame_files["flame2020"]), np.zeros(1000, np.float32)
    write_animation(torch.zeros(2, 103), torch.zeros(300), flame, tmp_path, FPS, wave, 16000)
    (tmp_path / "animation.json").unlink()
    assert frames_held(tmp_path) == 2
    write_animation(torch.zeros(1, 103), torch.zeros(300), flame, tmp_path, FPS, wave, 16000)
    assert frames_held(tmp_path) == 1
    assert len(list(tmp_path.iterdir())) == 4


def test_an_animation_that_breaks_off_has_no_codes_beside_it(flame_files: dict[str, Path], tmp_path: Path) -> None:
    flame, wave = Flame.load(flame_files["flame2020"]), np.zeros(1000, np.float32)
    write_animation(torch.zeros(2, 103), torch.zeros(300), flame, tmp_path, FPS, wave, 16000)
    broken = torch.zeros(2, 104)  # a jaw of four numbers
    with pytest.raises(ValueError, match="jaw"):
        write_animation(broken, torch.zeros(300), flame, tmp_path, FPS, wave, 16000)
    assert not (tmp_path / "codes.npz").exists()
    assert frames_held(tmp_path) == 2
