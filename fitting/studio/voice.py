"""A voice: speech by a glottal source and a vocal tract (Klatt, *JASA* 67, 1980), from spectra instead of samples.

Every period of the voice is one pulse of the glottis (Liljencrants and Fant's model: Fant et al., STL-QPSR 1985; its shape by one
number as in Fant, STL-QPSR 1995) whose spectrum is multiplied by the tract's at that moment, and added where it falls, also
between samples. Noise goes the same way in frames of 10 ms.
"""

from __future__ import annotations

from math import gcd
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from scipy.optimize import brentq
from scipy.signal import resample_poly

from fitting.studio.phonemes import PHONEMES, SCHWA, Noise
from fitting.studio.speaker import Speaker
from fitting.studio.speech import Phone, Speech

Floats = NDArray[np.float64]

RATE = 24_000
"""Hz at which voices are made; other rates are resampled from it."""

_HOP = 60
_TRACKS = RATE // _HOP
"""Hz of everything that changes from sound to sound."""

_SIZE = 1024
"""Samples of one response of the tract, 43 ms: the narrowest formant is 60 dB down by then."""

_CLOSURE = 320
"""The sample of a response at which the glottis closes; it is open before."""

_BLOCK = 2000
"""Responses made at once: bounds the memory whatever the take's length."""

_LOUDNESS = 0.11
"""Root mean square of the voice where it is heard, before ``gain``."""

_PEAK = 0.95

_RADIATED = 13.0
"""Decibels by which a wide open mouth radiates more than one that is nearly shut."""

_UPPER_FORMANTS = (3400.0, 4400.0, 5400.0, 6400.0, 7400.0, 8400.0, 9400.0, 10400.0, 11400.0)


class Tracks(NamedTuple):
    """What the source and the tract do, N moments at ``_TRACKS`` Hz."""

    f0: Floats
    """(N,) Hz."""
    voicing: Floats
    """(N,) amplitude of the pulses; 1 is an unstressed vowel."""
    aspiration: Floats
    """(N,) amplitude of noise at the glottis, where 1 is that of a stressed vowel."""
    frication: Floats
    """(N,) amplitude of noise in the mouth."""
    hill: Floats
    """(N, 2) its spectrum: the logarithm of Hz and octaves."""
    formants: Floats
    """(N, 3) Hz."""
    bandwidths: Floats
    """(N, 3) Hz."""
    nasality: Floats
    """(N,) 0 to 1."""


class _Segment(NamedTuple):
    """A stretch in which source and tract have one aim: a sound or a part of a stop."""

    start: float
    end: float
    phone: int
    voicing: float = 0.0
    aspiration: float = 0.0
    noise: Noise | None = None


def voice(speaker: Speaker, speech: Speech, openness: Floats, rng: np.random.Generator) -> Floats:
    """The sound of ``speech``, float64 samples at ``RATE`` Hz for all its length; digital silence where nothing is said.

    ``openness`` (M,) says how far the mouth is open all through the take, 1 where this speaker opens widest: an open mouth
    radiates more.
    """
    count = round(speech.phones[-1].end * RATE)
    tracks = make_tracks(speaker, speech, openness, rng)
    pulses = _pulses(speaker, tracks, count, rng)
    level = np.sqrt(np.mean(pulses**2, where=np.abs(pulses) > 0.02 * np.abs(pulses).max())) if pulses.any() else 1.0
    noise = _noise(speaker, tracks, count, rng)
    return pulses / level + noise


