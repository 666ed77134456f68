"""The mel spectrogram is Wav2Lip's, frame by frame, edges included."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from manifests.columns import COLUMNS
from prep.mel import Mel, mel_basis, mel_spectrogram

GOLDEN = np.load(Path(__file__).with_name("golden_audio.npz"))
SHARED = Path(__file__).parents[2].parent / "shared" / "golden" / "wav2lip_mel.npz"


def speech_like(n_samples: int, seed: int = 0) -> np.ndarray:
    time = np.arange(n_samples) / 16000
    noise = np.random.default_rng(seed).normal(0, 0.02, n_samples)
    return 0.3 * np.sin(2 * np.pi * 170 * time) * (0.5 + 0.5 * np.sin(2 * np.pi * 3 * time)) + noise


def test_agrees_with_wav2lips_own_code_at_every_frame():
    assert np.abs(mel_spectrogram(GOLDEN["wav2lip_wave"]) - GOLDEN["wav2lip_mel"]).max() < 1e-5


def test_zero_padding_agrees_with_sadtalkers_library_and_differs_at_the_ends_only():
    mel = mel_spectrogram(GOLDEN["wav2lip_wave"], padding="zero")
    assert np.abs(mel[:, [0, 1, 2, -3, -2, -1]] - GOLDEN["wav2lip_mel_zero_ends"]).max() < 1e-5
    assert np.abs(mel[:, 2:-2] - GOLDEN["wav2lip_mel"][:, 2:-2]).max() < 1e-5
    assert np.abs(mel[:, [0, -1]] - GOLDEN["wav2lip_mel"][:, [0, -1]]).max() > 0.01


def test_quiet_sound_meets_the_floor_as_wav2lips_does():
    quiet = GOLDEN["wav2lip_wave"][:3200] * np.float32(2e-3)
    assert np.abs(mel_spectrogram(quiet) - GOLDEN["wav2lip_mel_quiet"]).max() < 1e-5


@pytest.mark.skipif(not SHARED.exists(), reason="the shared golden records are not here")
def test_agrees_with_the_full_golden_record():
    golden = np.load(SHARED)
    assert np.abs(mel_basis() - golden["out_mel_basis"]).max() < 1e-8
    for padding, name in (("reflect", "out_mel_reflect"), ("zero", "out_mel_constant")):
        assert np.abs(mel_spectrogram(golden["in_wave"], padding=padding) - golden[name]).max() < 1e-5


@pytest.mark.filterwarnings("ignore:n_fft=800 is too large")
@pytest.mark.parametrize("n_samples", [401, 799, 16000, 16001, 52_345])
def test_agrees_with_librosa_at_any_length(n_samples):
    librosa = pytest.importorskip("librosa")
    wave = speech_like(n_samples, n_samples)
    emphasised = np.append(wave[:1], wave[1:] - 0.97 * wave[:-1])
    amplitude = np.abs(librosa.stft(emphasised, n_fft=800, hop_length=200, win_length=800, pad_mode="reflect"))
    basis = librosa.filters.mel(sr=16000, n_fft=800, n_mels=80, fmin=55, fmax=7600)
    decibels = 20 * np.log10(np.maximum(1e-5, basis @ amplitude)) - 20
    expected = np.clip(8 * (decibels + 100) / 100 - 4, -4, 4)
    assert np.abs(mel_spectrogram(wave) - expected).max() < 1e-4


@pytest.mark.parametrize("n_samples", [0, 1, 2, 199, 200, 399, 400, 800])
@pytest.mark.parametrize("padding", ["reflect", "zero"])
def test_clips_shorter_than_the_window_have_frames_too(n_samples, padding):
    mel = mel_spectrogram(speech_like(n_samples), padding=padding)
    assert mel.shape == (80, 1 + n_samples // 200)
    assert np.isfinite(mel).all()


def test_int16_and_float_waves_mean_the_same():
    wave = np.rint(speech_like(8000) * 32768).astype(np.int16)
    assert np.array_equal(mel_spectrogram(wave), mel_spectrogram(wave / 32768))


def test_silence_is_the_floor():
    assert np.all(mel_spectrogram(np.zeros(4000, np.int16)) == -4)


def test_frames_do_not_depend_on_how_much_follows():
    wave = speech_like(16000 * 8)
    assert np.abs(mel_spectrogram(wave)[:, :390] - mel_spectrogram(wave[: 16000 * 5])[:, :390]).max() < 1e-6


def test_a_long_clip_needs_little_memory():
    wave = speech_like(16000 * 40).astype(np.float32)
    mel_spectrogram(wave[:16000])
    tracemalloc.start()
    mel_spectrogram(wave)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40e6


def test_the_stage_writes_its_column():
    wave = np.rint(speech_like(16000) * 32768).astype(np.int16)
    done = Mel().run(wave)
    assert COLUMNS["mel"].check(done.columns["mel"]).shape == (80, 81)
    assert Mel(hop=160).run(wave).columns["mel"].shape == (80, 101)
    assert Mel.reads() == ("wave",)


def test_only_waves_are_taken():
    with pytest.raises(ValueError, match="shape"):
        mel_spectrogram(np.zeros((2, 100)))


def test_the_rate_follows_from_the_hop():
    assert Mel().rates() == {"mel": COLUMNS["mel"].rate}
    assert Mel(hop=160).rates() == {"mel": "100/s"}
