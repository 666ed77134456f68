"""Fits in the report: the table and its marks, the curves, the pictures, and figures against a known truth."""

import base64
import html
import json
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from manifests.columns import COLUMNS
from manifests.dataset import QuarantineEntry
from manifests.reader import Dataset
from pipelines.report_fits import AGAINST_TRUTH, CLIPS, fits_section
from tests.pipelines.test_report import CHROME, NASTY, _Page, browse, refused, report_of, row, write_dataset

FRAMES = 20
LINES = ((0x9F, 0x6F, 0x2F), (0x1A, 0x8A, 0xD9), (0x6A, 0x8A, 0x0D))
"""Colours of the curves, blue, green and red."""
LIMITS = {"limits": {"flame_error_mm": {"min": None, "max": 1.0}, "flame_inlier_share": {"min": 0.5, "max": None}}}


def jpeg(colour: tuple[int, int, int]) -> bytes:
    """A strip of one colour, given as blue, green and red."""
    data: bytes = cv2.imencode(".jpg", np.full((256, 832, 3), colour, np.uint8))[1].tobytes()
    return data


def fitted(number: int, **more: Any) -> dict[str, Any]:
    """A clip of 20 frames with all that fits give."""
    rng = np.random.default_rng(number)
    files = [jpeg((40 * k, 90, 200)) for k in range(6)]
    residual = rng.uniform(0.2, 0.4, (FRAMES, 68)).astype(np.float32)
    residual[3] = np.nan
    expression = np.zeros((FRAMES, 200), np.float32)
    expression[10:] = 0.5
    figures = {
        "flame_error_mm": 0.5,
        "flame_inlier_share": 0.9,
        "landmark_share": 0.95,
        "nphm_error_mm": 0.3,
        "nphm_identity_error_mm": float("nan"),
        "jitter_mae": 0.0321,
        "jitter_rmse": 0.0456,
        "jitter_autocorrelation": 0.789,
    }
    tracks = {
        "flame_residual_mm": rng.uniform(0.4, 0.6, FRAMES).astype(np.float32),
        "flame_inliers": np.full(FRAMES, 0.9, np.float32),
        "nphm_residual_mm": rng.uniform(0.2, 0.3, FRAMES).astype(np.float32),
        "nphm_inliers": np.full(FRAMES, 0.8, np.float32),
        "nphm_converged": np.ones(FRAMES, np.float32),
        "nphm_expression": expression,
        "landmarks3d_residual_px": residual,
    }
    pictures = {
        "mesh_frames": np.array([0, 19], np.int32),
        "fit_cameras": "cam 7\ncam 3",
        "fit_pictures": np.frombuffer(b"".join(files), np.uint8),
        "fit_picture_sizes": np.array([len(file) for file in files], np.int32),
    }
    return row(number) | figures | tracks | pictures | more


def section_of(folder: Path, refused: list[QuarantineEntry] | None = None) -> str:
    text = fits_section(Dataset(folder), refused or [])
    _Page(f"<main>{text}</main>")
    return text


def body(text: str, heading: str) -> list[str]:
    """The rows of the table under a heading."""
    after = text[text.index(f"<h3>{heading}</h3>") :]
    return re.findall(r"<tr>.*?</tr>", after[after.index("<tbody>") : after.index("</tbody>")])


# --- what is there


def test_a_dataset_without_fits_has_no_such_section(tmp_path: Path) -> None:
    write_dataset(tmp_path, [row(0)])
    text = report_of(tmp_path)
    assert 'id="fits"' not in text
    assert "#fits" not in text
    assert fits_section(Dataset(tmp_path), []) == ""


def test_the_section_stands_between_clips_and_quarantine_and_the_page_leads_to_it(tmp_path: Path) -> None:
    write_dataset(tmp_path, [fitted(0)])
    text = report_of(tmp_path)
    sections = re.findall(r'<section id="(\w+)">', text)
    assert sections == ["account", "scores", "clips", "fits", "quarantine", "provenance"]
    assert re.findall(r'<a href="#(\w+)">', text) == sections
    page = _Page(text)
    assert "script" not in page.tags


@pytest.mark.parametrize("family", ["flame", "nphm", "landmarks", "meshes"])
def test_one_family_of_fits_is_enough(tmp_path: Path, family: str) -> None:
    kept = {n: v for n, v in fitted(0).items() if COLUMNS[n].family == family or n in row(0)}
    write_dataset(tmp_path, [kept])
    text = section_of(tmp_path)
    assert text.count("<article") == 1
    assert text.count("<img") == (6 if family == "meshes" else 0)
    assert text.count("<path") == {"flame": 2, "nphm": 4, "landmarks": 1, "meshes": 0}[family]


