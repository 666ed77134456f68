"""Captures of the studio: sixteen cameras around a person, as NeRSemble lays them out, with every answer."""

import json
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch

from fitting.space import nersemble_cameras
from fitting.studio.acting import Conditions
from fitting.studio.captures import record_captures
from fitting.studio.rig import SERIALS
from fitting.studio.truth import LABELS, MAPS, TRUTH
from prep.colour import affine, mix

SHORT = Conditions(seconds=0.2, size=(110, 160), seed=2)
FRAMES = 5
FRONTAL = SERIALS.index("222200037")


@pytest.fixture(scope="module")
def v2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("v2")
    record_captures(folder, takes=1, people=1, conditions=SHORT, workers=2)
    return folder


@pytest.fixture(scope="module")
def v1(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("v1")
    record_captures(folder, takes=1, people=1, conditions=SHORT, release="v1", workers=1)
    return folder


def answers(folder: Path, kind: str = "truth") -> dict:
    return dict(np.load(folder / "000" / "sequences" / f"SEN-01-studio.{kind}.npz"))


def test_answers_are_for_every_camera_and_every_true_time(v2: Path) -> None:
    known, seen = answers(v2), answers(v2, "maps")
    assert set(known) == set(TRUTH)
    assert set(seen) == set(MAPS)
    np.testing.assert_allclose(known["times"], 3 * np.arange(FRAMES) / 73)
    assert known["landmarks68_image"].shape == (16, FRAMES, 68, 2)
    assert seen["depth"].shape == (16, 160, 110)


def test_the_calibration_is_that_of_the_answers(v2: Path) -> None:
    known = answers(v2)
    calibration = json.loads((v2 / "000" / "calibration" / "camera_params.json").read_text())
    serials, cameras = nersemble_cameras(calibration)
    assert tuple(serials) == SERIALS
    sized = cameras.resize(*SHORT.size)
    np.testing.assert_allclose(sized.intrinsics, known["intrinsics"])
    np.testing.assert_allclose(cameras.world_to_camera, known["world_to_camera"])


def test_cameras_see_only_the_side_of_the_face_that_is_turned_to_them(v2: Path) -> None:
    visible = answers(v2)["landmarks68_visible"]
    assert visible[FRONTAL, :, [8, 30, 36, 45, 48, 54]].all()
    right_ear, left_ear = visible[:, :, 0].mean(axis=1), visible[:, :, 16].mean(axis=1)
    assert right_ear[0] == 1
    assert left_ear[0] == 0
    assert left_ear[15] == 1
    assert right_ear[15] == 0


def test_version_1_has_the_true_depth(v1: Path) -> None:
    seen = answers(v1, "maps")
    frame = v1 / "000" / "sequences" / "SEN-01-studio" / f"frame_{3 * (FRAMES // 2):05d}"
    for camera, serial in enumerate(SERIALS):
        depth = cv2.imread(str(frame / "colmap-73fps/depth_maps_compressed" / f"cam_{serial}.png"), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(depth, seen["depth"][camera])
    metres = (seen["depth"][seen["labels"] == LABELS.index("skin")].astype(float) - 1) / 32767
    assert 0.8 < metres.min() < metres.max() < 1.4


def test_both_releases_show_the_same_in_true_colours(v1: Path, v2: Path) -> None:
    home = v1 / "000"
    to_true = json.loads((v2 / "000" / "calibration" / "color_calibration.json").read_text())
    for camera in (0, FRONTAL, 15):
        serial = SERIALS[camera]
        correction = np.load(home / "annotations" / "SEN-01-studio" / "color_correction" / f"{serial}.npy")
        still = cv2.imread(str(home / "sequences" / "SEN-01-studio" / "frame_00006" / "images-2x-73fps" / f"cam_{serial}.png"))[
            ..., ::-1
        ]
        with av.open(str(v2 / "000" / "sequences" / "SEN-01-studio" / "images" / f"cam_{serial}.mp4")) as container:
            moving = list(container.decode(video=0))[2].reformat(format="rgb24", src_colorspace="ITU709").to_ndarray()
        skin = answers(v2, "maps")["labels"][camera] == LABELS.index("skin")
        one = affine(still, correction).astype(float)[skin]
        other = mix(moving, np.array(to_true[serial])).astype(float)[skin]
        np.testing.assert_allclose(one.mean(axis=0), other.mean(axis=0), atol=4)


def test_neighbouring_cameras_agree_about_the_surface(v2: Path) -> None:
    """A point of the face, seen at its depth by one camera, lies on the surface that the other one sees."""
    known, seen = answers(v2), answers(v2, "maps")
    _, cameras = nersemble_cameras(json.loads((v2 / "000" / "calibration" / "camera_params.json").read_text()))
    sized = cameras.resize(*SHORT.size)
    row, column = np.nonzero(seen["labels"][FRONTAL] == LABELS.index("skin"))
    depth = (seen["depth"][FRONTAL][row, column].astype(float) - 1) / 32767
    centres = torch.from_numpy(np.stack([column, row], axis=1) + 0.5)
    points = sized[FRONTAL].unproject(centres, torch.from_numpy(depth))
    pixels, far = sized[FRONTAL + 1].project(points)
    x, y = pixels.numpy().astype(int).T
    inside = (x >= 0) & (x < 110) & (y >= 0) & (y < 160)
    there = (seen["depth"][FRONTAL + 1][y[inside], x[inside]].astype(float) - 1) / 32767
    assert np.mean(np.abs(there - far.numpy()[inside]) < 0.004) > 0.8
    assert known["person"] == 0


def test_the_bytes_are_the_same_for_any_number_of_processes(v2: Path, tmp_path: Path) -> None:
    record_captures(tmp_path, takes=1, people=1, conditions=SHORT, workers=1)
    files = sorted(path.relative_to(v2) for path in v2.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    for file in files:
        assert (v2 / file).read_bytes() == (tmp_path / file).read_bytes(), file
