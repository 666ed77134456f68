"""What several tests share: takes that headloom makes itself, a dataset built from them, and real data where it is."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"
HEADLOOM = [sys.executable, "-c", "from pipelines.cli import main; main()"]

Headloom = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def headloom() -> Headloom:
    """Runs the command as a user does, in a process of its own."""

    def run(*arguments: str, cwd: Path | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run([*HEADLOOM, *arguments], cwd=cwd or ROOT, env=environment(), capture_output=True, text=True)
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    return run


def environment() -> dict[str, str]:
    """Environment for child processes: this checkout is what they import."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}


@pytest.fixture(scope="session")
def takes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three short takes and ``takes.yaml``, their source manifest, beside it."""
    from tests.portrait import make_takes

    folder = tmp_path_factory.mktemp("session")
    make_takes(folder / "takes", takes=3, seconds=3.0)
    subprocess.run([*HEADLOOM, "scan", str(folder / "takes"), "-o", str(folder / "takes.yaml")], env=environment(), check=True)
    return folder / "takes"


@pytest.fixture(scope="session")
def dataset(takes: Path, headloom: Headloom) -> Path:
    """The dataset that ``talking_clips`` makes of the takes."""
    out = takes.parent / "dataset"
    headloom("build", "talking_clips", "--set", f"source={takes.parent / 'takes.yaml'}", "--out", str(out))
    return out


@pytest.fixture(scope="session")
def facetalk(tmp_path_factory: pytest.TempPathFactory, headloom: Headloom) -> Path:
    """A folder with ``models``, a capture by sixteen cameras in ``rig``, and ``data``, which ``facetalk_nphm`` makes of it."""
    folder = tmp_path_factory.mktemp("facetalk")
    options = ("--takes", "1", "--people", "1", "--cameras", "16", "--layout", "nersemble-v1", "--seconds", "0.2", "--seed", "1")
    headloom("studio", str(folder / "rig"), *options, "--size", "198x290", "--models", str(folder / "models"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADLOOM_MODELS", str(folder / "models"))
        headloom("build", "facetalk_nphm", *facetalk_settings(folder), "--out", str(folder / "data"), "--workers", "1")
    return folder


def facetalk_settings(folder: Path, **more: object) -> list[str]:
    """What makes the fixture's build small, and ``more``, where two underscores stand for a dot."""
    settings = {
        "source": folder / "rig" / "source.yaml",
        "stages.clouds.points": 8000,
        "stages.landmarks.noise_px": 0.3,
        "stages.identity.identities": folder / "rig" / "identities",
        "stages.identity.iterations": 40,
        "stages.identity.points": 200,
        "stages.nphm.points": 500,
        "stages.nphm.window": 4,
        "stages.meshes.count": 1,
        "stages.meshes.resolution": 32,
        **{name.replace("__", "."): value for name, value in more.items()},
    }
    return [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]


@pytest.fixture(scope="session")
def model_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every head-model file in its official layout, under its official name, filled with random numbers."""
    from tests.fitting.official_files import WRITERS

    folder = tmp_path_factory.mktemp("models")
    for write in WRITERS.values():
        write(folder)
    return folder


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real recordings and recorded numbers, which are not part of the repository."""
    if not SHARED.is_dir():
        pytest.skip("needs ../shared, real data that is not part of the repository")
    return SHARED