def test_a_dataset_whose_clips_were_all_refused_still_says_by_what(tmp_path: Path) -> None:
    write_dataset(tmp_path, [fitted(0)], parts=[], clips=0)
    assert section_of(tmp_path) == ""
    text = section_of(tmp_path, [refused(7, "flame_error_mm above its limit", 1.2)])
    assert "flame_error_mm above its limit" in text
    assert "<article" not in text


# --- the table


def test_figures_are_marked_by_the_limit_that_they_are_near(tmp_path: Path) -> None:
    rows = [fitted(0), fitted(1, flame_error_mm=0.85), fitted(2, flame_inlier_share=0.58, flame_error_mm=0.99)]
    write_dataset(tmp_path, rows, recipe=LIMITS)
    text = section_of(tmp_path)
    good, near, both = body(text, "Figures of the fits")
    assert "near" not in good
    assert "near the limit of flame_error_mm<" in near
    assert "near the limit of flame_error_mm, flame_inlier_share<" in both
    assert '<td class="n near">0.85</td>' in near
    for told in ("0.0321", "0.0456", "0.789", "≤ 1", "≥ 0.5"):
        assert told in text, told
    assert "nan" not in good
    assert "–" in good, "a figure that is not there"


def test_what_the_limits_of_fits_refused_stands_below_with_its_figure(tmp_path: Path) -> None:
    write_dataset(tmp_path, [fitted(0)], recipe=LIMITS)
    entries = [
        refused(7, "flame_error_mm above its limit", 1.234, threshold=1.0),
        refused(8, "sharpness above its limit", 5.0, threshold=1.0),
    ]
    rows = body(section_of(tmp_path, entries), "Figures of the fits")
    assert len(rows) == 2
    assert "refused: flame_error_mm above its limit (1)" in rows[1]
    assert '<td class="n beyond">1.23' in rows[1]
    assert "takes/7.mp4" in rows[1]


# --- clips


def test_pictures_stand_in_the_page_as_they_were_made(tmp_path: Path) -> None:
    write_dataset(tmp_path, [fitted(0)])
    text = section_of(tmp_path)
    shown = [base64.b64decode(data) for data in re.findall(r'src="data:image/jpeg;base64,([^"]+)"', text)]
    files = [jpeg((40 * k, 90, 200)) for k in range(6)]
    # Strips by frame and camera, then the meshes of all frames.
    assert shown == [files[k] for k in (0, 1, 3, 4, 2, 5)]
    captions = re.findall(r"<figcaption>(frame [^<]*)</figcaption>", text)
    assert captions == [
        "frame 0 · camera cam 7",
        "frame 0 · camera cam 3",
        "frame 19 · camera cam 7",
        "frame 19 · camera cam 3",
        "frame 0 · the mesh alone",
        "frame 19 · the mesh alone",
    ]


def test_some_of_many_clips_are_shown(tmp_path: Path) -> None:
    write_dataset(tmp_path, [fitted(n) for n in range(9)])
    text = section_of(tmp_path)
    assert text.count("<article") == CLIPS
    assert f"{CLIPS} of 9 clips, chosen evenly" in text
    assert len(body(text, "Figures of the fits")) == 9


def test_curves_are_drawn_to_scale_and_broken_where_there_is_nothing(tmp_path: Path) -> None:
    ramp = np.linspace(0, 2, FRAMES).astype(np.float32)
    write_dataset(tmp_path, [fitted(0, flame_residual_mm=ramp, nphm_residual_mm=ramp / 2)])
    text = section_of(tmp_path)
    flame, nphm = (points(text, "distance from the cloud", line) for line in (1, 2))
    assert len(flame) == 1
    first, last = flame[0][0], flame[0][-1]
    bottom, top = first[1], last[1]
    assert first[0] == 0
    assert last[0] > 200
    assert bottom - top == pytest.approx(80)
    assert nphm[0][-1][1] == pytest.approx((bottom + top) / 2, abs=0.1)
    assert "from 0 to 2 mm" in text

    landmarks = points(text, "landmarks, median distance", 1)
    assert [len(run) for run in landmarks] == [3, FRAMES - 4]

    (change,) = points(text, "mean change of the expression code", 1)
    heights = np.array(change)[:, 1]
    # Codes jump at frame 10 and nowhere else; the first frame has none before it.
    assert len(heights) == FRAMES - 1
    assert heights.argmin() == 9
    assert np.unique(heights).size == 2


def points(text: str, title: str, line: int) -> list[list[tuple[float, float]]]:
    """The unbroken runs of one curve of one drawing."""
    drawing = text[text.index(f'aria-label="{title} over the frames"') :]
    path = re.search(rf'<path class="line{line}" d="([^"]*)"', drawing)
    assert path is not None
    runs = [run for run in path.group(1).split("M") if run]
    return [[(float(x), float(y)) for x, y in (place.split(",") for place in run.split("L"))] for run in runs]


