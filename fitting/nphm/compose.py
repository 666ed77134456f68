"""Head and expression together: signed distances and meshes of posed heads.

Three formulas, for posed points x, identity network I and expression network E:

- *backward* (FaceTalk, §3.1): I(x + E(x)). One evaluation; a mesh needs a new surface for every frame.
- *forward* (the published NPHM, §3.3 and §4): I(y) where y + E(y) = x, found by root finding; a mesh is extracted once for each
  subject, then its vertices are moved, so all frames have the same triangles.
- *backward+hyper* (MonoNPHM, §3.2): I(x + E(x), hyper coordinates), with colour.

Which one holds is a property of the expression network's weights; asked for another, ``Nphm`` refuses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fitting.isosurface import Mesh, extract
from fitting.nphm.expression import Direction, ExpressionCondition, ExpressionNetwork
from fitting.nphm.identity import Background, IdentityCondition, IdentityNetwork
from fitting.nphm.mono import MonoCondition, MonoIdentityNetwork
from fitting.nphm.roots import find_canonical

LOWER, UPPER = (-0.55, -0.5, -0.95), (0.55, 0.75, 0.4)
"""The box in which heads are meshed, in NPHM units: that of the published code."""


class Composition(StrEnum):
    """How identity and expression are put together; see the module's text."""

    backward = "backward"
    forward = "forward"
    backward_hyper = "backward+hyper"


class Subject(NamedTuple):
    """S people as both networks know them: what depends on identity codes alone. Make it once, use it for all frames."""

    identity: IdentityCondition | MonoCondition
    expression: ExpressionCondition


class Distance(NamedTuple):
    """What is known of posed points."""

    sdf: Tensor
    """(B, N) signed distance in NPHM units, negative inside."""
    canonical: Tensor
    """(B, N, 3) where the points are on the canonical head."""
    converged: Tensor
    """(B, N) bool: whether root finding arrived; all true for the other compositions. Leave the others out of a loss."""
    color: Tensor | None
    """(B, N, 3) for MonoNPHM with an appearance code."""


