"""Sound is where its timestamps put it, on the clock of the pictures."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from manifests.columns import COLUMNS
from manifests.stage import Done, Rejected, Take, Unreadable
from prep import sound
from prep.sound import NoSound, Sound, Track, decode_sound, limited, loudness_dbfs, to_int16

REAL = Path(__file__).parents[2].parent / "shared" / "real"
needs_real = pytest.mark.skipif(not REAL.exists(), reason="the shared recordings are not here")

BURSTS = (0.25, 0.9, 1.6)
"""Seconds at which bursts of 40 ms begin."""


def bursts(rate: int, seconds: float = 2.0, at: tuple[float, ...] = BURSTS) -> np.ndarray:
    """A 1 kHz tone of amplitude 0.5 during each burst, else silence: (n,) float32."""
    time = np.arange(round(rate * seconds)) / rate
    on = np.any([(time >= t) & (time < t + 0.04) for t in at], axis=0)
    return (0.5 * np.cos(2 * np.pi * 1000 * time) * on).astype(np.float32)


def write(
    path: Path,
    wave: np.ndarray,
    rate: int,
    codec: str = "aac",
    layout: str = "mono",
    start_s: float = 0.0,
    gap: tuple[float, float] = (9e9, 0.0),
    jitter_s: float = 0.0,
    pictures: bool = True,
) -> Path:
    """A file whose sound begins at ``start_s``; its times jump by ``gap[1]`` s from ``gap[0]`` s of sound on.

    ``wave`` is (n,) for all channels alike or (n, channels). With ``jitter_s`` every fifth frame's time is off by it.
    """
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=25) if pictures else None
        stream = container.add_stream(codec, rate=rate, layout=layout)
        if video is not None:
            video.width = video.height = 32
            for number in range(50):
                picture = av.VideoFrame.from_ndarray(np.full((48, 32), number, np.uint8), "yuv420p")
                picture.pts = number
                container.mux(video.encode(picture))
            container.mux(video.encode(None))
        sample_format = stream.codec_context.format.name
        channels = np.repeat(wave[:, None], len(stream.layout.channels), axis=1) if wave.ndim == 1 else wave
        if sample_format.startswith("s16"):
            channels = to_int16(channels)
        elif sample_format.startswith("s32"):
            channels = (channels * np.float64(2**31 - 1)).astype(np.int32)
        for number, first in enumerate(range(0, len(channels), 1024)):
            block = np.ascontiguousarray(channels[first : first + 1024].T)
            if not stream.codec_context.format.is_planar:
                block = block.T.reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block), sample_format, layout)
            frame.sample_rate = rate
            late = gap[1] if first / rate >= gap[0] else 0.0
            frame.pts = first + round((start_s + late + jitter_s * (number % 5 == 4)) * rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def onsets(wave: np.ndarray) -> list[float]:
    """Seconds at which sound sets in after at least 100 ms of quiet."""
    loud = np.flatnonzero(np.abs(wave) > 0.2)
    first = np.concatenate([[True], np.diff(loud) > 1600]) if len(loud) else []
    return [float(at) / 16000 for at in loud[first]]


def take_of(path: Path, sound_path: Path | None = None) -> Take:
    return Take(f"id of {path.name}", str(path), str(sound_path or path), 2.0)


@pytest.mark.parametrize(
    ("name", "codec", "rate", "layout"),
    [
        ("aac 48 kHz.mp4", "aac", 48000, "stereo"),
        ("aac 44.1 kHz.mkv", "aac", 44100, "mono"),
        ("six channels.mp4", "aac", 48000, "5.1"),
        ("8 kHz.mp4", "aac", 8000, "mono"),
        ("layer 2.mpg", "mp2", 48000, "stereo"),
        ("layer 3.mp4", "mp3", 44100, "stereo"),
        ("pcm.mov", "pcm_s16le", 48000, "stereo"),
        ("-x concat:a|b.mkv", "flac", 22050, "mono"),
    ],
)
def test_bursts_are_heard_when_they_were_made(tmp_path, name, codec, rate, layout):
    """Whatever the codec's delay, the number of channels, the rate, or the name."""
    path = write(tmp_path / name, bursts(rate), rate, codec, layout)
    with av.open(f"file:{path}") as container:
        video = container.streams.video[0]
        pictures_start = float(video.start_time * video.time_base)
    wave = decode_sound(str(path)).cut(round(pictures_start * 1e6), 32000)
    assert onsets(wave) == pytest.approx(BURSTS, abs=0.003)


