"""The expression decoder: a transformer that predicts clean codes from noisy ones, the sound and the timestep.

FaceTalk (Aneja et al. 2024), section 4, figures 2, 10 and 11, supplement B. Sub-layers are pre-norm: x + FiLM(layer(norm(x))).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.facetalk.settings import FaceTalkSettings, Timestep

Mask = Literal["look_ahead", "alignment", "none"]


class Decoder(nn.Module):
    """Clean codes of ``codes`` numbers a frame from noisy ones, heard through ``features`` numbers a frame."""

    def __init__(self, settings: FaceTalkSettings, codes: int, features: int) -> None:
        super().__init__()
        latent = settings.latent
        self.enter = nn.Linear(codes, latent)
        self.listen = nn.Sequential(nn.Linear(features, latent), nn.SiLU(), nn.Linear(latent, latent))
        self.nothing = nn.Parameter(0.02 * torch.randn(latent))
        """What is heard in place of a condition that was taken away."""
        self.clock = nn.Sequential(nn.Linear(latent, latent), nn.SiLU(), nn.Linear(latent, latent))
        self.at_input = settings.timestep == "input"
        self.blocks = nn.ModuleList(Block(settings) for _ in range(settings.blocks))
        self.norm = nn.LayerNorm(latent)
        self.leave = nn.Linear(latent, codes)

    def forward(self, noisy: Tensor, time: Tensor, heard: Tensor, deaf: Tensor) -> Tensor:
        """(B, T, D) clean codes, for ``noisy`` codes (B, T, D), timesteps (B,) and features ``heard`` (B, T, F); samples where
        ``deaf`` (B,) is true have no condition."""
        latent = len(self.nothing)
        frames = torch.arange(noisy.shape[1], device=noisy.device)
        moment = self.clock(sinusoid(time, latent))
        sound = torch.where(deaf[:, None, None], self.nothing, self.listen(heard))
        hidden = self.enter(noisy) + sinusoid(frames, latent)
        if self.at_input:
            hidden = hidden + moment[:, None]
        for block in self.blocks:
            hidden = block(hidden, sound, moment)
        out: Tensor = self.leave(self.norm(hidden))
        return out


class Block(nn.Module):
    """Self-attention, cross-attention to the sound and feed-forward, each followed by the timestep's modulation."""

    def __init__(self, settings: FaceTalkSettings) -> None:
        super().__init__()
        latent, heads, wide = settings.latent, settings.heads, settings.feedforward
        self.norms = nn.ModuleList(nn.LayerNorm(latent) for _ in range(3))
        self.own = Attention(latent, heads, "look_ahead" if settings.look_ahead else "none")
        self.sound = Attention(latent, heads, "alignment" if settings.alignment else "none")
        self.forwards = nn.Sequential(nn.Linear(latent, wide), nn.GELU(), nn.Linear(wide, latent))
        self.modulations = modulations(settings.timestep, latent)
        self.dropout = nn.Dropout(settings.dropout)

    def forward(self, hidden: Tensor, sound: Tensor, moment: Tensor) -> Tensor:
        """(B, T, L) from ``hidden`` and ``sound`` (B, T, L) and the timestep ``moment`` (B, L)."""
        first, second, third = self.norms
        own, cross, wide = [*self.modulations] * (3 // len(self.modulations))
        normed = first(hidden)
        hidden = hidden + self.dropout(own(self.own(normed, normed), moment))
        hidden = hidden + self.dropout(cross(self.sound(second(hidden), sound), moment))
        out: Tensor = hidden + self.dropout(wide(self.forwards(third(hidden)), moment))
        return out


class Attention(nn.Module):
    """Multi-head attention under a mask.

    ``look_ahead``: frames before and the frame itself are seen (Eq. 6). ``alignment``: frame i sees frame i of the other alone
    (Eq. 7); attention to one key returns its value, whatever the query, so only values are computed.
    """

    def __init__(self, latent: int, heads: int, mask: Mask) -> None:
        super().__init__()
        self.heads, self.mask = heads, mask
        self.value, self.out = nn.Linear(latent, latent), nn.Linear(latent, latent)
        if mask != "alignment":
            self.query, self.key = nn.Linear(latent, latent), nn.Linear(latent, latent)

    def forward(self, asking: Tensor, asked: Tensor) -> Tensor:
        """(B, T, L) for ``asking`` and ``asked`` (B, T, L)."""
        if self.mask == "alignment":
            out: Tensor = self.out(self.value(asked))
            return out
        parts = (self.query(asking), self.key(asked), self.value(asked))
        query, key, value = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        seen = functional.scaled_dot_product_attention(query, key, value, is_causal=self.mask == "look_ahead")
        out = self.out(seen.transpose(1, 2).flatten(2))
        return out


def modulations(timestep: Timestep, latent: int) -> nn.ModuleList:
    """How a block's sub-layers are told the timestep: three modules, or one for all of them.

    Figure 10; docs/facetalk.md has our reading of it.
    """
    if timestep == "scale_shift":
        return nn.ModuleList([Film(latent, nn.Identity())])
    made: dict[Timestep, Callable[[], nn.Module]] = {
        "film": lambda: Film(latent, nn.Mish()),
        "input": Untouched,
        "squeeze_excite": lambda: SqueezeExcite(latent),
        "attention": lambda: TimestepAttention(latent),
    }
    return nn.ModuleList(made[timestep]() for _ in range(3))


class Film(nn.Module):
    """gamma x + beta (Eq. 19), both an ``activation`` and a linear layer of the timestep. Begins as the identity."""

    def __init__(self, latent: int, activation: nn.Module) -> None:
        super().__init__()
        self.activation, self.linear = activation, nn.Linear(latent, 2 * latent)
        nn.init.zeros_(self.linear.weight)
        with torch.no_grad():
            self.linear.bias.copy_(torch.cat([torch.ones(latent), torch.zeros(latent)]))

    def forward(self, features: Tensor, moment: Tensor) -> Tensor:
        """(B, T, L) of ``features`` (B, T, L) and ``moment`` (B, L)."""
        gamma, beta = self.linear(self.activation(moment))[:, None].chunk(2, dim=-1)
        out: Tensor = gamma * features + beta
        return out


class SqueezeExcite(nn.Module):
    """A gate of each channel through a bottleneck (Hu et al. 2018) of the timestep, which is what is squeezed here: a mean over
    frames would show the future."""

    def __init__(self, latent: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(nn.Linear(latent, latent // 4), nn.ReLU(), nn.Linear(latent // 4, latent), nn.Sigmoid())

    def forward(self, features: Tensor, moment: Tensor) -> Tensor:
        """(B, T, L) of ``features`` (B, T, L) and ``moment`` (B, L)."""
        out: Tensor = features * self.gate(moment)[:, None]
        return out


class TimestepAttention(nn.Module):
    """Frames attend to the timestep, the one key there is, so each gets its value added."""

    def __init__(self, latent: int) -> None:
        super().__init__()
        self.attention = Attention(latent, 1, "alignment")

    def forward(self, features: Tensor, moment: Tensor) -> Tensor:
        """(B, T, L) of ``features`` (B, T, L) and ``moment`` (B, L)."""
        out: Tensor = features + self.attention(features, moment[:, None])
        return out


class Untouched(nn.Module):
    """The timestep came in before."""

    def forward(self, features: Tensor, moment: Tensor) -> Tensor:
        """``features`` (B, T, L)."""
        return features


def sinusoid(places: Tensor, width: int) -> Tensor:
    """(..., width) sines and cosines of ``places`` (...,) at ``width`` / 2 frequencies, 1 to 1 / 10000 (supplement B)."""
    rates = torch.exp(torch.arange(width // 2, device=places.device) * (-math.log(10000) / (width // 2)))
    angles = places[..., None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=-1)
