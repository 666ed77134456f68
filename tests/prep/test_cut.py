"""Clips are cut by time: which source frame is shown when, where spans begin and end."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.columns import COLUMNS
from manifests.stage import Done, Rejected, Take
from prep.cut import Cut, clip_id, frame_ends, frames_shown, spans
from prep.video import Video

TAKE = Take("ab" * 32, "", "", 0.0)


def cut(pts_us: np.ndarray, boxes: np.ndarray | None = None, shot: np.ndarray | None = None, **settings: float) -> list[dict]:
    n = len(pts_us)
    boxes = np.tile(np.float32([10, 20, 110, 140]), (n, 1)) if boxes is None else boxes
    shot = np.zeros(n, np.int32) if shot is None else shot
    outcome = Cut(**settings).run(TAKE, pts_us, boxes, np.full(n, 0.5, np.float32), shot)
    return list(outcome.clips or []) if isinstance(outcome, Done) else []


def at_rate(n: int, fps: Fraction, start_us: int = 0) -> np.ndarray:
    return np.array([start_us + round(k * 1_000_000 / fps) for k in range(n)], np.int64)


def shown(clip: dict, pts_us: np.ndarray) -> list[int]:
    return np.searchsorted(pts_us, clip["frame_pts_us"]).tolist()


def test_25_frames_a_second_are_taken_one_for_one() -> None:
    pts = at_rate(100, Fraction(25), start_us=3_000)
    (clip,) = cut(pts)
    assert (clip["start_us"], clip["n_frames"], clip["fps_num"], clip["fps_den"]) == (3_000, 100, 25, 1)
    assert shown(clip, pts) == list(range(100))


def test_30_to_25_drops_every_sixth_as_the_fps_filter_does() -> None:
    pts = at_rate(30, Fraction(30))
    (clip,) = cut(pts)
    assert shown(clip, pts)[:11] == [0, 1, 2, 4, 5, 6, 7, 8, 10, 11, 12]
    assert clip["n_frames"] == 25


def test_ntsc_film_to_25_repeats_frames() -> None:
    pts = at_rate(240, Fraction(24000, 1001))
    (clip,) = cut(pts)
    assert clip["n_frames"] == 250
    assert sorted(set(shown(clip, pts))) == list(range(240))


def test_24_frames_a_second_are_possible_too() -> None:
    pts = at_rate(48, Fraction(24))
    (clip,) = cut(pts, fps_num=24)
    assert shown(clip, pts) == list(range(48))


def test_a_frame_holds_until_half_a_frame_before_the_next() -> None:
    assert frames_shown(np.array([0, 99_999]), 4, 25, 1).tolist() == [0, 0, 1, 1]
    assert frames_shown(np.array([0, 100_000]), 4, 25, 1).tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize(
    ("fps", "picks"),
    [
        # What ffmpeg's filter fps=25 picks of numbered frames at these rates.
        (Fraction(60), [1, 3, 5, 8, 10, 13, 15, 17, 20, 22, 25, 27, 29, 32, 34, 37, 39, 41, 44, 46, 49, 51, 53, 56, 58]),
        (Fraction(50), list(range(0, 50, 2))),
        (Fraction(30000, 1001), [0, 1, 2, 4, 5, 6, 7, 8, 10, 11, 12, 13, 14, 16, 17, 18, 19, 20, 22, 23, 24, 25, 26, 28, 29]),
        (Fraction(48), [0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 23, 25, 27, 29, 31, 33, 35, 37, 39, 41, 43, 45, 47]),
    ],
)
def test_picks_are_those_of_ffmpeg(fps: Fraction, picks: list[int]) -> None:
    # A frame more than is shown: at 50 fps frames lie just between two of the new ones, so rounding must be exact.
    assert frames_shown(at_rate(len(picks) * 3, fps), 25, 25, 1).tolist() == picks


def test_a_face_that_is_gone_ends_a_span_and_noise_is_no_clip() -> None:
    pts = at_rate(60, Fraction(25))
    boxes = np.tile(np.float32([0, 0, 100, 100]), (60, 1))
    boxes[20:30] = np.nan
    boxes[34:40] = np.nan
    first, second = cut(pts, boxes)
    assert (shown(first, pts)[-1], shown(second, pts)[0], second["n_frames"]) == (19, 40, 20)


def test_a_shot_ends_a_span() -> None:
    pts = at_rate(50, Fraction(25))
    assert [c["n_frames"] for c in cut(pts, shot=np.repeat(np.int32([0, 1]), 25))] == [25, 25]


def test_a_span_ends_where_the_box_leaves_its_first_one() -> None:
    boxes = np.stack([np.float32([k, 0, k + 100, 100]) for k in range(100)])
    # Moved by k of 100 px, boxes overlap by (100 - k) / (100 + k): that falls below 1/4 after 60.
    assert list(spans(boxes, np.zeros(100, np.int32), 0.25)) == [(0, 61), (61, 100)]


def test_long_spans_are_split_into_equal_parts() -> None:
    pts = at_rate(2500, Fraction(25))
    clips = cut(pts, max_frames=1024)
    assert [c["n_frames"] for c in clips] == [833, 834, 833] or max(c["n_frames"] for c in clips) <= 834
    assert sum(c["n_frames"] for c in clips) >= 2498
    assert [c["start_us"] for c in clips] == sorted({c["start_us"] for c in clips})


def test_a_hole_in_the_times_is_filled_with_the_frames_shown() -> None:
    pts = np.delete(at_rate(20, Fraction(25)), [8, 9, 10])
    (clip,) = cut(pts)
    assert clip["n_frames"] == 20
    assert (clip["frame_pts_us"][8:11] // 40_000).tolist() == [7, 7, 7]


def test_no_span_is_a_rejection() -> None:
    boxes = np.full((10, 4), np.nan, np.float32)
    outcome = Cut().run(TAKE, at_rate(10, Fraction(25)), boxes, np.zeros(10, np.float32), np.zeros(10, np.int32))
    assert isinstance(outcome, Rejected)
    assert (outcome.score, outcome.threshold) == (0.0, 5.0)


def test_columns_fit_the_table() -> None:
    (clip,) = cut(at_rate(25, Fraction(25)))
    assert set(clip) == set(Cut.writes)
    for name, value in clip.items():
        COLUMNS[name].check(value)
    assert clip["face_size_px"] == pytest.approx((100 * 120) ** 0.5)
    assert (clip["rival_face"], clip["motion"]) == (0.5, 0.0)


def test_motion_is_in_face_sides_a_second() -> None:
    boxes = np.stack([np.float32([2 * k, 0, 2 * k + 100, 100]) for k in range(25)])
    assert cut(at_rate(25, Fraction(25)), boxes)[0]["motion"] == pytest.approx(0.5)


def test_clip_ids_come_from_content_and_span() -> None:
    assert clip_id("a", 0, 5, 25, 1) == clip_id("a", 0, 5, 25, 1)
    assert len({clip_id("a", 0, 5, 25, 1), clip_id("b", 0, 5, 25, 1), clip_id("a", 1, 5, 25, 1), clip_id("a", 0, 5, 24, 1)}) == 4
    assert len(clip_id("a", 0, 5, 25, 1)) == 32


@given(
    steps=st.lists(st.integers(1, 200_000), min_size=1, max_size=60),
    start=st.integers(-(10**9), 10**12),
    fps=st.sampled_from([Fraction(25), Fraction(24), Fraction(30000, 1001), Fraction(24000, 1001)]),
    n_frames=st.integers(1, 80),
)
def test_no_frame_is_first_seen_more_than_half_a_frame_from_its_time(
    steps: list[int], start: int, fps: Fraction, n_frames: int
) -> None:
    pts = start + np.cumsum([0, *steps])
    picks = frames_shown(pts, n_frames, fps.numerator, fps.denominator)
    assert np.all(np.diff(picks) >= 0)
    half = Fraction(1_000_000) / fps / 2
    for pick in set(picks.tolist()) - {0}:
        first_seen = start + int(np.flatnonzero(picks == pick)[0]) * 1_000_000 / fps
        assert abs(first_seen - int(pts[pick])) <= half


@given(steps=st.lists(st.integers(1_000, 200_000), min_size=6, max_size=120), start=st.integers(0, 10**10))
def test_no_clip_shows_past_its_span(steps: list[int], start: int) -> None:
    pts = start + np.cumsum([0, *steps])
    end = int(frame_ends(pts)[-1])
    clips = cut(pts, max_frames=20)
    for clip in clips:
        assert clip["n_frames"] <= 20
        assert clip["start_us"] + clip["n_frames"] * 40_000 <= end + 400  # a hundredth of a frame is let pass
        assert np.all(np.diff(clip["frame_pts_us"]) >= 0)


@given(st.integers(1, 2000), st.sampled_from([Fraction(25), Fraction(30), Fraction(50), Fraction(60), Fraction(30000, 1001)]))
def test_the_number_of_frames_is_the_duration_times_the_rate(n: int, source: Fraction) -> None:
    whole = int(n / source * 25 + Fraction(1, 100))
    clips = cut(at_rate(n, source), max_frames=4000)
    assert [c["n_frames"] for c in clips] == ([whole] if whole >= 5 and n > 1 else [])


@pytest.mark.parametrize("name", ["dup_50fps.mp4", "dup_60fps.mp4"])
def test_repeated_frames_are_dropped_again(shared: Path, name: str) -> None:
    pts = np.array([p.pts_us for p in Video(str(shared / "real/bad/derived" / name))])
    (clip,) = cut(pts)
    assert clip["n_frames"] == 125
    source_rate = 50 if "50" in name else 60
    # The film repeats each of 125 frames; which one a picked frame repeats follows from its time.
    repeats = np.floor(np.array(shown(clip, pts)) * 25 / source_rate + 1e-9).astype(int)
    assert np.all(np.abs(repeats - np.arange(125)) <= (0 if source_rate == 50 else 1))


def test_a_known_variable_rate_maps_to_the_right_frames(shared: Path) -> None:
    derived = shared / "real/bad/derived"
    kept = json.loads((derived / "truth.json").read_text())["vfr_known.mp4"]["kept"]
    pts = np.array([p.pts_us for p in Video(str(derived / "vfr_known.mp4"))])
    (clip,) = cut(pts)
    assert clip["n_frames"] == 125
    for k, source in enumerate(np.array(kept)[shown(clip, pts)].tolist()):
        assert source == max(other for other in kept if other <= k), "what was there holds until the next"


def test_lengths_that_no_clip_can_have_are_refused() -> None:
    with pytest.raises(ValueError, match="max_frames 1024 lies below min_frames 2000"):
        Cut(min_frames=2000)
