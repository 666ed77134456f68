"""The report on a training run shows what its log and its folder hold."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from manifests.document import ManifestError
from pipelines.report_run import SAMPLES, write_run_report
from tests.training.toy import manifest, training, write_data
from training.run import begin, train


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toy")
    asked = manifest(write_data(folder / "data"), folder / "run", training=training(steps=4, validate_every=2), notes="a <toy>")
    train(begin(asked), lambda step, steps, figures: None)
    return folder / "run"


def test_the_page_has_curves_figures_pictures_and_the_manifest(run: Path, tmp_path: Path) -> None:
    write_run_report(run, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert "<b>loss</b>" in text
    assert text.count("<path class=") == 5  # loss and worst, trained and validated, and batches
    assert "4 of 4" in text
    assert "a &lt;toy&gt;" in text
    assert 'src="data:image/png;base64,' in text
    assert "tests.training.toy:Toy" in text
    assert 'id="samples"' not in text


def test_what_was_sampled_comes_first(run: Path, tmp_path: Path) -> None:
    (run / SAMPLES).mkdir()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(run / SAMPLES / "heard once.png")
    (run / SAMPLES / "samples.json").write_text(json.dumps({"figures": {"mouth_correlation": 0.81}, "notes": ["not <heard>"]}))
    write_run_report(run, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert text.index('id="samples"') < text.index('id="curves"')
    assert "heard once" in text
    assert "0.81" in text
    assert "not &lt;heard&gt;" in text


def test_a_run_that_logged_nothing_is_refused(run: Path, tmp_path: Path) -> None:
    (tmp_path / "manifest.yaml").write_bytes((run / "manifest.yaml").read_bytes())
    with pytest.raises(ManifestError, match="nothing is logged"):
        write_run_report(tmp_path, tmp_path / "report.html")
