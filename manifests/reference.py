"""Writes what is made from the contract: the page of columns and the JSON Schemas. ``python -m manifests.reference``."""

from __future__ import annotations

import json
from pathlib import Path

from manifests.atomic import write_whole
from manifests.columns import reference_page
from manifests.dataset import DatasetManifest
from manifests.document import Manifest
from manifests.recipe import Recipe
from manifests.source import SourceItem, SourceManifest
from manifests.training import TrainingManifest

_MANIFESTS: tuple[type[Manifest], ...] = (SourceManifest, Recipe, DatasetManifest, TrainingManifest)


def generated() -> dict[str, str]:
    """Text of each generated file by its path from the repository's root."""
    files = {"docs/columns.md": reference_page()}
    schemas = {manifest.kind: manifest.model_json_schema() for manifest in _MANIFESTS}
    schemas["source-item"] = SourceItem.model_json_schema()
    for name, schema in schemas.items():
        files[f"manifests/schemas/{name}.json"] = json.dumps(schema, indent=1, ensure_ascii=False) + "\n"
    return files


def main() -> None:
    """Write all generated files."""
    root = Path(__file__).parent.parent
    for path, text in generated().items():
        write_whole(root / path, text.encode())


if __name__ == "__main__":
    main()
