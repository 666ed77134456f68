"""The contact sheet: some clips of a dataset with frames, crop boxes, waveforms and mel, as plain HTML and SVG."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import av.error
import cv2
import numpy as np
from numpy.typing import NDArray

from manifests.reader import Dataset
from pipelines.report_scores import Score, number, with_unit
from prep.encode import decode_mp4

CLIPS = 24
_SHOWN_PX = 192
"""Side of the stored pictures; they are shown smaller, and stay sharp on a dense screen."""
_JPEG_QUALITY = 82
_WAVES = ("wave", "wave_clean", "wave_noisy")
_READ = ("video256", "crop256_box", "video512", "crop512_box", "face_box", *_WAVES, "mel")
_BROKEN = (av.error.FFmpegError, LookupError, ValueError, ArithmeticError)
"""What decoding bytes that are no film of ours may raise: the clip is shown without its picture then."""

_SOUND_WIDTH, _WAVE_HEIGHT, _MEL_HEIGHT, _ENVELOPE_POINTS = 386, 34, 48, 193


def contact_sheet(dataset: Dataset, scores: Sequence[Score], most: int = CLIPS) -> str:
    """At most ``most`` clips, chosen evenly over the dataset, with their values of ``scores``."""
    rows = np.unique(np.linspace(0, len(dataset) - 1, min(most, len(dataset))).round().astype(int)).tolist()
    if not rows:
        return '<p class="none">The dataset holds no clips.</p>'
    names = [name for name in _READ if name in dataset.columns]
    chosen = f"{len(rows)} of {len(dataset)} clips, chosen evenly" if len(rows) < len(dataset) else f"All {len(rows)} clips"
    legend = []
    if "video256" in names:
        legend.append('<span><i class="key crop256"></i>first, middle and last frame of video256, and what it shows</span>')
    if "video512" in names:
        legend.append('<span><i class="key crop512"></i>middle frame of video512, and what it shows</span>')
    if "face_box" in names:
        legend.append('<span><i class="key face"></i>face box: median, and all that it reaches over the clip (tinted)</span>')
    if any(name in names for name in _WAVES):
        legend.append("<span>each wave is drawn to its own peak, which is written beside it</span>")
    cards = []
    for row in rows:
        facts = {name: dataset.clips[name][row].as_py() for name in dataset.clips.column_names}
        cards.append(_card(facts | dataset.read(row, *names) if names else facts, scores))
    return "\n".join([f"<p>{chosen}.</p>", f'<p class="legend">{"".join(legend)}</p>', *cards])


def _card(clip: Mapping[str, Any], scores: Sequence[Score]) -> str:
    seconds = clip["n_frames"] * clip["fps_den"] / clip["fps_num"]
    length = f"{seconds:.2f} s · {clip['n_frames']} frames at {number(clip['fps_num'] / clip['fps_den'])}/s"
    head = [f'<code title="{escape(clip["clip_id"])}">{escape(clip["clip_id"][:12])}</code>']
    if clip.get("person"):
        head.append(f"<b>{escape(clip['person'])}</b>")
    if clip.get("source_uri"):
        head.append(f'<span class="uri">{escape(clip["source_uri"])} from {clip["start_us"] / 1e6:.2f} s</span>')
    head.append(f'<span class="length">{length}</span>')
    figures = [f"<div><dt>{escape(score.name)}</dt><dd>{with_unit(clip[score.name], score.unit)}</dd></div>" for score in scores]
    return "".join(
        [
            f'<article class="clip"><header>{"".join(head)}</header><div class="row">',
            _pictures(clip),
            _source_frame(clip),
            _sound(clip, seconds),
            "</div>",
            f'<dl class="scores">{"".join(figures)}</dl>' if figures else "",
            "</article>",
        ]
    )


def _pictures(clip: Mapping[str, Any]) -> str:
    last = clip["n_frames"] - 1
    figures = []
    for column, kind, frames in (("video256", "strip", [0, last // 2, last]), ("video512", "still", [last // 2])):
        if column not in clip:
            continue
        try:
            shown = "".join(_image(picture, column) for picture in decode_mp4(clip[column], frames))
        except _BROKEN:
            shown = f'<div class="missing">{column} does not decode</div>'
        about = f"frames {', '.join(map(str, frames))}" if len(frames) > 1 else f"frame {frames[0]}"
        figures.append(f'<figure><div class="{kind}">{shown}</div><figcaption>{column} · {about}</figcaption></figure>')
    return "".join(figures)


def _image(rgb: NDArray[np.uint8], alt: str) -> str:
    small = cv2.resize(rgb, (_SHOWN_PX, _SHOWN_PX), interpolation=cv2.INTER_AREA)
    return f'<img alt="{alt}" width="120" height="120" src="{_data_uri(cv2.cvtColor(small, cv2.COLOR_RGB2BGR))}">'


def _data_uri(bgr: NDArray[np.uint8]) -> str:
    """The picture (H, W, 3) as a JPEG inside the page."""
    jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1]
    return "data:image/jpeg;base64," + base64.b64encode(jpeg.tobytes()).decode("ascii")


def _source_frame(clip: Mapping[str, Any]) -> str:
    """The outline of the source frame with the crop boxes and the face's track, to scale."""
    rects: list[tuple[str, Any]] = []
    size = clip.get("source_width"), clip.get("source_height")
    if None not in size:
        rects.append(("outline", np.array([0, 0, *size], dtype=np.float64)))
    boxes = clip.get("face_box", np.zeros((0, 4)))
    boxes = boxes[np.isfinite(boxes).all(axis=1)]
    if len(boxes):
        rects.append(("reach", np.concatenate([boxes[:, :2].min(0), boxes[:, 2:].max(0)])))
        rects.append(("face", np.median(boxes, axis=0)))
    rects += [(name, clip[f"{name}_box"]) for name in ("crop512", "crop256") if f"{name}_box" in clip]
    if not rects:
        return ""
    corners = np.stack([rect for _, rect in rects])
    x0, y0 = corners[:, :2].min(0)
    x1, y1 = corners[:, 2:].max(0)
    margin = max(x1 - x0, y1 - y0) * 0.01  # half of the outermost line would be cut off
    view = f"{x0 - margin:.1f} {y0 - margin:.1f} {x1 - x0 + 2 * margin:.1f} {y1 - y0 + 2 * margin:.1f}"
    drawn = "".join(
        f'<rect class="{name}" x="{a:.1f}" y="{b:.1f}" width="{max(c - a, 0):.1f}" height="{max(d - b, 0):.1f}"/>'
        for name, (a, b, c, d) in rects
    )
    about = f"source {size[0]} × {size[1]}" if None not in size else "boxes in the source frame"
    about += f", {number(clip['source_fps'])}/s" if "source_fps" in clip else ""
    svg = f'<svg viewBox="{view}" preserveAspectRatio="xMinYMin" role="img" aria-label="{about}">{drawn}</svg>'
    return f'<figure class="frame">{svg}<figcaption>{about}</figcaption></figure>'


