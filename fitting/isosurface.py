"""The zero level of a signed distance as a mesh, asking for the distance near the surface only.

A dense grid of 256³ points costs 17 million evaluations, nearly all of them in empty space. Here cells of 16 grid steps are
halved where the surface may be, down to single steps; wherever the surface then leaves what was looked at, it is
followed. Marching cubes (Lorensen and Cline 1987; PyMCubes) runs over the same grid as ever and makes the same mesh.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import mcubes
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Field = Callable[[Tensor], Tensor]
"""Signed distances (P,), negative inside, at points (P, 3)."""

COARSEST = 16
"""Grid steps of the largest cells, a power of two."""

_CORNERS = np.stack(np.meshgrid([0, 1], [0, 1], [0, 1], indexing="ij"), axis=-1).reshape(8, 3)

Indices = NDArray[np.int64]


class Mesh(NamedTuple):
    """A triangle mesh; seen from outside, the corners of a face run counter-clockwise."""

    vertices: Tensor
    """(V, 3) float32, in the units of the field's points."""
    faces: Tensor
    """(F, 3) int64."""
    evaluations: int
    """How many points the field was asked for."""


def extract(
    field: Field,
    lower: tuple[float, float, float],
    upper: tuple[float, float, float],
    resolution: int = 256,
    *,
    dense: bool = False,
    chunk: int = 50_000,
    device: torch.device | str = "cpu",
) -> Mesh:
    """The zero level of ``field`` within the box from ``lower`` to ``upper``, on a grid of ``resolution``³ points.

    The grid includes both ends of each axis, so its steps differ along axes of different lengths. ``field`` is asked for up to
    ``chunk`` points at once, float32 on ``device``, without gradients.

    A cell is looked into where its corners differ in sign, or where the least value at a corner is below half the cell's
    diagonal. Where values do not exceed distances, nothing is missed. A field that exceeds them may hide a piece of surface
    smaller than a cell that touches nothing found; with ``dense`` every point of the grid is asked.

    Raises ``ValueError`` for an empty box and for a field that is not finite.
    """
    if resolution < 2 or not all(low < high for low, high in zip(lower, upper, strict=True)):
        raise ValueError(f"a box from {lower} to {upper} with {resolution} points each way is empty")
    grid = _Grid(field, np.array(lower), np.array(upper), resolution, chunk, torch.device(device))
    if dense:
        grid.ask(np.arange(resolution**3))
    else:
        grid.follow(grid.search())
    # Negated, as the published meshing code does: the orientation is that of a field that is positive inside.
    vertices, faces = mcubes.marching_cubes(-grid.filled(), 0.0)
    vertices = torch.from_numpy((vertices * grid.step + grid.lower).astype(np.float32)).reshape(-1, 3)
    return Mesh(vertices, torch.from_numpy(faces.astype(np.int64)).reshape(-1, 3), grid.evaluations)


