"""The one loop that trains every model: it reads from top to bottom.

A step is a global batch. Its samples, and all random numbers that losses draw, are functions of the manifest and of the step.
Each of the processes works through its rows in parts, gradients are added up, and every process makes the same update. So another
number of processes gives the same run up to rounding, and resuming with the same number gives the same bits.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from manifests.document import ManifestError
from manifests.training import Schedule, Training
from training import checkpoint
from training.draws import Draws
from training.loader import loader
from training.log import Log
from training.mixture import Mixture
from training.model import Batch, Losses, Model, Update
from training.order import key_of
from training.ranks import Ranks
from training.run import Notify, Run

_PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass
class State:
    """All that a step changes, and all that a checkpoint holds."""

    model: Model
    updates: list[Update]
    rates: list[list[float]]
    """Full learning rates of each update's groups, of which a schedule takes a share."""
    average: AveragedModel | None
    scaler: torch.amp.GradScaler
    step: int = 0
    """Steps that are done."""
    best: float | None = None
    """Least validation loss so far."""
    replaced: int = 0
    """Windows that stood in for damaged ones, up to the last line of the log."""

    @property
    def optimisers(self) -> dict[str, Optimizer]:
        return {update.name: update.optimiser for update in self.updates}

    @property
    def judged(self) -> Model:
        """The weights that are validated: their moving average, where there is one."""
        return self.average.module if self.average else self.model


def train(run: Run, notify: Notify) -> Path:
    """Train from the run's last checkpoint, or from the start, to its last step; returns the last checkpoint.

    Raises ``ManifestError`` at a loss or a gradient that is not finite, before it is learned from; of a loss naming the clips.
    """
    manifest, how, ranks = run.manifest, run.manifest.training, Ranks.current()
    device = device_of(manifest.launch.device)
    data = run.data("train")
    held_out = run.data("val") if run.validates else None
    state = _begin(run, data, device, ranks)
    began, first, replaced = time.monotonic(), state.step, 0
    with Log(run.folder, state.step) if ranks.first else nullcontext() as log:
        for batch in _batches(run, data, ranks, state.step, how.steps, manifest.launch.loader_workers):
            state.model.train()
            torch.manual_seed(key_of("modules", manifest.seed, state.step, ranks.rank) >> 1)  # of dropout and the like
            moved, figures = to_device(batch, device), Losses()
            factor = rate_factor(state.step, how.steps, how.schedule)
            for update, full in zip(state.updates, state.rates, strict=True):
                if state.step % update.every:
                    continue
                for group, rate in zip(update.optimiser.param_groups, full, strict=True):
                    group["lr"] = rate * factor
                draws = Draws(key_of(update.name, manifest.seed, state.step), manifest.global_batch, batch["rows"], device)
                losses = _gradients(update, state, moved, draws, how, ranks)
                if not all(torch.isfinite(loss) for loss in losses.values()):
                    raise ManifestError(_what_is_not_finite(update, state, data, moved, draws, how, ranks))
                _step(update, state, how)
                figures |= losses if len(state.updates) == 1 else {f"{update.name} {k}": loss for k, loss in losses.items()}
            state.step += 1
            replaced += batch["replaced"]
            if state.average:
                state.average.update_parameters(state.model)

            done = state.step == how.steps
            if done or state.step % how.log_every == 0:
                shown = {name: float(value) for name, value in figures.items()}
                state.replaced, replaced = state.replaced + sum(ranks.gather(replaced)), 0
                shown |= {"learning rate factor": factor, "replaced": float(state.replaced)}
                shown["samples per second"] = (state.step - first) * manifest.global_batch / (time.monotonic() - began)
                if log:
                    log.figures(state.step, "train", shown)
                notify(state.step, how.steps, shown)
            is_best = False
            if held_out and (done or state.step % how.validate_every == 0):
                found = validate(run, held_out, state, device, ranks, log)
                is_best = math.isfinite(found["loss"]) and (state.best is None or found["loss"] < state.best)
                state.best = found["loss"] if is_best else state.best
            if done or is_best or state.step % how.save_every == 0:
                if ranks.first:
                    _save(run, state, data.fps, is_best)
                ranks.wait()
    return run.folder / checkpoint.LAST