def _sound(clip: Mapping[str, Any], seconds: float) -> str:
    """Waves and mel below each other on one time axis."""
    parts, y = [], 0
    for name in _WAVES:
        if name in clip and clip[name].size:
            parts.append(_envelope(clip[name], y))
            parts.append(f'<text x="{_SOUND_WIDTH + 6}" y="{y + _WAVE_HEIGHT // 2 - 1}">{name}</text>')
            parts.append(f'<text x="{_SOUND_WIDTH + 6}" y="{y + _WAVE_HEIGHT // 2 + 10}">{_peak(clip[name])}</text>')
            y += _WAVE_HEIGHT + 2
    if "mel" in clip and clip["mel"].size:
        # A mel frame is centred on its sample, so the picture is off by half a frame (6 ms): less than a line's width.
        parts.append(
            f'<image x="0" y="{y}" width="{_SOUND_WIDTH}" height="{_MEL_HEIGHT}" preserveAspectRatio="none" '
            f'href="{_data_uri(_mel_picture(clip["mel"]))}"/>'
            f'<text x="{_SOUND_WIDTH + 6}" y="{y + _MEL_HEIGHT // 2 + 4}">mel</text>'
        )
        y += _MEL_HEIGHT
    if not parts:
        return ""
    step = next((s for s in (0.25, 0.5, 1, 2, 5, 10, 20) if seconds / s <= 9), 60)
    for tick in np.arange(0, seconds, step):
        x = tick / seconds * _SOUND_WIDTH
        parts.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{y}" y2="{y + 3}"/>')
        if x < _SOUND_WIDTH - 20:
            parts.append(f'<text x="{x + 2:.1f}" y="{y + 11}">{number(float(tick))}{" s" if not tick else ""}</text>')
    box = f"0 0 {_SOUND_WIDTH + 66} {y + 13}"
    return f'<figure class="sound"><svg viewBox="{box}" role="img" aria-label="sound">{"".join(parts)}</svg></figure>'


def _envelope(wave: NDArray[np.int16], y: int) -> str:
    """The least and the greatest sample of each stretch, as one closed path."""
    starts = np.linspace(0, wave.size, min(_ENVELOPE_POINTS, wave.size), endpoint=False).astype(int)
    scale = (_WAVE_HEIGHT / 2 - 1) / max(int(np.abs(wave.astype(np.int32)).max()), 1)
    middle = y + _WAVE_HEIGHT / 2
    xs = (starts + wave.size / len(starts) / 2) / wave.size * _SOUND_WIDTH
    # Half a pixel more on each side, so that silence is a line.
    top = middle - np.maximum.reduceat(wave, starts) * scale - 0.5
    bottom = middle - np.minimum.reduceat(wave, starts) * scale + 0.5
    points = [*zip(xs, top, strict=True), *zip(xs[::-1], bottom[::-1], strict=True)]
    return f'<path class="wave" d="M{"L".join(f"{px:.1f},{py:.1f}" for px, py in points)}Z"/>'


def _peak(wave: NDArray[np.int16]) -> str:
    peak = int(np.abs(wave.astype(np.int32)).max())
    return f"{number(round(20 * np.log10(peak / 32768)))} dBFS" if peak else "silent"


def _mel_picture(mel: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The mel (80, M) in [-4, 4] as a BGR picture, low notes at the bottom; the scale is the same for all clips."""
    grey = np.clip((mel[::-1] + 4) * (255 / 8), 0, 255).astype(np.uint8)
    wide = cv2.resize(grey, (min(mel.shape[1], 2 * _SOUND_WIDTH), 2 * _MEL_HEIGHT), interpolation=cv2.INTER_AREA)
    picture: NDArray[np.uint8] = cv2.applyColorMap(wide, cv2.COLORMAP_MAGMA)
    return picture
