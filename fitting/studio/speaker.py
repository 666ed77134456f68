"""A person of the studio: a voice, and a style of moving."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

REFERENCE_TRACT = 0.170
"""Metres of the vocal tract for which the phonemes' formants hold."""


@dataclass(frozen=True)
class Speaker:
    """One person. The ranges are those of ``draw``; two numbers are for a man, a woman and a child where they differ."""

    group: Literal["man", "woman", "child"]

    # The voice.
    f0: float
    """Hz where a phrase ends: 80 to 120, 150 to 205, 215 to 290."""
    f0_range: float
    """How far intonation swings: 0.6 to 1.4, 1 is about eight semitones."""
    tract: float
    """Length of the vocal tract in metres: 0.162 to 0.178, 0.140 to 0.152, 0.118 to 0.132. Formants go by its inverse."""
    breathiness: float
    """0 to 1: more open glottis, steeper spectrum, more aspiration."""
    jitter: float
    """Share of a period by which periods differ: 0.003 to 0.010."""
    shimmer: float
    """Share of the amplitude by which periods differ: 0.02 to 0.06."""
    rate: float
    """Speed of speech: 0.85 to 1.20."""
    pausing: float
    """Length of pauses: 0.7 to 1.4."""

    # The mouth.
    articulation: float
    """Size of all movements of the jaw and the lips: 0.6 to 1.4. Vowels of those who move more are a little clearer."""
    rounding: float
    """Size of rounding on top of that: 0.8 to 1.2."""
    asymmetry: float
    """To which side the mouth goes as it opens: -0.25 to 0.25, positive is the person's left."""
    smile: float
    """At rest: 0 to 0.4."""

    # Head, eyes and brows.
    head_motion: float
    """Standard deviation in radians of the head's restless movement: 0.010 to 0.045."""
    head_axes: tuple[float, float, float]
    """How it is shared by nodding, turning and tilting; its norm is 1."""
    head_tempo: float
    """Hz where the spectrum of that movement begins to fall: 0.5 to 1.5."""
    nod: float
    """Radians of a nod on the strongest stress: 0.02 to 0.10."""
    posture: tuple[float, float, float]
    """How the head is held, in radians: within 0.08 or so."""
    neck_share: float
    """Share of the head's rotation that is the neck's: 0.3 to 0.6; the rest is the whole's."""
    blink_rate: float
    """Blinks in a minute: 8 to 30."""
    droop: float
    """How far the lids hang: 0 to 0.08."""
    brow: float
    """Strength and frequency of raised brows on stressed words: 0 to 0.7."""
    wandering: float
    """How far the gaze strays, in radians: 0.02 to 0.12."""

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Speaker:
        """Anyone: 4 of 10 are men, 4 women, 2 children."""
        group: Literal["man", "woman", "child"] = ("man", "woman", "child")[int(rng.choice(3, p=(0.4, 0.4, 0.2)))]
        low, high = {"man": (80, 120), "woman": (150, 205), "child": (215, 290)}[group]
        short, long = {"man": (0.162, 0.178), "woman": (0.140, 0.152), "child": (0.118, 0.132)}[group]
        axes = rng.dirichlet((2.0, 2.0, 1.5)) ** 0.5
        return cls(
            group=group,
            f0=rng.uniform(low, high),
            f0_range=rng.uniform(0.6, 1.4),
            tract=rng.uniform(short, long),
            breathiness=float(np.clip(rng.beta(1.5, 2.5) + 0.15 * (group == "woman"), 0, 1)),
            jitter=rng.uniform(0.003, 0.010),
            shimmer=rng.uniform(0.02, 0.06),
            rate=rng.uniform(0.85, 1.20),
            pausing=rng.uniform(0.7, 1.4),
            articulation=rng.uniform(0.6, 1.4),
            rounding=rng.uniform(0.8, 1.2),
            asymmetry=rng.uniform(-0.25, 0.25),
            smile=float(0.4 * rng.beta(1.0, 1.8)),
            head_motion=float(np.exp(rng.uniform(np.log(0.010), np.log(0.045)))),
            head_axes=(float(axes[0]), float(axes[1]), float(axes[2])),
            head_tempo=rng.uniform(0.5, 1.5),
            nod=float(np.exp(rng.uniform(np.log(0.02), np.log(0.10)))),
            posture=(0.03 * rng.standard_normal(), 0.03 * rng.standard_normal(), 0.025 * rng.standard_normal()),
            neck_share=rng.uniform(0.3, 0.6),
            blink_rate=float(np.exp(rng.uniform(np.log(8), np.log(30)))),
            droop=rng.uniform(0.0, 0.08),
            brow=rng.uniform(0.0, 0.7),
            wandering=rng.uniform(0.02, 0.12),
        )

    @property
    def formant_scale(self) -> float:
        """What the phonemes' formants are multiplied with. A smile draws the lips back and shortens the tract a little."""
        return REFERENCE_TRACT / self.tract * (1 + 0.06 * self.smile)
