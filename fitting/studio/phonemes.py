"""The sounds of speech: what each sounds like, and what the jaw and the lips do for it.

About forty English-like phonemes under their ARPAbet names. Formants hold for a vocal tract of ``REFERENCE_TRACT``; those of
vowels are near the means for men of Hillenbrand et al. (1995), loci of consonants near those of Sussman et al. (1991).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

Kind = Literal["vowel", "diphthong", "stop", "fricative", "affricate", "nasal", "liquid", "glide", "silence"]
Formants = tuple[float, float, float]


class Noise(NamedTuple):
    """The spectrum of a hiss or a burst: a hill over the logarithm of frequency."""

    hz: float
    """Where the hill is."""
    octaves: float
    """Its standard deviation."""
    level: float
    """Amplitude, where 1 is that of a stressed vowel."""


class Mouth(NamedTuple):
    """What the mouth aims at, each from 0 to 1. Only the lips' names are those of ``EXPRESSIONS``."""

    jaw: float
    """Share of the widest opening in speech."""
    part: float
    round: float = 0.0
    funnel: float = 0.0
    spread: float = 0.0
    lower_lip_in: float = 0.0


@dataclass(frozen=True)
class Phoneme:
    """One sound."""

    symbol: str
    kind: Kind
    voiced: bool
    milliseconds: float
    """Typical duration in fluent speech."""
    formants: Formants
    """F1 to F3 in Hz; for consonants the locus that neighbours' formants point to."""
    end: Formants
    """Where a diphthong's formants go; others stay."""
    own: float
    """How much of the formants is the sound's own (0 to 1), the rest is its neighbours'."""
    mouth: Mouth
    mouth_end: Mouth
    """Where a diphthong's mouth goes; others stay."""
    grip_jaw: float
    """How dominant it is over its neighbours: the strength of Cohen and Massaro's dominance functions (1993)."""
    grip_lips: float
    """The same of what parts the lips."""
    grip_shape: float
    """The same of rounding, funnelling and spreading."""
    noise: Noise | None = None
    lips_shut: bool = False
    """Whether the lips close completely: p, b and m."""

    @property
    def syllabic(self) -> bool:
        """Whether it is the nucleus of a syllable."""
        return self.kind in ("vowel", "diphthong")

    @property
    def closure(self) -> float:
        """Share of its time, from the start, for which lips or tongue close the mouth."""
        stop = 0.76 if self.voiced else 0.62
        return {"stop": stop, "affricate": 0.5, "nasal": 0.9}.get(self.kind, 0.0)


SILENCE = "sil"
SCHWA: Formants = (500, 1450, 2450)
OPEN = ("aa", "ae", "ay", "aw", "ao")
"""Sounds with a wide open jaw."""
ROUNDED = ("uw", "uh", "ow", "oy", "ao")
BILABIAL = ("p", "b", "m")


def _vowel(symbol: str, ms: float, formants: Formants, mouth: Mouth) -> Phoneme:
    grip = 0.45 if symbol == "ax" else 1.0
    return Phoneme(symbol, "vowel", True, ms, formants, formants, 1.0, mouth, mouth, grip, grip, grip)


def _diphthong(symbol: str, ms: float, formants: Formants, mouth: Mouth, end: Formants, mouth_end: Mouth) -> Phoneme:
    return Phoneme(symbol, "diphthong", True, ms, formants, end, 1.0, mouth, mouth_end, 1.0, 1.0, 1.0)


def _consonant(
    symbol: str, kind: Kind, ms: float, formants: Formants, own: float, mouth: Mouth, grips: tuple[float, float, float]
) -> Phoneme:
    voiced = symbol not in (*"ptkfs", "th", "sh", "hh", "ch", SILENCE)
    noise = _NOISES.get(symbol)
    return Phoneme(symbol, kind, voiced, ms, formants, formants, own, mouth, mouth, *grips, noise, lips_shut=symbol in BILABIAL)


