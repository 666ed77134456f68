"""Every column: its type, shape, unit, coordinate frame, rate and maker, in one table.

The Arrow schemas, the checks on what stages hand over and the reference page ``docs/columns.md`` are all made
from ``COLUMNS``. In shapes a letter is a length that differs from clip to clip: ``T`` video frames of the clip,
``F`` frames of the whole take, ``S`` audio samples, ``M`` mel frames, ``B`` filter-bank frames.

Coordinate frames: ``source`` is pixels of the upright decoded frame (rotation applied), x right, y down, the
centre of the top-left pixel at (0.5, 0.5); ``crop`` the same within the crop; ``world`` is that of a capture's cameras.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from manifests.stage import Level

COLUMNS_VERSION = 1
"""Raised when a column changes its meaning, so that a lone shard says which table it follows."""

Encoding = Literal["scalar", "raw", "zstd", "split"]


class ColumnError(ValueError):
    """A value does not fit its column."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column. ``family`` is empty for what only passes between stages.

    ``encoding``: ``scalar`` plain Parquet value; ``raw`` bytes stored as they are (already compressed media);
    ``zstd`` the array's little-endian bytes, compressed; ``split`` as ``zstd`` with the bytes of each number
    grouped by significance first, which suits smooth floats.
    """

    name: str
    family: str
    dtype: str
    shape: tuple[str | int, ...]
    about: str
    made_by: str
    unit: str = ""
    frame: str = ""
    rate: str = ""
    level: Level = "clip"
    encoding: Encoding = "scalar"

    @property
    def is_scalar(self) -> bool:
        return self.shape == () and self.dtype != "bytes"

    @property
    def arrow_type(self) -> pa.DataType:
        if not self.is_scalar:
            return pa.large_binary()
        return pa.string() if self.dtype == "string" else pa.from_numpy_dtype(np.dtype(self.dtype))

    def check(self, value: Any) -> Any:
        """Return ``value`` as this column stores it: a Python scalar, ``bytes`` or a C-ordered array.

        Raises ``ColumnError`` when the type or a fixed length does not fit. Floats are narrowed to the
        column's width; integers must fit it.
        """
        if self.dtype == "string":
            if not isinstance(value, str):
                raise ColumnError(f"column {self.name} wants text, got {type(value).__name__}")
            return value
        if self.dtype == "bytes":
            if not isinstance(value, bytes) or not value:
                raise ColumnError(f"column {self.name} wants bytes, got {type(value).__name__} of length 0 or no length")
            return value
        array = np.asarray(value)
        wanted = np.dtype(self.dtype)
        fits = array.dtype == wanted or (array.dtype.kind != "b" and np.can_cast(array.dtype, wanted, "same_kind"))
        if not fits:
            raise ColumnError(f"column {self.name} wants {self.dtype}, got {array.dtype}")
        if wanted.kind == "i" and array.size and not np.array_equal(array.astype(wanted), array):
            raise ColumnError(f"column {self.name} wants {self.dtype}, got numbers up to {array.max()}")
        if array.ndim != len(self.shape) or any(
            isinstance(want, int) and want != got for want, got in zip(self.shape, array.shape, strict=True)
        ):
            raise ColumnError(f"column {self.name} wants shape {self.shape_text}, got {array.shape}")
        if self.is_scalar:
            return wanted.type(array).item()
        return np.ascontiguousarray(array, dtype=wanted.newbyteorder("<"))

    def to_stored(self, value: Any) -> Any:
        """What goes into Parquet or the store for a checked value: the scalar itself, or bytes."""
        if self.is_scalar or self.dtype == "bytes":
            return value
        if self.encoding == "split":
            return value.view(np.uint8).reshape(-1, value.dtype.itemsize).T.tobytes()
        return value.tobytes()

    def from_stored(self, stored: Any) -> Any:
        """Inverse of ``to_stored``: the array has this column's shape, its one free length taken from the bytes."""
        if self.is_scalar:
            return stored
        if self.dtype == "bytes":
            return bytes(stored)
        dtype = np.dtype(self.dtype).newbyteorder("<")
        flat = np.frombuffer(stored, dtype=np.uint8)
        if self.encoding == "split":
            # Put together by shifts, four times as fast as by transposing bytes.
            *low, highest = flat.reshape(dtype.itemsize, -1)
            words = highest.astype(f"<u{dtype.itemsize}")
            for plane in reversed(low):
                words <<= 8
                words |= plane
            flat = words.view(np.uint8)
        shape = tuple(n if isinstance(n, int) else -1 for n in self.shape)
        return flat.reshape(-1).view(dtype).reshape(shape)

    @property
    def shape_text(self) -> str:
        return "()" if not self.shape else "(" + ", ".join(map(str, self.shape)) + ("," if len(self.shape) == 1 else "") + ")"


