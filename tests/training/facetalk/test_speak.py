"""A checkpoint, a wav and a head become codes, meshes, a film and a picture."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import trimesh
from PIL import Image
from typer.testing import CliRunner

from fitting.studio.models import write_models
from manifests.assets import MissingAsset, looking_in
from manifests.document import ManifestError
from manifests.training import TrainingManifest
from pipelines.cli import app
from tests.manifests.datasets import write_clips
from tests.prep.test_speech import write_checkpoint
from training.facetalk.model import FaceTalk
from training.run import begin, train
from training.sample import load_model, sample

SMALL = {"latent": 32, "blocks": 1, "heads": 4, "feedforward": 64, "window": 12, "sampling": {"steps": 4}}


def clip(number: int, frames: int = 48) -> dict[str, Any]:
    rng = np.random.default_rng(number)
    return {
        "person": f"{number:03d}",
        "n_frames": frames,
        "nphm_expression": (0.05 * rng.standard_normal((frames, 200))).astype(np.float32),
        "flame_expression": rng.standard_normal((frames, 100)).astype(np.float32),
        "flame_jaw": (0.05 * np.abs(rng.standard_normal((frames, 3)))).astype(np.float32),
        "landmarks3d": rng.standard_normal((frames, 68, 3)).astype(np.float32),
        "world_to_nphm": np.tile(np.eye(4), (frames, 1, 1)),
        "mel": rng.standard_normal((80, 1 + 80 * frames // 24)).astype(np.float32),
        "wave": rng.integers(-9000, 9000, frames * 16000 // 24, dtype=np.int16),
    }


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With ``data``, ``models``, a second of noise as ``speech.wav`` and ``id.npy``."""
    folder = tmp_path_factory.mktemp("speak")
    write_clips(folder / "data", [clip(number) for number in range(3)])
    write_models(folder / "models")
    soundfile.write(folder / "speech.wav", 0.1 * np.random.default_rng(0).standard_normal(24_000), 24_000)
    np.save(folder / "id.npy", np.zeros((1, 1, 1344), np.float32))
    return folder


def trained(home: Path, name: str, **settings: Any) -> Path:
    """One step of a tiny model."""
    values = {
        "format": "headloom/training",
        "name": name,
        "datasets": [{"path": str(home / "data")}],
        "model": "facetalk",
        "settings": SMALL | settings,
        "global_batch": 4,
        "split": {"train": 1, "val": 0},
        "training": {"steps": 1, "ema": 0.9},
        "launch": {"device": "cpu"},
        "out": str(home / name),
    }
    return train(begin(TrainingManifest.parse(values, name), resume=True), lambda step, steps, figures: None)


@pytest.fixture(scope="module")
def spoken(home: Path) -> Path:
    """A folder in which all has been made of the wav."""
    out = home / "out"
    given = {
        "audio": home / "speech.wav",
        "identity": home / "id.npy",
        "resolution": 32,
        "composition": "forward",
        "guidance": 1.5,
    }
    with looking_in(home / "models"):
        made = {"codes": out / "codes.npz", "meshes": out / "meshes", "picture": out / "picture.png"}
        assert sample(trained(home, "mel"), given | made, "cpu") == list(made.values())
    return out


def test_a_second_of_sound_is_twenty_four_frames(spoken: Path) -> None:
    held = np.load(spoken / "codes.npz")
    assert held["codes"].shape == (24, 200)
    assert held["fps"].tolist() == [24, 1]
    assert np.isfinite(held["codes"]).all()
    assert len(list((spoken / "meshes").glob("frame_*.ply"))) == 24
    assert (spoken / "meshes" / "preview.mp4").is_file()


def test_the_picture_shows_heads(spoken: Path) -> None:
    picture = np.asarray(Image.open(spoken / "picture.png"))
    assert picture.shape[1] > 4 * picture.shape[0]
    assert picture[:200].std() > 20


