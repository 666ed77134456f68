"""Batches: the same whatever the ranks and workers, from any step on."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import torch
from fsspec.implementations.memory import MemoryFile

from manifests.document import ManifestError
from manifests.reader import Dataset
from manifests.training import Window
from prep.encode import decode_mp4
from tests.manifests.datasets import write_clips
from tests.training.test_films import small_film
from training.loader import Batch, _Cache, _Steps, loader
from training.mixture import Mixture
from training.model import Needs, Partner
from training.samples import samples_of

WINDOW = Window(length=3, context=(1, 0), edge="clamp")
COLUMNS = ("face_box", "mel", "sharpness", "take_id")
NEEDS = Needs(
    COLUMNS,
    WINDOW,
    {"other": Partner("other_person", ("mel",)), "near": Partner("same_clip", ("face_box",))},
)


def clip(number: int, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng([seed, number])
    frames = 5 + number
    return {
        "n_frames": frames,
        "person": "abc"[number % 3],
        "sharpness": 0.1 * number,
        "face_box": rng.normal(size=(frames, 4)).astype(np.float32),
        "mel": rng.normal(size=(80, frames * 80 // 24)).astype(np.float32),
        "frame_number": np.arange(frames, dtype=np.int32),
    }


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("loader")
    for name, clips in (("one", 7), ("two", 4)):
        write_clips(root / name, [clip(number, clips) for number in range(clips)], name=name)
    return [root / "one", root / "two"]


@pytest.fixture(scope="module")
def one(folders: list[Path]) -> Mixture:
    return Mixture([samples_of(Dataset(folders[0]), Needs(COLUMNS, WINDOW))])


@pytest.fixture(scope="module")
def two(folders: list[Path]) -> Mixture:
    return Mixture([samples_of(Dataset(folder), NEEDS) for folder in folders], [2, 1], seed=3)


def shown(mixture: Mixture, batch: int, steps: range, ranks: int = 1, workers: int = 0) -> list[list[tuple[object, ...]]]:
    """Dataset, clip, first frame, sum and partners' clips and first frames of all samples of each step, over all ranks."""
    parts = [
        list(loader(mixture, batch, first_step=steps.start, last_step=steps.stop, rank=rank, ranks=ranks, workers=workers))
        for rank in range(ranks)
    ]
    return [[row for part in step for row in _rows(part)] for step in zip(*parts, strict=True)]


def _rows(batch: Batch) -> list[tuple[object, ...]]:
    names = [name for name in batch if name.split(".")[-1] in ("dataset", "clip", "first")]
    sums = [batch[name].flatten(1).sum(1) for name in batch if name.split(".")[-1] in ("face_box", "mel")]
    return list(zip(*(values.tolist() for values in [*(batch[name] for name in sorted(names)), *sums]), strict=True))


@pytest.mark.parametrize("ranks", [2, 3, 8])
@pytest.mark.parametrize("which", ["one", "two"])
def test_ranks_share_the_batches_of_one(which: str, ranks: int, request: pytest.FixtureRequest) -> None:
    mixture = request.getfixturevalue(which)
    assert shown(mixture, 8, range(6), ranks) == shown(mixture, 8, range(6))


@pytest.mark.parametrize("workers", [1, 4])
def test_workers_change_nothing(two: Mixture, workers: int) -> None:
    assert shown(two, 4, range(6), workers=workers) == shown(two, 4, range(6))


@pytest.mark.parametrize("ranks", [1, 3])
def test_a_run_goes_on_at_any_step_with_any_number_of_ranks(two: Mixture, ranks: int) -> None:
    whole = shown(two, 4, range(12))
    assert whole[:5] + shown(two, 4, range(5, 12), ranks) == whole


def test_a_small_cache_changes_nothing(two: Mixture) -> None:
    plenty, scarce = (list(loader(two, 8, last_step=5, cache_mb=mb)) for mb in (256, 0))
    for one, other in zip(plenty, scarce, strict=True):
        torch.testing.assert_close(one["mel"], other["mel"], rtol=0, atol=0)


def test_an_epoch_shows_every_window_once(one: Mixture) -> None:
    count = len(one)
    seen = [row for step in shown(one, 1, range(2 * count)) for row in step]
    assert sorted(seen[:count]) == sorted(seen[count:]) == sorted(set(seen))
    assert seen[:count] != seen[count:]
    assert count == len(set(seen))


