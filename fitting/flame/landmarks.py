"""Landmarks on FLAME: points on its triangles, in the three formats in which people share them, fixed or along the contour."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fitting.flame.files import PARENTS, array_of
from fitting.flame.model import Flame, FlameMesh
from manifests.model_file import Kind, Shape, WrongModelFile, check_shapes, kind_of
from manifests.pickles import load_npy, load_npz, load_pickle

N_CONTOUR = 17
LAST_DEGREE = 39
"""Contour rows 0 to 39 are for a head turned by so many degrees, rows 40 to 78 for -1 to -39."""

Set = Literal["full", "static", "mediapipe"]


class Embedding(NamedTuple):
    """Points on triangles: L landmarks, or R rows of them."""

    triangles: NDArray[np.int64]
    """(L,) or (R, L) indices of FLAME's faces."""
    barycentric: NDArray[np.float64]
    """(L, 3) or (R, L, 3) weights of the triangle's corners."""
    indices: NDArray[np.int64]
    """(L,) which of the detector's landmarks these are: of iBUG's 68 (pupils 68 and 69), or of MediaPipe's 478."""


_RINGNET = ("lmk_face_idx", "lmk_b_coords")
_DECA = tuple(f"{name}_lmk_{part}" for name in ("static", "dynamic", "full") for part in ("faces_idx", "bary_coords"))


def read_embeddings(path: Path | str) -> dict[str, Embedding]:
    """The sets of landmarks in a file, by name, whichever of these it is:

    - RingNet's pair: ``flame_static_embedding.pkl`` (static, 51) and ``flame_dynamic_embedding.npy`` (contour, 79×17);
    - ``landmark_embedding.npy`` of DECA, MICA and SMIRK: static (51), contour (79×17), full (68); and VHAP's
      ``landmark_embedding_with_eyes.npy``, static (53) and full (70), with the pupils of the right and the left eye last;
    - ``mediapipe_landmark_embedding.npz``: mediapipe (105).

    Raises ``WrongModelFile`` with every key that is missing, unexpected or has another shape.
    """
    path = Path(path)
    kind = kind_of(path)
    held = {Kind.pickle: load_pickle, Kind.npz: load_npz}.get(kind, load_npy)(path)
    if not isinstance(held, dict):
        raise WrongModelFile(f"{path} holds a {type(held).__name__} instead of a dict of triangles and barycentric coordinates")
    shapes = {str(key): array_of(path, str(key), value).shape for key, value in held.items()}
    if kind is Kind.npz:
        check_shapes(path, shapes, {**_shapes(_RINGNET, "landmarks"), "landmark_indices": ("landmarks",)})
        return {"mediapipe": _embedding(path, held, _RINGNET, _array(path, held, "landmark_indices", "iu"))}
    if _DECA[0] in shapes or _DECA[4] in shapes:
        static, contour, full = _DECA[:2], _DECA[2:4], _DECA[4:]
        expected = {**_shapes(static, "inner"), **_shapes(contour, 79, N_CONTOUR), **_shapes(full, 1, "all")}
        sizes = check_shapes(path, shapes, expected)
        if (sizes["inner"], sizes["all"]) not in ((51, 68), (53, 70)):
            raise WrongModelFile(
                f"{path} has {sizes['inner']} static and {sizes['all']} landmarks instead of 51 and 68, or 53 and 70"
            )
        held = {**held, **{key: np.asarray(held[key])[0] for key in full}}
        return {
            "static": _embedding(path, held, static, N_CONTOUR + np.arange(sizes["inner"])),
            "contour": _embedding(path, held, contour, np.arange(N_CONTOUR)),
            "full": _embedding(path, held, full, np.arange(sizes["all"])),
        }
    if len(shapes.get(_RINGNET[0], ())) == 2:
        check_shapes(path, shapes, _shapes(_RINGNET, 79, N_CONTOUR))
        return {"contour": _embedding(path, held, _RINGNET, np.arange(N_CONTOUR))}
    check_shapes(path, shapes, _shapes(_RINGNET, 51))
    return {"static": _embedding(path, held, _RINGNET, N_CONTOUR + np.arange(51))}


def _shapes(keys: tuple[str, ...], *shape: int | str) -> dict[str, Shape]:
    return {keys[0]: shape, keys[1]: (*shape, 3)}


def _embedding(path: Path, held: dict[str, Any], keys: tuple[str, ...], indices: NDArray[Any]) -> Embedding:
    triangles, barycentric = _array(path, held, keys[0], "iu"), _array(path, held, keys[1], "f")
    return Embedding(triangles.astype(np.int64), barycentric.astype(np.float64), indices.astype(np.int64))


def _array(path: Path, held: dict[str, Any], key: str, kinds: str) -> NDArray[Any]:
    array = np.asarray(held[key])
    if array.dtype.kind not in kinds:
        raise WrongModelFile(f"{path} has {key} of type {array.dtype} instead of {'indices' if 'i' in kinds else 'numbers'}")
    return array