def validate(
    run: Run, data: Mixture, state: State, device: torch.device, ranks: Ranks, log: Log | None = None
) -> dict[str, float]:
    """The loss over the same windows of ``data`` with the same random numbers each time, by the function that training minimises;
    on the first process, into the ``log``, also what the model measures and shows."""
    manifest, model = run.manifest, state.judged
    count, batch_size = manifest.training.validate_batches, manifest.global_batch
    totals: dict[str, Tensor] = {}
    model.eval()
    with torch.no_grad(), _precision(device, manifest.training):
        own = [to_device(batch, device) for batch in _batches(run, data, ranks, 0, count)]
        for number, batch in enumerate(own):
            draws = Draws(key_of("validation", manifest.seed, number), batch_size, batch["rows"], device)
            share = len(batch["clip"]) / (batch_size * count)
            for name, loss in model.loss(batch, draws).items():
                totals[name] = totals.get(name, torch.zeros((), device=device)) + share * loss.float()
    figures = {name: float(ranks.sum(total)) for name, total in totals.items()}
    if log:
        with torch.no_grad():
            alone = ranks.count == 1
            whole = own if alone else [to_device(batch, device) for batch in _batches(run, data, Ranks(), 0, count)]
            figures |= model.measure(whole, Draws(key_of("measure", manifest.seed), batch_size, None, device))
            log.figures(state.step, "val", figures)
            log.pictures(state.step, model.pictures(whole[0], Draws(key_of("pictures", manifest.seed), batch_size, None, device)))
    return figures


def device_of(name: str) -> torch.device:
    """``auto`` is a GPU where there is one. Raises ``ManifestError`` when one is asked for that is not there."""
    if name == "cuda" and not torch.cuda.is_available():
        raise ManifestError("device is cuda, but torch finds no GPU: make it cpu, or install a CUDA build of torch")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch with its tensors on ``device``."""
    return {name: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value for name, value in batch.items()}


def rate_factor(step: int, steps: int, schedule: Schedule) -> float:
    """The learning rate at ``step`` of ``steps``, as a share of its full height."""
    if step < schedule.warmup_steps:
        return (step + 1) / schedule.warmup_steps
    if schedule.shape == "constant":
        return 1.0
    return 0.5 + 0.5 * math.cos(math.pi * (step - schedule.warmup_steps) / (steps - schedule.warmup_steps))


def _begin(run: Run, data: Mixture, device: torch.device, ranks: Ranks) -> State:
    """The state at the last checkpoint, or a new one that has looked at the data."""
    how, last = run.manifest.training, run.folder / checkpoint.LAST
    torch.manual_seed(key_of("weights", run.manifest.seed) >> 1)
    model = run.model_class(run.settings, data.fps)
    if last.exists():
        model.load_state_dict(checkpoint.read_weights(last))
    elif ranks.first:
        model.prepare(data.whole_clips())
    model.to(device)
    ranks.share(model)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(how.ema)) if how.ema else None
    scaler = torch.amp.GradScaler(device.type, enabled=how.precision == "float16")
    updates = model.updates()
    rates = [[group["lr"] for group in update.optimiser.param_groups] for update in updates]
    state = State(model, updates, rates, average, scaler)
    if last.exists():
        held = checkpoint.read_numbers(last)
        checkpoint.restore(last, state.optimisers)
        scaler.load_state_dict(held["scaler"])
        if average:
            average.module.load_state_dict(checkpoint.read_weights(last, average=True))
            average.n_averaged.fill_(held["averaged"])
        state.step, state.best, state.replaced = held["step"], held["best"], held["replaced"]
    return state


def _batches(run: Run, data: Mixture, ranks: Ranks, first: int, last: int, workers: int = 0) -> Iterator[Batch]:
    """This process's part of the batches of steps ``first`` to ``last``."""
    share = {"rank": ranks.rank, "ranks": ranks.count, "workers": workers, "cache_mb": run.manifest.launch.cache_mb}
    return loader(data, run.manifest.global_batch, first_step=first, last_step=last, **share)


