"""What the documents tell a reader to type is typed here."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import soundfile

from manifests.columns import COLUMNS
from tests.conftest import ROOT, Headloom, facetalk_settings

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


TINY = ("settings.window=4", "settings.latent=16", "settings.heads=2", "split={train: 1, val: 0}", "training.steps=1")
"""What makes README's training a matter of seconds, on clips of four frames."""


def blocks(document: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", document.read_text("utf-8"), re.S)


def commands() -> list[str]:
    """All ``headloom`` command lines of the README, in order."""
    lines = "\n".join(blocks(ROOT / "README.md", "sh")).replace("\\\n", " ").splitlines()
    pieces = [piece.strip() for line in lines for piece in line.split("#")[0].split("&&")]
    return [piece for piece in pieces if piece.startswith("headloom ")]


def test_the_readme_shows_the_whole_road() -> None:
    named = {command.split()[1] for command in commands()}
    assert named >= {"scan", "plan", "build", "verify", "report", "export", "train", "sample"}


def test_the_commands_of_the_readme_run(
    takes: Path, facetalk: Path, model_files: Path, headloom: Headloom, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "manifests").symlink_to(ROOT / "manifests")
    given = {
        "~/videos": str(takes),
        "~/FLAME2020/generic_model.pkl": str(model_files / "generic_model.pkl"),
        "/data/nersemble": str(facetalk / "rig"),
    }
    soundfile.write(tmp_path / "speech.wav", np.sin(np.arange(2000)), 16_000)
    np.savez(tmp_path / "id.npz", identity=np.zeros(1344, np.float32))
    small = {
        # As small as the fixture's build, whose results serve again.
        "facetalk_nphm": facetalk_settings(facetalk, source="nersemble.yaml", store=facetalk / "data" / ".store"),
        "train": [part for setting in TINY for part in ("--set", setting)],
        "sample": ["--resolution", "32", "--composition", "forward", "--steps", "2"],
    }
    for command in commands():
        of_captures = "facetalk" in command
        monkeypatch.setenv("HEADLOOM_MODELS", str((facetalk if of_captures else tmp_path) / "models"))
        arguments = [given.get(word, word) for word in shlex.split(command)[1:]]
        more = [part for word in arguments[:2] for part in small.get(word, [])]
        headloom(*arguments, *more, cwd=tmp_path)
    assert (tmp_path / "data" / "clips" / "report.html").is_file()
    assert list((tmp_path / "data" / "facetalk" / "facetalk-npz").iterdir())
    assert (tmp_path / "runs" / "facetalk" / "report.html").is_file()
    assert (tmp_path / "out" / "frame_00002.ply").is_file()


def test_the_python_of_the_readme_runs(dataset: Path, model_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADLOOM_MODELS", str(model_files))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "clips").symlink_to(dataset)
    monkeypatch.chdir(tmp_path)
    for block in blocks(ROOT / "README.md", "python"):
        exec(compile(block, "README.md", "exec"), {})


@pytest.mark.parametrize(
    "page", ["flame", "bfm", "nphm", "mononphm", "space", "raster", "studio", "nphm_fit", "facetalk_data", "stereo", "training"]
)
def test_the_python_of_the_model_pages_runs(
    page: str, model_files: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HEADLOOM_MODELS", str(model_files))
    monkeypatch.chdir(tmp_path)
    found = blocks(ROOT / "docs" / f"{page}.md", "python")
    assert found
    names: dict = {}
    for block in found:
        exec(compile(block, f"{page}.md", "exec"), names)


def test_the_python_of_the_page_of_captures_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.prep.test_capture import plain

    plain(tmp_path / "own" / "mine")
    monkeypatch.chdir(tmp_path)
    for block in blocks(ROOT / "docs" / "captures.md", "python"):
        exec(compile(block, "captures.md", "exec"), {})


def test_the_stage_of_the_docs_is_a_stage(dataset: Path) -> None:
    from manifests.reader import Dataset
    from manifests.stage import Done, Stage

    for block in blocks(ROOT / "docs" / "stages.md", "python"):
        names: dict = {}
        exec(compile(block, "stages.md", "exec"), names)
        stage = next(v for v in names.values() if isinstance(v, type) and issubclass(v, Stage) and v is not Stage)
        assert stage.reads() == ("video256",)
        outcome = stage().run(**Dataset(dataset).read(0, *stage.reads()))
        assert isinstance(outcome, Done)
        assert set(outcome.columns) == set(stage.writes)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text("utf-8")):
        assert (document.parent / target).exists(), f"{document.name} links to {target}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_columns_named_in_documents_exist(document: Path) -> None:
    text = document.read_text("utf-8")
    for name in re.findall(r"`((?:video|crop|wave|face|frame|take)\w*)`", text):
        known = name in COLUMNS or name in {"take", "faces", "crop", "wave", "face"}
        assert known, f"{document.name} names column {name}"


def test_the_answers_of_the_studio_are_documented_as_they_are() -> None:
    from fitting.studio.truth import reference

    assert (ROOT / "docs" / "studio.md").read_text("utf-8").endswith(reference().rstrip() + "\n")
