"""The people's head models in the official formats, marked as stand-ins."""

from __future__ import annotations

import json
from pathlib import Path

from fitting.studio.bfm_file import write_bfm
from fitting.studio.flame_file import write_flame
from fitting.studio.nphm_file import write_nphm
from manifests import assets
from manifests.atomic import write_whole
from manifests.document import file_digest
from manifests.source import STAND_IN


def write_models(folder: Path) -> dict[str, Path]:
    """Write FLAME-like, BFM-like and NPHM-like files into ``folder``; returns their paths by the names of ``manifests.assets``.

    ``HEADLOOM_MODELS=folder`` makes all of headloom use them. Beside each lies a record, as ``headloom assets add`` writes it,
    that says it is a stand-in.
    """
    paths = write_flame(folder) | write_bfm(folder) | write_nphm(folder)
    for name, path in paths.items():
        record = {"asset": name, "sha256": file_digest(path), "bytes": path.stat().st_size, "source": STAND_IN}
        write_whole(assets.record_path(path), json.dumps(record, indent=1).encode())
    return paths
