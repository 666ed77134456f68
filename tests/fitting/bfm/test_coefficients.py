"""Which of the 257 numbers is what, and which of them SadTalker stores."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fitting.bfm.coefficients import Coefficients, full_coefficients, join, semantics, split, split_semantics


def counting(*lead: int) -> torch.Tensor:
    """Vectors of 257 that say at each place which place it is."""
    return torch.arange(257.0).expand(*lead, 257)


def test_the_parts_lie_where_deep3d_puts_them():
    starts = {name: int(part[0, 0]) for name, part in split(counting(1))._asdict().items()}
    assert starts == {"identity": 0, "expression": 80, "texture": 144, "angles": 224, "lighting": 227, "translation": 254}
    assert [part.shape[-1] for part in split(counting())] == [80, 64, 80, 3, 27, 3]


@settings(max_examples=20, deadline=None)
@given(lead=st.lists(st.integers(0, 4), max_size=3), seed=st.integers(0, 99))
def test_joining_undoes_splitting(lead: list[int], seed: int):
    vector = torch.randn(*lead, 257, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    assert torch.equal(join(split(vector)), vector)


def test_an_identity_serves_all_frames_of_a_clip():
    parts = split(torch.randn(7, 257))
    vector = join(parts._replace(identity=parts.identity[0], texture=parts.texture[:1]))
    assert vector.shape == (7, 257)
    assert torch.equal(vector[:, :80], parts.identity[:1].expand(7, 80))
    assert torch.equal(vector[:, 80:144], parts.expression)


def test_sadtalkers_73_are_expression_angles_translation_and_the_crops_last_three():
    trans_params = torch.tensor([[256.0, 257.0, 0.9, 130.0, 120.0]])
    vector = semantics(counting(1), trans_params)[0]
    assert vector[:64].tolist() == list(range(80, 144))
    assert vector[64:67].tolist() == [224, 225, 226]
    assert vector[67:70].tolist() == [254, 255, 256]
    assert torch.equal(vector[70:], trans_params[0, 2:])


def test_the_73_and_the_70_come_apart_again():
    parts = split(torch.randn(5, 257))
    vector = semantics(join(parts), torch.rand(5, 5))
    for width, has_crop in ((73, True), (70, False)):
        motion = split_semantics(vector[:, :width])
        assert torch.equal(motion.expression, parts.expression)
        assert torch.equal(motion.angles, parts.angles)
        assert torch.equal(motion.translation, parts.translation)
        assert (motion.crop is not None) == has_crop
    assert torch.equal(split_semantics(vector).crop, vector[:, 70:])


def test_motion_and_the_first_frames_coefficients_make_whole_vectors():
    clip = torch.randn(6, 257)
    first = clip[:1]
    whole = split(full_coefficients(semantics(clip, torch.zeros(6, 5)), first))
    parts = split(clip)
    for name in ("expression", "angles", "translation"):
        assert torch.equal(getattr(whole, name), getattr(parts, name))
    for name in ("identity", "texture", "lighting"):
        assert torch.equal(getattr(whole, name), getattr(split(first), name).expand(6, -1))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: split(torch.zeros(2, 256)), r"coefficients have shape \(..., 257\), got \(2, 256\)"),
        (lambda: split_semantics(torch.zeros(2, 71)), r"\(..., 73\), got \(2, 71\)"),
        (lambda: semantics(torch.zeros(2, 257), torch.zeros(2, 3)), r"trans_params have shape \(..., 5\), got \(2, 3\)"),
        (
            lambda: join(Coefficients(*(torch.zeros(k) for k in (80, 64, 80, 6, 27, 3)))),
            r"angles have shape \(..., 3\), got \(6,\)",
        ),
    ],
)
def test_vectors_of_another_length_are_refused_by_name(call, words):
    with pytest.raises(ValueError, match=words):
        call()