def _corners(embedding: Embedding, flame: Flame, path: Path) -> Tensor:
    """Vertices (..., L, 3) of the triangles."""
    if flame.is_part:
        raise ValueError(f"{path} numbers the triangles of the whole head: load it with that, then take .among(vertices)")
    triangles, n_triangles = embedding.triangles, len(flame.faces)
    wrong = triangles[(triangles < 0) | (triangles >= n_triangles)]
    if wrong.size:
        raise WrongModelFile(f"{path} has landmarks on triangle {wrong[0]}, but {flame.name} has {n_triangles} triangles")
    return flame.faces[torch.from_numpy(triangles).to(flame.faces.device)]


def _places(corners: Tensor, vertices: Tensor) -> Tensor:
    """Where ``corners`` are among the vertex indices ``vertices`` (n,)."""
    order = torch.argsort(vertices)
    found = torch.searchsorted(vertices[order], corners.contiguous()).clamp(max=len(vertices) - 1)
    places = order[found]
    if lost := int((vertices[places] != corners).any(-1).sum()):
        raise ValueError(f"{lost} landmarks lie on vertices that are not given: add the landmarks' own .vertices to them")
    return places


class Landmarks(nn.Module):
    """Landmarks (..., L, 3) that stay on their triangles, out of vertices (..., V, 3)."""

    corners: Tensor  # (L, 3)
    barycentric: Tensor  # (L, 3)
    indices: Tensor
    """(L,) which of the detector's landmarks these are: of iBUG's 68 (and pupils 68, 69), or of MediaPipe's 478."""

    def __init__(self, corners: Tensor, barycentric: Tensor, indices: Tensor, n_vertices: int):
        super().__init__()
        self.n_vertices = n_vertices
        self.register_buffer("corners", corners, persistent=False)
        self.register_buffer("barycentric", barycentric, persistent=False)
        self.register_buffer("indices", indices, persistent=False)

    @classmethod
    def load(cls, path: Path | str, flame: Flame, which: Set | None = None) -> Landmarks:
        """The set ``which`` of a file (see ``read_embeddings``), on the whole head ``flame``.

        None takes the one set of RingNet's and MediaPipe's files, and ``full`` of others. Raises ``WrongModelFile``.
        """
        path = Path(path)
        sets = read_embeddings(path)
        fixed = [name for name in sets if name != "contour"]
        chosen: str = which or ("full" if "full" in fixed or not fixed else fixed[0])
        if chosen not in fixed:
            raise WrongModelFile(f"{path} has no landmarks {chosen}, only {', '.join(fixed) or 'contour'}")
        embedding = sets[chosen]
        barycentric = torch.from_numpy(embedding.barycentric).to(flame.template)
        indices = torch.from_numpy(embedding.indices).to(flame.faces.device)
        return cls(_corners(embedding, flame, path), barycentric, indices, flame.n_vertices)

    @property
    def vertices(self) -> Tensor:
        """Indices (n,) of the vertices that the landmarks depend on, sorted."""
        return self.corners.unique()

    def among(self, vertices: Tensor) -> Landmarks:
        """The same landmarks for a head of which only ``vertices`` (n,) are computed, as by ``flame.part(vertices)``.

        Raises ``ValueError`` when a landmark depends on another vertex.
        """
        places = _places(self.corners, vertices.to(self.corners.device))
        return Landmarks(places, self.barycentric, self.indices, len(vertices))

    def forward(self, vertices: Tensor) -> Tensor:
        if vertices.shape[-2:] != (self.n_vertices, 3):
            raise ValueError(
                f"landmarks are for vertices (..., {self.n_vertices}, 3), got {tuple(vertices.shape)}: for a part take .among"
            )
        return torch.einsum("...lci,lc->...li", vertices[..., self.corners, :], self.barycentric)


class Convention(NamedTuple):
    """How published code finds the contour's row and orders the landmarks."""

    joint: int
    """The head's rotation is that of this joint and its ancestors."""
    sign: int
    """Of the yaw that counts as positive."""
    contour_first: bool

    @property
    def chain(self) -> tuple[int, ...]:
        """The joints whose rotations make the head's, from the head down to the root."""
        joints = [self.joint]
        while PARENTS[joints[-1]] >= 0:
            joints.append(PARENTS[joints[-1]])
        return tuple(joints)


ContourRule = Literal["deca", "flame_pytorch", "smplx"]
CONVENTIONS: dict[ContourRule, Convention] = {
    "deca": Convention(joint=1, sign=1, contour_first=True),
    "flame_pytorch": Convention(joint=1, sign=-1, contour_first=True),
    "smplx": Convention(joint=0, sign=-1, contour_first=False),
}


