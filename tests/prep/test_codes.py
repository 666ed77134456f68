"""Folders of NPHM codes in FaceTalk's layout: what is read of them, and what is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from manifests.stage import Done, Outcome, Rejected, Take, Unreadable
from prep.codes import EXPRESSIONS, IDENTITY, LAYOUT, ORIGIN, SOUND, Codes, CodesIdentity, find_codes, open_codes
from prep.sound import Sound

FRAMES = 12
RATE = 16_000


def write_folder(folder: Path, frames: int = FRAMES, rate: int = RATE, seconds: float | None = None, **origin: object) -> Path:
    """A folder as FaceTalk's authors announced it, of random codes and a tone; ``origin`` is its ``headloom.json``, if any."""
    rng = np.random.default_rng(0)
    (folder / EXPRESSIONS).mkdir(parents=True)
    for frame in range(frames):
        np.savez(folder / EXPRESSIONS / f"frame_{frame:05d}.npz", expression=rng.standard_normal(200).astype(np.float32))
    np.savez(folder / IDENTITY, identity=rng.standard_normal(1344).astype(np.float32))
    (folder / SOUND).parent.mkdir()
    length = round(rate * (frames / 24 if seconds is None else seconds))
    soundfile.write(folder / SOUND, 0.3 * np.sin(np.arange(length) * 2 * np.pi * 220 / rate), rate, subtype="PCM_16")
    if origin:
        (folder / ORIGIN).write_text(json.dumps(origin))
    return folder


def cut(folder: Path, **parameters: float) -> Outcome:
    return Codes(**parameters).run(take(folder))


def take(folder: Path) -> Take:
    return Take("0" * 64, str(folder), str(folder / SOUND), 0.5, LAYOUT)


def clip_of(outcome: Outcome) -> dict:
    assert isinstance(outcome, Done), outcome
    assert outcome.clips is not None
    (clip,) = outcome.clips
    return dict(clip)


def sound_of(folder: Path) -> np.ndarray:
    clip = clip_of(cut(folder))
    heard = Sound().run(take(folder), *(clip[name] for name in Sound.reads()[1:]))
    assert isinstance(heard, Done)
    return np.asarray(heard.columns["wave"])


def codes_in(folder: Path) -> np.ndarray:
    return np.stack([np.load(path)["expression"] for path in sorted((folder / EXPRESSIONS).iterdir())])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "017_SEN-01")


def test_a_folder_is_a_clip_of_all_its_frames(folder: Path) -> None:
    clip = clip_of(cut(folder))
    assert (clip["n_frames"], clip["fps_num"], clip["fps_den"], clip["start_us"]) == (FRAMES, 24, 1, 0)
    np.testing.assert_array_equal(clip["nphm_expression"], codes_in(folder))
    outcome = CodesIdentity().run(take(folder))
    assert isinstance(outcome, Done)
    np.testing.assert_array_equal(outcome.columns["nphm_identity"], np.load(folder / IDENTITY)["identity"])


def test_the_sound_of_a_clip_is_that_of_the_file_and_as_long_as_the_frames(folder: Path) -> None:
    wave, _ = soundfile.read(folder / SOUND, dtype="int16")
    np.testing.assert_array_equal(sound_of(folder), wave)


def test_sound_at_another_rate_is_resampled(tmp_path: Path) -> None:
    other = write_folder(tmp_path / "a_1", rate=48_000)
    wave, known = sound_of(other), sound_of(write_folder(tmp_path / "a_2"))
    assert len(wave) == len(known) == FRAMES * RATE // 24
    inside = slice(200, -200)
    assert np.abs(wave[inside].astype(int) - known[inside]).max() < 20


def test_the_rate_is_that_of_the_folder_or_else_the_stages(tmp_path: Path) -> None:
    said = write_folder(tmp_path / "a_1", fps=[30_000, 1001], seconds=1.0)
    clip = clip_of(cut(said, fps_num=25))
    assert (clip["fps_num"], clip["fps_den"]) == (30_000, 1001)
    silent_about_it = write_folder(tmp_path / "a_2", seconds=1.0)
    assert clip_of(cut(silent_about_it, fps_num=25))["fps_num"] == 25


@pytest.mark.parametrize(("seconds", "frames"), [(0.5, 12), (0.49, 11), (0.4, 9), (0.9, 12)])
def test_frames_and_sound_are_cut_to_the_same_length(seconds: float, frames: int, tmp_path: Path) -> None:
    assert clip_of(cut(write_folder(tmp_path / "a_1", seconds=seconds)))["n_frames"] == frames


def test_the_person_is_the_name_before_the_first_underscore_unless_headloom_says_it(tmp_path: Path) -> None:
    assert open_codes(write_folder(tmp_path / "017_SEN-01_x")).person == "017"
    assert open_codes(write_folder(tmp_path / "018_SEN", person="b_c", stand_in=True)).person == "b_c"
    assert open_codes(tmp_path / "018_SEN").stand_in
    assert not open_codes(tmp_path / "017_SEN-01_x").stand_in


def test_a_file_with_one_array_of_200_numbers_is_a_code_whatever_its_name(folder: Path) -> None:
    before = codes_in(folder)
    for path, code in zip(sorted((folder / EXPRESSIONS).iterdir()), before, strict=True):
        np.savez_compressed(path, code[None].astype(np.float64))
    np.testing.assert_array_equal(clip_of(cut(folder))["nphm_expression"], before)


