"""Which window goes with which."""

from collections.abc import Sequence
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.partners import Kind, Partners

KINDS: tuple[Kind, ...] = get_args(Kind)
PEOPLE = ("ann", "bob", "ann", "cy", "bob", "ann")
COUNTS = np.array([3, 1, 2, 4, 5, 1])
CLIPS = np.repeat(np.arange(6), COUNTS)
NUMBERS = np.concatenate([np.arange(count) for count in COUNTS])


def partners(kind: Kind, runs: int = 200) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Every window many times, with partners: clips and numbers of both."""
    clips, numbers = np.tile(CLIPS, runs), np.tile(NUMBERS, runs)
    return clips, numbers, *Partners(COUNTS, PEOPLE)(kind, clips, numbers, np.arange(len(clips)), 7)


def pairs(people: Sequence[str]) -> np.ndarray:
    return np.array(people, dtype=np.str_)


@pytest.mark.parametrize("kind", KINDS)
def test_partners_are_windows_of_the_dataset(kind: Kind) -> None:
    _, _, clips, numbers = partners(kind)
    assert (numbers >= 0).all()
    assert (numbers < COUNTS[clips]).all()


def test_another_window_of_the_same_clip() -> None:
    clips, numbers, other_clips, others = partners("same_clip")
    assert (clips == other_clips).all()
    assert ((numbers == others) == (COUNTS[clips] == 1)).all()


def test_another_clip_of_the_same_person_where_there_is_one() -> None:
    clips, numbers, other_clips, others = partners("same_person")
    people = pairs(PEOPLE)
    assert (people[clips] == people[other_clips]).all()
    alone = people[clips] == "cy"
    assert ((clips == other_clips) == alone).all()
    assert (numbers[alone] != others[alone]).all()


def test_somebody_else() -> None:
    clips, _, other_clips, _ = partners("other_person")
    people = pairs(PEOPLE)
    assert (people[clips] != people[other_clips]).all()


@pytest.mark.parametrize(("kind", "choices"), [("same_clip", 3), ("same_person", 3), ("other_person", 10)])
def test_all_that_may_be_partners_come_equally_often(kind: Kind, choices: int) -> None:
    runs = 6000
    clips, numbers = np.full(runs, 3 if kind == "same_clip" else 0), np.zeros(runs, np.int64)
    found = Partners(COUNTS, PEOPLE)(kind, clips, numbers, np.arange(runs), 3)
    _, often = np.unique(np.stack(found), axis=1, return_counts=True)
    assert len(often) == choices
    assert np.abs(often / runs * choices - 1).max() < 0.2


@given(st.integers(0, 10**12), st.sampled_from(KINDS))
def test_a_partner_depends_on_its_position_alone(position: int, kind: Kind) -> None:
    choose = Partners(COUNTS, PEOPLE)
    clips, numbers, positions = np.array([3, 0, 2]), np.array([0, 1, 1]), np.array([5, position, 10**6])
    together = choose(kind, clips, numbers, positions, 11)
    alone = choose(kind, clips[1:2], numbers[1:2], positions[1:2], 11)
    assert [int(part[1]) for part in together] == [int(part[0]) for part in alone]


def test_positions_and_keys_change_partners() -> None:
    choose = Partners([50] * 4, ["a", "b", "c", "d"])
    clips, numbers = np.zeros(100, np.int64), np.zeros(100, np.int64)
    found = [choose("other_person", clips, numbers, np.arange(100) + at, key) for at, key in ((0, 1), (100, 1), (0, 2))]
    assert (found[0][1] != found[1][1]).mean() > 0.9
    assert (found[0][1] != found[2][1]).mean() > 0.9


def test_who_stands_in_for_a_damaged_partner() -> None:
    choose = Partners(COUNTS, PEOPLE)
    assert choose.others("same_clip", 3, 3).tolist() == [3]
    assert choose.others("same_person", 0, 2).tolist() == [5, 0]
    assert choose.others("same_person", 0, 5).tolist() == [2, 0]
    assert choose.others("other_person", 0, 4).tolist() == [3, 1]
