"""A run: what a training manifest asks for, checked against the data and the model before anything is computed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from manifests.document import ManifestError, first_mistake
from manifests.lock import alone_in
from manifests.reader import Dataset
from manifests.training import RUN_MANIFEST, TrainingManifest
from training.checkpoint import FOLDER, LAST
from training.log import read_log
from training.mixture import Mixture
from training.model import Model, Needs
from training.models import model_class
from training.samples import people_of, samples_of
from training.split import Part, parts_of

_FREE: dict[str, Any] = {"launch": True, "out": True, "notes": True, "digest": True}
"""Sections that may differ when a run is resumed, for they change no number."""

_FREE_IN_TRAINING = {"log_every", "save_every", "keep"}
"""The same in the section ``training``; and ``steps``, while the learning rate does not depend on it."""


@dataclass(frozen=True)
class Run:
    """A checked manifest. Everything that processes need to take part, and small enough to be sent to them."""

    manifest: TrainingManifest
    folder: Path

    @property
    def model_class(self) -> type[Model]:
        return model_class(self.manifest.model)

    @property
    def settings(self) -> Any:
        kind = self.model_class.Settings
        try:
            return kind.model_validate(self.manifest.settings)
        except ValidationError as error:
            raise ManifestError(
                f"settings of the model {self.manifest.model}: {first_mistake(error, kind, self.manifest.settings)}"
            ) from None

    @property
    def needs(self) -> Needs:
        """What the model reads, as often as the manifest's window says."""
        asked, window = self.model_class.needs(self.settings), self.manifest.window
        if window is None:
            return asked
        own = asked.window.model_dump()
        other = {name for name in window.model_fields_set - {"stride"} if getattr(window, name) != own[name]}
        if other:
            raise ManifestError(
                f"window: {', '.join(sorted(other))} of the model {self.manifest.model} follow from its settings: "
                f"{asked.window}; change those, and leave this out"
            )
        return Needs(asked.columns, asked.window.model_copy(update={"stride": window.stride}), asked.partners)

    def data(self, part: Part) -> Mixture:
        """The windows of ``part`` of all datasets. Nobody is in two parts, whichever datasets show them."""
        manifest, needs = self.manifest, self.needs
        datasets = [Dataset(ref.path) for ref in manifest.datasets]
        people = [set(people_of(dataset)) for dataset in datasets]
        dealt = parts_of(set().union(*people), manifest.split)
        among = {person for person, own in dealt.items() if own == part}
        chosen = [number for number, own in enumerate(people) if own & among]
        if not chosen:
            raise ManifestError(
                f"{', '.join(dataset.place for dataset in datasets)}: of {len(dealt)} people none is in the part {part} of the "
                f"split; give it a larger share, or a share of 0 to do without"
            )
        samples = [samples_of(datasets[number], needs, among=among, accepted=manifest.filter) for number in chosen]
        return Mixture(samples, [manifest.datasets[number].weight for number in chosen], manifest.seed)

    @property
    def validates(self) -> bool:
        return self.manifest.split.val > 0


Notify = Callable[[int, int, dict[str, float]], None]
"""Told (step, steps, figures) now and then."""


def begin(manifest: TrainingManifest, *, resume: bool = False) -> Run:
    """Check ``manifest`` and its data, and lay out the folder of the run, or go on with the one that is there.

    Raises ``ManifestError`` for whatever would go wrong at a later step: an unknown model or setting, a dataset of another
    digest, a filter, a split or a window that leaves nothing, a batch that cannot be shared out; for a folder that holds a run
    already without ``resume``; and with it for a manifest that would give other numbers than that run's.
    """
    located = _located(manifest)
    run = Run(located, Path(located.out))
    data = run.data("train")
    if run.validates:
        run.data("val")
    if located.global_batch < located.launch.workers:
        raise ManifestError(
            f"global_batch {located.global_batch} cannot be shared by launch.workers={located.launch.workers}: make it larger"
        )
    run.model_class(run.settings, data.fps)
    held, last = run.folder / RUN_MANIFEST, run.folder / LAST
    if last.is_symlink() and not last.exists():
        raise ManifestError(f"{last}: points at nothing; let it point at a folder of {run.folder / FOLDER}, or remove it")
    if held.is_file():
        if not resume and (last.exists() or read_log(run.folder)):
            raise ManifestError(
                f"{run.folder}: holds a run already; go on with --resume, or give another folder with --set out=FOLDER"
            )
        if resume:
            _check_same(TrainingManifest.load(held), located, held)
    elif run.folder.exists() and any(run.folder.iterdir()):
        raise ManifestError(f"{run.folder}: is a folder of something else; give another with --set out=FOLDER")
    located.save(held)
    return run


def train(run: Run, notify: Notify) -> Path:
    """Train as ``run`` says, here or on Ray; returns the last checkpoint.

    Raises ``ManifestError`` when the run goes wrong, or another process trains in its folder.
    """
    with alone_in(run.folder, f"{run.folder}: another process trains there; wait for it, or give another --set out"):
        return _train(run, notify)


def _train(run: Run, notify: Notify) -> Path:
    if run.manifest.launch.workers == 1:
        from training.loop import train as train_here

        return train_here(run, notify)
    try:
        from training.ray_launch import launch
    except ImportError:
        raise ManifestError("launch.workers above 1 needs Ray Train, which is not installed; pip install 'ray[train]'") from None
    return launch(run, notify)


def _located(manifest: TrainingManifest) -> TrainingManifest:
    """``manifest`` with absolute places, and with the digests of its datasets."""
    if "://" in manifest.out:
        raise ManifestError(f"out: a run's folder is a local one, or mounted as such, not {manifest.out}")
    datasets = []
    for ref in manifest.datasets:
        place = ref.path if "://" in ref.path else str(Path(ref.path).absolute())
        digest = Dataset(place).manifest.digest
        if ref.digest not in ("", digest):
            raise ManifestError(
                f"{place}: has the digest {digest[:12]}, the manifest asks for {ref.digest[:12]}; "
                "build that one again, or leave datasets.digest empty to train on what is there"
            )
        datasets.append(ref.model_copy(update={"path": place, "digest": digest}))
    update = {"datasets": datasets, "out": str(Path(manifest.out).absolute()), "digest": ""}
    return manifest.model_copy(update=update)


def _check_same(held: TrainingManifest, asked: TrainingManifest, place: Path) -> None:
    free = _FREE_IN_TRAINING | ({"steps"} if asked.training.schedule.shape == "constant" else set())
    before, now = (_flat(_numbers(manifest, free)) for manifest in (held, asked))
    other = [f"{key} is {before.get(key)}, now {now.get(key)}" for key in before | now if before.get(key) != now.get(key)]
    if other:
        raise ManifestError(f"{place}: resuming with other settings would be another run: {'; '.join(other)}; set them back")


def _numbers(manifest: TrainingManifest, free: set[str]) -> dict[str, Any]:
    """What numbers follow from: datasets by what they hold, wherever they lie."""
    values = manifest.model_dump(mode="json", exclude=_FREE | {"training": free})
    return values | {"datasets": {str(k): {"digest": d.digest, "weight": d.weight} for k, d in enumerate(manifest.datasets)}}


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values by dotted path."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return found
