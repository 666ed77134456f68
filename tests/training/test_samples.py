"""Which clips and windows of a dataset are trained on."""

from pathlib import Path

import numpy as np
import pytest

from manifests.document import ManifestError
from manifests.reader import Dataset
from manifests.training import Range, Window
from tests.manifests.datasets import write_clips
from training.model import Needs, Partner
from training.samples import samples_of

WINDOW = Window(length=3, context=(1, 0), edge="clamp")
NEEDS = Needs(("face_box", "sharpness"), WINDOW)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("samples")
    clips = [
        {"n_frames": 2 + n, "person": "abcd"[n % 4], "sharpness": n / 10, "face_box": np.zeros((2 + n, 4), np.float32)}
        for n in range(10)
    ]
    write_clips(folder, clips)
    return Dataset(folder)


def test_samples_are_the_windows_in_storage_order(data: Dataset) -> None:
    samples = samples_of(data, NEEDS)
    assert samples.rows.tolist() == list(range(1, 10)), "the first clip is shorter than a window"
    assert samples.counts.tolist() == list(range(1, 10))
    clips, numbers = samples.places(np.arange(len(samples)))
    assert list(zip(clips.tolist(), numbers.tolist(), strict=True)) == [(c, n) for c in range(9) for n in range(c + 1)]


def test_a_filter_and_a_choice_of_people_choose_clips(data: Dataset) -> None:
    some = samples_of(data, NEEDS, among={"a", "c"})
    assert set(some.people) == {"a", "c"}
    assert some.rows.tolist() == [2, 4, 6, 8]
    sharp = samples_of(data, NEEDS, accepted={"sharpness": Range(min=0.35, max=0.65)})
    assert sharp.rows.tolist() == [4, 5, 6]


def test_who_is_unknown_is_somebody_else_in_each_take(tmp_path: Path) -> None:
    write_clips(tmp_path, [{"n_frames": 4, "sharpness": 0.1}] * 3)
    assert len(set(samples_of(Dataset(tmp_path), Needs(("sharpness",), WINDOW)).people)) == 3


def test_columns_of_partners_are_read_as_well(data: Dataset) -> None:
    needs = Needs(("sharpness",), WINDOW, {"other": Partner("same_clip", ("face_box", "sharpness"))})
    assert samples_of(data, needs).all_columns == ("sharpness", "face_box")


def test_what_cannot_be_trained_on_is_refused(data: Dataset) -> None:
    with pytest.raises(ManifestError, match="holds no column 'sharpnes'; did you mean 'sharpness'"):
        samples_of(data, Needs(("sharpnes",), WINDOW))
    with pytest.raises(ManifestError, match="holds no column 'mell'"):
        samples_of(data, Needs((), WINDOW, {"other": Partner("same_clip", ("mell",))}))
    with pytest.raises(ManifestError, match="no clip is left by the filter on sharpness; it has"):
        samples_of(data, NEEDS, accepted={"sharpness": Range(min=3.0)})
    with pytest.raises(ManifestError, match="a window of 90 frames is longer than every clip; the longest has 11"):
        samples_of(data, Needs(("face_box",), Window(length=90)))


def test_one_person_alone_has_no_other(data: Dataset) -> None:
    needs = Needs(("sharpness",), WINDOW, {"source": Partner("other_person", ("sharpness",))})
    assert samples_of(data, needs).partners.count == 4
    with pytest.raises(ManifestError, match=r"partner source is another person, and there is only b; give"):
        samples_of(data, needs, among={"b"})