class Nphm(nn.Module):
    """A parametric head: codes in, signed distances or meshes out. Units are NPHM's: FLAME's axes, a quarter of a metre.

    Codes of the published networks: identity 1344 and expression 200 (NPHM), geometry and appearance 2176 each and expression
    100 (MonoNPHM).
    """

    def __init__(
        self,
        identity: IdentityNetwork | MonoIdentityNetwork,
        expression: ExpressionNetwork,
        composition: Composition | str | None = None,
    ):
        """``composition`` None takes the one that the weights are for. Raises ``ValueError`` when they are for another."""
        super().__init__()
        self.identity, self.expression = identity, expression
        possible = Composition(expression.direction.value)
        if expression.n_hyper:
            possible = Composition.backward_hyper
        if composition is not None and Composition(composition) is not possible:
            way = "canonical to posed" if expression.direction is Direction.forward else "posed to canonical"
            raise ValueError(
                f"the composition {Composition(composition)} was asked of an expression network that goes from {way} points with "
                f"{expression.n_hyper} hyper coordinates: use {possible}, other weights, or fitting.nphm.distil"
            )
        if expression.n_hyper != (identity.sizes.hyper if isinstance(identity, MonoIdentityNetwork) else 0):
            raise ValueError(
                f"an expression network with {expression.n_hyper} hyper coordinates does not go with this identity network: take "
                "both from one checkpoint"
            )
        self.composition = possible

    def subject(self, identity_code: Tensor, appearance_code: Tensor | None = None) -> Subject:
        """S people with ``identity_code`` (S, C); ``appearance_code`` (S, C) for MonoNPHM's colours. Differentiable."""
        if isinstance(self.identity, MonoIdentityNetwork):
            of_mono = self.identity.condition(identity_code, appearance_code)
            return Subject(of_mono, self.expression.condition(identity_code, of_mono.anchors))
        if appearance_code is not None:
            raise ValueError("NPHM has no colours: leave out appearance_code, or take MonoNPHM's networks")
        condition = self.identity.condition(identity_code)
        return Subject(condition, self.expression.condition(identity_code, condition.anchors))

    def forward(
        self,
        points: Tensor,
        expression: Tensor,
        subject: Subject,
        *,
        background: Background = Background.member,
        starts: int = 1,
        generator: torch.Generator | None = None,
    ) -> Distance:
        """Signed distances at posed ``points`` (B, N, 3) in frames with ``expression`` (B, E), of one subject or of B.

        ``background`` is the identity network's; MonoNPHM's has no choice. ``starts`` and ``generator`` are
        ``find_canonical``'s and only matter to the composition forward. FaceTalk's text hands the expression to the identity
        network, too; NPHM's takes none, so it only acts through the canonical points.
        """
        if self.composition is Composition.forward:
            roots = find_canonical(self.expression, points, expression, subject.expression, starts=starts, generator=generator)
            sdf, color = self._canonical_sdf(roots.points, None, subject.identity, background)
            return Distance(sdf, roots.points, roots.converged, color)
        moved = self.expression(points, expression, subject.expression)
        canonical = points + moved.offset
        sdf, color = self._canonical_sdf(canonical, moved.hyper, subject.identity, background)
        return Distance(sdf, canonical, torch.ones_like(sdf, dtype=torch.bool), color)

    def meshes(
        self,
        expression: Tensor,
        subject: Subject,
        *,
        resolution: int = 256,
        lower: tuple[float, float, float] = LOWER,
        upper: tuple[float, float, float] = UPPER,
        background: Background = Background.member,
        dense: bool = False,
    ) -> list[Mesh]:
        """The posed heads of one subject with ``expression`` codes (B, E), on a grid of ``resolution``³ points.

        For the composition forward the canonical head is extracted once: all meshes have its triangles. See
        ``fitting.isosurface.extract`` for ``dense``.
        """
        return list(
            self.each_mesh(
                expression, subject, resolution=resolution, lower=lower, upper=upper, background=background, dense=dense
            )
        )

    @torch.no_grad()
    def each_mesh(
        self,
        expression: Tensor,
        subject: Subject,
        *,
        resolution: int = 256,
        lower: tuple[float, float, float] = LOWER,
        upper: tuple[float, float, float] = UPPER,
        background: Background = Background.member,
        dense: bool = False,
        weight: Callable[[Tensor], Tensor] | None = None,
    ) -> Iterator[Mesh]:
        """As ``meshes``, one after the other: a long sequence is never in memory as a whole.

        The expression's offsets are multiplied by ``weight``, which gives (..., 3) points numbers (...): posed points, or
        canonical ones for the composition forward. Hyper coordinates are left as they are.
        """
        if len(subject.expression.known) != 1:
            raise ValueError(f"meshes are of one subject, got {len(subject.expression.known)}")
        if isinstance(subject.identity, MonoCondition):
            subject = subject._replace(identity=subject.identity._replace(appearance=None))  # colours are not asked for

        def moved(points: Tensor, code: Tensor) -> tuple[Tensor, Tensor]:
            deformation = self.expression(points, code[None], subject.expression)
            offset = deformation.offset if weight is None else weight(points)[..., None] * deformation.offset
            return points + offset, deformation.hyper

        def extracted(code: Tensor | None) -> Mesh:
            def field(points: Tensor) -> Tensor:
                points, hyper = points.to(expression.dtype)[None], None
                if code is not None:
                    points, hyper = moved(points, code)
                return self._canonical_sdf(points, hyper, subject.identity, background, floor=0.0)[0][0]

            return extract(field, lower, upper, resolution, dense=dense, device=expression.device)

        if self.composition is not Composition.forward:
            for code in expression:
                yield extracted(code)
            return
        canonical = extracted(None)
        vertices = canonical.vertices.to(expression)[None]
        for code in expression:
            parts = [moved(part, code)[0] for part in vertices.split(50_000, 1)]
            yield canonical._replace(vertices=torch.cat(parts, dim=1)[0].to("cpu", torch.float32))

    def _canonical_sdf(
        self,
        points: Tensor,
        hyper: Tensor | None,
        condition: IdentityCondition | MonoCondition,
        background: Background,
        **floor: float,
    ) -> tuple[Tensor, Tensor | None]:
        # ``floor`` 0 is for meshing: far from the anchors NPHM's distances fall to zero, and would be taken for the surface.
        if isinstance(self.identity, MonoIdentityNetwork):
            assert isinstance(condition, MonoCondition)
            assert hyper is not None
            if background is not Background.member:
                raise ValueError("MonoNPHM's global member is always as trained: leave out background")
            field = self.identity(points, hyper, condition)
            return field.sdf, field.color
        return self.identity(points, condition, background=background, **floor), None
