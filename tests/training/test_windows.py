"""Windows of clips, and what they show of each column."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.columns import COLUMNS, Column
from manifests.document import ManifestError
from manifests.training import Window
from training.windows import Cutter, first_frames, window_counts

FPS = (24, 1)

windows = st.builds(
    Window,
    length=st.integers(1, 12),
    stride=st.integers(1, 5),
    context=st.tuples(st.integers(0, 4), st.integers(0, 4)),
    edge=st.sampled_from(["clamp", "drop"]),
)


def cut(columns: list[Column], window: Window, firsts: list[int], number: int, **whole: Any) -> list[Any]:
    """What the window that begins at ``firsts[number]`` shows of a clip."""
    names = [column.name for column in columns]
    return Cutter(columns, window, FPS).windows(names, np.array(firsts)).cut(whole, number)


@given(st.integers(1, 60), windows)
def test_every_window_lies_in_the_clip_and_no_other_would(n_frames: int, window: Window) -> None:
    count = int(window_counts(np.array([n_frames]), window)[0])
    before, after = window.context if window.edge == "drop" else (0, 0)
    first = first_frames(np.arange(count + 1), window)
    assert (first[:count] >= before).all()
    assert (first[:count] + window.length + after <= n_frames).all()
    assert first[count] + window.length + after > n_frames


@given(st.integers(12, 60), windows, st.data())
def test_context_is_clamped_to_the_clip(n_frames: int, window: Window, data: st.DataObject) -> None:
    first = data.draw(st.integers(0, n_frames - 1))
    column = COLUMNS["frame_number"]
    before, after = window.context
    expected = np.clip(np.arange(first - before, first + window.length + after), 0, n_frames - 1)
    (shown,) = cut([column], window, [first], 0, frame_number=np.arange(n_frames))
    np.testing.assert_array_equal(shown, expected)


def test_columns_are_cut_by_their_rate() -> None:
    columns = [COLUMNS[name] for name in ("nphm_expression", "mel", "wave")]
    whole = {
        "nphm_expression": np.arange(48)[:, None] * np.ones((1, 200)),
        "mel": np.arange(160)[None] * np.ones((80, 1)),
        "wave": np.arange(32_000),
    }
    codes, mel, wave = cut(columns, Window(length=6, context=(2, 1)), [2, 12], 1, **whole)
    assert codes[:, 0].tolist() == list(range(10, 19))
    assert mel.shape == (80, 30)
    assert mel[0, 0] == 33  # int(80 * 10 / 24)
    assert wave[0] == 6666
    assert len(wave) == 6000


def test_columns_without_a_rate_are_shown_whole() -> None:
    columns = [COLUMNS["nphm_identity"], COLUMNS["nphm_error_mm"]]
    identity = np.arange(1344)
    assert cut(columns, Window(length=6), [0, 3], 1, nphm_identity=identity, nphm_error_mm=0.5) == [identity, 0.5]


def test_sound_may_come_later_and_is_held_at_the_end() -> None:
    window, whole = Window(length=4, audio_shift_ms=100), np.arange(16_000)
    (early,), (late,) = (cut([COLUMNS["wave"]], window, [0, 20], number, wave=whole) for number in (0, 1))
    assert early[0] == 1600
    assert late[-1] == late[-1600] == 15_999


def test_windows_that_lie_before_the_clip_show_its_start() -> None:
    window = Window(length=4, audio_shift_ms=-900)
    (sound,) = cut([COLUMNS["wave"]], window, [0], 0, wave=np.arange(16_000))
    assert sound.tolist() == [0] * len(sound)


def test_a_column_that_is_not_there_is_named() -> None:
    with pytest.raises(KeyError, match="wave"):
        cut([COLUMNS["wave"]], Window(length=1), [0], 0)


def test_what_no_batch_can_hold_is_refused() -> None:
    with pytest.raises(ManifestError, match=r"column cloud_points \(P, 3\) has another length in each clip"):
        Cutter([COLUMNS["cloud_points"]], Window(length=1), FPS)
    with pytest.raises(ManifestError, match=r"has the rate '12\.5/s', which no window can be cut from"):
        Cutter([replace(COLUMNS["mel"], rate="12.5/s")], Window(length=1), FPS)
