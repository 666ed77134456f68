"""Settings of FaceTalk. Defaults are the paper's where it gives them; docs/facetalk.md says what was chosen elsewhere."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from manifests.document import Part

Timestep = Literal["film", "input", "scale_shift", "squeeze_excite", "attention"]
ConditionName = Literal["mel", "wav2vec", "wav2vec_large", "landmarks"]
Target = Literal["nphm", "flame"]
Sampler = Literal["ddim", "ddpm", "dpm"]


class Sampling(Part):
    """How sequences are made. ``guidance`` is w of Eq. 10: 1 is the conditional prediction alone."""

    sampler: Sampler = "dpm"
    steps: int = Field(default=20, ge=1)
    guidance: float = 1.0


class FaceTalkSettings(Part):
    """What a FaceTalk model is."""

    target: Target = "nphm"
    """``nphm``: nphm_expression, 200 numbers a frame. ``flame``: flame_expression and flame_jaw, 103 (supplement A, table 3)."""
    condition: ConditionName = "mel"
    """What the movement follows; see ``training.facetalk.conditions``."""
    window: int = Field(default=48, ge=2)
    """Frames of a training sample."""

    latent: int = Field(default=256, ge=8)
    blocks: int = Field(default=4, ge=1)
    heads: int = Field(default=8, ge=1)
    feedforward: int = Field(default=1024, ge=1)
    timestep: Timestep = "film"
    """How the diffusion timestep is brought in (figure 10, table 5)."""
    look_ahead: bool = True
    """No frame sees codes of later ones (Eq. 6)."""
    alignment: bool = True
    """A frame hears its own sound only (Eq. 7)."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Its numbers are not shared out as ``Draws`` are: above 0, ranks change the outcome."""

    diffusion: bool = True
    """False: codes are regressed in one pass from the sound alone (tables 2 and 3, w/o diffusion)."""
    steps: int = Field(default=1000, ge=2)
    null_share: float = Field(default=0.25, ge=0, lt=1)
    """Samples whose condition is taken away, so that guidance can be had."""
    augmentation: tuple[float, float] = (0.7, 1.3)
    """Bounds a, b of the factor that scales a sample's codes (Eq. 8)."""

    learning_rate: float = Field(default=1e-4, gt=0)
    sampling: Sampling = Sampling()
    """How validation makes its sequences, and what sampling does when it is not told otherwise."""
    mouth: Literal["none", "landmarks", "networks"] = "none"
    """Judge by how the mouth opens, which is read linearly from codes: the reading is learned, before step 0, from the column
    ``landmarks3d``, or from the heads that NPHM's ``networks`` make of some training codes. ``none`` judges by the direction in
    which codes differ most."""

    @model_validator(mode="after")
    def _fits(self) -> FaceTalkSettings:
        if self.latent % self.heads or self.latent % 2:
            raise ValueError(f"latent is an even multiple of the heads; {self.latent} is none of {self.heads}")
        a, b = self.augmentation
        if not 0 < a <= b:
            raise ValueError(f"augmentation is two bounds, 0 < a <= b; got {a:g} and {b:g}")
        if self.mouth == "networks" and self.target == "flame":
            raise ValueError("mouth: networks is NPHM's; with target: flame take landmarks")
        if self.sampling.steps > self.steps:
            raise ValueError(f"sampling takes at most the {self.steps} steps of training, got {self.sampling.steps}")
        return self
