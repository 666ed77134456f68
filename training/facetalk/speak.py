"""Sound, or a clip of a dataset, becomes codes, meshes, a film and a picture: what ``headloom sample`` does with FaceTalk."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from fractions import Fraction
from functools import partial
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
from manifests.atomic import whole_file
from manifests.clock import SAMPLE_RATE
from manifests.document import ManifestError
from manifests.reader import Dataset
from manifests.stage import Unreadable
from prep.mel import mel_spectrogram
from prep.sound import NoSound, decode_sound
from prep.speech import checkpoint_files, speech_features
from training.draws import Draws
from training.facetalk.animate import flame_meshes_of, frames_held, meshes_of, mouth_opening_mm, write_animation
from training.facetalk.film import Picture, strip
from training.facetalk.mouth import LOWER_LIP, UPPER_LIP, mean_lips
from training.facetalk.smoothing import Smoothing

if TYPE_CHECKING:
    from training.facetalk.model import FaceTalk
    from training.facetalk.settings import Sampling

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
    """A sound file, any that FFmpeg decodes; ``speech`` is the wav2vec 2.0 checkpoint of a model that follows its features, which
    are computed where the model is."""
    column = model.condition.columns[0]
    if column == "landmarks3d":
        raise ManifestError("this model follows landmarks, not sound: give --clip DATASET:CLIP instead of --audio")
    if column != "mel":
        if speech is None:
            raise ManifestError(f"this model follows {column}: give the folder of the same wav2vec 2.0 checkpoint as --speech")
        checkpoint_files(speech, model.condition.width)
    try:
        wave = decode_sound(str(audio)).wave()
    except (NoSound, Unreadable) as error:
        raise ManifestError(f"{audio}: {error}; give a file with speech") from None
    frames = int(len(wave) * model.fps[0] // (model.fps[1] * SAMPLE_RATE))
    if not frames:
        raise ManifestError(f"{audio}: is shorter than a frame; give a file with speech")
    if speech is None or column == "mel":
        return Heard(wave, frames, {"mel": mel_spectrogram(wave)})
    features = speech_features(
        wave, frames, speech, fps=model.fps[0] / model.fps[1], device="cuda" if model.mean.is_cuda else "cpu"
    )
    return Heard(wave, frames, {column: features})


def heard_of(model: FaceTalk, clip: str) -> Heard:
    """A clip of a dataset, ``DATASET:CLIP`` by its id or its number, which shows as many frames a second as the model makes."""
    place, _, name = clip.rpartition(":")
    if not place:
        raise ManifestError(f"--clip {clip}: wanted DATASET:CLIP, a dataset's folder and a clip's id or number")
    data = Dataset(place)
    if not (name in data.rows or (name.isdecimal() and int(name) < len(data))):
        raise ManifestError(f"{place}: has no clip '{name}'; it has {len(data)}, numbered from 0")
    row = data.rows.get(name, int(name) if name.isdecimal() else 0)
    values = data.read(row, *model.condition.columns, "wave", "n_frames", "fps_num", "fps_den")
    rate, wanted = Fraction(values["fps_num"], values["fps_den"]), Fraction(*model.fps)
    if rate != wanted:
        raise ManifestError(
            f"--clip {clip}: has {float(rate):.5g} frames a second, and the model was trained at {float(wanted):.5g} ({wanted}): "
            "give a clip of a dataset that was built at that rate"
        )
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
    smoothing: bool = True,
    guidance: float | None = None,
    steps: int | None = None,
    seed: int = 0,
) -> list[Path]:
    """What ``audio`` or ``clip`` makes the head of ``identity`` do, as files: ``codes`` (.npz), a folder of ``meshes`` with a
    film, and a ``picture`` (.png) of eight frames. ``composition`` backward is FaceTalk's; forward meshes a head only once.
    ``smoothing`` False leaves FaceTalk's out (table 2, w/o facial smoothing); FLAME's heads have none.

    All that is asked for is loaded and checked before anything is sampled, and nothing is written before it was sampled. Raises
    ``ManifestError`` for what is missing or does not fit, and ``manifests.assets.MissingAsset`` for a model file that is missing.
    """
    if (audio is None) == (not clip):
        raise ManifestError("give what is to be heard: either --audio FILE or --clip DATASET:CLIP")
    _check_places(codes, meshes, picture)
    how = _sampling(model, guidance, steps)
    actor = None
    if meshes or picture:
        if identity is None:
            raise ManifestError("meshes need a head: give --identity FILE, its code as .npy or .npz")
        actor = _actor(model, identity, composition, smoothing, measured=picture is not None)
    heard = heard_in(model, audio, speech) if audio else heard_of(model, clip)
    device = model.mean.device
    condition = model.condition.whole(heard.values, heard.n_frames, model.fps).to(device)
    made = model.sample(condition[None], Draws(seed, 1, device=device), how)[0].cpu()
    fps = Fraction(*model.fps)
    if codes:
        with whole_file(codes) as file:
            np.savez(file, codes=made.numpy(), fps=np.array(model.fps))
    if actor and meshes:
        write_animation(
            made,
            actor.identity,
            actor.head,
            meshes,
            fps,
            heard.wave,
            SAMPLE_RATE,
            smoothing=actor.smoothing,
            resolution=resolution,
        )
    if actor and picture:
        with whole_file(picture) as file:
            Image.fromarray(shown(made, actor, fps, heard.wave, resolution)).save(file, "PNG")
    return [path for path in (codes, meshes, picture) if path]


class Actor(NamedTuple):
    """Whose head moves, with all that is read from model files."""

    identity: Tensor
    """(1344,) for NPHM, (300,) for FLAME."""
    head: Nphm | Flame
    smoothing: Smoothing | None
    opening: Callable[[Tensor], NDArray[np.float64]] | None
    """(T,) millimetres between the inner lips with codes (T, D); None where nobody asked for it."""


def shown(codes: Tensor, actor: Actor, fps: Fraction, wave: NDArray[np.float32], resolution: int = 128) -> Picture:
    """(H, W, 3) RGB: ``SHOWN`` heads of the sequence ``codes`` (T, D), the sound, and how far the mouth is open."""
    if actor.opening is None:
        raise ValueError("a picture shows how far the mouth is open: give an actor with opening")
    frames = np.unique(np.linspace(0, len(codes) - 1, SHOWN + 2).round().astype(int)[1:-1])
    if isinstance(actor.head, Flame):
        meshes = flame_meshes_of(codes[frames], actor.identity, actor.head)
    else:
        meshes = meshes_of(codes[frames], actor.identity, actor.head, actor.smoothing, resolution)
    return strip(list(meshes), frames.tolist(), len(codes), fps, actor.opening(codes), wave, SAMPLE_RATE)


def _check_places(codes: Path | None, meshes: Path | None, picture: Path | None) -> None:
    """Refuses places that cannot be written to, or whose writing would lose something."""
    if not (codes or meshes or picture):
        raise ManifestError("give what is to be made: --codes FILE.npz, --meshes FOLDER or --picture FILE.png")
    if meshes:
        frames_held(meshes)
    for name, path in (("--codes", codes), ("--picture", picture)):
        if path and path.is_dir():
            raise ManifestError(f"{name} {path}: is a folder; give the name of a file")
        if path and meshes and meshes.resolve() in path.resolve().parents:
            raise ManifestError(
                f"{name} {path}: lies in the folder of --meshes, which holds an animation alone; put it beside it"
            )


def _sampling(model: FaceTalk, guidance: float | None, steps: int | None) -> Sampling:
    """How the model is asked to sample, which it can."""
    settings = model.settings
    asked = {"guidance": guidance, "steps": steps}
    how = settings.sampling.model_copy(update={name: value for name, value in asked.items() if value is not None})
    if not 1 <= how.steps <= settings.steps:
        raise ManifestError(f"--steps {how.steps}: the model was trained with {settings.steps} steps; give 1 to {settings.steps}")
    if how.guidance != 1 and not settings.null_share:
        raise ManifestError(
            f"guidance {how.guidance:g}: the model never learned to move without hearing (its null_share is 0); give --guidance 1"
        )
    return how


def _actor(model: FaceTalk, identity: Path, composition: Composition, smoothing: bool, *, measured: bool) -> Actor:
    """The actor, with a measure of the mouth where it is to be ``measured``."""
    person = torch.from_numpy(_identity(identity, *IDENTITIES[model.settings.target]))
    if model.settings.target == "flame":
        flame = Flame.load(find("flame2020"))
        return Actor(person, flame, None, _flame_opening(person, flame) if measured else None)
    head = load_networks(composition)
    opening = None
    if measured:
        opening = partial(mouth_opening_mm, identity=person, head=head, lips=mean_lips())
    return Actor(person, head, Smoothing() if smoothing else None, opening)


def _flame_opening(identity: Tensor, flame: Flame) -> Callable[[Tensor], NDArray[np.float64]]:
    landmarks = Landmarks.load(find("flame-landmarks-static"), flame)
    rows = [landmarks.indices.tolist().index(number) for number in (UPPER_LIP, LOWER_LIP)]

    def opening(codes: Tensor) -> NDArray[np.float64]:
        upper, lower = landmarks(torch.stack([mesh.vertices for mesh in flame_meshes_of(codes, identity, flame)]))[
            :, rows
        ].unbind(1)
        found: NDArray[np.float64] = 1000 * (upper - lower).norm(dim=-1).double().numpy()
        return found

    return opening


def _identity(path: Path, name: str, length: int) -> NDArray[np.float32]:
    """A person's code (length,), from an array or an archive."""
    try:
        held = np.load(path)
        values = held[name] if isinstance(held, np.lib.npyio.NpzFile) else held
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ManifestError(f"{path}: is no .npy with a code, nor an .npz with '{name}' ({error})") from None
    if values.size != length or values.dtype.kind != "f":
        raise ManifestError(f"{path}: an identity is {length} numbers, this has shape {values.shape}")
    return values.astype(np.float32).reshape(-1)
