"""Splits by person."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.training import Split
from training.split import parts_of

people = st.lists(st.text("abcdefgh", min_size=1, max_size=2), min_size=1, max_size=60)


@given(people, st.integers(0, 99))
def test_everybody_has_one_part(people: list[str], seed: int) -> None:
    assert parts_of(people, Split(train=0.7, val=0.2, test=0.1, seed=seed)).keys() == set(people)


@given(st.integers(10, 300), st.integers(0, 9))
def test_shares_are_kept_to_a_person(count: int, seed: int) -> None:
    dealt = parts_of([f"{number:03d}" for number in range(count)], Split(train=0.8, val=0.1, test=0.1, seed=seed))
    found = Counter(dealt.values())
    assert abs(found["train"] - 0.8 * count) <= 1
    assert abs(found["val"] - 0.1 * count) <= 1


@pytest.mark.parametrize("count", [2, 3, 5, 8])
def test_a_part_with_a_small_share_gets_somebody(count: int) -> None:
    found = parts_of([str(number) for number in range(count)], Split(train=0.9, val=0.1))
    assert set(found.values()) == {"train", "val"}


def test_the_seed_deals_anew_and_the_same_seed_the_same() -> None:
    names = [str(number) for number in range(50)]
    dealt = [parts_of(names, Split(train=0.5, val=0.5, seed=seed)) for seed in (0, 0, 1)]
    assert dealt[0] == dealt[1] != dealt[2]


def test_the_order_of_clips_does_not_matter() -> None:
    names = [str(number) for number in range(20)]
    assert parts_of(names, Split()) == parts_of(names[::-1], Split())
