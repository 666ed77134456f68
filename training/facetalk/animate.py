"""From codes to faces: meshes of every frame, how far the mouth is open, and an animation as files.

Codes are those of the columns ``nphm_expression`` and ``nphm_identity`` (FaceTalk, §4 "Sequence Generation"), or of
``flame_expression`` with ``flame_jaw`` behind it and ``flame_identity`` (supplement A). ``training.facetalk.film`` shows them.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fitting.flame import Flame
from fitting.flame.landmarks import Landmarks
from fitting.isosurface import Mesh
from fitting.nphm.compose import Composition, Nphm, Subject
from fitting.nphm.identity import IdentityCondition, IdentityNetwork
from fitting.nphm.roots import find_canonical
from fitting.ply import ply_bytes
from fitting.space import NPHM_SCALE
from manifests.atomic import TEMPORARY, whole_file, write_whole
from manifests.document import ManifestError
from training.facetalk.film import YAWS, Picture, preview, render
from training.facetalk.smoothing import Smoothing

FLAME_EXPRESSION = 100
"""Numbers of a FLAME code before the jaw's three."""

_STEPS = 8
"""Of Newton's method, from a point near the surface to it."""

_STARTS = 16
"""Of the search for a posed lip."""

_MM = 1000 / NPHM_SCALE

MARKER, CODES, FILM = "animation.json", "codes.npz", "preview.mp4"
"""Files of an animation beside its meshes: the first one that is written, the last one, and the film."""

_FORMAT = "headloom/animation"


def meshes_of(
    codes: Tensor, identity: Tensor, head: Nphm, smoothing: Smoothing | None = None, resolution: int = 128
) -> Iterator[Mesh]:
    """The heads of ``codes`` (T, 200) of one person (1344,), frame by frame, in metres with FLAME's axes.

    ``smoothing`` is FaceTalk's, if any. Networks run where the head is; meshes are on the CPU. A frame of the studio's backward
    network takes 1.8, 4.5 and 8 s on one core at a ``resolution`` of 64, 96 and 128; with a forward network, whose head is
    extracted once, the first frame takes as long and the others a fraction of a second.
    """
    codes, subject = _on_head(codes, identity, head)
    weight = None if smoothing is None else smoothing.weight
    for mesh in head.each_mesh(codes, subject, resolution=resolution, weight=weight):
        yield mesh._replace(vertices=mesh.vertices / NPHM_SCALE)


def flame_meshes_of(codes: Tensor, identity: Tensor, flame: Flame, batch: int = 64) -> Iterator[Mesh]:
    """FLAME's heads of ``codes`` (T, 103) of one person (300,), frame by frame, in metres, not turned.

    A code is 100 of the expression, then the jaw's axis-angle in radians.
    """
    person, faces = identity.to(flame.template)[None], flame.faces.cpu()
    for part in codes.to(flame.template).split(batch):
        with torch.no_grad():
            posed = flame(person, part[:, :FLAME_EXPRESSION], jaw=part[:, FLAME_EXPRESSION:]).vertices
        for vertices in posed.to("cpu", torch.float32):
            yield Mesh(vertices, faces, 0)


def write_animation(
    codes: Tensor,
    identity: Tensor,
    head: Nphm | Flame,
    folder: Path,
    fps: Fraction,
    wave: NDArray[np.float32],
    rate: int,
    *,
    smoothing: Smoothing | None = None,
    resolution: int = 128,
) -> None:
    """Write ``frame_00000.ply`` and so on, in metres, for each frame of ``codes``, and ``preview.mp4`` with the sound.

    ``codes``, ``identity`` and the rest are those of ``meshes_of``, or of ``flame_meshes_of`` for a FLAME head, which has neither
    ``smoothing`` nor ``resolution``; ``wave`` (S,), -1 ... 1, is the sound of ``rate`` Hz, beginning with the first frame.
    ``animation.json`` comes first: it says what the folder is, and of how many frames. ``codes.npz`` comes last, so where it is,
    the animation is whole: it has ``codes``, ``identity``, ``fps`` (numerator and denominator), ``wave`` and ``rate``. An
    animation that was in ``folder`` goes. Raises ``ManifestError`` for a folder that holds anything else (``frames_held``), and
    ``ValueError`` for no frame.
    """
    if not len(codes):
        raise ValueError(f"{folder}: there are no codes to make an animation of; give (T, E) of one frame at least")
    if held := frames_held(folder):
        _mark(folder, held)  # what an older headloom made has none, and is still known for its own if this is cut off
        for path in sorted(folder.iterdir()):  # codes.npz, which says that all is there, goes before any frame
            if path.name != MARKER:
                path.unlink()
    _mark(folder, len(codes))
    if isinstance(head, Flame):
        meshes = flame_meshes_of(codes, identity, head)
    else:
        meshes = meshes_of(codes, identity, head, smoothing, resolution)

    def pictures() -> Iterator[Picture]:
        for number, mesh in enumerate(meshes):
            write_whole(folder / _frame(number), ply_bytes(mesh.vertices, mesh.faces))
            yield render(mesh, YAWS)

    write_whole(folder / FILM, preview(pictures(), fps, wave, rate))
    with whole_file(folder / CODES) as file:
        np.savez(
            file,
            codes=codes.detach().cpu().numpy(),
            identity=identity.detach().cpu().numpy(),
            fps=np.array([fps.numerator, fps.denominator]),
            wave=wave,
            rate=rate,
        )


