"""Which samples and which mel frames belong to frame f."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from manifests.clock import (
    MEL_RATE,
    RULES,
    first_sample,
    frame_time_us,
    mel_window,
    sample_count,
    window_start,
    windows,
)
from prep.mel import mel_spectrogram

GOLDEN = np.load(Path(__file__).parents[1] / "prep" / "golden_audio.npz")
RATES = [(25, 1), (24, 1), (30, 1), (30000, 1001), (24000, 1001), (50, 1)]


def test_a_second_of_25_fps_is_16000_samples_and_640_each():
    assert sample_count(25, 25, 1) == 16000
    assert np.array_equal(np.diff(first_sample(np.arange(26), 25, 1)), np.full(25, 640))


@pytest.mark.parametrize(("num", "den"), RATES)
def test_every_sample_belongs_to_one_frame_and_none_drifts(num, den):
    frames = np.arange(200_000)
    starts = first_sample(frames, num, den)
    assert starts[0] == 0
    assert np.all(np.diff(starts) > 0)
    for frame in (1, 999, 107_893, 199_999):
        assert abs(starts[frame] - Fraction(frame * 16000 * den, num)) <= Fraction(1, 2)


def test_ntsc_clip_has_the_rounded_number_of_samples():
    assert sample_count(150, 30000, 1001) == round(150 * 16000 * 1001 / 30000) == 80080
    assert sample_count(1, 24, 1) == 667


def test_frame_times_are_to_the_nearest_microsecond_from_the_start():
    assert frame_time_us([0, 1, 2, 3], 24, 1).tolist() == [0, 41667, 83333, 125000]
    assert frame_time_us(30000, 30000, 1001, start_us=-7) == 1_001_000_000 - 7


def test_published_rules_at_25_fps():
    """SyncNet int(80 f/25), Wav2Lip training int(80 (f-1)/25), SadTalker int(80 (f-2)/25)."""
    frames = np.arange(10_000)
    for rule, shift in (("syncnet", 0), ("wav2lip_sample", 0), ("wav2lip_train", -1), ("sadtalker", -2)):
        expected = [int(80.0 * ((f + shift) / 25.0)) for f in frames]
        assert window_start(frames, 25, 1, shift=RULES[rule].shift).tolist() == expected


def test_starts_before_the_clip_truncate_towards_zero():
    assert window_start([0, 1, 2], 25, 1, shift=-2).tolist() == [-6, -3, 0]


def test_starts_are_exact_where_floats_are_not():
    """80 * (900 / (24000 / 1001)) is 3003 exactly, and 3002.9999999999995 in floats."""
    assert int(80.0 * (900 / (24000 / 1001))) == 3002
    assert window_start(900, 24000, 1001) == 3003


@pytest.mark.parametrize(("num", "den"), RATES)
def test_starts_follow_the_rational_rate(num, den):
    frames = np.array([0, 1, 7, 250, 100_000])
    assert window_start(frames, num, den).tolist() == [MEL_RATE * int(f) * den // num for f in frames]


def test_clamped_windows_repeat_the_ends_and_dropped_ones_are_marked():
    indices, kept = mel_window([0, 23], 25, 1, 81, "sadtalker")
    assert indices[0].tolist() == [0] * 6 + list(range(10))
    assert indices[1].tolist() == [*range(67, 81), 80, 80]
    assert kept.tolist() == [True, True]
    _, kept = mel_window([0, 1, 20, 21], 25, 1, 81, "wav2lip_train")
    assert kept.tolist() == [False, True, True, True]
    _, kept = mel_window([20, 21], 25, 1, 81, "syncnet")
    assert kept.tolist() == [True, False]
    _, kept = mel_window([20, 21], 25, 1, 81, "syncnet", edge="clamp")
    assert kept.tolist() == [True, True]


def test_other_features_use_the_same_clock():
    """Filter banks every 20 ms: frame f at 25 fps has rows 2f and 2f + 1."""
    indices, kept = windows(np.arange(3), 25, 1, 5, length=2, rate=50, edge="drop")
    assert indices.tolist() == [[0, 1], [2, 3], [4, 4]]
    assert kept.tolist() == [True, True, False]


def test_frames_may_have_any_shape():
    indices, kept = mel_window(np.arange(6).reshape(2, 3), 25, 1, 81)
    assert indices.shape == (2, 3, 16)
    assert kept.shape == (2, 3)


def test_wrong_questions_are_refused():
    with pytest.raises(ValueError, match="unknown window rule 'lips'"):
        mel_window([0], 25, 1, 81, "lips")
    with pytest.raises(ValueError, match="no feature frames"):
        mel_window([0], 25, 1, 0)
    with pytest.raises(TypeError, match="integers"):
        window_start([0.5], 25, 1)


def test_sadtalkers_windows_are_those_of_its_own_code():
    mel = mel_spectrogram(GOLDEN["sadtalker_wave"], padding="zero")
    indices, _ = mel_window(GOLDEN["sadtalker_frames"], 25, 1, mel.shape[1], "sadtalker")
    assert np.abs(mel[:, indices].transpose(1, 0, 2) - GOLDEN["sadtalker_windows"]).max() < 1e-5