def test_the_same_seed_says_the_same_in_the_same_way(home: Path, tmp_path: Path) -> None:
    place = trained(home, "mel")
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        sample(place, {"audio": home / "speech.wav", "codes": tmp_path / f"{name}.npz", "seed": seed}, "cpu")
    first, again, other = (np.load(tmp_path / f"{name}.npz")["codes"] for name in "abc")
    assert np.array_equal(first, again)
    assert not np.allclose(first, other)


def test_a_clip_of_a_dataset_can_be_spoken_and_its_landmarks_followed(home: Path, tmp_path: Path) -> None:
    place = trained(home, "landmarks", condition="landmarks")
    sample(place, {"clip": f"{home / 'data'}:2", "codes": tmp_path / "codes.npz"}, "cpu")
    assert np.load(tmp_path / "codes.npz")["codes"].shape == (48, 200)
    with pytest.raises(ManifestError, match="follows landmarks, not sound: give --clip"):
        sample(place, {"audio": home / "speech.wav", "codes": tmp_path / "codes.npz"}, "cpu")


def test_flames_codes_make_flames_heads(home: Path, tmp_path: Path) -> None:
    place = trained(home, "flame", target="flame")
    np.save(tmp_path / "id.npy", np.zeros(300, np.float32))
    made = {"meshes": tmp_path / "meshes", "picture": tmp_path / "picture.png"}
    with looking_in(home / "models"):
        sample(place, {"audio": home / "speech.wav", "identity": tmp_path / "id.npy", **made}, "cpu")
    assert len(list((tmp_path / "meshes").glob("frame_*.ply"))) == 24
    assert (tmp_path / "picture.png").is_file()


def test_a_checkpoint_is_loaded_with_its_averaged_weights(home: Path) -> None:
    place = trained(home, "mel")
    model = load_model(place, "cpu")
    assert model.fps == (24, 1)
    assert not model.training
    with pytest.raises(ManifestError, match="is no checkpoint of headloom"):
        load_model(home / "data", "cpu")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"codes": Path("a.npz")}, "either --audio FILE or --clip DATASET:CLIP"),
        ({"audio": Path("speech.wav")}, "what is to be made"),
        ({"audio": Path("speech.wav"), "meshes": Path("m")}, "give --identity FILE"),
        ({"audio": Path("none.wav"), "codes": Path("a.npz")}, r"none\.wav"),
        ({"audio": Path("id.npy"), "codes": Path("a.npz")}, r"id\.npy: the file does not open"),
        ({"audio": Path("speech.wav"), "meshes": Path("m"), "identity": Path("speech.wav")}, r"is no \.npy with a code"),
        ({"audio": Path("speech.wav"), "meshes": Path("data"), "identity": Path("id.npy")}, "no part of an animation"),
        ({"clip": "data:9", "codes": Path("a.npz")}, "has no clip '9'; it has 3"),
        ({"clip": "data", "codes": Path("a.npz")}, "wanted DATASET:CLIP"),
        ({"clip": "at25:0", "codes": Path("a.npz")}, r"has 25 frames a second, and the model was trained at 24 \(24\): give"),
        ({"audio": Path("speech.wav"), "codes": Path("a.npz"), "steps": 1001}, "--steps 1001: .* give 1 to 1000"),
        ({"audio": Path("speech.wav"), "codes": Path("data")}, "--codes data: is a folder"),
        (
            {"audio": Path("speech.wav"), "identity": Path("id.npy"), "meshes": Path("m"), "picture": Path("m/a.png")},
            "lies in the folder of --meshes",
        ),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_sampled(
    home: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], said: str
) -> None:
    place = trained(home, "mel")
    write_clips(home / "at25", [clip(0) | {"fps_num": 25}])
    monkeypatch.chdir(home)
    monkeypatch.setattr(FaceTalk, "sample", None)
    with looking_in(home / "models"), pytest.raises((ManifestError, OSError), match=said):
        sample(place, {"codes": Path("b.npz")} | given if "meshes" in given else given, "cpu")
    assert not (home / "a.npz").exists()
    assert not (home / "b.npz").exists()


