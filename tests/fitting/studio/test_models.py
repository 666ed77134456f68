"""All model files of the studio at once: headloom finds them, reads them, and knows that they are stand-ins."""

from pathlib import Path

import pytest

from fitting.studio.models import write_models
from manifests import assets
from manifests.source import STAND_IN
from pipelines.model_files import problems


def test_headloom_takes_them_for_the_official_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = write_models(tmp_path)
    monkeypatch.setenv("HEADLOOM_MODELS", str(tmp_path))
    for name, path in paths.items():
        assert assets.find(name) == path
        assert problems(name) == []
        assert assets.record(path)["source"] == STAND_IN
    assert {"flame2020", "bfm", "nphm-identity", "nphm-expression", "nphm-anchors", "nphm-backward"} <= set(paths)
