"""Windows cover a sequence, and overlap as they are told."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fitting.nphm_fit import Window, windows


def test_the_papers_windows() -> None:
    assert windows(26) == [Window(0, 10, 0), Window(8, 18, 2), Window(16, 26, 2)]


@given(st.integers(1, 200), st.integers(1, 20), st.data())
def test_every_frame_is_in_a_window_and_only_shared_ones_in_two(n_frames: int, length: int, data: st.DataObject) -> None:
    overlap = data.draw(st.integers(0, length - 1))
    found = windows(n_frames, length, overlap)
    new = [frame for window in found for frame in range(window.first + window.shared, window.stop)]
    assert new == list(range(n_frames))
    assert all(window.stop - window.first <= length for window in found)
    assert all(after.first + after.shared == before.stop for before, after in pairwise(found))


def test_an_overlap_of_all_frames_is_refused() -> None:
    with pytest.raises(ValueError, match="windows of 10 frames cannot overlap by 10"):
        windows(20, 10, 10)
