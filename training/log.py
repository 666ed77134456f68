"""What a run writes while it goes on: a line of numbers for people and programs, TensorBoard, pictures."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from manifests.atomic import write_whole

LINES, BOARD, PICTURES = "log.jsonl", "tensorboard", "pictures"


class Log:
    """The log of the run in ``folder``, from ``step`` on: what was written of later steps is written again, so it goes.

    ``log.jsonl`` has a JSON object a line: ``step``, ``kind`` (``train`` or ``val``) and figures by name.
    """

    def __init__(self, folder: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._folder = folder
        kept = [line for line in read_log(folder) if line["step"] <= step]
        write_whole(folder / LINES, "".join(json.dumps(line) + "\n" for line in kept).encode())
        self._lines = (folder / LINES).open("a", buffering=1)
        self._board = SummaryWriter(str(folder / BOARD), purge_step=step + 1 if step else None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._lines.close()
        self._board.close()

    def figures(self, step: int, kind: str, figures: Mapping[str, float]) -> None:
        """Figures of a step; what is not finite is written as null, as JSON knows no such numbers."""
        plain = {name: value if math.isfinite(value) else None for name, value in figures.items()}
        self._lines.write(json.dumps({"step": step, "kind": kind, **plain}) + "\n")
        for name, value in figures.items():
            self._board.add_scalar(f"{kind}/{name}", value, step)

    def pictures(self, step: int, pictures: Mapping[str, NDArray[np.uint8]]) -> None:
        """RGB pictures (H, W, 3), as PNG files and for TensorBoard."""
        from PIL import Image

        for name, picture in pictures.items():
            path = self._folder / PICTURES / f"step-{step:08d}" / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(path)
            self._board.add_image(name, picture, step, dataformats="HWC")


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's ``log.jsonl``; a last line that was cut off is left out."""
    path = folder / LINES
    found = []
    for line in path.read_text().splitlines() if path.is_file() else ():
        try:
            found.append(json.loads(line))
        except ValueError:
            break
    return found