def _save(run: Run, state: State, fps: tuple[int, int], is_best: bool) -> None:
    numbers = {
        "best": state.best,
        "replaced": state.replaced,
        "fps": list(fps),
        "scaler": state.scaler.state_dict(),
        "averaged": int(state.average.n_averaged) if state.average else 0,
    }
    average = state.average.module.state_dict() if state.average else None
    place = checkpoint.save(run.folder, state.step, run.manifest, state.model.state_dict(), average, state.optimisers, numbers)
    # In this order: a run that is cut off between them comes here again.
    if is_best:
        checkpoint.point(run.folder, checkpoint.BEST, place)
    checkpoint.point(run.folder, checkpoint.LAST, place)
    checkpoint.prune(run.folder, run.manifest.training.keep)


def _precision(device: torch.device, how: Training) -> AbstractContextManager[Any]:
    chosen = _PRECISIONS[how.precision]
    return nullcontext() if chosen == torch.float32 else torch.autocast(device.type, chosen)


def _parameters(update: Update) -> list[nn.Parameter]:
    return [parameter for group in update.optimiser.param_groups for parameter in group["params"]]


def _gradients(update: Update, state: State, batch: Batch, draws: Draws, how: Training, ranks: Ranks) -> Losses:
    """Put the gradients of the global batch's mean loss into the update's parameters; returns the mean losses."""
    own = {id(parameter) for parameter in _parameters(update)}
    for parameter in state.model.parameters():
        parameter.requires_grad_(id(parameter) in own)
    update.optimiser.zero_grad()
    totals: dict[str, Tensor] = {}
    count = len(batch["clip"])
    for rows in torch.arange(count).chunk(how.accumulate):
        start, stop = int(rows[0]), int(rows[-1]) + 1
        with _precision(batch["clip"].device, how):
            losses = update.loss(_rows(batch, start, stop), draws.part(start, stop))
        share = (stop - start) / draws.count
        state.scaler.scale(losses["loss"] * share).backward()
        for name, loss in losses.items():
            totals[name] = totals.get(name, 0) + share * loss.detach().float()
    ranks.sum_gradients(_parameters(update))
    return dict(zip(totals, ranks.sum(torch.stack(list(totals.values()))), strict=True))


def _step(update: Update, state: State, how: Training) -> None:
    """Raises ``ManifestError`` for gradients that are not finite, but in float16, where such steps are left out."""
    state.scaler.unscale_(update.optimiser)
    norm = nn.utils.clip_grad_norm_(_parameters(update), how.clip_norm or math.inf)
    if not (state.scaler.is_enabled() or torch.isfinite(norm)):
        raise ManifestError(
            f"step {state.step}: the gradient of {update.name} is not finite, though its loss is; nothing was learned from it. "
            "Resume with a smaller learning rate, or look for a square root of 0 in the loss"
        )
    state.scaler.step(update.optimiser)
    state.scaler.update()


def _what_is_not_finite(
    update: Update, state: State, data: Mixture, batch: Batch, draws: Draws, how: Training, ranks: Ranks
) -> str:
    """Asks for the loss of each sample alone, to name the clips."""
    own = []
    with torch.no_grad(), _precision(batch["clip"].device, how):
        for row, clip in enumerate(data.clip_ids(batch)):
            alone = update.loss(_rows(batch, row, row + 1), draws.part(row, row + 1))
            own += [] if all(torch.isfinite(loss) for loss in alone.values()) else [clip]
    clips = sorted({clip for clips in ranks.gather(own) for clip in clips})
    blamed = f"of clips {', '.join(clips[:5])}{' and others' if len(clips) > 5 else ''}" if clips else "of the batch as a whole"
    return (
        f"step {state.step}: the loss {blamed} is not finite; nothing was learned from it. Look at these clips, "
        "or resume with a smaller learning rate or training.clip_norm"
    )


def _rows(batch: Batch, start: int, stop: int) -> Batch:
    return {name: value[start:stop] if isinstance(value, Tensor | list) else value for name, value in batch.items()}
