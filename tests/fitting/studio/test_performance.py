"""A take: the mouth that is seen belongs to the voice that is heard."""

from functools import lru_cache

import numpy as np
import pytest
from numpy.typing import NDArray

from fitting.studio.controls import EXPRESSIONS
from fitting.studio.family import HeadFamily
from fitting.studio.performance import Performance, perform
from fitting.studio.phonemes import BILABIAL
from fitting.studio.speaker import Speaker
from prep.mel import mel_spectrogram

Floats = NDArray[np.float64]

FAMILY = HeadFamily("small")
IDENTITIES = FAMILY.people(33)


@lru_cache(maxsize=64)
def speaker_of(person: int) -> Speaker:
    return Speaker.draw(np.random.default_rng([0, person, 1]))


@lru_cache(maxsize=64)
def take(person: int, number: int, seconds: float = 5.0) -> Performance:
    return perform(speaker_of(person), seconds, [person, number], sample_rate=16_000)


def opening_mm(person: int, performance: Performance, times: Floats) -> Floats:
    return 1000 * FAMILY.openings(FAMILY.vertices(IDENTITIES[person], performance.at(times))).mouth


FRAMES = np.arange(125) / 25


def heard(performance: Performance) -> Floats:
    """(125, 880): at each frame 11 spectra of 80 mels, 250 ms before it to 250 ms after it."""
    spectra = mel_spectrogram(performance.sound).T
    near = np.rint(80 * FRAMES).astype(int)[:, None] + np.arange(-20, 21, 4)
    return spectra[np.clip(near, 0, len(spectra) - 1)].reshape(len(FRAMES), -1).astype(float)


@lru_cache
def predictor() -> tuple[Floats, Floats, Floats]:
    """Ridge regression of the mouth's opening on what is heard: means, deviations, weights. Twelve people, two takes each."""
    takes = [(person, take(person, number)) for person in range(12) for number in range(2)]
    sounds = np.concatenate([heard(performance) for _, performance in takes])
    openings = np.concatenate([opening_mm(person, performance, FRAMES) for person, performance in takes])
    mean, deviation = sounds.mean(axis=0), sounds.std(axis=0) + 1e-6
    inputs = (sounds - mean) / deviation
    gram = inputs.T @ inputs + 3000 * np.eye(inputs.shape[1])
    return mean, deviation, np.linalg.solve(gram, inputs.T @ (openings - openings.mean()))


def predicted(performance: Performance) -> Floats:
    mean, deviation, weights = predictor()
    return np.asarray((heard(performance) - mean) / deviation @ weights)


def correlation(one: Floats, other: Floats) -> float:
    return float(np.corrcoef(one, other)[0, 1])


STRANGERS = range(12, 33)


def test_the_sound_tells_how_far_a_strangers_mouth_is_open() -> None:
    assert {speaker_of(person).group for person in STRANGERS} == {"man", "woman", "child"}
    found = [correlation(predicted(take(person, 5)), opening_mm(person, take(person, 5), FRAMES)) for person in STRANGERS]
    assert np.mean(found) > 0.8
    assert min(found) > 0.6


def test_it_does_so_in_new_takes_of_those_it_was_learnt_from() -> None:
    found = [correlation(predicted(take(person, 7)), opening_mm(person, take(person, 7), FRAMES)) for person in range(12)]
    assert np.mean(found) > 0.78


def test_the_sound_of_another_moment_tells_nothing() -> None:
    # All takes begin and end in silence, so what another take says is moved in time as well.
    half, found = len(FRAMES) // 2, []
    for person in STRANGERS:
        for other in STRANGERS:
            moved = np.roll(predicted(take(other, 5)), half)
            found.append(correlation(moved, opening_mm(person, take(person, 5), FRAMES)))
    assert abs(np.mean(found)) < 0.1


def test_lips_are_shut_in_the_middle_of_every_p_b_and_m() -> None:
    for person in range(16):
        performance = take(person, 1)
        middles = np.array([(phone.start + phone.end) / 2 for phone in performance.phonemes if phone.symbol in BILABIAL])
        assert len(middles) > 0
        assert opening_mm(person, performance, middles).max() < 1.0


