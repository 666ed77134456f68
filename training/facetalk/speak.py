"""Sound, or a clip of a dataset, becomes codes, meshes, a film and a picture: what ``headloom sample`` does with FaceTalk."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fitting.flame import Flame
from fitting.flame.landmarks import Landmarks
from fitting.nphm import Nphm
from fitting.nphm_networks import Composition, load_networks
from manifests.assets import find
from manifests.atomic import write_whole
from manifests.clock import SAMPLE_RATE
from manifests.document import ManifestError
from manifests.reader import Dataset
from manifests.stage import Unreadable
from prep.mel import mel_spectrogram
from prep.sound import NoSound, decode_sound
from training.draws import Draws
from training.facetalk.animate import WrongFolder, flame_meshes_of, meshes_of, mouth_opening_mm, write_animation
from training.facetalk.film import Picture, strip
from training.facetalk.mouth import LOWER_LIP, UPPER_LIP, mean_lips
from training.facetalk.smoothing import Smoothing

if TYPE_CHECKING:
    from training.facetalk.model import FaceTalk

IDENTITIES = {"nphm": ("identity", 1344), "flame": ("flame_identity", 300)}
"""Of each target: the array's name in an archive, and its length."""


SHOWN = 8
"""Heads in a picture."""


class Heard(NamedTuple):
    """What a sequence is made for."""

    wave: NDArray[np.float32]
    """(S,) at 16 kHz."""
    n_frames: int
    values: dict[str, Any]
    """Whole columns that the model's condition reads."""


