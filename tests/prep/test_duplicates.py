"""What counts as the same recording, given twice."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from manifests.document import file_digest
from manifests.source import SourceItem
from prep.duplicates import SAME_PICTURE, SAME_SOUND, Fingerprint, find_duplicates, fingerprint, similarity
from prep.probe import probe
from tests.portrait import make_takes

REAL = Path(__file__).parents[2].parent / "shared" / "real"
SECONDS = 2.0


@pytest.fixture(scope="module")
def takes(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Four takes; the first and the last are two sentences of one person before the same wall."""
    return make_takes(tmp_path_factory.mktemp("duplicates"), 4, seconds=SECONDS, size=(320, 240))


def print_of(path: Path) -> Fingerprint:
    made = fingerprint(str(path), probe(str(path)))
    assert made is not None
    return made


def item_of(path: Path) -> SourceItem:
    facts = probe(str(path))
    return SourceItem(
        uri=path.name,
        root="r",
        sha256=file_digest(path),
        bytes=path.stat().st_size,
        video=facts.video,
        audio=facts.audio,
    )


def duplicates_among(*paths: Path) -> dict[str, tuple[str, str]]:
    items = [item_of(path) for path in paths]
    found = find_duplicates(items, [fingerprint(str(path), probe(str(path))) for path in paths])
    return {items[number].uri: (items[kept].uri, kind) for number, (kept, kind) in found.items()}


def encoded_anew(
    source: Path,
    target: Path,
    size: tuple[int, int] = (320, 240),
    fps: int = 25,
    crf: int = 23,
    light: float = 1.0,
    sound_late_s: float = 0.0,
    sound: bool = True,
) -> Path:
    """The same recording by another encoder's hands."""
    with av.open(str(source)) as given:
        wave = np.concatenate([frame.to_ndarray() for frame in given.decode(audio=0)], axis=1).mean(axis=0)
    with av.open(str(source)) as given, av.open(str(target), "w") as made:
        frames = [(float(frame.time or 0), frame) for frame in given.decode(video=0)]
        rate = given.streams.audio[0].rate
        video = made.add_stream("libx264", rate=fps, options={"crf": str(crf), "preset": "ultrafast"})
        video.width, video.height, video.pix_fmt = *size, "yuv420p"
        audio = made.add_stream("aac", rate=rate, layout="mono") if sound else None
        for k in range(round(SECONDS * fps)):
            shown = [frame for time, frame in frames if time <= k / fps + 1e-6][-1]
            picture = shown.reformat(*size, format="rgb24").to_ndarray()
            frame = av.VideoFrame.from_ndarray((picture * light).astype(np.uint8), "rgb24")
            frame.pts, frame.time_base = k, Fraction(1, fps)
            made.mux(video.encode(frame))
        if audio is not None:
            late = np.concatenate([np.zeros(round(sound_late_s * rate)), wave])[: round(SECONDS * rate)]
            samples = av.AudioFrame.from_ndarray(late.astype(np.float32)[None], "fltp", "mono")
            samples.sample_rate = rate
            made.mux(audio.encode(samples))
            made.mux(audio.encode(None))
        made.mux(video.encode(None))
    return target


def test_the_same_bytes_are_exact_duplicates_whatever_they_are(tmp_path: Path) -> None:
    items = [SourceItem(uri=uri, root="r", sha256=digest * 64, bytes=9) for uri, digest in [("b", "1"), ("c", "2"), ("a", "1")]]
    assert find_duplicates(items, [None] * 3) == {0: (2, "exact")}


def test_files_whose_digest_is_unknown_are_not_duplicates() -> None:
    items = [SourceItem(uri=uri, root="r", sha256="", bytes=0) for uri in "ab"]
    assert find_duplicates(items, [None, None]) == {}


def test_one_picture_with_two_sound_files_is_two_takes() -> None:
    items = [SourceItem(uri=uri, root="r", sha256="1" * 64, bytes=9, sound_sha256=uri * 64) for uri in "ab"]
    assert find_duplicates(items, [None, None]) == {}