def _clip(name: str, dtype: str, about: str, made_by: str, **more: Any) -> Column:
    return Column(name, "clips", dtype, (), about, made_by, **more)


def _take(name: str, dtype: str, about: str, made_by: str, **more: Any) -> Column:
    return Column(name, "clips", dtype, (), about, made_by, level="take", **more)


_SOURCE_PX: dict[str, str] = {"unit": "px", "frame": "source"}


def _array(
    name: str, family: str, dtype: str, shape: tuple[str | int, ...], about: str, made_by: str, place: Any = (), **more: Any
) -> Column:
    return Column(name, family, dtype, shape, about, made_by, **{"encoding": "split", **dict(place), **more})


def _video(name: str, about: str) -> Column:
    return Column(name, "media", "bytes", (), about, "crop", frame="crop", rate="fps", encoding="raw")


def _wave(name: str, about: str, made_by: str) -> Column:
    return Column(name, "audio", "int16", ("S",), about, made_by, unit="1/32768", rate="16000/s", encoding="zstd")


_TABLE = (
    # identity and span
    _clip("clip_id", "string", "digest of the take's content, the span and the frame rate", "cut"),
    _take("take_id", "string", "sha256 of the take's content", "source"),
    _take("source_uri", "string", "where the take was found: root of the source manifest, and path under it", "source"),
    _take("person", "string", "who speaks, as the source manifest says; empty when unknown", "source"),
    _take("stand_in", "bool", "made by headloom's own generators, not recorded", "source"),
    _clip("start_us", "int64", "time of frame 0 on the take's clock", "cut", unit="µs"),
    _clip("n_frames", "int32", "number of video frames, T", "cut", unit="frames"),
    _clip("fps_num", "int32", "frame rate, numerator", "cut", unit="frames"),
    _clip("fps_den", "int32", "frame rate, denominator", "cut", unit="s"),
    _clip("n_cameras", "int32", "cameras of a capture that have a picture of some frame of the clip", "capture"),
    _clip("camera_share", "float32", "pictures that are there, of all that cameras and frames would make", "capture"),
    # what the source was
    _take("source_width", "int32", "width of the upright frame", "probe", unit="px"),
    _take("source_height", "int32", "height of the upright frame", "probe", unit="px"),
    _take("source_fps", "float32", "mean frame rate by presentation times", "probe", unit="1/s"),
    _take("source_codec", "string", "video codec", "probe"),
    _take("rotation", "int32", "rotation of the display matrix, applied clockwise to show the frame", "probe", unit="°"),
    _take("variable_rate", "bool", "frame intervals differ by more than a tenth", "probe"),
    _take("interlaced", "bool", "the frames are marked interlaced (and were deinterlaced)", "faces"),
    _take("duration_s", "float32", "length of the take's video", "probe", unit="s"),
    _take("audio_rate", "int32", "sample rate of the take's sound; 0 when there is none", "probe", unit="Hz"),
    _take("audio_channels", "int32", "channels of the take's sound", "probe"),
    _take("audio_offset_ms", "float32", "start of sound minus start of picture", "probe", unit="ms"),
    # scores
    _take("decoded_share", "float32", "frames that decode over frames that the file announces", "faces"),
    _take("damaged_share", "float32", "decoded frames in which the decoder found errors", "faces"),
    _clip("face_size_px", "float32", "median side of the face box", "cut", unit="px", frame="source"),
    _clip("rival_face", "float32", "size of the second largest face over the followed one; 0 when alone", "cut"),
    _clip("motion", "float32", "mean speed of the face's centre", "cut", unit="face sides/s"),
    _clip("sharpness", "float32", "share of edges too sharp to look blurred (after CPBD)", "quality"),
    _clip("loudness_dbfs", "float32", "root mean square of the sound", "sound", unit="dBFS"),
    # frames of the whole take, kept only between stages
    _array("take_pts_us", "", "int64", ("F",), "presentation times of all frames", "faces", unit="µs", level="take"),
    _array(
        "take_face_box", "", "float32", ("F", 4), "followed face x0 y0 x1 y1; NaN where none", "faces", _SOURCE_PX, level="take"
    ),
    _array("take_rival_face", "", "float32", ("F",), "second largest face over the followed one", "faces", level="take"),
    _array("take_shot", "", "int32", ("F",), "number of the shot that a frame belongs to", "faces", level="take"),
    # face
    _array("face_box", "face", "float32", ("T", 4), "face box x0 y0 x1 y1", "cut", _SOURCE_PX, rate="fps"),
    # media
    _array(
        "frame_pts_us", "media", "int64", ("T",), "time of the source frame shown at each frame", "cut", unit="µs", rate="fps"
    ),
    _array("frame_number", "media", "int32", ("T",), "number of the capture's frame shown at each frame", "capture", rate="fps"),
    _video("video256", "mp4 of the first-order-model crop at 256²"),
    _array("crop256_box", "media", "float32", (4,), "what video256 shows, x0 y0 x1 y1", "crop", _SOURCE_PX),
    _video("video512", "mp4 of the face-centred crop at 512²"),
    _array("crop512_box", "media", "float32", (4,), "what video512 shows, x0 y0 x1 y1", "crop", _SOURCE_PX),
    # clouds of captures; P points of all frames, those of a frame together, in the order of the frames
    _array("cloud_points", "cloud", "float32", ("P", 3), "points of the surface", "clouds", unit="m", frame="world"),
    _array(
        "cloud_normals", "cloud", "int8", ("P", 3), "out of the surface", "clouds", unit="1/127", frame="world", encoding="zstd"
    ),
    _array("cloud_colours", "cloud", "uint8", ("P", 3), "RGB in true colours", "clouds", encoding="zstd"),
    _array("cloud_views", "cloud", "uint8", ("P",), "how many cameras agree", "clouds", encoding="zstd"),
    _array("cloud_counts", "cloud", "int32", ("T",), "points of each frame", "clouds", rate="fps"),
    _clip("cloud_size", "float32", "points of a frame, mean", "clouds"),
    _clip("cloud_share", "float32", "frames that have a cloud", "clouds"),
    # landmarks in space
    _array(
        "landmarks3d",
        "landmarks",
        "float32",
        ("T", 68, 3),
        "iBUG's; bridged where not valid",
        "landmarks",
        unit="m",
        frame="world",
        rate="fps",
    ),
    _array(
        "landmarks3d_valid", "landmarks", "uint8", ("T", 68), "1 where cameras agree", "landmarks", rate="fps", encoding="zstd"
    ),
    _array(
        "landmarks3d_residual_px",
        "landmarks",
        "float32",
        ("T", 68),
        "distance in the pictures; NaN where not valid",
        "landmarks",
        unit="px",
        rate="fps",
    ),
    _clip("landmark_share", "float32", "landmarks that are valid", "landmarks"),
    # FLAME, as the file whose digest is in the manifest has it: x_world = scale R x_flame + translation
    _array("flame_identity", "flame", "float32", (300,), "identity code", "flame", unit="standard deviations"),
    _array(
        "flame_expression", "flame", "float32", ("T", 100), "expression codes", "flame", unit="standard deviations", rate="fps"
    ),
    _array(
        "flame_jaw", "flame", "float32", ("T", 3), "axis-angle; zero for a FLAME without jaw", "flame", unit="rad", rate="fps"
    ),
    _array("flame_rotation", "flame", "float32", ("T", 3), "axis-angle, about FLAME's origin", "flame", unit="rad", rate="fps"),
    _array("flame_translation", "flame", "float32", ("T", 3), "of FLAME's origin", "flame", unit="m", frame="world", rate="fps"),
    _array("flame_residual_mm", "flame", "float32", ("T",), "distance to matched points' planes", "flame", unit="mm", rate="fps"),
    _array("flame_inliers", "flame", "float32", ("T",), "share of the face that found a match", "flame", rate="fps"),
    _array(
        "world_to_flame",
        "flame",
        "float64",
        ("T", 4, 4),
        "x_flame = M x_world, homogeneous, the head at rest",
        "flame",
        rate="fps",
    ),
    _clip("flame_scale", "float32", "size of FLAME's metres in the capture's", "flame"),
    _clip("flame_error_mm", "float32", "mean of flame_residual_mm", "flame", unit="mm"),
    _clip("flame_inlier_share", "float32", "mean of flame_inliers", "flame"),
    # NPHM, as the networks whose digests are in the manifest have it
    _array("nphm_identity", "nphm", "float32", (1344,), "identity code", "identity"),
    _array(
        "world_to_nphm",
        "nphm",
        "float64",
        ("T", 4, 4),
        "x_nphm = M x_world, homogeneous: 4 world_to_flame, corrected by NPHM itself",
        "identity",
        rate="fps",
    ),
    _clip(
        "nphm_identity_error_mm", "float32", "median distance of neutral frames' points from its surface", "identity", unit="mm"
    ),
    _clip("nphm_identity_given", "int32", "1: the code was given, 0: it was fitted to the clip", "identity"),
    _array("nphm_expression", "nphm", "float32", ("T", 200), "expression codes", "nphm", rate="fps"),
    _array(
        "nphm_residual_mm",
        "nphm",
        "float32",
        ("T",),
        "distance of counted points from the surface",
        "nphm",
        unit="mm",
        rate="fps",
    ),
    _array("nphm_inliers", "nphm", "float32", ("T",), "share of points that count", "nphm", rate="fps"),
    _array("nphm_converged", "nphm", "float32", ("T",), "share of points whose canonical place was found", "nphm", rate="fps"),
    _clip("nphm_error_mm", "float32", "mean of nphm_residual_mm", "nphm", unit="mm"),
    _clip("nphm_inlier_share", "float32", "mean of nphm_inliers", "nphm"),
    _clip("jitter_mae", "float32", "mean absolute difference of neighbouring codes (FaceTalk, table 4)", "nphm"),
    _clip("jitter_rmse", "float32", "root mean squared difference of neighbouring codes", "nphm"),
    _clip("jitter_autocorrelation", "float32", "of code tracks with themselves a frame later (FaceTalk, figure 9)", "nphm"),
    # meshes of some frames, K of them, and pictures of the fits
    _array("mesh_frames", "meshes", "int32", ("K",), "which frames of the clip have a mesh", "meshes", encoding="zstd"),
    _array(
        "mesh_vertices",
        "meshes",
        "float32",
        ("V", 3),
        "of the NPHM meshes, one mesh after the other",
        "meshes",
        unit="m",
        frame="world",
    ),
    _array("mesh_vertex_counts", "meshes", "int32", ("K",), "vertices of each mesh", "meshes", encoding="zstd"),
    _array("mesh_faces", "meshes", "int32", ("N", 3), "triangles, which count their own mesh's vertices from 0", "meshes"),
    _array("mesh_face_counts", "meshes", "int32", ("K",), "triangles of each mesh", "meshes", encoding="zstd"),
    Column("fit_cameras", "meshes", "string", (), "cameras of fit_pictures, front and side, one a line", "meshes"),
    _array(
        "fit_pictures",
        "meshes",
        "uint8",
        ("J",),
        "JPEG files one after the other; of each mesh frame: fits in each camera, mesh alone",
        "meshes",
        encoding="raw",
    ),
    _array("fit_picture_sizes", "meshes", "int32", ("R",), "bytes of each picture", "meshes", encoding="zstd"),
    # audio
    _wave("wave", "mono sound, S = round(T·16000/fps)", "sound"),
    _wave("wave_clean", "amplified and denoised sound", "denoise"),
    _wave("wave_noisy", "sound mixed with noise", "add_noise"),
    _clip("noise_snr_db", "float32", "signal-to-noise ratio of wave_noisy", "add_noise", unit="dB"),
    _array(
        "mel", "audio", "float32", (80, "M"), "mel spectrogram as Wav2Lip's, in [-4, 4]", "mel", rate="80/s", encoding="split"
    ),
    _array("fbank", "audio", "float32", ("B", 80), "log filter banks, 40 ms every 20 ms", "fbank", rate="50/s"),
    # features of speech by networks whose digests are in the manifest
    _array("wav2vec", "speech", "float32", ("T", 768), "last hidden state of a base wav2vec 2.0", "wav2vec", rate="fps"),
    _array(
        "wav2vec_large", "speech", "float32", ("T", 1024), "last hidden state of a large wav2vec 2.0", "wav2vec_large", rate="fps"
    ),
)

