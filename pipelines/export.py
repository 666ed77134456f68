"""``headloom export``: datasets in the layouts that other programs read.

``facetalk-npz`` is what FaceTalk's authors announced for their data (the folders and files are theirs; they published no
files, so the names inside the archives are ours, and so is the content of ``wave2vec_audio_feats.pkl``: wav2vec 2.0's last hidden
state at each frame is our reading of its name)::

    <person>_<sequence>/
        audio/cleaned_audio.wav                          16 kHz, amplified and denoised
        audio/wave2vec_audio_feats.pkl                   pickle of a NumPy array (T, 768) float32, one row a frame
        nphm_tracking/nphm_identity.npz                  identity (1344,)
        nphm_tracking/nphm_expressions/frame_00000.npz   expression (200,), world_to_nphm (4, 4), time_s ()
        nphm_tracking/nphm_meshes/frame_00000.ply        NPHM's space; of the frames that the stage meshes chose
        flame_2023_tracking/flame_2023_template.ply      the person at rest, in FLAME's metres
        flame_2023_tracking/flame_meshes/frame_00000.ply the same with the frame's expression and jaw, without head motion
        headloom.json                                    where it comes from: digests, models, rate, conventions

Of a dataset that was itself made of such folders (recipe ``facetalk_codes``) there is less: what lacks is said.

``nphm-identities`` writes ``<person>.npy``, (1344,) each, as the stage ``identity`` reads it: the person's code in the clip that
was fitted best.
"""

from __future__ import annotations

import io
import json
import pickle
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from manifests.assets import digest, find
from manifests.atomic import write_whole
from manifests.document import ManifestError
from manifests.reader import Dataset
from prep.codes import EXPRESSIONS, IDENTITY, ORIGIN, SOUND, UNFINISHED

_FEATURES = "audio/wave2vec_audio_feats.pkl"
_SOUND_RATE = 16_000
_MESHES = ("mesh_frames", "mesh_vertices", "mesh_vertex_counts", "mesh_faces", "mesh_face_counts")
_FLAME = ("flame_identity", "flame_expression", "flame_jaw")

Notice = Callable[[str], None]


def export(dataset: Path | str, layout: str, out: Path, notice: Notice) -> int:
    """Write a dataset in ``layout``, one of ``LAYOUTS``, into folder ``out``; returns how many clips or people were written.

    What the layout has and the dataset lacks is said to ``notice``, a line each. A folder or file of that name which is there
    already stays as it is when it comes from the same dataset. Raises ``ManifestError`` for a dataset without the columns that
    the layout is about, and where something else is in the way.
    """
    return LAYOUTS[layout](Dataset(dataset), out, notice)


def facetalk(data: Dataset, out: Path, notice: Notice) -> int:
    """A folder for each clip, each appearing whole."""
    _require(data, "facetalk_nphm or facetalk_codes", "nphm_expression")
    _say_what_lacks(data, notice)
    clips = data.clips.to_pylist()
    names = _names(clips)
    template = _Flame(data) if set(_FLAME) <= set(data.columns) else None
    for row, (clip, name) in enumerate(zip(clips, names, strict=True)):
        place = out / name
        if place.exists():
            _check_same(place, data, clip)
            continue
        unfinished = out / (name + UNFINISHED)
        shutil.rmtree(unfinished, ignore_errors=True)
        for path, content in _facetalk_files(data, row, clip, template):
            write_whole(unfinished / path, content)
        write_whole(unfinished / ORIGIN, json.dumps(_origin(data, clip), indent=1).encode())
        unfinished.rename(place)
    return len(clips)


def identities(data: Dataset, out: Path, notice: Notice) -> int:
    """``<person>.npy`` of each person, out of the clip with the least ``nphm_identity_error_mm``."""
    _require(data, "facetalk_nphm", "nphm_identity", "nphm_identity_error_mm")
    best: dict[str, tuple[float, int]] = {}
    for row, clip in enumerate(data.clips.to_pylist()):
        if clip["person"] and clip["person"] == Path(clip["person"]).name:
            best[clip["person"]] = min(best.get(clip["person"], (float("inf"), row)), (clip["nphm_identity_error_mm"], row))
        else:
            notice(f"clip {clip['clip_id'][:12]} is left out: its person {clip['person']!r} is no name of a file")
    for person, (_, row) in sorted(best.items()):
        path, content = out / f"{person}.npy", _array(data.read(row, "nphm_identity")["nphm_identity"])
        if path.exists() and path.read_bytes() != content:
            raise ManifestError(f"{path}: another code is there already; move it away, or give another --out")
        write_whole(path, content)
    return len(best)