class ContourLandmarks(nn.Module):
    """68 landmarks of a posed head, the first 17 along the outline of the face as it is seen.

    Picture detectors put the jaw line where the face ends in the picture, which is elsewhere on a turned head. A table gives
    the 17 points for each degree of yaw. Which row is taken is a step function of the pose, so no gradient flows through it.
    For landmarks in space take the fixed set ``full``.
    """

    static_corners: Tensor  # (51, 3)
    static_barycentric: Tensor  # (51, 3)
    contour_corners: Tensor  # (79, 17, 3)
    contour_barycentric: Tensor  # (79, 17, 3)
    indices: Tensor
    """(68,) which of iBUG's landmarks these are, in the rule's order."""

    def __init__(self, static: Landmarks, contour_corners: Tensor, contour_barycentric: Tensor, rule: ContourRule = "deca"):
        super().__init__()
        if rule not in CONVENTIONS:
            raise ValueError(f"a contour's rule is one of {', '.join(CONVENTIONS)}, not {rule}")
        self.rule: ContourRule = rule
        self.convention = CONVENTIONS[rule]
        self.static = static
        self.register_buffer("contour_corners", contour_corners, persistent=False)
        self.register_buffer("contour_barycentric", contour_barycentric, persistent=False)
        contour = torch.arange(N_CONTOUR, device=static.indices.device)
        self.register_buffer("indices", self._ordered(contour, static.indices, 0), persistent=False)

    @classmethod
    def load(
        cls, path: Path | str, flame: Flame, *, contour: Path | str | None = None, rule: ContourRule = "deca"
    ) -> ContourLandmarks:
        """Read ``landmark_embedding.npy``, or RingNet's pair: the static file as ``path`` and the dynamic one as ``contour``.

        The ``rule`` is that of the code to agree with. ``deca`` takes the row of the yaw about y, neck included, which is
        the outline that is seen from +z; ``flame_pytorch`` and ``smplx`` take the opposite row, which is the outline for
        poses that look from -z (as in an OpenCV camera); ``smplx`` leaves the neck out and has the contour last.
        Raises ``WrongModelFile``.
        """
        path = Path(path)
        static = Landmarks.load(path, flame, "static")
        source = path if contour is None else Path(contour)
        sets = read_embeddings(source)
        if "contour" not in sets:
            raise WrongModelFile(f"{source} has no contour: give RingNet's flame_dynamic_embedding.npy besides, as contour=")
        barycentric = torch.from_numpy(sets["contour"].barycentric).to(flame.template)
        return cls(static, _corners(sets["contour"], flame, source), barycentric, rule)

    @property
    def vertices(self) -> Tensor:
        """Indices (n,) of the vertices that the landmarks depend on at any yaw, sorted."""
        return torch.cat([self.static.corners.flatten(), self.contour_corners.flatten()]).unique()

    def among(self, vertices: Tensor) -> ContourLandmarks:
        """The same landmarks for a head of which only ``vertices`` (n,) are computed; see ``Landmarks.among``."""
        places = _places(self.contour_corners, vertices.to(self.contour_corners.device))
        return ContourLandmarks(self.static.among(vertices), places, self.contour_barycentric, self.rule)

    def rows(self, rotations: Tensor, world_to_camera: Tensor | None = None) -> Tensor:
        """The row (...) of the contour for the joints' ``rotations`` (..., 5, 3, 3).

        The yaw is Euler's about y (R = Rz Ry Rx), rounded to degrees, halves to even, and held within 39. With the rotation
        ``world_to_camera`` (..., 3, 3) of an OpenCV camera it is the yaw in that camera's view.
        """
        rotations = rotations.detach()
        head = rotations[..., 0, :, :]
        for joint in reversed(self.convention.chain[:-1]):
            head = head @ rotations[..., joint, :, :]
        if world_to_camera is not None:
            # A view along the camera's axes, but y up and z towards the viewer, as the face is seen at rest.
            head = head.new_tensor([[1.0], [-1.0], [-1.0]]) * world_to_camera.detach() @ head
        yaw = torch.atan2(-head[..., 2, 0], torch.hypot(head[..., 0, 0], head[..., 1, 0]))
        degrees = torch.rad2deg(self.convention.sign * yaw).nan_to_num().clamp(-LAST_DEGREE, LAST_DEGREE).round().long()
        return torch.where(degrees < 0, LAST_DEGREE - degrees, degrees)

    def forward(self, mesh: FlameMesh, world_to_camera: Tensor | None = None) -> Tensor:
        """Landmarks (..., 68, 3) of ``mesh``; 70 where the static set has pupils."""
        rows = self.rows(mesh.rotations, world_to_camera)
        corners, barycentric = self.contour_corners[rows], self.contour_barycentric[rows]
        leading = torch.broadcast_shapes(rows.shape, mesh.vertices.shape[:-2])
        vertices = mesh.vertices.expand(*leading, *mesh.vertices.shape[-2:])
        chosen = corners.expand(*leading, N_CONTOUR, 3).flatten(-2)[..., None].expand(*leading, 3 * N_CONTOUR, 3)
        points = vertices.gather(-2, chosen).unflatten(-2, (N_CONTOUR, 3))
        contour = (points * barycentric[..., None]).sum(-2)
        return self._ordered(contour, self.static(vertices), -2)

    def _ordered(self, contour: Tensor, static: Tensor, dim: int) -> Tensor:
        return torch.cat([contour, static] if self.convention.contour_first else [static, contour], dim=dim)