def test_each_rank_knows_its_rows(one: Mixture) -> None:
    rows = [next(loader(one, 8, last_step=1, rank=rank, ranks=3))["rows"] for rank in range(3)]
    assert rows == [(0, 3), (3, 6), (6, 8)]


def test_batches_hold_what_the_dataset_does(one: Mixture) -> None:
    batch = next(loader(one, 5, last_step=1))
    dataset = one.samples[0].dataset
    assert batch["face_box"].shape == (5, 4, 4)
    assert batch["mel"].shape == (5, 80, 13)
    assert batch["replaced"] == 0
    assert batch["take_id"] == [dataset.clips["take_id"][row].as_py() for row in batch["clip"].tolist()]
    assert one.clip_ids(batch) == [dataset.clips["clip_id"][row].as_py() for row in batch["clip"].tolist()]
    for row, first, boxes, sharpness in zip(
        batch["clip"].tolist(), batch["first"].tolist(), batch["face_box"], batch["sharpness"], strict=True
    ):
        held = dataset.read(row, "face_box", "sharpness")
        frames = np.clip(np.arange(first - 1, first + 3), 0, None)
        torch.testing.assert_close(boxes, torch.from_numpy(held["face_box"][frames]))
        assert float(sharpness) == pytest.approx(held["sharpness"])


def test_partners_are_who_they_should_be(two: Mixture) -> None:
    for batch in loader(two, 16, last_step=4):
        for at, number in enumerate(batch["dataset"].tolist()):
            part = two.samples[number]
            people = part.dataset.clips["person"].to_pylist()
            assert people[batch["clip"][at]] != people[batch["other.clip"][at]]
            assert batch["clip"][at] == batch["near.clip"][at]
            assert batch["first"][at] != batch["near.first"][at]
            held = part.dataset.read(int(batch["near.clip"][at]), "face_box")["face_box"]
            frames = np.clip(batch["near.first"][at].item() + np.arange(-1, 3), 0, None)
            torch.testing.assert_close(batch["near.face_box"][at], torch.from_numpy(held[frames]))
        assert batch["other.mel"].shape == (16, 80, 13)
        assert "other.face_box" not in batch


def test_scalars_alone_need_no_array(folders: list[Path]) -> None:
    mixture = Mixture([samples_of(Dataset(folders[0]), Needs(("sharpness",), Window(length=1)))])
    batch = next(loader(mixture, 4, last_step=1))
    torch.testing.assert_close(batch["sharpness"], 0.1 * batch["clip"].float())


