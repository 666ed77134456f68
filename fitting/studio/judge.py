"""What was made of the studio's captures, against the truth beside them: clouds, landmarks, FLAME, NPHM.

Millimetres are those of the world. ``face`` is FLAME's region of that name, without the eyeballs.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fitting.captures import cameras_of
from fitting.flame import Flame, load_regions
from fitting.flame_fit.rigid import align
from fitting.nphm import Nphm
from fitting.nphm.compose import Subject
from fitting.nphm_networks import load_networks
from fitting.rotations import axis_angle_to_matrix
from fitting.similarity import Similarity
from fitting.space import NPHM_SCALE
from fitting.stereo import Views, depth_maps
from fitting.studio.controls import Controls
from fitting.studio.family import HeadFamily
from fitting.studio.nphm_truth import signed_distances
from fitting.studio.people import PICTURED
from fitting.studio.truth import LABELS
from manifests.assets import find
from manifests.document import ManifestError
from manifests.reader import Dataset
from prep.capture import DEPTH_STEPS, open_capture
from prep.cut import frames_shown

GOALS = {
    "depth_median_mm": "< 0.5",
    "cloud_median_mm": "",
    "cloud_within_1mm": "> 0.95",
    "landmark_mm": "",
    "flame_vertex_mm": "< 0.7",
    "rotation_deg": "< 0.3",
    "nphm_surface_mm": "",
    "nphm_true_codes_mm": "",
    "nphm_surface_ratio": "≤ 1.10",
    "jitter_mae_ratio": "≥ 5",
    "jitter_rmse_ratio": "≥ 3",
    "temporal_surface_cost": "≤ 0.05",
}
"""What the figures should be, for those that have a goal."""

_SAMPLE = 2000
"""Points of a frame's cloud whose distance is measured."""
_EVERY = 3
"""So manieth of the face's vertices are asked for the networks' surface."""
_FRAMES = 8
"""At most so many frames of a clip are measured, evenly spread."""
_JITTER = ("jitter_mae", "jitter_rmse")
_CONTROLS = ("activations", "jaw", "neck", "head", "translation", "gaze")
_READ = (
    "cloud_points",
    "cloud_counts",
    "landmarks3d",
    "landmarks3d_valid",
    "flame_identity",
    "flame_expression",
    "flame_jaw",
    "flame_rotation",
    "flame_translation",
    "world_to_nphm",
    "nphm_identity",
    "nphm_expression",
)


class Truth(NamedTuple):
    """The answers at the T frames of a clip."""

    identity: NDArray[np.float64]
    controls: Controls
    vertices: Tensor
    """(T, V, 3) float64 of the mesh that was seen."""
    landmarks: NDArray[np.float64]
    """(T, 68, 3)."""
    nphm_identity: Tensor
    nphm_expression: Tensor
    """(T, 200)."""
    world_to_nphm: Similarity
    """(T,) of the face."""


def judge(data: Dataset, captures: Path, without: Dataset | None = None) -> dict[str, float]:
    """Means over all clips of a dataset of the recipe ``facetalk_nphm`` that was built of the studio's captures, which lie in the
    folder ``captures``.

    ``nphm_surface_mm`` is the distance between the face and the surface of the fitted codes where FLAME's fit puts it, both ways;
    ``nphm_true_codes_mm`` that of the true codes in their true place, through the same networks; ``nphm_surface_ratio`` is the
    one over the other. ``without`` is the same dataset fitted without the temporal term, as often as one wants to know what the
    term brings and costs: by how much it lowers the mean absolute and the root mean square difference of neighbouring codes
    (FaceTalk, table 4), and by which share the surface error grows. Raises ``ManifestError`` where a capture's truth is not
    beside it.
    """
    head, found = networks(data), []
    clips = data.clips.to_pylist()
    if not clips:
        raise ManifestError(f"{data.place}: has no clips to be judged; headloom quarantine tells why")
    for row, clip in enumerate(clips):
        truth = truth_of(capture_of(clip, captures), clip)
        held = {name: np.array(column) for name, column in data.read(row, *_READ).items()}
        figures = cloud_mm(held, truth) | landmarks_mm(held, truth) | flame_mm(held, clip, truth) | nphm_mm(head, held, truth)
        if without is not None:
            figures |= _without(head, without, clip, truth)
        found.append(figures | {name: clip[name] for name in _JITTER})
    mean = {name: statistics.mean(one[name] for one in found) for name in found[0]}
    mean["nphm_surface_ratio"] = mean["nphm_surface_mm"] / mean["nphm_true_codes_mm"]
    if without is not None:
        mean |= {f"{name}_ratio": mean.pop(f"{name}_without") / mean[name] for name in _JITTER}
        mean["temporal_surface_cost"] = mean["nphm_surface_mm"] / mean.pop("nphm_surface_mm_without") - 1
    return mean


