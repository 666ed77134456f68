"""Mel spectrogram, exactly as Wav2Lip's and SadTalker's networks expect it."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, ClassVar, Literal

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from pydantic import Field
from scipy.signal import get_window, lfilter

from manifests.clock import SAMPLE_RATE
from manifests.stage import Done, Needs, Outcome, Stage

BANDS = 80
WINDOW = 800
LOW_HZ, HIGH_HZ = 55.0, 7600.0
PRE_EMPHASIS = 0.97
REFERENCE_DB, MIN_DB, LIMIT = 20.0, -100.0, 4.0

BLOCK = 512
"""Frames transformed at once: bounds the memory to a few MB whatever the clip's length."""

Padding = Literal["reflect", "zero"]


def mel_spectrogram(wave: NDArray[Any], *, hop: int = 200, padding: Padding = "reflect") -> NDArray[np.float32]:
    """Log mel spectrogram of a 16 kHz ``wave`` (S,): (80, 1 + S // hop) float32 in [-4, 4].

    ``wave`` is int16 or float in [-1, 1]. Pre-emphasis 0.97; STFT with a periodic Hann window of 800 samples, frame m
    centred on sample ``hop * m``; 80 Slaney bands of 55 to 7600 Hz on amplitudes; 20 log10(max(1e-5, x)) - 20 dB;
    -100 dB becomes -4, 0 dB becomes 4, beyond is clipped.

    ``padding`` differs only in the two frames at each end: ``reflect`` is what Wav2Lip was trained with (librosa 0.7),
    ``zero`` what SadTalker was (librosa 0.9 and later). A wave shorter than the padding is reflected repeatedly.
    Wav2Lip, ``audio.py``; SadTalker §5 "pre-process the audio".
    """
    if wave.ndim != 1:
        raise ValueError(f"a wave has shape (S,), got {wave.shape}")
    scale = 1 / 32768 if wave.dtype.kind == "i" else 1.0
    sound = lfilter([1.0, -PRE_EMPHASIS], [1.0], wave * np.float64(scale)) if wave.size else np.zeros(0)
    reflects = padding == "reflect" and wave.size > 0
    sound = np.pad(sound, WINDOW // 2, mode="reflect") if reflects else np.pad(sound, WINDOW // 2)
    frames = np.lib.stride_tricks.sliding_window_view(sound, WINDOW)[::hop]
    window = get_window("hann", WINDOW)
    basis = mel_basis()
    mel = np.empty((BANDS, len(frames)), dtype=np.float32)
    for start in range(0, len(frames), BLOCK):
        amplitude = np.abs(scipy.fft.rfft(frames[start : start + BLOCK] * window, axis=1))
        decibels = 20 * np.log10(np.maximum(1e-5, basis @ amplitude.T)) - REFERENCE_DB
        mel[:, start : start + BLOCK] = np.clip(2 * LIMIT * (decibels - MIN_DB) / -MIN_DB - LIMIT, -LIMIT, LIMIT)
    return mel


@lru_cache(maxsize=1)
def mel_basis() -> NDArray[np.float64]:
    """Triangles (80, 401) on Slaney's mel scale, each of unit area per Hz (Auditory Toolbox, 1998)."""
    edges = _slaney_hz(np.linspace(_slaney_mel(LOW_HZ), _slaney_mel(HIGH_HZ), BANDS + 2))
    bins = np.fft.rfftfreq(WINDOW, 1 / SAMPLE_RATE)
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    triangles = np.maximum(0, np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre)))
    basis: NDArray[np.float64] = triangles * (2 / (high - low))
    basis.flags.writeable = False
    return basis


# Slaney's scale is linear up to 1000 Hz (15 mel) and logarithmic above, 27 mel for a factor of 6.4.
_LINEAR_HZ, _KNEE_HZ, _KNEE_MEL, _LOG_STEP = 200 / 3, 1000.0, 15.0, np.log(6.4) / 27


def _slaney_mel(hz: float) -> float:
    return hz / _LINEAR_HZ if hz < _KNEE_HZ else _KNEE_MEL + float(np.log(hz / _KNEE_HZ)) / _LOG_STEP


def _slaney_hz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    above = _KNEE_HZ * np.exp(_LOG_STEP * (np.maximum(mel, _KNEE_MEL) - _KNEE_MEL))
    return np.where(mel < _KNEE_MEL, mel * _LINEAR_HZ, above)


class Mel(Stage):
    """The mel spectrogram of a clip; see ``mel_spectrogram``. ``hop`` other than 200 changes the column's rate."""

    name: ClassVar[str] = "mel"
    version: ClassVar[int] = 1
    writes: ClassVar[tuple[str, ...]] = ("mel",)
    needs: ClassVar[Needs] = Needs(pace=0.002)

    hop: int = Field(default=200, ge=1, le=WINDOW)
    padding: Padding = "reflect"

    def rates(self) -> dict[str, str]:
        return {"mel": f"{SAMPLE_RATE / self.hop:g}/s"}

    def run(self, wave: NDArray[np.int16]) -> Outcome:  # type: ignore[override]
        return Done({"mel": mel_spectrogram(wave, hop=self.hop, padding=self.padding)})
