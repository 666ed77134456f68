"""FLAME written out plainly, vertex by vertex, in float64: what the fast version must agree with."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

PARENTS = (-1, 0, 1, 1, 1)


def rodrigues(vector: np.ndarray) -> np.ndarray:
    angle = float(np.linalg.norm(vector))
    if angle == 0:
        return np.eye(3)
    x, y, z = vector / angle
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def slow_flame(
    head: Mapping[str, np.ndarray],
    identity: np.ndarray,
    expression: np.ndarray,
    pose: np.ndarray,
    translation: np.ndarray,
    *,
    eyelids: tuple[float, np.ndarray, float, np.ndarray] | None = None,
    offsets: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (V, 3) and joints (5, 3) of one head, from the arrays of its pickle; ``pose`` (5, 3) in the file's order."""
    n_identity = 300 if head["shapedirs"].shape[2] == 400 else 10
    shaped = head["v_template"].astype(np.float64).copy()
    for k, coefficient in enumerate(identity):
        shaped += coefficient * head["shapedirs"][:, :, k]
    for k, coefficient in enumerate(expression):
        shaped += coefficient * head["shapedirs"][:, :, n_identity + k]
    if offsets is not None:
        shaped += offsets
    joints = head["J_regressor"] @ shaped

    rotations = [rodrigues(vector) for vector in pose]
    features = np.concatenate([(rotation - np.eye(3)).ravel() for rotation in rotations[1:]])
    rest = shaped.copy()
    for k, feature in enumerate(features):
        rest += feature * head["posedirs"][:, :, k]
    if eyelids is not None:
        left, left_lid, right, right_lid = eyelids
        rest += left * left_lid + right * right_lid

    world = []
    for joint, parent in enumerate(PARENTS):
        own = np.eye(4)
        own[:3, :3] = rotations[joint]
        own[:3, 3] = joints[joint] - (joints[parent] if parent >= 0 else 0)
        world.append(world[parent] @ own if parent >= 0 else own)
    vertices = np.zeros_like(rest)
    for vertex in range(len(rest)):
        for joint in range(5):
            relative = world[joint][:3, :3] @ (rest[vertex] - joints[joint]) + world[joint][:3, 3]
            vertices[vertex] += head["weights"][vertex, joint] * relative
    return vertices + translation, np.stack([matrix[:3, 3] for matrix in world]) + translation