@pytest.mark.parametrize("made", ["meshes", "picture"])
def test_missing_model_files_are_seen_before_anything_is_sampled(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: str
) -> None:
    place = trained(home, "mel")
    monkeypatch.setattr(FaceTalk, "sample", None)
    given = {"audio": home / "speech.wav", "identity": home / "id.npy", "codes": tmp_path / "a.npz", made: tmp_path / "made"}
    with looking_in(tmp_path), pytest.raises(MissingAsset, match="headloom assets add"):
        sample(place, given, "cpu")
    assert not list(tmp_path.iterdir())


def test_guidance_needs_a_model_that_has_learned_without_hearing(home: Path, tmp_path: Path) -> None:
    place = trained(home, "hearing", null_share=0)
    given = {"audio": home / "speech.wav", "codes": tmp_path / "codes.npz"}
    with pytest.raises(ManifestError, match=r"guidance 1\.5: .* null_share is 0\); give --guidance 1"):
        sample(place, given | {"guidance": 1.5}, "cpu")
    assert sample(place, given, "cpu") == [tmp_path / "codes.npz"]


def test_without_smoothing_the_back_of_the_head_moves_in_meshes_and_picture(home: Path, spoken: Path, tmp_path: Path) -> None:
    asked = {"audio": home / "speech.wav", "identity": home / "id.npy", "resolution": 32, "composition": "forward"}
    made = {"meshes": tmp_path / "meshes", "picture": tmp_path / "picture.png"}
    with looking_in(home / "models"):
        sample(trained(home, "mel"), asked | made | {"guidance": 1.5, "smoothing": False}, "cpu")
    moved = []
    for folder in (spoken, tmp_path):
        first, last = (trimesh.load(folder / "meshes" / name, process=False) for name in ("frame_00000.ply", "frame_00023.ply"))
        back = first.vertices[:, 2] < -0.02
        moved.append(np.linalg.norm(last.vertices - first.vertices, axis=-1)[back].mean())
    assert moved[0] < 0.5 * moved[1]
    smooth, rough = (np.asarray(Image.open(folder / "picture.png")).astype(int) for folder in (spoken, tmp_path))
    assert smooth.shape == rough.shape
    assert np.abs(smooth - rough).max() > 20


def test_the_command_passes_on_what_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[Any, ...]] = []
    monkeypatch.setattr("training.sample.sample", lambda *given: told.append(given) or [])
    for more in ([], ["--no-smoothing", "--device", "cpu"]):
        assert CliRunner().invoke(app, ["sample", "run", *more]).exit_code == 0
    assert told == [(Path("run"), {}, "auto"), (Path("run"), {"smoothing": False}, "cpu")]
    assert CliRunner().invoke(app, ["sample", "run", "--device", "gpu"]).exit_code == 2


def test_features_need_their_checkpoint(home: Path, tmp_path: Path) -> None:
    clips = [clip(number) | {"wav2vec": np.zeros((48, 768), np.float32)} for number in range(2)]
    write_clips(tmp_path / "data", clips)
    place = trained(tmp_path, "wav2vec", condition="wav2vec")
    given = {"audio": home / "speech.wav", "codes": tmp_path / "codes.npz"}
    with pytest.raises(ManifestError, match="give the folder of the same wav2vec"):
        sample(place, given, "cpu")
    with pytest.raises(ManifestError, match="has 1024 numbers a frame, wanted 768"):
        sample(place, given | {"speech": write_checkpoint(tmp_path / "large", hidden=1024)}, "cpu")
    sample(place, given | {"speech": write_checkpoint(tmp_path / "base")}, "cpu")
    assert np.load(tmp_path / "codes.npz")["codes"].shape == (24, 200)