@pytest.mark.parametrize(("name", "codec"), [("late.mp4", "aac"), ("late.mov", "pcm_s16le")])
def test_sound_that_starts_late_starts_late(tmp_path, name, codec):
    path = write(tmp_path / name, bursts(48000), 48000, codec, start_s=0.2)
    done = Sound().run(take_of(path), 0, 50, 25, 1)
    wave = done.columns["wave"]
    assert onsets(wave / 32768) == pytest.approx([t + 0.2 for t in BURSTS], abs=0.003)
    assert not wave[:3000].any()


def test_a_clip_from_the_middle_has_the_sound_of_its_frames(tmp_path):
    path = write(tmp_path / "a.mov", bursts(48000), 48000, "pcm_s16le")
    wave = Sound().run(take_of(path), 800_000, 30, 30000, 1001).columns["wave"]
    assert wave.shape == (16016,)
    assert onsets(wave / 32768) == pytest.approx([0.1, 0.8], abs=0.001)


def test_past_the_end_of_the_sound_there_is_silence(tmp_path):
    path = write(tmp_path / "a.mov", bursts(16000), 16000, "pcm_s16le")
    wave = Sound().run(take_of(path), 1_500_000, 50, 25, 1).columns["wave"]
    assert wave.shape == (32000,)
    assert onsets(wave / 32768) == pytest.approx([0.1], abs=0.001)
    assert not wave[8000:].any()


@pytest.mark.parametrize(("name", "codec"), [("gap.mkv", "pcm_s16le"), ("gap.mp4", "aac")])
def test_a_gap_in_the_timestamps_is_silence(tmp_path, name, codec):
    path = write(tmp_path / name, bursts(16000), 16000, codec, gap=(0.6, 0.3))
    track = decode_sound(str(path))
    assert onsets(track.wave()) == pytest.approx([0.25, 1.2, 1.9], abs=0.003)


def test_where_stretches_overlap_the_earlier_stays(tmp_path):
    path = write(tmp_path / "overlap.mkv", bursts(16000), 16000, "pcm_s16le", gap=(0.6, -0.05))
    track = decode_sound(str(path))
    assert onsets(track.wave()) == pytest.approx([0.25, 0.85, 1.55], abs=0.003)
    ends = [position + len(samples) for position, samples in track.stretches]
    assert [position for position, _ in track.stretches[1:]] == ends[:-1]


def test_timestamps_that_stray_and_return_move_nothing(tmp_path):
    path = write(tmp_path / "jitter.mkv", bursts(16000), 16000, "pcm_s16le", jitter_s=0.02)
    track = decode_sound(str(path))
    assert len(track.stretches) == 1
    assert np.abs(track.wave()[:32000] - bursts(16000)[:32000]).max() < 1e-4


def test_mono_at_16_khz_comes_out_bit_for_bit(tmp_path):
    wave = np.random.default_rng(0).integers(-32768, 32768, 32000).astype(np.int16)
    path = write(tmp_path / "a.wav", wave / np.float32(32768), 16000, "pcm_s16le", pictures=False)
    assert np.array_equal(to_int16(decode_sound(str(path)).wave()), wave)


def test_two_channels_are_averaged_and_none_clips(tmp_path):
    tone = 0.9 * np.sin(2 * np.pi * 500 * np.arange(16000) / 16000)
    loud = write(tmp_path / "loud.wav", np.stack([tone, tone], 1), 16000, "pcm_s16le", "stereo", pictures=False)
    assert np.abs(decode_sound(str(loud)).wave() - tone).max() < 1e-4
    left = write(tmp_path / "left.wav", np.stack([tone, 0 * tone], 1), 16000, "pcm_s16le", "stereo", pictures=False)
    assert np.abs(decode_sound(str(left)).wave() - tone / 2).max() < 1e-4


def test_channels_without_places_are_averaged(tmp_path):
    """A rig's recorder writes channels that are microphones, not loudspeakers."""
    soundfile = pytest.importorskip("soundfile")
    microphones = np.random.default_rng(0).normal(0, 0.1, (16000, 7))
    soundfile.write(tmp_path / "rig.wav", microphones, 16000, subtype="PCM_24")
    assert np.abs(decode_sound(str(tmp_path / "rig.wav")).wave() - microphones.mean(axis=1)).max() < 1e-6


def test_sound_may_lie_in_another_file(tmp_path):
    pictures = write(tmp_path / "a.mp4", bursts(16000) * 0, 16000)
    apart = write(tmp_path / "a.wav", bursts(44100), 44100, "pcm_s16le", pictures=False)
    wave = Sound().run(take_of(pictures, apart), 0, 50, 25, 1).columns["wave"]
    assert onsets(wave / 32768) == pytest.approx(BURSTS, abs=0.003)


