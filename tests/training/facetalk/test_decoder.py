"""The expression decoder: what may be seen from where."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from training.facetalk.decoder import Attention, Decoder, Film, sinusoid
from training.facetalk.settings import FaceTalkSettings, Timestep

HOW_TIMESTEPS_COME_IN: list[Timestep] = ["film", "input", "scale_shift", "squeeze_excite", "attention"]


def decoder(**settings: Any) -> Decoder:
    """A small one, with random numbers in place of those that begin as zero."""
    torch.manual_seed(0)
    made = Decoder(FaceTalkSettings(**{"latent": 32, "blocks": 2, "heads": 4, "feedforward": 64} | settings), 6, 10)
    for film in made.modules():
        if isinstance(film, Film):
            nn.init.normal_(film.linear.weight, std=0.2)
    return made.eval()


def given(frames: int = 12) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Noisy codes, timesteps, sound and who does not hear."""
    draw = torch.Generator().manual_seed(1)
    codes, sound = torch.randn(2, frames, 6, generator=draw), torch.randn(2, frames, 10, generator=draw)
    return codes, torch.tensor([3, 700]), sound, torch.zeros(2, dtype=torch.bool)


@torch.no_grad()
def moved_frames(model: Decoder, part: int, frame: int) -> list[int]:
    """Frames of the outcome that change when ``frame`` of the codes (part 0) or of the sound (2) does."""
    values = given()
    changed = list(values)
    changed[part] = values[part].clone()
    changed[part][:, frame] += 1
    return sorted({int(at) for at in (model(*values) - model(*changed)).abs().amax(dim=(0, 2)).gt(1e-6).nonzero()})


def test_no_frame_sees_codes_of_later_ones() -> None:
    assert moved_frames(decoder(), 0, 7) == [7, 8, 9, 10, 11]


def test_without_the_look_ahead_mask_every_frame_sees_all_codes() -> None:
    assert moved_frames(decoder(look_ahead=False), 0, 7) == list(range(12))


def test_with_alignment_sound_comes_in_at_its_own_frame_only() -> None:
    assert moved_frames(decoder(blocks=1), 2, 7) == [7]
    assert moved_frames(decoder(), 2, 7) == [7, 8, 9, 10, 11]


def test_without_alignment_every_frame_hears_everything() -> None:
    assert moved_frames(decoder(alignment=False), 2, 7) == list(range(12))


def test_alignment_is_cross_attention_under_a_diagonal_mask() -> None:
    torch.manual_seed(0)
    short, full = Attention(32, 4, "alignment"), Attention(32, 4, "none")
    full.load_state_dict(short.state_dict(), strict=False)
    asking, asked = torch.randn(2, 9, 32), torch.randn(2, 9, 32)
    query, key, value = (
        layer(x).unflatten(-1, (4, 8)).transpose(1, 2)
        for layer, x in ((full.query, asking), (full.key, asked), (full.value, asked))
    )
    masked = functional.scaled_dot_product_attention(query, key, value, attn_mask=torch.eye(9, dtype=torch.bool))
    torch.testing.assert_close(short(asking, asked), full.out(masked.transpose(1, 2).flatten(2)))


def test_film_begins_as_the_identity() -> None:
    features, moment = torch.randn(2, 5, 32), torch.randn(2, 32)
    torch.testing.assert_close(Film(32, nn.Mish())(features, moment), features)


@pytest.mark.parametrize("timestep", HOW_TIMESTEPS_COME_IN)
def test_the_timestep_matters_however_it_comes_in(timestep: Timestep) -> None:
    model = decoder(timestep=timestep)
    codes, _, sound, deaf = given()
    one, other = (model(codes, torch.full((2,), time), sound, deaf) for time in (10, 900))
    assert one.shape == codes.shape
    assert float((one - other).detach().abs().max()) > 1e-3


def test_scale_and_shift_are_the_blocks_where_films_are_each_sub_layers() -> None:
    def films(timestep: Timestep) -> int:
        return sum(isinstance(module, Film) for module in decoder(timestep=timestep).modules())

    assert films("film") == 3 * films("scale_shift") == 6


def test_who_does_not_hear_is_not_moved_by_the_sound() -> None:
    model = decoder()
    codes, time, sound, _ = given()
    deaf = torch.tensor([True, False])
    one, other = (model(codes, time, heard, deaf) for heard in (sound, sound + 1))
    assert torch.equal(one[0], other[0])
    assert not torch.equal(one[1], other[1])


def test_sinusoids_are_the_supplements() -> None:
    found = sinusoid(torch.tensor([0, 7]), 8)
    rates = 10000 ** (-torch.arange(0, 8, 2) / 8)
    torch.testing.assert_close(found[1], torch.cat([(7 * rates).sin(), (7 * rates).cos()]))
    torch.testing.assert_close(found[0], torch.tensor([0.0] * 4 + [1.0] * 4))
