"""Variants one after the other, against the first one, the baseline: events out, then result documents, kept where there is a store.

Where the protocol asks for several rounds, the variants alternate (A B A B), each time in a fresh worker, so that a machine that drifts,
heats up or is shared favours none of them; a variant's events of all rounds are one run. A variant that fails does not stop the next ones;
Stop cancels the current one and all that follow. A store or a disk that fails costs a warning and the keeping, never the run. Example::

    experiment = run_experiment(specs, runner, threading.Event(), store=store, title="Precision ladder")
    for variant, event in experiment: print(variant, event)
    print(experiment.results[0]["metrics"]["itl_s"])
"""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any, Literal, Protocol

from playground.core.engine import Engine
from playground.core.events import ENDINGS, Ceilings, Done, Event, Failed, Phase, Warned
from playground.core.places import home
from playground.core.problem import Problem
from playground.core.spec import RunSpec
from playground.engines import engine_class
from playground.results.owner import alive, owner
from playground.results.result import result
from playground.run.keeper import Keeper, Keeps

Ending = Literal["done", "failed", "cancelled"]
NO_FOLDER = Path("no folder for the baseline") / "baseline"  # its absence becomes the reason why a comparison is missing


@dataclasses.dataclass(frozen=True)
class Reference:
    """What variants are compared with where that is none of them: the folder of its figures, and its spec and events (None: the one variant
    is what others will be compared with, and leaves its figures in the folder)."""

    folder: Path
    measured: tuple[RunSpec, Sequence[Event]] | None = None


class Runs(Protocol):
    """What an experiment needs of a Runner."""

    def run(
        self,
        spec: RunSpec,
        *,
        reference: Path | None = None,
        save_reference: Path | None = None,
        ceilings: Mapping[str, Mapping[str, Any]] | None = None,
        fresh: bool = False,
        cancel: threading.Event,
    ) -> Generator[Event | None, None, None]:
        """See `run.runner.Runner.run`."""

    def close(self) -> None:
        """End the worker, if there is one."""


class Experiment(Iterator[tuple[int, Event]]):
    """Runs while it is iterated: (variant, event) pairs, each variant's last one its ending.

    results: the result documents of the variants that ended so far; events: the raw events of each variant; experiment_id: the store's,
    None where nothing is kept. Closing it early ends the worker.
    """

    def __init__(
        self, specs: Sequence[RunSpec], runner: Runs, cancel: threading.Event, keeper: Keeper, against: Reference | None = None
    ) -> None:
        self.results: list[dict[str, Any]] = []
        self.events: list[list[Event]] = []
        self._specs, self._runner, self._cancel, self._keeper = tuple(_once(spec) for spec in specs), runner, cancel, keeper
        self._endings: dict[int, Event] = {}
        self._against = against
        self._steps = self._run()

    @property
    def experiment_id(self) -> str | None:
        """The store's id of this experiment."""
        return self._keeper.experiment_id

    @property
    def status(self) -> Ending:
        """How it ended: failed when one of its variants failed."""
        states = {item["status"] for item in self.results}
        return "cancelled" if "cancelled" in states else "failed" if "failed" in states else "done"

    def __next__(self) -> tuple[int, Event]:
        return next(self._steps)

    def close(self) -> None:
        """Stop in the middle; what the variant had so far stays in `events`."""
        self._steps.close()

    def _run(self) -> Generator[tuple[int, Event], None, None]:
        compared = self._against is None and len(self._specs) > 1 and any(spec.protocol.quality for spec in self._specs)
        with ExitStack() as stack:
            logprobs = NO_FOLDER
            if compared:
                try:
                    logprobs = Path(stack.enter_context(_baseline_folder())) / "baseline"
                except OSError as error:
                    message = (
                        f"Quality is not compared with the baseline: its figures have no place on the disk ({error.strerror or error})."
                    )
                    yield 0, Warned(time.perf_counter_ns(), message)
            rounds = max(spec.protocol.rounds for spec in self._specs)
            for number in range(rounds):
                for variant in range(len(self._specs)):
                    reference, save = self._folders(variant, logprobs) if compared or self._against else (None, None)
                    for event in self._part(variant, number, rounds, reference, save):
                        yield variant, event

    def _folders(self, variant: int, logprobs: Path) -> tuple[Path | None, Path | None]:
        """Where a variant finds the figures that it is compared with, and where it leaves its own."""
        if not self._specs[variant].protocol.quality:
            return None, None
        if self._against:
            return (self._against.folder, None) if self._against.measured else (None, self._against.folder)
        return (logprobs, None) if variant else (None, logprobs if logprobs != NO_FOLDER else None)

    def _part(self, variant: int, number: int, rounds: int, reference: Path | None, save: Path | None) -> Iterator[Event]:
        """One round of one variant. Its ending waits for the last round, and one that is no Done ends the variant's work."""
        spec, last, held = self._specs[variant], number == rounds - 1, self._endings.get(variant)
        if number == 0:
            self.events.append([])
            yield from self._keeper.begin(variant)
        if held is not None:
            yield from self._next(variant, held) if last else ()
            return
        if rounds > 1:
            yield from self._next(variant, Phase(time.perf_counter_ns(), "round", f"round {number + 1} of {spec.protocol.rounds}"))
        paths = {"reference": reference, "save_reference": save}
        steps = self._runner.run(part_of(spec, number), **paths, ceilings=self._keeper.ceilings(), fresh=rounds > 1, cancel=self._cancel)
        with closing(steps) as events:
            for event in events:
                if last or not isinstance(event, ENDINGS):
                    yield from self._next(variant, event)
                    continue
                if not isinstance(event, Done) or number + 1 == spec.protocol.rounds:
                    self._endings[variant] = event
                if isinstance(event, Failed):
                    yield from self._next(variant, Warned(event.t_ns, f"It failed and will not be run again: {event.message}"))
                yield from self._keeper.append(variant, self.events[variant], now=True)

    def _next(self, variant: int, event: Event | None) -> Iterator[Event]:
        """Note an event, keep it, pass it on; an ending makes the result first."""
        spec, seen = self._specs[variant], self.events[variant]
        if event is not None:
            seen.append(event)
        if isinstance(event, Ceilings) and event.fresh and not _plays(spec):
            self._keeper.keep_ceilings(event)
        if isinstance(event, ENDINGS):
            baseline = self._against.measured if self._against else (self._specs[0], self.events[0]) if variant else None
            self.results.append(result(spec, seen, baseline))
            yield from self._keeper.finish(variant, seen, self.results[-1])
        else:
            yield from self._keeper.append(variant, seen)
        if event is not None:
            yield event


