"""Captures with something wrong, as real ones have: each is done as far as it goes, or set aside with a reason that can be read.

All of them are built together with a good one, which nothing may disturb.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pytest
import soundfile

from fitting.studio.acting import Conditions
from fitting.studio.captures import record_captures
from fitting.studio.people import person
from fitting.studio.performance import perform
from fitting.studio.rig import SERIALS
from manifests.dataset import QuarantineEntry
from manifests.reader import Dataset
from manifests.source import SourceItem, SourceManifest
from prep.write import write_take
from tests.conftest import Headloom

SEQUENCE = "SEN-01-studio"
WIDTH, HEIGHT = 132, 192
RECIPE = """
format: headloom/recipe
name: faults
source: source.yaml
stages:
  capture: {}
  sound: {}
  denoise: {}
  landmarks: {}
  clouds: {points: 300, width: 64}
limits:
  camera_share: {min: 0.5}
  landmark_share: {min: 0.4}
families: [clips, media, audio, landmarks, cloud]
"""


def pictures(home: Path, serial: str = "*", frame: str = "*") -> list[Path]:
    return sorted((home / "sequences" / SEQUENCE).glob(f"frame_{frame}/images-2x-73fps/cam_{serial}.png"))


def frames(home: Path) -> list[Path]:
    return sorted((home / "sequences" / SEQUENCE).glob("frame_*"))


def video(home: Path, serial: str) -> Path:
    return home / "sequences" / SEQUENCE / "images" / f"cam_{serial}.mp4"


def audio(home: Path) -> Path:
    return home / "sequences" / SEQUENCE / "audio.wav"


def answers(home: Path) -> Path:
    return home / "sequences" / f"{SEQUENCE}.truth.npz"


def as_version_2(home: Path, to: Path) -> None:
    """The same pictures as videos."""
    sequence = to / "sequences" / SEQUENCE
    (sequence / "images").mkdir(parents=True)
    (to / "calibration").mkdir()
    shutil.copy(home / "camera_params.json", to / "calibration")
    shutil.copy(audio(home), sequence)
    shutil.copy(answers(home), answers(to))
    times = [Fraction(int(folder.name.removeprefix("frame_")), 73) for folder in frames(home)]
    for serial in SERIALS:
        write_take(video(to, serial), [cv2.imread(str(path))[..., ::-1] for path in pictures(home, serial)], times)


def overwrite(path: Path, **arrays: np.ndarray) -> None:
    held = dict(np.load(path))
    np.savez(path, **(held | arrays))


# --- what goes wrong


def black_cameras(home: Path) -> None:
    for serial in SERIALS[:3]:
        for path in pictures(home, serial):
            cv2.imwrite(str(path), np.zeros((HEIGHT, WIDTH, 3), np.uint8))


def missing_picture(home: Path) -> None:
    pictures(home, SERIALS[4])[2].unlink()


def damaged_picture(home: Path) -> None:
    path = pictures(home, SERIALS[4])[2]
    path.write_bytes(path.read_bytes()[:200])


def missing_frame(home: Path) -> None:
    shutil.rmtree(frames(home)[2])


def empty_first_frame(home: Path) -> None:
    for path in frames(home)[0].rglob("*.png"):
        path.unlink()


def few_landmarks(home: Path) -> None:
    visible = np.load(answers(home))["landmarks68_visible"].copy()
    visible[::2] = False
    overwrite(answers(home), landmarks68_visible=visible)


def person_leaves(home: Path) -> None:
    """From the middle on nobody is there: a wall, no depth, no landmarks."""
    wall = np.random.default_rng(0).integers(90, 110, (HEIGHT, WIDTH, 3), np.uint8)
    half = len(frames(home)) // 2
    for folder in frames(home)[half:]:
        for path in folder.glob("images-2x-73fps/*.png"):
            cv2.imwrite(str(path), wall)
        for path in folder.glob("alpha_map-73fps/*.png"):
            cv2.imwrite(str(path), np.zeros((HEIGHT, WIDTH), np.uint8))
        for path in folder.glob("colmap-73fps/*/*.png"):
            cv2.imwrite(str(path), np.zeros((HEIGHT, WIDTH), np.uint16))
    visible = np.load(answers(home))["landmarks68_visible"].copy()
    visible[:, half:] = False
    overwrite(answers(home), landmarks68_visible=visible)


def quiet_and_noisy(home: Path) -> None:
    """20 dB quieter, with noise 20 dB below that."""
    sound, rate = soundfile.read(audio(home))
    noise = 0.01 * sound.std() * np.random.default_rng(0).standard_normal(len(sound))
    soundfile.write(audio(home), 0.1 * sound + noise, rate, subtype="PCM_16")


def other_sound(home: Path) -> None:
    sound, rate = soundfile.read(audio(home))
    soundfile.write(audio(home), 0.5 * sound, rate, subtype="PCM_16")


def no_sound(home: Path) -> None:
    audio(home).unlink()


def camera_without_calibration(home: Path) -> None:
    path = next(home.rglob("camera_params.json"))
    content = json.loads(path.read_text())
    del content["world_2_cam"][SERIALS[6]]
    path.write_text(json.dumps(content))


def damaged_answers(home: Path) -> None:
    answers(home).write_bytes(answers(home).read_bytes()[:1000])


def short_video(home: Path) -> None:
    rng = np.random.default_rng(1)
    held = [rng.integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8) for _ in range(2)]
    write_take(video(home, SERIALS[2]), held, [Fraction(3 * number, 73) for number in range(2)])


def missing_video(home: Path) -> None:
    video(home, SERIALS[2]).unlink()


def truncated_video(home: Path) -> None:
    path = video(home, SERIALS[2])
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


FAULTS: dict[str, tuple[str, Callable[[Path], None]]] = {
    **{
        fault.__name__: ("v1", fault)
        for fault in (
            black_cameras,
            missing_picture,
            damaged_picture,
            missing_frame,
            empty_first_frame,
            few_landmarks,
            person_leaves,
            quiet_and_noisy,
            no_sound,
            camera_without_calibration,
            damaged_answers,
        )
    },
    **{fault.__name__: ("v2", fault) for fault in (short_video, missing_video, truncated_video)},
}


class Built(NamedTuple):
    """What became of the captures, by the name of what is wrong: ``good`` is the one with which nothing is, ``twin`` another that
    is called the same."""

    captures: Path
    items: dict[str, SourceItem]
    refused: dict[str, QuarantineEntry]
    clips: dict[str, dict[str, Any]]
    """Rows of the table of clips, with all that is held of them."""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, headloom: Headloom) -> Built:
    folder = tmp_path_factory.mktemp("faults")
    record_captures(folder / "v1", 1, 1, Conditions(seconds=0.2, size=(WIDTH, HEIGHT), seed=2), "v1", workers=1)
    # The first moments of a take are silent.
    spoken = perform(person(0, 2).speaker, 2.0, 2).sound[40_000:50_000]
    soundfile.write(audio(folder / "v1" / "000"), spoken, 48_000, subtype="PCM_16")
    as_version_2(folder / "v1" / "000", folder / "v2" / "000")
    for name, (release, harm) in {"good": ("v1", lambda home: None), **FAULTS}.items():
        shutil.copytree(folder / release / "000", folder / "captures" / name / "000")
        harm(folder / "captures" / name / "000")
    shutil.copytree(folder / "v1" / "000", folder / "others" / "good" / "000")
    other_sound(folder / "others" / "good" / "000")
    headloom("scan", str(folder / "captures"), str(folder / "others"), "--layout", "nersemble", "-o", str(folder / "source.yaml"))
    (folder / "faults.yaml").write_text(RECIPE)
    headloom("build", str(folder / "faults.yaml"), "--out", str(folder / "data"), "--workers", "1")
    items = SourceManifest.load(folder / "source.yaml").items(folder)
    names = {item.name: "twin" if item.root == "others" else item.uri.split("/")[0] for item in items}
    dataset = Dataset(folder / "data")
    refused = {names[entry.source_uri]: entry for entry in dataset.manifest.quarantine.read(folder / "data")}
    rows = enumerate(dataset.clips.to_pylist())
    clips = {names[clip["source_uri"]]: {**clip, **dataset.read(row)} for row, clip in rows}
    return Built(folder / "captures", {names[item.name]: item for item in items}, refused, clips)


def true_landmarks(built: Built, clip: dict[str, Any]) -> np.ndarray:
    """(T, 68, 3) where they are at the times that the clip's frames show."""
    held = np.load(answers(built.captures / "good" / "000"))
    return held["landmarks68"][np.abs(held["times"] - clip["frame_pts_us"][:, None] / 1e6).argmin(axis=1)]


