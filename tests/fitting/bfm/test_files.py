"""The .mat files as they come: right keys and shapes are read, anything else is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch

from fitting.bfm.files import load_bfm_file, load_coefficients_mat, load_landmarks3d, load_sadtalker_mat
from manifests.model_file import WrongModelFile
from tests.fitting.bfm.files import (
    bfm_arrays,
    landmarks3d,
    official_bfm_arrays,
    write_bfm,
    write_coefficients_mat,
    write_landmarks3d,
    write_sadtalker_mat,
)


def test_a_file_of_the_official_size_is_read(tmp_path: Path):
    arrays = official_bfm_arrays()
    file = load_bfm_file(write_bfm(tmp_path, arrays))
    assert file.mean_shape.shape == file.mean_texture.shape == (35709, 3)
    assert file.identity_basis.shape == file.texture_basis.shape == (35709, 3, 80)
    assert file.expression_basis.shape == (35709, 3, 64)
    assert file.faces.shape == (70789, 3)
    assert file.vertex_faces.shape == (35709, 8)
    assert file.vertex_faces.max() == 70789
    assert file.front_vertices.shape == (27660,)
    assert file.front_faces.shape == (54681, 3)
    assert file.identity_basis[7, 2, 5] == arrays["idBase"][7 * 3 + 2, 5]
    assert {array.dtype.name for array in file} == {"float32", "int64"}


def test_indices_count_from_zero(tmp_path: Path):
    arrays = bfm_arrays()
    file = load_bfm_file(write_bfm(tmp_path, arrays))
    assert np.array_equal(file.faces, arrays["tri"] - 1)
    assert np.array_equal(file.landmark_vertices, arrays["keypoints"][0] - 1)
    assert np.array_equal(file.front_vertices, arrays["frontmask2_idx"][:, 0] - 1)
    assert np.array_equal(file.skin, arrays["skinmask"][0])


def test_no_face_is_one_more_than_the_last(tmp_path: Path):
    file = load_bfm_file(write_bfm(tmp_path))
    n_faces = len(file.faces)
    assert file.vertex_faces.max() == n_faces
    for vertex, around in enumerate(file.vertex_faces):
        real = around[around < n_faces]
        assert len(real) == len(set(real.tolist())) == (file.faces == vertex).any(axis=1).sum()


def test_front_faces_count_along_the_front_vertices(tmp_path: Path):
    """In the official file ``tri_mask2`` reaches 27660, the number of front vertices, and means those."""
    arrays = bfm_arrays()
    file = load_bfm_file(write_bfm(tmp_path, arrays))
    first = arrays["tri_mask2"][0].astype(int) - 1
    assert file.front_faces[0].tolist() == [int(arrays["frontmask2_idx"][k, 0]) - 1 for k in first]
    assert np.isin(file.front_faces, file.front_vertices).all()


def test_doubles_and_integers_are_read_as_well(tmp_path: Path):
    arrays = bfm_arrays()
    written = {key: value.astype(np.int32 if key in ("tri", "point_buf") else np.float64) for key, value in arrays.items()}
    file = load_bfm_file(write_bfm(tmp_path, written))
    for ours, theirs in zip(file, load_bfm_file(write_bfm(tmp_path, arrays)), strict=True):
        assert ours.dtype == theirs.dtype
        assert np.array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"exBase": None}, "missing exBase"),
        ({"exBase": None, "skinmask": None}, "missing exBase, skinmask"),
        ({"eyes": np.ones((1, 3))}, "unexpected eyes"),
        ({"idBase": np.ones((360, 199))}, "idBase is 360×199 instead of 360×80"),
        ({"meantex": np.ones((1, 357))}, "meantex is 1×357 instead of 1×360"),
        ({"keypoints": np.ones((68, 1))}, "keypoints is 68×1 instead of 1×68"),
        ({"skinmask": np.ones((1, 119)), "point_buf": np.ones((119, 8))}, "360 coordinates, point_buf 119 vertices"),
        ({"tri": np.zeros((198, 3))}, "tri are indices from 1 to 120, found 0 to 0"),
        ({"tri": np.full((198, 3), 121)}, "tri are indices from 1 to 120, found 121 to 121"),
        ({"tri": np.full((198, 3), 1.5)}, "tri are indices from 1 to 120, found 1.5 to 1.5"),
        ({"point_buf": np.full((120, 8), 200)}, "point_buf are indices from 1 to 199, found 200 to 200"),
        ({"tri_mask2": np.full((40, 3), 61)}, "tri_mask2 are indices from 1 to 60, found 61 to 61"),
        ({"keypoints": np.full((1, 68), np.nan)}, "keypoints are indices from 1 to 120, found nan to nan"),
        ({"skinmask": "skin"}, "something other than numbers under skinmask"),
    ],
)
def test_what_is_wrong_with_a_model_is_named(tmp_path: Path, change: dict, words: str):
    arrays = {key: value for key, value in {**bfm_arrays(), **change}.items() if value is not None}
    with pytest.raises(WrongModelFile, match=words) as caught:
        load_bfm_file(write_bfm(tmp_path, arrays))
    assert "\n" not in str(caught.value)
    assert "BFM_model_front.mat" in str(caught.value)


def test_matlab_7_3_files_are_refused_with_the_way_out(tmp_path: Path):
    path = tmp_path / "BFM_model_front.mat"
    path.write_bytes(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(512) + b"\x89HDF\r\n\x1a\n" + bytes(64))
    with pytest.raises(WrongModelFile, match=r"HDF5 \(MATLAB 7.3\) file: save it again from MATLAB with the flag -v7"):
        load_bfm_file(path)


def test_damaged_files_and_other_kinds_are_refused(tmp_path: Path):
    path = write_bfm(tmp_path)
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(WrongModelFile, match="truncated or damaged"):
        load_bfm_file(path)
    np.save(tmp_path / "array.npy", np.zeros(3))
    with pytest.raises(WrongModelFile, match="is a NumPy array, not a MATLAB file"):
        load_bfm_file(tmp_path / "array.npy")
    with pytest.raises(FileNotFoundError):
        load_bfm_file(tmp_path / "nothing.mat")


@pytest.mark.parametrize(
    ("held", "words"),
    [
        ({"a": np.zeros(3)}, "something other than numbers under lm"),
        ("text", "something other than numbers under lm"),
        (np.zeros((68, 3)) + 1j, "complex numbers under lm"),
        (np.zeros((68, 3)), "claims 204 numbers under lm"),
    ],
)
def test_what_is_not_numbers_or_too_many_is_refused(held, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("fitting.bfm.files._MOST", 203)
    path = tmp_path / "similarity_Lm3D_all.mat"
    scipy.io.savemat(path, {"lm": held}, do_compression=True)
    if words.startswith("claims") or "other" in words:  # before anything is unpacked
        monkeypatch.setattr("scipy.io.loadmat", lambda path: pytest.fail("was unpacked"))
    else:
        monkeypatch.setattr("fitting.bfm.files._MOST", 204)
    with pytest.raises(WrongModelFile, match=words):
        load_landmarks3d(str(path))


def test_the_standard_landmarks_are_read(tmp_path: Path):
    landmarks = load_landmarks3d(write_landmarks3d(tmp_path))
    assert landmarks.dtype == torch.float64
    assert np.array_equal(landmarks, landmarks3d().astype(np.float64))
    with pytest.raises(WrongModelFile, match="missing lm; unexpected"):
        load_landmarks3d(write_bfm(tmp_path))


@pytest.mark.parametrize(("columns", "has_reference"), [(73, True), (70, False)])
def test_sadtalkers_coefficients_are_read(tmp_path: Path, columns: int, has_reference: bool):
    """Files that SadTalker makes from pictures have 73 columns, those it makes from audio 70 and no first frame."""
    path = write_sadtalker_mat(tmp_path, frames=4, columns=columns)
    mat = load_sadtalker_mat(path)
    assert mat.semantics.shape == (4, columns)
    assert mat.semantics.dtype == torch.float32
    assert np.array_equal(mat.semantics, scipy.io.loadmat(path)["coeff_3dmm"])
    assert (mat.reference is not None) == has_reference


def test_dreamtalks_and_pirenders_coefficients_are_read(tmp_path: Path):
    path = write_coefficients_mat(tmp_path, frames=4)
    mat = load_coefficients_mat(path)
    assert mat.coefficients.shape == (4, 257)
    assert np.array_equal(mat.trans_params, scipy.io.loadmat(path)["transform_params"])


def test_one_layout_is_not_taken_for_the_other(tmp_path: Path):
    with pytest.raises(WrongModelFile, match="missing coeff_3dmm; unexpected coeff, transform_params"):
        load_sadtalker_mat(write_coefficients_mat(tmp_path))
    with pytest.raises(WrongModelFile, match="missing coeff, transform_params; unexpected"):
        load_coefficients_mat(write_sadtalker_mat(tmp_path))
    with pytest.raises(WrongModelFile, match="coeff_3dmm has 72 columns, not 70 or 73"):
        load_sadtalker_mat(write_sadtalker_mat(tmp_path, columns=72))
