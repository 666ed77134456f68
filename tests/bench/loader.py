"""The loader against the loaders that others use, on the same clips, in one process, in turns.

*Codes*: all windows of 48 frames of ``nphm_expression`` and ``mel``, 32 to a batch. *Frames*: pairs of frames of a clip's
``video256``, every frame with another one, 32 pairs to a batch. Time is the processor's, of a whole epoch by a new loader.

The peers store a clip as one sample, arrays as they are, films the same mp4. Each is used in two ways, and the fastest of all
counts: *at random*, a clip read for each window, where the peer can do that; *in line*, clips one after the other, all windows of
each through a buffer that shuffles and holds the windows of 64 clips, as many as the loader mixes. The two frames of a pair are
decoded by themselves. ``frames_vs_whole_films`` compares with peers in line that decode whole films and make all pairs of each:
every frame is decoded once, and the buffer holds some hundred megabytes of pictures; the loader's ``cache_mb`` is 512.

*Memory*: peak of anonymous memory of a process that reads one column of a file of 400 MB, above that after its imports: the
loader, showing all windows of every fourth frame in random order with ``cache_mb`` 32, against ``pyarrow.dataset`` as it comes.

Peers are no dependencies of headloom; those that do not import are left out. To have them::

    pip install --no-deps mosaicml-streaming litdata webdataset braceexpand lightning-utilities boto3 botocore s3transfer \
        jmespath brotli python-snappy cramjam zstd xxhash catalogue paramiko
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from rich.console import Console
from skimage import data

from fitting.studio.nphm_codes import nphm_expression
from fitting.studio.performance import perform
from fitting.studio.speaker import Speaker
from manifests.reader import Dataset
from manifests.training import Window
from prep.encode import decode_mp4, encode_mp4
from prep.mel import mel_spectrogram
from tests.bench._loader_peers import PEERS, Clip, Peer, random_windows, shuffled
from tests.manifests.datasets import write_clips
from training.loader import loader
from training.mixture import Mixture
from training.model import Needs, Partner
from training.samples import samples_of

GOALS = {
    "codes_vs_best_peer": ">= 1.0",
    "frames_vs_best_peer": ">= 0.9",
    "memory_vs_pyarrow_default": "<= 0.25",
}
FPS, BATCH, CACHE_MB = 24, 32, 512
CLIPS_MIXED = 64
"""As in ``training.order``."""
ROUNDS = 5
LENGTH, MEL_LENGTH = 48, 160


@dataclass(frozen=True)
class Task:
    """What is read, and how a clip's window, of which there are ``count``, is cut by somebody else's hand."""

    needs: Needs
    clips: list[Clip]
    count: Callable[[Clip], int]
    cut: Callable[[Clip, int], Clip]
    peers_batches: int
    """After so many the speed of a peer is known."""


def run() -> dict[str, float]:
    """The figures of ``GOALS``, and samples a second of each loader."""
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tasks = {"codes": _codes(), "frames": _frames()}
        for task, given in tasks.items():
            speeds = _race(folder / task, given)
            figures |= {f"{task}_per_s {who}": speed for who, speed in speeds.items()}
            peers = [speed for who, speed in speeds.items() if who not in ("headloom",) and "whole films" not in who]
            figures |= {f"{task}_vs_best_peer": speeds["headloom"] / max(peers)} if peers else {}
            whole = [speed for who, speed in speeds.items() if "whole films" in who]
            figures |= {f"{task}_vs_whole_films": speeds["headloom"] / max(whole)} if whole else {}
        figures |= _memory(folder / "memory")
    return figures


def _codes() -> Task:
    """What twelve of the studio's people say in 4 to 8 seconds each."""
    rng = np.random.default_rng(0)
    clips = []
    for number in range(96):
        n_frames = int(rng.integers(4, 9)) * FPS
        acted = perform(Speaker.draw(np.random.default_rng(number % 12)), n_frames / FPS, number, sample_rate=16_000)
        controls = acted.at(np.arange(n_frames) / FPS)
        codes = nphm_expression(controls.expression, controls.jaw).astype(np.float32)
        clips.append({"n_frames": n_frames, "nphm_expression": codes, "mel": mel_spectrogram(acted.sound)})

    def cut(clip: Clip, number: int) -> Clip:
        start = 80 * number // FPS
        return {"codes": clip["nphm_expression"][number : number + LENGTH], "mel": clip["mel"][:, start : start + MEL_LENGTH]}

    needs = Needs(("nphm_expression", "mel"), Window(length=LENGTH))
    return Task(needs, clips, lambda clip: len(clip["nphm_expression"]) - LENGTH + 1, cut, 100)


def _frames() -> Task:
    """The portrait that scikit-image ships, held by an unsteady hand: 32 films of 4 seconds."""
    n_frames = 4 * FPS
    clips = [{"n_frames": n_frames, "video256": _film(number, n_frames)} for number in range(32)]

    def cut(clip: Clip, number: int) -> Clip:
        other = (number + 1 + number * 37 % (n_frames - 1)) % n_frames
        one, two = decode_mp4(clip["video256"], [number, other])
        return {"one": one[None], "two": two[None]}

    needs = Needs(("video256",), Window(length=1), {"source": Partner("same_clip", ("video256",))})
    return Task(needs, clips, lambda clip: n_frames, cut, 4)


