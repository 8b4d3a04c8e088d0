"""A training run from its first step to its last: learns, tells, saves, validates, stops when asked to."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from scrfdkit import atomic
from scrfdkit.errors import DeviceError, OptionError, ScrfdError
from scrfdkit.model.net import SCRFD
from scrfdkit.sheet import encoded
from scrfdkit.train import criterion, processes, settings, state
from scrfdkit.train.batches import Batch
from scrfdkit.train.log import RunLog, read
from scrfdkit.train.outcome import Result, TrainingError, Watcher
from scrfdkit.train.prepare import Ready, prepare
from scrfdkit.train.preview import of_batch
from scrfdkit.train.processes import Processes
from scrfdkit.train.schedule import learning_rate
from scrfdkit.train.settings import Settings
from scrfdkit.train.state import State
from scrfdkit.train.step import RESULT
from scrfdkit.train.stop import stopping
from scrfdkit.train.tally import Pace, Tally

Validate = Callable[[SCRFD], Mapping[str, float]]
"""Scores a network in eval mode; its "score" decides which weights are the best."""

PREVIEWS = 3
"""Batches at the beginning of a run that are drawn."""

_LOOK_EVERY = {"cpu": 1, "cuda": 20}
"""Steps between two looks at the losses, and at whether to stop; on CUDA each look makes the GPU wait."""


def train(settings: Settings, watch: Watcher, validate: Validate | None = None, *, resume: bool = False) -> Result:
    """Trains a network as `settings` says. Started by torchrun, every process calls this with the same settings.

    resume: goes on after the newest checkpoint in the run's folder. Ctrl-C and SIGTERM end the run after the step at
    hand, with a checkpoint.
    Raises ScrfdError for what is wrong with settings, labels, pictures and weights, in the beginning where it can be
    known; TrainingError where a loss is not finite.
    """
    together = processes.start(settings.device)
    try:
        result = _train(settings, together, watch, validate, resume)
        together.wait()
        return result
    except torch.OutOfMemoryError as error:
        raise DeviceError(
            f"device: {together.device} has too little memory: take a smaller --batch, --set accumulate=2, or --road"
            f" workers ({str(error).splitlines()[0]})"
        ) from None
    finally:
        together.stop()


def _train(settings: Settings, together: Processes, watch: Watcher, validate: Validate | None, resume: bool) -> Result:
    say = watch.say if together.is_first else lambda text: None
    _check_folder(settings, resume)
    ready = prepare(settings, together, say, resume)
    with stopping(say) as asked:
        return _Run(ready, watch, validate, asked, resume).go()


def _check_folder(options: Settings, resume: bool) -> None:
    folder = Path(options.output)
    if not resume and (folder / settings.FILE).exists():
        raise OptionError(f"output: {folder} holds a training run already; resume it, or name another folder")


class _Run:
    """What changes from step to step. Only the first process has a log, and only it writes and shows anything."""

    def __init__(self, ready: Ready, watch: Watcher, validate: Validate | None, asked: list[int], resume: bool) -> None:
        self.ready, self.watch, self.validate, self.asked = ready, watch, validate, asked
        self.folder = Path(ready.settings.output)
        self.done = self.saved_step = ready.first
        self.saved_at = time.monotonic()
        self.per_epoch = ready.source.order.steps_per_epoch
        self.results: list[Tensor] = []
        self.tally = Tally()
        self.pace = Pace(0 if ready.settled else ready.settings.minutes, ready.spent)
        self.log: RunLog | None = None
        self.scored: set[int] = set()
        if ready.processes.is_first:
            atomic.make_folder(self.folder)
            settings.save(ready.settings)
            self.log = RunLog(self.folder, ready.first if resume else None, say=watch.say)
            self.scored = {line["step"] for line in read(self.log.path) if line["kind"] == "validation"}
            self.log.recipe(ready.settings.recipe.to_json())
            watch.begin(ready.steps, ready.first, self.per_epoch)

    def go(self) -> Result:
        try:
            self._learn()
        finally:
            if self.log is not None:
                self.log.close()
        last, best = (self._file(name) for name in ("last.safetensors", "best.safetensors"))
        return Result(self.done, self.ready.steps, last, best, dict(self.ready.best))

    def _file(self, name: str) -> Path | None:
        return path if (path := self.folder / name).is_file() else None

    def _learn(self) -> None:
        stopped = False
        if self._lacks_scores():
            self._evaluate()
        while self.done < self.ready.steps and not stopped:
            steps = self.ready.steps
            for parts in self._waited_for(self.ready.batches(self.done, steps)):
                self._step(parts)
                stopped = self._any(bool(self.asked))
                if stopped or self.ready.steps != steps:
                    break
        self._look()
        self._save()
        if not stopped or self.done >= self.ready.steps:
            self._evaluate()

    def _waited_for(self, batches: Iterator[list[Batch]]) -> Iterator[list[Batch]]:
        """The same batches; the time that each took to come is counted as waiting."""
        while True:
            start = time.perf_counter()
            parts = next(batches, None)
            self.tally.waited += time.perf_counter() - start
            if parts is None:
                return
            yield parts

    def _step(self, parts: Sequence[Batch]) -> None:
        ready, recipe = self.ready, self.ready.settings.recipe
        if self.log is not None and self.done < PREVIEWS:
            self._draw(parts[0])
        lr = learning_rate(recipe.schedule, recipe.optimiser.lr, self.done, ready.steps)
        self.results.append(ready.step(parts, lr))
        self.done += 1
        epoch_ends = self.done % self.per_epoch == 0
        if self._time_to_look() or epoch_ends:
            self._look()
            if self._any(self.tally.due()) or self.done == ready.steps:
                self._tell(lr)
            self._fit_into_minutes()
        if self._due() and self.done < ready.steps:
            self._save()
            self._evaluate()
        elif (epoch_ends and self._epoch_is_saved()) or (
            ready.settings.save_minutes
            and self._any(time.monotonic() - self.saved_at > 60 * ready.settings.save_minutes)
        ):
            self._look()
            self._save()

    def _epoch_is_saved(self) -> bool:
        every = self.ready.settings.save_epochs
        return every > 0 and self.done < self.ready.steps and self.done // self.per_epoch % every == 0

    def _due(self) -> bool:
        """Whether the weights are scored now."""
        told, tenth = self.ready.settings.validate_every, self.ready.steps // (10 * self.per_epoch)
        every = self.per_epoch * (max(1, tenth) if told is None else told)
        return every > 0 and self.done % every == 0

    def _lacks_scores(self) -> bool:
        """Whether a run that is resumed was killed between a checkpoint and the scores of its weights."""
        lacks = self.log is not None and self.done > 0 and self.done not in self.scored and self._due()
        together = self.ready.processes
        mine = torch.tensor(float(lacks and self.done < self.ready.steps), device=together.device)
        return bool(together.total(mine) > 0)

    def _time_to_look(self) -> bool:
        return self.done % _LOOK_EVERY[self.ready.processes.device.type] == 0

    def _any(self, mine: bool) -> bool:
        """Whether it is so for any process, which all learn at the same step."""
        together = self.ready.processes
        if together.world == 1:
            return mine
        return self._time_to_look() and bool(together.total(torch.tensor(float(mine), device=together.device)) > 0)

    def _look(self) -> None:
        """Fetches the results of the steps since the last look, and ends the run where one is not finite."""
        if not self.results:
            return
        found = torch.stack(self.results).cpu()
        self.results.clear()
        self.tally.add(found)
        # fp16 skips steps whose gradient is too long for it, and goes on with a smaller scale.
        looked_at = found[:, : len(criterion.NAMES)] if self.ready.step.scaler.is_enabled() else found
        wrong = (~looked_at.isfinite()).any(1).nonzero()
        if len(wrong):
            place = int(wrong[0])
            self._refuse(self.done - len(found) + place, found[place])

    def _refuse(self, step: int, result: Tensor) -> None:
        source = self.ready.source
        mine = [source.share.of(source.order.batch, part) for part in range(source.share.parts)]
        numbers = [int(i) for part in mine for i in source.order.pictures(step)[part]]
        names = ", ".join(dict.fromkeys(source.faces.paths[i] for i in numbers))
        what = ", ".join(f"{name} {value:g}" for name, value in zip(RESULT, result.tolist(), strict=True))
        text = (
            f"step {step}: the loss is not finite ({what}). Its pictures: {names}. The newest checkpoint is that after"
            f" {self.saved_step} steps. Look at the pictures with `scrfd data show`, lower optimiser.lr, or set"
            " optimiser.clip"
        )
        if self.log is not None:
            self.log.event(step, step // self.per_epoch, text)
        raise TrainingError(text)

    def _tell(self, lr: float) -> None:
        numbers = self.tally.numbers(self.ready.settings.recipe.batch, self.ready.processes) | {"lr": lr}
        if self.log is not None:
            self.log.train(self.done, self.done // self.per_epoch, numbers)
            self.watch.update(self.done, numbers)

    def _fit_into_minutes(self) -> None:
        """The first process decides for all; they all ask after the same steps."""
        together = self.ready.processes
        if not self.pace.open:
            return
        mine = (self.pace.steps(self.done) or 0) if together.is_first else 0
        steps = int(together.total(torch.tensor(mine, device=together.device)))
        if not steps:
            return
        self.pace.open, self.ready.steps = False, steps
        if self.log is not None:
            self.watch.begin(self.ready.steps, self.ready.first, self.per_epoch)
            self.watch.say(f"{self.ready.steps:,} steps fit into {self.ready.settings.minutes:g} minutes")

    def _network(self) -> SCRFD:
        """The one to be used: the average, where there is one."""
        net = self.ready.step.net if self.ready.average is None else self.ready.average.module
        assert isinstance(net, SCRFD)
        return net

    def _evaluate(self) -> None:
        """Scores the weights as they are, and keeps them if they are the best. They are saved already, so that whatever
        goes wrong here costs nothing."""
        ready = self.ready
        if self.validate is not None and self.log is not None:
            found = dict(self.validate(self._network()))
            self.watch.say(f"step {self.done:,}: " + ", ".join(f"{name} {value:.2f}" for name, value in found.items()))
            if found.get("score", 0.0) > ready.best.get("score", -1.0):
                ready.best = {**found, "step": self.done}
                self._publish("best.safetensors", ready.best)
                self._save()  # again, with what is the best now
            if self.done not in self.scored:  # last, as a run that was killed before scores them again
                self.log.validation(self.done, self.done // self.per_epoch, found)
        ready.processes.wait()
        self.tally.restart()

    def _save(self) -> None:
        """A checkpoint. Where it cannot be written the run goes on, with the older ones, and tries again later."""
        ready = self.ready
        self.saved_at = time.monotonic()
        if self.log is None:
            return
        self.watch.saving(self.done)
        scaler = ready.step.scaler if ready.step.scaler.is_enabled() else None
        found = State(
            step=self.done,
            tensors=state.capture(ready.step.net, ready.optimiser, ready.average, scaler),
            recipe=ready.settings.recipe.to_json(),
            spec=ready.begin.spec.to_json(),
            best=ready.best,
            settings=ready.words() | ({"spent": self.pace.spent} if self.pace.open else {"steps": ready.steps}),
        )
        try:
            state.save(self.folder, found, ready.settings.keep)
            self._publish("last.safetensors", {"step": self.done})
        except ScrfdError as error:
            if self.done >= ready.steps:
                raise
            self.watch.say(f"warning: no checkpoint of step {self.done}: {error}")
            return
        self.saved_step = self.done
        self.watch.saved(self.done, self.done // self.per_epoch)

    def _publish(self, name: str, metrics: Mapping[str, float]) -> None:
        start = self.ready.begin
        state.publish(
            self.folder / name,
            self._network(),
            name=start.name,
            metrics=metrics,
            licence="; ".join(dict.fromkeys(text for text in (start.licence, self.ready.settings.licence) if text)),
            source=f"trained from {start.source}" if start.source else "trained from random weights",
        )

    def _draw(self, part: Batch) -> None:
        assert self.log is not None
        sheet = of_batch(part, self.ready.source)
        atomic.save(self.folder / "batches" / f"step-{self.done:08d}.jpg", encoded(sheet, ".jpg"))
        self.log.picture(self.done, "batch", sheet)
