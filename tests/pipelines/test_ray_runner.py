"""On Ray: the same bytes as on one machine, also when workers and nodes are lost on the way."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from manifests.dataset import DATASET_FILE, DatasetManifest
from manifests.verify import verify
from pipelines.build import build
from pipelines.local_runner import LocalRunner
from pipelines.runner import Runner
from pipelines.work import Workbench
from tests.pipelines.toys import toy_inputs

ray = pytest.importorskip("ray")
from ray.cluster_utils import Cluster  # noqa: E402

from pipelines.ray_runner import RayRunner  # noqa: E402

pytestmark = pytest.mark.timeout(180)

TAKES = {f"take {n}.txt": "slow" + "." * n for n in range(24)} | {"broken.txt": "broken"}


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Digest of the build on this machine without Ray."""
    folder = tmp_path_factory.mktemp("reference")
    return str(build(toy_inputs(folder, TAKES), folder / "out", lambda bench: LocalRunner(bench, 2))["digest"])


@pytest.fixture
def own_ray() -> Iterator[None]:
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="error")
    yield
    ray.shutdown()


def on_ray(bench: Workbench, workers: int = 2) -> Runner:
    return RayRunner(bench, workers)


def test_ray_gives_the_same_bytes(tmp_path: Path, own_ray: None, reference: str) -> None:
    assert build(toy_inputs(tmp_path, TAKES), tmp_path / "out", on_ray)["digest"] == reference


def results(out: Path) -> dict[Path, int]:
    """Stored results, and when each was written."""
    return {p: p.stat().st_mtime_ns for p in (out / ".store").glob("??/*") if not p.name.startswith(".")}


def test_a_killed_worker_changes_nothing_and_nothing_done_is_redone(tmp_path: Path, own_ray: None, reference: str) -> None:
    killed: list[int] = []
    before: dict[Path, int] = {}

    def kill_one(phase: str, done: int, *_: object) -> None:
        if phase == "takes" and done in (6, 13) and len(killed) < 2:
            pid = next(int(p) for p in workers_of_ray() if int(p) not in killed)
            killed.append(pid)
            os.kill(pid, signal.SIGKILL)
            before.update(results(tmp_path / "out"))

    run = build(toy_inputs(tmp_path, TAKES), tmp_path / "out", on_ray, kill_one)
    assert len(killed) == 2
    assert run["digest"] == reference
    assert before
    assert before.items() <= results(tmp_path / "out").items(), "what was done before a worker died is not done again"
    assert list(verify(tmp_path / "out")) == []


def workers_of_ray() -> list[str]:
    """Process ids of the actors at work, from their titles."""
    pids = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                title = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if title.startswith(b"ray::_Worker"):
                pids.append(entry.name)
    return pids


def test_an_item_that_kills_its_worker_twice_is_poisoned(tmp_path: Path, own_ray: None) -> None:
    inputs = toy_inputs(tmp_path, {"bad.txt": "crash", "good.txt": "good"})
    build(inputs, tmp_path / "out", on_ray)
    manifest = DatasetManifest.load(tmp_path / "out" / DATASET_FILE)
    assert manifest.clips == 4
    assert next(a for a in manifest.accounting if a.stage == "probe").failed == {"crash": 1}


def test_a_lost_node_changes_nothing(tmp_path: Path, reference: str) -> None:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    second = cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="error")
    lost = threading.Event()
    before: dict[Path, int] = {}

    def lose_node(phase: str, done: int, *_: object) -> None:
        if phase == "takes" and done >= 8 and not lost.is_set():
            lost.set()
            cluster.remove_node(second, allow_graceful=False)
            before.update(results(tmp_path / "out"))

    try:
        run = build(toy_inputs(tmp_path, TAKES), tmp_path / "out", lambda bench: on_ray(bench, 4), lose_node)
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert lost.is_set()
    assert run["digest"] == reference
    assert before
    assert before.items() <= results(tmp_path / "out").items()
    assert list(verify(tmp_path / "out")) == []


def test_results_that_cross_ray_are_small(tmp_path: Path) -> None:
    """Only keys and counts come back: no picture and no sound."""
    import pickle

    from pipelines.execute import TakeRun
    from pipelines.store import Store

    inputs = toy_inputs(tmp_path, {"a.txt": "good"})
    began = time.monotonic()
    report = TakeRun(inputs.plan, Store(str(tmp_path / "store")), inputs.tasks()[0]).run()
    assert len(pickle.dumps(report)) < 8000
    assert time.monotonic() - began < 60
