"""People of the studio as folders of codes: the same truth as recorded captures have, without a picture."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from fitting.studio.acting import Conditions, act
from fitting.studio.codes_layout import FPS, TRUTH, record_folder
from fitting.studio.family import HeadFamily
from fitting.studio.nphm_codes import nphm_expression, nphm_identity
from fitting.studio.people import PICTURED
from prep.codes import EXPRESSIONS, IDENTITY, ORIGIN, SOUND, find_codes, open_codes

CONDITIONS = Conditions(1.0, (256, 256), seed=3)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two takes of person 0 and one of person 1, as ``record_codes`` names and numbers them."""
    home = tmp_path_factory.mktemp("codes")
    paths = [home / name for name in ("000_SEN-01-studio", "001_SEN-01-studio", "000_SEN-02-studio")]
    for take, path in enumerate(paths):
        record_folder(path, take % 2, take, CONDITIONS)
    return paths


def test_takes_of_a_person_have_one_identity(folders: list[Path]) -> None:
    assert find_codes(folders[0].parent) == sorted(folders)
    identities = [np.load(folder / IDENTITY)["identity"] for folder in folders]
    np.testing.assert_array_equal(identities[0], identities[2])
    assert np.abs(identities[0] - identities[1]).max() > 0.01


def test_codes_are_those_of_a_captures_truth(folders: list[Path]) -> None:
    acted = act(1, np.arange(24) / 24, CONDITIONS, take=1)
    codes = nphm_expression(acted.controls.expression, acted.controls.jaw).astype(np.float32)
    np.testing.assert_array_equal(open_codes(folders[1]).expressions(), codes)
    identity = nphm_identity(acted.person.identity).astype(np.float32)
    np.testing.assert_array_equal(open_codes(folders[1]).identity(), identity)


def test_the_true_opening_is_the_distance_of_the_inner_lips(folders: list[Path]) -> None:
    acted = act(1, np.arange(24) / 24, CONDITIONS, take=1)
    points = HeadFamily(PICTURED).landmarks(acted.vertices).double().numpy()
    with np.load(folders[1] / TRUTH) as truth:
        np.testing.assert_allclose(
            truth["mouth_opening_mm"], 1000 * np.linalg.norm(points[:, 62] - points[:, 66], axis=1), atol=1e-6
        )
        np.testing.assert_allclose(truth["times"], np.arange(24) / 24)
        assert np.ptp(truth["mouth_opening_mm"]) > 2


def test_sound_and_frames_are_equally_long(folders: list[Path]) -> None:
    wave, rate = soundfile.read(folders[0] / SOUND, dtype="int16")
    assert rate == 16_000
    assert len(wave) == 16_000
    assert np.abs(wave).max() > 1000
    assert len(list((folders[0] / EXPRESSIONS).iterdir())) == FPS


def test_every_folder_says_that_nobody_was_recorded(folders: list[Path]) -> None:
    for folder in folders:
        assert open_codes(folder).stand_in
        assert json.loads((folder / ORIGIN).read_text())["person"] == folder.name[:3]


def test_the_same_take_has_the_same_bytes_and_replaces_what_was_there(folders: list[Path], tmp_path: Path) -> None:
    again = tmp_path / folders[2].name
    again.mkdir()
    (again / "rubbish").write_text("")
    record_folder(again, 0, 2, CONDITIONS)
    names = {path.relative_to(again) for path in again.rglob("*") if path.is_file()}
    assert names == {path.relative_to(folders[2]) for path in folders[2].rglob("*") if path.is_file()}
    for name in names:
        assert (again / name).read_bytes() == (folders[2] / name).read_bytes()