def test_the_mouth_opens_wide_in_stressed_open_vowels() -> None:
    widest = []
    times = np.arange(0, 5, 0.01)
    for person in range(20):
        if not 0.85 < speaker_of(person).articulation < 1.15:
            continue
        opening = opening_mm(person, take(person, 1), times)
        for phone in take(person, 1).phonemes:
            if phone.symbol in ("aa", "ae", "ay", "aw") and phone.stressed:
                widest.append(opening[(times >= phone.start - 0.03) & (times <= phone.end)].max())
    assert len(widest) > 5
    assert min(widest) > 6
    assert max(widest) < 22


def test_in_a_long_pause_the_mouth_is_nearly_shut_and_still() -> None:
    seen = 0
    for person in range(20):
        performance = take(person, 1)
        for phone in performance.phonemes:
            if phone.symbol == "sil" and phone.end - phone.start > 0.55:
                opening = opening_mm(person, performance, np.arange(phone.start + 0.25, phone.end - 0.25, 0.005))
                assert opening.max() < 1.5
                assert np.ptp(opening) < 1.0
                seen += 1
    assert seen > 5


def test_the_mouth_leads_the_voice() -> None:
    steps = np.arange(-20, 21)
    total = np.zeros(len(steps))
    for person in range(12):
        performance = take(person, 1)
        opening = opening_mm(person, performance, np.arange(500) / 100)
        energy = (performance.clean.astype(float) ** 2).reshape(500, 160).mean(axis=1)
        loudness = np.sqrt(np.convolve(energy, np.hanning(5) / 2, mode="same"))
        # Energy is of the 10 ms that follow; at step k it is k steps later than the mouth.
        total += [correlation(opening[30:-30], np.roll(loudness, -step)[30:-30]) for step in steps]
    assert 0.02 <= steps[np.argmax(total)] / 100 + 0.005 <= 0.15


def test_nothing_jumps() -> None:
    times = np.arange(0, 5, 0.01)
    blinks = [EXPRESSIONS.index("blink_left"), EXPRESSIONS.index("blink_right")]
    for person in range(12):
        controls = take(person, 1).at(times)
        change = np.abs(np.diff(controls.expression, axis=0)).max(axis=0)
        assert np.delete(change, blinks).max() < 0.2
        assert change[blinks].max() < 0.25
        assert np.abs(np.diff(controls.jaw[:, 0])).max() < 0.06
        assert np.abs(np.diff(controls.head + controls.neck, axis=0)).max() < 0.015
        assert controls.expression.min() >= 0
        assert controls.expression.max() <= 1


def test_a_moment_is_the_same_at_any_frame_rate_and_in_any_order() -> None:
    performance = take(0, 1)
    fine = performance.at(np.arange(0, 5, 1 / 600))
    for rate in (25, 24000 / 1001, 73):
        times = np.arange(0, 5, 1 / rate)
        for whole, part in zip(fine, performance.at(times), strict=True):
            between = np.stack([np.interp(times, np.arange(0, 5, 1 / 600), column) for column in whole.T], axis=1)
            assert np.abs(part - between).max() < 0.01
    mixed = np.random.default_rng(0).uniform(0, 5, 50)
    for one, other in zip(performance.at(mixed), performance.at(np.sort(mixed)), strict=True):
        assert np.array_equal(one[np.argsort(mixed)], other)
    assert np.array_equal(performance.at(np.array([-1.0, 9.0])).jaw, performance.at(np.array([0.0, 5.0])).jaw)


def test_the_neck_takes_its_share_of_the_heads_rotation() -> None:
    for person in range(4):
        controls, share = take(person, 1).at(FRAMES), speaker_of(person).neck_share
        assert np.allclose(controls.neck * (1 - share), controls.head * share)
        assert not controls.jaw[:, 1:].any()


def test_takes_of_a_speaker_are_alike_in_style_and_speakers_differ() -> None:
    times = np.arange(0, 25, 0.04)

    def style(person: int, number: int) -> tuple[float, float]:
        controls = perform(speaker_of(person), 25.0, [person, number], sample_rate=16_000).at(times)
        return float(np.log((controls.head + controls.neck).std(axis=0).mean())), float(np.log(controls.jaw[:, 0].std()))

    found = np.array([[style(person, number) for number in (100, 101)] for person in range(6)])
    within = np.abs(found[:, 0] - found[:, 1]).mean(axis=0)
    between = found.mean(axis=1).std(axis=0)
    assert (between > 2 * within).all()


