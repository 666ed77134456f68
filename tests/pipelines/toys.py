"""Stages that cost nothing and misbehave on demand, and builds of them. The "video" is a file of text."""

import os
import signal
import time
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from manifests.document import file_digest
from manifests.recipe import Limit, Recipe
from manifests.source import SourceItem, SourceManifest, VideoFacts
from manifests.stage import Done, Needs, Outcome, Rejected, Stage, Take, Unreadable
from pipelines.build import Inputs
from pipelines.plan import Plan, PlannedStage, _check_order


class Look(Stage):
    """Reads a take and does what its text says: a number of clips, or a misdeed."""

    name: ClassVar[str] = "probe"
    version: ClassVar[int] = 1
    level: ClassVar[Any] = "take"
    writes: ClassVar[tuple[str, ...]] = ("duration_s", "audio_channels")
    needs: ClassVar[Needs] = Needs(grace_s=1.5, patience=0.0)

    def run(self, take: Take) -> Outcome:
        text = Path(take.path).read_text()
        if text.startswith("broken"):
            raise Unreadable("the text is broken")
        if text.startswith("strange"):
            raise RuntimeError("did not expect that")
        if text.startswith("poor"):
            raise OSError(28, "No space left on device")
        if text.startswith("unfit"):
            return Rejected("too strange", 0.5, 0.7, "a longer story")
        if text.startswith("crash"):
            os.kill(os.getpid(), signal.SIGKILL)
        if text.startswith("hang"):
            time.sleep(1000)
        if text.startswith("slow"):
            time.sleep(0.3)
        return Done({"duration_s": 1.0, "audio_channels": len(text)})


class CutUp(Stage):
    """As many clips as the text has letters."""

    name: ClassVar[str] = "cut"
    version: ClassVar[int] = 1
    level: ClassVar[Any] = "take"
    cuts: ClassVar[bool] = True
    writes: ClassVar[tuple[str, ...]] = ("clip_id", "start_us", "n_frames", "fps_num", "fps_den", "motion")

    def run(self, take_id: str, audio_channels: int) -> Outcome:
        clip = {"start_us": 0, "n_frames": 5, "fps_num": 25, "fps_den": 1}
        return Done(
            clips=[
                {"clip_id": f"{take_id[:8]}-{n}", "motion": float(n), **clip, "start_us": n} for n in range(audio_channels % 5)
            ]
        )


class Sing(Stage):
    """A wave that follows from the clip and a parameter."""

    name: ClassVar[str] = "sound"
    version: ClassVar[int] = 1
    writes: ClassVar[tuple[str, ...]] = ("wave", "loudness_dbfs")

    pitch: int = 1

    def run(self, clip_id: str, n_frames: int) -> Outcome:
        seed = [self.pitch, *clip_id.encode()]
        wave = np.random.default_rng(seed).integers(-999, 999, n_frames * 640, dtype=np.int16)
        return Done({"wave": wave, "loudness_dbfs": -float(len(clip_id))})


class Blur(Stage):
    """A score of its own, which does not read the wave."""

    name: ClassVar[str] = "quality"
    version: ClassVar[int] = 1
    writes: ClassVar[tuple[str, ...]] = ("sharpness",)

    def run(self, start_us: int) -> Outcome:
        return Done({"sharpness": start_us / 10})


class Listen(Stage):
    """Reads the wave, so it runs again when the wave's stage changes."""

    name: ClassVar[str] = "mel"
    version: ClassVar[int] = 1
    writes: ClassVar[tuple[str, ...]] = ("mel",)

    gain: int = 1

    def run(self, wave: np.ndarray) -> Outcome:
        return Done({"mel": np.tile(self.gain * wave[:16].astype(np.float32), (80, 1))})


def toy_plan(pitch: int = 1, gain: int = 1, limits: dict[str, Limit] | None = None) -> Plan:
    stages = tuple(PlannedStage(stage, {}, {}) for stage in (Look(), CutUp(), Sing(pitch=pitch), Blur(), Listen(gain=gain)))
    _check_order(stages)
    return Plan(stages, limits or {})


def toy_inputs(folder: Path, texts: dict[str, str], plan: Plan | None = None, **recipe: Any) -> Inputs:
    """A build over text files; ``texts`` maps file names to contents."""
    (folder / "takes").mkdir(parents=True, exist_ok=True)
    items = []
    for name, text in texts.items():
        path = folder / "takes" / name
        if not path.is_file() or path.read_text() != text:
            path.write_text(text)
        facts = VideoFacts(codec="text", width=1, height=1, fps=25, frames=25, duration_s=1.0)
        items.append(SourceItem(uri=name, root="takes", sha256=file_digest(path), bytes=path.stat().st_size, video=facts))
    source = SourceManifest.write(folder / "toys.yaml", "toys", {"takes": "takes"}, items)
    values = {
        "format": "headloom/recipe",
        "name": "toys",
        "stages": {"probe": {}},
        "families": ["clips", "audio"],
        "clips_per_part": 4,
    }
    return Inputs(Recipe.parse(values | recipe, "toys"), source, items, folder, plan or toy_plan())
