"""Dense depth of every view from its neighbours, coarse to fine, on the CPU.

At a quarter of the size, planes of constant depth are swept through the whole range (Collins, *A space-sweep approach to true
multi-image matching*, CVPR 1996). From there on the depths around the last ones are tried, with windows warped through the map as
it is bent by then (``fitting.stereo.matching``), and planes fitted to the pixels around each (``fitting.stereo.planes``) make
the map smooth for the next pass and give the normals.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from fitting.cameras import Camera
from fitting.stereo.matching import Box, Warp, Windows
from fitting.stereo.planes import fill, fit_planes, plane_normals
from fitting.stereo.sources import choose_sources, shows_something
from fitting.stereo.views import DepthMaps, Floats, Views, check


class Pass(NamedTuple):
    """One search."""

    reduction: int
    """By how much pictures are made smaller."""
    reach: float
    """How far from the last depth is searched, in pixels of a neighbour; 0 is the whole range."""
    step: float
    """In the same."""
    radius: int
    """Of the windows that are compared, in pixels."""


PASSES = (Pass(4, 0, 1.0, 2), Pass(2, 2.5, 0.5, 3), Pass(1, 1.5, 0.5, 4), Pass(1, 0.5, 0.25, 3))


Side = tuple[Warp, Floats]
"""A neighbour: the way to it, and its picture."""


class Level(NamedTuple):
    """All views at one size."""

    greys: list[Floats]
    masks: list[NDArray[np.bool_]] | None
    cameras: Camera


def depth_maps(
    views: Views,
    *,
    depth_range: tuple[float, float] = (0.8, 1.4),
    neighbours: int = 4,
    least_correlation: float = 0.5,
    noise: float = 0.5,
    passes: tuple[Pass, ...] = PASSES,
) -> DepthMaps:
    """Depth and normals of all ``views``, each matched with its best ``neighbours`` between ``depth_range`` in metres.

    There is no depth where windows correlate with the neighbours by less than ``least_correlation``, outside the masks, at the
    ends of the range, and where the picture's deviation is small against ``noise`` in levels of 255. The same views give the same
    bytes. Raises ``ValueError`` for views that do not fit together, an empty range, and
    passes of which not just the first searches it all or the last is not at full size.
    """
    check(views)
    near, far = depth_range
    if not 0 < near < far:
        raise ValueError(f"depths are searched from near to far with 0 < near < far in metres, got {near} and {far}")
    if [search.reach == 0 for search in passes] != [True] + [False] * (len(passes) - 1):
        raise ValueError(f"the first pass, and no other, searches the whole range (reach 0), got {passes}")
    if passes[-1].reduction != 1:
        raise ValueError(f"the last pass gives the maps, so it has pictures at full size (reduction 1), got {passes[-1]}")
    usable = shows_something(views.pictures)
    sources = choose_sources(views.cameras, 2 / (1 / near + 1 / far), neighbours, usable=usable)
    levels = {reduction: _level(views, reduction) for reduction in {search.reduction for search in passes}}
    depth = np.zeros(views.pictures.shape[:3], np.float32)
    maps = DepthMaps(depth, np.zeros((*depth.shape, 3), np.float32), np.zeros_like(depth))
    for view in np.flatnonzero(usable):
        others = [int(other) for other in sources[view] if other >= 0]
        if others:
            _one_view(int(view), others, levels, depth_range, least_correlation, noise, passes, maps)
    return maps


def _one_view(
    view: int,
    others: list[int],
    levels: dict[int, Level],
    depth_range: tuple[float, float],
    least: float,
    noise: float,
    passes: tuple[Pass, ...],
    maps: DepthMaps,
) -> None:
    """Write the maps of one ``view``."""
    near, far = depth_range
    inverse, box, before = np.zeros((1, 1), np.float32), Box(0, 0, 1, 1), levels[passes[0].reduction].cameras
    for search in passes:
        level = levels[search.reduction]
        grey, mask = level.greys[view], None if level.masks is None else level.masks[view]
        last, box = box, _box(mask, grey.shape, 2 * search.radius)
        if box.right <= box.left:
            return
        part = None if mask is None else mask[box.slices]
        # Pixels on the outline are mixed with what is behind, which moves along with it: windows leave them out.
        whole = None if part is None else cv2.erode(part.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        windows = Windows(grey[box.slices], whole, search.radius, noise)
        sides = [(Warp(level.cameras[view], level.cameras[other], box), level.greys[other]) for other in others]
        pixel = 1 / max(warp.speed((1 / near + 1 / far) / 2) for warp, _ in sides)
        if search.reach == 0:
            inverse, score = _sweep(windows, sides, 1 / near, 1 / far, search.step * pixel)
        else:
            inverse = _enlarge(inverse, last, before, box, level.cameras)
            inverse, score = _refine(windows, sides, inverse, search, pixel)
        inside = (inverse > 1 / far) & (inverse < 1 / near) & (score >= least)
        if part is not None:
            inside &= part
        planes = fit_planes(inverse, np.where(inside, score, 0), 3 * pixel)
        if search is not passes[-1]:
            inverse, before = fill(planes.inverse, planes.inverse > 0), level.cameras
    known = inside & (planes.inverse > 0)
    area = (view, *box.slices)
    maps.depth[area] = np.where(known, 1 / np.where(known, inverse, 1), 0)
    normals = plane_normals(planes, levels[passes[-1].reduction].cameras.intrinsics[view].double().numpy(), (box.left, box.top))
    maps.normals[area] = np.where(known[..., None], normals, 0)
    maps.confidence[area] = np.where(known, score, 0)


def _sweep(windows: Windows, sides: list[Side], nearest: float, farthest: float, step: float) -> tuple[Floats, Floats]:
    """The best of constant inverse depths at each pixel, and how alike the two most alike neighbours are there."""
    count = max(3, round((nearest - farthest) / step) + 1)
    peak = _Peak(windows.grey.shape)
    steps = np.linspace(farthest, nearest, count)
    for tried in steps:
        flat = np.full_like(windows.grey, tried)
        peak.add(_best_two(windows.correlation(warp(picture, flat)) for warp, picture in sides))
    place, score = peak.found()
    return np.asarray(farthest + float(steps[1] - steps[0]) * place, np.float32), score


def _refine(windows: Windows, sides: list[Side], inverse: Floats, search: Pass, pixel: float) -> tuple[Floats, Floats]:
    """The best of inverse depths around ``inverse`` (H, W), and the correlation there.

    Neighbours count by how alike they are at the start: those to which the place is hidden do not.
    """
    count = round(search.reach / search.step)
    step = search.step * pixel
    shares = [np.maximum(windows.correlation(warp(picture, inverse)), 0.05) ** 2 for warp, picture in sides]
    total = np.sum(shares, axis=0)
    peak = _Peak(inverse.shape)
    for number in range(-count, count + 1):
        tried = inverse + np.float32(number * step)
        score = np.zeros_like(inverse)
        for (warp, picture), share in zip(sides, shares, strict=True):
            score += share * windows.correlation(warp(picture, tried, cv2.INTER_CUBIC))
        peak.add(score / total)
    place, best = peak.found()
    return inverse + np.float32(step) * (place - count), best


class _Peak:
    """Where scores that come one map after another are highest, without keeping them all."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.number = -1
        self.index = np.zeros(shape, np.int32)
        # Nothing is less alike than -1.
        self.best, self.before, self.after, self.last = (np.full(shape, -2, np.float32) for _ in range(4))

    def add(self, score: Floats) -> None:
        self.number += 1
        np.copyto(self.after, score, where=self.index == self.number - 1)
        better = score > self.best
        for held, value in ((self.before, self.last), (self.best, score), (self.after, -2), (self.index, self.number)):
            np.copyto(held, value, where=better)
        self.last = score

    def found(self) -> tuple[Floats, Floats]:
        """The number of the best, to fractions by the parabola through it and its two neighbours, and the score there."""
        inner = (self.before >= -1) & (self.after >= -1)
        bend = np.minimum(self.before - 2 * self.best + self.after, -1e-6)
        fraction = np.where(inner, ((self.before - self.after) / (2 * bend)).clip(-0.5, 0.5), 0)
        score = self.best - 0.25 * np.where(inner, self.before - self.after, 0) * fraction
        return np.asarray(self.index + fraction, np.float32), np.asarray(np.minimum(score, 1), np.float32)


