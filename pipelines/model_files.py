"""``headloom assets``: tells by its content which model file somebody has, checks it with its loader, puts it in place."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from manifests import assets
from manifests.assets import ASSETS, Asset
from manifests.atomic import whole_file, write_whole
from manifests.document import did_you_mean, file_digest
from manifests.model_file import Kind, WrongModelFile, kind_of

Shapes = dict[str, tuple[int, ...]]


def add(path: Path, name: str = "", replace: bool = False) -> tuple[Asset, Path, str]:
    """Check a model file and copy it to where ``manifests.assets.find`` finds it; returns asset, place and what it holds.

    ``name`` says which asset it is, where several have the same content and the file's name does not tell. Raises
    ``WrongModelFile`` when the file is no known model file, its loader refuses it, or another file is there already and
    is not to be replaced.
    """
    asset = recognise(path, name)
    holds = LOADERS[asset.name](path)
    digest = file_digest(path)
    place = assets.home() / asset.file_names[0]
    if place.is_file() and file_digest(place) != digest and not replace:
        raise WrongModelFile(f"{place} is there already and differs from {path}: give --replace to put the new one in its place")
    record = {
        "asset": asset.name,
        "sha256": digest,
        "bytes": path.stat().st_size,
        "source": str(path.resolve()),
        "added_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "holds": holds,
    }
    if not (place.is_file() and place.samefile(path)):
        with path.open("rb") as source, whole_file(place) as target:
            shutil.copyfileobj(source, target, 1 << 20)
    write_whole(assets.record_path(place), json.dumps(record, indent=1).encode())
    return asset, place, holds


def problems(name: str) -> list[str]:
    """What is wrong with a model file that is in place; empty when its loader takes it and it is the file that was added."""
    path = assets.find(name)
    found = []
    try:
        recognise(path, name)
        LOADERS[name](path)
    except WrongModelFile as error:
        found.append(str(error))
    try:
        recorded = assets.record(path).get("sha256")
        if recorded and recorded != assets.digest(name):
            found.append(f"{path} has changed since it was added: add it again from its source")
    except WrongModelFile as error:
        found.append(str(error))
    return found


def recognise(path: Path, name: str = "") -> Asset:
    """Which asset a file is, by content; its name only decides between assets of equal content.

    Raises ``WrongModelFile`` when it is none, when several are possible, or when it is not the one called ``name``.
    """
    if name and name not in ASSETS:
        raise WrongModelFile(f"no model file is called '{name}'{did_you_mean(name, ASSETS)}")
    kind, shapes = contents(path)
    alike = [asset for asset in ASSETS.values() if asset.kind is kind]
    fitting = [asset for asset in alike if all(mark in shapes for mark in asset.marks)]
    if name:
        if ASSETS[name] not in fitting:
            raise WrongModelFile(f"{path} is not {name}: {_what_is_missing(ASSETS[name], kind, shapes)}")
        return ASSETS[name]
    if not fitting:
        nearest = max(alike, key=lambda asset: sum(mark in shapes for mark in asset.marks) / len(asset.marks), default=None)
        if nearest and any(mark in shapes for mark in nearest.marks):
            raise WrongModelFile(f"{path} looks like {nearest.name}, but {_what_is_missing(nearest, kind, shapes)}")
        held = ", ".join(list(shapes)[:4]) or "nothing"
        raise WrongModelFile(f"{path} is a {kind} with {held}, no model file that headloom uses: see headloom assets list")
    if len(fitting) == 1:
        return fitting[0]
    named = [asset for asset in fitting if path.name in asset.file_names]
    if len(named) != 1:
        raise WrongModelFile(f"{path} may be {' or '.join(asset.name for asset in fitting)}: say which with --as NAME")
    return named[0]


def contents(path: Path) -> tuple[Kind, Shapes]:
    """The format of a model file, and the shapes of what it holds under their keys, those of nested dicts joined by dots.

    A single array is held under its own shape, as in ``39×3``.
    """
    kind = kind_of(path)
    return kind, _READERS[kind](path)


def _what_is_missing(asset: Asset, kind: Kind, shapes: Shapes) -> str:
    if kind is not asset.kind:
        return f"that is a {asset.kind}, and this a {kind}"
    return f"it lacks {', '.join(mark for mark in asset.marks if mark not in shapes)}"


def _flat(value: Any) -> Shapes:
    shapes: Shapes = {}
    waiting: list[tuple[str, Any]] = [("", value)]
    seen = set()
    while waiting:
        prefix, item = waiting.pop()
        if not isinstance(item, Mapping):
            shape = tuple(getattr(item, "shape", ()))
            shapes[prefix or "×".join(map(str, shape))] = shape
        elif id(item) not in seen:  # a file may hold the same dict in many places, and in itself
            seen.add(id(item))
            waiting += [(f"{prefix}.{name}" if prefix else str(name), item[name]) for name in reversed(list(item))]
    return shapes


def _read_pickle(path: Path) -> Shapes:
    from manifests.pickles import load_pickle

    return _flat(load_pickle(path))


def _read_npy(path: Path) -> Shapes:
    from manifests.pickles import load_npy

    return _flat(load_npy(path))


def _read_npz(path: Path) -> Shapes:
    from manifests.pickles import load_npz

    return _flat(load_npz(path))


def _read_mat(path: Path) -> Shapes:
    import scipy.io

    try:
        return {name: shape for name, shape, _ in scipy.io.whosmat(path)}
    except Exception as error:  # a damaged file may raise anything
        raise WrongModelFile(f"{path} is truncated or damaged ({error}): download it again") from error


def _read_torch(path: Path) -> Shapes:
    from prep.weights import load_weights

    return _flat(load_weights(path))


def _read_safetensors(path: Path) -> Shapes:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as file:
            return {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise WrongModelFile(f"{path} is damaged ({error}): download it again") from error


_READERS: dict[Kind, Callable[[Path], Shapes]] = {
    Kind.pickle: _read_pickle,
    Kind.npy: _read_npy,
    Kind.npz: _read_npz,
    Kind.mat: _read_mat,
    Kind.torch: _read_torch,
    Kind.safetensors: _read_safetensors,
}


def _load_flame(path: Path) -> str:
    from fitting.flame.files import read_model

    model = read_model(path)
    directions = f"{model.identity.shape[2]} identity and {model.expression.shape[2]} expression directions"
    return f"{len(model.template)} vertices, {directions}, shapedirs {model.digest[:12]}"


def _load_flame_regions(path: Path) -> str:
    from fitting.flame import load_regions

    return f"{len(load_regions(path))} regions"


def _load_flame_landmarks(path: Path) -> str:
    from fitting.flame.landmarks import read_embeddings

    return ", ".join(f"{len(found.indices)} {name}" for name, found in read_embeddings(path).items())


def _load_eyelid(path: Path) -> str:
    from fitting.flame.files import read_eyelid

    return f"{len(read_eyelid(path))} vertices"


def _load_bfm(path: Path) -> str:
    from fitting.bfm.files import load_bfm_file

    model = load_bfm_file(path)
    return f"{len(model.mean_shape)} vertices, {len(model.faces)} faces"


def _load_bfm_landmarks(path: Path) -> str:
    from fitting.bfm.files import load_landmarks3d

    return f"{len(load_landmarks3d(path))} landmarks"


def _load_reconnet(path: Path) -> str:
    from fitting.bfm.reconnet import load_reconnet

    return f"{sum(weights.numel() for weights in load_reconnet(path).parameters()):,} parameters"


def _load_s3fd(path: Path) -> str:
    from prep.detect import S3fdDetector

    S3fdDetector(path)
    return "the face detector's weights"


def _load_face_parsing(path: Path) -> str:
    from prep.face_parsing import CLASSES, load_face_parsing

    load_face_parsing(path)
    return f"a network for {len(CLASSES)} classes of pixels"


def _load_fan(path: Path) -> str:
    from prep.landmarks2d import read_fan

    read_fan(path)
    return "the landmark network's weights"


def _load_nphm_identity(path: Path) -> str:
    from fitting.nphm.files import read_identity
    from fitting.nphm.identity import IdentityNetwork

    state = read_identity(path)
    network = IdentityNetwork.from_state(state, _any_anchors(state), path)
    return f"{network.n_members} members, codes of {network.code_size}"


def _any_anchors(state: Mapping[str, Any]) -> Any:
    """Mean anchors are in a file of their own, which need not be here; their number is all that the weights tell."""
    import torch

    return torch.zeros(len(state.get("mlp_pos.4.bias", range(3 * 39))) // 3, 3)


def _load_nphm_expression(path: Path) -> str:
    from fitting.nphm.files import load_expression

    network = load_expression(path)
    return f"conditioning {network.conditioning}, codes of {network.n_expression}"


def _load_anchors(path: Path) -> str:
    from fitting.nphm.files import load_anchors

    return f"{len(load_anchors(path))} anchors"


def _load_code_statistic(path: Path) -> str:
    from fitting.nphm.files import load_code_statistic

    return f"{len(load_code_statistic(path))} numbers"


def _load_mononphm(path: Path) -> str:
    from fitting.nphm.mono_files import mononphm_of, read_mononphm

    parts = read_mononphm(path)
    model = mononphm_of(parts, _any_anchors(parts["id_decoder"]), path)
    return f"codes of {model.identity.code_size} and {model.expression.n_expression}, {len(model.codebooks.geometry)} identities"


LOADERS: dict[str, Callable[[Path], str]] = {
    "s3fd": _load_s3fd,
    "fan": _load_fan,
    "face-parsing": _load_face_parsing,
    **dict.fromkeys(("flame2020", "flame2020-female", "flame2020-male", "flame2023", "flame2023-no-jaw"), _load_flame),
    "flame-masks": _load_flame_regions,
    **dict.fromkeys(
        ("flame-landmarks", "flame-landmarks-static", "flame-landmarks-contour", "flame-landmarks-mediapipe"),
        _load_flame_landmarks,
    ),
    **dict.fromkeys(("flame-eyelid-left", "flame-eyelid-right"), _load_eyelid),
    "bfm": _load_bfm,
    "bfm-landmarks": _load_bfm_landmarks,
    **dict.fromkeys(("deep3d", "sadtalker-256", "sadtalker-512"), _load_reconnet),
    "nphm-identity": _load_nphm_identity,
    **dict.fromkeys(("nphm-expression", "nphm-backward"), _load_nphm_expression),
    **dict.fromkeys(("nphm-anchors", "mononphm-anchors"), _load_anchors),
    **dict.fromkeys(("nphm-code-mean", "nphm-code-std"), _load_code_statistic),
    "mononphm": _load_mononphm,
}
"""Reads a model file of each asset as whoever uses it will, and says in a few words what it holds."""