def test_clips_of_one_frame_and_tracks_without_a_value_are_drawn(tmp_path: Path) -> None:
    one = {name: value[:1] for name, value in fitted(0).items() if isinstance(value, np.ndarray) and value.shape[:1] == (FRAMES,)}
    none = np.full(1, np.nan, np.float32)
    write_dataset(tmp_path, [fitted(0, **one, n_frames=1) | {"flame_residual_mm": none, "nphm_residual_mm": none}])
    text = section_of(tmp_path)
    assert "no frame has a value" in text
    assert "nan" not in text


# --- against the truth


def test_figures_against_the_truth_stand_beside_their_goals(tmp_path: Path) -> None:
    write_dataset(tmp_path, [row(0)])
    told = {"figures": {"flame_vertex_mm": 0.1723, "nphm_speedup": 12}, "goals": {"flame_vertex_mm": "< 0.7"}, "notes": [NASTY]}
    (tmp_path / AGAINST_TRUTH).write_text(json.dumps(told))
    text = section_of(tmp_path)
    first, second = body(text, "Against the truth")
    assert re.findall(r"<td[^>]*>(.*?)</td>", first) == ["flame_vertex_mm", "0.172", "&lt; 0.7"]
    assert re.findall(r"<td[^>]*>(.*?)</td>", second) == ["nphm_speedup", "12", ""]
    assert html.escape(NASTY) in text
    assert 'id="fits"' in report_of(tmp_path)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"figures": 3}', '{"figures": {}, "goals": 5}'])
def test_a_file_of_another_kind_is_told_not_shown(tmp_path: Path, content: str) -> None:
    write_dataset(tmp_path, [row(0)])
    (tmp_path / AGAINST_TRUTH).write_text(content)
    assert f"{AGAINST_TRUTH} is not of the kind that can be shown" in section_of(tmp_path)


def test_what_comes_from_data_is_escaped(tmp_path: Path) -> None:
    clip = fitted(0, person=NASTY, source_uri=NASTY, clip_id=NASTY, fit_cameras="<b>\n&amp;")
    write_dataset(tmp_path, [clip])
    told = {"figures": {NASTY: 1.0, "worse": NASTY}, "goals": {NASTY: NASTY}, "notes": [NASTY]}
    (tmp_path / AGAINST_TRUTH).write_text(json.dumps(told))
    entry = refused(1, NASTY, 1.0, score_name="flame_error_mm", unit=NASTY, source_uri=NASTY)
    text = section_of(tmp_path, [entry])
    assert "<script" not in text
    assert "camera <b>" not in text
    assert "camera &lt;b&gt;" in text
    assert text.count(html.escape(NASTY)) >= 9


# --- looked at in a real browser


@pytest.mark.skipif(CHROME is None, reason="no chromium and no chrome here to look at the page with")
def test_looked_at_in_a_real_browser(tmp_path: Path) -> None:
    colours = [(0, 255, 255), (0, 255, 128), (255, 0, 128)]
    files = [jpeg(colour) for colour in colours * 2]
    clip = fitted(0, fit_pictures=np.frombuffer(b"".join(files), np.uint8), fit_cameras=f"front\n{NASTY}")
    clip["fit_picture_sizes"] = np.array([len(file) for file in files], np.int32)
    write_dataset(tmp_path, [clip], recipe=LIMITS)
    page, shot = tmp_path / "report.html", tmp_path / "shot.png"
    report_of(tmp_path)
    browse(f"--screenshot={shot}", "--window-size=1280,5000", page=page, folder=tmp_path / "profile")
    picture = cv2.imread(str(shot))
    assert picture is not None
    # The page is 1152 px wide inside; two strips or two meshes stand side by side with 10 px between, 832 : 256.
    width = (1152 - 10) / 2
    places = []
    for colour in colours:
        mask = np.abs(picture.astype(int) - colour).max(axis=-1) < 40
        assert mask.sum() == pytest.approx(2 * width * width * 256 / 832, rel=0.03)
        places.append(np.argwhere(mask))
    front, side, mesh = places
    assert front[:, 1].max() < side[:, 1].min(), "the cameras of a frame stand side by side"
    assert front[:, 0].min() == side[:, 0].min()
    assert mesh[:, 0].min() > side[:, 0].max(), "meshes stand below"
    below = picture[mesh[:, 0].max() + 30 :].astype(int)
    for line in LINES:
        assert (np.abs(below[:400] - line).max(axis=-1) < 25).sum() > 150, "curves are drawn"