def _without(head: Nphm, without: Dataset, clip: Mapping[str, Any], truth: Truth) -> dict[str, float]:
    """The figures of the same clip, fitted without the temporal term."""
    other = without.clips.to_pylist()[without.rows[clip["clip_id"]]]
    held = {name: np.array(column) for name, column in without.read(clip["clip_id"], *_READ).items()}
    jitter = {f"{name}_without": other[name] for name in _JITTER}
    return jitter | {"nphm_surface_mm_without": fitted_mm(head, held, truth)}


def capture_of(clip: Mapping[str, Any], captures: Path) -> Path:
    """The folder of the capture that a ``clip`` (a row of the clip index) is of: person, ``sequences``, sequence."""
    return captures.joinpath(*Path(clip["source_uri"]).parts[-3:])


def truth_of(capture: Path, clip: Mapping[str, Any]) -> Truth:
    """The answers beside a ``capture``, at the frames of a ``clip``."""
    path = capture.with_name(capture.name + ".truth.npz")
    if not path.is_file():
        raise ManifestError(f"{path}: the capture's truth is not there; only captures of the studio can be judged")
    held = np.load(path, allow_pickle=False)
    times = np.rint(1e6 * held["times"]).astype(np.int64)
    shown = frames_shown(times, clip["n_frames"], clip["fps_num"], clip["fps_den"])
    identity, controls = held["identity"], Controls(*(held[name][shown] for name in _CONTROLS))
    still = np.zeros_like(controls.jaw)
    at_rest = HeadFamily(PICTURED).vertices(identity, controls._replace(neck=still, head=still, translation=still)).double()
    vertices = torch.from_numpy(held["vertices"][shown]).double()
    face = HeadFamily(PICTURED).regions["face"]
    place = align(vertices[:, face], NPHM_SCALE * at_rest[:, face], torch.ones(len(shown), len(face)).double(), scaled=True)
    codes = (torch.from_numpy(held[name]).float() for name in ("nphm_identity", "nphm_expression"))
    who, moving = codes
    return Truth(identity, controls, vertices, held["landmarks68"][shown], who, moving[shown], place)


def networks(data: Dataset) -> Nphm:
    """The NPHM that the dataset was fitted with."""
    stage = next((stage for stage in data.manifest.stages if stage.name == "nphm"), None)
    if stage is None:
        raise ManifestError(f"{data.place}: has no codes of NPHM; build it with the recipe facetalk_nphm")
    return load_networks(stage.parameters["composition"])


def cloud_mm(held: Mapping[str, NDArray[Any]], truth: Truth) -> dict[str, float]:
    """Distances of a sample of each frame's points to the surface that was seen."""
    rng, faces = np.random.default_rng(0), HeadFamily(PICTURED).faces
    clouds = np.split(held["cloud_points"].astype(np.float64), np.cumsum(held["cloud_counts"])[:-1])
    found = [
        1000 * np.abs(signed_distances(rng.permutation(clouds[frame])[:_SAMPLE], truth.vertices[frame].numpy(), faces))
        for frame in _spread(len(clouds))
        if len(clouds[frame])
    ]
    distances = np.concatenate(found)
    return {"cloud_median_mm": float(np.median(distances)), "cloud_within_1mm": float((distances < 1).mean())}


def landmarks_mm(held: Mapping[str, NDArray[Any]], truth: Truth) -> dict[str, float]:
    valid = held["landmarks3d_valid"].astype(bool)
    return {"landmark_mm": float(1000 * np.linalg.norm(held["landmarks3d"] - truth.landmarks, axis=-1)[valid].mean())}


def flame_mm(held: Mapping[str, NDArray[Any]], clip: Mapping[str, Any], truth: Truth) -> dict[str, float]:
    """Of the face's vertices, and of the head's rotation."""
    flame = Flame.load(find("flame2020"))
    codes = {
        name: torch.from_numpy(held[f"flame_{name}"]) for name in ("identity", "expression", "jaw", "rotation", "translation")
    }
    with torch.no_grad():
        rest = flame(codes["identity"][None], codes["expression"], jaw=codes["jaw"] if flame.has_jaw else None).vertices
    rotation = axis_angle_to_matrix(codes["rotation"])
    placed = clip["flame_scale"] * (rest @ rotation.mT) + codes["translation"][:, None]
    face = load_regions(find("flame-masks"))["face"]
    true = HeadFamily("medium").vertices(truth.identity, truth.controls)
    turns = axis_angle_to_matrix(torch.from_numpy(truth.controls.head)) @ axis_angle_to_matrix(
        torch.from_numpy(truth.controls.neck)
    )
    between = rotation.double().mT @ turns
    cosine = (between.diagonal(dim1=-2, dim2=-1).sum(dim=-1) - 1) / 2
    return {
        "flame_vertex_mm": float(1000 * (placed - true)[:, face].norm(dim=-1).mean()),
        "rotation_deg": float(torch.rad2deg(torch.acos(cosine.clamp(-1, 1))).mean()),
    }


