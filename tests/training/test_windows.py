"""Windows of clips, and what they show of each column."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.columns import COLUMNS
from manifests.document import ManifestError
from manifests.training import Window
from training.windows import Cutter, first_frame, frames_of, window_counts

windows = st.builds(
    Window,
    length=st.integers(1, 12),
    stride=st.integers(1, 5),
    context=st.tuples(st.integers(0, 4), st.integers(0, 4)),
    edge=st.sampled_from(["clamp", "drop"]),
)


@given(st.integers(1, 60), windows)
def test_every_window_lies_in_the_clip_and_no_other_would(n_frames: int, window: Window) -> None:
    count = int(window_counts(np.array([n_frames]), window)[0])
    before, after = window.context if window.edge == "drop" else (0, 0)
    for number in range(count):
        first = first_frame(number, window)
        assert before <= first
        assert first + window.length + after <= n_frames
    assert first_frame(count, window) + window.length + after > n_frames


@given(st.integers(12, 60), windows)
def test_context_is_clamped_to_the_clip(n_frames: int, window: Window) -> None:
    shown = frames_of(0, n_frames, window)
    assert len(shown) == window.length + sum(window.context)
    assert shown.min() == 0
    assert (np.diff(shown) <= 1).all()


def test_columns_are_cut_by_their_rate() -> None:
    columns = {name: COLUMNS[name] for name in ("nphm_expression", "mel", "wave", "nphm_identity", "nphm_error_mm")}
    cut = Cutter(columns, Window(length=6, context=(2, 1)))
    n_frames, fps = 48, (24, 1)
    values = {
        "nphm_expression": np.arange(n_frames)[:, None] * np.ones((1, 200)),
        "mel": np.arange(160)[None] * np.ones((80, 1)),
        "wave": np.arange(32_000),
        "nphm_identity": np.arange(1344),
        "nphm_error_mm": 0.3,
    }
    found = cut(values, 12, n_frames, fps)
    assert found["nphm_expression"][:, 0].tolist() == list(range(10, 19))
    assert found["mel"].shape == (80, 30)
    assert found["mel"][0, 0] == 33  # int(80 * 10 / 24)
    assert found["wave"][0] == 6666
    assert len(found["wave"]) == 6000
    assert found["nphm_identity"] is values["nphm_identity"]
    assert found["nphm_error_mm"] == 0.3


def test_sound_may_come_later_and_is_held_at_the_end() -> None:
    cut = Cutter({"wave": COLUMNS["wave"]}, Window(length=4, audio_shift_ms=100))
    wave = np.arange(16_000)
    assert cut({"wave": wave}, 0, 24, (24, 1))["wave"][0] == 1600
    late = cut({"wave": wave}, 20, 24, (24, 1))["wave"]
    assert late[-1] == late[-1600] == 15_999


def test_films_are_no_columns_of_a_window() -> None:
    with pytest.raises(ManifestError, match="holds a film"):
        Cutter({"video256": COLUMNS["video256"]}, Window(length=1))
