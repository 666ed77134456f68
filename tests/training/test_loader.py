"""Batches: the same whatever the ranks and workers, from any step on."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from manifests.document import ManifestError
from manifests.reader import Dataset
from manifests.training import Range, Split, Window
from tests.manifests.small_dataset import write_dataset
from training.loader import Samples, loader, samples_of

COLUMNS = ("face_box", "mel", "sharpness")
WINDOW = Window(length=3, context=(1, 0), edge="clamp")


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    folder = tmp_path_factory.mktemp("small")
    write_dataset(folder, clips=7, clips_per_part=4)
    return samples_of(Dataset(folder), COLUMNS, WINDOW)


def shown(samples: Samples, batch: int, steps: range, ranks: int = 1, workers: int = 0) -> list[list[tuple[int, int]]]:
    """Clip and first frame of all samples of each step, over all ranks."""
    parts = [
        list(loader(samples, batch, first_step=steps.start, last_step=steps.stop, rank=rank, ranks=ranks, workers=workers))
        for rank in range(ranks)
    ]
    return [
        [place for part in step for place in zip(part["clip"].tolist(), part["first"].tolist(), strict=True)]
        for step in zip(*parts, strict=True)
    ]


@pytest.mark.parametrize("ranks", [2, 3, 8])
def test_ranks_share_the_batches_of_one(samples: Samples, ranks: int) -> None:
    assert shown(samples, 8, range(6), ranks) == shown(samples, 8, range(6))


@pytest.mark.parametrize("workers", [1, 4])
def test_workers_change_nothing(samples: Samples, workers: int) -> None:
    assert shown(samples, 4, range(6), workers=workers) == shown(samples, 4, range(6))


@pytest.mark.parametrize("ranks", [1, 3])
def test_a_run_goes_on_at_any_step_with_any_number_of_ranks(samples: Samples, ranks: int) -> None:
    whole = shown(samples, 4, range(12))
    assert whole[:5] + shown(samples, 4, range(5, 12), ranks) == whole


def test_an_epoch_shows_every_window_once(samples: Samples) -> None:
    count = len(samples)
    seen = [place for step in shown(samples, 1, range(2 * count)) for place in step]
    assert sorted(seen[:count]) == sorted(seen[count:]) == sorted(set(seen))
    assert seen[:count] != seen[count:]
    assert count == int(samples.counts.sum()) == len(set(seen))


def test_batches_hold_what_the_dataset_does(samples: Samples) -> None:
    batch = next(loader(samples, 5, last_step=1))
    assert batch["face_box"].shape == (5, 4, 4)
    assert batch["mel"].shape == (5, 80, 13)
    assert batch["replaced"] == 0
    for clip, first, boxes, sharpness in zip(
        batch["clip"].tolist(), batch["first"].tolist(), batch["face_box"], batch["sharpness"], strict=True
    ):
        held = samples.dataset.read(clip, "face_box", "sharpness")
        frames = np.clip(np.arange(first - 1, first + 3), 0, None)
        torch.testing.assert_close(boxes, torch.from_numpy(held["face_box"][frames]))
        assert float(sharpness) == pytest.approx(held["sharpness"])


def test_a_damaged_clip_is_replaced_the_same_way_each_time_and_counted(samples: Samples, monkeypatch: pytest.MonkeyPatch) -> None:
    intact = Dataset.read

    def read(self: Dataset, clip: int, *names: str) -> dict[str, Any]:
        if clip == 2:
            raise OSError("damaged")
        return intact(self, clip, *names)

    monkeypatch.setattr(Dataset, "read", read)
    steps = len(samples)
    batches = [list(loader(samples, 1, last_step=steps)) for _ in range(2)]
    places = [[(batch["clip"].item(), batch["first"].item()) for batch in run] for run in batches]
    assert places[0] == places[1]
    assert sum(batch["replaced"] for batch in batches[0]) == int(samples.counts[2])
    assert 2 not in {clip for clip, _ in places[0]}


def test_what_cannot_be_trained_on_is_said_before_the_first_step(tmp_path: Path, samples: Samples) -> None:
    data = samples.dataset
    with pytest.raises(ManifestError, match="holds no column 'mell'; did you mean 'mel'"):
        samples_of(data, ("mell",), WINDOW)
    with pytest.raises(ManifestError, match="no clip is left by the filter on sharpness; it has"):
        samples_of(data, COLUMNS, WINDOW, accepted={"sharpness": Range(min=3.0)})
    with pytest.raises(ManifestError, match="a window of 90 frames is longer than every clip; the longest has 11"):
        samples_of(data, COLUMNS, Window(length=90))


def test_a_filter_and_a_split_choose_clips(dataset: Path) -> None:
    data = Dataset(dataset)
    parts = [samples_of(data, ("mel",), WINDOW, split=Split(train=0.5, val=0.5), part=part) for part in ("train", "val")]
    rows = [set(part.rows.tolist()) for part in parts]
    assert rows[0] | rows[1] == set(range(len(data)))
    assert not rows[0] & rows[1]
    with pytest.raises(ManifestError, match="no person is in the part test"):
        samples_of(data, ("mel",), WINDOW, split=Split(), part="test")