def test_the_same_arguments_give_the_same_bytes_and_another_seed_another_sentence() -> None:
    speaker = speaker_of(1)
    one, again, other = (perform(speaker, 2.0, seed, noise_db=20) for seed in (7, 7, 8))
    assert one.sound.tobytes() == again.sound.tobytes()
    assert one.phonemes == again.phonemes
    times = np.linspace(0, 2, 90)
    assert all(np.array_equal(a, b) for a, b in zip(one.at(times), again.at(times), strict=True))
    assert [phone.symbol for phone in one.phonemes] != [phone.symbol for phone in other.phonemes]
    assert one.sound.tobytes() == perform(speaker, 2.0, [7], noise_db=20).sound.tobytes()


def test_words_and_movement_do_not_depend_on_how_the_sound_is_recorded() -> None:
    speaker, times = speaker_of(2), np.linspace(0, 2, 60)
    plain = perform(speaker, 2.0, 3, sample_rate=16_000)
    other = perform(speaker, 2.0, 3, sample_rate=44_100, noise_db=0.0, gain=0.25)
    assert plain.phonemes == other.phonemes
    assert all(np.array_equal(a, b) for a, b in zip(plain.at(times), other.at(times), strict=True))
    assert np.abs(other.clean).max() < 0.3 * np.abs(plain.clean).max()


@pytest.mark.parametrize("noise_db", [-10.0, 5.0, 30.0])
def test_noise_is_as_loud_as_asked_and_nothing_clips(noise_db: float) -> None:
    recorded = perform(speaker_of(3), 4.0, 1, noise_db=noise_db)
    noise = recorded.sound.astype(float) - recorded.clean
    assert abs(10 * np.log10(np.mean(recorded.clean.astype(float) ** 2) / np.mean(noise**2)) - noise_db) < 1
    assert np.abs(recorded.sound).max() <= 1
    loud = perform(speaker_of(3), 4.0, 1, gain=30.0)
    assert 0.99 < np.abs(loud.sound).max() <= 1


def test_silence_is_silent_and_speech_is_not() -> None:
    for person in range(8):
        performance = take(person, 1)
        for phone in performance.phonemes:
            inner = performance.clean[round((phone.start + 0.06) * 16_000) : round((phone.end - 0.06) * 16_000)]
            if phone.symbol == "sil":
                assert np.abs(inner).max(initial=0) < 1e-4
            elif len(inner) > 160 and phone.symbol in ("aa", "ae", "iy", "ow"):
                assert np.std(inner) > 0.01


@pytest.mark.parametrize(("seconds", "rate"), [(0.01, 48_000), (0.2, 48_000), (1.0, 44_100), (3.337, 48_000), (60.0, 16_000)])
def test_a_take_has_the_length_that_was_asked_for(seconds: float, rate: int) -> None:
    performance = perform(speaker_of(4), seconds, 0, sample_rate=rate, noise_db=20)
    assert performance.sound.shape == performance.clean.shape == (round(seconds * rate),)
    assert performance.sound.dtype == performance.clean.dtype == np.float32
    assert performance.sample_rate == rate
    assert performance.phonemes[-1].end == seconds
    controls = performance.at(np.linspace(0, seconds, 7))
    assert controls.expression.shape == (7, len(EXPRESSIONS))
    assert all(np.isfinite(part).all() for part in controls)


@pytest.mark.parametrize(
    "arguments", [{"seconds": 0.0}, {"seconds": -1.0}, {"seconds": np.inf}, {"gain": 0.0}, {"sample_rate": 100}]
)
def test_what_cannot_be_performed_is_refused_in_one_line(arguments: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="give ") as refused:
        perform(speaker_of(0), **({"seconds": 1.0, "seed": 0} | arguments))  # type: ignore[arg-type]
    assert "\n" not in str(refused.value)
