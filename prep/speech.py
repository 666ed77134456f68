"""Features of speech from a frozen wav2vec 2.0 (Baevski et al. 2020), one vector for each video frame, as FaceFormer takes them.

Torch and transformers are imported when a stage runs. Nothing is downloaded: a checkpoint is a folder that the user has.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from manifests.clock import SAMPLE_RATE
from manifests.document import ManifestError
from manifests.stage import Done, Needs, Outcome, Stage
from prep.device import GPU_SHARE, Device, device_of

if TYPE_CHECKING:
    import torch

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""Names of a checkpoint's weights; the first that is there is read."""

PIECE_S, CONTEXT_S = 30.0, 5.0
"""Sounds of more than ``PIECE_S + 2 CONTEXT_S`` seconds are heard in pieces of ``PIECE_S``, each with that much before and after
it. It bounds the memory; a clip of a dataset is rarely that long."""

_VARIANCE_FLOOR = 1e-7
"""Of the waveform, so that silence stays finite; it is that of transformers' feature extractor."""


def speech_features(
    wave: NDArray[Any], n_frames: int, checkpoint: Path | str, *, fps: float, device: Device = "cpu"
) -> NDArray[np.float32]:
    """Features (T, D) of a 16 kHz ``wave`` (S,) for its T = ``n_frames`` video frames at ``fps``.

    ``wave`` is int16 or float; it is brought to zero mean and unit variance. The convolutions make about 50 vectors a second;
    these are interpolated linearly to the T frames, the first on the first and the last on the last (``align_corners``), before
    they are projected and go through the transformer; its last hidden state is the result (FaceFormer, Fan et al. 2022, §3.1).
    ``checkpoint`` is a folder as ``checkpoint_files`` describes it; D is its hidden size, 768 for the base models. On ``cuda``
    it computes in float16.

    Long sounds go through in pieces; see ``PIECE_S``. Raises ``ManifestError`` for a folder that is no checkpoint, ``ValueError``
    for a wave that is too short for a single vector (400 samples for the published models).
    """
    if wave.ndim != 1 or n_frames < 1:
        raise ValueError(f"a wave has shape (S,) and at least one frame, got {wave.shape} and {n_frames} frames")
    model, normalises = _load(Path(checkpoint).absolute(), device)
    sound = wave.astype(np.float64)
    if normalises:
        sound = (sound - sound.mean()) / np.sqrt(sound.var() + _VARIANCE_FLOOR)
    elif wave.dtype.kind == "i":
        sound = sound / 32768
    shortest = _samples(model.config, 1)
    if len(sound) < shortest:
        raise ValueError(f"a sound of {len(sound)} samples is too short: wav2vec 2.0 needs {shortest}")
    import torch

    def vectors(first: int, last: int) -> torch.Tensor:
        # Samples after the last vector count in the first layer's statistics.
        end = len(sound) if last == n_vectors else first * hop + _samples(model.config, last - first)
        stretch = sound[first * hop : end]
        heard: torch.Tensor = model.feature_extractor(torch.from_numpy(stretch).to(model.device, model.dtype)[None])
        return heard.transpose(1, 2)

    def states(first: int, last: int) -> torch.Tensor:
        found: torch.Tensor = model.encoder(projected[:, first:last]).last_hidden_state
        return found

    hop = math.prod(model.config.conv_stride)
    n_vectors = (len(sound) - shortest) // hop + 1
    with torch.inference_mode():
        heard = _in_pieces(vectors, n_vectors, SAMPLE_RATE / hop)
        frames = torch.nn.functional.interpolate(heard.transpose(1, 2), size=n_frames, mode="linear", align_corners=True)
        projected, _ = model.feature_projection(frames.transpose(1, 2))
        features: NDArray[np.float32] = _in_pieces(states, n_frames, fps)[0].float().cpu().numpy()
    return features


def checkpoint_files(checkpoint: Path, hidden: int | None = None) -> tuple[Path, ...]:
    """The files of a wav2vec 2.0 ``checkpoint``, a folder as Hugging Face lays it out.

    They are ``config.json``, ``preprocessor_config.json`` where it is there, and the weights (``WEIGHTS``). Raises
    ``ManifestError`` when there are none, for another kind of model, for one that is not for 16 kHz, and where ``hidden`` is
    given, for another hidden size.
    """
    config = _json(checkpoint / "config.json")
    if config.get("model_type") != "wav2vec2":
        raise ManifestError(f"{checkpoint}: its config.json is of a {config.get('model_type')!r}, wanted 'wav2vec2'")
    size = config.get("hidden_size", 768)
    if hidden is not None and size != hidden:
        fitting = {Wav2Vec.hidden: Wav2Vec.name, Wav2VecLarge.hidden: Wav2VecLarge.name}.get(size)
        raise ManifestError(
            f"{checkpoint}: has {size} numbers a frame, wanted {hidden}"
            + (f"; use stage {fitting}" if fitting else "; give another checkpoint")
        )
    weights = [checkpoint / name for name in WEIGHTS if (checkpoint / name).is_file()]
    if not weights:
        raise ManifestError(f"{checkpoint}: holds no {' or '.join(WEIGHTS)}; put the whole checkpoint there")
    preprocessor = checkpoint / "preprocessor_config.json"
    if not preprocessor.is_file():
        return checkpoint / "config.json", weights[0]
    rate = _json(preprocessor).get("sampling_rate", SAMPLE_RATE)
    if rate != SAMPLE_RATE:
        raise ManifestError(f"{checkpoint}: is for sound at {rate} Hz, wanted {SAMPLE_RATE}; give another checkpoint")
    return checkpoint / "config.json", preprocessor, weights[0]


