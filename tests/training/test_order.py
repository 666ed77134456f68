"""The order of samples."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.order import Order, key_of, permute

sizes = st.lists(st.integers(0, 9), min_size=1, max_size=40).filter(any)


@given(st.integers(1, 3000), st.integers(0, 2**63))
def test_a_permutation_goes_everywhere_once(count: int, key: int) -> None:
    assert sorted(permute(np.arange(count), count, key)) == list(range(count))


@given(st.integers(2, 10**15), st.integers(0, 2**63), st.data())
def test_places_of_huge_permutations_are_found_alone(count: int, key: int, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, count - 1))
    alone = permute(place, count, key)
    assert 0 <= alone < count
    assert permute([0, place, count - 1], count, key)[1] == alone


def test_places_outside_are_refused() -> None:
    with pytest.raises(ValueError, match="places are 0 to 4, got 2 to 5"):
        permute([2, 5], 5, 1)


def test_permutations_look_random() -> None:
    count = 4096
    found = np.stack([permute(np.arange(count), count, key_of("test", number)) for number in range(50)])
    assert abs(np.corrcoef(found[0], np.arange(count))[0, 1]) < 0.06
    # The first place comes from anywhere, evenly.
    assert 0.35 < (found[:, 0] < count / 2).mean() < 0.65
    # Neighbours are torn apart: the mean distance of two random places is a third of all.
    assert abs(np.abs(np.diff(found, axis=1)).mean() / count - 1 / 3) < 0.01


@given(sizes, st.integers(0, 2**63), st.integers(1, 12))
def test_each_epoch_shows_every_sample_once(sizes: list[int], key: int, drawer: int) -> None:
    order = Order(sizes, key, drawer)
    for epoch in range(3):
        seen = order(epoch * order.count + np.arange(order.count))
        assert sorted(seen) == list(range(order.count))


@settings(deadline=None)
@given(sizes, st.integers(0, 2**63), st.integers(0, 100))
def test_a_position_is_known_without_those_before_it(sizes: list[int], key: int, position: int) -> None:
    order = Order(sizes, key, 4)
    assert order(np.arange(position + 1))[position] == Order(sizes, key, 4)(position)


@given(sizes, st.integers(0, 2**63))
def test_blocks_of_a_drawer_are_read_together(sizes: list[int], key: int) -> None:
    drawer = 4
    order = Order(sizes, key, drawer)
    block_of = np.repeat(np.arange(len(sizes)), sizes)
    blocks = block_of[order(np.arange(order.count))]
    opened: dict[int, int] = {}
    for place, block in enumerate(blocks.tolist()):
        opened.setdefault(block, place)
    last = {block: place for place, block in enumerate(blocks.tolist())}
    for place in range(order.count):
        assert sum(opened[block] <= place <= last[block] for block in opened) <= drawer


def test_epochs_and_keys_differ() -> None:
    orders = [Order([10] * 20, key) for key in (1, 2)]
    first, second, other = orders[0](np.arange(200)), orders[0](200 + np.arange(200)), orders[1](np.arange(200))
    assert (first != second).mean() > 0.9
    assert (first != other).mean() > 0.9


def test_order_is_the_same_tomorrow() -> None:
    assert Order([3, 4, 5], key_of("digest", 7), 2)(np.arange(12)).tolist() == [9, 3, 11, 7, 10, 8, 5, 4, 6, 0, 1, 2]


def test_nothing_cannot_be_ordered() -> None:
    with pytest.raises(ValueError, match="no sample"):
        Order([0, 0], 1)
