"""Several datasets in one run."""

from pathlib import Path

import numpy as np
import pytest

from manifests.document import ManifestError
from manifests.reader import Dataset
from manifests.training import Window
from tests.manifests.datasets import write_clips
from training.mixture import CYCLE, Mixture
from training.model import Needs
from training.order import Order, key_of
from training.samples import Samples, samples_of

WINDOW = Window(length=3)
NEEDS = Needs(("frame_number", "sharpness"), WINDOW)


def small(folder: Path, clips: int, **more: object) -> Samples:
    rows = [
        {"n_frames": 5 + n, "sharpness": n / 10, "frame_number": np.arange(5 + n, dtype=np.int32), **more} for n in range(clips)
    ]
    write_clips(folder, rows, name=f"{folder.name}{clips}")
    return samples_of(Dataset(folder), NEEDS)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Samples]:
    folder = tmp_path_factory.mktemp("mixture")
    return [small(folder / name, clips) for name, clips in (("a", 3), ("b", 7), ("c", 2))]


def test_one_dataset_is_shown_in_its_own_order(samples: list[Samples]) -> None:
    positions = np.arange(2 * CYCLE)
    dataset, sample = Mixture(samples[:1], seed=4)(positions)
    assert not dataset.any()
    digest = samples[0].dataset.manifest.digest
    np.testing.assert_array_equal(sample, Order(samples[0].counts, key_of(digest, 4))(positions))


def test_each_dataset_has_its_share_of_every_stretch(samples: list[Samples]) -> None:
    weights = [0.5, 0.3, 0.2]
    dataset, _ = Mixture(samples, weights)(np.arange(3 * CYCLE))
    for stretch in dataset.reshape(3, CYCLE):
        assert np.abs(np.bincount(stretch) / CYCLE - weights).max() <= 2 / CYCLE
    assert np.abs(np.bincount(dataset[:512]) / 512 - weights).max() < 0.08


def test_a_small_weight_is_not_forgotten(samples: list[Samples]) -> None:
    dataset, _ = Mixture(samples, [1e6, 1e6, 1e-6])(np.arange(CYCLE))
    assert np.bincount(dataset).tolist() == [CYCLE // 2, CYCLE // 2 - 1, 1]


def test_each_dataset_goes_through_its_windows_in_its_order(samples: list[Samples]) -> None:
    mixture = Mixture(samples, [0.5, 0.3, 0.2], seed=9)
    dataset, sample = mixture(np.arange(3 * CYCLE))
    for number, part in enumerate(samples):
        own = sample[dataset == number]
        order = Order(part.counts, key_of(part.dataset.manifest.digest, 9))
        np.testing.assert_array_equal(own, order(np.arange(len(own))))


def test_a_position_is_known_without_those_before_it(samples: list[Samples]) -> None:
    mixture = Mixture(samples, [1, 2, 3])
    dataset, sample = mixture(np.arange(10**6, 10**6 + 64))
    again = mixture(np.array([10**6 + 17]))
    assert (again[0][0], again[1][0]) == (dataset[17], sample[17])


def test_weights_are_relative(samples: list[Samples]) -> None:
    positions = np.arange(100)
    for one, other in zip(Mixture(samples, [1, 2, 3])(positions), Mixture(samples, [10, 20, 30])(positions), strict=True):
        np.testing.assert_array_equal(one, other)


def test_an_epoch_is_as_many_samples_as_there_are_windows(samples: list[Samples]) -> None:
    mixture = Mixture(samples, [1, 1, 1])
    assert len(mixture) == sum(int(part.counts.sum()) for part in samples) == 61
    assert mixture.steps_per_epoch(10) == 7
    assert mixture.steps_per_epoch(1000) == 1


def test_whole_clips_come_once_in_storage_order(samples: list[Samples], monkeypatch: pytest.MonkeyPatch) -> None:
    mixture = Mixture(samples[:2], [1, 1])
    lengths = [len(clip["frame_number"]) for clip in mixture.whole_clips()]
    assert lengths == [5, 6, 7, *range(5, 12)]
    intact = Dataset.read

    def read(self: Dataset, clip: int, *names: str) -> dict[str, object]:
        if clip == 1:
            raise OSError("damaged")
        return intact(self, clip, *names)

    monkeypatch.setattr(Dataset, "read", read)
    assert [len(clip["frame_number"]) for clip in mixture.whole_clips()] == [5, 7, 5, *range(7, 12)]


def test_one_frame_rate_is_wanted(samples: list[Samples], tmp_path: Path) -> None:
    assert Mixture(samples, [1, 1, 1]).fps == (24, 1)
    other = small(tmp_path / "other", 2, fps_num=30000, fps_den=1001)
    assert Mixture([other]).fps == (30000, 1001)
    with pytest.raises(ManifestError, match=r"clips have 24, 29.97 frames a second; choose one by a filter on fps_num"):
        Mixture([samples[0], other], [1, 1])


def test_a_column_is_of_one_kind_everywhere(samples: list[Samples], monkeypatch: pytest.MonkeyPatch) -> None:
    changed = {**samples[1].dataset.columns}
    changed["frame_number"] = changed["sharpness"]
    monkeypatch.setattr(samples[1].dataset, "columns", changed)
    with pytest.raises(ManifestError, match=r"column frame_number is .* no batch can hold both"):
        Mixture(samples, [1, 1, 1])
