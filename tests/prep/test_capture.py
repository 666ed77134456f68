"""Multi-camera recordings: both of NeRSemble's layouts and the plain one, whole and damaged."""

import json
import shutil
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from fitting.studio.nersemble import DEPTH_UNIT, Release, View, begin_sequence, frame_numbers, write_camera
from fitting.studio.rig import SERIALS, sixteen
from manifests.stage import Unreadable
from prep.capture import find_captures, open_capture
from prep.write import write_take

W, H, FRAMES = 66, 96, 3
RIG = sixteen()
SOUND = np.zeros(4800, np.float32)


def grey(camera: int, frame: int) -> int:
    return 60 + 6 * camera + 10 * frame


def nersemble(folder: Path, release: Release) -> Path:
    numbers = frame_numbers(0.13)
    home = begin_sequence(folder, 17, "SEN-01-test", RIG, SOUND, 48_000, release)
    for camera in range(16):
        views = []
        for frame in range(len(numbers)):
            depth = np.zeros((H, W), np.float32)
            depth[20:60, 10:40] = 1.0
            views.append(View(np.full((H, W, 3), grey(camera, frame), np.uint8), (255 * (depth > 0)).astype(np.uint8), depth))
        write_camera(home, "SEN-01-test", RIG, camera, numbers, iter(views), np.zeros((H, W, 3), np.uint8), release)
    return home / "sequences" / "SEN-01-test"


def plain(folder: Path, **more: object) -> Path:
    """Three cameras: two with stills, one with a video."""
    folder.mkdir(parents=True)
    camera = {"K": [[80, 0, W / 2], [0, 80, H / 2], [0, 0, 1]], "R": np.eye(3).tolist(), "t": [0, 0, 1]}
    cameras = {name: dict(camera) for name in ("left", "middle", "right")}
    (folder / "cameras.json").write_text(json.dumps({"width": W, "height": H, "fps": 25, "cameras": cameras, **more}))
    for index, name in enumerate(("left", "middle")):
        (folder / name).mkdir()
        for frame in range(FRAMES):
            cv2.imwrite(str(folder / name / f"{frame:03d}.png"), np.full((H, W, 3), grey(index, frame), np.uint8))
    pictures = [np.full((H, W, 3), grey(2, frame), np.uint8) for frame in range(FRAMES)]
    write_take(folder / "right.mp4", pictures, [Fraction(frame, 25) for frame in range(FRAMES)])
    return folder


