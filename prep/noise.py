"""Mix speech with noise at a chosen signal-to-noise ratio, which makes what is trained on it robust."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from manifests.clock import SAMPLE_RATE
from manifests.stage import Done, Needs, Outcome, Stage, Unreadable
from prep.sound import NoSound, decode_sound, limited, to_int16

ACTIVE_DB = 30.0
"""Speech counts as active where 20 ms of it are at most this far below the loudest 20 ms."""

Colour = Literal["pink", "white"]


def active_level(wave: NDArray[Any]) -> float:
    """Root mean square of a float wave (S,) over its active parts; 0 for silence.

    Pauses are left out: with them, the same words spoken more slowly would get less noise.
    """
    length = SAMPLE_RATE // 50
    padded = np.pad(wave.astype(np.float64), (0, -len(wave) % length)).reshape(-1, length)
    power = np.mean(np.square(padded), axis=1)
    loudest = power.max(initial=0.0)
    return float(np.sqrt(power[power >= loudest * 10 ** (-ACTIVE_DB / 10)].mean())) if loudest > 0 else 0.0


def mix_at_snr(wave: NDArray[Any], noise: NDArray[Any], snr_db: float) -> NDArray[np.float64]:
    """``wave`` plus ``noise``, both float (S,), the noise scaled to lie ``snr_db`` below the active speech.

    The result may exceed [-1, 1]. Silence stays silence: noise below nothing is nothing. Raises ``ValueError`` when
    the lengths differ or the noise is silent.
    """
    if wave.shape != noise.shape:
        raise ValueError(f"speech of {len(wave)} samples and noise of {len(noise)} samples do not mix")
    noise_level = float(np.sqrt(np.mean(np.square(noise, dtype=np.float64)))) if noise.size else 0.0
    if wave.size and noise_level == 0:
        raise ValueError("the noise is silent")
    gain = active_level(wave) / noise_level * 10 ** (-snr_db / 20) if wave.size else 0.0
    return wave.astype(np.float64) + gain * noise


class AddNoise(Stage):
    """Mix each clip with randomly chosen noise, at a random ratio of 6 to 30 dB in steps of 3 dB.

    Rhythmic Head, §3.2: "we mix x with a randomly selected noise file in 6 to 30 dB SNRs with 3 dB increments". The
    noise is a random span of one of ``noise_files``, repeated where it is too short; with no files it is generated, of
    the given ``colour``. All choices follow from the clip's id and ``seed``. A mix whose peak would lie above -1 dBFS
    is scaled down as a whole.
    """

    name: ClassVar[str] = "add_noise"
    version: ClassVar[int] = 1
    writes: ClassVar[tuple[str, ...]] = ("wave_noisy", "noise_snr_db")
    needs: ClassVar[Needs] = Needs(pace=0.002)

    noise_files: tuple[Path, ...] = ()
    colour: Colour = "pink"
    snr_min_db: float = 6.0
    snr_max_db: float = 30.0
    snr_step_db: float = Field(default=3.0, gt=0)
    seed: int = 0

    @model_validator(mode="after")
    def _in_order(self) -> AddNoise:
        if self.snr_max_db < self.snr_min_db:
            raise ValueError("snr_max_db lies below snr_min_db")
        if not -200 <= self.snr_min_db <= self.snr_max_db <= 200:
            raise ValueError("snr_min_db and snr_max_db must lie within -200 to 200")
        return self

    def files(self) -> tuple[Path, ...]:
        return self.noise_files

    def run(self, wave: NDArray[np.int16], clip_id: str) -> Outcome:  # type: ignore[override]
        ratio, which, where, generator_seed = (_draw(f"add_noise:{self.seed}:{clip_id}:{what}") for what in range(4))
        steps = int((self.snr_max_db - self.snr_min_db) / self.snr_step_db + 1e-9) + 1
        snr_db = self.snr_min_db + self.snr_step_db * (ratio % steps)
        if self.noise_files:
            path = self.noise_files[which % len(self.noise_files)]
            state = path.stat()
            recorded = _recorded(path, (state.st_mtime_ns, state.st_size, state.st_ino))
            noise: NDArray[Any] = _span(recorded, len(wave), where)
        else:
            noise = generated_noise(len(wave), self.colour, generator_seed)
        mixed = mix_at_snr(wave / 32768.0, noise, snr_db)
        return Done({"wave_noisy": to_int16(limited(mixed)), "noise_snr_db": snr_db})


def generated_noise(n_samples: int, colour: Colour, seed: int) -> NDArray[np.float64]:
    """Gaussian noise (S,) with a root mean square near 1: ``white``, or ``pink``, whose power falls by 3 dB an octave."""
    white = np.random.Generator(np.random.PCG64(seed)).standard_normal(n_samples)
    if colour == "white" or n_samples < 2:
        return white
    spectrum = np.fft.rfft(white)
    # Below 20 Hz nothing is heard; without the bound the slowest wave would dominate.
    slope = 1 / np.sqrt(np.maximum(np.fft.rfftfreq(n_samples, 1 / SAMPLE_RATE), 20.0))
    pink = np.fft.irfft(spectrum * slope, n_samples)
    return np.asarray(pink / np.sqrt(np.mean(np.square(pink))))


def _draw(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


@lru_cache(maxsize=8)
def _recorded(path: Path, state: tuple[int, ...]) -> NDArray[np.float32]:
    """The sound of a noise file, which must hold some; ``state`` changes when another file takes its place."""
    try:
        noise = decode_sound(str(path)).wave()
    except (NoSound, Unreadable) as error:
        raise ValueError(f"noise file {path.name} cannot be used: {error}") from None
    if not noise.any():
        raise ValueError(f"noise file {path.name} holds no sound")
    return noise


def _span(noise: NDArray[np.float32], n_samples: int, where: int) -> NDArray[np.float32]:
    """``n_samples`` of ``noise`` from a random start on, going round. Starts on sound, so that it is never silent."""
    sounding = np.flatnonzero(noise)
    return np.resize(np.roll(noise, -sounding[where % len(sounding)]), n_samples)
