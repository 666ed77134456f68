"""A voice, measured as voices are."""

from functools import lru_cache

import librosa
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.linalg import solve_toeplitz

from fitting.studio.articulation import articulate
from fitting.studio.phonemes import PHONEMES, SILENCE
from fitting.studio.speaker import Speaker
from fitting.studio.speech import Accent, Phone, Speech, say
from fitting.studio.voice import RATE, at_rate, glottal_spectrum, intonation, levelled, voice

Floats = NDArray[np.float64]


@lru_cache
def speaker_of(group: str) -> Speaker:
    drawn = (Speaker.draw(np.random.default_rng([7, number])) for number in range(100))
    return next(speaker for speaker in drawn if speaker.group == group)


def held(symbol: str) -> Speech:
    """One sound for a second, with silence around it."""
    phones = [Phone(SILENCE, 0, 0.1, False), Phone(symbol, 0.1, 1.1, True), Phone(SILENCE, 1.1, 1.4, False)]
    return Speech(phones, [Accent(0.6, 0.5)], [(0.1, 1.1)])


def sung(speaker: Speaker, symbol: str) -> Floats:
    return voice(speaker, held(symbol), np.full(2, 0.5), np.random.default_rng(1))


def prediction(wave: Floats, order: int) -> Floats:
    """The polynomial of linear prediction by autocorrelation (Makhoul, 1975). librosa's compiles for half a minute first."""
    correlation = np.correlate(wave, wave, "full")[len(wave) - 1 :][: order + 1]
    return np.append(1.0, -solve_toeplitz(correlation[:-1], correlation[1:]))


