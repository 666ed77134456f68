"""The second half of ``headloom demo``: a capture all the way to codes of NPHM, and what the truth says of them."""

from __future__ import annotations

import json
from pathlib import Path

from fitting.studio.captures import IDENTITIES
from fitting.studio.judge import GOALS, depth_median_mm, judge
from manifests.atomic import write_whole
from manifests.reader import Dataset
from pipelines.build import OWN_STORE
from pipelines.report_fits import AGAINST_TRUTH
from prep.capture import find_captures

SECONDS = 0.5
SIZE = (330, 482)
"""Of the pictures: small, so that a demo is a matter of minutes."""

FITTED = {
    "stages.clouds.points": 20_000,
    "stages.landmarks.noise_px": 0.5,
    "stages.nphm.regularization": 0.05,
    "stages.meshes.resolution": 64,
}
"""What differs from the recipe: small clouds and meshes, landmarks about as good as a detector's, and codes that stay as small as
the studio's true ones (with the paper's weight they grow nine times as large, along what does not show, and are bad to learn
from)."""


def settings(captures: Path) -> list[str]:
    """What ``headloom build facetalk_nphm --set`` is given for the ``captures``."""
    given = {"source": captures / "source.yaml", "stages.identity.identities": captures / IDENTITIES, **FITTED}
    return [f"{name}={value}" for name, value in given.items()]


def untied(given: list[str], dataset: Path) -> list[str]:
    """The settings ``given`` for a ``dataset``, but frames are not tied to each other, with all that it has stored."""
    return [*given, "stages.nphm.temporal=0", "stages.meshes.count=1", f"store={dataset / OWN_STORE}"]


def write_against_truth(dataset: Path, without: Path, captures: Path) -> dict[str, float]:
    """Judge the ``dataset`` by the studio's truth, and put the figures where its report looks for them.

    ``without`` is the same, fitted without the temporal term; ``captures`` is the folder that both were built of.
    """
    first, *others = find_captures(captures)
    figures = {"depth_median_mm": depth_median_mm(first), **judge(Dataset(dataset), captures, Dataset(without))}
    notes = [
        f"{1 + len(others)} captures by 16 cameras of {SIZE[0]}x{SIZE[1]}, {Dataset(dataset).manifest.frames} frames, seed 0; "
        "make bench ONLY=facetalk_data measures at the studio's default size.",
        "The goals are for that size; pictures of this one have a third of its pixels.",
        "The people's identity codes are given; landmarks are the true ones with half a pixel of noise.",
        "Codes are kept as small as the true ones (regularization), which calms them without the temporal term, too: so the "
        "ratios of jitter, which compare with and without, are smaller than the goals.",
    ]
    content = {"figures": figures, "goals": {name: goal for name, goal in GOALS.items() if name in figures}, "notes": notes}
    write_whole(dataset / AGAINST_TRUTH, json.dumps(content, indent=1).encode())
    return figures
