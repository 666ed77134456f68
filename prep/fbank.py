"""Kaldi-compatible log filter banks, the input of VAST's acoustic model."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from pydantic import Field, model_validator

from manifests.clock import SAMPLE_RATE
from manifests.stage import Done, Needs, Outcome, Stage

PRE_EMPHASIS = 0.97
ENERGY_FLOOR = 2.0**-23
"""Smallest power before the logarithm, as Kaldi's and torchaudio's: the distance from 1 to the next float32."""

BLOCK = 512
"""Frames transformed at once: bounds the memory to a few MB whatever the clip's length."""


@dataclass(frozen=True, slots=True)
class FilterBankSettings:
    """Kaldi's options, without dither; the defaults are VAST's (§4.1, 80 bands, 40 ms windows every 20 ms).

    ``high_hz`` of 0 or less counts from half the sample rate down. ``full_scale`` is what a sample at full scale
    counts as: 1 as torchaudio and lhotse load sound, 32768 as Kaldi does (adds 20 ln 2 + 10 ln 2 = 20.79 to all).
    With ``snip_edges`` only whole windows count, B = 1 + (S - window) // shift, and row b starts at b shifts. Without,
    B = round(S / shift), row b is centred on the b-th shift, and the wave is mirrored at its ends.
    """

    bands: int = 80
    window_ms: float = 40.0
    shift_ms: float = 20.0
    low_hz: float = 20.0
    high_hz: float = 0.0
    full_scale: float = 1.0
    snip_edges: bool = False

    @property
    def window(self) -> int:
        return round(self.window_ms * SAMPLE_RATE / 1000)

    @property
    def shift(self) -> int:
        return round(self.shift_ms * SAMPLE_RATE / 1000)


VAST = FilterBankSettings()


def filter_banks(wave: NDArray[Any], settings: FilterBankSettings = VAST) -> NDArray[np.float32]:
    """Natural logarithm of mel band powers of a 16 kHz ``wave`` (S,), int16 or float in [-1, 1]: (B, bands) float32.

    For each window: mean removed, pre-emphasis 0.97, povey window (Hann to the power 0.85), zero-padded to a power of
    two, power spectrum, triangles on the mel scale 1127 ln(1 + f / 700). As ``compute-fbank-feats`` of Kaldi with
    ``--dither=0``, and as torchaudio's ``compliance.kaldi.fbank``.
    """
    if wave.ndim != 1:
        raise ValueError(f"a wave has shape (S,), got {wave.shape}")
    rows = _rows(len(wave), settings)
    scale = settings.full_scale / (32768 if wave.dtype.kind == "i" else 1)
    window, size = settings.window, 1 << (settings.window - 1).bit_length()
    povey = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / (window - 1))) ** 0.85
    basis = kaldi_basis(settings.bands, size, settings.low_hz, settings.high_hz)
    banks = np.empty((len(rows), settings.bands), dtype=np.float32)
    for start in range(0, len(rows), BLOCK):
        inside = _mirrored(rows[start : start + BLOCK, None] + np.arange(window), len(wave))
        frames = wave[inside] * np.float64(scale)
        frames -= frames.mean(axis=1, keepdims=True)
        # The first sample of a window has no predecessor; Kaldi takes the sample itself.
        frames -= PRE_EMPHASIS * np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
        power = np.square(np.abs(scipy.fft.rfft(frames * povey, size, axis=1)))
        banks[start : start + BLOCK] = np.log(np.maximum(power @ basis.T, ENERGY_FLOOR))
    return banks


def _rows(n_samples: int, settings: FilterBankSettings) -> NDArray[np.int64]:
    """First sample of each window."""
    if settings.snip_edges:
        n_rows = 1 + (n_samples - settings.window) // settings.shift if n_samples >= settings.window else 0
        return np.arange(n_rows) * settings.shift
    n_rows = (n_samples + settings.shift // 2) // settings.shift
    return np.arange(n_rows) * settings.shift + settings.shift // 2 - settings.window // 2


def _mirrored(samples: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """Positions outside of 0 .. length - 1 reflected at the ends, the end sample counting twice, as often as needed."""
    around = np.mod(samples, 2 * length)
    inside: NDArray[np.int64] = np.minimum(around, 2 * length - 1 - around)
    return inside


@lru_cache(maxsize=8)
def kaldi_basis(bands: int, size: int, low_hz: float, high_hz: float) -> NDArray[np.float64]:
    """Triangles (bands, size // 2 + 1), of height 1 and straight on the mel scale; half the sample rate is left out."""
    low_hz, high = _band_limits(low_hz, high_hz)
    mel = _mel(np.fft.rfftfreq(size, 1 / SAMPLE_RATE))
    edges = np.linspace(_mel(low_hz), _mel(high), bands + 2)[:, None]
    low, centre, top = edges[:-2], edges[1:-1], edges[2:]
    basis: NDArray[np.float64] = np.maximum(0.0, np.minimum((mel - low) / (centre - low), (top - mel) / (top - centre)))
    basis[:, -1] = 0.0
    basis.flags.writeable = False
    return basis


def _band_limits(low_hz: float, high_hz: float) -> tuple[float, float]:
    """Both counted from 0 up. Raises ``ValueError`` where there is no sound."""
    high = high_hz if high_hz > 0 else SAMPLE_RATE / 2 + high_hz
    if not 0 <= low_hz < high <= SAMPLE_RATE / 2:
        raise ValueError(f"the bands from {low_hz:g} to {high:g} Hz do not lie within 0 to {SAMPLE_RATE // 2} Hz")
    return low_hz, high


def _mel(hz: Any) -> Any:
    return 1127.0 * np.log1p(np.divide(hz, 700.0))


class FilterBanks(Stage):
    """Log filter banks of a clip; see ``filter_banks``.

    Row b covers the 20 ms from b * 20 ms on (and 10 ms before and after): at 25 fps frame f has rows 2f and 2f + 1.
    """

    name: ClassVar[str] = "fbank"
    version: ClassVar[int] = 1
    writes: ClassVar[tuple[str, ...]] = ("fbank",)
    needs: ClassVar[Needs] = Needs(pace=0.002)

    window_ms: float = Field(default=VAST.window_ms, ge=1)
    shift_ms: float = Field(default=VAST.shift_ms, ge=1)
    low_hz: float = Field(default=VAST.low_hz, ge=0)
    high_hz: float = VAST.high_hz
    full_scale: float = Field(default=VAST.full_scale, gt=0)
    snip_edges: bool = VAST.snip_edges

    @model_validator(mode="after")
    def _possible(self) -> FilterBanks:
        _band_limits(self.low_hz, self.high_hz)
        return self

    @property
    def settings(self) -> FilterBankSettings:
        return FilterBankSettings(**self.model_dump())

    def rates(self) -> dict[str, str]:
        return {"fbank": f"{SAMPLE_RATE / self.settings.shift:g}/s"}

    def run(self, wave: NDArray[np.int16]) -> Outcome:  # type: ignore[override]
        return Done({"fbank": filter_banks(wave, self.settings)})