_NOISES = {
    # Bursts.
    "p": Noise(900, 1.1, 0.20),
    "b": Noise(800, 1.0, 0.14),
    "t": Noise(4500, 0.6, 0.40),
    "d": Noise(4000, 0.6, 0.28),
    "k": Noise(2000, 0.5, 0.34),
    "g": Noise(1800, 0.5, 0.24),
    # Hisses.
    "f": Noise(7000, 1.4, 0.13),
    "v": Noise(6000, 1.4, 0.07),
    "th": Noise(7500, 1.0, 0.10),
    "dh": Noise(6500, 1.0, 0.05),
    "s": Noise(6500, 0.32, 0.30),
    "z": Noise(6500, 0.32, 0.16),
    "sh": Noise(3300, 0.40, 0.38),
    "zh": Noise(3200, 0.40, 0.22),
    "hh": Noise(1500, 1.5, 0.16),
    "ch": Noise(3600, 0.45, 0.38),
    "jh": Noise(3400, 0.45, 0.24),
}

_TABLE = (
    # Vowels: duration in ms, F1 to F3, mouth.
    _vowel("iy", 110, (300, 2250, 2950), Mouth(0.16, 0.40, spread=0.75)),
    _vowel("ih", 85, (430, 1980, 2600), Mouth(0.34, 0.42, spread=0.45)),
    _vowel("eh", 105, (580, 1800, 2500), Mouth(0.62, 0.45, spread=0.35)),
    _vowel("ae", 140, (700, 1680, 2430), Mouth(0.90, 0.50, spread=0.35)),
    _vowel("aa", 140, (750, 1150, 2480), Mouth(1.00, 0.42)),
    _vowel("ah", 100, (640, 1220, 2420), Mouth(0.70, 0.36)),
    _vowel("ao", 135, (620, 900, 2450), Mouth(0.78, 0.30, round=0.55)),
    _vowel("uh", 85, (450, 1080, 2280), Mouth(0.36, 0.24, round=0.60)),
    _vowel("uw", 115, (320, 900, 2250), Mouth(0.14, 0.16, round=1.00)),
    _vowel("er", 120, (480, 1330, 1720), Mouth(0.38, 0.25, round=0.30, funnel=0.30)),
    _vowel("ax", 60, SCHWA, Mouth(0.40, 0.30)),
    # Diphthongs: the same, and where formants and mouth go.
    _diphthong("ay", 165, (740, 1250, 2480), Mouth(0.95, 0.44), (400, 2000, 2600), Mouth(0.35, 0.42, spread=0.45)),
    _diphthong("aw", 165, (740, 1300, 2480), Mouth(0.95, 0.42), (440, 950, 2350), Mouth(0.40, 0.24, round=0.65)),
    _diphthong("oy", 170, (580, 880, 2400), Mouth(0.68, 0.28, round=0.65), (400, 1950, 2550), Mouth(0.34, 0.40, spread=0.40)),
    _diphthong("ey", 135, (500, 1900, 2550), Mouth(0.50, 0.44, spread=0.45), (340, 2200, 2750), Mouth(0.24, 0.42, spread=0.65)),
    _diphthong("ow", 135, (530, 1000, 2400), Mouth(0.55, 0.28, round=0.70), (380, 850, 2300), Mouth(0.28, 0.20, round=0.90)),
    # Consonants: duration, formants, how much of them is their own, mouth, grips of jaw, lips and shape.
    # The lips of p, b and m shut (``articulation``); k and g leave them to their neighbours.
    _consonant("p", "stop", 105, (350, 800, 2200), 0.35, Mouth(0.0, 0.0), (0.7, 0.7, 0.2)),
    _consonant("b", "stop", 90, (250, 850, 2200), 0.35, Mouth(0.0, 0.0), (0.7, 0.7, 0.2)),
    _consonant("t", "stop", 90, (350, 1750, 2650), 0.60, Mouth(0.12, 0.28), (1.5, 0.5, 0.2)),
    _consonant("d", "stop", 70, (260, 1750, 2650), 0.60, Mouth(0.14, 0.28), (1.4, 0.5, 0.2)),
    _consonant("k", "stop", 95, (350, 1900, 2350), 0.30, Mouth(0.22, 0.30), (0.7, 0.2, 0.15)),
    _consonant("g", "stop", 75, (260, 1900, 2350), 0.30, Mouth(0.22, 0.30), (0.7, 0.2, 0.15)),
    _consonant("f", "fricative", 100, (340, 1100, 2200), 0.35, Mouth(0.10, 0.0, lower_lip_in=0.8), (1.4, 2.6, 0.4)),
    _consonant("v", "fricative", 65, (280, 1100, 2200), 0.35, Mouth(0.10, 0.0, lower_lip_in=0.7), (1.4, 2.6, 0.4)),
    _consonant("th", "fricative", 95, (340, 1400, 2550), 0.50, Mouth(0.18, 0.34), (1.1, 0.6, 0.3)),
    _consonant("dh", "fricative", 50, (280, 1400, 2550), 0.50, Mouth(0.20, 0.34), (0.9, 0.5, 0.2)),
    _consonant("s", "fricative", 115, (330, 1700, 2650), 0.60, Mouth(0.05, 0.40, spread=0.25), (2.4, 0.8, 0.6)),
    _consonant("z", "fricative", 80, (270, 1700, 2650), 0.60, Mouth(0.06, 0.40, spread=0.22), (2.4, 0.8, 0.6)),
    _consonant("sh", "fricative", 115, (330, 1800, 2500), 0.60, Mouth(0.06, 0.20, funnel=0.80), (2.2, 1.2, 1.8)),
    _consonant("zh", "fricative", 80, (270, 1800, 2500), 0.60, Mouth(0.06, 0.20, funnel=0.75), (2.2, 1.2, 1.8)),
    _consonant("hh", "fricative", 60, SCHWA, 0.0, Mouth(0.40, 0.30), (0.1, 0.1, 0.1)),
    _consonant("ch", "affricate", 120, (330, 1800, 2500), 0.60, Mouth(0.06, 0.20, funnel=0.80), (2.2, 1.2, 1.8)),
    _consonant("jh", "affricate", 95, (260, 1800, 2500), 0.60, Mouth(0.07, 0.20, funnel=0.75), (2.2, 1.2, 1.8)),
    _consonant("m", "nasal", 85, (280, 1000, 2200), 0.40, Mouth(0.0, 0.0), (0.7, 0.7, 0.2)),
    _consonant("n", "nasal", 70, (290, 1600, 2600), 0.60, Mouth(0.16, 0.28), (1.3, 0.5, 0.2)),
    _consonant("ng", "nasal", 80, (290, 1900, 2400), 0.40, Mouth(0.22, 0.28), (0.7, 0.2, 0.15)),
    _consonant("l", "liquid", 70, (370, 1100, 2650), 0.75, Mouth(0.34, 0.32), (0.6, 0.4, 0.3)),
    _consonant("r", "liquid", 70, (350, 1150, 1600), 0.80, Mouth(0.22, 0.18, round=0.35, funnel=0.40), (0.8, 0.6, 1.2)),
    _consonant("w", "glide", 70, (310, 680, 2200), 0.90, Mouth(0.08, 0.10, round=1.0), (1.2, 1.2, 2.2)),
    _consonant("y", "glide", 60, (290, 2200, 2950), 0.85, Mouth(0.14, 0.36, spread=0.60), (0.9, 0.5, 0.9)),
    _consonant(SILENCE, "silence", 300, SCHWA, 0.0, Mouth(0.0, 0.0), (1.0, 1.0, 0.6)),
)

PHONEMES = {phoneme.symbol: phoneme for phoneme in _TABLE}
"""By ARPAbet name in small letters; ``sil`` is silence."""