def _best_two(scores: Iterator[Floats]) -> Floats:
    """The mean of the two largest at each pixel; of a single one, itself."""
    first = next(scores)
    second: Floats | None = None
    for score in scores:
        lower = np.minimum(first, score)
        first = np.maximum(first, score)
        second = lower if second is None else np.maximum(second, lower)
    return first if second is None else 0.5 * (first + second)


def _level(views: Views, reduction: int) -> Level:
    height, width = (max(1, round(side / reduction)) for side in views.pictures.shape[1:3])
    greys = [picture.mean(axis=-1, dtype=np.float32) for picture in views.pictures]
    masks = None if views.masks is None else list(views.masks)
    if reduction > 1:
        greys = [cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA) for grey in greys]
        if masks is not None:
            masks = [cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA) > 0.5 for mask in masks]
    return Level(greys, masks, views.cameras.resize(width, height))


def _box(mask: NDArray[np.bool_] | None, size: tuple[int, ...], margin: int) -> Box:
    """The part of the picture that is worked on: empty where the mask is."""
    height, width = size
    if mask is None:
        return Box(0, 0, width, height)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if len(rows) == 0:
        return Box(0, 0, 0, 0)
    left, top = max(0, int(columns[0]) - margin), max(0, int(rows[0]) - margin)
    return Box(left, top, min(width, int(columns[-1]) + 1 + margin), min(height, int(rows[-1]) + 1 + margin))


def _enlarge(inverse: Floats, last: Box, before: Camera, box: Box, now: Camera) -> Floats:
    """The map of the ``last`` pass's box, of pictures as the camera ``before`` has them, at the pixels of the new one."""
    across, down = before.width / now.width, before.height / now.height
    x = ((np.arange(box.left, box.right) + 0.5) * across - 0.5 - last.left).astype(np.float32)
    y = ((np.arange(box.top, box.bottom) + 0.5) * down - 0.5 - last.top).astype(np.float32)
    grid_x, grid_y = np.meshgrid(x, y)
    return np.asarray(cv2.remap(inverse, grid_x, grid_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.float32)
