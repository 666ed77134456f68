"""Noise is mixed in at the ratio that is asked for, and the choice follows from the clip."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from pydantic import ValidationError

from manifests.columns import COLUMNS
from prep.noise import AddNoise, active_level, generated_noise, mix_at_snr
from prep.sound import to_int16


def speech(n_samples: int = 32000) -> np.ndarray:
    """Two bursts of tone with a long pause between."""
    wave = 0.2 * np.sin(2 * np.pi * 300 * np.arange(n_samples) / 16000)
    wave[n_samples // 4 : 3 * n_samples // 4] = 0
    return wave


def write_wav(path: Path, wave: np.ndarray, rate: int = 16000) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(to_int16(wave)[None], "s16", "mono")
        frame.sample_rate = rate
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def test_the_level_of_speech_leaves_pauses_out():
    assert active_level(speech()) == pytest.approx(0.2 / np.sqrt(2), rel=0.01)
    assert active_level(np.zeros(1000)) == 0
    assert active_level(np.zeros(0)) == 0


@pytest.mark.parametrize("snr_db", [-5, 6, 18, 30])
def test_the_ratio_is_the_one_asked_for(snr_db):
    wave = speech()
    added = mix_at_snr(wave, np.random.default_rng(0).normal(size=len(wave)), snr_db) - wave
    assert 20 * np.log10(active_level(wave) / added.std()) == pytest.approx(snr_db, abs=0.01)


def test_silence_stays_silence():
    assert not mix_at_snr(np.zeros(1000), np.ones(1000), 6).any()
    done = AddNoise().run(np.zeros(1000, np.int16), "clip")
    assert not done.columns["wave_noisy"].any()


def test_what_cannot_be_mixed_is_refused():
    with pytest.raises(ValueError, match="the noise is silent"):
        mix_at_snr(np.ones(10), np.zeros(10), 6)
    with pytest.raises(ValueError, match="do not mix"):
        mix_at_snr(np.ones(10), np.ones(11), 6)
    with pytest.raises(ValidationError, match="below"):
        AddNoise(snr_min_db=10, snr_max_db=3)
    assert mix_at_snr(np.zeros(0), np.zeros(0), 6).shape == (0,)


def test_ratios_go_from_6_to_30_in_steps_of_3():
    wave = to_int16(speech(1600))
    seen = {AddNoise().run(wave, f"clip {number}").columns["noise_snr_db"] for number in range(200)}
    assert seen == {6.0, 9.0, 12.0, 15.0, 18.0, 21.0, 24.0, 27.0, 30.0}


def test_the_choice_follows_from_clip_and_seed_alone():
    wave = to_int16(speech())
    first = AddNoise().run(wave, "a").columns
    np.random.seed(5)  # noqa: NPY002
    again = AddNoise().run(wave, "a").columns
    assert first["noise_snr_db"] == again["noise_snr_db"]
    assert np.array_equal(first["wave_noisy"], again["wave_noisy"])
    assert not np.array_equal(first["wave_noisy"], AddNoise().run(wave, "b").columns["wave_noisy"])
    assert not np.array_equal(first["wave_noisy"], AddNoise(seed=1).run(wave, "a").columns["wave_noisy"])


def test_the_choice_is_the_same_on_every_machine():
    """Written down once: another result for the same clip would be another dataset."""
    columns = AddNoise().run(to_int16(speech(1600)), "clip").columns
    assert columns["noise_snr_db"] == 9.0
    assert columns["wave_noisy"][:4] == pytest.approx([1215, 2546, 2945, 3193], abs=1)


@pytest.mark.parametrize(("colour", "slope_db"), [("white", 0.0), ("pink", -3.0)])
def test_generated_noise_has_its_colour(colour, slope_db):
    noise = generated_noise(1 << 17, colour, 3)
    power = np.abs(np.fft.rfft(noise)) ** 2
    octaves = [power[round(f * 8.192) : round(f * 16.384)].mean() for f in (100, 200, 400, 800, 1600, 3200)]
    assert np.diff(10 * np.log10(octaves)) == pytest.approx([slope_db] * 5, abs=0.5)
    assert noise.std() == pytest.approx(1, abs=0.02)


def test_noise_files_are_used_and_named(tmp_path):
    hum = write_wav(tmp_path / "hum.wav", 0.3 * np.sin(2 * np.pi * 1000 * np.arange(8000) / 48000), 48000)
    stage = AddNoise(noise_files=(hum,), snr_min_db=6, snr_max_db=6)
    assert stage.files() == (hum,)
    wave = speech()
    noise = stage.run(to_int16(wave), "clip").columns["wave_noisy"] / 32768 - wave
    pitch = np.argmax(np.abs(np.fft.rfft(noise))) * 16000 / len(noise)
    assert pitch == pytest.approx(1000, abs=10)
    assert 20 * np.log10(active_level(wave) / noise.std()) == pytest.approx(6, abs=0.1)


def test_several_files_are_all_drawn_from(tmp_path):
    files = tuple(write_wav(tmp_path / f"{hz}.wav", 0.3 * np.sin(hz * np.arange(8000) / 2546.5)) for hz in (500, 2000))
    stage = AddNoise(noise_files=files, snr_max_db=6)
    wave = speech(3200)
    loudest = set()
    for number in range(12):
        noise = stage.run(to_int16(wave), f"{number}").columns["wave_noisy"] / 32768 - wave
        loudest.add(round(np.argmax(np.abs(np.fft.rfft(noise))) * 5, -2))
    assert loudest == {500, 2000}


def test_a_recording_with_pauses_never_gives_silence(tmp_path):
    click = np.zeros(160_000)
    click[100_000:100_100] = 0.5
    stage = AddNoise(noise_files=(write_wav(tmp_path / "click.wav", click),))
    wave = to_int16(speech(1600))
    assert all((stage.run(wave, f"{number}").columns["wave_noisy"] != wave).any() for number in range(10))


def test_a_silent_noise_file_is_refused_by_name(tmp_path):
    silent = write_wav(tmp_path / "quiet.wav", np.zeros(1600))
    with pytest.raises(ValueError, match=r"quiet\.wav holds no sound"):
        AddNoise(noise_files=(silent,)).run(to_int16(speech(1600)), "clip")
    (tmp_path / "text.wav").write_text("not sound")
    with pytest.raises(ValueError, match=r"text\.wav cannot be used"):
        AddNoise(noise_files=(tmp_path / "text.wav",)).run(to_int16(speech(1600)), "clip")


def test_only_the_content_of_noise_files_counts(tmp_path):
    wave, sounds = to_int16(speech(1600)), [0.3 * np.sin(hz * np.arange(8000) / 2546.5) for hz in (500, 2000)]
    (tmp_path / "b").mkdir()
    here, there = ([write_wav(tmp_path / name, sound) for name, sound in zip(names, sounds, strict=True)]
                   for names in (("1.wav", "2.wav"), ("b/z.wav", "b/a.wav")))  # fmt: skip

    def noisy(files):
        return [AddNoise(noise_files=tuple(files)).run(wave, str(k)).columns["wave_noisy"].tobytes() for k in range(8)]

    first = noisy(here)
    assert noisy(there) == first
    assert noisy(there[::-1]) != first
    write_wav(here[0], sounds[1])
    write_wav(here[1], sounds[0])
    assert noisy(here) == noisy(there[::-1])


@pytest.mark.parametrize(
    "wrong",
    [
        {"snr_min_db": 9, "snr_max_db": 6},
        {"snr_min_db": float("-inf")},
        {"snr_max_db": float("inf")},
        {"snr_max_db": float("nan")},
        {"snr_step_db": 0},
    ],
)
def test_impossible_ratios_are_refused(wrong):
    with pytest.raises(ValueError, match="snr_"):
        AddNoise(**wrong)


def test_loud_mixes_are_scaled_not_clipped():
    wave = to_int16(5 * speech() * 0.99)
    noisy = AddNoise(snr_max_db=6).run(wave, "clip").columns["wave_noisy"]
    assert np.abs(noisy.astype(int)).max() == round(32768 * 10 ** (-1 / 20))


def test_columns_fit_the_table():
    columns = AddNoise().run(to_int16(speech()), "clip").columns
    assert set(columns) == set(AddNoise.writes)
    for name, value in columns.items():
        COLUMNS[name].check(value)
    assert AddNoise.reads() == ("wave", "clip_id")
