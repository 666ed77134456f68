"""A person's performance at the moments of a recording, and the answers that are written beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fitting.cameras import Camera
from fitting.studio.bfm_file import bfm_codes
from fitting.studio.controls import EXPRESSIONS, Controls
from fitting.studio.expressions import expression_code
from fitting.studio.family import HeadFamily
from fitting.studio.nphm_file import nphm_expression, nphm_identity
from fitting.studio.people import PICTURED, Person, person
from fitting.studio.performance import Performance, perform
from fitting.studio.surface import Floats

SAMPLE_RATE = 48_000


@dataclass(frozen=True, slots=True)
class Conditions:
    """What takes that are recorded together have in common. Raises ``ValueError`` for what cannot be recorded."""

    seconds: float
    size: tuple[int, int]
    """Width and height of the pictures in pixels, even numbers from 64 on."""
    seed: int = 0
    noise_db: float | None = None
    """Noise is added so that the voice is so many decibels above it; None adds none."""
    gain: float = 1.0
    """Loudness of the voice."""

    def __post_init__(self) -> None:
        if not self.seconds >= 0.2:
            raise ValueError(f"a take of {self.seconds} s is too short: give at least 0.2 s")
        if any(side < 64 or side % 2 for side in self.size):
            raise ValueError(f"pictures of {self.size[0]}x{self.size[1]} cannot be encoded: give even sizes from 64 on")
        if not 0 < self.gain <= 1:
            raise ValueError(f"a gain of {self.gain} is not above 0 and at most 1")


class Act(NamedTuple):
    """A performance at T moments."""

    person: Person
    performance: Performance
    times: Floats
    """(T,) seconds."""
    controls: Controls
    vertices: Tensor
    """(T, V, 3) float32 metres of the mesh that pictures show, in the world."""


def act(number: int, times: Floats, conditions: Conditions, take: int, sample_rate: int = SAMPLE_RATE) -> Act:
    """What person ``number`` does in a ``take``, at ``times`` (T,) in seconds, and the sound at ``sample_rate``."""
    who = person(number, conditions.seed)
    performance = perform(
        who.speaker,
        conditions.seconds,
        [conditions.seed, number, take],
        sample_rate=sample_rate,
        noise_db=conditions.noise_db,
        gain=conditions.gain,
    )
    controls = performance.at(times)
    return Act(who, performance, times, controls, HeadFamily(PICTURED).vertices(who.identity, controls))


def landmarks(acted: Act) -> Tensor:
    """(T, 68, 3) float64 metres in the world."""
    return HeadFamily(PICTURED).landmarks(acted.vertices).double()


def answers(acted: Act, cameras: Sequence[Camera], lighting: Tensor, visible: NDArray[np.bool_]) -> dict[str, Any]:
    """All arrays of ``fitting.studio.truth.TRUTH`` for C ``cameras``; ``visible`` (C, T, 68) is of the landmarks."""
    who, controls = acted.person, acted.controls
    family = HeadFamily(PICTURED)
    points, openings = landmarks(acted), family.openings(acted.vertices)
    seen = [camera.project(points)[0] for camera in cameras]
    bfm = bfm_codes(who.identity, controls)
    blinks = [EXPRESSIONS.index("blink_left"), EXPRESSIONS.index("blink_right")]
    phonemes = acted.performance.phonemes
    return {
        "times": acted.times,
        "person": np.int64(who.number),
        "identity": who.identity,
        "activations": controls.expression,
        "jaw": controls.jaw,
        "neck": controls.neck,
        "head": controls.head,
        "translation": controls.translation,
        "gaze": controls.gaze,
        "flame_expression": expression_code(controls.expression),
        "bfm_identity": bfm.identity,
        "bfm_expression": bfm.expression,
        "bfm_residual_mm": bfm.residual,
        "nphm_identity": nphm_identity(who.identity),
        "nphm_expression": nphm_expression(controls.expression, controls.jaw),
        "vertices": acted.vertices.numpy(),
        "landmarks68": points.numpy(),
        "landmarks68_image": torch.stack(seen).numpy(),
        "landmarks68_visible": visible,
        "mouth_opening_mm": 1000 * openings.mouth,
        "eye_opening_mm": 1000 * np.stack([openings.left_eye, openings.right_eye], axis=1),
        "blink": controls.expression[:, blinks].clip(0, 1),
        "intrinsics": torch.stack([camera.intrinsics for camera in cameras]).numpy(),
        "world_to_camera": torch.stack([camera.world_to_camera for camera in cameras]).numpy(),
        "lighting": lighting.double().numpy(),
        "phonemes": np.array([phone.symbol for phone in phonemes], np.str_),
        "phoneme_times": np.array([(phone.start, phone.end) for phone in phonemes]),
        "sound_clean": acted.performance.clean,
    }
