"""How the mouth moves for speech."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from fitting.studio.articulation import JAW_IN_SPEECH, RATE, Articulation, articulate, closures
from fitting.studio.controls import EXPRESSIONS, JAW_OPEN
from fitting.studio.family import HeadFamily, still
from fitting.studio.phonemes import BILABIAL, PHONEMES, SILENCE
from fitting.studio.speaker import Speaker
from fitting.studio.speech import Phone, Speech, say

Floats = NDArray[np.float64]

AVERAGE = replace(Speaker.draw(np.random.default_rng(0)), articulation=1.0, rounding=1.0, smile=0.0, asymmetry=0.2)
FAMILY = HeadFamily("small")


def spoken(sounds: str, seconds: float = 0.12) -> Speech:
    """Sounds of equal length after half a second of silence and before another; no accents."""
    symbols = sounds.split()
    edges = 0.5 + seconds * np.arange(len(symbols) + 1)
    phones = [Phone(symbol, float(edges[k]), float(edges[k + 1]), True) for k, symbol in enumerate(symbols)]
    end = float(edges[-1])
    return Speech([Phone(SILENCE, 0, 0.5, False), *phones, Phone(SILENCE, end, end + 0.5, False)], [], [(0.5, end)])


def moved(sounds: str, speaker: Speaker = AVERAGE, seconds: float = 0.12) -> Articulation:
    return articulate(speaker, spoken(sounds, seconds), np.random.default_rng(0))


def track(articulation: Articulation, name: str) -> Floats:
    return articulation.activations[:, EXPRESSIONS.index(name)]


def at(seconds: float) -> int:
    return round(seconds * RATE)


def opening_mm(articulation: Articulation, person: int = 0) -> Floats:
    """(N,) between the lips of one of the family's people."""
    controls = still(len(articulation.jaw))
    controls.jaw[:, 0] = articulation.jaw
    controls = controls._replace(expression=articulation.activations)
    return 1000 * FAMILY.openings(FAMILY.vertices(FAMILY.people(person + 1)[person], controls)).mouth


@pytest.mark.parametrize("sounds", ["aa p aa", "aa b aa", "ao m ao", "iy m iy", "uw b uw", "sh p aa", "ae s p r ae", "ah m p ah"])
def test_lips_meet_in_sounds_of_the_lips(sounds: str) -> None:
    for person, speaker in enumerate((AVERAGE, replace(AVERAGE, articulation=1.4, rounding=1.2), replace(AVERAGE, smile=0.4))):
        opening = opening_mm(moved(sounds, speaker), person)
        for place, symbol in enumerate(sounds.split()):
            if symbol in BILABIAL:
                assert opening[at(0.5 + 0.12 * (place + 0.5))] < 1.0


def test_the_mouth_is_as_wide_open_as_its_vowel() -> None:
    widest = {vowel: opening_mm(moved(f"t {vowel} t")).max() for vowel in ("aa", "ah", "ih", "iy", "uw")}
    assert list(widest) == sorted(widest, key=widest.__getitem__, reverse=True)
    assert widest["aa"] > 9
    assert widest["uw"] < 4


def test_those_who_articulate_more_open_wider_and_never_beyond_what_speech_does() -> None:
    small, large = (moved("t aa t", replace(AVERAGE, articulation=size)) for size in (0.6, 1.4))
    assert 2.1 < large.jaw.max() / small.jaw.max() < 2.5
    assert moved("aa aa aa", replace(AVERAGE, articulation=1.4)).jaw.max() < 0.6 * JAW_OPEN
    # Openness is in terms of the speaker's own widest.
    assert abs(large.openness.max() - small.openness.max()) < 0.1


def test_openness_is_how_far_the_lips_are_apart() -> None:
    said = moved("hh aa t iy b ae k ow m ih n d ah l eh p ay")
    assert np.corrcoef(said.openness, opening_mm(said))[0, 1] > 0.96