@pytest.fixture
def damaged(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes clips unreadable."""
    intact = Dataset.read

    def damage(*rows: int) -> None:
        def read(self: Dataset, clip: int, *names: str) -> dict[str, Any]:
            if clip in rows:
                raise OSError("damaged")
            return intact(self, clip, *names)

        monkeypatch.setattr(Dataset, "read", read)

    return damage


def test_a_damaged_clip_is_replaced_the_same_way_each_time_and_counted(one: Mixture, damaged: Callable[..., None]) -> None:
    damaged(2, 3)
    batches = [list(loader(one, 1, last_step=len(one))) for _ in range(2)]
    places = [[(batch["clip"].item(), batch["first"].item()) for batch in run] for run in batches]
    assert places[0] == places[1]
    assert sum(batch["replaced"] for batch in batches[0]) == int(one.samples[0].counts[[2, 3]].sum())
    assert {row for row, _ in places[0]} == {0, 1, 4, 5, 6}
    assert all(place == (4, 0) for batch, place in zip(batches[0], places[0], strict=True) if batch["replaced"])


def test_a_partner_of_a_stand_in_is_the_stand_ins(two: Mixture, damaged: Callable[..., None]) -> None:
    damaged(1)
    replaced = 0
    for batch in loader(two, 16, last_step=4):
        replaced += batch["replaced"]
        for at, number in enumerate(batch["dataset"].tolist()):
            people = two.samples[number].dataset.clips["person"].to_pylist()
            assert people[batch["clip"][at]] != people[batch["other.clip"][at]]
            assert batch["clip"][at] == batch["near.clip"][at]
    assert replaced > 4


def test_a_dataset_without_a_readable_clip_ends_the_run(one: Mixture, damaged: Callable[..., None]) -> None:
    damaged(*range(7))
    with pytest.raises(ManifestError, match="no clip can be read"):
        next(loader(one, 1, last_step=1))


def test_a_network_that_fails_is_no_damage(one: Mixture, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*_: object) -> dict[str, Any]:
        raise ConnectionResetError(104, "reset by peer")

    monkeypatch.setattr(Dataset, "read", read)
    with pytest.raises(ConnectionResetError):
        next(loader(one, 4, last_step=1))
    with pytest.raises(ConnectionResetError):
        list(one.whole_clips())


def test_workers_hand_over_errors_as_they_are(one: Mixture, damaged: Callable[..., None]) -> None:
    damaged(*range(7))
    with pytest.raises(ManifestError, match="no clip can be read") as caught:
        next(loader(one, 4, last_step=1, workers=1))
    assert "\n" not in str(caught.value)


def test_an_array_that_does_not_fit_its_clip_is_damage(one: Mixture, monkeypatch: pytest.MonkeyPatch) -> None:
    intact = Dataset.read

    def read(self: Dataset, clip: int, *names: str) -> dict[str, Any]:
        values = intact(self, clip, *names)
        return values | {"face_box": values["face_box"][: None if clip else -1]}

    monkeypatch.setattr(Dataset, "read", read)
    batches = list(loader(one, len(one), last_step=1))
    assert batches[0]["replaced"] == one.samples[0].counts[0]


def test_films_are_frames(tmp_path: Path) -> None:
    films = [small_film(20, seed) for seed in range(3)]
    broken = films[2][: len(films[2]) // 2]
    write_clips(tmp_path, [{"n_frames": 20, "video256": film} for film in (*films[:2], broken)])
    needs = Needs(("video256",), Window(length=2), {"source": Partner("same_clip", ("video256",))})
    mixture = Mixture([samples_of(Dataset(tmp_path), needs)])
    batch = next(loader(mixture, 12, last_step=1))
    assert batch["video256"].shape == batch["source.video256"].shape == (12, 2, 64, 64, 3)
    assert batch["video256"].dtype == torch.uint8
    assert batch["replaced"] > 0
    for name in ("", "source."):
        for row, first, frames in zip(
            *(batch[name + key].tolist() for key in ("clip", "first")), batch[name + "video256"], strict=True
        ):
            np.testing.assert_array_equal(frames.numpy(), decode_mp4(films[row], [first, first + 1]))
    assert list(mixture.whole_clips()) == [{}, {}, {}], "films are left out of whole clips"


def test_batches_that_cannot_be_shared_are_refused(one: Mixture) -> None:
    with pytest.raises(ManifestError, match="a global batch of 4 cannot be shared by 5 ranks"):
        loader(one, 4, last_step=1, rank=0, ranks=5)


def test_a_cache_keeps_the_clips_that_were_used_last() -> None:
    cache, asked = _Cache(3 * 800), []

    def get(key: int) -> None:
        cache.get((0, key), {"x"}, lambda names: (asked.append(key), {"x": np.zeros(100)})[1])

    for key in (0, 1, 2, 0, 3, 0, 1):
        get(key)
    assert asked == [0, 1, 2, 3, 1]


def test_what_a_worker_is_given_may_be_pickled(two: Mixture) -> None:
    steps = _Steps(two, 8, (0, 8), 1 << 20)
    again = pickle.loads(pickle.dumps(steps))
    torch.testing.assert_close(steps[3]["mel"], again[3]["mel"], rtol=0, atol=0)


def test_of_remote_files_each_row_group_that_is_needed_is_fetched_once(
    folders: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = fsspec.filesystem("memory")
    memory.put(str(folders[0]), "/remote", recursive=True)
    fetched: dict[str, int] = {}
    intact = MemoryFile.read

    def read(self: MemoryFile, *size: int) -> bytes:
        data = intact(self, *size)
        fetched[self.path] = fetched.get(self.path, 0) + len(data)
        return data

    needs = Needs(("face_box",), WINDOW)
    remote, local = (Mixture([samples_of(Dataset(place), needs)]) for place in ("memory://remote", folders[0]))
    monkeypatch.setattr(MemoryFile, "read", read)
    for one, other in zip(loader(remote, 8, last_step=30), loader(local, 8, last_step=30), strict=True):
        torch.testing.assert_close(one["face_box"], other["face_box"], rtol=0, atol=0)
    sizes = {path: memory.size(path) for path in fetched}
    memory.rm("/remote", recursive=True)
    assert {path.split("/")[2] for path in fetched} == {"face"}, "sound is not touched"
    assert all(fetched[path] <= sizes[path] + 65_536 for path in fetched), "but for the footer, nothing is fetched twice"
