"""Probe tells what the container says, by times and not by counts."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from manifests.stage import Done, Rejected, Take, Unreadable
from prep.probe import Probe, probe
from tests.prep.test_video import HEIGHT, WIDTH, numbered, write_film


def take(path: Path) -> Take:
    return Take("0" * 64, str(path), str(path), 0.0)


def test_facts_of_a_plain_film(tmp_path: Path) -> None:
    facts = probe(str(write_film(tmp_path / "a.mp4", map(numbered, range(30)))))
    assert facts.audio is None
    assert facts.video is not None
    video = facts.video
    assert (video.codec, video.width, video.height, video.rotation) == ("h264", WIDTH, HEIGHT, 0)
    assert (video.fps, video.variable_rate, video.frames, video.duration_s) == (25.0, False, 30, 1.2)


def test_sizes_are_those_of_the_upright_frame(tmp_path: Path) -> None:
    video = probe(str(write_film(tmp_path / "a.mp4", map(numbered, range(3)), rotation=90))).video
    assert video is not None
    assert (video.width, video.height, video.rotation) == (HEIGHT, WIDTH, 270)


def test_a_variable_rate_is_noticed_and_the_mean_goes_by_time(tmp_path: Path) -> None:
    pts = [0, 1, 2, 4, 5, 6, 9]
    video = probe(str(write_film(tmp_path / "a.mp4", map(numbered, range(7)), pts))).video
    assert video is not None
    assert video.variable_rate
    assert video.fps == pytest.approx(6 / (9 / 25))


def test_millisecond_ticks_are_no_variable_rate(tmp_path: Path) -> None:
    pts = [round(1000 * k / 60) for k in range(60)]
    video = probe(str(write_film(tmp_path / "a.mkv", map(numbered, range(60)), pts, Fraction(1, 1000)))).video
    assert video is not None
    assert not video.variable_rate


def test_the_stage_writes_its_columns(tmp_path: Path) -> None:
    outcome = Probe().run(take(write_film(tmp_path / "a.mp4", map(numbered, range(5)))))
    assert isinstance(outcome, Done)
    assert set(outcome.columns) == set(Probe.writes)
    assert (outcome.columns["audio_rate"], outcome.columns["audio_channels"]) == (0, 0)


def test_no_picture_is_rejected_and_no_recording_unreadable(tmp_path: Path, shared: Path) -> None:
    outcome = Probe().run(take(shared / "real/bad/derived/audio_only.mp4"))
    assert isinstance(outcome, Rejected)
    assert outcome.reason == "the take has no picture"
    with pytest.raises(Unreadable, match="no index"):
        Probe().run(take(shared / "real/bad/derived/no_index.mp4"))


def test_real_recordings(shared: Path) -> None:
    bad = shared / "real/bad"
    vfr = probe(str(bad / "derived/vfr_known.mp4")).video
    assert vfr is not None
    assert (vfr.variable_rate, vfr.frames) == (True, 102)
    hidden = probe(str(bad / "natural/editlist/editlist_103_discard.mp4")).video
    assert hidden is not None
    assert (hidden.frames, hidden.duration_s) == (55, 2.2)
    narrow = probe(str(bad / "derived/audio_8k_mono.mp4")).audio
    assert narrow is not None
    assert (narrow.codec, narrow.rate, narrow.channels, narrow.offset_ms) == ("aac", 8000, 1, 0.0)