def test_lips_lead_and_rounding_leads_most() -> None:
    said = moved("t iy t uw t iy t", seconds=0.15)
    vowel = 0.5 + 3 * 0.15
    rounded = track(said, "lips_round")
    peak = np.argmax(rounded) / RATE
    assert 0.02 < vowel + 0.075 - peak < 0.15
    # It begins in the consonant before the vowel, and even in the vowel before that.
    assert rounded[at(vowel - 0.06)] > 0.5 * rounded.max()
    assert rounded[at(vowel - 0.15)] > 0.15 * rounded.max()
    said = moved("t iy t aa t iy t", seconds=0.15)
    peak = np.argmax(said.jaw) / RATE
    assert 0.02 < vowel + 0.075 - peak < 0.10


def test_weak_sounds_take_their_neighbours_shape_and_strong_ones_keep_their_own() -> None:
    def jaw(sounds: str) -> float:
        return float(moved(sounds).jaw[at(0.5 + 1.5 * 0.12 - 0.055)])

    borrowed = jaw("aa hh aa") - jaw("iy hh iy")
    own = jaw("aa s aa") - jaw("iy s iy")
    assert borrowed > 0.5 * JAW_IN_SPEECH
    assert own < 0.35 * borrowed
    assert jaw("aa s aa") < 0.35 * JAW_IN_SPEECH


@pytest.mark.parametrize(
    ("sounds", "name"),
    [("aa f aa", "lower_lip_in"), ("aa sh aa", "lips_funnel"), ("aa iy aa", "lips_spread"), ("aa w aa", "lips_round")],
)
def test_each_sound_makes_its_own_move(sounds: str, name: str) -> None:
    assert track(moved(sounds), name).max() > 0.4
    assert track(moved("aa k aa"), name).max() < 0.05


def test_a_mouth_goes_to_its_side_as_it_opens() -> None:
    left, right = moved("t aa t"), moved("t aa t", replace(AVERAGE, asymmetry=-0.2))
    assert track(left, "mouth_left").max() > 0.1 > 0 == track(left, "mouth_right").max()
    assert track(right, "mouth_right").max() > 0.1 > 0 == track(right, "mouth_left").max()


def test_a_smile_stays_and_gives_way_to_rounding() -> None:
    said = moved("t aa t uw uw uw", replace(AVERAGE, smile=0.4))
    smile = track(said, "smile_left")
    assert smile[: at(0.3)].min() > 0.25
    assert smile[at(1.0)] < 0.7 * smile[at(0.3)]
    assert track(moved("t aa t"), "smile_left").max() == 0


def test_closures_are_one_in_the_lips_sounds_and_have_no_edges() -> None:
    speech = spoken("aa b aa m p aa")
    times = np.arange(0, 1.7, 1 / RATE)
    shut = closures(speech, times)
    assert shut[at(0.5 + 1.4 * 0.12)] > 0.98
    assert shut[at(0.5 + 3.5 * 0.12)] > 0.98
    assert shut[at(0.5 + 2.3 * 0.12)] < 0.3
    assert shut.max() <= 1
    assert np.abs(np.diff(shut, 2)).max() < 0.05
    assert not closures(spoken("aa t aa"), times).any()


def test_movements_are_no_faster_than_peoples() -> None:
    for number in range(10):
        rng = np.random.default_rng([4, number])
        speaker = replace(Speaker.draw(rng), articulation=1.4)
        said = articulate(speaker, say(speaker, 6.0, rng), rng)
        assert np.abs(np.diff(said.jaw)).max() * RATE < 6
        assert np.abs(said.activations[2:] - said.activations[:-2]).max() < 0.2
        assert said.activations.min() >= 0
        assert said.activations.max() <= 1
        assert said.jaw.min() >= 0


def test_every_sound_can_be_said_in_any_company() -> None:
    symbols = [symbol for symbol in PHONEMES if symbol != SILENCE]
    order = np.random.default_rng(0).permutation(np.repeat(symbols, 3))
    said = moved(" ".join(order), seconds=0.07)
    assert np.isfinite(said.activations).all()
    assert len(said.jaw) >= RATE * (1 + 0.07 * len(order))