def heard_in(model: FaceTalk, audio: Path, speech: Path | None) -> Heard:
    """A sound file, any that FFmpeg decodes; ``speech`` is the wav2vec 2.0 checkpoint of a model that follows its features."""
    try:
        wave = decode_sound(str(audio)).wave()
    except (NoSound, Unreadable) as error:
        raise ManifestError(f"{audio}: {error}; give a file with speech") from None
    frames = int(len(wave) * model.fps[0] // (model.fps[1] * SAMPLE_RATE))
    if not frames:
        raise ManifestError(f"{audio}: is shorter than a frame; give a file with speech")
    column = model.condition.columns[0]
    if column == "mel":
        return Heard(wave, frames, {"mel": mel_spectrogram(wave)})
    if column == "landmarks3d":
        raise ManifestError("this model follows landmarks, not sound: give --clip DATASET:CLIP instead of --audio")
    if speech is None:
        raise ManifestError(f"this model follows {column}: give the folder of the same wav2vec 2.0 checkpoint as --speech")
    from prep.speech import speech_features

    return Heard(wave, frames, {column: speech_features(wave, frames, speech, fps=model.fps[0] / model.fps[1])})


def heard_of(model: FaceTalk, clip: str) -> Heard:
    """A clip of a dataset, ``DATASET:CLIP`` by its id or its number."""
    place, _, name = clip.rpartition(":")
    if not place:
        raise ManifestError(f"--clip {clip}: wanted DATASET:CLIP, a dataset's folder and a clip's id or number")
    data = Dataset(place)
    if not (name in data.rows or (name.isdecimal() and int(name) < len(data))):
        raise ManifestError(f"{place}: has no clip '{name}'; it has {len(data)}, numbered from 0")
    row = data.rows.get(name, int(name) if name.isdecimal() else 0)
    values = data.read(row, *model.condition.columns, "wave", "n_frames")
    return Heard(values["wave"].astype(np.float32) / 32768, values["n_frames"], values)


def produce(
    model: FaceTalk,
    *,
    audio: Path | None = None,
    clip: str = "",
    speech: Path | None = None,
    identity: Path | None = None,
    codes: Path | None = None,
    meshes: Path | None = None,
    picture: Path | None = None,
    resolution: int = 128,
    composition: Composition = "backward",
    guidance: float | None = None,
    steps: int | None = None,
    seed: int = 0,
) -> list[Path]:
    """What ``audio`` or ``clip`` makes the head of ``identity`` do, as files: ``codes`` (.npz), a folder of ``meshes`` with a
    film, and a ``picture`` (.png) of eight frames. ``composition`` backward is FaceTalk's; forward meshes a head only once.

    Raises ``ManifestError`` for what is missing or does not fit.
    """
    if (audio is None) == (not clip):
        raise ManifestError("give what is to be heard: either --audio FILE or --clip DATASET:CLIP")
    if not (codes or meshes or picture):
        raise ManifestError("give what is to be made: --codes FILE.npz, --meshes FOLDER or --picture FILE.png")
    if (meshes or picture) and identity is None:
        raise ManifestError("meshes need a head: give --identity FILE, its code as .npy or .npz")
    heard = heard_in(model, audio, speech) if audio else heard_of(model, clip)
    asked = {"guidance": guidance, "steps": steps}
    how = model.settings.sampling.model_copy(update={name: value for name, value in asked.items() if value is not None})
    device = model.mean.device
    condition = model.condition.whole(heard.values, heard.n_frames, model.fps).to(device)
    made = model.sample(condition[None], Draws(seed, 1, device=device), how)[0].cpu()
    fps, written = Fraction(*model.fps), []
    if codes:
        write_whole(codes, _archive(codes=made.numpy(), fps=np.array(model.fps)))
        written.append(codes)
    if identity is None:
        return written
    person = torch.from_numpy(_identity(identity, *IDENTITIES[model.settings.target]))
    head = load_networks(composition) if model.settings.target == "nphm" else Flame.load(find("flame2020"))
    if meshes:
        smoothing = Smoothing() if isinstance(head, Nphm) else None
        try:
            write_animation(made, person, head, meshes, fps, heard.wave, SAMPLE_RATE, smoothing=smoothing, resolution=resolution)
        except WrongFolder as error:
            raise ManifestError(str(error)) from None
        written.append(meshes)
    if picture:
        write_whole(picture, _png(shown(made, person, head, fps, heard.wave, resolution)))
        written.append(picture)
    return written


def shown(
    codes: Tensor, identity: Tensor, head: Nphm | Flame, fps: Fraction, wave: NDArray[np.float32], resolution: int = 128
) -> Picture:
    """(H, W, 3) RGB: ``SHOWN`` heads of the sequence ``codes`` (T, D), the sound, and how far the mouth is open."""
    frames = np.unique(np.linspace(0, len(codes) - 1, SHOWN + 2).round().astype(int)[1:-1])
    if isinstance(head, Flame):
        meshes = list(flame_meshes_of(codes, identity, head))
        landmarks = Landmarks.load(find("flame-landmarks-static"), head)
        points = landmarks(torch.stack([mesh.vertices for mesh in meshes]))
        upper, lower = (points[:, landmarks.indices.tolist().index(number)] for number in (UPPER_LIP, LOWER_LIP))
        opening = 1000 * (upper - lower).norm(dim=-1).double().numpy()
        meshes = [meshes[frame] for frame in frames]
    else:
        meshes = list(meshes_of(codes[frames], identity, head, Smoothing(), resolution))
        opening = mouth_opening_mm(codes, identity, head, mean_lips())
    return strip(meshes, frames.tolist(), len(codes), fps, opening, wave, SAMPLE_RATE)


def _identity(path: Path, name: str, length: int) -> NDArray[np.float32]:
    """A person's code (length,), from an array or an archive."""
    try:
        held = np.load(path)
        values = held[name] if isinstance(held, np.lib.npyio.NpzFile) else held
    except (OSError, ValueError, KeyError) as error:
        raise ManifestError(f"{path}: is no .npy with a code, nor an .npz with '{name}' ({error})") from None
    if values.size != length or values.dtype.kind != "f":
        raise ManifestError(f"{path}: an identity is {length} numbers, this has shape {values.shape}")
    return values.astype(np.float32).reshape(-1)


def _png(picture: Picture) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return file.getvalue()


def _archive(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()