@pytest.mark.parametrize("suffix", ["wav", "m4a", "mkv"])
def test_sound_in_another_file_starts_with_the_first_picture(tmp_path, suffix):
    """Whatever else the container of the pictures holds, and whenever that begins; and so for the sound's."""
    pictures = tmp_path / "pictures.mkv"
    with av.open(str(pictures), "w") as container:
        video = container.add_stream("mpeg4", rate=25)
        video.width = video.height = 32
        early = container.add_stream("pcm_s16le", rate=16000, layout="mono")
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.int16), "s16", "mono")
        silence.sample_rate, silence.pts = 16000, 0
        container.mux(early.encode(silence))
        for number in range(50):
            picture = av.VideoFrame.from_ndarray(np.full((48, 32), number, np.uint8), "yuv420p")
            picture.pts = 13 + number
            container.mux(video.encode(picture))
        container.mux(video.encode(None))
    codec = "pcm_s16le" if suffix == "wav" else "aac"
    late = {"start_s": 0.3, "pictures": True} if suffix == "mkv" else {"pictures": False}
    apart = write(tmp_path / f"a.{suffix}", bursts(48000), 48000, codec, **late)
    wave = Sound().run(take_of(pictures, apart), 520_000, 50, 25, 1).columns["wave"]
    assert onsets(wave / 32768) == pytest.approx(BURSTS, abs=0.003)


def test_a_take_without_sound_is_rejected(tmp_path):
    path = tmp_path / "silent.mp4"
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=25)
        video.width = video.height = 32
        container.mux(video.encode(av.VideoFrame.from_ndarray(np.zeros((48, 32), np.uint8), "yuv420p")))
        container.mux(video.encode(None))
    assert Sound().run(take_of(path), 0, 1, 25, 1) == Rejected("the take has no sound")


def test_what_cannot_be_decoded_is_unreadable(tmp_path):
    empty = tmp_path / "empty.mp4"
    empty.touch()
    with pytest.raises(Unreadable):
        decode_sound(str(empty))
    with pytest.raises(FileNotFoundError):
        decode_sound(str(tmp_path / "missing.mp4"))


def test_damage_costs_the_damaged_part_only(tmp_path):
    path = write(tmp_path / "a.mkv", bursts(48000), 48000, "mp2")
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 600] = bytes(600)
    path.write_bytes(data)
    found = onsets(decode_sound(str(path)).wave())
    assert found[0] == pytest.approx(BURSTS[0], abs=0.003)
    assert found[-1] == pytest.approx(BURSTS[-1], abs=0.003)


def test_a_take_is_decoded_once_for_all_its_clips(tmp_path, monkeypatch):
    path = write(tmp_path / "a.mov", bursts(16000), 16000, "pcm_s16le")
    decoded = []
    monkeypatch.setattr(sound, "decode_sound", lambda name: decoded.append(name) or decode_sound(name))
    for start in (0, 400_000, 800_000):
        assert isinstance(Sound().run(Take("once", str(path), str(path), 2.0), start, 10, 25, 1), Done)
    assert decoded == [str(path)]


def test_columns_fit_the_table(tmp_path):
    path = write(tmp_path / "a.mp4", bursts(16000), 16000)
    done = Sound().run(take_of(path), 0, 50, 25, 1)
    assert set(done.columns) == set(Sound.writes)
    for name, value in done.columns.items():
        COLUMNS[name].check(value)
    assert Sound.reads() == ("take", "start_us", "n_frames", "fps_num", "fps_den")


def test_loudness_is_that_of_full_scale_and_has_a_floor():
    assert loudness_dbfs(np.full(100, -32768, np.int16)) == pytest.approx(0.0)
    sine = to_int16(0.1 * np.sin(2 * np.pi * 100 * np.arange(16000) / 16000))
    assert loudness_dbfs(sine) == pytest.approx(-23.01, abs=0.01)
    assert loudness_dbfs(np.zeros(100, np.int16)) == -120.0
    assert loudness_dbfs(np.zeros(0, np.int16)) == -120.0


def test_int16_saturates_and_limiting_keeps_the_shape():
    assert to_int16(np.array([-2.0, -1.0, 0.0, 0.5, 1.0, 9.0])).tolist() == [-32768, -32768, 0, 16384, 32767, 32767]
    wave = np.array([0.5, -3.0, 1.5])
    assert np.abs(limited(wave)).max() == pytest.approx(10 ** (-1 / 20))
    assert np.allclose(limited(wave) / limited(wave)[0], wave / wave[0])
    assert limited(wave * 0.2) is not None
    assert np.array_equal(limited(wave * 0.2), wave * 0.2)


