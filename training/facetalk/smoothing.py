"""Facial smoothing: expressions move the face, and leave neck, ears and the back of the head in peace.

FaceTalk, §4 "Sequence Generation", eq. 11 to 15: a Gaussian about a point on the mouth, normalised to 0 ... 1, weighs the
expression's offsets before the identity network is asked.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fitting.nphm.compose import LOWER, UPPER

Triple = tuple[float, float, float]


class Smoothing(NamedTuple):
    """A weight of points, in NPHM's space: units of a quarter of a metre, x to the person's left, y up, z out of the face.

    The paper gives no numbers. These: the centre is between the lips; the Gaussian is wide and high (15 cm) but shallow (3.5 cm),
    since eyes and chin are as far in front as the mouth is, while ears and neck lie behind. Of how far random expressions move
    the studio's heads, it leaves 96 % at the lips, 92 % at the cheeks, 85 % at the eyes, 80 % at the chin, 68 % at the whole jaw,
    13 % at the ears, and 3 % and less at the nape and the back of the head. More of the jaw's corners would be more of the ears.
    """

    centre: Triple = (0.0, -0.17, 0.21)
    """C of eq. 11."""
    sigma: Triple = (0.6, 0.6, 0.14)
    """Σ of eq. 12."""

    def weight(self, points: Tensor) -> Tensor:
        """w of eq. 12 to 14 at ``points`` (..., 3): (...), 1 at the centre and 0 at the corner of the box farthest from it.

        Eq. 14 takes minimum and maximum over the points of a grid; here they are those over the whole box that heads are meshed
        in, so the weight is the same for every resolution. The factor before eq. 13's exponential cancels out.
        """
        centre, sigma, lower, upper = (points.new_tensor(triple) for triple in (self.centre, self.sigma, LOWER, UPPER))

        def gauss(at: Tensor) -> Tensor:
            return torch.exp(-0.5 * ((at - centre) / sigma).square().sum(dim=-1))

        farthest = torch.where(centre - lower > upper - centre, lower, upper)
        least, most = gauss(farthest), gauss(centre.clamp(lower, upper))
        return ((gauss(points) - least) / (most - least)).clamp(0, 1)
