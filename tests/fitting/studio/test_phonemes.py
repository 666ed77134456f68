"""The sounds of speech."""

from fitting.studio.controls import EXPRESSIONS
from fitting.studio.phonemes import BILABIAL, OPEN, PHONEMES, ROUNDED, Mouth


def test_there_are_about_forty_of_all_kinds() -> None:
    assert 38 <= len(PHONEMES) <= 44
    kinds = {"vowel", "diphthong", "stop", "fricative", "affricate", "nasal", "liquid", "glide", "silence"}
    assert {sound.kind for sound in PHONEMES.values()} == kinds
    assert all(symbol == sound.symbol for symbol, sound in PHONEMES.items())


def test_obstruents_come_in_pairs_of_which_one_is_voiced() -> None:
    for voiceless, voiced in (("p", "b"), ("t", "d"), ("k", "g"), ("f", "v"), ("s", "z"), ("th", "dh"), ("ch", "jh")):
        assert PHONEMES[voiced].voiced
        assert not PHONEMES[voiceless].voiced
        assert PHONEMES[voiceless].milliseconds > PHONEMES[voiced].milliseconds


def test_the_first_formant_rises_with_the_jaw() -> None:
    vowels = sorted((sound.mouth.jaw, sound.formants[0]) for sound in PHONEMES.values() if sound.syllabic)
    assert vowels[-1][1] > 2 * vowels[0][1]
    assert all(low < 480 for jaw, low in vowels if jaw < 0.35)
    assert all(high > 560 for jaw, high in vowels if jaw > 0.6)


def test_formants_are_in_order() -> None:
    for sound in PHONEMES.values():
        for first, second, third in (sound.formants, sound.end):
            assert 200 < first < second < third < 3500


def test_only_p_b_and_m_shut_the_lips() -> None:
    assert {symbol for symbol, sound in PHONEMES.items() if sound.lips_shut} == set(BILABIAL)


def test_groups_are_what_they_are_called() -> None:
    assert min(PHONEMES[symbol].mouth.jaw for symbol in OPEN) > 0.7
    assert min(PHONEMES[symbol].mouth.round for symbol in ROUNDED) > 0.5
    s, k = PHONEMES["s"], PHONEMES["k"]
    assert s.mouth.jaw < 0.1
    assert s.grip_jaw > 3 * k.grip_jaw


def test_aims_of_the_lips_are_shares_and_have_the_names_of_activations() -> None:
    assert all(0 <= aim <= 1 for sound in PHONEMES.values() for aim in sound.mouth)
    assert {"lips_" + name for name in Mouth._fields if name not in ("jaw", "lower_lip_in")} < set(EXPRESSIONS)