@pytest.mark.parametrize(
    "how",
    [
        {"crf": 38},
        {"size": (200, 150)},
        {"size": (180, 240)},
        {"fps": 30},
        {"fps": 50},
        {"light": 0.5},
        {"size": (160, 120), "fps": 24, "crf": 35, "light": 0.7},
    ],
    ids=str,
)
def test_another_encoding_is_recognised(takes: list[Path], tmp_path: Path, how: dict) -> None:
    found = similarity(print_of(takes[0]), print_of(encoded_anew(takes[0], tmp_path / "again.mp4", **how)))
    assert found.picture > SAME_PICTURE + 0.1
    assert found.sound > SAME_SOUND + 0.03


def test_another_sentence_before_the_same_wall_is_another_recording(takes: list[Path]) -> None:
    prints = [print_of(path) for path in takes]
    for number, one in enumerate(prints):
        for other in prints[:number]:
            assert similarity(one, other).picture < SAME_PICTURE - 0.2
            assert similarity(one, other).sound < SAME_SOUND - 0.2
    assert duplicates_among(*takes) == {}


def test_a_shift_that_encoders_make_does_not_count(takes: list[Path], tmp_path: Path) -> None:
    late = encoded_anew(takes[0], tmp_path / "late.mp4", sound_late_s=0.03)
    assert similarity(print_of(takes[0]), print_of(late)).sound > SAME_SOUND + 0.03


@pytest.mark.parametrize("late_s", [0.1, 0.2])
def test_a_shifted_sound_makes_another_recording(takes: list[Path], tmp_path: Path, late_s: float) -> None:
    late = encoded_anew(takes[0], tmp_path / "late.mp4", sound_late_s=late_s)
    found = similarity(print_of(takes[0]), print_of(late))
    assert found.picture > 0.95
    assert found.sound < SAME_SOUND - 0.2
    assert duplicates_among(takes[0], late) == {}


def test_a_muted_copy_is_another_recording(takes: list[Path], tmp_path: Path) -> None:
    mute = encoded_anew(takes[0], tmp_path / "mute.mp4", sound=False)
    assert similarity(print_of(takes[0]), print_of(mute)).sound == -1
    assert duplicates_among(takes[0], mute) == {}


def test_of_two_muted_copies_one_is_kept(takes: list[Path], tmp_path: Path) -> None:
    one = encoded_anew(takes[0], tmp_path / "one.mp4", sound=False)
    two = encoded_anew(takes[0], tmp_path / "two.mp4", sound=False, size=(200, 150))
    assert duplicates_among(one, two) == {"two.mp4": ("one.mp4", "re-encoded")}


def test_stills_say_nothing(tmp_path: Path, takes: list[Path]) -> None:
    """Where nothing moves, only coding noise is left to compare, and that is no evidence."""
    noise = np.random.default_rng(0)
    prints = [
        Fingerprint(3.0, (np.full((12, 16, 16), 90.0) + noise.normal(0, 0.05, (12, 16, 16))).astype(np.float16), None)
        for _ in range(2)
    ]
    assert similarity(prints[0], prints[0]).picture < 0.1
    items = [SourceItem(uri=uri, root="r", sha256=uri * 64, bytes=9) for uri in "ab"]
    assert find_duplicates(items, prints) == {}


def test_the_largest_picture_is_kept_then_the_largest_file_then_the_first_name(takes: list[Path], tmp_path: Path) -> None:
    small = encoded_anew(takes[1], tmp_path / "a-small.mp4", size=(160, 120), crf=1)
    coarse = encoded_anew(takes[1], tmp_path / "b-coarse.mp4", crf=35)
    fine = encoded_anew(takes[1], tmp_path / "c-fine.mp4", crf=15)
    copy = tmp_path / "d-copy.mp4"
    copy.write_bytes(fine.read_bytes())
    small_copy = tmp_path / "e-small-copy.mp4"
    small_copy.write_bytes(small.read_bytes())
    assert duplicates_among(copy, small_copy, small, coarse, fine, takes[0]) == {
        "a-small.mp4": ("c-fine.mp4", "re-encoded"),
        "b-coarse.mp4": ("c-fine.mp4", "re-encoded"),
        "d-copy.mp4": ("c-fine.mp4", "exact"),
        "e-small-copy.mp4": ("c-fine.mp4", "re-encoded"),
    }