LAYOUTS: dict[str, Callable[[Dataset, Path, Notice], int]] = {"facetalk-npz": facetalk, "nphm-identities": identities}
"""By the name that ``--format`` takes."""


class _Flame:
    """FLAME as the dataset was fitted with it."""

    def __init__(self, data: Dataset) -> None:
        from fitting.flame import Flame

        asked = next(stage.models["flame2020"] for stage in data.manifest.stages if "flame2020" in stage.models)
        if digest("flame2020") != asked:
            raise ManifestError(
                f"{find('flame2020')}: is not the FLAME that {data.place} was fitted with ({asked[:12]}); its codes mean "
                "another head: put that file in place"
            )
        self.model = Flame.load(find("flame2020"))

    def vertices(self, identity: np.ndarray, expression: np.ndarray, jaw: np.ndarray) -> np.ndarray:
        """(T, V, 3) metres, the head not moved."""
        import torch

        with torch.no_grad():
            turned = torch.from_numpy(jaw) if self.model.has_jaw else None
            posed = self.model(torch.from_numpy(identity)[None], torch.from_numpy(expression), jaw=turned).vertices
        found: np.ndarray = posed.numpy()
        return found


def _facetalk_files(data: Dataset, row: int, clip: dict[str, Any], flame: _Flame | None) -> Iterator[tuple[str, bytes]]:
    from fitting.ply import ply_bytes

    if "nphm_identity" in data.columns:
        yield IDENTITY, _archive(identity=data.read(row, "nphm_identity")["nphm_identity"])
    of_frames = {
        "expression": data.read(row, "nphm_expression")["nphm_expression"],
        "time_s": np.arange(clip["n_frames"]) * clip["fps_den"] / clip["fps_num"],
    }
    if "world_to_nphm" in data.columns:
        of_frames["world_to_nphm"] = data.read(row, "world_to_nphm")["world_to_nphm"]
    for frame in range(clip["n_frames"]):
        yield f"{EXPRESSIONS}/frame_{frame:05d}.npz", _archive(**{name: held[frame] for name, held in of_frames.items()})
    if sound := _sound_column(data):
        yield SOUND, _sound(data.read(row, sound)[sound])
    if "wav2vec" in data.columns:
        yield _FEATURES, pickle.dumps(np.array(data.read(row, "wav2vec")["wav2vec"]), protocol=4)
    if set(_MESHES) <= set(data.columns):
        meshes = data.read(row, *_MESHES)
        vertices = np.split(meshes["mesh_vertices"], np.cumsum(meshes["mesh_vertex_counts"])[:-1])
        faces = np.split(meshes["mesh_faces"], np.cumsum(meshes["mesh_face_counts"])[:-1])
        for frame, points, corners in zip(meshes["mesh_frames"].tolist(), vertices, faces, strict=True):
            matrix = of_frames["world_to_nphm"][frame]
            yield (
                f"nphm_tracking/nphm_meshes/frame_{frame:05d}.ply",
                ply_bytes(points @ matrix[:3, :3].T + matrix[:3, 3], corners),
            )
    if flame:
        codes = data.read(row, *_FLAME)
        identity, expression, jaw = (np.array(codes[name]) for name in _FLAME)
        triangles = flame.model.faces.numpy()
        rest = flame.vertices(identity, np.zeros_like(expression[:1]), np.zeros_like(jaw[:1]))[0]
        yield "flame_2023_tracking/flame_2023_template.ply", ply_bytes(rest, triangles)
        for frame, points in enumerate(flame.vertices(identity, expression, jaw)):
            yield f"flame_2023_tracking/flame_meshes/frame_{frame:05d}.ply", ply_bytes(points, triangles)


