"""``make bench`` runs all benchmarks, ``make bench ONLY=loom`` one; each writes ``build/bench/<name>.json``, none fails."""

from __future__ import annotations

import importlib
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from pipelines.environment import environment

ROOT = Path(__file__).parents[2]


def machine() -> dict[str, object]:
    """What the figures were measured on."""
    return {"processor": platform.processor() or platform.machine(), "system": platform.system(), "cores": os.cpu_count()}


def commit() -> str:
    found = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return found.stdout.strip()


def main(names: list[str]) -> None:
    for name in names or sorted(path.stem for path in Path(__file__).parent.glob("[a-z]*.py")):
        bench = importlib.import_module(f"tests.bench.{name}")
        figures = bench.run()
        out = ROOT / "build" / "bench" / f"{name}.json"
        out.parent.mkdir(parents=True, exist_ok=True)
        result = {"figures": figures, "machine": machine(), "versions": environment(), "commit": commit()}
        out.write_text(json.dumps(result, indent=1))
        table = Table("figure", "value", "goal", title=f"{name} -> {out.relative_to(ROOT)}", title_justify="left")
        for figure, value in figures.items():
            table.add_row(figure, f"{value:.4g}", bench.GOALS.get(figure, ""))
        Console().print(table)


if __name__ == "__main__":
    main(sys.argv[1:])