def frames_held(folder: Path) -> int:
    """Of how many frames the animation in ``folder`` is; 0 for a folder that is empty or not there.

    An animation is known by ``animation.json``, or by the ``codes.npz`` of an older headloom. Raises ``ManifestError`` for a
    folder in which anything is no part of it, as frames without either: others write such names, too.
    """
    if not folder.is_dir():
        if folder.exists():
            raise ManifestError(f"{folder}: is a file; give the name of a folder for the animation")
        return 0
    count = _marked(folder / MARKER) or _coded(folder / CODES)
    own = {MARKER, CODES, FILM, *(_frame(number) for number in range(count))} if count else set()
    for path in sorted(folder.iterdir()):
        if not path.name.startswith(TEMPORARY) and (path.name not in own or not path.is_file()):
            raise ManifestError(
                f"{folder}: holds {path.name}, which is no part of an animation of headloom's; "
                "give a new folder, or that of an animation alone"
            )
    return count


def flame_lips(flame: Flame, landmarks: Landmarks, identity: Tensor, jaw: float = 0.1) -> Tensor:
    """About where the middle of the inner lips, upper and lower, is on the canonical NPHM head of a person (300,): (2, 3).

    They are landmarks 62 and 66 of iBUG's 68 in NPHM's space. The jaw is opened by so many radians, since NPHM's canonical mouth
    is open: each lip's own edge is then the nearest surface. Raises ``ValueError`` for a FLAME without jaw.
    """
    with torch.no_grad():
        opened = flame(identity.to(flame.template), jaw=flame.template.new_tensor([jaw, 0.0, 0.0])).vertices
        points = landmarks(opened)
    rows = [landmarks.indices.tolist().index(number) for number in (62, 66)]
    return NPHM_SCALE * points[rows]


def mouth_opening_mm(codes: Tensor, identity: Tensor, head: Nphm, lips: Tensor) -> NDArray[np.float64]:
    """(T,) millimetres between the inner lips of the heads of ``codes`` (T, 200) of one person (1344,).

    ``lips`` (2, 3) lie near the middle of the upper and the lower inner lip of the canonical head, in NPHM's space
    (``flame_lips``). The nearest points of the canonical surface are followed to where each frame poses them: by the offsets of a
    forward network, by the roots of a backward one; of a lip that no root is found for, the best try counts. All frames are one
    batch. A backward network cannot tell lips that touch apart: the studio's leaves 3 mm between shut ones, and follows wider
    mouths. With a forward network for the same codes the figure is truer. Raises ``ValueError`` for MonoNPHM's head.
    """
    codes, subject = _on_head(codes, identity, head)
    points = _on_surface(lips.to(codes), subject, head).expand(len(codes), -1, -1)
    with torch.no_grad():
        if head.composition is Composition.forward:
            posed = points + head.expression(points, codes, subject.expression).offset
        else:
            # Lips move far, so a search that begins where they are on the canonical head often ends nowhere.
            seeded = torch.Generator().manual_seed(0)
            posed = find_canonical(head.expression, points, codes, subject.expression, starts=_STARTS, generator=seeded).points
    opening: NDArray[np.float64] = (_MM * (posed[:, 0] - posed[:, 1]).norm(dim=-1)).double().cpu().numpy()
    return opening


def _frame(number: int) -> str:
    return f"frame_{number:05d}.ply"


def _mark(folder: Path, frames: int) -> None:
    write_whole(folder / MARKER, json.dumps({"format": _FORMAT, "frames": frames}).encode())


def _marked(path: Path) -> int:
    """Frames of the animation that ``animation.json`` tells of; 0 where it does not."""
    try:
        held = json.loads(path.read_bytes())
        return int(held["frames"]) if held["format"] == _FORMAT else 0
    except (OSError, ValueError, LookupError, TypeError):
        return 0


def _coded(path: Path) -> int:
    """Frames of the animation that ``codes.npz`` is of; 0 for other files, as codes alone."""
    try:
        with np.load(path) as held:
            return len(held["codes"]) if {"identity", "fps", "wave", "rate"} <= set(held) else 0
    except (OSError, EOFError, ValueError, LookupError, TypeError, AttributeError, zipfile.BadZipFile):
        return 0


def _on_surface(points: Tensor, subject: Subject, head: Nphm) -> Tensor:
    """(1, P, 3) the points of the canonical surface that the distance's slope leads to from ``points`` (P, 3)."""
    if not isinstance(head.identity, IdentityNetwork) or not isinstance(subject.identity, IdentityCondition):
        raise ValueError("the mouth is looked for on NPHM's heads: MonoNPHM has no codes of FaceTalk's")
    found = points.detach()[None]
    for _ in range(_STEPS):
        with torch.enable_grad():
            found.requires_grad_(True)
            distance = head.identity(found, subject.identity, floor=0.0)
            (slope,) = torch.autograd.grad(distance.sum(), found)
        found = (found - distance[..., None] * slope / slope.square().sum(dim=-1, keepdim=True).clamp(min=0.25)).detach()
    return found


def _on_head(codes: Tensor, identity: Tensor, head: Nphm) -> tuple[Tensor, Subject]:
    """The codes as the head takes them, and the person."""
    weight = next(head.parameters())
    with torch.no_grad():
        return codes.detach().to(weight), head.subject(identity.detach().to(weight)[None])