def nphm_mm(head: Nphm, held: Mapping[str, NDArray[Any]], truth: Truth) -> dict[str, float]:
    """Of the surface of the fitted codes, and of that of the true ones."""
    true = surface_mm(head, truth.nphm_identity, truth.nphm_expression, truth.vertices, truth.world_to_nphm)
    return {"nphm_surface_mm": fitted_mm(head, held, truth), "nphm_true_codes_mm": true}


def fitted_mm(head: Nphm, held: Mapping[str, NDArray[Any]], truth: Truth) -> float:
    """Of the surface of the fitted codes, where the fit of FLAME puts it."""
    place = Similarity.from_matrix(torch.from_numpy(held["world_to_nphm"]).double())
    codes = torch.from_numpy(held["nphm_identity"]), torch.from_numpy(held["nphm_expression"])
    return surface_mm(head, *codes, truth.vertices, place)


def surface_mm(head: Nphm, identity: Tensor, expressions: Tensor, vertices: Tensor, world_to_nphm: Similarity) -> float:
    """Mean distance between the face of the seen mesh, ``vertices`` (T, V, 3) in the world, and the networks' surface.

    The face's vertices are moved onto the surface along its gradient; the way there is the distance one way, and from there to
    the mesh the other way.
    """
    family = HeadFamily(PICTURED)
    subject, face = head.subject(identity[None]), family.regions["face"][::_EVERY]
    distances = []
    for frame in _spread(len(vertices)):
        mesh = vertices[frame]
        place = Similarity(*(part[frame] for part in world_to_nphm))
        there = _onto_surface(head, subject, expressions[frame : frame + 1], place.apply(mesh[face]).float())
        back = place.inverse().apply(there.double())
        one_way = (back - mesh[face]).norm(dim=-1).numpy()
        distances.append((one_way + np.abs(signed_distances(back.numpy(), mesh.numpy(), family.faces))) / 2)
    return float(1000 * np.concatenate(distances).mean())


def _spread(count: int) -> list[int]:
    """At most ``_FRAMES`` of ``count`` frames."""
    return [int(frame) for frame in np.unique(np.linspace(0, count - 1, min(count, _FRAMES)).round())]


def _onto_surface(head: Nphm, subject: Subject, expression: Tensor, points: Tensor, steps: int = 3) -> Tensor:
    """``points`` (N, 3) moved by Newton's method along the gradient of the distance, at most a centimetre a step."""
    farthest = 0.01 * NPHM_SCALE
    for _ in range(steps):
        asked = points.detach().requires_grad_()
        sdf = head(asked[None], expression, subject).sdf[0]
        (slope,) = torch.autograd.grad(sdf.sum(), asked)
        step = sdf.detach()[:, None] * slope / slope.square().sum(dim=-1, keepdim=True).clamp(min=1e-4)
        points = asked.detach() - step * (farthest / step.norm(dim=-1, keepdim=True).clamp(min=farthest))
    return points


def depth_median_mm(capture_path: Path, depth_range: tuple[float, float] = (0.8, 1.4)) -> float:
    """Median error of stereo's depth on skin, in the frame of a studio capture whose true maps lie beside it."""
    capture = open_capture(capture_path)
    with np.load(capture_path.with_name(capture_path.name + ".maps.npz"), allow_pickle=False) as held:
        depth, labels = held["depth"], held["labels"]
    size = depth.shape[2], depth.shape[1]
    middle = len(capture.times_us) // 2
    moment = next(capture.moments([middle], size))
    masks = None if moment.alpha is None else moment.alpha > 127
    found = depth_maps(Views(moment.pictures, cameras_of(capture, size), masks), depth_range=depth_range).depth
    skin = (labels == LABELS.index("skin")) & (depth > 0) & (found > 0)
    true = (depth.astype(np.float64) - 1) / DEPTH_STEPS
    return float(1000 * np.median(np.abs(found - true)[skin]))
