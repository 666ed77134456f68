"""The house rule: each folder imports only those above it, and Ray only where it is allowed."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import environment

ROOT = Path(__file__).parent.parent
FLOORS = ["manifests", "prep", "fitting", "training", "pipelines"]
RAY_ROOMS = {"pipelines/ray_runner.py", "training/ray_launch.py"}
HEAVY = {"ray", "torch"}


def imported_packages(path: Path) -> set[str]:
    """Top-level names of everything that a file imports, also inside functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are written from the top"
            names.add((node.module or "").split(".")[0])
    return names


def rooms(floor: str) -> list[Path]:
    return sorted((ROOT / floor).rglob("*.py"))


@pytest.mark.parametrize("floor", FLOORS)
def test_imports_only_from_the_floors_above(floor: str) -> None:
    below = set(FLOORS[FLOORS.index(floor) + 1 :]) | {"tests"}
    wrong = {str(path.relative_to(ROOT)): sorted(imported_packages(path) & below) for path in rooms(floor)}
    assert {path: names for path, names in wrong.items() if names} == {}


def test_ray_is_imported_in_its_rooms_only() -> None:
    users = {path.relative_to(ROOT).as_posix() for floor in FLOORS for path in rooms(floor) if "ray" in imported_packages(path)}
    assert users <= RAY_ROOMS


def test_the_ground_floor_is_plain_data() -> None:
    media = {"av", "cv2", "scipy", "skimage", "soundfile", "noisereduce"}
    for path in rooms("manifests"):
        assert not imported_packages(path) & (HEAVY | media), path


def test_reading_a_dataset_and_asking_for_help_need_no_decoder() -> None:
    """With the decoders, Ray and Torch blocked, the reader and the command line still import."""
    blocked = ["av", "cv2", "scipy", "skimage", "soundfile", "noisereduce", "torch", "ray"]
    code = f"import sys; sys.modules.update(dict.fromkeys({blocked})); import manifests.reader, manifests.verify, pipelines.cli"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_wrong_arrow_is_noticed(tmp_path: Path) -> None:
    room = tmp_path / "room.py"
    room.write_text("def late():\n    from pipelines.build import build\n    return build\n")
    assert "pipelines" in imported_packages(room)


def test_no_room_is_a_drawer() -> None:
    for floor in FLOORS:
        for path in rooms(floor):
            assert path.stem not in {"utils", "util", "helpers", "misc", "common"}, path
            assert len(path.read_text("utf-8").splitlines()) <= 600, f"{path} is too long to be one subject"