def _film(seed: int, n_frames: int) -> bytes:
    rng = np.random.default_rng(seed)
    portrait = data.astronaut()
    planes = []
    for time_s in np.arange(n_frames) / FPS + rng.uniform(0, 9):
        shift = 20 * np.sin([2.1 * time_s, 2.9 * time_s])
        turned = cv2.getRotationMatrix2D((220.0, 130.0), 6 * np.sin(1.7 * time_s), 1.1 + 0.05 * np.sin(1.3 * time_s))
        turned[:, 2] += shift
        picture = cv2.resize(cv2.warpAffine(portrait, turned, (512, 512)), (256, 256), interpolation=cv2.INTER_AREA)
        picture = np.clip(picture + rng.normal(0, 1.5, picture.shape), 0, 255).astype(np.uint8)
        luma, blue, red = np.split(cv2.cvtColor(picture, cv2.COLOR_RGB2YUV_I420), [256, 320])
        planes.append((luma, blue.reshape(128, 128), red.reshape(128, 128)))
    return encode_mp4(planes, 256, 256, Fraction(FPS))


def _race(folder: Path, task: Task) -> dict[str, float]:
    """Samples in a second of processor time of every contestant: the median of some rounds, all of them in turn in each."""
    write_clips(folder / "headloom", task.clips, clips_per_part=len(task.clips))
    stored = [{name: value for name, value in clip.items() if name != "n_frames"} for clip in task.clips]
    counts = [task.count(clip) for clip in stored]
    epoch, buffer = sum(counts) // BATCH, CLIPS_MIXED * sum(counts) // len(counts)
    contestants: dict[str, tuple[int, Iterator[Any]]] = {}
    for name, kind in PEERS.items():
        try:
            peer = kind(folder / name, stored)
        except ImportError as error:
            Console().print(f"{name} is left out: {error}")
            continue
        some = min(epoch, task.peers_batches)
        contestants[f"{name} in line"] = some, _batches(shuffled(_all_windows(peer, task), buffer))
        if peer.at_random:
            contestants[f"{name} at random"] = some, _batches(_single_windows(peer, task, counts))
        if "video256" in stored[0]:
            contestants[f"{name} whole films"] = epoch, _batches(shuffled(_pairs_of_whole_films(peer), buffer))
    for _, shown in contestants.values():
        next(shown)
    speeds: dict[str, list[float]] = {name: [] for name in ("headloom", *contestants)}
    for _ in range(ROUNDS):
        # A new loader, which has nothing in memory, and the rest of an epoch: as of the peers, the first batch is not counted.
        mixture = Mixture([samples_of(Dataset(folder / "headloom"), task.needs)])
        ours = loader(mixture, BATCH, last_step=epoch, cache_mb=CACHE_MB)
        next(ours)
        for name, (batches, shown) in {"headloom": (epoch - 1, ours), **contestants}.items():
            began = time.process_time()
            for _ in islice(shown, batches):
                pass
            speeds[name].append(batches * BATCH / (time.process_time() - began))
    return {name: float(np.median(found)) for name, found in speeds.items()}


def _all_windows(peer: Peer, task: Task) -> Iterator[Clip]:
    for clip in peer.in_line():
        for number in range(task.count(clip)):
            yield task.cut(clip, number)


def _single_windows(peer: Peer, task: Task, counts: Sequence[int]) -> Iterator[Clip]:
    assert peer.at_random
    for clip, number in random_windows(counts):
        yield task.cut(peer.at_random(clip), number)


def _pairs_of_whole_films(peer: Peer) -> Iterator[Clip]:
    for clip in peer.in_line():
        frames = decode_mp4(clip["video256"])
        for number, other in enumerate(np.random.default_rng(0).permutation(len(frames)).tolist()):
            yield {"one": frames[number, None], "two": frames[other, None]}


def _batches(windows: Iterator[Clip]) -> Iterator[dict[str, torch.Tensor]]:
    while True:
        shown = list(islice(windows, BATCH))
        yield {name: torch.from_numpy(np.stack([window[name] for window in shown])) for name in shown[0]}


def _memory(folder: Path) -> dict[str, float]:
    rng = np.random.default_rng(0)
    steps = rng.normal(0, 0.05, (375, 200)).astype(np.float32)
    clips = [{"n_frames": 375, "nphm_expression": np.cumsum(rng.permuted(steps, axis=0), axis=0)} for _ in range(1300)]
    write_clips(folder, clips, clips_per_part=len(clips))
    code = "import sys; from tests.bench import loader; print(loader.peak_mb(sys.argv[1], sys.argv[2]))"
    peaks = {
        way: float(
            subprocess.run([sys.executable, "-c", code, way, str(folder)], check=True, capture_output=True, text=True).stdout
        )
        for way in ("headloom", "pyarrow")
    }
    figures = {f"memory_mb {way}": peak for way, peak in peaks.items()}
    return figures | {"memory_vs_pyarrow_default": peaks["headloom"] / peaks["pyarrow"]}


def peak_mb(way: str, folder: str) -> float:
    """Most anonymous memory (MB) of this process while the column is read, above that before."""
    peak = before = _anonymous_mb()
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.002):
            peak = max(peak, _anonymous_mb())

    watcher = threading.Thread(target=watch)
    watcher.start()
    {"headloom": _read_by_us, "pyarrow": _read_by_pyarrow}[way](folder)
    done.set()
    watcher.join()
    return peak - before


def _read_by_us(folder: str) -> None:
    mixture = Mixture([samples_of(Dataset(folder), Needs(("nphm_expression",), Window(length=LENGTH, stride=4)))])
    for _ in loader(mixture, BATCH, last_step=mixture.steps_per_epoch(BATCH), cache_mb=32):
        pass


def _read_by_pyarrow(folder: str) -> None:
    import pyarrow.dataset

    for _ in pyarrow.dataset.dataset(Path(folder) / "nphm", format="parquet").to_batches(columns=["nphm_expression"]):
        pass


def _anonymous_mb() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024