COLUMNS: dict[str, Column] = {column.name: column for column in _TABLE}
"""All columns by name."""

FAMILIES: tuple[str, ...] = tuple(dict.fromkeys(c.family for c in _TABLE if c.family))
"""All families, in the order of the table. Every family's first column is ``clip_id``."""


SOURCE_COLUMNS: tuple[str, ...] = tuple(c.name for c in _TABLE if c.made_by == "source")
"""Columns that come from the source manifest itself."""


def family_columns(family: str, made: set[str]) -> list[Column]:
    """The columns of ``family`` among those ``made``, ``clip_id`` first."""
    own = [c for c in _TABLE if c.family == family and c.name in made and c.name != "clip_id"]
    return [COLUMNS["clip_id"], *own]


def reference_page() -> str:
    """The text of ``docs/columns.md``."""
    lines = [
        "# Columns",
        "",
        "Made from the table in `manifests/columns.py` by `make docs`; do not edit.",
        "",
        "Letters in shapes are lengths that differ from clip to clip: T video frames of the clip, F frames of the",
        "take, S audio samples, M mel frames, B filter-bank frames. The frame `source` is pixels of the upright decoded",
        "frame, x right, y down, the centre of the top-left pixel at (0.5, 0.5).",
    ]
    for family in (*FAMILIES, ""):
        lines += ["", f"## {family}" if family else "## Between stages (not in shards)", ""]
        lines += ["| column | type | shape | unit | frame | rate | stored | made by | what it is |", "|" + " --- |" * 9]
        for c in (c for c in _TABLE if c.family == family):
            cells = (f"`{c.name}`", c.dtype, c.shape_text, c.unit, c.frame, c.rate, c.encoding, c.made_by, c.about)
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
