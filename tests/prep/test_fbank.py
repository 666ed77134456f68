"""The filter banks are Kaldi's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from manifests.columns import COLUMNS
from prep.fbank import FilterBanks, FilterBankSettings, filter_banks

# One second of LibriSpeech 1088-134315-0000 (CC BY 4.0); its filter banks by lhotse's Kaldi-compatible code, and by
# kaldi-native-fbank 1.22.5 with VAST's settings.
GOLDEN = np.load(Path(__file__).with_name("golden_audio.npz"))
PARITY = Path(__file__).parents[2].parent / "shared" / "real" / "parity" / "fbank"
LHOTSE = FilterBankSettings(bands=40, window_ms=25, shift_ms=10, low_hz=20, high_hz=-400)

# The stored lhotse features went through a lossy coder with steps of 1/32: nothing can agree better than to half a step.
HALF_STEP = 1 / 64 + 1e-4


def tone(n_samples: int) -> np.ndarray:
    time = np.arange(n_samples) / 16000
    return 0.1 * np.sin(2 * np.pi * 440 * time) + np.random.default_rng(1).normal(0, 0.01, n_samples)


def test_agrees_with_kaldi_under_vasts_settings():
    banks = filter_banks(GOLDEN["kaldi_wave"])
    assert banks.shape == (50, 80)
    assert np.abs(banks - GOLDEN["kaldi_fbank80"]).max() < 1e-3


def test_agrees_with_the_lhotse_reference_within_its_precision():
    banks = filter_banks(GOLDEN["kaldi_wave"], LHOTSE)[2:-2]
    assert np.abs(banks - GOLDEN["lhotse_fbank40"]).max() < HALF_STEP


@pytest.mark.skipif(not PARITY.exists(), reason="the shared parity set is not here")
def test_agrees_with_the_whole_lhotse_reference():
    soundfile = pytest.importorskip("soundfile")
    wave, _ = soundfile.read(PARITY / "libri-1088-134315-0000.wav", dtype="int16")
    error = filter_banks(wave, LHOTSE) - np.load(PARITY / "libri_fbank40_1604x40.npy")
    assert np.abs(error).max() < HALF_STEP
    assert error.std() < 0.0091  # a uniform error of one step has 1/32 / sqrt(12) = 0.0090


@pytest.mark.parametrize(
    ("n_samples", "rows"), [(0, 0), (1, 0), (159, 0), (160, 1), (320, 1), (480, 2), (16000, 50), (80080, 250)]
)
def test_there_is_a_row_for_every_20_ms(n_samples, rows):
    banks = filter_banks(tone(n_samples))
    assert banks.shape == (rows, 80)
    assert np.isfinite(banks).all()


def test_snipped_edges_leave_whole_windows_only():
    wave = tone(16000)
    snipped = filter_banks(wave, FilterBankSettings(snip_edges=True))
    assert snipped.shape == (49, 80)
    # Window b starts at 20 b ms; without snipping it would start 10 ms earlier, which dropping 10 ms of sound undoes.
    assert np.allclose(filter_banks(np.append(np.zeros(160), wave))[1:49], snipped[:48], atol=1e-5)
    assert filter_banks(tone(639), FilterBankSettings(snip_edges=True)).shape == (0, 80)


def test_a_click_shows_in_the_row_of_its_time():
    wave = np.zeros(16000)
    wave[20 * 320 + 160] = 0.9
    loudness = filter_banks(wave).sum(axis=1)
    assert int(np.argmax(loudness)) == 20


def test_kaldis_full_scale_adds_a_constant():
    wave = tone(8000)
    difference = filter_banks(wave, FilterBankSettings(full_scale=32768)) - filter_banks(wave)
    assert np.allclose(difference, 2 * np.log(32768), atol=1e-4)


def test_int16_and_float_waves_mean_the_same():
    wave = np.rint(tone(8000) * 32768).astype(np.int16)
    assert np.array_equal(filter_banks(wave), filter_banks(wave / 32768))


def test_silence_is_the_floor():
    assert np.allclose(filter_banks(np.zeros(3200, np.int16)), -23 * np.log(2))


def test_bands_outside_of_the_spectrum_are_refused():
    with pytest.raises(ValueError, match="do not lie within"):
        filter_banks(tone(1600), FilterBankSettings(high_hz=9000))


def test_the_stage_writes_its_column():
    done = FilterBanks().run(np.rint(tone(16000) * 32768).astype(np.int16))
    assert COLUMNS["fbank"].check(done.columns["fbank"]).shape == (50, 80)
    assert FilterBanks.reads() == ("wave",)


def test_the_rate_follows_from_the_shift():
    assert FilterBanks().rates() == {"fbank": COLUMNS["fbank"].rate}
    assert FilterBanks(shift_ms=10).rates() == {"fbank": "100/s"}


@pytest.mark.parametrize(
    "wrong", [{"high_hz": 8001}, {"high_hz": 20}, {"high_hz": -7990}, {"low_hz": 8000}, {"high_hz": float("nan")}]
)
def test_the_stage_refuses_bands_outside_of_the_spectrum_at_once(wrong):
    with pytest.raises(ValueError, match="do not lie within"):
        FilterBanks(**wrong)