@pytest.fixture(scope="module")
def v1(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nersemble(tmp_path_factory.mktemp("v1"), "v1")


@pytest.fixture(scope="module")
def v2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nersemble(tmp_path_factory.mktemp("v2"), "v2")


def test_version_1_gives_true_colours_alpha_and_depth_at_true_times(v1: Path) -> None:
    capture = open_capture(v1)
    assert (capture.layout, capture.serials) == ("nersemble-v1", SERIALS)
    assert capture.times_us.tolist() == [0, 41096, 82192]
    assert capture.sound == v1 / "audio.wav"
    for frame, moment in zip((0, 2), capture.moments([0, 2]), strict=True):
        assert moment.present.all()
        for camera in range(16):
            assert np.abs(moment.pictures[camera].astype(int) - grey(camera, frame)).max() <= 1
        assert moment.alpha is not None
        assert (moment.alpha[:, 0, 0].max(), moment.alpha[:, 30, 30].min()) == (0, 255)
        assert moment.depth is not None
        assert (moment.depth[:, 30, 30] - 1.0) * DEPTH_UNIT == pytest.approx(1.0, abs=DEPTH_UNIT)


def test_version_2_gives_true_colours_at_true_times(v2: Path) -> None:
    capture = open_capture(v2)
    assert capture.layout == "nersemble-v2"
    assert capture.times_us.tolist() == pytest.approx([0, 41096, 82192], abs=1)
    for frame, moment in enumerate(capture.moments(range(FRAMES))):
        assert moment.alpha is None
        assert moment.depth is None
        for camera in range(16):
            assert np.abs(moment.pictures[camera].astype(int) - grey(camera, frame)).max() <= 4


def test_pictures_come_in_the_size_that_is_asked_for(v1: Path) -> None:
    moment = next(open_capture(v1).moments([1], size=(33, 48)))
    assert moment.pictures.shape == (16, 48, 33, 3)
    assert moment.depth is not None
    assert moment.depth.shape == (16, 48, 33)
    assert set(np.unique(moment.depth)) == {0, 32768}


def test_the_plain_layout_may_mix_stills_and_videos(tmp_path: Path) -> None:
    capture = open_capture(plain(tmp_path / "mine"))
    assert (capture.layout, capture.serials) == ("plain", ("left", "middle", "right"))
    assert capture.times_us.tolist() == [0, 40000, 80000]
    for frame, moment in enumerate(capture.moments(range(FRAMES))):
        for camera in range(3):
            assert np.abs(moment.pictures[camera].astype(int) - grey(camera, frame)).max() <= 3


def test_a_still_that_is_missing_leaves_a_gap_in_its_camera_alone(tmp_path: Path) -> None:
    folder = plain(tmp_path / "mine")
    (folder / "left" / "001.png").unlink()
    capture = open_capture(folder)
    assert capture.present(range(FRAMES))[:, 0].tolist() == [True, False, True]
    moments = list(capture.moments(range(FRAMES)))
    assert [bool(moment.present[0]) for moment in moments] == [True, False, True]
    assert np.abs(moments[2].pictures[0].astype(int) - grey(0, 2)).max() <= 3


def test_stills_that_are_named_otherwise_in_each_folder_are_refused(tmp_path: Path) -> None:
    folder = plain(tmp_path / "mine")
    for still in (folder / "left").iterdir():
        still.rename(still.with_name(f"left_{still.name}"))
    with pytest.raises(Unreadable, match="name them alike"):
        open_capture(folder).present([0])


def add_masks(folder: Path, camera: str, count: int = FRAMES) -> None:
    """White from column 10 * frame + 10 on."""
    (folder / f"{camera}.masks").mkdir()
    for frame in range(count):
        mask = np.zeros((H, W), np.uint8)
        mask[:, 10 * frame + 10 :] = 255
        cv2.imwrite(str(folder / f"{camera}.masks" / f"{frame:03d}.png"), mask)


def test_the_plain_layout_may_have_masks_beside_stills_and_videos(tmp_path: Path) -> None:
    folder = plain(tmp_path / "mine")
    assert next(open_capture(folder).moments([0])).alpha is None
    add_masks(folder, "left")
    add_masks(folder, "right")
    for frame, moment in zip((0, 2), open_capture(folder).moments([0, 2]), strict=True):
        assert moment.alpha is not None
        for camera in (0, 2):
            assert (moment.alpha[camera] == 255).any(axis=0).argmax() == 10 * frame + 10
            assert not moment.alpha[camera, :, : 10 * frame + 10].any()
        assert (moment.alpha[1] == 255).all(), "a camera without masks is wanted whole"


def test_masks_are_part_of_what_the_capture_is(tmp_path: Path) -> None:
    folder = plain(tmp_path / "mine")
    before = open_capture(folder).digest()
    add_masks(folder, "left")
    assert open_capture(folder).digest() != before


@pytest.mark.parametrize("camera", ["left", "right"])
def test_masks_that_are_not_as_many_as_the_pictures_are_refused(camera: str, tmp_path: Path) -> None:
    folder = plain(tmp_path / "mine")
    add_masks(folder, camera, FRAMES - 1)
    with pytest.raises(Unreadable, match=rf"{camera}\.masks has 2 masks for 3 pictures"):
        next(open_capture(folder).moments([0]))


def test_a_camera_without_an_alpha_map_is_wanted_whole(v1: Path, tmp_path: Path) -> None:
    copy = tmp_path / "017"
    shutil.copytree(v1.parents[1], copy)
    (copy / "sequences" / "SEN-01-test" / "frame_00000" / "alpha_map-73fps" / f"cam_{SERIALS[4]}.png").unlink()
    (moment,) = open_capture(copy / "sequences" / "SEN-01-test").moments([0])
    assert moment.alpha is not None
    assert [bool((alpha == 255).all()) for alpha in moment.alpha] == [camera == 4 for camera in range(16)]


def test_a_bent_lens_is_made_straight(tmp_path: Path) -> None:
    folder = plain(tmp_path / "mine")
    content = json.loads((folder / "cameras.json").read_text())
    content["cameras"]["left"]["distortion"] = [-0.3, 0.0, 0.0, 0.0]
    (folder / "cameras.json").write_text(json.dumps(content))
    checks = np.kron(np.indices((12, 12)).sum(axis=0) % 2 * 200, np.ones((8, 8)))[:H, :W].astype(np.uint8)
    cv2.imwrite(str(folder / "left" / "000.png"), checks)
    seen = next(open_capture(folder).moments([0])).pictures[0, ..., 0]
    middle = np.s_[H // 2 - 6 : H // 2 + 6, W // 2 - 6 : W // 2 + 6]
    assert np.abs(seen[middle].astype(int) - checks[middle]).mean() < 25
    assert np.abs(seen.astype(int) - checks).mean() > 25


def test_a_camera_without_a_picture_shows_black_and_says_so(v1: Path, v2: Path, tmp_path: Path) -> None:
    copy = tmp_path / "v1" / "017"
    shutil.copytree(v1.parents[1], copy)
    (copy / "sequences" / "SEN-01-test" / "frame_00003" / "images-2x-73fps" / f"cam_{SERIALS[4]}.png").unlink()
    moments = list(open_capture(copy / "sequences" / "SEN-01-test").moments(range(FRAMES)))
    assert [moment.present.sum() for moment in moments] == [16, 15, 16]
    assert not moments[1].pictures[4].any()
    copy = tmp_path / "v2" / "017"
    shutil.copytree(v2.parents[1], copy)
    (copy / "sequences" / "SEN-01-test" / "images" / f"cam_{SERIALS[0]}.mp4").unlink()
    moment = next(open_capture(copy / "sequences" / "SEN-01-test").moments([1]))
    assert moment.present.tolist() == [False] + 15 * [True]


def test_captures_are_found_in_a_tree(v1: Path, tmp_path: Path) -> None:
    shutil.copytree(v1.parents[1], tmp_path / "nersemble" / "017")
    (tmp_path / "nersemble" / "017" / "sequences" / "BACKGROUND").mkdir()
    plain(tmp_path / "own")
    assert find_captures(tmp_path) == [tmp_path / "nersemble" / "017" / "sequences" / "SEN-01-test", tmp_path / "own"]


@pytest.mark.parametrize("release", ["v1", "v2"])
def test_the_digest_is_that_of_the_content(release: Release, tmp_path: Path) -> None:
    one, other = nersemble(tmp_path / "a", release), nersemble(tmp_path / "b", release)
    assert open_capture(one).digest() == open_capture(other).digest()
    calibration = next(other.parents[1].rglob("camera_params.json"))
    calibration.write_text(calibration.read_text().replace("\n", " "))
    assert open_capture(one).digest() != open_capture(other).digest()


def damage(folder: Path, what: str) -> None:
    content = json.loads((folder / "cameras.json").read_text())
    match what:
        case "no JSON":
            (folder / "cameras.json").write_text("{")
            return
        case "no cameras":
            content["cameras"] = {}
        case "no size":
            del content["width"]
        case "K":
            content["cameras"]["left"]["K"] = [[1, 2], [3, 4]]
        case "pose":
            del content["cameras"]["left"]["R"]
        case "times":
            content["times_s"] = [0, 0, 1]
        case "picture":
            (folder / "left" / "000.png").write_bytes(b"\x89PNG and no more")
        case "no pictures":
            for picture in folder.rglob("*.png"):
                picture.unlink()
            (folder / "right.mp4").unlink()
    (folder / "cameras.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("no JSON", r"cameras\.json is no JSON"),
        ("no cameras", r"cameras\.json names no cameras"),
        ("no size", "does not say the width and height"),
        ("K", r"K of camera left has shape \(2, 2\) instead of \(3, 3\)"),
        ("pose", "camera left has no R of numbers"),
        ("times", "times_s is no list of ascending times"),
        ("picture", r"000\.png in .*left is no image that can be read"),
        ("no pictures", "it has no pictures"),
    ],
)
def test_damage_has_a_message_of_one_line(what: str, says: str, tmp_path: Path) -> None:
    folder = plain(tmp_path / "mine")
    damage(folder, what)
    with pytest.raises(Unreadable, match=says) as caught:
        list(open_capture(folder).moments(range(FRAMES)))
    assert "\n" not in str(caught.value)


def test_a_folder_of_something_else_is_no_capture(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match=r"is no capture: it has no cameras\.json"):
        open_capture(tmp_path)
