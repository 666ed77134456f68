"""Finding the visible faces in plain torch: faces become rows, rows become pixels, and the nearest face wins each pixel.

Nothing runs over all pixels for each face, or over faces in Python. A face is cut at its middle corner into two pieces with
two sides each; on every row of pixels a piece covers the span from one side to the other. Only the pixels of spans are
looked at, two or three of them for each pixel of the picture with a head in it.

A side is crossed at x = (x₁y₂ - x₂y₁ + y (x₂ - x₁)) / (y₂ - y₁). Exchanging its ends changes three signs and no rounding, so
two faces that share a side find the same number. Spans take their left end and leave their right one. So no pixel between
neighbouring faces is missed or found twice.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fitting.raster.faces import corners, drawable, highest, lowest
from fitting.raster.pieces import at_once, expand, first_centre, pick

_LAST_FACE = 2**31 - 1


def visible_faces(points: Tensor, faces: Tensor, size: tuple[int, int], *, near: float, cull_backfaces: bool) -> Tensor:
    """(B, H, W) int64, the face nearest to the camera at each pixel centre or -1; see ``rasterize``."""
    height, width = size
    # Larger is nearer: the bits of 1 / depth, then the face counted backwards. 0 is nothing.
    winner = torch.zeros(len(points) * height * width, dtype=torch.int64, device=points.device)
    images = max(1, at_once(points) // max(1, len(faces)))
    for first in range(0, len(points), images):
        group = points[first : first + images]
        pieces = _pieces(group, faces, size, first, near=near, cull_backfaces=cull_backfaces)
        for piece, row in expand(pieces.n_rows):
            spans = _spans(pieces, piece, row, size)
            for span, column in expand(spans.length):
                slope, nearness = pick(spans.slope, span), pick(spans.nearness, span)
                nearness = slope.mul_(column).add_(nearness).clamp_(min=torch.finfo(torch.float32).tiny)
                key = nearness.view(torch.int32).long().bitwise_left_shift_(32).add_(pick(spans.face_key, span))
                winner.scatter_reduce_(0, column.add_(pick(spans.pixel, span)), key, "amax")
    face = _LAST_FACE - (winner & 0xFFFFFFFF)
    return face.masked_fill_(winner == 0, -1).unflatten(0, (-1, height, width))


class _Pieces(NamedTuple):
    """Upper halves of the faces that may show, then the lower halves: 2 K pieces of K faces."""

    n_rows: Tensor
    """(2K,) int64, rows of pixel centres that it crosses; often 0."""
    first_row: Tensor
    """(2K,) int64."""
    image: Tensor
    """(2K,) int64."""
    sides: tuple[list[Tensor], list[Tensor]]
    """c, d, e, each (2K,), of both sides: crossed at x = (c + d y) / e."""
    plane: list[Tensor]
    """p, q, r, each (2K,): 1 / depth = p + q x + r y."""
    face: Tensor
    """(2K,) int64."""


def _pieces(
    points: Tensor, faces: Tensor, size: tuple[int, int], first_image: int, *, near: float, cull_backfaces: bool
) -> _Pieces:
    height, width = size
    seen = corners(points, faces)
    rows = [first_centre(y, height) for y in (lowest(seen.y), highest(seen.y))]
    columns = [first_centre(x, width) for x in (lowest(seen.x), highest(seen.x))]
    kept = drawable(seen, near=near, cull_backfaces=cull_backfaces) & (rows[0] < rows[1]) & (columns[0] < columns[1])
    which = kept.flatten().nonzero()[:, 0]
    image, face = which // max(1, len(faces)), which % max(1, len(faces))
    x, y, z = ([pick(corner.flatten(), which) for corner in column.unbind(1)] for column in seen[:3])
    area = pick(seen.doubled_area.flatten(), which)

    nearness = [1 / depth for depth in z]
    (x_1, x_2), (y_1, y_2), (n_1, n_2) = ((own[1] - own[0], own[2] - own[0]) for own in (x, y, nearness))
    q, r = (n_1 * y_2 - n_2 * y_1) / area, (x_1 * n_2 - x_2 * n_1) / area
    plane = [nearness[0] - q * x[0] - r * y[0], q, r]

    # Side k lies opposite corner k. The sides of the upper half are those that meet in the uppermost corner.
    top = torch.where(y[2] < torch.minimum(y[0], y[1]), 2, (y[1] < y[0]).long())
    bottom = torch.where(y[2] >= torch.maximum(y[0], y[1]), 2, (y[1] >= y[0]).long())
    each = torch.arange(len(face), device=face.device)
    middle, top, bottom = ((3 - top - bottom) * len(face) + each, top * len(face) + each, bottom * len(face) + each)
    both = [(1, 2), (2, 0), (0, 1)]
    side = [
        torch.cat([x[i] * y[j] - x[j] * y[i] for i, j in both]),
        torch.cat([x[j] - x[i] for i, j in both]),
        torch.cat([y[j] - y[i] for i, j in both]),
    ]
    long_side, short_side = torch.cat([middle, middle]), torch.cat([bottom, top])
    sides = [pick(number, long_side) for number in side], [pick(number, short_side) for number in side]

    begin, end = (pick(row.flatten(), which) for row in rows)
    cut = first_centre(pick(torch.cat(y), middle), height)
    return _Pieces(
        n_rows=torch.cat([cut - begin, end - cut]),
        first_row=torch.cat([begin, cut]),
        image=(image + first_image).repeat(2),
        sides=sides,
        plane=[number.repeat(2) for number in plane],
        face=face.repeat(2),
    )


class _Spans(NamedTuple):
    """Neighbouring pixels of one row that a face covers."""

    length: Tensor
    """(R,) int64, often 0."""
    pixel: Tensor
    """(R,) int64, the first one, counted through all images."""
    nearness: Tensor
    """(R,) float32, 1 / depth at the first pixel."""
    slope: Tensor
    """(R,) float32, how much it grows from pixel to pixel."""
    face_key: Tensor
    """(R,) int64, smaller for later faces."""


def _spans(pieces: _Pieces, piece: Tensor, row: Tensor, size: tuple[int, int]) -> _Spans:
    height, width = size
    row = row + pick(pieces.first_row, piece)
    y = row + torch.tensor(0.5, dtype=torch.float64, device=row.device)
    ends = []
    for side in pieces.sides:
        c, d, e = (pick(number, piece) for number in side)
        ends.append(d.mul_(y).add_(c).div_(e))
    begin, end = first_centre(torch.minimum(*ends), width), first_centre(torch.maximum(*ends), width)
    p, q, r = (pick(number, piece) for number in pieces.plane)
    nearness = r.mul_(y).add_(p).add_((begin + 0.5).mul_(q)).float()
    pixel = pick(pieces.image, piece).mul_(height).add_(row).mul_(width).add_(begin)
    return _Spans(end - begin, pixel, nearness, q.float(), _LAST_FACE - pick(pieces.face, piece))