def test_frames_of_others_may_be_counted_from_one(folder: Path) -> None:
    before = codes_in(folder)
    for frame in reversed(range(FRAMES)):
        (folder / EXPRESSIONS / f"frame_{frame:05d}.npz").rename(folder / EXPRESSIONS / f"frame_{frame + 1:05d}.npz")
    np.testing.assert_array_equal(clip_of(cut(folder))["nphm_expression"], before)


def replaced(frame: int, **arrays: object) -> Callable[[Path], None]:
    return lambda folder: np.savez(folder / EXPRESSIONS / f"frame_{frame:05d}.npz", **arrays)


def removed(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def sounding(wave: np.ndarray) -> Callable[[Path], None]:
    return lambda folder: soundfile.write(folder / SOUND, wave, RATE, subtype="PCM_16")


@pytest.mark.parametrize(
    ("damage", "reason", "says"),
    [
        (removed(f"{EXPRESSIONS}/frame_00004.npz"), "frames are missing", "lacks 1 of 12 frames, the first is number 4"),
        (replaced(3, expression=np.zeros(199)), "codes of another kind", "frame_00003.npz holds float64 (199,); wanted 200"),
        (replaced(3, exp=np.zeros(200), pose=np.zeros(6)), "codes of another kind", "holds exp, pose; wanted expression"),
        (replaced(3, expression=np.full(200, np.nan)), "codes are not finite", "frame_00003.npz holds NaN"),
        (replaced(3, expression=np.array(["a"] * 200)), "codes of another kind", "wanted 200 numbers"),
        (removed(SOUND), "the take has no sound", "there is no audio/cleaned_audio.wav"),
        (sounding(np.zeros(8000)), "the sound is silent", ""),
        (sounding(np.full(4000, 0.1)), "the sound ends before the frames", ""),
    ],
)
def test_what_cannot_be_trained_on_is_rejected_with_the_reason(
    damage: Callable[[Path], None], reason: str, says: str, folder: Path
) -> None:
    damage(folder)
    outcome = cut(folder)
    assert isinstance(outcome, Rejected)
    assert outcome.reason == reason
    assert says in outcome.message


def test_how_much_sound_lacks_is_the_score(tmp_path: Path) -> None:
    outcome = cut(write_folder(tmp_path / "a_1", seconds=0.25))
    assert isinstance(outcome, Rejected)
    assert outcome.score == pytest.approx(0.25)
    assert outcome.threshold == 0.2


def test_frames_that_headloom_wrote_are_counted_from_zero_to_the_number_it_says(tmp_path: Path) -> None:
    for lost in (0, FRAMES - 1):
        folder = write_folder(tmp_path / f"a_{lost}", frames=FRAMES, fps=[24, 1])
        (folder / ORIGIN).write_text(json.dumps({"fps": [24, 1], "frames": FRAMES}))
        (folder / EXPRESSIONS / f"frame_{lost:05d}.npz").unlink()
        outcome = cut(folder)
        assert isinstance(outcome, Rejected)
        assert f"the first is number {lost}" in outcome.message


def test_a_damaged_archive_is_unreadable_and_named(folder: Path) -> None:
    path = folder / EXPRESSIONS / "frame_00005.npz"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(Unreadable, match=r"frame_00005\.npz"):
        cut(folder)


@pytest.mark.parametrize("text", ["{", "[]", '{"fps": 24}', '{"fps": [0, 1]}'])
def test_a_wrong_headloom_json_is_unreadable(text: str, folder: Path) -> None:
    (folder / ORIGIN).write_text(text)
    with pytest.raises(Unreadable, match=r"headloom\.json"):
        cut(folder)


def test_a_folder_without_an_identity_is_rejected_by_the_stage_that_reads_it(folder: Path) -> None:
    (folder / IDENTITY).unlink()
    assert isinstance(cut(folder), Done)
    outcome = CodesIdentity().run(take(folder))
    assert isinstance(outcome, Rejected)
    assert outcome.reason == "no identity code"


def test_other_takes_are_no_folders_of_codes(folder: Path) -> None:
    assert Codes().run(Take("0" * 64, str(folder), str(folder), 1.0, "plain")) == Rejected("no folder of codes")


def test_the_digest_is_of_what_is_read(folder: Path, tmp_path: Path) -> None:
    before = open_codes(folder).digest()
    (folder / "nphm_tracking" / "nphm_meshes").mkdir()
    (folder / "nphm_tracking" / "nphm_meshes" / "frame_00000.ply").write_text("ply")
    (folder / "truth.npz").write_bytes(b"")
    shutil.copytree(folder, tmp_path / "elsewhere")
    assert open_codes(folder).digest() == open_codes(tmp_path / "elsewhere").digest() == before
    np.savez(folder / EXPRESSIONS / "frame_00000.npz", expression=np.zeros(200))
    assert open_codes(folder).digest() != before


def test_hidden_and_unfinished_folders_are_not_found(tmp_path: Path) -> None:
    for name in ("b_1", "deep/down/a_1", ".trash/c_1", "d_1.headloom-unfinished"):
        write_folder(tmp_path / name)
    assert [path.name for path in find_codes(tmp_path)] == ["b_1", "a_1"]
