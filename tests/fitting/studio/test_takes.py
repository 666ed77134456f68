"""Takes of the studio: what is recorded is what the answers beside it say."""

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

from fitting.cameras import Camera
from fitting.studio.acting import Conditions
from fitting.studio.family import HeadFamily
from fitting.studio.people import PICTURED
from fitting.studio.takes import record_takes
from fitting.studio.truth import LABELS, MAPS, TRUTH
from manifests.source import STAND_IN

SHORT = Conditions(seconds=0.6, size=(128, 96), seed=3)


@pytest.fixture(scope="module")
def takes(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return record_takes(tmp_path_factory.mktemp("studio"), takes=2, people=2, conditions=SHORT, workers=2)


def answers(take: Path) -> Mapping[str, Any]:
    return dict(np.load(take.with_suffix(".truth.npz")))


def maps(take: Path) -> Mapping[str, Any]:
    return dict(np.load(take.with_suffix(".maps.npz")))


def pictures(take: Path) -> np.ndarray:
    with av.open(str(take)) as container:
        frames = container.decode(video=0)
        return np.stack([frame.reformat(format="rgb24", src_colorspace="ITU709").to_ndarray() for frame in frames])


def test_each_take_has_its_answers_and_maps_beside_it(takes: list[Path]) -> None:
    folder = takes[0].parents[1]
    assert [path.relative_to(folder).as_posix() for path in takes] == ["person000/take00.mp4", "person001/take01.mp4"]
    for take in takes:
        assert set(answers(take)) == set(TRUTH)
        assert set(maps(take)) == set(MAPS)


@pytest.mark.parametrize(("number", "rate"), [(0, Fraction(25)), (1, Fraction(30000, 1001))])
def test_answers_are_for_the_frames_of_the_video(takes: list[Path], number: int, rate: Fraction) -> None:
    with av.open(str(takes[number])) as container:
        assert container.metadata["comment"] == STAND_IN
        assert container.streams.video[0].average_rate == rate
        assert (container.streams.video[0].width, container.streams.video[0].height) == SHORT.size
        times = [frame.time for frame in container.decode(video=0)]
    np.testing.assert_allclose(answers(takes[number])["times"], times, atol=1e-4)


def test_the_sound_lasts_as_long_as_the_take(takes: list[Path]) -> None:
    with av.open(str(takes[0])) as container:
        samples = sum(frame.samples for frame in container.decode(audio=0))
    assert samples / 48_000 == pytest.approx(SHORT.seconds, abs=0.03)
    assert len(answers(takes[0])["sound_clean"]) == SHORT.seconds * 48_000
    ends = answers(takes[0])["phoneme_times"]
    assert (ends[0, 0], ends[-1, 1]) == (0, pytest.approx(SHORT.seconds))
    np.testing.assert_allclose(ends[1:, 0], ends[:-1, 1])


def test_landmarks_are_where_the_camera_sees_them(takes: list[Path]) -> None:
    known, seen = answers(takes[0]), maps(takes[0])
    camera = Camera(torch.from_numpy(known["intrinsics"][0]), torch.from_numpy(known["world_to_camera"][0]), *SHORT.size)
    pixels, far = camera.project(torch.from_numpy(known["landmarks68"]))
    np.testing.assert_allclose(pixels, known["landmarks68_image"][0], atol=1e-9)
    visible = known["landmarks68_visible"][0]
    assert visible[:, 30].all()
    frame, point = np.nonzero(visible)
    column, row = pixels.numpy()[frame, point].astype(int).T
    depth = (seen["depth"][frame, row, column].astype(float) - 1) / 32767
    on_head = seen["depth"][frame, row, column] > 0
    assert on_head.mean() > 0.9
    # What is seen at a landmark is the landmark, but for the slope of the face within a pixel of some millimetres.
    assert np.median(np.abs(depth - far.numpy()[frame, point])[on_head]) < 0.0015
    np.testing.assert_allclose(
        known["landmarks68"], HeadFamily(PICTURED).landmarks(torch.from_numpy(known["vertices"])).double(), atol=1e-7
    )


def test_pictures_show_the_face_where_its_labels_are(takes: list[Path]) -> None:
    """Skin is nearly all of one hue, whatever the light: hue tells whether picture and labels lie on each other."""
    shown, labels = pictures(takes[0]).astype(float), maps(takes[0])["labels"]
    tint = shown[..., 0] / shown.sum(axis=-1)
    skin, behind = labels == LABELS.index("skin"), labels == LABELS.index("background")
    assert skin.mean() > 0.1
    limit = (np.median(tint[skin]) + np.median(tint[behind])) / 2
    right = np.concatenate([tint[skin] > limit, tint[behind] < limit])
    assert right.mean() > 0.9
    shifted = np.roll(labels, 12, axis=2) == LABELS.index("skin")
    assert tint[skin].std() < tint[shifted].std()


def test_the_face_is_that_of_the_codes(takes: list[Path]) -> None:
    known = answers(takes[1])
    assert known["person"] == 1
    np.testing.assert_allclose(known["identity"], HeadFamily(PICTURED).people(2, SHORT.seed)[1])
    flame = HeadFamily("large").flame(torch.float64)
    posed = flame(
        torch.from_numpy(known["identity"]),
        torch.from_numpy(known["flame_expression"]),
        rotation=torch.from_numpy(known["head"]),
        neck=torch.from_numpy(known["neck"]),
        jaw=torch.from_numpy(known["jaw"]),
        eyes=torch.from_numpy(np.tile(known["gaze"], 2)),
        translation=torch.from_numpy(known["translation"]),
    )
    np.testing.assert_allclose(posed.vertices, known["vertices"], atol=1e-6)


def test_the_bytes_are_the_same_for_any_number_of_processes(takes: list[Path], tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    again = record_takes(tmp_path, takes=2, people=2, conditions=SHORT, workers=1, on_progress=lambda *done: told.append(done))
    for one, other in zip(takes, again, strict=True):
        for suffix in (".mp4", ".truth.npz", ".maps.npz"):
            assert one.with_suffix(suffix).read_bytes() == other.with_suffix(suffix).read_bytes(), suffix
    assert told == [(1, 2), (2, 2)]


def test_what_cannot_be_recorded_is_refused() -> None:
    with pytest.raises(ValueError, match=r"0\.1 s is too short"):
        Conditions(seconds=0.1, size=(128, 128))
    with pytest.raises(ValueError, match="127x128 cannot be encoded: give even sizes"):
        Conditions(seconds=1, size=(127, 128))
    with pytest.raises(ValueError, match=r"gain of 1\.5"):
        Conditions(seconds=1, size=(128, 128), gain=1.5)


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "person000").write_text("in the way")
    with pytest.raises(OSError, match=r"person000/take00\.mp4: recording went wrong"):
        record_takes(tmp_path, takes=1, people=1, conditions=SHORT)