DONE = ("good", "twin", "black_cameras", "missing_picture", "missing_frame", "empty_first_frame", "few_landmarks")
DONE += ("person_leaves", "quiet_and_noisy", "short_video", "missing_video")

REFUSED = {
    "damaged_picture": ("clouds", "unreadable", f"cam_{SERIALS[4]}.png in .* is no image that can be read"),
    "no_sound": ("sound", "the take has no sound", ""),
    "camera_without_calibration": ("landmarks", "unreadable", r"SEN-01-studio\.truth\.npz has .* not fit the 15 cameras"),
    "damaged_answers": ("landmarks", "unreadable", r"SEN-01-studio\.truth\.npz cannot be read"),
    "truncated_video": ("scan", "unreadable", f"cam_{SERIALS[2]}.mp4: the file has no index"),
}


def test_every_capture_is_done_or_set_aside(built: Built) -> None:
    assert sorted(built.clips) == sorted(DONE)
    assert sorted(built.refused) == sorted(REFUSED)
    assert built.items.keys() == built.clips.keys() | built.refused.keys()


@pytest.mark.parametrize("fault", REFUSED)
def test_the_reason_can_be_read(built: Built, fault: str) -> None:
    entry = built.refused[fault]
    stage, reason, message = REFUSED[fault]
    assert (entry.stage, entry.reason) == (stage, reason)
    assert re.search(message, entry.message)