class _Grid:
    """The values of a field on a grid, known where they were asked for. Cells are named by their lowest corner."""

    def __init__(
        self,
        field: Field,
        lower: NDArray[np.float64],
        upper: NDArray[np.float64],
        resolution: int,
        chunk: int,
        device: torch.device,
    ):
        self.field, self.chunk, self.device = field, chunk, device
        self.lower, self.step, self.last = lower, (upper - lower) / (resolution - 1), resolution - 1
        self.values = np.full((resolution,) * 3, np.nan, np.float32)
        self.evaluations = 0

    def cells(self, size: int) -> Indices:
        """All cells of ``size`` steps (C, 3)."""
        starts = np.arange(0, self.last, size)
        return np.stack(np.meshgrid(starts, starts, starts, indexing="ij"), axis=-1).reshape(-1, 3)

    def corners(self, cells: Indices, size: int) -> Indices:
        """The corners (C, 8, 3) of cells (C, 3); cells at the grid's end are smaller."""
        corners: Indices = np.minimum(cells[:, None] + size * _CORNERS, self.last)
        return corners

    def values_at(self, places: Indices) -> NDArray[np.float32]:
        """The values (...) at grid ``places`` (..., 3); the field is asked for those that are not known yet."""
        flat, known = self._flat(places), self.values.reshape(-1)
        self.ask(np.unique(flat[np.isnan(known[flat])]))
        return known[flat]

    def ask(self, missing: Indices) -> None:
        """Ask the field for grid points (P,), given by their place in the flattened grid."""
        known = self.values.reshape(-1)
        for start in range(0, len(missing), self.chunk):
            some = missing[start : start + self.chunk]
            index = np.stack(np.unravel_index(some, self.values.shape), axis=-1)
            points = torch.from_numpy((index * self.step + self.lower).astype(np.float32)).to(self.device)
            with torch.no_grad():
                known[some] = self.field(points).to("cpu", torch.float32).numpy()
            if not (finite := np.isfinite(known[some])).all():
                raise ValueError(f"the field is not finite at {points[int((~finite).argmax())].tolist()}")
        self.evaluations += len(missing)

    def search(self) -> Indices:
        """Halve cells where the surface may be: cells of one step (C, 3) that it crosses."""
        size = COARSEST
        while size > 1 and size * 4 > self.last:
            size //= 2
        cells = self.cells(size)
        while True:
            values = self.values_at(self.corners(cells, size))
            crossed = _differ_in_sign(values)
            if size == 1:
                return cells[crossed]
            near = np.abs(values).min(axis=1) < size * np.linalg.norm(self.step) / 2
            size //= 2
            children = (cells[crossed | near][:, None] + size * _CORNERS).reshape(-1, 3)
            cells = children[(children < self.last).all(axis=1)]

    def follow(self, cells: Indices) -> None:
        """Go on from ``cells`` that the surface crosses to the neighbours that it enters, until it leaves none."""
        shape = (self.last,) * 3
        visited = np.zeros(self.last**3, np.bool_)
        visited[np.ravel_multi_index(tuple(cells.T), shape)] = True
        while len(cells):
            signs = self.values_at(self.corners(cells, 1)) < 0
            entered = []
            for axis in range(3):
                for side in (0, 1):
                    face = signs[:, _CORNERS[:, axis] == side]
                    neighbours = cells[face.any(axis=1) & ~face.all(axis=1)].copy()
                    neighbours[:, axis] += 2 * side - 1
                    entered.append(neighbours[(neighbours[:, axis] >= 0) & (neighbours[:, axis] < self.last)])
            flat = np.unique(np.ravel_multi_index(tuple(np.concatenate(entered).T), shape))
            flat = flat[~visited[flat]]
            visited[flat] = True
            cells = np.stack(np.unravel_index(flat, shape), axis=-1)

    def filled(self) -> NDArray[np.float32]:
        """The whole grid. What was not asked for is on the same side of the surface as what is known beside it, and takes its
        value; no such value lies at a corner of a crossed cell."""
        values = self.values
        for axis in (2, 1, 0):
            places = np.arange(self.last + 1, dtype=np.int32).reshape([-1 if a == axis else 1 for a in range(3)])
            before = np.maximum.accumulate(np.where(np.isnan(values), 0, places), axis=axis)
            values = np.take_along_axis(values, before, axis)
            after = np.where(np.isnan(values), self.last, places)
            after = np.flip(np.minimum.accumulate(np.flip(after, axis), axis=axis), axis)
            values = np.take_along_axis(values, after, axis)
        return values

    def _flat(self, places: Indices) -> Indices:
        side = self.last + 1
        flat: Indices = (places[..., 0] * side + places[..., 1]) * side + places[..., 2]
        return flat


def _differ_in_sign(values: NDArray[np.float32]) -> NDArray[np.bool_]:
    negative = values < 0
    return np.asarray(negative.any(axis=1) & ~negative.all(axis=1))
