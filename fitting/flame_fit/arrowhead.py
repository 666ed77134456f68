"""Symmetric systems of T frames in a row with shared parameters: blocks, diagonals beside them, a border."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

Floats = NDArray[np.float64]

_FLOOR = 1e-14


class Arrowhead:
    """A positive matrix A over n parameters of each of T frames, and then m that all frames share.

    It has a block for each frame, a diagonal matrix between each frame and the next, and a border.
    """

    def __init__(self, frames: int, local: int, shared: int) -> None:
        self.blocks: Floats = np.zeros((frames, local, local))
        self.beside: Floats = np.zeros((max(frames - 1, 0), local))
        """Diagonals of the blocks between frame t and t + 1."""
        self.border: Floats = np.zeros((frames, local, shared))
        self.corner: Floats = np.zeros((shared, shared))

    def add_penalty(self, columns: slice, in_border: bool, weight: Floats, *, difference: bool) -> None:
        """Add the curvature of ½ Σ_i w_i ‖x_i‖², or with ``difference`` of ½ Σ_i w_i ‖x_{i+1} - x_i‖².

        x are the ``columns`` of each frame, or of the shared parameters; ``weight`` (rows,) are w.
        """
        at = np.arange(columns.start, columns.stop)
        if in_border:
            self.corner[at, at] += weight
        elif not difference:
            self.blocks[:, at, at] += weight[:, None]
        else:
            self.blocks[1:, at, at] += weight[:, None]
            self.blocks[:-1, at, at] += weight[:, None]
            self.beside[:, at] -= weight[:, None]

    def factored(self, damping: float) -> Factored:
        """For solving, with the diagonal multiplied by 1 + ``damping``. Raises ``LinAlgError`` if that is not positive."""
        return Factored(self, damping)


class Factored:
    """An arrowhead taken apart by Gaussian elimination from the first frame to the last.

    That keeps its form, so that it costs T (n³ + n² m) and not (T n + m)³, and each solution then T n (n + m).
    """

    def __init__(self, matrix: Arrowhead, damping: float) -> None:
        frames, local, shared = matrix.border.shape
        self.beside, self.border = matrix.beside, matrix.border.reshape(-1, shared)
        self.inverse: Floats = np.empty((frames, local, local))
        diagonal, more = np.arange(local), np.eye(local)
        for t in range(frames):
            block = matrix.blocks[t].copy()
            block[diagonal, diagonal] = _damped(block, damping)
            if t:
                block -= self.beside[t - 1, :, None] * self.inverse[t - 1] * self.beside[t - 1]
            self.inverse[t] = cho_solve(cho_factor(block, lower=True, check_finite=False), more, check_finite=False)
        self.through = self._alone(matrix.border).reshape(-1, shared)
        corner = matrix.corner.copy()
        corner[np.diag_indices(shared)] = _damped(corner, damping)
        corner -= self.border.T @ self.through
        self.corner = cho_factor(corner, lower=True, check_finite=False)

    def solve(self, gradient: Floats, shared: Floats) -> tuple[Floats, Floats]:
        """The step -A⁻¹ g (T, n) and (m,) for the ``gradient`` (T, n) and (m,)."""
        own = self._alone(gradient[..., None]).reshape(-1)
        common = cho_solve(self.corner, shared - self.border.T @ own, check_finite=False)
        return -(own - self.through @ common).reshape(gradient.shape), -common

    def _alone(self, right: Floats) -> Floats:
        """The solution (T, n, k) for ``right`` (T, n, k) as if nothing were shared.

        Forwards each frame hands what it knows to the next; backwards each gets its answer from the next one's.
        """
        known = np.empty_like(right)
        for t in range(len(right)):
            rest = right[t] - self.beside[t - 1, :, None] * known[t - 1] if t else right[t]
            known[t] = self.inverse[t] @ rest
        for t in range(len(right) - 2, -1, -1):
            known[t] -= self.inverse[t] @ (self.beside[t, :, None] * known[t + 1])
        return known


def _damped(block: Floats, damping: float) -> Floats:
    """The diagonal made larger, and nowhere 0: what nothing is known about stays where it is."""
    diagonal = block.diagonal()
    return np.asarray((1 + damping) * diagonal + _FLOOR * diagonal.max(initial=1.0))
