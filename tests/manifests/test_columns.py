"""The table of columns: consistent, and strict about what stages hand over."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from manifests.columns import COLUMNS, FAMILIES, Column, ColumnError, family_columns

ARRAYS = [c for c in COLUMNS.values() if c.shape]


def test_every_column_says_what_it_is() -> None:
    for column in COLUMNS.values():
        assert column.about, column.name
        assert column.made_by, column.name
        assert sum(isinstance(n, str) for n in column.shape) <= 1, "one free length, so that it follows from the bytes"


def test_boxes_say_their_coordinate_frame() -> None:
    for column in COLUMNS.values():
        if "box" in column.name:
            assert column.frame, column.name
            assert column.unit == "px"


def test_every_family_begins_with_the_clip_id() -> None:
    for family in FAMILIES:
        assert family_columns(family, set(COLUMNS))[0].name == "clip_id"


@given(st.data())
def test_arrays_survive_storing(data: st.DataObject) -> None:
    column = data.draw(st.sampled_from(ARRAYS))
    length = data.draw(st.integers(1, 40))
    shape = tuple(n if isinstance(n, int) else length for n in column.shape)
    array = data.draw(
        hnp.arrays(np.dtype(column.dtype), shape, elements={"allow_nan": True} if "float" in column.dtype else None)
    )
    back = column.from_stored(column.to_stored(column.check(array)))
    assert back.dtype == array.dtype
    assert back.tobytes() == array.tobytes()


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("face_box", np.zeros((5, 3), np.float32), r"wants shape \(T, 4\), got \(5, 3\)"),
        ("wave", np.zeros(5, np.float32), "wants int16, got float32"),
        ("mel", np.zeros((80, 3), np.complex64), "wants float32, got complex64"),
        ("person", 3, "wants text, got int"),
        ("n_frames", 2**32 + 5, "wants int32, got numbers up to 4294967301"),
        ("n_frames", True, "wants int32, got bool"),
        ("video256", b"", "wants bytes"),
        ("n_frames", np.zeros(1, np.int32), r"wants shape \(\), got \(1,\)"),
    ],
)
def test_what_does_not_fit_is_refused(name: str, value: object, says: str) -> None:
    with pytest.raises(ColumnError, match=says):
        COLUMNS[name].check(value)


def test_wide_floats_are_narrowed_and_order_made_plain() -> None:
    boxes = COLUMNS["face_box"].check(np.asfortranarray(np.ones((3, 4))))
    assert boxes.dtype == np.float32
    assert boxes.flags.c_contiguous


def test_an_empty_array_is_still_an_array() -> None:
    column = Column("x", "audio", "int16", ("S",), "about", "made", encoding="zstd")
    assert column.from_stored(column.to_stored(column.check(np.zeros(0, np.int16)))).shape == (0,)
