"""FLAME's five joints in the studio's head: where they are, what hangs on them, what the pose adds to the skin."""

from __future__ import annotations

import numpy as np

from fitting.studio.features import MOUTH, SKIN, mouth, step
from fitting.studio.mesh import HeadMesh
from fitting.studio.parts import LEFT_BALL, LOWER_TEETH, RIGHT_BALL, UPPER_TEETH
from fitting.studio.strokes import Stroke, strokes
from fitting.studio.surface import EYE, Floats

ROOT, NECK, JAW, LEFT, RIGHT = range(5)
_PLACES = {ROOT: (0.0, -0.130, -0.036), NECK: (0.0, -0.075, -0.028), JAW: (0.0, -0.012, -0.004)}
_HANGS_ON = {
    ROOT: ("neck_54", "neck_66"),
    NECK: ("neck_44", "neck_54", "mastoid"),
    JAW: ("contour_0", "contour_1", "contour_2", "contour_14", "contour_15", "contour_16", "mastoid", "temple"),
}
"""Beginnings of the names of the vertices out of which a joint is made. All meshes have them, so all have the same joints."""


def regressor(mesh: HeadMesh) -> Floats:
    """(5, V) joints out of the vertices at rest; rows sum to 1."""
    found = np.zeros((5, len(mesh.rest)))
    for joint, place in _PLACES.items():
        vertices = np.unique([vertex for name, vertex in mesh.named.items() if _begins(name, _HANGS_ON[joint])])
        affine = np.concatenate([np.ones((1, len(vertices))), mesh.rest[vertices].T])
        found[joint, vertices] = np.linalg.pinv(affine) @ np.array([1.0, *place])
    for joint, patch, x in ((LEFT, LEFT_BALL, 1.0), (RIGHT, RIGHT_BALL, -1.0)):
        vertices = np.nonzero(mesh.sites.patch == patch)[0]
        affine = np.concatenate([np.ones((1, len(vertices))), mesh.rest[vertices].T])
        found[joint, vertices] = np.linalg.pinv(affine) @ np.array([1.0, *(EYE * np.array([x, 1, 1]))])
    return found


def _begins(name: str, beginnings: tuple[str, ...]) -> bool:
    return any(name == start or name.startswith(f"{start}_") for start in beginnings)


def skinning(mesh: HeadMesh) -> Floats:
    """(V, 5) weights; rows sum to 1. The neck's joint carries the head, the jaw's the lower face."""
    patch = mesh.sites.patch
    head = _head_share(mesh.closed)
    jaw = np.where(patch <= MOUTH, _jaw_share(mesh), 0.0)
    jaw = np.where(patch == LOWER_TEETH, 1.0, jaw)
    head = np.where(patch > SKIN, 1.0, head)
    jaw = np.minimum(jaw, head)
    weights = np.zeros((len(patch), 5))
    weights[:, ROOT], weights[:, NECK], weights[:, JAW] = 1 - head, head - jaw, jaw
    for joint, ball in ((LEFT, LEFT_BALL), (RIGHT, RIGHT_BALL)):
        weights[patch == ball] = np.eye(5)[joint]
    weights[patch == UPPER_TEETH] = np.eye(5)[NECK]
    return weights


def _head_share(places: Floats) -> Floats:
    _, y, z = places.T
    end = -0.085 - 0.45 * (np.clip(z, -0.10, 0.05) + 0.035)
    return step(y, end - 0.075, end)


def _jaw_share(mesh: HeadMesh) -> Floats:
    x, y, z = mesh.closed.T
    slit = mouth(mesh.sites)
    # From the corner of the mouth to the jaw's joint the share is a half, roughly; elliptic coordinates about that line.
    aside = np.abs(x) + 0.8 * np.clip(0.057 - z, 0, None)
    above = y + 0.0445 - 0.47 * np.clip(0.057 - z, 0, 0.09)
    near, far = np.hypot(aside - 0.025, above), np.hypot(aside + 0.025, above)
    upward = np.sign(above) * np.sqrt(1 - np.clip((far - near) / 0.050, -1, 1) ** 2)
    at_lips = (slit.distance < 0.004) | (mesh.sites.patch == MOUTH)
    flattened = slit.upward * np.where(mesh.sites.patch == MOUTH, 1 - step(mesh.sites.inward, 0.55, 1.0), 1.0)
    blend = np.where(mesh.sites.patch == MOUTH, 1.0, at_lips * (1 - step(slit.distance, 0.001, 0.004)))
    upward = upward + blend * (flattened - upward)
    share = np.minimum(step(-upward, -0.22, 1.10) / step(np.array(0.95), -0.22, 1.10), 1.0)
    deep = (mesh.sites.patch == MOUTH) * step(mesh.sites.inward, 0.6, 1.0)
    share = share + deep * (0.4 - share)
    back = np.where(mesh.sites.patch == MOUTH, 1.0, step(z, -0.036, -0.004))
    under = step(y + 0.2 * (z - 0.05), -0.158, -0.096)
    found: Floats = share * back * under
    return found


_OPEN_JAW = (
    Stroke((40, -36, 38), (18, 22, 28), (-4.5, 0.0, -2.0)),
    Stroke((26, -46, 56), (9, 12, 20), (-4.0, 0.0, -1.0)),
)
"""For a jaw opened by a radian: cheeks and corners of the mouth are drawn in."""
_SINE_OF_OPENING = 9 * (JAW - 1) + 7
"""The entry (2, 1) of the jaw's R - 1, among the 36 of the joints 1 to 4."""


def pose_correctives(mesh: HeadMesh) -> Floats:
    """(V, 3, 36) metres for the entries of R - 1 of the joints 1 to 4. Only opening the jaw has one."""
    found = np.zeros((*mesh.rest.shape, 36))
    found[:, :, _SINE_OF_OPENING] = strokes(mesh.closed, mesh.sites, _OPEN_JAW)
    return found
