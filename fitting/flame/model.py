"""Posing the FLAME head: identity, expression, joints and whatever else moves its vertices.

FLAME: Li, Bolkart, Black, Li, Romero, Learning a model of facial shape and expression from 4D scans, SIGGRAPH Asia 2017,
equations 1 to 5.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from fitting.flame.files import PARENTS, ModelFile, read_eyelid, read_model
from fitting.rotations import axis_angle_to_matrix

JAW = 2
N_POSE_FEATURES = 36


class FlameMesh(NamedTuple):
    """A posed head."""

    vertices: Tensor
    """(..., V, 3) metres; x to the person's left, y up, z out of the face when the head is not turned."""
    joints: Tensor
    """(..., 5, 3) metres: global, neck, jaw and the eyes, in the file's order."""
    rotations: Tensor
    """(..., 5, 3, 3) of each joint relative to its parent."""


class Flame(nn.Module):
    """The FLAME head as a differentiable function, batched over any leading dimensions.

    All arguments are optional and zero where left out, and their leading dimensions broadcast: an identity (S, 1, 300) with
    an expression (S, F, 100) gives S people in F frames, and each identity is computed once. Buffers move with ``.to`` and
    are not part of the state dict, so that no checkpoint carries FLAME's numbers. They hold the vertices last.
    """

    template: Tensor  # (3, V)
    identity_directions: Tensor  # (I, 3, V)
    motion_directions: Tensor  # (36 + 2 if there are eyelids + E, 3, V): pose correctives, eyelids, expression
    weights: Tensor  # (5, V)
    regressor: Tensor  # (5, V)
    joint_template: Tensor  # (5, 3)
    joint_identity: Tensor  # (I, 5, 3)
    joint_expression: Tensor  # (E, 5, 3)
    faces: Tensor  # (F, 3) int64

    def __init__(
        self,
        model: ModelFile,
        *,
        identity: int = 300,
        expression: int = 100,
        jaw: bool = True,
        eyelids: tuple[np.ndarray, np.ndarray] | None = None,
        name: str = "flame",
        dtype: torch.dtype = torch.float32,
    ):
        """``load`` reads a file; this takes what was read. ``eyelids`` are displacements (V, 3), left and right."""
        super().__init__()
        self.name = name
        self.digest = model.digest
        self.has_jaw = jaw
        self.is_part = False
        self.n_eyelids = 0 if eyelids is None else 2
        self.eye_joints = _left_and_right_eye(model)
        of_identity = model.identity[..., :identity].transpose(2, 1, 0)
        of_expression = model.expression[..., :expression].transpose(2, 1, 0)
        lids = [] if eyelids is None else [np.stack([lid.T for lid in eyelids])]
        arrays = {
            "template": model.template.T,
            "identity_directions": of_identity,
            "motion_directions": np.concatenate([model.pose.transpose(2, 1, 0), *lids, of_expression]),
            "weights": model.weights.T,
            "regressor": model.regressor,
            # Joints are linear in the shaped vertices, so their own directions spare a regression for every frame.
            "joint_template": model.regressor @ model.template,
            "joint_identity": (of_identity @ model.regressor.T).transpose(0, 2, 1),
            "joint_expression": (of_expression @ model.regressor.T).transpose(0, 2, 1),
        }
        for key, array in arrays.items():
            self.register_buffer(key, torch.tensor(np.ascontiguousarray(array), dtype=dtype), persistent=False)
        self.register_buffer("faces", torch.from_numpy(model.faces), persistent=False)

    @classmethod
    def load(
        cls,
        path: Path | str,
        *,
        identity: int = 300,
        expression: int = 100,
        jaw: bool | None = None,
        eyelids: tuple[Path | str, Path | str] | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Flame:
        """The head in an official pickle, with at most ``identity`` and ``expression`` of its directions.

        ``jaw`` False forbids jaw rotations. None forbids them where no vertex hangs on the jaw or where the file's name says
        ``no_jaw``, as FLAME 2023's does. ``eyelids`` are the files ``l_eyelid.npy`` and ``r_eyelid.npy``, in that order.
        Raises ``WrongModelFile``.
        """
        path = Path(path)
        model = read_model(path)
        if jaw is None:
            jaw = bool(model.weights[:, JAW].any()) and "no_jaw" not in path.stem.replace("-", "_")
        lids = None
        if eyelids is not None:
            left, right = (read_eyelid(Path(lid), len(model.template)) for lid in eyelids)
            lids = left, right
        return cls(model, identity=identity, expression=expression, jaw=jaw, eyelids=lids, name=path.stem, dtype=dtype)

    @property
    def v_template(self) -> Tensor:
        """The mean head at rest (V, 3), in metres."""
        return self.template.mT

    @property
    def n_vertices(self) -> int:
        return int(self.template.shape[1])

    @property
    def n_identity(self) -> int:
        return len(self.identity_directions)

    @property
    def n_expression(self) -> int:
        return len(self.joint_expression)

    def part(self, vertices: Tensor) -> Flame:
        """The same head with some of its vertices only, given as indices (n,) or a mask (V,), in that order.

        Joints stay those of the whole head. ``faces`` are those whose three corners are all there, renumbered. Vertices left
        out count as having no ``offsets``.
        """
        device = self.template.device
        chosen = torch.arange(self.n_vertices, device=device)[vertices.to(device)]
        part = copy.copy(self)
        part._buffers = dict(self._buffers)
        part.is_part = True
        for name in ("template", "identity_directions", "motion_directions", "weights", "regressor"):
            setattr(part, name, getattr(self, name)[..., chosen].contiguous())
        places = chosen.new_full((self.n_vertices,), -1)
        places[chosen] = torch.arange(len(chosen), device=device)
        faces = places[self.faces]
        part.faces = faces[(faces >= 0).all(1)]
        return part

    def full_pose(
        self, rotation: Tensor | None = None, neck: Tensor | None = None, jaw: Tensor | None = None, eyes: Tensor | None = None
    ) -> Tensor:
        """The pose vector (..., 15) in joint order, as smplx and VHAP store it; see ``forward`` for the parts."""
        if not self.has_jaw and jaw is not None:
            if bool(jaw.detach().any()):
                raise ValueError(f"{self.name} has no jaw to rotate: its expressions open the mouth; leave jaw out")
            jaw = None
        left, right = (None, None) if eyes is None else self._checked("eyes", eyes, 6).split(3, dim=-1)
        first, second = (left, right) if self.eye_joints[0] < self.eye_joints[1] else (right, left)
        parts = [self._rotation("rotation", rotation), self._rotation("neck", neck), self._rotation("jaw", jaw)]
        parts += [self._rotation("eyes", first), self._rotation("eyes", second)]
        return torch.cat(torch.broadcast_tensors(*parts), dim=-1)

    def split_pose(self, pose: Tensor) -> dict[str, Tensor]:
        """The parts of a pose vector (..., 15) in joint order, as arguments by name: ``flame(**flame.split_pose(pose))``."""
        joints = self._checked("pose", pose, 15).unflatten(-1, (5, 3))
        eyes = torch.cat([joints[..., joint, :] for joint in self.eye_joints], dim=-1)
        return {"rotation": joints[..., 0, :], "neck": joints[..., 1, :], "jaw": joints[..., JAW, :], "eyes": eyes}

    def forward(
        self,
        identity: Tensor | None = None,
        expression: Tensor | None = None,
        *,
        rotation: Tensor | None = None,
        neck: Tensor | None = None,
        jaw: Tensor | None = None,
        eyes: Tensor | None = None,
        translation: Tensor | None = None,
        eyelids: Tensor | None = None,
        offsets: Tensor | None = None,
    ) -> FlameMesh:
        """Shape and pose the head.

        ``identity`` (..., ≤ I) and ``expression`` (..., ≤ E) are coefficients in standard deviations; those left out are 0.
        ``rotation`` (..., 3) turns the whole head about joint 0, which lies where identity and expression put it, not at
        the origin. ``neck`` and ``jaw`` (..., 3) and ``eyes`` (..., 6), the person's left eye first, turn about their joints.
        All are axis-angle vectors in radians. ``translation`` (..., 3) in metres comes last, for vertices and joints.
        ``eyelids`` (..., 2) close the left and the right one, at 1 fully; they ride on the head. ``offsets`` (..., V, 3) in
        metres are added to the shaped head before it is posed, and move the joints.

        Raises ``ValueError`` for sizes and types that do not fit, for a jaw rotation of a head without jaw, and for eyelids
        that were not loaded.
        """
        given = {"identity": identity, "expression": expression, "rotation": rotation, "neck": neck, "jaw": jaw, "eyes": eyes}
        given |= {"translation": translation, "eyelids": eyelids}
        leading = {name: value.shape[:-1] for name, value in given.items() if value is not None}
        _check_leading(leading if offsets is None else leading | {"offsets": offsets.shape[:-2]})
        none = self.template.new_zeros(0)
        identity = none if identity is None else self._checked("identity", identity, self.n_identity, at_most=True)
        expression = none if expression is None else self._checked("expression", expression, self.n_expression, at_most=True)
        root = axis_angle_to_matrix(self._rotation("rotation", rotation))
        local = axis_angle_to_matrix(self.full_pose(neck=neck, jaw=jaw, eyes=eyes)[..., 3:].unflatten(-1, (4, 3)))

        rest = self._rest(identity, local, self._eyelids(eyelids), expression)
        joints = self.joint_template + _blend(identity, self.joint_identity) + _blend(expression, self.joint_expression)
        if offsets is not None:
            if offsets.shape[-2:] != (self.n_vertices, 3):
                raise ValueError(f"offsets has shape {tuple(offsets.shape)} instead of (..., {self.n_vertices}, 3)")
            offsets = self._checked("offsets", offsets, 3)
            rest = rest + offsets.mT
            joints = joints + self.regressor @ offsets

        turns, places = _chain(root, local, joints)
        if translation is not None:
            places = places + self._checked("translation", translation, 3)[..., None, :]
        vertices = _skin(rest, joints, turns, places, self.weights)
        whole = torch.broadcast_shapes(root.shape[:-2], local.shape[:-3], vertices.shape[:-2])
        rotations = torch.cat([root.expand(*whole, 3, 3)[..., None, :, :], local.expand(*whole, 4, 3, 3)], dim=-3)
        return FlameMesh(vertices, places.expand(*whole, 5, 3), rotations)

    def _rest(self, identity: Tensor, local: Tensor, eyelids: Tensor, expression: Tensor) -> Tensor:
        """The shaped head before it is posed, pose correctives included: (..., 3, V)."""
        shaped = self.template + _blend(identity, self.identity_directions)
        features = (local - torch.eye(3, dtype=local.dtype, device=local.device)).flatten(-3)
        moves = (features, eyelids, expression)
        leading = torch.broadcast_shapes(*(move.shape[:-1] for move in moves))
        coefficients = torch.cat([move.expand(*leading, move.shape[-1]) for move in moves], dim=-1)
        return shaped + _blend(coefficients, self.motion_directions)

    def _eyelids(self, eyelids: Tensor | None) -> Tensor:
        if eyelids is None:
            return self.template.new_zeros(self.n_eyelids)
        if not self.n_eyelids:
            raise ValueError(f"{self.name} has no eyelids: load it with eyelids=(l_eyelid.npy, r_eyelid.npy)")
        return self._checked("eyelids", eyelids, 2)

    def _rotation(self, name: str, value: Tensor | None) -> Tensor:
        return self.template.new_zeros(3) if value is None else self._checked(name, value, 3)

    def _checked(self, name: str, value: Tensor, size: int, *, at_most: bool = False) -> Tensor:
        last = value.shape[-1] if value.ndim else 0
        if value.ndim == 0 or last > size or (last != size and not at_most):
            raise ValueError(
                f"{name} has {last} numbers in its last dimension; {self.name} takes {'at most ' if at_most else ''}{size}"
            )
        if value.dtype != self.template.dtype:
            raise ValueError(f"{name} is {value.dtype}, {self.name} {self.template.dtype}: convert one of them with .to")
        return value


def _check_leading(leading: dict[str, torch.Size]) -> None:
    try:
        torch.broadcast_shapes(*leading.values())
    except RuntimeError:
        shown = ", ".join(f"{name} {tuple(shape)}" for name, shape in leading.items())
        raise ValueError(f"leading dimensions do not fit together: {shown}; insert ones where they should broadcast") from None


def _left_and_right_eye(model: ModelFile) -> tuple[int, int]:
    """Which joint turns the person's left eye, and which the right: people who use FLAME disagree, the vertices decide."""
    mass = model.weights[:, 3:].sum(0)
    x = (model.weights[:, 3:] * model.template[:, :1]).sum(0) / np.maximum(mass, 1e-12)
    return (4, 3) if x[1] > x[0] else (3, 4)


def _blend(coefficients: Tensor, directions: Tensor) -> Tensor:
    """Σ c_k d_k over the first directions (K, a, b), for coefficients (..., k): (..., a, b)."""
    n = coefficients.shape[-1]
    return (coefficients @ directions[:n].flatten(1)).unflatten(-1, directions.shape[1:])


def _chain(root: Tensor, local: Tensor, joints: Tensor) -> tuple[Tensor, Tensor]:
    """Rotations (..., 5, 3, 3) and places (..., 5, 3) of the joints in space, from rotations relative to their parents."""
    turns, places = [root], [joints[..., 0, :]]
    for joint in range(1, len(PARENTS)):
        parent = PARENTS[joint]
        bone = joints[..., joint, :] - joints[..., parent, :]
        turns.append(turns[parent] @ local[..., joint - 1, :, :])
        places.append(places[parent] + (turns[parent] @ bone[..., None])[..., 0])
    return torch.stack(torch.broadcast_tensors(*turns), dim=-3), torch.stack(torch.broadcast_tensors(*places), dim=-2)


def _skin(rest: Tensor, joints: Tensor, turns: Tensor, places: Tensor, weights: Tensor) -> Tensor:
    """Linear blend skinning of ``rest`` (..., 3, V): vertices (..., V, 3).

    The blended transforms are one product with the weights, and are applied axis by axis over all vertices: several times
    faster than a 4×4 product for every vertex, forward and backward.
    """
    shifts = places - (turns @ joints[..., None])[..., 0]
    transforms = torch.cat([turns.expand(*shifts.shape, 3), shifts[..., None]], dim=-1)
    # (..., 5, 3, 4) to (..., 4, 3, 5), so that a product with (5, V) gives the columns of each vertex's transform.
    x, y, z, shift = (transforms.movedim(-3, -1).transpose(-3, -2) @ weights).unbind(-3)
    moved = torch.addcmul(shift, x, rest[..., 0:1, :])
    moved = torch.addcmul(moved, y, rest[..., 1:2, :])
    moved = torch.addcmul(moved, z, rest[..., 2:3, :])
    return moved.mT