def at_rate(sound: Floats, rate: int, count: int) -> Floats:
    """``sound`` at ``RATE`` Hz as ``count`` samples at ``rate`` Hz."""
    common = gcd(rate, RATE)
    found = resample_poly(sound, rate // common, RATE // common)[:count]
    return np.pad(found, (0, count - len(found)))


def levelled(sound: Floats) -> Floats:
    """``sound`` at the loudness of a recording: the same for all where it is heard, and never beyond a peak."""
    peak = np.abs(sound).max(initial=0.0)
    if peak == 0:
        return sound
    heard = np.abs(sound) > 0.01 * peak
    return np.asarray(sound * min(_LOUDNESS / np.sqrt(np.mean(sound[heard] ** 2)), _PEAK / peak))


# Tracks.


def make_tracks(speaker: Speaker, speech: Speech, openness: Floats, rng: np.random.Generator) -> Tracks:
    """What source and tract do in ``speech``; see ``voice``."""
    phones = speech.phones
    count = int(np.ceil(phones[-1].end * _TRACKS)) + 1
    times = np.arange(count) / _TRACKS
    segments = [segment for number in range(len(phones)) for segment in _segments(phones, number)]
    edges = np.array([segment.start for segment in segments])
    at = np.clip(np.searchsorted(edges, times, side="right") - 1, 0, None)
    opened = np.interp(np.linspace(0, 1, count), np.linspace(0, 1, len(openness)), openness)
    effort = _effort(speech, times, rng) * 10 ** (_RADIATED * (opened - 0.5) / 20)

    def held(values: list[float], milliseconds: float) -> Floats:
        return np.asarray(gaussian_filter1d(np.array(values)[at], milliseconds / 1000 * _TRACKS, mode="nearest"))

    hiss = [segment.noise or Noise(3000, 1, 0) for segment in segments]
    formants = _formant_tracks(speaker, phones, times)
    leak = 0.02 + 0.10 * speaker.breathiness
    voicing = held([segment.voicing for segment in segments], 6) * effort
    bandwidths = np.stack([60 + 30 * speaker.breathiness + 0 * times, 80 + 0.02 * formants[:, 1], 60 + 0.035 * formants[:, 2]], 1)
    nasality = held([float(PHONEMES[phones[segment.phone].symbol].kind == "nasal") for segment in segments], 12)
    return Tracks(
        f0=intonation(speaker, speech, times, rng),
        voicing=voicing,
        aspiration=held([segment.aspiration for segment in segments], 8) + leak * voicing,
        frication=held([noise.level for noise in hiss], 4) * np.sqrt(effort),
        hill=np.stack([np.log([noise.hz for noise in hiss])[at], np.array([noise.octaves for noise in hiss])[at]], axis=1),
        formants=formants,
        bandwidths=bandwidths * (1 + 0.6 * nasality[:, None]),
        nasality=nasality,
    )


_VOICING = {"vowel": 1.0, "diphthong": 1.0, "liquid": 0.55, "glide": 0.50, "nasal": 0.40, "fricative": 0.28}


def _segments(phones: list[Phone], number: int) -> list[_Segment]:
    """The parts of a phone: a stop is a closure, a burst, and aspiration until the voice sets in."""
    phone = phones[number]
    sound = PHONEMES[phone.symbol]
    start, end = phone.start, phone.end
    if sound.kind == "silence":
        return [_Segment(start, end, number)]
    if sound.kind not in ("stop", "affricate"):
        voicing = _VOICING[sound.kind] if sound.voiced else 0.0
        if sound.symbol == "hh":
            return [_Segment(start, end, number, aspiration=sound.noise.level if sound.noise else 0.0)]
        return [_Segment(start, end, number, voicing, noise=sound.noise)]
    closed = start + sound.closure * (end - start)
    closure = _Segment(start, closed, number, voicing=0.10 if sound.voiced else 0.0)
    if sound.kind == "affricate":
        return [closure, _Segment(closed, end, number, 0.15 if sound.voiced else 0.0, noise=sound.noise)]
    burst = min(closed + 0.010, end)
    followed = number + 1 < len(phones) and PHONEMES[phones[number + 1].symbol].voiced
    breath = 0.0 if sound.voiced else 0.14 if followed else 0.05
    return [
        closure,
        _Segment(closed, burst, number, noise=sound.noise),
        _Segment(burst, end, number, 0.5 if sound.voiced and followed else 0.0, breath),
    ]


def _effort(speech: Speech, times: Floats, rng: np.random.Generator) -> Floats:
    """(N,) amplitude by stress, falling towards the end of phrases, with a slow drift."""
    decibels = gaussian_filter1d(rng.standard_normal(len(times)), 0.4 * _TRACKS, mode="nearest") * 1.2 * np.sqrt(0.8 * _TRACKS)
    for time, strength in speech.accents:
        decibels = decibels + 4.0 * strength * np.exp(-0.5 * ((times - time) / 0.07) ** 2)
    for start, end in speech.phrases:
        decibels = decibels - 4.0 * np.clip((times - start) / (end - start), 0, 1) ** 2 * (times <= end + 0.05)
    return np.asarray(10 ** (decibels / 20))


def intonation(speaker: Speaker, speech: Speech, times: Floats, rng: np.random.Generator) -> Floats:
    """F0 (N,) in Hz at ``times``: it declines over each phrase, rises on accents, and dips a little at voiced obstruents."""
    semitones = np.zeros(len(times))
    for start, end in speech.phrases:
        through = np.clip((times - start) / (end - start), 0, 1)
        inside = (times > start - 0.1) & (times < end + 0.1)
        final = rng.choice([-0.8, 2.0], p=[0.8, 0.2]) * np.clip((through - 0.75) / 0.25, 0, 1) ** 2
        semitones[inside] = (3.0 * (1 - through) + final)[inside]
    for time, strength in speech.accents:
        semitones += 4.5 * strength * rng.uniform(0.7, 1.1) * np.exp(-0.5 * ((times - time - 0.015) / 0.075) ** 2)
    local = np.zeros(len(times))
    starts = np.array([phone.start for phone in speech.phones])
    at = np.clip(np.searchsorted(starts, times, side="right") - 1, 0, None)
    sounds = [PHONEMES[phone.symbol] for phone in speech.phones]
    obstruent = np.array([sound.kind in ("stop", "fricative", "affricate") for sound in sounds])
    voiced = np.array([sound.voiced for sound in sounds])
    local = np.where(obstruent, np.where(voiced, -0.7, 0.7), 0.0)[at]
    smooth = gaussian_filter1d(semitones * speaker.f0_range + local, 0.02 * _TRACKS, mode="nearest")
    tremor = gaussian_filter1d(rng.standard_normal(len(times)), 0.04 * _TRACKS, mode="nearest")
    return np.asarray(speaker.f0 * 2 ** ((smooth + 0.5 * tremor) / 12))


def _formant_tracks(speaker: Speaker, phones: list[Phone], times: Floats) -> Floats:
    """(N, 3) Hz: each sound's own formants mixed with those of the vowels around it (locus equations), then smoothed."""
    sounds = [PHONEMES[phone.symbol] for phone in phones]
    starts, ends = (np.array([phone[side] for phone in phones], dtype=float) for side in (1, 2))
    own = np.array([sound.own for sound in sounds])[:, None]
    begin, finish = _clear(speaker, [s.formants for s in sounds]), _clear(speaker, [s.end for s in sounds])
    # What surrounds a consonant: the vowel after it or, at the end of a phrase, the one before.
    middles = (starts + ends) / 2
    vowels = np.nonzero([sound.syllabic for sound in sounds])[0]
    if len(vowels):
        following = vowels[np.clip(np.searchsorted(vowels, np.arange(len(sounds))), 0, len(vowels) - 1)]
        before = vowels[np.clip(np.searchsorted(vowels, np.arange(len(sounds))) - 1, 0, len(vowels) - 1)]
        nearer = (middles[following] - middles < 1.5 * (middles - middles[before])) | (before == following)
        around = np.where(nearer[:, None], begin[following], finish[before])
        begin, finish = own * begin + (1 - own) * around, own * finish + (1 - own) * around
    at = np.clip(np.searchsorted(starts, times, side="right") - 1, 0, None)
    through = np.clip(((times - starts[at]) / (ends[at] - starts[at]) - 0.15) / 0.7, 0, 1)[:, None]
    targets = begin[at] + through * (finish[at] - begin[at])
    smooth = gaussian_filter1d(targets, 0.016 * _TRACKS, axis=0, mode="nearest")
    return np.asarray(np.exp(smooth) * speaker.formant_scale)


def _clear(speaker: Speaker, formants: list[tuple[float, float, float]]) -> Floats:
    """Logarithms of formants; those of people who articulate more are a little farther from the middle."""
    return np.asarray(np.log(SCHWA) + (1 + 0.12 * (speaker.articulation - 1)) * (np.log(formants) - np.log(SCHWA)))


# Source and tract.


def _pulses(speaker: Speaker, tracks: Tracks, count: int, rng: np.random.Generator) -> Floats:
    """The voiced part (count,): one response for each period."""
    phase = np.cumsum(np.interp(np.arange(count) * _TRACKS / RATE, np.arange(len(tracks.f0)), tracks.f0) / RATE)
    periods = np.arange(1, int(phase[-1])) if count else np.zeros(0)
    moments = np.interp(periods, phase, np.arange(count) / RATE)
    at = moments * _TRACKS
    f0 = np.interp(at, np.arange(len(tracks.f0)), tracks.f0)
    moments = moments + speaker.jitter / f0 * rng.standard_normal(len(moments))
    amplitude = np.interp(at, np.arange(len(tracks.voicing)), tracks.voicing)
    amplitude = amplitude * (1 + speaker.shimmer * rng.standard_normal(len(moments)))
    kept = np.interp(at, np.arange(len(tracks.voicing)), tracks.voicing) > 1e-3
    moments, amplitude, f0, at = moments[kept], amplitude[kept], f0[kept], at[kept]
    sound = np.zeros(count + 2 * _SIZE)
    shape = 0.8 + 1.6 * speaker.breathiness
    for start in range(0, len(moments), _BLOCK):
        some = slice(start, start + _BLOCK)
        whole = np.floor(moments[some] * RATE)
        spectrum = glottal_spectrum(f0[some], shape) * tract(speaker, tracks, at[some])
        spectrum *= amplitude[some, None] * _delay(moments[some] * RATE - whole + _CLOSURE)
        _add(sound, np.fft.irfft(spectrum, _SIZE, axis=1), whole.astype(np.int64) - _CLOSURE + _SIZE)
    return sound[_SIZE : _SIZE + count]


def _noise(speaker: Speaker, tracks: Tracks, count: int, rng: np.random.Generator) -> Floats:
    """Aspiration and frication (count,). Noise of amplitude 1 has that root mean square."""
    sound = np.zeros(count + 2 * _SIZE)
    hertz = np.fft.rfftfreq(_SIZE, 1 / RATE)
    window = np.hanning(4 * _HOP + 1)[:-1] / np.sqrt(1.5)
    log_hertz = np.log(np.maximum(hertz, 20.0))
    frames = np.nonzero(tracks.aspiration + tracks.frication > 1e-3)[0]
    frames = frames[frames * _HOP < count]
    for start in range(0, len(frames), _BLOCK):
        some = frames[start : start + _BLOCK]
        mouth = np.exp(-0.5 * ((log_hertz - tracks.hill[some, :1]) / (tracks.hill[some, 1:] * np.log(2))) ** 2) + 0.01
        breath = tract(speaker, tracks, some.astype(float)) * np.sqrt(hertz / 1000)
        breath, mouth = (each / np.sqrt(np.mean(np.abs(each) ** 2, axis=1, keepdims=True)) for each in (breath, mouth))
        total = np.zeros((len(some), len(hertz)), complex)
        for spectrum, level in ((breath, tracks.aspiration[some]), (mouth, tracks.frication[some])):
            white = np.fft.rfft(rng.standard_normal((len(some), len(window))) * window, _SIZE, axis=1)
            total += level[:, None] * white * spectrum
        response = np.fft.irfft(total, _SIZE, axis=1)
        _add(sound, response, some * _HOP - len(window) // 2 + _SIZE)
    return sound[_SIZE : _SIZE + count]


def glottal_spectrum(f0: Floats, shape: float) -> NDArray[np.complex128]:
    """Spectra (K, bins) of single pulses of the flow's derivative, as it is radiated; time 0 is when the glottis closes.

    ``shape`` is Fant's Rd: 0.8 is a pressed voice, 2.4 a breathy one. The return phase is a low-pass of the first order.
    """
    omega = 2 * np.pi * np.fft.rfftfreq(_SIZE, 1 / RATE)[None]
    returning = (-1 + 4.8 * shape) / 100
    skew = (22.4 + 11.8 * shape) / 100
    peak = skew / (4 * (0.11 * shape / (0.5 + 1.2 * skew) - returning))
    opened = (1 + skew) / (2 * peak)  # the open phase as a share of the period
    angle = np.pi * (1 + skew)  # of the sine at the closure
    growth = _growth(angle)
    period = 1 / f0[:, None]
    duration = opened * period
    exponent = growth / duration
    turning = angle / duration

    def half(sign: int) -> NDArray[np.complex128]:
        rate = exponent + 1j * (sign * turning - omega)
        return np.asarray(np.exp(1j * sign * angle) * (1 - np.exp(-rate * duration)) / rate)

    wave = (half(1) - half(-1)) / (2j * np.sin(angle))
    # Amplitude 1 is the slope of the flow when it stops.
    return np.asarray(-RATE * wave / (1 + 1j * omega * returning * period))


def _growth(angle: float) -> float:
    """How fast the sine of the open phase grows, so that what flows in flows out: the integral of its derivative is 0."""

    def total(growth: float) -> float:
        steps = np.linspace(0, 1, 400)
        return float(np.trapezoid(np.exp(growth * (steps - 1)) * np.sin(angle * steps), steps))

    return float(brentq(total, 0.0, 40.0))


def tract(speaker: Speaker, tracks: Tracks, at: Floats) -> NDArray[np.complex128]:
    """The tract's response (K, bins) at moments ``at`` of the tracks: resonances in cascade (Klatt 1980, equations 1 to 4), and
    for nasals a resonance with a neighbouring antiresonance that is on top of it in other sounds."""

    def of(track: Floats) -> Floats:
        index = np.arange(len(track))
        return np.stack([np.interp(at, index, column) for column in track.T], axis=1)

    delay = np.exp(-2j * np.pi * np.arange(_SIZE // 2 + 1) / _SIZE)[None]
    formants, bandwidths = of(tracks.formants), of(tracks.bandwidths)
    nasality = np.interp(at, np.arange(len(tracks.nasality)), tracks.nasality)[:, None]
    response = np.ones((len(at), delay.shape[1]), complex)
    for number in range(formants.shape[1]):
        response /= _resonator(formants[:, number, None], bandwidths[:, number, None], delay)
    upper = np.array(_UPPER_FORMANTS) * speaker.formant_scale
    upper = upper[upper < 0.48 * RATE, None]
    response /= _resonator(upper, 100 + 0.05 * upper, delay).prod(axis=0)
    scale = speaker.formant_scale
    pole, zero = 270 * scale + 0 * nasality, (270 + 480 * nasality) * scale
    return np.asarray(response * _resonator(zero, 100 + 0 * zero, delay) / _resonator(pole, 100 + 0 * pole, delay))


def _resonator(hertz: Floats, bandwidth: Floats, delay: NDArray[np.complex128]) -> NDArray[np.complex128]:
    """1 over a digital resonator's response: 1 at 0 Hz."""
    radius = np.exp(-np.pi * bandwidth / RATE)
    b, c = 2 * radius * np.cos(2 * np.pi * hertz / RATE), -(radius**2)
    return np.asarray((1 - b * delay - c * delay**2) / (1 - b - c))


def _delay(samples: Floats) -> NDArray[np.complex128]:
    return np.asarray(np.exp(-2j * np.pi * np.arange(_SIZE // 2 + 1) / _SIZE * samples[:, None]))


def _add(sound: Floats, pieces: Floats, starts: NDArray[np.integer[Any]]) -> None:
    """Add pieces (K, n) to ``sound`` where they start."""
    at = starts[:, None] + np.arange(pieces.shape[1])
    first, last = int(at.min()), int(at.max()) + 1
    sound[first:last] += np.bincount((at - first).ravel(), pieces.ravel(), last - first)
