"""Real recordings and real trouble, where they are at hand: every file ends with a reason, the good ones unharmed."""

from pathlib import Path

import pytest

from manifests.dataset import DATASET_FILE, DatasetManifest
from manifests.reader import Dataset
from manifests.verify import verify
from tests.conftest import Headloom

pytestmark = pytest.mark.timeout(600)

VIDEO = {".mp4", ".mov", ".avi", ".webm", ".mpg"}


@pytest.fixture(scope="module")
def bad(shared: Path, headloom: Headloom, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset of everything in the set of bad inputs, each judged on its own: none is set aside as a duplicate."""
    folder = tmp_path_factory.mktemp("bad")
    headloom("scan", str(shared / "real" / "bad"), "-o", str(folder / "s.yaml"), "--no-duplicates")
    headloom("build", "talking_clips", "--set", f"source={folder / 's.yaml'}", "--out", str(folder / "d"))
    return folder / "d"


def test_every_bad_file_ends_with_an_outcome_and_a_reason(bad: Path, shared: Path) -> None:
    manifest = DatasetManifest.load(bad / DATASET_FILE)
    assert all(account.adds_up for account in manifest.accounting)
    entries = manifest.quarantine.read(bad)
    folder = shared / "real" / "bad"
    files = {f"bad/{path.relative_to(folder).as_posix()}" for path in folder.rglob("*") if path.suffix in VIDEO}
    made = set(Dataset(bad).clips["source_uri"].to_pylist())
    told = {entry.source_uri for entry in entries}
    assert files <= made | told, "nothing disappears"
    for entry in entries:
        assert entry.reason
        assert "Traceback" not in entry.message
        assert entry.reason not in ("error", "crash", "timeout"), f"{entry.source_uri}: {entry.message}"


def test_the_good_among_the_bad_are_unharmed(bad: Path) -> None:
    assert list(verify(bad)) == []
    made = set(Dataset(bad).clips["source_uri"].to_pylist())
    good = [
        "rotated_like_phone",
        "vfr_known",
        "dup_50fps",
        "dup_60fps",
        "hevc_10bit",
        "audio_6ch",
        "audio_8k_mono",
        "interlaced_tff",
    ]
    assert {f"bad/derived/{name}.mp4" for name in good} <= made


def test_each_trouble_gets_a_reason_that_fits(bad: Path) -> None:
    entries = DatasetManifest.load(bad / DATASET_FILE).quarantine.read(bad)
    reasons = {entry.source_uri: f"{entry.stage}: {entry.reason}: {entry.message}" for entry in entries}
    for uri, word in {
        "natural/corrupt/zero_byte.webm": "empty",
        "natural/corrupt/lfs_pointer.avi": "git-LFS",
        "derived/no_index.mp4": "index",
        "derived/audio_only.mp4": "no picture",
        "derived/no_audio.mp4": "no sound",
        "natural/noface/plant.mp4": "face",
        "natural/noface/dogs.jpg": "",
        "derived/five_frames.mp4": "n_frames",
        "derived/truncated_60pct.mp4": "decoded_share",
        "natural/audio/silent_track.mp4": "loudness_dbfs",
        "derived/two_faces_left_speaks.mp4": "rival_face",
    }.items():
        if word:
            assert word in reasons.get(f"bad/{uri}", "not in quarantine"), (uri, reasons.get(f"bad/{uri}"))


def test_real_clips_become_a_dataset(shared: Path, headloom: Headloom, tmp_path: Path) -> None:
    names = ["may_5s.mp4", "grid_bbaf2n.mpg", "woman_blue_30fps_lowvol.mp4", "film_man_23976.mp4", "mead_m030_sad_1080p.mp4"]
    clips = [str(shared / "real" / "clips" / name) for name in names]
    headloom("scan", *clips, "-o", str(tmp_path / "clips.yaml"))
    out = str(tmp_path / "d")
    headloom("plan", "manifests/talking_clips.yaml", "--set", f"source={tmp_path / 'clips.yaml'}", "--out", out)
    headloom("build", "manifests/talking_clips.yaml", "--set", f"source={tmp_path / 'clips.yaml'}", "--out", out)
    headloom("verify", out)
    headloom("report", out)
    dataset = Dataset(out)
    assert set(dataset.clips["source_uri"].to_pylist()) == {f"clips/{name}" for name in names}
    for row in range(len(dataset)):
        clip = dataset.read(row)
        assert clip["wave"].shape[0] == round(clip["n_frames"] * 640)
        assert clip["mel"].shape == (80, 1 + clip["wave"].shape[0] // 200)
