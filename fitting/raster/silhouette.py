"""The outline of what was drawn, smoothly: how much of a pixel is covered, and what that does to a picture.

A hard mask does not change when a vertex moves a little, so nothing can be fitted to it. Here, where a pixel that is hit has a
neighbour that is not, the outline crosses the line between their centres at some point; as Laine et al. (*Modular Primitives
for High-Performance Differentiable Rendering*, 2020, section 3.4) have it, the pixel whose centre is nearer to it takes on
something of the other: half of it with the outline on its own centre, nothing with the outline half way between.

That paper asks the visible face alone for the crossing. Near its outline the faces of a fine mesh are thinner than pixels, so
here all faces are asked, and of all crossings the one furthest from the pixel that is hit is the outline.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fitting.raster.faces import NEAR, corners, drawable
from fitting.raster.fragments import Fragments
from fitting.raster.pieces import at_once, expand, first_centre, pick


def coverage(fragments: Fragments, points: Tensor, faces: Tensor, *, cull_backfaces: bool = False, near: float = NEAR) -> Tensor:
    """The share (B, H, W) of each pixel that is covered, from 0 to 1, differentiable by ``points``; see ``antialias``.

    Exact for pixels that a straight outline enters and leaves through opposite sides, too small or large by at most an eighth
    for others. It changes continuously with the points, but for sharp tips and parts thinner than a pixel, which come and go, and
    at the border of the image, beyond which nothing is known.
    """
    hit = fragments.hit[..., None].to(points.dtype)
    return antialias(hit, fragments, points, faces, cull_backfaces=cull_backfaces, near=near)[..., 0]


def antialias(
    image: Tensor, fragments: Fragments, points: Tensor, faces: Tensor, *, cull_backfaces: bool = False, near: float = NEAR
) -> Tensor:
    """``image`` (B, H, W, C), with a background where pixels are missed, with a smooth outline towards that background.

    The other arguments are those that ``rasterize`` was given for ``fragments``. Differentiable by the image and, at the
    outline, by the points. Outlines of parts in front of others, a nose before a cheek, stay as they are.
    """
    upright = _taken(fragments.hit, points, faces, cull_backfaces=cull_backfaces, near=near)
    turned = _taken(fragments.hit.mT, points[..., [1, 0, 2]], faces, cull_backfaces=cull_backfaces, near=near, mirrored=True)
    across, along = _change(image, *upright), _change(image.transpose(1, 2), *turned).transpose(1, 2)
    # Where the outline is nearer along the column it is nearer to level, and rows meet it at too sharp an angle.
    by_row, by_column = torch.maximum(*upright), torch.maximum(*turned).mT
    return image + torch.where((by_row >= by_column)[..., None], across, along)


def _change(image: Tensor, from_next: Tensor, from_last: Tensor) -> Tensor:
    """What a picture (B, H, W, C) gains by taking shares (B, H, W) of each pixel's neighbours in its row."""
    step = image[:, :, 1:] - image[:, :, :-1]
    change = torch.nn.functional.pad(from_next[:, :, :-1, None] * step, (0, 0, 0, 1))
    return change - torch.nn.functional.pad(from_last[:, :, 1:, None] * step, (0, 0, 1, 0))


def _taken(
    hit: Tensor, points: Tensor, faces: Tensor, *, cull_backfaces: bool, near: float, mirrored: bool = False
) -> tuple[Tensor, Tensor]:
    """The shares (B, H, W) that each pixel takes of the next and of the last one in its row.

    In a ``mirrored`` picture, x and y exchanged, fronts look like backs.
    """
    with torch.no_grad():
        pair, side = _outline(hit, points, faces, cull_backfaces=cull_backfaces, near=near, mirrored=mirrored)
    _, height, width = hit.shape
    image, row, column = pair // (height * width), pair // width % height, pair % width
    end = [faces[side // 3, (side + k) % 3] + image * points.shape[1] for k in (1, 2)]
    table = points[..., :2].flatten(0, 1)
    (x_1, y_1), (x_2, y_2) = (table.index_select(0, index).double().unbind(dim=1) for index in end)
    crossing = (x_1 * y_2 - x_2 * y_1 + (row + 0.5) * (x_2 - x_1)) / (y_2 - y_1) - (column + 0.5)
    share = (0.5 - crossing).to(points.dtype)
    nothing = share.new_zeros(hit.numel())
    from_next = nothing.index_copy(0, pair, share.clamp(min=0)).unflatten(0, hit.shape)
    from_last = nothing.index_copy(0, pair + 1, (-share).clamp(min=0)).unflatten(0, hit.shape)
    return from_next, from_last


def _outline(
    hit: Tensor, points: Tensor, faces: Tensor, *, cull_backfaces: bool, near: float, mirrored: bool
) -> tuple[Tensor, Tensor]:
    """Pairs (N,) of neighbours in a row with the outline between them, as the first one's place in the flattened ``hit``, and
    the side of a face that crosses between them furthest from the one that is hit: 3 · face + the corner opposite."""
    _, height, width = hit.shape
    differ = torch.zeros_like(hit)
    differ[:, :, :-1] = hit[:, :, 1:] != hit[:, :, :-1]
    differ, hit = differ.flatten(), hit.flatten()
    winner = torch.zeros(len(hit), dtype=torch.int64, device=hit.device)
    images = max(1, at_once(points) // max(1, len(faces)))
    for first in range(0, len(points), images):
        seen = corners(points[first : first + images], faces)
        area = -seen.doubled_area if mirrored else seen.doubled_area
        kept = drawable(seen._replace(doubled_area=area), near=near, cull_backfaces=cull_backfaces).flatten().nonzero()[:, 0]
        image, face = kept // max(1, len(faces)), kept % max(1, len(faces))
        x, y = ([pick(corner.flatten(), kept) for corner in column.unbind(1)] for column in (seen.x, seen.y))
        (x_1, x_2), (y_1, y_2) = ((torch.cat([at[1], at[2], at[0]]), torch.cat([at[2], at[0], at[1]])) for at in (x, y))
        begin, stop = first_centre(torch.minimum(y_1, y_2), height), first_centre(torch.maximum(y_1, y_2), height)
        c, d, e = x_1 * y_2 - x_2 * y_1, x_2 - x_1, y_2 - y_1
        first_line = ((image + first) * height).repeat(3)
        number = torch.cat([3 * face + k for k in range(3)]) + 1
        for side, row in expand(stop - begin):
            row = row + pick(begin, side)
            crossing = ((row + 0.5) * pick(d, side) + pick(c, side)) / pick(e, side)
            column = first_centre(crossing, width) - 1
            pair = (pick(first_line, side) + row) * width + column
            # Left of the first centre there is no pair; right of the last one, ``differ`` is false.
            outline = ((column >= 0) & pick(differ, pair.clamp(min=0))).nonzero()[:, 0]
            pair, side = pick(pair, outline), pick(side, outline)
            away = pick(crossing, outline) - (pick(column, outline) + 0.5)
            away = torch.where(pick(hit, pair), away, 1 - away).float().clamp(min=0)
            winner.scatter_reduce_(0, pair, (away.view(torch.int32).long() << 32) + pick(number, side), "amax")
    pair = winner.nonzero()[:, 0]
    return pair, (pick(winner, pair) & 0xFFFFFFFF) - 1
