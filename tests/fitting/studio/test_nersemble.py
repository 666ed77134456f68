"""Recordings in NeRSemble's layouts: what a loader of the real ones would look for is where it looks."""

import json
from collections.abc import Iterator
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import soundfile
import torch

from fitting.space import nersemble_cameras
from fitting.studio.nersemble import DEPTH_UNIT, Release, View, begin_sequence, frame_numbers, write_camera, write_metadata
from fitting.studio.rig import SERIALS, sixteen
from prep.colour import affine, mix
from prep.video import Video

W, H = 56, 82
RIG = sixteen()
SOUND = np.sin(np.arange(4800) / 10).astype(np.float32) / 2


def views(camera: int, count: int) -> Iterator[View]:
    """Pictures whose brightness tells camera and frame."""
    for frame in range(count):
        picture = np.full((H, W, 3), 60 + 6 * camera + 10 * frame, np.uint8)
        depth = np.zeros((H, W), np.float32)
        depth[20:60, 10:40] = 1 + 0.01 * frame
        yield View(picture, (255 * (depth > 0)).astype(np.uint8), depth)


def write(folder: Path, release: Release) -> Path:
    background = np.full((H, W, 3), 90, np.uint8)
    numbers = frame_numbers(0.13)
    home = begin_sequence(folder, 17, "SEN-01-test", RIG, SOUND, 48_000, release)
    for camera in range(16):
        write_camera(home, "SEN-01-test", RIG, camera, numbers, views(camera, len(numbers)), background, release)
    return home


def test_every_third_frame_of_73_a_second_is_kept() -> None:
    assert list(frame_numbers(0.13)) == [0, 3, 6]
    assert len(frame_numbers(1.0)) == 25


def test_version_1_has_a_folder_for_each_frame(tmp_path: Path) -> None:
    home = write(tmp_path, "v1")
    assert home == tmp_path / "017"
    frames = sorted(path.name for path in (home / "sequences" / "SEN-01-test").glob("frame_*"))
    assert frames == ["frame_00000", "frame_00003", "frame_00006"]
    frame = home / "sequences" / "SEN-01-test" / "frame_00003"
    for index, serial in enumerate(SERIALS):
        depth = cv2.imread(str(frame / "colmap-73fps/depth_maps_compressed" / f"cam_{serial}.png"), cv2.IMREAD_UNCHANGED)
        assert depth.dtype == np.uint16
        assert depth[0, 0] == 0
        assert (depth[30, 30] - 1.0) * DEPTH_UNIT == pytest.approx(1.01, abs=DEPTH_UNIT)
        alpha = cv2.imread(str(frame / "alpha_map-73fps" / f"cam_{serial}.png"), cv2.IMREAD_UNCHANGED)
        assert (alpha[0, 0], alpha[30, 30]) == (0, 255)
        picture = cv2.imread(str(frame / "images-2x-73fps" / f"cam_{serial}.png"))[..., ::-1]
        correction = np.load(home / "annotations" / "SEN-01-test" / "color_correction" / f"{serial}.npy")
        assert correction.shape == (3, 4)
        true = 60 + 6 * index + 10
        assert np.abs(affine(picture, correction).astype(int) - true).max() <= 1
        assert np.abs(picture.astype(int) - true).max() > 1
    with (home / "camera_params.json").open() as file:
        check_cameras(json.load(file))


def test_version_2_has_a_video_for_each_camera_at_the_true_times(tmp_path: Path) -> None:
    home = write(tmp_path, "v2")
    with (home / "calibration" / "color_calibration.json").open() as file:
        to_true = json.load(file)
    assert list(to_true) == list(SERIALS)
    for index, serial in enumerate(SERIALS):
        shown = list(Video(str(home / "sequences" / "SEN-01-test" / "images" / f"cam_{serial}.mp4")))
        assert [picture.pts_us for picture in shown] == pytest.approx([0, 3e6 / 73, 6e6 / 73], abs=1)
        empty = cv2.imread(str(home / "sequences" / "BACKGROUND" / f"image_{serial}.jpg"))[..., ::-1]
        assert np.abs(mix(empty, np.array(to_true[serial])).astype(int) - 90).max() <= 3
        with av.open(str(home / "sequences" / "SEN-01-test" / "images" / f"cam_{serial}.mp4")) as container:
            second = list(container.decode(video=0))[1].reformat(format="rgb24", src_colorspace="ITU709").to_ndarray()
        assert np.abs(mix(second, np.array(to_true[serial])).astype(int) - (70 + 6 * index)).max() <= 4
    with (home / "calibration" / "camera_params.json").open() as file:
        check_cameras(json.load(file))


def check_cameras(calibration: dict) -> None:
    serials, cameras = nersemble_cameras(calibration)
    assert tuple(serials) == SERIALS
    torch.testing.assert_close(cameras.world_to_camera, RIG.cameras.world_to_camera)
    torch.testing.assert_close(cameras.intrinsics, RIG.cameras.intrinsics)
    assert (cameras.width, cameras.height) == (2200, 3208)


@pytest.mark.parametrize("release", ["v1", "v2"])
def test_sound_lies_beside_the_pictures(tmp_path: Path, release: Release) -> None:
    wave, rate = soundfile.read(write(tmp_path, release) / "sequences" / "SEN-01-test" / "audio.wav", dtype="float32")
    assert rate == 48_000
    np.testing.assert_allclose(wave, SOUND, atol=1e-4)


def test_the_tables_say_who_has_which_sequence(tmp_path: Path) -> None:
    write_metadata(tmp_path, {3: ["SEN-01", "EMO-1"], 12: ["SEN-01"]})
    assert (tmp_path / "metadata_participants.csv").read_text().split() == ["id", "003", "012"]
    assert (tmp_path / "metadata_sequences.csv").read_text().split() == ["id,EMO-1,SEN-01", "003,x,x", "012,,x"]
