"""What is said in a take."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from fitting.studio.phonemes import BILABIAL, OPEN, PHONEMES, ROUNDED, SILENCE
from fitting.studio.speaker import Speaker
from fitting.studio.speech import Speech, say

ANYONE = Speaker.draw(np.random.default_rng(0))


def speeches(count: int, seconds: float) -> list[Speech]:
    speakers = [Speaker.draw(np.random.default_rng([1, number])) for number in range(count)]
    return [say(speaker, seconds, np.random.default_rng([2, number])) for number, speaker in enumerate(speakers)]


@pytest.mark.parametrize("seconds", [0.05, 0.3, 1.0, 4.0, 61.3])
def test_sounds_follow_each_other_from_the_beginning_to_the_end(seconds: float) -> None:
    for number in range(10):
        phones = say(ANYONE, seconds, np.random.default_rng(number)).phones
        assert phones[0].start == 0
        assert phones[-1].end == seconds
        assert all(one.end == other.start for one, other in pairwise(phones))
        assert all(phone.end > phone.start and phone.symbol in PHONEMES for phone in phones)
        assert phones[0].symbol == phones[-1].symbol == SILENCE


def test_a_take_of_four_seconds_has_all_that_lips_do_and_a_pause() -> None:
    for speech in speeches(60, 4.0):
        said = {phone.symbol for phone in speech.phones}
        assert said & set(BILABIAL)
        assert said & set(ROUNDED)
        assert any(phone.symbol in OPEN and phone.stressed for phone in speech.phones)
        assert any(phone.symbol == SILENCE for phone in speech.phones[1:-1])


def test_a_take_of_one_second_says_something() -> None:
    assert all(sum(PHONEMES[phone.symbol].syllabic for phone in speech.phones) >= 1 for speech in speeches(40, 1.0))


def test_phrases_are_of_four_to_nine_syllables() -> None:
    seen = set()
    for speech in speeches(20, 30.0):
        vowels = [(phone.start + phone.end) / 2 for phone in speech.phones if PHONEMES[phone.symbol].syllabic]
        counts = [sum(start < vowel < end for vowel in vowels) for start, end in speech.phrases]
        assert sum(counts) == len(vowels)
        seen |= set(counts[:-1])  # the last one may be cut
    assert seen == {4, 5, 6, 7, 8, 9}


def test_speech_is_as_fast_as_people_speak() -> None:
    said = speeches(20, 30.0)
    syllables = sum(PHONEMES[phone.symbol].syllabic for speech in said for phone in speech.phones)
    talking = sum(end - start for speech in said for start, end in speech.phrases)
    assert 3.3 < syllables / talking < 5.5
    shares = np.array([sum(phone.symbol in BILABIAL for phone in speech.phones) / len(speech.phones) for speech in said])
    assert 0.07 < shares.mean() < 0.14


def test_a_fast_speaker_is_faster_and_pauses_as_he_does() -> None:
    def pace(speaker: Speaker) -> tuple[float, float]:
        speech = say(speaker, 60.0, np.random.default_rng(5))
        talking = sum(end - start for start, end in speech.phrases)
        pauses = [phone.end - phone.start for phone in speech.phones[1:-1] if phone.symbol == SILENCE]
        return sum(phone.symbol != SILENCE for phone in speech.phones) / talking, float(np.mean(pauses))

    slow, long = pace(replace(ANYONE, rate=0.85, pausing=1.4))
    fast, short = pace(replace(ANYONE, rate=1.2, pausing=0.7))
    assert 1.2 < fast / slow < 1.6
    assert 1.6 < long / short < 2.6


def test_stress_lengthens_a_vowel_and_so_does_the_end_of_a_phrase() -> None:
    said = speeches(30, 20.0)
    vowels = [(phone, speech) for speech in said for phone in speech.phones if phone.symbol == "ih"]
    stressed = np.mean([phone.end - phone.start for phone, _ in vowels if phone.stressed])
    weak = np.mean([phone.end - phone.start for phone, _ in vowels if not phone.stressed])
    assert stressed > 1.15 * weak

    def lengths(last: bool) -> list[float]:
        found = []
        for speech in said:
            whole = speech.phrases[:-1]
            for phone in speech.phones:
                sound = PHONEMES[phone.symbol]
                ending = any(end - 0.4 < phone.start and phone.end <= end + 1e-9 for _, end in whole)
                if sound.syllabic and ending == last:
                    found.append(1000 * (phone.end - phone.start) / sound.milliseconds)
        return found

    assert np.mean(lengths(True)) > 1.1 * np.mean(lengths(False))


def test_accents_lie_on_stressed_vowels() -> None:
    for speech in speeches(10, 10.0):
        stressed = [phone for phone in speech.phones if phone.stressed and PHONEMES[phone.symbol].syllabic]
        assert len(stressed) == len(speech.accents)
        assert all(phone.start < accent.time < phone.end for phone, accent in zip(stressed, speech.accents, strict=True))
        assert all(0 < accent.strength <= 1 for accent in speech.accents)
