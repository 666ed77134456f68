"""What each activation of the face does to the head, and the codes of the files' expression spaces."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fitting.studio import identity
from fitting.studio.controls import EXPRESSIONS
from fitting.studio.features import LEFT_EYE, MOUTH, RIGHT_EYE, SKIN, eye, step
from fitting.studio.mesh import HeadMesh, head_mesh
from fitting.studio.strokes import Stroke, strokes
from fitting.studio.surface import Floats

N_EXPRESSION = 100

_LIPS = (0, -44, 66)
_CORNER = (25, -45, 57)

# In millimetres on the mean head; see ``Stroke``. The lids are not here: they slide as they were opened (``features``).
_MOVES: dict[str, tuple[Stroke, ...]] = {
    "lips_part": (
        Stroke((0, -40, 66), (22, 10, 30), (0, 2.0, 0.3), lip=1),
        Stroke((0, -49, 64), (22, 13, 30), (0, -4.2, 0.0), lip=-1),
    ),
    "lips_press": (
        Stroke(_LIPS, (30, 9, 26), (0, 0, -2.2), (0.03, -0.42, 0)),
        Stroke((0, -60, 62), (22, 9, 26), (0, 1.2, 0.4)),
    ),
    "lips_round": (
        Stroke(_LIPS, (30, 17, 30), (0, 0, 4.8), (-0.36, 0.10, 0)),
        Stroke((34, -42, 48), (16, 22, 26), (-2.0, 0, 1.4)),
        Stroke((0, -41, 66), (12, 7, 26), (0, 0.7, 0), lip=1),
        Stroke((0, -48, 66), (12, 7, 26), (0, -0.7, 0), lip=-1),
    ),
    "lips_funnel": (
        Stroke(_LIPS, (28, 18, 30), (0, 0, 5.4), (-0.16, 0.14, 0)),
        Stroke((0, -38, 68), (20, 8, 26), (0, 2.6, 2.0), lip=1),
        Stroke((0, -51, 67), (20, 9, 26), (0, -2.8, 2.0), lip=-1),
    ),
    "lips_spread": (
        Stroke(_CORNER, (15, 16, 24), (5.0, 0.4, -2.6)),
        Stroke((38, -40, 42), (16, 22, 26), (2.2, 0.3, -0.5)),
        Stroke(_LIPS, (24, 10, 26), (0, 0, -1.6), (0.06, -0.10, 0)),
    ),
    "lower_lip_in": (
        Stroke((0, -41, 66), (22, 10, 30), (0, 2.2, 0.2), lip=1),
        Stroke((0, -48, 66), (22, 8, 30), (0, 3.0, -5.0), (0, -0.10, 0), lip=-1),
        Stroke((0, -60, 62), (24, 12, 26), (0, 1.6, -1.0), lip=-1),
    ),
    "upper_lip_raise": (
        Stroke((0, -39, 66), (24, 12, 30), (0, 3.6, 0.6), lip=1),
        Stroke((17, -20, 58), (11, 13, 20), (0.4, 1.6, 0.6)),
    ),
    "lower_lip_down": (
        Stroke((0, -50, 64), (24, 13, 30), (0, -5.0, 0.4), lip=-1),
        Stroke((0, -64, 62), (28, 12, 26), (0, -1.2, 0.6), lip=-1),
    ),
    "mouth_left": (Stroke(_LIPS, (32, 22, 40), (5.0, 0, 0)), Stroke((34, -42, 48), (16, 20, 26), (1.2, 0, 0.6), half="left")),
    "mouth_right": (Stroke(_LIPS, (32, 22, 40), (-5.0, 0, 0)), Stroke((34, -42, 48), (16, 20, 26), (1.2, 0, 0.6), half="right")),
    **{
        f"smile_{half}": (
            Stroke(_CORNER, (14, 14, 24), (4.4, 5.6, -3.4), half=half),  # type: ignore[arg-type]
            Stroke((36, -24, 46), (18, 16, 24), (1.8, 3.4, 1.8), half=half),  # type: ignore[arg-type]
            Stroke((38, 6, 42), (18, 8, 20), (0.2, 1.2, 0.5), half=half),  # type: ignore[arg-type]
            Stroke((20, -30, 60), (8, 14, 18), (0.8, 1.0, -0.8), half=half),  # type: ignore[arg-type]
        )
        for half in ("left", "right")
    },
    "frown": (
        Stroke(_CORNER, (13, 13, 24), (0.6, -4.6, -0.6)),
        Stroke((26, -62, 50), (16, 14, 24), (0.5, -2.0, 0.6)),
        Stroke((0, -62, 62), (16, 10, 24), (0, 1.2, 0.6)),
    ),
    "dimple": (Stroke(_CORNER, (9, 9, 20), (2.4, 0.4, -4.0)), Stroke((33, -43, 50), (9, 12, 20), (0.6, 0.2, 1.4))),
    "chin_raise": (
        Stroke((0, -72, 60), (24, 18, 30), (0, 3.6, 1.0)),
        Stroke(_LIPS, (22, 12, 28), (0, 1.8, 0.8)),
    ),
    "cheek_puff": (
        Stroke((36, -42, 42), (20, 24, 28), (5.0, 0, 4.6)),
        Stroke(_LIPS, (26, 20, 30), (0, 0, 2.0), (-0.06, 0, 0)),
    ),
    "cheek_raise": (Stroke((36, -2, 46), (22, 14, 24), (0.4, 3.4, 1.2)), Stroke((46, 22, 34), (14, 12, 20), (-0.4, 0.6, 0.2))),
    "nose_wrinkle": (
        Stroke((15, -14, 62), (11, 14, 20), (0.8, 3.0, 0.8)),
        Stroke((0, 16, 64), (14, 12, 20), (0, -1.0, 1.0)),
        Stroke((14, 36, 58), (14, 9, 20), (-0.8, -2.4, 0.6)),
        Stroke((0, -38, 66), (20, 9, 28), (0, 1.4, 0.3), lip=1),
    ),
    "brow_inner_up": (Stroke((10, 42, 59), (15, 13, 24), (0, 5.6, 0.4)), Stroke((0, 62, 58), (34, 16, 28), (0, 1.8, 0.0))),
    **{
        f"brow_outer_up_{half}": (
            Stroke((40, 42, 48), (17, 12, 26), (0, 5.6, -0.2), half=half),  # type: ignore[arg-type]
            Stroke((36, 62, 50), (22, 16, 28), (0, 1.6, 0.0), half=half),  # type: ignore[arg-type]
        )
        for half in ("left", "right")
    },
    "brow_down": (Stroke((16, 41, 58), (17, 11, 24), (-2.4, -4.2, 1.2)), Stroke((38, 42, 49), (16, 9, 24), (-0.8, -1.8, 0.2))),
    "squint": (Stroke((34, 8, 42), (20, 8, 22), (0.0, 1.0, 0.6)),),
}
_LID_MOVES = {
    # Shares of the way from rest to shut, of the upper and the lower lid, by half.
    "blink_left": ("left", 1.0, 1.0),
    "blink_right": ("right", 1.0, 1.0),
    "lids_wide": ("both", -0.22, -0.5),
    "squint": ("both", 0.22, 0.0),
}


def activation_directions(mesh: HeadMesh) -> Floats:
    """(V, 3, 26) what each activation adds at full strength, in metres, in the order of ``EXPRESSIONS``."""
    found = [
        strokes(mesh.closed, mesh.sites, _MOVES.get(name, ())) * _off_lids(mesh)[:, None] + _lids(mesh, name)
        for name in EXPRESSIONS
    ]
    return np.stack(found, axis=2)


def expression_directions(mesh: HeadMesh, identity_directions: Floats) -> Floats:
    """(V, 3, 100) metres for a standard deviation: the activations turned into uncorrelated codes, ordered by variance, then
    small smooth moves of the face that no activation uses: the finest of the ``identity_directions`` (V, 3, 300)."""
    return np.concatenate([activation_directions(mesh) @ _combinations(), _small_moves(mesh, identity_directions)], axis=2)


def expression_code(activations: NDArray[np.floating]) -> Floats:
    """Codes (..., 100) of ``activations`` (..., 26): linear, and 0 for 0."""
    given = np.asarray(activations, np.float64)
    if given.shape[-1:] != (len(EXPRESSIONS),):
        raise ValueError(f"activations has shape {given.shape} instead of (..., {len(EXPRESSIONS)}), in the order of EXPRESSIONS")
    codes = given @ np.linalg.inv(_combinations()).T
    return np.concatenate([codes, np.zeros((*codes.shape[:-1], N_EXPRESSION - codes.shape[-1]))], axis=-1)


def activations_of(codes: NDArray[np.floating]) -> Floats:
    """The activations (..., 26) of codes (..., ≥ 26): the inverse of ``expression_code``."""
    return np.asarray(np.asarray(codes, np.float64)[..., : len(EXPRESSIONS)] @ _combinations().T)


@lru_cache
def _combinations() -> Floats:
    """(26, 26) the activations that make one standard deviation of each code.

    Codes are about rest, with mean square 1 over plausible performances: activations of their own, mostly small.
    """
    mesh = head_mesh("small")
    fields = activation_directions(mesh) * np.sqrt(identity.areas(mesh))[:, None, None]
    rms = np.array([_USUAL.get(name, 0.25) for name in EXPRESSIONS])
    spread = 0.75 * np.diag(rms**2) + 0.25 * np.outer(rms, rms)  # activations are not negative, so they go together a little
    root = np.linalg.cholesky(spread)
    columns = fields.reshape(-1, len(EXPRESSIONS)) @ root
    combinations: Floats = root @ identity.principal(columns, len(EXPRESSIONS))
    return combinations


_USUAL = {"lips_part": 0.45, "smile_left": 0.4, "smile_right": 0.4, "blink_left": 0.35, "blink_right": 0.35, "lips_round": 0.35}


def _small_moves(mesh: HeadMesh, identity_directions: Floats) -> Floats:
    """(V, 3, 74) of hundredths of a millimetre, on the face only."""
    count = N_EXPRESSION - len(EXPRESSIONS)
    x, y, z = mesh.closed.T
    on_face = np.exp(-((x / 0.06) ** 2) - ((y + 0.02) / 0.06) ** 2) * np.clip(z / 0.05, 0, 1)
    found: Floats = 0.5 * identity_directions[:, :, 80 : 80 + count] * (on_face * _off_lids(mesh))[:, None, None]
    return found


def _off_lids(mesh: HeadMesh) -> Floats:
    """(V,) 0 at the lids and eyeballs, 1 away from them: what moves the face leaves the eyes' openings alone."""
    distance = eye(mesh.sites).distance
    near = (mesh.closed[:, 2] > 0.005) & (mesh.sites.patch == SKIN)
    return np.where(near, step(distance, 0.0015, 0.011), 1.0) * (mesh.sites.patch <= MOUTH)


def _lids(mesh: HeadMesh, name: str) -> Floats:
    if name not in _LID_MOVES:
        return np.zeros_like(mesh.rest)
    half, upper, lower = _LID_MOVES[name]
    slit = eye(mesh.sites)
    moving = (mesh.sites.patch == SKIN) | (mesh.sites.patch == LEFT_EYE) | (mesh.sites.patch == RIGHT_EYE)
    share = np.where(slit.upward > 0, upper, lower) * moving
    left = mesh.sites.base[:, 0] > 0
    share = share * {"left": left, "right": ~left, "both": np.ones_like(left)}[half]
    found: Floats = share[:, None] * (mesh.closed - mesh.rest)
    return found
