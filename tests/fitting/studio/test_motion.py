"""How a person moves besides the mouth."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fitting.studio.articulation import RATE
from fitting.studio.controls import EXPRESSIONS
from fitting.studio.motion import blink_times, brows, gaze, head_rotation, lids, translation
from fitting.studio.speaker import Speaker
from fitting.studio.speech import Accent, Phone, Speech, say

Floats = NDArray[np.float64]

ANYONE = Speaker.draw(np.random.default_rng(3))
TIMES = np.arange(0, 60, 1 / RATE)
QUIET = Speech([Phone("sil", 0, 60, False)], [], [])


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng([9, seed])


def test_a_quiet_head_moves_as_much_as_its_speaker_does_and_about_his_axes() -> None:
    for seed in range(4):
        speaker = Speaker.draw(np.random.default_rng([8, seed]))
        moved = head_rotation(speaker, QUIET, TIMES, rng(seed)) - speaker.posture
        assert abs(np.sqrt((moved.std(axis=0) ** 2).sum()) / speaker.head_motion - 1) < 0.25
        assert np.allclose(moved.std(axis=0) / speaker.head_motion, speaker.head_axes, atol=0.2)


def test_a_head_of_higher_tempo_is_quicker() -> None:
    slow, fast = (head_rotation(replace(ANYONE, head_tempo=tempo), QUIET, TIMES, rng()) for tempo in (0.5, 1.5))
    speed = [np.abs(np.diff(moved, axis=0)).mean() for moved in (slow, fast)]
    assert 1.5 < speed[1] / speed[0] < 4
    power = np.abs(np.fft.rfft(fast * np.hanning(len(fast))[:, None], axis=0)) ** 2
    hertz = np.fft.rfftfreq(len(fast), 1 / RATE)
    assert power[hertz > 8].sum() < 1e-3 * power.sum()


def test_heads_nod_on_stressed_syllables() -> None:
    accents = [Accent(float(time), 1.0) for time in np.arange(2, 58, 2)]
    speaker = replace(ANYONE, nod=0.1)
    pitch = head_rotation(speaker, QUIET._replace(accents=accents), TIMES, rng())[:, 0]
    without = head_rotation(speaker, QUIET, TIMES, rng())[:, 0]
    mean = np.mean([(pitch - without)[round((time - 1) * RATE) : round((time + 1) * RATE)] for time, _ in accents], axis=0)
    # Down is positive, and lowest on the vowel.
    assert abs(np.argmax(mean) / RATE - 1) < 0.03
    assert 0.05 < mean.max() < 0.1


def test_the_body_sways_by_millimetres_and_breathes() -> None:
    moved = translation(ANYONE, TIMES, rng())
    assert 0.0005 < moved.std(axis=0).max() < 0.006
    power = np.abs(np.fft.rfft(translation(replace(ANYONE, head_motion=0.0), TIMES, rng())[:, 1]))
    assert 0.2 < np.fft.rfftfreq(len(TIMES), 1 / RATE)[1:][np.argmax(power[1:])] < 0.34


def test_eyes_keep_to_the_camera_while_the_head_turns_and_stray_as_their_speaker_does() -> None:
    turning = 0.1 * np.sin(TIMES)[:, None] * np.array([0, 1, 0])
    steady, _ = gaze(replace(ANYONE, wandering=0.0), turning, TIMES, rng())
    assert abs(np.corrcoef(steady[:, 1], turning[:, 1])[0, 1] + 1) < 1e-6
    assert 0.5 < np.ptp(steady[:, 1]) / np.ptp(turning[:, 1]) < 1
    still = np.zeros_like(turning)
    spread = [gaze(replace(ANYONE, wandering=size), still, TIMES, rng())[0].std() for size in (0.02, 0.12)]
    assert 4 < spread[1] / spread[0] < 7


def test_eyes_rest_and_jump() -> None:
    looking, large = gaze(replace(ANYONE, wandering=0.12), np.zeros((len(TIMES), 3)), TIMES, rng())
    speed = np.linalg.norm(np.diff(looking, axis=0), axis=1) * RATE
    assert (speed < 1e-9).mean() > 0.9
    # Large saccades reach some hundred degrees a second.
    assert 2 < speed.max() < 14
    assert len(large) > 5
    assert all(speed[round(time * RATE) : round((time + 0.05) * RATE)].max() > 2 for time in large)


def test_blinks_shut_both_eyes_for_a_frame_and_are_as_frequent_as_the_speakers() -> None:
    for rate in (8, 16, 30):
        speaker = replace(ANYONE, blink_rate=rate)
        counts = []
        for seed in range(4):
            speech = say(speaker, 60.0, rng(seed))
            shut = lids(speaker, speech, np.zeros((len(TIMES), 3)), np.zeros(0), TIMES, rng(seed))
            left, right = (shut[:, EXPRESSIONS.index(name)] for name in ("blink_left", "blink_right"))
            starts = np.nonzero(np.diff((left == 1).astype(int)) == 1)[0]
            counts.append(len(starts))
            assert (left == right).all()
            # Each is shut at one moment of any 25 frames a second: for 40 ms.
            assert all(left[start + 1 : start + 1 + RATE // 25].min() == 1 for start in starts)
            assert np.abs(left[2:] - left[:-2]).max() < 0.2
        assert 0.75 < np.mean(counts) / rate < 1.25


def test_blinks_come_at_the_ends_of_phrases_and_with_large_saccades() -> None:
    speech = say(ANYONE, 60.0, rng())
    ends = np.array([end for _, end in speech.phrases])
    blinks = np.concatenate([blink_times(ANYONE, speech, np.zeros(0), 60.0, rng(seed)) for seed in range(30)])
    after = blinks[:, None] - ends
    close = ((after > -0.05) & (after < 0.1)).any(axis=1).mean()
    chance = 0.15 * len(ends) / 60
    assert close > 2 * chance
    with_saccades = np.concatenate([blink_times(ANYONE, QUIET, np.array([30.0]), 60.0, rng(seed)) for seed in range(60)])
    assert (np.abs(with_saccades - 30.02) < 1e-9).sum() > 0.5 * 60 * ANYONE.blink_rate / 60


def test_lids_hang_and_follow_the_gaze_but_a_blink_is_a_blink() -> None:
    def activations(pitch: float, droop: float) -> Floats:
        looking = np.tile([pitch, 0.0, 0.0], (len(TIMES), 1))
        return lids(replace(ANYONE, droop=droop), QUIET, looking, np.zeros(0), TIMES, rng())

    blink, wide = EXPRESSIONS.index("blink_left"), EXPRESSIONS.index("lids_wide")
    ahead, down, up = activations(0, 0.05), activations(0.1, 0.05), activations(-0.1, 0.05)
    assert ahead[:, blink].min() == 0.05
    assert down[:, blink].min() > 0.1
    assert up[:, wide].max() > 0.1 > 0 == ahead[:, wide].max()
    assert down[:, blink].max() == up[:, blink].max() == 1
    assert up[up[:, blink] == 1, wide].max() == 0


def test_brows_go_up_on_stress_of_those_who_do_so() -> None:
    speech = say(ANYONE, 60.0, rng())
    inner = EXPRESSIONS.index("brow_inner_up")
    often, never = (brows(replace(ANYONE, brow=size), speech, TIMES, rng())[:, inner] for size in (0.7, 0.0))
    assert often.max() > 0.25
    assert never.max() < 0.15
    raised = TIMES[often > 0.2]
    stresses = np.array([time for time, _ in speech.accents])
    assert np.abs(raised[:, None] - stresses).min(axis=1).max() < 0.6
    assert np.abs(np.diff(often)).max() * RATE < 10
