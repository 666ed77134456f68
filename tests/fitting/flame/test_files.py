"""Official files load as they come; whatever is wrong with one is named in one line."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fitting.flame import Flame, load_regions
from fitting.flame.files import REGIONS, read_eyelid, read_model
from manifests.model_file import WrongModelFile
from tests.fitting.flame.files import N_FACES, N_VERTICES, random_head, write_eyelids, write_model, write_pickle, write_regions


def complaint(read: Callable[..., Any], *arguments: Any) -> str:
    with pytest.raises(WrongModelFile) as error:
        read(*arguments)
    assert "\n" not in str(error.value)
    assert str(arguments[0]) in str(error.value)
    return str(error.value)


def test_a_file_of_the_official_size_needs_no_chumpy(tmp_path: Path) -> None:
    head = random_head()
    path = write_model(tmp_path / "generic_model.pkl", head)
    raw = path.read_bytes()
    for mark in (b"cchumpy.ch\nCh\n", b"cscipy.sparse.csc\ncsc_matrix\n", b"cnumpy.core.multiarray\n_reconstruct\n"):
        assert mark in raw
    assert b"_codecs" not in raw  # with which Python 3 would have written the bytes
    model = read_model(path)
    assert "chumpy" not in sys.modules
    np.testing.assert_array_equal(model.template, head["v_template"])
    np.testing.assert_array_equal(model.identity, head["shapedirs"][:, :, :300])
    np.testing.assert_array_equal(model.expression, head["shapedirs"][:, :, 300:])
    np.testing.assert_array_equal(model.pose, head["posedirs"])
    np.testing.assert_array_equal(model.regressor, head["J_regressor"])
    np.testing.assert_array_equal(model.weights, head["weights"])
    np.testing.assert_array_equal(model.faces, head["f"])
    assert (model.template.shape, model.faces.shape) == ((N_VERTICES, 3), (N_FACES, 3))
    assert {array.dtype.name for array in model[:6]} == {"float64"}


def test_the_reduced_form_has_ten_and_ten(tmp_path: Path) -> None:
    head = random_head(50, 40, directions=20)
    model = read_model(write_model(tmp_path / "FLAME_NEUTRAL.pkl", head))
    np.testing.assert_array_equal(model.identity, head["shapedirs"][:, :, :10])
    np.testing.assert_array_equal(model.expression, head["shapedirs"][:, :, 10:])


def test_files_written_anew_by_python_3_load_too(tmp_path: Path) -> None:
    head = random_head(50, 40)
    head["kintree_table"] = np.array([[-1, 0, 1, 1, 1], [0, 1, 2, 3, 4]])
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps(head, protocol=5))
    np.testing.assert_array_equal(read_model(tmp_path / "plain.pkl").pose, head["posedirs"])


def test_missing_and_misshaped_keys_are_all_named(tmp_path: Path) -> None:
    head = random_head(50, 40)
    head["pose_dirs"] = head.pop("posedirs")
    del head["f"]
    head["weights"] = head["weights"][:, :4]
    said = complaint(read_model, write_model(tmp_path / "generic_model.pkl", head))
    assert "missing posedirs, f" in said
    assert "pose_dirs" in said
    assert "weights is 50×4 instead of 50×5" in said


def changed(key: str, change: Callable[[np.ndarray], Any]) -> dict[str, Any]:
    head = random_head(50, 40)
    return {**head, key: change(head[key])}


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (changed("shapedirs", lambda a: a[:, :, :150]), "150 shape directions instead of 400 (300 + 100) or 20 (10 + 10)"),
        (changed("shapedirs", lambda a: a[:49]), "shapedirs is 49×3×400 instead of 50×3×"),
        (changed("posedirs", lambda a: np.zeros((50, 3, 207))), "posedirs is 50×3×207 instead of 50×3×36"),
        (changed("kintree_table", lambda a: a[:, [0, 1, 2, 3, 1]]), "parents [0, 1, 1, 0] instead of FLAME's [0, 1, 1, 1]"),
        (changed("f", lambda a: a + 10), "faces with vertex"),
        (changed("weights", lambda a: a * 0.5), "do not sum to 1"),
        (changed("v_template", lambda a: a.astype("U8")), "v_template of type <U8 instead of numbers"),
    ],
)
def test_content_that_is_no_flame_head_is_named(tmp_path: Path, head: dict[str, Any], expected: str) -> None:
    assert expected in complaint(read_model, write_model(tmp_path / "generic_model.pkl", head))


def test_other_files_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros(3))
    assert "not a pickle" in complaint(Flame.load, tmp_path / "a.npy")
    assert "instead of FLAME's dict" in complaint(Flame.load, write_pickle(tmp_path / "b.pkl", [1, 2]))
    (tmp_path / "c.pkl").write_bytes(write_model(tmp_path / "whole.pkl", random_head(50, 40)).read_bytes()[:5000])
    assert "truncated" in complaint(Flame.load, tmp_path / "c.pkl")


def test_regions_are_vertex_indices_by_name(tmp_path: Path) -> None:
    regions = load_regions(write_regions(tmp_path / "FLAME_masks.pkl"))
    assert set(regions) == set(REGIONS)
    face = regions["face"]
    assert face.dtype.is_signed
    assert len(face) == N_VERTICES // 3
    assert bool((face.diff() > 0).all())


def test_wrong_regions_are_named(tmp_path: Path) -> None:
    regions: dict[str, Any] = dict.fromkeys(REGIONS, np.arange(3))
    del regions["scalp"], regions["nose"]
    assert "missing nose, scalp" in complaint(load_regions, write_pickle(tmp_path / "a.pkl", regions))
    regions = dict.fromkeys(REGIONS, np.arange(3)) | {"lips": np.zeros(3)}
    assert "lips of type float64 instead of a list" in complaint(load_regions, write_pickle(tmp_path / "b.pkl", regions))
    regions = dict.fromkeys(REGIONS, np.arange(3)) | {"lips": np.zeros((3, 2), int)}
    assert "lips is 3×2" in complaint(load_regions, write_pickle(tmp_path / "c.pkl", regions))
    assert "instead of FLAME_masks.pkl's dict" in complaint(load_regions, write_pickle(tmp_path / "d.pkl", [1]))
    regions = dict.fromkeys(REGIONS, np.arange(3)) | {"lips": np.array([5, -1])}
    assert "lips with the vertex -1" in complaint(load_regions, write_pickle(tmp_path / "e.pkl", regions))
    regions = dict.fromkeys(REGIONS, np.arange(3)) | {"more": [[1, 2], [3]]}
    assert "more with rows of several lengths" in complaint(load_regions, write_pickle(tmp_path / "f.pkl", regions))


def test_eyelids_must_fit_the_head(tmp_path: Path) -> None:
    left, right = write_eyelids(tmp_path, 40)
    np.testing.assert_array_equal(read_eyelid(left, 40), np.load(left))
    model = write_model(tmp_path / "generic_model.pkl", random_head(50, 40))
    with pytest.raises(WrongModelFile, match=r"l_eyelid\.npy .* 40×3 instead of 50×3"):
        Flame.load(model, eyelids=(left, right))
