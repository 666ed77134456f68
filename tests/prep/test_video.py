"""Pictures come by the container's times, upright, in 4:2:0, and the same whether they were kept or not."""

from __future__ import annotations

import errno
import io
import json
import pickle
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import av.container
import av.error
import fsspec
import numpy as np
import pytest

from manifests.stage import Take, Unreadable
from prep.video import BT601, BT709, Colour, Planes, Video, even_rect, open_container, to_us, video_of

WIDTH, HEIGHT, BLOCK = 160, 96, 16


def numbered(number: int) -> Planes:
    """A frame that carries ``number`` (10 bits) as dark and light blocks in its top row, and a sloping ground."""
    luma = np.tile(np.linspace(60, 180, WIDTH), (HEIGHT, 1)).astype(np.uint8)
    for bit in range(10):
        luma[:BLOCK, bit * BLOCK : (bit + 1) * BLOCK] = 210 if number >> bit & 1 else 40
    chroma = np.full((HEIGHT // 2, WIDTH // 2), 128, np.uint8)
    return luma, chroma, chroma


def number_of(planes: Planes) -> int:
    """The number that a decoded frame carries."""
    middle = planes[0][BLOCK // 2, BLOCK // 2 : 10 * BLOCK : BLOCK]
    return sum(1 << bit for bit in range(10) if middle[bit] > 125)


def write_film(
    path: Path,
    frames: Iterable[Planes],
    pts: Sequence[int] | None = None,
    time_base: Fraction = Fraction(1, 25),
    rotation: int = 0,
    pixel_format: str = "yuv420p",
    colour: Colour | None = None,
    interlaced: bool = False,
) -> Path:
    """Encode frames with libx264 at the given times (in ``time_base``)."""
    frames = list(frames)
    height, width = frames[0][0].shape
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", 25, {"crf": "12", "g": "10", "x264-params": f"threads=1:tff={int(interlaced)}"})
        stream.width, stream.height, stream.pix_fmt = width, height, pixel_format
        stream.time_base = stream.codec_context.time_base = time_base
        if colour is not None:
            context = stream.codec_context
            context.color_primaries, context.color_trc, context.colorspace = colour
        if rotation:
            stream.set_display_rotation(rotation)
        for planes, time in zip(frames, pts or range(len(frames)), strict=True):
            frame = av.VideoFrame(width, height, "yuv420p")
            for to, plane in zip(frame.planes, planes, strict=True):
                np.frombuffer(memoryview(to), np.uint8).reshape(-1, to.line_size)[: to.height, : to.width] = plane
            frame.pts, frame.time_base = time, time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_film(tmp_path_factory.mktemp("film") / "numbered.mp4", map(numbered, range(60)))


def test_frames_come_in_display_order_with_their_times(film: Path) -> None:
    video = Video(str(film))
    assert [(number_of(p.planes), p.pts_us) for p in video] == [(k, 40_000 * k) for k in range(60)]
    assert (video.width, video.height, video.rotation) == (WIDTH, HEIGHT, 0)
    assert (video.shown, video.announced, video.damaged, video.interlaced) == (60, 60, 0, False)


def test_times_are_the_containers_own_and_not_shifted_to_zero(tmp_path: Path) -> None:
    pts = [90, 94, 98, 110, 111]
    path = write_film(tmp_path / "late.mkv", map(numbered, range(5)), pts, Fraction(1, 100))
    assert [p.pts_us for p in Video(str(path))] == [10_000 * t for t in pts]


def test_29_97_frames_a_second_keep_exact_times(tmp_path: Path) -> None:
    path = write_film(tmp_path / "ntsc.mp4", map(numbered, range(31)), [1001 * k for k in range(31)], Fraction(1, 30000))
    assert [p.pts_us for p in Video(str(path))] == [round(Fraction(k * 1001 * 1_000_000, 30000)) for k in range(31)]


def test_to_us_rounds_to_nearest() -> None:
    assert [to_us(k, Fraction(1, 30000)) for k in (1001, 2002, -1001)] == [33367, 66733, -33367]


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_the_display_matrix_is_applied(tmp_path: Path, rotation: int) -> None:
    path = write_film(tmp_path / "turned.mp4", map(numbered, range(3)), rotation=rotation)
    video = Video(str(path))
    turned_back = [np.rot90(p.planes[0], video.rotation // 90) for p in video]
    assert (video.width, video.height) == ((WIDTH, HEIGHT) if rotation == 180 else (HEIGHT, WIDTH))
    assert [number_of((luma, luma, luma)) for luma in turned_back] == [0, 1, 2]
    assert all(p.planes[1].shape == (video.height // 2, video.width // 2) for p in video)


@pytest.mark.parametrize("pixel_format", ["yuv444p", "yuvj420p", "yuv420p10le"])
def test_other_pixel_formats_become_limited_range_420(tmp_path: Path, film: Path, pixel_format: str) -> None:
    path = write_film(tmp_path / "other.mp4", map(numbered, range(4)), pixel_format=pixel_format)
    for usual, other in zip(Video(str(film)), Video(str(path)), strict=False):
        assert all(a.shape == b.shape and b.dtype == np.uint8 for a, b in zip(usual.planes, other.planes, strict=True))
        assert np.abs(usual.planes[0].astype(int) - other.planes[0]).mean() < 2


def test_colour_tags_are_kept_and_guessed_by_size_where_silent(tmp_path: Path, film: Path) -> None:
    assert Video(str(film)).colour == BT601
    tagged = write_film(tmp_path / "tagged.mp4", map(numbered, range(2)), colour=BT709)
    assert Video(str(tagged)).colour == BT709


def test_interlaced_frames_are_deinterlaced_one_for_one(tmp_path: Path) -> None:
    frames = []
    for k in range(12):
        luma, u, v = (plane.copy() for plane in numbered(0))
        for field in range(2):
            luma[field::2, 10 * k + 5 * field : 10 * k + 5 * field + 10] = 235
        frames.append((luma, u, v))
    video = Video(str(write_film(tmp_path / "fields.mp4", frames, interlaced=True)))
    shown = [(p.pts_us, p.planes[0].astype(int).copy()) for p in video]
    assert video.interlaced
    assert [time for time, _ in shown] == [40_000 * k for k in range(12)]

    def comb(luma: np.ndarray) -> float:
        return float(np.abs(luma[1:-1] - (luma[:-2] + luma[2:]) / 2)[BLOCK:].mean())

    assert max(comb(luma) for _, luma in shown) < comb(frames[5][0].astype(int)) / 3


def test_regions_are_the_same_bytes_kept_or_decoded_again(film: Path) -> None:
    kept, fresh = Video(str(film)), Video(str(film))
    for picture in kept:
        if picture.pts_us % 3:
            kept.keep(picture, (0, 0, WIDTH, 64))
    times = [40_000 * k for k in (2, 3, 3, 4, 17, 40, 41, 59)]
    rect = (20, 0, 150, 48)
    for a, b in zip(kept.regions(times, rect), fresh.regions(times, rect), strict=True):
        assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
    assert [number_of(p) for p in fresh.regions(times[::-1], (0, 0, WIDTH, HEIGHT))] == [59, 41, 40, 17, 4, 3, 3, 2]


def test_keeping_stops_when_the_budget_is_spent(film: Path) -> None:
    video = Video(str(film), budget_mb=1)
    for picture in video:
        video.keep(picture, (0, 0, WIDTH, HEIGHT))
    assert sum(p.nbytes for _, planes in video._kept.values() for p in planes) <= 1 << 20
    assert [number_of(p) for p in video.regions([0, 59 * 40_000], (0, 0, WIDTH, HEIGHT))] == [0, 59]


def test_a_time_without_a_frame_is_unreadable(film: Path) -> None:
    with pytest.raises(Unreadable, match="there is no frame at"):
        next(Video(str(film)).regions([41_000], (0, 0, 2, 2)))


def test_the_last_takes_video_is_remembered(film: Path) -> None:
    a, b = (Take(name, str(film), str(film), 2.4) for name in "ab")
    first = video_of(a)
    assert video_of(a) is first
    assert video_of(b) is not first


def test_even_rect_grows_to_even_pixels_inside_the_frame() -> None:
    assert even_rect(3.5, -2.0, 8.1, 9.0, 20, 9) == (2, 0, 10, 9)


def test_decoding_goes_on_after_damage_and_says_so(tmp_path: Path, film: Path) -> None:
    data = bytearray(film.read_bytes())
    middle = data.index(b"mdat") + 4 + len(data) // 3
    for k in range(0, 600, 7):
        data[middle + k] ^= 0xFF
    path = tmp_path / "flipped.mp4"
    path.write_bytes(data)
    video = Video(str(path))
    assert [p.pts_us for p in video][-1] == 59 * 40_000
    assert video.damaged > 0 or video.shown < video.announced


def test_odd_names_are_names_like_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_film(tmp_path / "a.mp4", map(numbered, range(3))).rename(tmp_path / "-x|concat:é.mp4")
    monkeypatch.chdir(tmp_path)
    path = "-x|concat:é.mp4"
    assert [number_of(p.planes) for p in Video(str(path))] == [0, 1, 2]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "git-LFS pointer"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "HTML page"),
        (b"\0\0\0\x18ftypisom\0\0\2\0isomiso2\0\0\x10\0mdat" + bytes(4088), "no index"),
        (b"\0\0\0\x18ftypisom\0\0\2\0isomiso2\0\0\0\1mdat\x7f" + bytes(95), "no index"),
        (b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n", "does not open"),
        (b"noise" * 1000, "does not open"),
    ],
)
def test_what_is_no_recording_is_named(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "x.mp4"
    path.write_bytes(content)
    with pytest.raises(Unreadable, match=says) as raised:
        open_container(str(path))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("url", [False, True])
def test_a_file_that_cannot_be_got_at_is_no_fault_of_its_data(tmp_path: Path, url: bool) -> None:
    """Else the outcome would be kept for ever, though the file may be there the next time."""
    path = tmp_path / "none.mp4"
    with pytest.raises(FileNotFoundError, match="No such file") as raised:
        open_container(path.as_uri() if url else str(path))
    error = pickle.loads(pickle.dumps(raised.value))
    assert (type(error), error.errno, Path(error.filename).name) == (FileNotFoundError, errno.ENOENT, "none.mp4")


class BrokenFile(io.BytesIO):
    """A file of a network that fails after ``whole`` reads."""

    def __init__(self, data: bytes, whole: int, error: Exception):
        super().__init__(data)
        self.left, self.error = whole, error

    def read(self, size: int | None = -1, /) -> bytes:
        self.left -= 1
        if self.left < 0:
            raise self.error
        return super().read(2048)


@pytest.mark.parametrize("whole", [0, 1, 3])
@pytest.mark.parametrize("error", [ConnectionResetError(104, "reset"), PermissionError(13, "denied"), OSError(5, "no answer")])
def test_a_failing_network_is_no_fault_of_the_data(
    film: Path, monkeypatch: pytest.MonkeyPatch, whole: int, error: OSError
) -> None:
    broken = BrokenFile(film.read_bytes(), whole, error)
    monkeypatch.setattr(fsspec, "open", lambda *_: SimpleNamespace(open=lambda: broken))
    with pytest.raises(OSError, match=error.strerror) as raised:
        Video("s3://bucket/film.mp4")
    assert raised.value.errno == error.errno


def test_an_unknown_protocol_is_no_fault_of_the_data() -> None:
    with pytest.raises(OSError, match="nonsense"):
        open_container("nonsense://bucket/film.mp4")


def test_what_ffmpeg_says_of_a_disk_is_passed_on(film: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise av.error.PermissionError(errno.EACCES, "Permission denied", "file:/film.mp4")

    monkeypatch.setattr(av, "open", refuse)
    with pytest.raises(PermissionError) as raised:
        open_container(str(film))
    assert type(raised.value) is PermissionError
    assert (raised.value.errno, raised.value.filename) == (errno.EACCES, str(film))


def test_data_that_ffmpeg_calls_an_io_error_is_unreadable(film: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def give_up(*_: object, **__: object) -> None:
        raise av.error.OSError(errno.EIO, "Input/output error", "file:/film.mp4")

    monkeypatch.setattr(av, "open", give_up)
    with pytest.raises(Unreadable, match="does not open"):
        open_container(str(film))


def test_an_empty_file_at_a_url_is_unreadable(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(Unreadable, match="empty"):
        open_container((tmp_path / "empty.mp4").as_uri())


@pytest.mark.parametrize("start", [0, 5])
def test_a_resolution_that_changes_midway_changes_nothing_after_a_seek(tmp_path: Path, start: int) -> None:
    """All frames have the size of the first, wherever decoding starts; so a build that goes on makes the same crops."""
    path = write_changing(tmp_path / "changing.mkv")
    rect = (0, 0, WIDTH, HEIGHT)
    whole = Video(str(path))
    shown = {p.pts_us: p.planes[0].copy() for p in whole}
    times = list(shown)[30 + start :: 9]
    assert (whole.width, whole.height) == (WIDTH, HEIGHT)
    for time in times:
        fresh = Video(str(path))
        assert np.array_equal(next(fresh.regions([time], rect))[0], shown[time])
        assert (fresh.width, fresh.height) == (WIDTH, HEIGHT)


def write_changing(path: Path) -> Path:
    """A film in VP8 of 60 frames, those from the 31st on of half the size."""
    with av.open(path, "w") as container:
        stream = container.add_stream("libvpx", 25, {"crf": "10", "b": "2M"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for part in range(2):
            coder = av.CodecContext.create("libvpx", "w")
            assert isinstance(coder, av.VideoCodecContext)
            coder.width, coder.height, coder.pix_fmt = WIDTH >> part, HEIGHT >> part, "yuv420p"
            coder.time_base, coder.framerate = Fraction(1, 25), Fraction(25)
            coder.options = {"b": "2M", "deadline": "realtime"}
            for number in range(30 * part, 30 * part + 30):
                luma = np.tile(np.linspace(40, 200, WIDTH >> part), (HEIGHT >> part, 1)).astype(np.uint8) + number
                frame = av.VideoFrame.from_ndarray(np.concatenate([luma, np.full_like(luma[::2], 128)]), "yuv420p")
                frame.pts, frame.time_base = number, Fraction(1, 25)
                mux(container, stream, coder.encode(frame))
            mux(container, stream, coder.encode(None))
    return path


def mux(container: av.container.OutputContainer, stream: av.VideoStream, packets: list[av.Packet]) -> None:
    for packet in packets:
        packet.stream = stream
        container.mux(packet)


def test_a_url_is_opened_through_fsspec(film: Path) -> None:
    assert sum(1 for _ in Video(film.as_uri())) == 60


@pytest.mark.parametrize("stream", [0, 3])
def test_times_agree_with_torchcodec(shared: Path, stream: int) -> None:
    folder = shared / "real/parity/frames"
    wanted = json.loads((folder / f"nasa_13013.mp4.stream{stream}.all_frames_info.json").read_text())
    times = [p.pts_us for p in Video(str(folder / "nasa_13013.mp4"), stream)]
    assert times == [round(float(frame["pts_time"]) * 1e6) for frame in wanted]


def test_frames_hidden_by_an_edit_list_are_not_shown(shared: Path) -> None:
    video = Video(str(shared / "real/bad/natural/editlist/editlist_103_discard.mp4"))
    assert (sum(1 for _ in video), video.announced) == (55, 55)


def test_a_phones_picture_is_turned_upright(shared: Path) -> None:
    turned = Video(str(shared / "real/bad/derived/rotated_like_phone.mp4"))
    upright = Video(str(shared / "real/clips/man_map_25fps.mp4"))
    for a, b in zip(turned, upright, strict=True):
        assert np.abs(a.planes[0].astype(int) - b.planes[0]).mean() < 2


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_rotations_agree_with_the_unrotated_recording(shared: Path, degrees: int) -> None:
    video = Video(str(shared / f"real/bad/natural/rotation/video_{degrees}.mov"))
    assert video.rotation == degrees


def test_every_bad_file_gives_frames_or_a_reason(shared: Path) -> None:
    outcomes = {}
    for path in sorted((shared / "real/bad").rglob("*.*")):
        if path.suffix in {".mp4", ".mov", ".avi", ".webm", ".glb", ".jpg", ".png"}:
            try:
                outcomes[path.name] = next(iter(Video(str(path)))).pts_us
            except Unreadable as refusal:
                outcomes[path.name] = str(refusal)
    assert not any("\n" in str(outcome) for outcome in outcomes.values())
    assert "empty" in outcomes["zero_byte.webm"]
    assert "git-LFS" in outcomes["lfs_pointer.avi"]
    assert "no index" in outcomes["no_index.mp4"]
    assert "only sound" in outcomes["audio_only.mp4"]
    assert outcomes["-video-with-dash-.mp4"] == 0


@pytest.mark.parametrize("name", ["bitflips.mp4", "interlaced_tff.mp4"])
def test_regions_are_the_same_after_a_seek_even_in_trouble(shared: Path, name: str) -> None:
    path = str(shared / "real/bad/derived" / name)
    video = Video(path)
    rect = (100, 100, 164, 164)
    shown = {p.pts_us: p.planes[0][100:164, 100:164].copy() for p in video}
    assert (video.damaged > 0) == (name == "bitflips.mp4")
    for time in list(shown)[70::13]:
        assert np.array_equal(next(Video(path).regions([time], rect))[0], shown[time])
