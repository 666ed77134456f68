"""The people of the studio: each has a head, a skin, a voice and a style, all told by a seed and a number."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from fitting.studio.family import HeadFamily
from fitting.studio.features import MOUTH, SKIN, below_collar, lip_heights, mouth
from fitting.studio.parts import LEFT_BALL, LOWER_TEETH, RIGHT_BALL, UPPER_TEETH
from fitting.studio.render import Surface
from fitting.studio.sampling import Size
from fitting.studio.skin import random_look, texture
from fitting.studio.speaker import Speaker
from fitting.studio.surface import Floats
from fitting.studio.truth import LABELS
from prep.colour import to_linear

PICTURED: Size = "large"
"""The mesh that pictures show."""


class Person(NamedTuple):
    """One of the people."""

    number: int
    identity: Floats
    """(300,) code of the head family."""
    speaker: Speaker
    surface: Surface


@lru_cache(maxsize=16)
def person(number: int, seed: int = 0) -> Person:
    """The same arguments are always the same person; another seed has other people."""
    family = HeadFamily(PICTURED)
    mesh = family.mesh
    painted = texture(random_look(1_000_003 * seed + number)).astype(np.float32) / 255
    surface = Surface(
        torch.from_numpy(mesh.faces),
        torch.from_numpy(mesh.uv).float(),
        torch.from_numpy(mesh.uv_faces),
        torch.from_numpy(to_linear(painted)).float(),
        torch.from_numpy(face_labels(family)),
    )
    speaker = Speaker.draw(np.random.default_rng([seed, number, 1]))
    return Person(number, family.people(number + 1, seed)[number], speaker, surface)


def face_labels(family: HeadFamily) -> NDArray[np.uint8]:
    """(F,) what each face of the mesh shows, as a number in ``LABELS``. Where corners differ, the last label wins."""
    sites = family.mesh.sites
    around = mouth(sites)
    upper, lower = lip_heights(sites.base[:, 0])
    red = (sites.patch == SKIN) & (np.abs(around.along) < 1) & (around.across < upper) & (around.across > -lower)
    labels = np.full(len(sites.patch), LABELS.index("skin"), np.uint8)
    labels[family.regions["scalp"]] = LABELS.index("hair")
    labels[(sites.patch == SKIN) & (below_collar(sites.base) > 0)] = LABELS.index("clothes")
    labels[red & (sites.base[:, 2] > 0)] = LABELS.index("lips")
    labels[sites.patch == MOUTH] = LABELS.index("mouth")
    labels[np.isin(sites.patch, (UPPER_TEETH, LOWER_TEETH))] = LABELS.index("teeth")
    labels[np.isin(sites.patch, (LEFT_BALL, RIGHT_BALL))] = LABELS.index("eyes")
    of_faces: NDArray[np.uint8] = labels[family.mesh.faces].max(axis=1)
    return of_faces
