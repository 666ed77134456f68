"""The last part of ``headloom demo``: a network learns to speak, and the truth says how well."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from fitting.nphm_networks import load_networks
from fitting.studio.codes_layout import TRUTH
from manifests.atomic import write_whole
from manifests.reader import Dataset
from pipelines.report_run import FIGURES, SAMPLES
from prep.codes import SOUND, find_codes
from training.checkpoint import LAST
from training.draws import Draws
from training.facetalk.animate import mouth_opening_mm
from training.facetalk.mouth import mean_lips
from training.facetalk.speak import heard_in
from training.metrics import diversity, mouth_correlation
from training.sample import load_model, sample

PEOPLE, TAKES = 16, 64
"""Whose codes and sound are recorded without pictures, to learn from, and how often they speak for 4 s."""

OTHERS = 6
"""People who are heard after training, once each."""

_GUIDANCE = 1.5
_ROLL_S = 2.0
"""The truth of another take is moved by so much, for all takes begin and end in silence."""


def training(codes: Path, captures: Path, run: Path) -> list[str]:
    """What ``headloom train facetalk_small --set`` is given: datasets of ``codes`` and of fitted ``captures``, and the folder.

    Windows are as long as the captures are, half a second, so that what was fitted to pictures is learned from, too.
    """
    datasets = [{"path": str(codes), "weight": 0.95}, {"path": str(captures), "weight": 0.05}]
    frames = Dataset(captures).clips["n_frames"].to_pylist()
    given = {
        "datasets": json.dumps(datasets),
        "settings.window": min(frames),
        "settings.mouth": "networks",
        "global_batch": 96,
        "training.steps": 600,
        "training.validate_every": 150,
        "out": run,
    }
    return [f"{name}={value}" for name, value in given.items()]


def write_samples(run: Path, unheard: Path, identity: Path) -> dict[str, float]:
    """Let the network of a ``run`` speak what lies in the folder ``unheard``, for the run's report: the first sound on the head
    of ``identity``, as meshes, film and picture; and all of them against the true openings of the mouth."""
    last, samples = run / LAST, run / SAMPLES
    folders = find_codes(unheard)
    made = {"meshes": samples / "meshes", "picture": samples / "a wav that it has not heard.png"}
    asked = {"audio": folders[0] / SOUND, "identity": identity, "resolution": 64, "composition": "forward", "guidance": _GUIDANCE}
    sample(last, asked | made, "cpu")

    model = load_model(last, "cpu")
    waves = [heard_in(model, folder / SOUND, None) for folder in folders]
    heard = torch.stack([model.condition.whole(wave.values, wave.n_frames, model.fps) for wave in waves])
    how = model.settings.sampling.model_copy(update={"guidance": _GUIDANCE})
    codes = torch.stack([model.sample(heard, Draws(seed, len(heard)), how) for seed in (0, 1)], dim=1)
    head, lips = load_networks("forward"), mean_lips()
    person = torch.from_numpy(np.load(identity)).reshape(-1)
    found = [torch.from_numpy(mouth_opening_mm(one, person, head, lips)) for one in codes[:, 0]]
    true = [torch.from_numpy(np.load(folder / TRUTH)["mouth_opening_mm"])[: codes.shape[2]] for folder in folders]
    moved = [track.roll(int(_ROLL_S * model.fps[0] / model.fps[1])) for track in true[1:] + true[:1]]
    figures = {
        "mouth_correlation": mouth_correlation(found, true),
        "mouth_correlation with another take's truth": mouth_correlation(found, moved),
        "diversity": diversity(codes),
    }
    notes = [
        f"{len(folders)} people whom the network has never heard speak for 4 s each; openings of the mouth are measured on the "
        "head that the codes make, against the true ones.",
        "The network is small and hears mel spectrograms, for nobody's weights are shipped. The paper's features are those of "
        "wav2vec 2.0.",
    ]
    write_whole(samples / FIGURES, json.dumps({"figures": figures, "notes": notes}, indent=1).encode())
    return figures