def test_a_track_is_cut_to_the_nearest_sample():
    track = Track(((160, np.ones(160, np.float32)),))
    assert track.start_us == 10_000
    assert np.flatnonzero(track.cut(5_000, 400)).tolist() == list(range(80, 240))
    assert not track.cut(-1_000_000, 400).any()


@needs_real
@pytest.mark.parametrize(
    ("name", "delay_ms", "gain_db"),
    [
        ("audio_late_200ms", 200, 0),
        ("audio_early_120ms", -120, 0),
        ("audio_8k_mono", 0, 3.0),  # its maker added the channels up
        ("audio_6ch", 0, -7.7),  # front left and right of six, by the usual coefficients
        ("audio_minus40dB", 0, -40),
        ("audio_only", 0, 0),
    ],
)
def test_known_changes_to_a_recording(name, delay_ms, gain_db):
    base = decode_sound(str(REAL / "clips" / "man_map_25fps.mp4")).cut(0, 80000)
    changed = decode_sound(str(REAL / "bad" / "derived" / f"{name}.mp4")).cut(0, 80000)
    spectrum = np.fft.rfft(changed, 1 << 18) * np.conj(np.fft.rfft(base, 1 << 18))
    lag = int(np.argmax(np.fft.irfft(spectrum)))
    lag = lag - (1 << 18) if lag > 1 << 17 else lag
    assert lag / 16 == pytest.approx(delay_ms, abs=1)
    assert 20 * np.log10(changed.std() / base.std()) == pytest.approx(gain_db, abs=0.2)


@needs_real
def test_reads_what_others_read():
    for name in sorted((REAL / "parity" / "dali_audio").glob("*.npy")):
        expected = np.load(name).ravel()
        for suffix in ("wav", "flac"):
            assert np.array_equal(to_int16(decode_sound(str(name.with_suffix(f".{suffix}"))).wave()), expected)
        soundfile = pytest.importorskip("soundfile")
        vorbis, _ = soundfile.read(name.with_suffix(".ogg"))
        ours = to_int16(decode_sound(str(name.with_suffix(".ogg"))).wave())
        assert np.abs(ours.astype(int) - to_int16(vorbis)).max() <= 1


@needs_real
def test_one_utterance_at_three_rates():
    waves = [decode_sound(str(REAL / "audio" / f"LDC93S1{kind}.wav")).cut(0, 46000) for kind in ("", "_pcms16le_2_44100")]
    assert np.corrcoef(waves)[0, 1] > 0.99
    low = decode_sound(str(REAL / "audio" / "LDC93S1_pcms16le_1_8000.wav")).cut(0, 46000)
    spectra = [np.fft.rfft(wave)[: 23000 * 3 // 8] for wave in (waves[0], low)]  # up to 3 kHz
    assert np.corrcoef(np.abs(spectra))[0, 1] > 0.99


@needs_real
def test_damaged_and_strange_recordings():
    def outcome(name: str) -> str:
        try:
            return "sound" if decode_sound(str(REAL / "bad" / name)).wave().any() else "silence"
        except (NoSound, Unreadable) as error:
            return type(error).__name__ if "\n" not in str(error) else "more than a line"

    assert {name: outcome(name) for name in EXPECTED} == EXPECTED


EXPECTED = {
    "natural/audio/audio_only.mov": "sound",
    "natural/audio/silent_track.mp4": "silence",
    "natural/audio/two_video_two_audio.mp4": "sound",
    "natural/corrupt/-video-with-dash-.mp4": "NoSound",
    "natural/corrupt/chunk_out_of_range.mp4": "Unreadable",
    "natural/corrupt/corrupted.mp4": "NoSound",
    "natural/corrupt/lfs_pointer.avi": "Unreadable",
    "natural/corrupt/mangled.glb": "Unreadable",
    "natural/corrupt/minimal.mp4": "sound",
    "natural/corrupt/video_with_failing_audio.mp4": "sound",
    "natural/corrupt/zero_byte.webm": "Unreadable",
    "natural/editlist/editlist_103_discard.mp4": "sound",
    "derived/bitflips.mp4": "sound",
    "derived/truncated_60pct.mp4": "sound",
    "derived/no_index.mp4": "Unreadable",
    "derived/no_audio.mp4": "NoSound",
}
