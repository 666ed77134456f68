"""How vertices and landmarks of the face move with the parameters, in closed form.

With neck and eyes at rest, FLAME's skinning is y = x + w (R_J - I) (x - c): x the shaped vertex, w its share of the jaw, R_J the
jaw's rotation and c its joint. x and c are linear in identity and expression. Then the head is put at s R y + t.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.linalg.blas import ssyrk
from torch import Tensor

from fitting.flame.model import JAW
from fitting.flame_fit.arrowhead import Arrowhead, Floats
from fitting.flame_fit.objective import Objective
from fitting.flame_fit.parameters import Parameters
from fitting.rotations import axis_angle_to_matrix

_JAW_FEATURES = slice(9 * (JAW - 1), 9 * JAW)


class FaceDerivatives:
    """Curvature of what an objective compares, with every ``stride``-th of its vertices and all landmarks.

    A frame's own columns are rotation, translation, jaw (where it is fitted), expression; the shared ones scale, identity.
    """

    def __init__(self, objective: Objective, stride: int) -> None:
        flame, landmarks = objective.face.flame, objective.face.landmarks
        self.asked = torch.arange(0, len(objective.face.asked), stride)
        """(A,) which of the objective's vertices count."""
        chosen = torch.cat([objective.face.asked[self.asked], landmarks.corners.flatten()])
        self.barycentric = landmarks.barycentric
        self.n_identity, self.n_expression = flame.n_identity, flame.n_expression
        self.n_jaw = 3 if objective.fit_jaw else 0
        expression = flame.motion_directions[len(flame.motion_directions) - flame.n_expression :]
        # (N, 3, E + I), so that one small product for each vertex turns all directions.
        directions = torch.cat([expression, flame.identity_directions])[..., chosen]
        self.directions = directions.permute(2, 1, 0).contiguous()
        self.template = flame.template[:, chosen].mT.contiguous()
        self.jaw_weight = flame.weights[JAW, chosen, None]
        self.jaw_features = flame.motion_directions[_JAW_FEATURES][..., chosen].permute(2, 1, 0).contiguous()
        self.joint = flame.joint_template[JAW]
        self.joint_directions = torch.cat([flame.joint_expression[:, JAW], flame.joint_identity[:, JAW]]).mT.contiguous()

    def columns(self, name: str) -> tuple[slice, bool]:
        """Where a field of ``Parameters`` is, and whether that is among the shared columns."""
        jaw = 6 + self.n_jaw
        return {
            "scale": (slice(0, 1), True),
            "identity": (slice(1, 1 + self.n_identity), True),
            "rotation": (slice(0, 3), False),
            "translation": (slice(3, 6), False),
            "jaw": (slice(6, jaw), False),
            "expression": (slice(jaw, jaw + self.n_expression), False),
        }[name]

    def stacked(self, values: Parameters) -> tuple[Floats, Floats]:
        """Columns (T, n) and (m,) of ``values``, a gradient for one."""
        given = values.to(torch.float64)
        own = torch.cat([given.rotation, given.translation, given.jaw[:, : self.n_jaw], given.expression], dim=1)
        return own.numpy(), torch.cat([given.scale[None], given.identity]).numpy()

    def moved(self, now: Parameters, local: Floats, shared: Floats) -> Parameters:
        """``now``, in float64, and a step in the columns (T, n) and (m,)."""
        own, common = torch.from_numpy(local), torch.from_numpy(shared)
        fields = {}
        for name, value in now.to(torch.float64)._asdict().items():
            columns, in_border = self.columns(name)
            step = common[columns] if in_border else own[:, columns]
            fields[name] = value.detach() + step.reshape(value.shape) if step.numel() else value.detach()
        return Parameters(**fields)

    def curvature(self, now: Parameters, roots: Tensor, landmark_roots: Tensor) -> Arrowhead:
        """Jᵀ S² J for positions weighted by ``roots`` S (T, A, 3, 3) of the vertices and ``landmark_roots`` (T, L)."""
        given = now.to(self.template.dtype)
        frames, local = len(given.rotation), 6 + self.n_jaw + self.n_expression
        system = Arrowhead(frames, local, 1 + self.n_identity)
        # One frame at a time: its rows are megabytes, those of all frames would be gigabytes.
        for t in range(frames):
            weighted = self._rows(given, t, roots[t], landmark_roots[t])
            product = ssyrk(1.0, weighted.numpy().T, lower=1)
            product = product + np.tril(product, -1).T
            system.blocks[t] = product[:local, :local]
            system.border[t] = product[:local, local:]
            system.corner += product[local:, local:]
        return system

    def by_parameters(self, given: Parameters, t: int, turns: Tensor, vertices: Tensor) -> Tensor:
        """(N', 3, n + m) derivatives of some ``vertices`` (N',) of frame ``t``, each turned by one of ``turns`` (N', 3, 3)."""
        codes = torch.cat([given.expression[t], given.identity])
        jaw, turn = axis_angle_to_matrix(given.jaw[t]), axis_angle_to_matrix(given.rotation[t])
        opened = jaw - torch.eye(3, dtype=jaw.dtype)
        directions, weight, features = self.directions[vertices], self.jaw_weight[vertices], self.jaw_features[vertices]
        rest = self.template[vertices] + directions @ codes + features @ opened.flatten()
        arm = rest - (self.joint + self.joint_directions @ codes)
        skin = torch.eye(3, dtype=jaw.dtype) + weight[..., None] * opened
        turned = (rest + weight * (arm @ opened.mT)) @ turn.mT

        place = [-given.scale * turns @ _cross(turned) @ _left_jacobian(given.rotation[t]), turns]
        if self.n_jaw:
            by_angle = _rotation_derivatives(given.jaw[t])
            of_jaw = skin @ (features @ by_angle.flatten(0, 1)) + weight[..., None] * torch.einsum("ijk,nj->nik", by_angle, arm)
            place.append(given.scale * turns @ turn @ of_jaw)
        of_codes = (given.scale * turns @ turn @ skin) @ directions
        of_joint = (-given.scale * weight[..., None] * turns) @ (turn @ opened)
        of_codes += (of_joint.flatten(0, 1) @ self.joint_directions).unflatten(0, (-1, 3))
        n = self.n_expression
        return torch.cat([*place, of_codes[..., :n], turns @ turned[..., None], of_codes[..., n:]], dim=-1)

    def _rows(self, given: Parameters, t: int, roots: Tensor, landmark_roots: Tensor) -> Tensor:
        """(rows, n + m) weighted derivatives of frame ``t``. Vertices without a match have no rows."""
        matched = (roots.flatten(1) != 0).any(dim=1).nonzero()[:, 0]
        of_vertices = self.by_parameters(given, t, roots[matched], matched)
        corners = torch.arange(len(roots), len(self.template))
        weight = (landmark_roots[:, None] * self.barycentric).flatten()
        turns = weight[:, None, None] * torch.eye(3, dtype=weight.dtype)
        of_corners = self.by_parameters(given, t, turns, corners)
        of_landmarks = of_corners.unflatten(0, self.barycentric.shape).sum(dim=1)
        return torch.cat([of_vertices, of_landmarks]).flatten(0, 1)


def _cross(vectors: Tensor) -> Tensor:
    """[v]× (..., 3, 3)."""
    x, y, z = vectors.unbind(dim=-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))


def _left_jacobian(axis_angle: Tensor) -> Tensor:
    """J (3, 3) with R(v + dv) ≈ (I + [J dv]×) R(v)."""
    angle2 = float(axis_angle.double().square().sum())
    angle = math.sqrt(angle2)
    cross = _cross(axis_angle)
    if angle < 1e-3:
        first, second = 0.5 - angle2 / 24, 1 / 6 - angle2 / 120
    else:
        first, second = (1 - math.cos(angle)) / angle2, (angle - math.sin(angle)) / (angle2 * angle)
    return torch.eye(3, dtype=cross.dtype) + first * cross + second * (cross @ cross)


def _rotation_derivatives(axis_angle: Tensor) -> Tensor:
    """(3, 3, 3) the derivative of the rotation by each component (last) of its ``axis_angle``."""
    matrix, jacobian = axis_angle_to_matrix(axis_angle), _left_jacobian(axis_angle)
    return torch.stack([_cross(jacobian[:, k]) @ matrix for k in range(3)], dim=-1)