def _plays(spec: RunSpec) -> bool:
    """Whether the engine plays a recording in place of a measurement."""
    return engine_class(spec.engine).replay is not Engine.replay


def _once(spec: RunSpec) -> RunSpec:
    """A recording holds all its rounds, so it is played once."""
    return spec.replace(protocol=dataclasses.replace(spec.protocol, rounds=1)) if _plays(spec) else spec


def part_of(spec: RunSpec, number: int) -> RunSpec:
    """What one round of several runs: its share of the repeats; energy, quality and profile in the first round only."""
    protocol = spec.protocol
    if protocol.rounds == 1:
        return spec
    share, more = divmod(protocol.repeats, protocol.rounds)
    part = dataclasses.replace(protocol, repeats=share + (number < more), rounds=1)
    if number:
        part = dataclasses.replace(part, energy=False, quality=False, profile=False)
    return spec.replace(protocol=part)


def run_experiment(
    specs: Sequence[RunSpec],
    runner: Runs,
    cancel: threading.Event,
    *,
    store: Keeps | None = None,
    title: str = "",
    experiment_id: str | None = None,
    on_created: Callable[[str], None] | None = None,
    against: Reference | None = None,
) -> Experiment:
    """An experiment to iterate; nothing runs before the first step. `cancel` may be set from any thread.

    store: where it is kept, as `experiment_id` if the caller created it there already; on_created: called with its id; against: what the
    variants are compared with, in place of the first.
    """
    if not specs:
        raise Problem("user", "An experiment needs at least one variant.")
    keeper = Keeper(store, experiment_id)
    keeper.create(title, specs)
    if keeper.experiment_id is not None and on_created:
        on_created(keeper.experiment_id)
    return Experiment(specs, runner, cancel, keeper, against)


def clear_leftovers() -> None:
    """Delete the baselines' figures (up to some gigabytes) that experiments of killed processes left in the user's folder."""
    with suppress(OSError):  # without the folder there is nothing to delete
        for folder in home().glob("baseline-*-*-*"):
            _, pid, started, _ = folder.name.split("-", 3)
            if pid.isdecimal() and started.isdecimal() and not alive(int(pid), float(started)):
                shutil.rmtree(folder, ignore_errors=True)


def _baseline_folder() -> tempfile.TemporaryDirectory[str]:
    """A temporary folder whose name tells its owner; raises OSError."""
    clear_leftovers()
    pid, started = owner()
    return tempfile.TemporaryDirectory(prefix=f"baseline-{pid}-{started:.0f}-", dir=home(), ignore_cleanup_errors=True)
