"""A build that is killed at any moment and started again ends with the bytes of one that never was."""

import json
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from manifests.verify import verify
from tests.conftest import HEADLOOM, environment
from tests.portrait import make_takes

KILLS = 20


def command(folder: Path, out: str, *more: str) -> list[str]:
    return [*HEADLOOM, "build", "talking_clips", "--set", f"source={folder / 'takes.yaml'}", "--out", str(folder / out), *more]


def start(folder: Path, out: str) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen(command(folder, out), env=environment(), stdout=pipe, stderr=pipe, text=True, start_new_session=True)


@pytest.fixture(scope="module")
def takes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("killed")
    make_takes(folder / "takes", takes=3, seconds=3.0)
    subprocess.run([*HEADLOOM, "scan", str(folder / "takes"), "-o", str(folder / "takes.yaml")], env=environment(), check=True)
    return folder


def shards(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.parquet"))}


def results(store: Path) -> dict[str, int]:
    """Stored results and when each was written."""
    return {path.name: path.stat().st_mtime_ns for path in store.glob("??/*") if not path.name.startswith(".headloom-tmp-")}


@pytest.mark.timeout(600)
def test_killed_twenty_times_at_random_moments(takes: Path) -> None:
    began = time.monotonic()
    subprocess.run(command(takes, "whole"), env=environment(), check=True, capture_output=True)
    whole_s = time.monotonic() - began
    rng = random.Random(7)
    finished, kept = 0, {}
    for _ in range(KILLS):
        process = subprocess.Popen(
            command(takes, "killed"),
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        time.sleep(rng.uniform(0.3, whole_s))
        finished += process.poll() is not None
        process.kill()
        process.communicate()
        now = results(takes / "killed" / ".store")
        assert {key: now.get(key) for key in kept} == kept, "nothing that was done is done again"
        kept = now
    assert finished < KILLS, "some builds must have been cut short for this to say anything"
    subprocess.run(command(takes, "killed"), env=environment(), check=True, capture_output=True)
    assert {key: results(takes / "killed" / ".store").get(key) for key in kept} == kept
    assert shards(takes / "killed") == shards(takes / "whole")
    assert (takes / "killed" / "dataset.json").read_bytes() == (takes / "whole" / "dataset.json").read_bytes()
    assert list(verify(takes / "killed")) == []
    run = json.loads((takes / "killed" / "run.json").read_text())
    assert sum(row["reused"] for row in run["stages"]) >= len(kept)


def test_ctrl_c_says_how_to_go_on(takes: Path) -> None:
    process = subprocess.Popen(
        command(takes, "stopped"),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # What a shell starts in the background ignores Ctrl-C, and so would all that the tests start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 60
    while not (takes / "stopped" / ".store").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "run the same command to go on" in errors
    subprocess.run(command(takes, "stopped"), env=environment(), check=True, capture_output=True)
    assert list(verify(takes / "stopped")) == []