def _origin(data: Dataset, clip: dict[str, Any]) -> dict[str, Any]:
    used = [
        stage
        for stage in data.manifest.stages
        if stage.name in ("clouds", "landmarks", "flame", "identity", "nphm", "meshes", "codes", "denoise", "wav2vec")
    ]
    return {
        "dataset": {"name": data.manifest.name, "version": data.manifest.version, "digest": data.manifest.digest},
        "clip_id": clip["clip_id"],
        "source_uri": clip["source_uri"],
        "person": clip["person"],
        "stand_in": clip["stand_in"],
        "fps": [clip["fps_num"], clip["fps_den"]],
        "frames": clip["n_frames"],
        "start_us": clip["start_us"],
        "scores": {name: value for name, value in clip.items() if isinstance(value, float)},
        "models": {name: sha256 for stage in used for name, sha256 in stage.models.items()},
        "stages": {stage.name: {"version": stage.version, **stage.parameters} for stage in used},
        "conventions": {
            "nphm": "x_nphm = world_to_nphm x_world; NPHM's space is FLAME's times 4; y up, z out of the face",
            "flame": "metres, the head not turned or moved; the folder is named as FaceTalk's, the model is named in models",
        },
    }


def _check_same(place: Path, data: Dataset, clip: dict[str, Any]) -> None:
    try:
        origin = json.loads((place / "headloom.json").read_text("utf-8"))
        same = (origin["dataset"]["digest"], origin["clip_id"]) == (data.manifest.digest, clip["clip_id"])
    except (OSError, ValueError, KeyError, TypeError):
        same = False
    if not same:
        raise ManifestError(f"{place}: is there already and is not this dataset's; move it away, or give another --out")


def _require(data: Dataset, recipe: str, *names: str) -> None:
    lacking = [name for name in names if name not in data.columns]
    if lacking:
        raise ManifestError(f"{data.place}: holds no {', '.join(lacking)}; build it with the recipe {recipe}")


def _say_what_lacks(data: Dataset, notice: Notice) -> None:
    if "wav2vec" not in data.columns:
        notice("wave2vec_audio_feats.pkl is left out: the dataset has no features of speech")
    match _sound_column(data):
        case "wave":
            notice("cleaned_audio.wav is the sound as it was given: the dataset has no wave_clean")
        case "":
            notice("cleaned_audio.wav is left out: the dataset has no sound")
    if "nphm_identity" not in data.columns:
        notice("nphm_identity.npz is left out: the dataset has no nphm_identity")
    if "world_to_nphm" not in data.columns:
        notice("world_to_nphm is left out of nphm_expressions: the dataset has none")
    if not set(_MESHES) <= set(data.columns):
        notice("nphm_meshes is left out: the dataset has no family meshes")
    if not set(_FLAME) <= set(data.columns):
        notice("flame_2023_tracking is left out: the dataset has no family flame")


def _sound_column(data: Dataset) -> str:
    """Which column goes into ``cleaned_audio.wav``; empty where there is none."""
    return next((name for name in ("wave_clean", "wave") if name in data.columns), "")


def _names(clips: list[dict[str, Any]]) -> list[str]:
    """``<person>_<sequence>``, with the clip's id where that is not unique; folders of codes are named so already."""
    people = [_safe(clip["person"] or "unnamed") for clip in clips]
    sequences = [
        _safe(Path(clip["source_uri"]).name).removeprefix(f"{person}_") for clip, person in zip(clips, people, strict=True)
    ]
    plain = [f"{person}_{sequence}" for person, sequence in zip(people, sequences, strict=True)]
    counts = Counter(plain)
    return [name if counts[name] == 1 else f"{name}_{clip['clip_id'][:12]}" for name, clip in zip(plain, clips, strict=True)]


def _safe(name: str) -> str:
    """A name that is a file's on every system."""
    return re.sub(r"[^\w.-]", "_", name).lstrip(".-") or "unnamed"


def _array(values: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, np.asarray(values))
    return file.getvalue()


def _archive(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def _sound(wave: np.ndarray) -> bytes:
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, wave, _SOUND_RATE, subtype="PCM_16", format="WAV")
    return file.getvalue()