@pytest.mark.parametrize("fault", DONE)
def test_what_is_done_is_right(built: Built, fault: str) -> None:
    """Landmarks that count as seen lie where they truly are at the time of the frame; so do the clouds."""
    clip = built.clips[fault]
    valid = clip["landmarks3d_valid"].astype(bool)
    error = np.linalg.norm(clip["landmarks3d"] - true_landmarks(built, clip), axis=-1)
    assert error[valid].max() < 0.0005
    points, ends = clip["cloud_points"], np.cumsum(clip["cloud_counts"])
    for frame, end in enumerate(ends):
        middle = true_landmarks(built, clip)[frame].mean(axis=0)
        cloud = points[end - clip["cloud_counts"][frame] : end]
        assert len(cloud) == 0 or np.linalg.norm(np.median(cloud, axis=0) - middle) < 0.15


def test_the_good_capture_is_whole(built: Built) -> None:
    clip = built.clips["good"]
    assert (clip["n_frames"], clip["n_cameras"], clip["camera_share"], clip["landmark_share"]) == (4, 16, 1.0, 1.0)
    assert (clip["cloud_counts"] == 300).all()


def test_shares_tell_what_is_missing(built: Built) -> None:
    shares = {name: (clip["n_cameras"], round(clip["camera_share"] * 64)) for name, clip in built.clips.items()}
    assert shares["missing_picture"] == (16, 63)
    assert shares["short_video"] == (16, 62)
    assert shares["missing_video"] == (15, 60)
    assert built.clips["few_landmarks"]["landmark_share"] < 1.0


def test_a_frame_that_no_camera_has_is_replaced_by_its_neighbour(built: Built) -> None:
    whole, gap = (built.clips[name]["frame_pts_us"].tolist() for name in ("good", "missing_frame"))
    lost = set(whole) - set(gap)
    assert len(lost) == 1
    assert len(gap) == 4
    late = built.clips["empty_first_frame"]
    assert late["start_us"] == whole[1]
    assert late["frame_number"][0] == 1


def test_where_the_person_is_gone_nothing_is_claimed(built: Built) -> None:
    clip = built.clips["person_leaves"]
    here = clip["frame_pts_us"] < 70_000
    assert 0 < here.sum() < clip["n_frames"]
    assert clip["landmarks3d_valid"].any(axis=1).tolist() == here.tolist()
    assert (clip["cloud_counts"] > 0).tolist() == here.tolist()
    assert clip["cloud_share"] == pytest.approx(here.mean())


def test_quiet_sound_is_measured_and_brought_back(built: Built) -> None:
    good, quiet = built.clips["good"], built.clips["quiet_and_noisy"]
    assert good["loudness_dbfs"] - quiet["loudness_dbfs"] == pytest.approx(20, abs=0.5)
    clean, wanted = quiet["wave_clean"].astype(float), good["wave"].astype(float)
    assert np.corrcoef(clean, wanted)[0, 1] > 0.9
    assert 20 * np.log10(clean.std() / wanted.std()) > -6


def test_captures_of_the_same_name_are_kept_apart(built: Built) -> None:
    one, other = built.clips["good"], built.clips["twin"]
    assert one["clip_id"] != other["clip_id"]
    assert one["person"] == other["person"] == "000"
    assert one["source_uri"] != other["source_uri"]
    np.testing.assert_array_equal(one["landmarks3d"], other["landmarks3d"])


def test_a_capture_whose_annotations_were_changed_is_another(built: Built) -> None:
    """What a stage reads must be in its key, or the old result would be kept."""
    digests = {name: item.sha256 for name, item in built.items.items() if name in ("good", "few_landmarks", "damaged_answers")}
    assert len(set(digests.values())) == 3
