"""The answers beside a take are all there, of the documented shapes, in the same bytes each time."""

from pathlib import Path

import numpy as np
import pytest

from fitting.studio.truth import MAPS, TRUTH, Answer, save_answers

LENGTHS = {"T": 4, "C": 1, "V": 7, "P": 3, "S": 11, "H": 5, "W": 6}


def answers(table: dict[str, Answer]) -> dict[str, np.ndarray]:
    made = {}
    for name, answer in table.items():
        shape = tuple(LENGTHS[n] if isinstance(n, str) else n for n in answer.shape)
        made[name] = np.full(shape, "a") if answer.dtype == "str" else np.ones(shape, answer.dtype)
    return made


@pytest.mark.parametrize("table", [TRUTH, MAPS])
def test_what_was_saved_is_read_by_numpy_alone(table: dict[str, Answer], tmp_path: Path) -> None:
    save_answers(tmp_path / "a.npz", answers(table), table)
    with np.load(tmp_path / "a.npz", allow_pickle=False) as held:
        assert set(held) == set(table)
        for name, array in answers(table).items():
            np.testing.assert_array_equal(held[name], array)


def test_the_same_answers_are_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.npz", "b.npz"):
        save_answers(tmp_path / name, answers(TRUTH))
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_nothing_is_left_out_and_nothing_slips_in(tmp_path: Path) -> None:
    given = answers(TRUTH)
    del given["jaw"]
    with pytest.raises(ValueError, match=r"missing \['jaw'\], unknown \['hat'\]"):
        save_answers(tmp_path / "a.npz", given | {"hat": np.zeros(1)})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("jaw", np.zeros((4, 2))),
        ("jaw", np.zeros((3, 3))),
        ("jaw", np.zeros((4, 3), np.float32)),
        ("phonemes", np.zeros(3)),
        ("person", np.zeros(1, np.int64)),
    ],
)
def test_other_shapes_and_types_are_refused(name: str, array: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"{name} is .* instead of"):
        save_answers(tmp_path / "a.npz", answers(TRUTH) | {name: array})
