"""Amplified and denoised sound is louder, cleaner and never clipped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from manifests.columns import COLUMNS
from manifests.stage import Done
from prep.denoise import Denoise
from prep.sound import decode_sound, loudness_dbfs, to_int16

AUDIO = Path(__file__).parents[2].parent / "shared" / "real" / "audio"


def snr_db(wave: np.ndarray, clean: np.ndarray) -> float:
    """Power of the part of ``wave`` that is a multiple of ``clean`` over that of the rest (scale-invariant, SI-SNR)."""
    clean = clean.astype(np.float64)
    speech = clean * (wave @ clean / (clean @ clean))
    return float(10 * np.log10(np.sum(speech**2) / np.sum((wave - speech) ** 2)))


def spoken(seconds: float = 4.0) -> tuple[np.ndarray, np.ndarray]:
    """Syllables of changing pitch and timbre with pauses, and the same with as much white noise: two quiet (S,)."""
    random = np.random.default_rng(0)
    clean = np.zeros(round(16000 * seconds))
    at = 0.3
    while at < seconds - 0.3:
        duration, pitch, timbre = random.uniform([0.12, 110, 1], [0.25, 220, 6])
        time = np.arange(round(16000 * duration)) / 16000
        harmonics = sum(np.sin(2 * np.pi * k * pitch * time * (1 + time / 10)) / (1 + (k - timbre) ** 2) for k in range(1, 15))
        clean[round(16000 * at) :][: len(time)] = 0.03 * harmonics * np.hanning(len(time))
        at += duration + random.uniform(0.1, 0.4)
    return clean, clean + random.normal(0, clean.std(), len(clean))


def test_quiet_sound_becomes_20_db_louder():
    clean, _ = spoken()
    before = to_int16(clean)
    after = Denoise(amount=0.0).run(before).columns["wave_clean"]
    assert loudness_dbfs(after) - loudness_dbfs(before) == pytest.approx(20, abs=0.05)


def test_noise_goes_down_and_speech_stays():
    clean, noisy = spoken()
    cleaned = Denoise().run(to_int16(noisy)).columns["wave_clean"]
    assert snr_db(cleaned / 32768, clean) > snr_db(noisy, clean) + 1
    pauses = clean == 0
    assert np.std(cleaned[pauses] / 327680) < 0.6 * np.std(noisy[pauses])


@pytest.mark.skipif(not AUDIO.exists(), reason="the shared recordings are not here")
@pytest.mark.parametrize("number", [1, 2, 3])
def test_recorded_speech_comes_nearer_to_its_clean_recording(number):
    clean, noisy = (decode_sound(str(AUDIO / f"p287_00{number}_{kind}.wav")).wave() for kind in ("clean", "noisy"))
    cleaned = Denoise().run(to_int16(noisy)).columns["wave_clean"]
    assert snr_db(cleaned / 32768, clean) > snr_db(noisy, clean) + 1


def test_loud_sound_neither_wraps_nor_clips():
    clean, _ = spoken()
    loud = to_int16(0.9 * clean / np.abs(clean).max())
    after = Denoise(amount=0.0).run(loud).columns["wave_clean"]
    assert np.abs(after.astype(int)).max() == round(32768 * 10 ** (-1 / 20))
    assert snr_db(after / 32768, loud / 32768) > 60


@pytest.mark.parametrize("stationary", [False, True])
@pytest.mark.parametrize("n_samples", [0, 1, 300, 512, 700, 16000])
def test_any_length_keeps_its_length(stationary, n_samples):
    wave = to_int16(spoken()[1][:n_samples])
    after = Denoise(stationary=stationary).run(wave).columns["wave_clean"]
    assert after.shape == wave.shape
    assert after.dtype == np.int16


def test_silence_stays_silence_also_within_long_clips():
    assert not Denoise().run(np.zeros(16000, np.int16)).columns["wave_clean"].any()
    wave = np.zeros(16000 * 80, np.int16)
    wave[-64000:] = to_int16(spoken()[1])
    after = Denoise().run(wave).columns["wave_clean"]
    assert not after[: 16000 * 30].any()
    assert after[-64000:].any()


def test_same_in_same_out_and_the_column_fits():
    wave = to_int16(spoken()[1])
    first, second = (Denoise().run(wave).columns["wave_clean"] for _ in range(2))
    assert np.array_equal(first, second)
    COLUMNS["wave_clean"].check(first)
    assert Denoise.reads() == ("wave",)


@pytest.mark.parametrize("wrong", [{"n_fft": 4096}, {"smooth_hz": 62}, {"smooth_ms": 7.9}])
def test_smoothing_over_less_than_a_window_is_refused_at_once(wrong):
    with pytest.raises(ValueError, match="smooth_hz must be at least"):
        Denoise(**wrong)


def test_the_least_smoothing_that_is_let_pass_works():
    wave = np.random.default_rng(0).integers(-3000, 3000, 8000).astype(np.int16)
    for n_fft in (128, 512, 513, 8000):
        least = {"smooth_hz": 32000 / n_fft, "smooth_ms": n_fft // 4 / 16}
        assert isinstance(Denoise(n_fft=n_fft, **least).run(wave), Done)