def formants(sound: Floats, rate: int) -> Floats:
    """F1 and F2 by linear prediction: medians over frames of 50 ms."""
    wave = librosa.resample(sound, orig_sr=RATE, target_sr=rate)
    wave = np.append(wave[0], wave[1:] - 0.97 * wave[:-1])
    size, found = rate // 20, []
    for start in range(rate // 10, len(wave) - size, size):
        roots = np.roots(prediction(wave[start : start + size] * np.hamming(size), 12))
        hertz, width = np.angle(roots) * rate / (2 * np.pi), -np.log(np.abs(roots)) * rate / np.pi
        peaks = np.sort(hertz[(hertz > 150) & (width < 400)])
        if len(peaks) > 1:
            found.append(peaks[:2])
    return np.asarray(np.median(np.array(found), axis=0))


@pytest.mark.parametrize("group", ["man", "woman", "child"])
@pytest.mark.parametrize("symbol", ["iy", "eh", "aa", "uw", "er"])
def test_linear_prediction_finds_the_formants_that_were_asked_for(group: str, symbol: str) -> None:
    speaker = speaker_of(group)
    sound = sung(speaker, symbol)[RATE // 5 : RATE]
    found = formants(sound, 11_000 if group == "child" else 10_000)
    asked = np.array(PHONEMES[symbol].formants[:2]) * speaker.formant_scale
    # Prediction draws F1 to the nearest harmonic, which is at most half of F0 away.
    assert abs(found[0] - asked[0]) < max(0.12 * asked[0], 0.4 * speaker.f0)
    assert abs(found[1] / asked[1] - 1) < 0.08


@pytest.mark.parametrize("group", ["man", "woman", "child"])
def test_the_pitch_is_that_of_intonation_and_in_the_speakers_range(group: str) -> None:
    speaker = speaker_of(group)
    found = librosa.yin(sung(speaker, "aa")[RATE // 5 : RATE], fmin=60, fmax=450, sr=RATE, frame_length=2048)
    assert 0.93 * speaker.f0 < np.median(found) < speaker.f0 * 2 ** (9 * speaker.f0_range / 12)
    times = np.arange(80, 400) / 400
    asked = np.median(intonation(speaker, held("aa"), times, np.random.default_rng(1)))
    assert abs(np.median(found) / asked - 1) < 0.05


def test_pitch_declines_over_a_phrase_and_rises_on_accents() -> None:
    speaker, times = speaker_of("woman"), np.linspace(0, 1.4, 561)
    flat = Speech(held("aa").phones, [], [(0.1, 1.1)])
    draws = [np.random.default_rng(number) for number in range(30)]
    plain = np.mean([intonation(speaker, flat, times, rng) for rng in draws], axis=0)
    accented = np.mean([intonation(speaker, held("aa"), times, np.random.default_rng(number)) for number in range(30)], axis=0)
    assert plain[80] > 1.08 * plain[400]
    assert accented[246] > 1.06 * plain[246]
    assert abs(accented[60] / plain[60] - 1) < 0.02


def test_a_hiss_is_where_its_sound_has_it() -> None:
    speaker = speaker_of("man")
    centres = {}
    for symbol in ("s", "sh", "f"):
        sound = sung(speaker, symbol)[RATE // 5 : RATE]
        power = np.abs(np.fft.rfft(sound)) ** 2
        hertz = np.fft.rfftfreq(len(sound), 1 / RATE)
        centres[symbol] = float((power * hertz).sum() / power.sum())
    assert centres["s"] > 5500
    assert 2800 < centres["sh"] < 4500
    vowel, hiss = (np.sqrt(np.mean(sung(speaker, symbol)[RATE // 5 : RATE] ** 2)) for symbol in ("aa", "f"))
    assert hiss < 0.3 * vowel


def test_an_open_mouth_is_louder() -> None:
    halves = np.repeat([0.0, 1.0], 500)
    sound = voice(speaker_of("man"), held("aa"), halves, np.random.default_rng(1))
    before, after = sound[int(0.3 * RATE) : int(0.6 * RATE)], sound[int(0.75 * RATE) : int(1.0 * RATE)]
    assert 2 < np.std(after) / np.std(before) < 6


def test_the_glottis_lets_out_what_it_let_in_and_a_breathy_one_falls_off_faster() -> None:
    f0 = np.array([100.0, 250.0])
    pressed, breathy = np.abs(glottal_spectrum(f0, 0.8)), np.abs(glottal_spectrum(f0, 2.4))
    assert (pressed[:, 0] < 0.02 * pressed.max(axis=1)).all()
    fall = pressed[:, 10] / pressed[:, 200], breathy[:, 10] / breathy[:, 200]
    assert (fall[1] > 2 * fall[0]).all()


def test_nothing_is_heard_where_nothing_is_said() -> None:
    sound = sung(speaker_of("woman"), "ae")
    assert not sound[: int(0.05 * RATE)].any()
    assert not sound[int(1.25 * RATE) :].any()
    silent = Speech([Phone(SILENCE, 0, 0.5, False)], [], [])
    assert not voice(speaker_of("woman"), silent, np.zeros(2), np.random.default_rng(0)).any()


def test_closures_are_quiet_and_stops_burst() -> None:
    speaker = speaker_of("man")
    phones = [Phone(SILENCE, 0, 0.1, False), Phone("aa", 0.1, 0.4, True), Phone("t", 0.4, 0.52, False)]
    phones += [Phone("aa", 0.52, 0.8, True), Phone(SILENCE, 0.8, 1.0, False)]
    sound = voice(speaker, Speech(phones, [], [(0.1, 0.8)]), np.full(2, 0.5), np.random.default_rng(1))

    def level(start: float, end: float) -> float:
        return float(np.sqrt(np.mean(sound[int(start * RATE) : int(end * RATE)] ** 2)))

    closed = 0.4 + 0.62 * 0.12
    assert level(0.44, closed - 0.012) < 0.02 * level(0.2, 0.35)
    assert level(closed, closed + 0.01) > 5 * level(0.44, closed - 0.012)


def test_loudness_does_not_depend_on_the_speaker_and_nothing_clips() -> None:
    levels = []
    for number in range(8):
        rng = np.random.default_rng([3, number])
        speaker = Speaker.draw(rng)
        speech = say(speaker, 3.0, rng)
        openness = articulate(speaker, speech, rng).openness
        sound = levelled(voice(speaker, speech, openness, rng))
        assert np.abs(sound).max() <= 0.95
        levels.append(20 * np.log10(np.std(sound)))
    assert np.ptp(levels) < 4


def test_other_rates_are_the_same_sound() -> None:
    sound = sung(speaker_of("man"), "aa")
    for rate in (16_000, 44_100, 48_000):
        count = round(1.4 * rate)
        other = at_rate(sound, rate, count)
        assert other.shape == (count,)
        assert abs(np.std(other) / np.std(sound) - 1) < 0.02
