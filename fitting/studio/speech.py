"""What is said: sentences of no meaning with the sound pattern of English, and when each sound begins and ends."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fitting.studio.phonemes import BILABIAL, OPEN, PHONEMES, ROUNDED, SILENCE
from fitting.studio.speaker import Speaker


class Phone(NamedTuple):
    """One sound in time."""

    symbol: str
    """A key of ``PHONEMES``."""
    start: float
    """Seconds."""
    end: float
    stressed: bool
    """Whether its syllable carries stress."""


class Accent(NamedTuple):
    """A stressed syllable, for intonation, nods and brows."""

    time: float
    """Seconds; the middle of its vowel."""
    strength: float
    """0 to 1."""


class Speech(NamedTuple):
    """What is said in a take."""

    phones: list[Phone]
    """They follow each other without gaps from 0 to the end of the take."""
    accents: list[Accent]
    phrases: list[tuple[float, float]]
    """Start and end in seconds, without the pauses."""


class _Syllable(NamedTuple):
    onset: tuple[str, ...]
    nucleus: str
    coda: tuple[str, ...]
    strength: float
    """0 where it is not stressed."""


# Clusters by weight. Sounds of the lips are rarer than in English, because every phrase gets one besides.
_ONSETS = {
    24: "t d k n s l r w hh",
    10: "g f y v th dh sh ch jh z",
    4: "p b m",
    5: "t-r d-r k-l k-r g-l g-r f-l f-r s-t s-k s-n s-w t-w k-w s-l th-r",
    2: "p-l p-r b-l b-r s-p s-m s-t-r s-k-r s-p-r",
    40: "",
}
_CODAS = {
    48: "",
    10: "n t d s l k z",
    5: "g f v ng r th sh ch n-t n-d s-t n-z l-d k-s t-s r-t r-d",
    2: "p b m m-p r-m ng-k l-z",
}
_VOWELS = {5: "ih eh ae aa iy ey ay ow uw ah", 3: "ao er aw uh", 2: "oy"}
_WEAK = {8: "ax", 4: "ih", 2: "er ah iy", 1: "ow uh"}


def _choices(table: dict[int, str]) -> tuple[list[tuple[str, ...]], np.ndarray]:
    found, weights = [], []
    for weight, clusters in table.items():
        for cluster in clusters.split() or [""]:
            found.append(tuple(sound for sound in cluster.split("-") if sound))
            weights.append(weight)
    return found, np.array(weights) / sum(weights)


_CHOICES = {name: _choices(table) for name, table in (("onset", _ONSETS), ("coda", _CODAS), ("vowel", _VOWELS), ("weak", _WEAK))}


def say(speaker: Speaker, seconds: float, rng: np.random.Generator) -> Speech:
    """Speech that fills ``seconds``: phrases of 4 to 9 syllables with pauses between them, silence at both ends.

    Every phrase has a sound of the lips, a stressed open vowel and a rounded one. What is too short for a syllable is silent.
    """
    lead = min(rng.uniform(0.15, 0.30), 0.12 * seconds)
    last = seconds - min(rng.uniform(0.18, 0.35), 0.15 * seconds)
    phones: list[Phone] = [Phone(SILENCE, 0.0, lead, False)]
    accents: list[Accent] = []
    phrases: list[tuple[float, float]] = []
    clock = lead
    while True:
        # The first phrase is not long, so that takes of a few seconds have a pause.
        count = int(rng.integers(4, 7 if not phrases else 10))
        syllables = _phrase(count, rng)
        lengths = [_durations(syllable, speaker, rng) for syllable in syllables]
        lengths[-1] *= 1.35  # phrase-final lengthening
        fitting = int(np.searchsorted(np.cumsum([length.sum() for length in lengths]), last - clock, side="right"))
        # A remainder of one syllable is not said, unless the take is so short that there is no more.
        if fitting == 0 or (fitting == 1 and phrases):
            break
        begin = clock
        for syllable, length in zip(syllables[:fitting], lengths[:fitting], strict=True):
            sounds = (*syllable.onset, syllable.nucleus, *syllable.coda)
            edges = clock + np.concatenate([[0.0], np.cumsum(length)])
            phones += [
                Phone(sound, float(start), float(end), syllable.strength > 0)
                for sound, start, end in zip(sounds, edges[:-1], edges[1:], strict=True)
            ]
            if syllable.strength > 0:
                vowel = len(syllable.onset)
                accents.append(Accent(float(edges[vowel] + edges[vowel + 1]) / 2, syllable.strength))
            clock = float(edges[-1])
        phrases.append((begin, clock))
        pause = speaker.pausing * rng.uniform(0.28, 0.65)
        if fitting < count or clock + pause > last:
            break
        phones.append(Phone(SILENCE, clock, clock + pause, False))
        clock += pause
    if phones[-1].symbol == SILENCE:
        clock = phones.pop().start
    phones.append(Phone(SILENCE, clock, seconds, False))
    return Speech(phones, accents, phrases)


def _phrase(count: int, rng: np.random.Generator) -> list[_Syllable]:
    """``count`` syllables in words of one to three, of which one is stressed."""
    stressed = np.zeros(count, bool)
    start = 0
    while start < count:
        length = min(int(rng.choice([1, 2, 3], p=[0.4, 0.4, 0.2])), count - start)
        stressed[start + int(rng.integers(length))] = rng.random() < 0.85 or start == 0
        start += length
    strengths = stressed * rng.uniform(0.35, 1.0, count)
    opened = int(rng.choice(np.nonzero(stressed)[0]))
    strengths[opened] = max(strengths[opened], 0.7)
    rounded, labial = rng.permutation(np.delete(np.arange(count), opened))[:2]
    syllables: list[_Syllable] = []
    for number, strength in enumerate(strengths):
        (nucleus,) = _draw("vowel" if strength > 0 else "weak", rng)
        onset, coda = _draw("onset", rng), _draw("coda", rng)
        if number == opened:
            nucleus = str(rng.choice(OPEN))
        elif number == rounded:
            nucleus = str(rng.choice(ROUNDED))
        elif number == labial:
            onset = (str(rng.choice(BILABIAL)),)
        # Two vowels do not meet, nor does a long cluster follow another.
        if number and not onset and not syllables[-1].coda:
            onset = (str(rng.choice(["n", "t", "l", "d", "m", "w"])),)
        if len(onset) > 1 and syllables and len(syllables[-1].coda) > 1:
            onset = onset[-1:]
        syllables.append(_Syllable(onset, nucleus, coda, float(strength)))
    return syllables


def _draw(part: str, rng: np.random.Generator) -> tuple[str, ...]:
    found, weights = _CHOICES[part]
    return found[int(rng.choice(len(found), p=weights))]


def _durations(syllable: _Syllable, speaker: Speaker, rng: np.random.Generator) -> np.ndarray:
    """Seconds of the sounds of a syllable."""
    sounds = [PHONEMES[sound] for sound in (*syllable.onset, syllable.nucleus, *syllable.coda)]
    typical = np.array([sound.milliseconds / 1000 for sound in sounds])
    nucleus = np.array([sound.syllabic for sound in sounds])
    stress = np.where(nucleus, 0.80 + 0.45 * syllable.strength, 0.90 + 0.15 * syllable.strength)
    # Sounds of a cluster shorten each other.
    crowded = np.where(nucleus | (len(sounds) <= 3), 1.0, 0.85)
    spread = np.exp(0.10 * rng.standard_normal(len(sounds)))
    found: np.ndarray = np.maximum(0.94 * typical * stress * crowded * spread / speaker.rate, 0.035)
    return found