def test_only_similar_durations_are_compared(takes: list[Path]) -> None:
    one = print_of(takes[0])
    items = [SourceItem(uri=uri, root="r", sha256=uri * 64, bytes=9) for uri in "abc"]
    prints = [Fingerprint(seconds, one.thumbs, one.envelope) for seconds in (3.0, 3.1, 3.4)]
    assert find_duplicates(items, prints) == {1: (0, "re-encoded")}


def test_many_items_are_compared_in_blocks() -> None:
    rng = np.random.default_rng(1)
    prints = [
        Fingerprint(3.0 + 0.001 * k, rng.uniform(0, 255, (12, 16, 16)).astype(np.float16), rng.normal(size=60).astype(np.float32))
        for k in range(1500)
    ]
    for k in (0, 500, 511, 512, 1498):
        prints[k + 1] = prints[k]
    order = rng.permutation(1500)
    items = [SourceItem(uri=f"{k:04d}", root="r", sha256=f"{k:064d}", bytes=1) for k in order]
    found = find_duplicates(items, [prints[k] for k in order])
    # 511, 512 and 513 are one recording
    pairs = {int(items[a].uri): int(items[b].uri) for a, (b, _) in found.items()}
    assert pairs == {1: 0, 501: 500, 512: 511, 513: 511, 1499: 1498}


def test_what_has_no_picture_or_hardly_lasts_has_no_fingerprint(tmp_path: Path) -> None:
    short = make_takes(tmp_path, 1, seconds=0.5, size=(160, 120))[0]
    assert fingerprint(str(short), probe(str(short))) is None


@pytest.mark.skipif(not (REAL / "clips").is_dir(), reason="the public clips are not here")
def test_public_clips_are_all_different() -> None:
    """Among them five sentences of the GRID corpus, which only differ in what is said."""
    clips = [path for path in sorted((REAL / "clips").glob("*.m[p][4g]")) if path.stat().st_size < 700_000]
    assert sum("grid_" in path.name for path in clips) == 6
    assert duplicates_among(*clips) == {}


@pytest.mark.skipif(not (REAL / "bad" / "derived").is_dir(), reason="the public clips are not here")
def test_derived_clips_are_recognised_unless_their_sound_is_another() -> None:
    base = print_of(REAL / "clips" / "man_map_25fps.mp4")
    same = ["dup_50fps", "dup_60fps", "hevc_10bit", "audio_8k_mono", "rotated_like_phone", "interlaced_tff", "vfr_known"]
    other = ["audio_late_200ms", "audio_early_120ms", "no_audio", "rotated_flag_90", "tiny_face", "two_faces_left_speaks"]
    for name in same:
        found = similarity(base, print_of(REAL / "bad" / "derived" / f"{name}.mp4"))
        assert found.picture > 0.95, name
        assert found.sound > 0.96, name
    for name in other:
        found = similarity(base, print_of(REAL / "bad" / "derived" / f"{name}.mp4"))
        assert found.picture < SAME_PICTURE - 0.2 or found.sound < SAME_SOUND - 0.2, name


def test_a_long_recording_is_looked_at_by_seeking(tmp_path: Path) -> None:
    """Over a minute the looks lie further apart than is read through, so each is a seek; and it is still recognised."""

    def film(path: Path, crf: str) -> Path:
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", 10, options={"crf": crf, "g": "20", "preset": "ultrafast"})
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            y, x = np.mgrid[:48, :64]
            for k in range(650):
                grey = 128 + 100 * np.sin(x / 9 + k / 7) * np.cos(y / 8 - k / 31)
                picture = np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
            container.mux(stream.encode())
        return path

    one, other = film(tmp_path / "one.mp4", "18"), film(tmp_path / "other.mp4", "30")
    assert len({thumb.tobytes() for thumb in print_of(one).thumbs}) == len(print_of(one).thumbs)
    assert duplicates_among(one, other) == {"other.mp4": ("one.mp4", "re-encoded")}