def _json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ManifestError(
            f"{path}: cannot be read ({error.strerror}); a checkpoint is a folder with config.json and {' or '.join(WEIGHTS)}"
        ) from None
    except ValueError:
        values = None
    if not isinstance(values, dict):
        raise ManifestError(f"{path}: is not JSON as a checkpoint has it; download the checkpoint again")
    return values


@lru_cache(maxsize=1)
def _load(checkpoint: Path, device: Device) -> tuple[Any, bool]:
    """The network, frozen, and whether it wants waves of zero mean and unit variance."""
    files = checkpoint_files(checkpoint)
    place = device_of(device)
    import torch
    from transformers import Wav2Vec2Model
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        # The pickle in pytorch_model.bin is read by torch.load with weights_only, which runs nothing.
        model, said = Wav2Vec2Model.from_pretrained(
            str(checkpoint),
            local_files_only=True,
            use_safetensors=files[-1].suffix == ".safetensors",
            weights_only=True,
            dtype=torch.float32,
            output_loading_info=True,
        )
    except Exception as error:  # a damaged file may raise anything, and PyTorch's advice for pickles is to run them
        raise ManifestError(
            f"{files[-1]}: holds no weights that can be read ({type(error).__name__}); download it again"
        ) from error
    # The vector that masks frames in training is not used here; checkpoints may lack it.
    lacking = sorted(set(said["missing_keys"]) - {"masked_spec_embed"})
    if lacking:
        raise ManifestError(
            f"{files[-1]}: lacks {len(lacking)} of the model's weights, as {lacking[0]}; give the whole checkpoint"
        )
    normalises = len(files) == 2 or bool(_json(files[1]).get("do_normalize", True))
    return model.eval().requires_grad_(False).to(place, torch.float16 if device == "cuda" else torch.float32), normalises


def _samples(config: Any, vectors: int) -> int:
    """Samples of which the convolutions make so many vectors."""
    count = vectors
    for kernel, stride in zip(reversed(config.conv_kernel), reversed(config.conv_stride), strict=True):
        count = (count - 1) * stride + kernel
    return count


def _in_pieces(work: Callable[[int, int], torch.Tensor], length: int, rate: float) -> torch.Tensor:
    """``work(first, last)`` (1, last - first, D) over all of ``length``, at ``rate`` a second: at once, or in pieces."""
    import torch

    piece, context = round(PIECE_S * rate), round(CONTEXT_S * rate)
    if length <= piece + 2 * context:
        return work(0, length)
    done = []
    for start in range(0, length, piece):
        first, end = max(start - context, 0), min(start + piece, length)
        done.append(work(first, min(end + context, length))[:, start - first : end - first])
    return torch.cat(done, dim=1)


class Wav2Vec(Stage):
    """Features of a clip's speech by a base-size wav2vec 2.0, one vector a video frame; see ``speech_features``.

    ``checkpoint`` is a folder as Hugging Face lays it out; nothing is downloaded. ``sound`` is the column that is heard:
    FaceTalk hears cleaned sound, which is ``wave_clean`` after stage ``denoise`` and ``wave`` in data that came clean.
    """

    name: ClassVar[str] = "wav2vec"
    version: ClassVar[int] = 1
    writes: ClassVar[tuple[str, ...]] = ("wav2vec",)
    needs: ClassVar[Needs] = Needs(memory_mb=2000, grace_s=600, pace=0.15, bytes_per_s=80_000)
    hidden: ClassVar[int] = 768

    checkpoint: Path
    sound: Literal["wave", "wave_clean"] = "wave"
    device: Device = "cpu"

    def gpus(self) -> float:
        return GPU_SHARE if self.device == "cuda" else 0.0

    def files(self) -> tuple[Path, ...]:
        return checkpoint_files(self.checkpoint, self.hidden)

    def reads(self) -> tuple[str, ...]:  # type: ignore[override]  # a parameter says what is heard
        return (self.sound, "n_frames", "fps_num", "fps_den")

    def run(self, n_frames: int, fps_num: int, fps_den: int, **sound: NDArray[np.int16]) -> Outcome:  # type: ignore[override]
        wave = sound[self.sound]
        features = speech_features(wave, n_frames, self.checkpoint, fps=fps_num / fps_den, device=self.device)
        return Done({self.writes[0]: features})


class Wav2VecLarge(Wav2Vec):
    """The same with a large wav2vec 2.0, which has 1024 numbers a frame."""

    name: ClassVar[str] = "wav2vec_large"
    writes: ClassVar[tuple[str, ...]] = ("wav2vec_large",)
    needs: ClassVar[Needs] = Needs(memory_mb=4000, grace_s=600, pace=0.5, bytes_per_s=100_000)
    hidden: ClassVar[int] = 1024
