"""Arrowhead systems are solved as if they were written out in full."""

from __future__ import annotations

import numpy as np
import pytest

from fitting.flame_fit.arrowhead import Arrowhead


def random_system(frames: int, local: int, shared: int, seed: int = 0) -> tuple[Arrowhead, np.ndarray]:
    """One made of random rows, and the same written out."""
    rng = np.random.default_rng(seed)
    matrix, full = Arrowhead(frames, local, shared), np.zeros((frames * local + shared,) * 2)
    for t in range(frames):
        rows = rng.standard_normal((3 * (local + shared), local + shared))
        product = rows.T @ rows
        matrix.blocks[t], matrix.border[t] = product[:local, :local], product[:local, local:]
        matrix.corner += product[local:, local:]
        at = np.concatenate([t * local + np.arange(local), frames * local + np.arange(shared)])
        full[np.ix_(at, at)] += product
    return matrix, full


def solved(matrix: Arrowhead, gradient: np.ndarray, damping: float = 0.0) -> np.ndarray:
    frames, local, _ = matrix.border.shape
    own, shared = matrix.factored(damping).solve(gradient[: frames * local].reshape(frames, local), gradient[frames * local :])
    return np.concatenate([own.ravel(), shared])


@pytest.mark.parametrize("frames", [1, 2, 7])
@pytest.mark.parametrize("damping", [0.0, 0.3])
def test_the_step_is_that_of_the_full_matrix(frames: int, damping: float) -> None:
    matrix, full = random_system(frames, 5, 3)
    weight = np.linspace(1, 2, frames - 1)
    columns = slice(1, 4)
    matrix.add_penalty(columns, False, weight, difference=True)
    for t in range(frames - 1):
        for k in range(1, 4):
            difference = np.zeros(len(full))
            difference[[5 * t + k, 5 * (t + 1) + k]] = -1, 1
            full += weight[t] * np.outer(difference, difference)
    matrix.add_penalty(slice(0, 5), False, np.full(frames, 0.5), difference=False)
    matrix.add_penalty(slice(1, 3), True, np.array([0.7]), difference=False)
    full[np.arange(5 * frames), np.arange(5 * frames)] += 0.5
    full[5 * frames + np.array([1, 2]), 5 * frames + np.array([1, 2])] += 0.7
    gradient = np.random.default_rng(1).standard_normal(len(full))
    expected = -np.linalg.solve(full + damping * np.diag(np.diag(full)), gradient)
    assert np.allclose(solved(matrix, gradient, damping), expected, rtol=1e-9, atol=1e-12)


def test_a_matrix_that_is_not_positive_is_refused() -> None:
    matrix, _ = random_system(3, 4, 2)
    matrix.blocks[1] *= -1
    with pytest.raises(np.linalg.LinAlgError):
        matrix.factored(0.0)
