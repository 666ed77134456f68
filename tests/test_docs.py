"""What the documents tell a reader to type is typed here."""

import re
import shlex
from pathlib import Path

import pytest

from manifests.columns import COLUMNS
from tests.conftest import ROOT, Headloom

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(document: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", document.read_text("utf-8"), re.S)


def commands() -> list[str]:
    """All ``headloom`` command lines of the README, in order."""
    lines = "\n".join(blocks(ROOT / "README.md", "sh")).replace("\\\n", " ").splitlines()
    pieces = [piece.strip() for line in lines for piece in line.split("#")[0].split("&&")]
    return [piece for piece in pieces if piece.startswith("headloom ")]


def test_the_readme_shows_the_whole_road() -> None:
    named = {command.split()[1] for command in commands()}
    assert named >= {"scan", "plan", "build", "verify", "report"}


def test_the_commands_of_the_readme_run(takes: Path, headloom: Headloom, tmp_path: Path) -> None:
    (tmp_path / "manifests").symlink_to(ROOT / "manifests")
    for command in commands():
        arguments = [str(takes) if word == "~/videos" else word for word in shlex.split(command)[1:]]
        headloom(*arguments, cwd=tmp_path)
    assert (tmp_path / "data" / "clips" / "report.html").is_file()


def test_the_python_of_the_readme_runs(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "clips").symlink_to(dataset)
    monkeypatch.chdir(tmp_path)
    for block in blocks(ROOT / "README.md", "python"):
        exec(compile(block, "README.md", "exec"), {})


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
