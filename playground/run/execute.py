"""One variant, from plan to ending, in this process: the measurement protocol of a run as a list of events.

load -> ceilings -> prepare -> compile -> evidence -> warm-up passes -> timed passes -> outputs -> energy window -> quality -> profile: one
after the other, since what samples inside a timed pass changes it. Timed passes do nothing but iterate and append; every number is
derived later from the events. It knows no process, no pipe and no metric. Example::

    execute(plan, engine, events.append, lambda: False, machine=probe(), loaded=False)
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from playground.core.engine import Batch, Emit, Engine
from playground.core.events import (
    ENDINGS,
    Cancelled,
    Compiled,
    Counts,
    Done,
    Energy,
    Event,
    Evidence,
    Loaded,
    Memory,
    Prepared,
    Profile,
    Warned,
)
from playground.core.machine import Machine
from playground.core.plan import Plan, Techniques, footprint_of
from playground.core.problem import Problem
from playground.measure.ceilings import device_key, known_ceilings, measure_ceilings
from playground.measure.energy import EnergyMeter, energy_window
from playground.measure.machine import probe, provenance
from playground.run.failures import from_exception
from playground.run.passes import Passes, Rows, Steps, Stopped
from playground.run.prompts import text_of
from playground.run.resident import give_back, reset_peak, resident
from playground.run.scoring import quality


def execute(
    plan: Plan,
    engine: Engine,
    emit: Emit,
    cancelled: Callable[[], bool],
    *,
    machine: Machine,
    loaded: bool,
    reference: Path | None = None,
    save_reference: Path | None = None,
    ceilings: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Run one variant and emit its events; the last one, always, is its only Done, Cancelled or Failed. Errors of the run raise nothing.

    loaded: `engine` is the one that an earlier run with the same load-time knobs left; reference: the folder with the baseline's
    log-probabilities, for the comparison of quality; save_reference: where to put this run's own; ceilings: those that are known of this
    machine, by `measure.ceilings.device_key`.
    """
    run = _Run(plan, engine, emit, cancelled)
    engine.check = run.check
    try:
        recorded = engine.replay(plan)
        ending = run.play(recorded) if recorded is not None else run.measure(machine, loaded, reference, save_reference, ceilings or {})
    except Stopped:
        ending = Cancelled(time.perf_counter_ns())
    except Exception as error:
        ending = from_exception(error)
    emit(ending)


class _Run(Passes):
    """The stages of one run in their order."""

    def play(self, recorded: Iterable[Event]) -> Event:
        for event in recorded:
            if isinstance(event, ENDINGS):
                return event
            self.emit_or_stop(event)
        return Done(time.perf_counter_ns())

    def measure(
        self,
        machine: Machine,
        loaded: bool,
        reference: Path | None,
        save_reference: Path | None,
        ceilings: Mapping[str, Mapping[str, Any]],
    ) -> Event:
        protocol = self.plan.spec.protocol
        self._load(machine, loaded)
        self._ceilings(machine, ceilings)
        self.engine.setup(self.plan)
        prompts = self._prepare()
        self.engine.know(prompts)
        batches = self.batches(prompts)
        self._compile(batches)
        self.phase("evidence", "load")
        self._prove("load")
        for index in range(protocol.warmups):
            self.phase("warmup", f"warm-up pass {index + 1} of {protocol.warmups}")
            self.one("warmup", index, batches, streams=index == 0)
            if index == 0:
                self._prove("run")
        self.engine.reset_peaks()
        reset_peak()
        first: Steps = []
        for index in range(protocol.repeats):
            self.phase("timed", f"timed pass {index + 1} of {protocol.repeats}")
            self.settle()
            steps = self.one("timed", index, batches, streams=index == 0 and not protocol.warmups)
            if index == 0:
                first = steps
                if not protocol.warmups:
                    self._prove("run")
        self._memory("timed")
        self._counts()
        self.outputs(first)
        if protocol.energy:
            self._energy(batches)
        if protocol.quality:
            quality(self, batches, first, reference, save_reference)
        if protocol.profile:
            self._profile(batches[0][1])
        return Done(time.perf_counter_ns())

    def _memory(self, stage: str) -> None:
        self.emit(Memory(time.perf_counter_ns(), stage, {**self.engine.memory(), **resident()}))

    def _counts(self) -> None:
        found: dict[str, float] = {}
        for technique in self.plan.techniques:
            try:
                found |= self.engine.counts(technique, self.plan)
            except Exception as error:  # a run without its counts has still been measured
                self.emit(Warned(time.perf_counter_ns(), f"{technique.title} could not be counted: {from_exception(error).message}"))
        if found:
            self.emit(Counts(time.perf_counter_ns(), found))

    def _load(self, machine: Machine, loaded: bool) -> None:
        """Load, or tell again what was loaded; Memory of the stage "start" is from before the engine was loaded in both cases."""
        reset_peak()
        before = self.engine.facts.get("rss_before_load_bytes") or resident().get("rss_bytes")
        self.emit(Memory(time.perf_counter_ns(), "start", {} if before is None else {"rss_bytes": before}))
        self.phase("load", self.plan.spec.model)
        started = time.perf_counter()
        if not loaded:
            facts = self.engine.load(self.plan, self.emit_or_stop)
            self.engine.facts = json.loads(json.dumps({**facts, "device": self.plan.device, "rss_before_load_bytes": before}, default=str))
            give_back()  # what loading and quantising freed is not what the run needs
        seconds = float(self.engine.facts.get("load_s", time.perf_counter() - started))
        model = {**self.engine.facts, "footprint": self._footprint()}
        self.emit(Loaded(time.perf_counter_ns(), seconds, model, provenance(machine), reused=loaded))
        self._memory("load")

    def _footprint(self) -> dict[str, Any]:
        """What this engine changes of the footprint that the techniques give: kept with the run, so that who plays it needs no engine."""
        kinds = (None, type(self.engine))
        plain, own = (dataclasses.asdict(footprint_of(self.plan.spec, self._by_name(), kind, self.plan.device)) for kind in kinds)
        return {name: value for name, value in own.items() if value != plain[name]}

    def _by_name(self) -> Techniques:
        return {technique.name: technique for technique in self.plan.techniques}

    def _ceilings(self, machine: Machine, known: Mapping[str, Mapping[str, Any]]) -> None:
        """What the device can do at best: as it was measured before, else measured now. Only for engines that compute with torch here."""
        if self.engine.facts.get("dtype") is None:
            return
        dtype = footprint_of(self.plan.spec, self._by_name()).product_dtype
        found = known_ceilings(known, device_key(machine, self.plan.device, dtype))
        if found is not None:
            self.emit(dataclasses.replace(found, t_ns=time.perf_counter_ns()))
            return
        self.phase("ceilings")
        try:
            now = dataclasses.replace(machine, free_bytes=probe().free_bytes)  # beside the loaded model
            self.emit(measure_ceilings(self.plan.device, dtype, now))
        except Exception as error:  # a run without its ceilings has still been measured
            self.emit(Warned(time.perf_counter_ns(), f"The device's ceilings could not be measured: {from_exception(error).message}"))

    def _compile(self, batches: Sequence[tuple[Rows, Batch]]) -> None:
        """Before the first pass, so that no pass is slow for it."""
        if not self.engine.compiles(self.plan):
            return
        self.phase("compile")
        taken = [self.engine.compile(batch) for _, batch in batches]
        known = [seconds for seconds in taken if seconds is not None]
        self.emit(Compiled(time.perf_counter_ns(), sum(known) if known else None))

    def _energy(self, batches: Sequence[tuple[Rows, Batch]]) -> None:
        meter = EnergyMeter.open(self.plan.device)
        if meter.reason:
            self.emit(Energy(time.perf_counter_ns(), None, 0.0, 0, 0, meter.reason))
            return
        self.phase("energy")
        try:
            self.emit(energy_window(meter, lambda: self.silent(batches), self.check))
        finally:
            meter.close()

    def _profile(self, batch: Batch) -> None:
        self.phase("profile")
        try:
            self.emit(self.engine.profile(batch))
        except Stopped:
            raise
        except Exception as error:  # a run without its profile has still been measured
            self.emit(Profile(time.perf_counter_ns(), reason=from_exception(error).message))

    def _prepare(self) -> list[tuple[int, ...]]:
        """Token ids of each prompt."""
        self.phase("prepare")
        self._make_prompts()
        work = self.plan.spec.workload
        prepared = [self.engine.prepare(prompt, work.chat) for prompt in work.prompts]
        ids = [tuple(tokens) for _, tokens in prepared]
        texts = tuple(text for text, _ in prepared)
        templated = work.chat and texts != work.prompts
        self.emit(Prepared(time.perf_counter_ns(), texts, tuple(len(tokens) for tokens in ids), templated))
        self._check_made([len(tokens) for tokens in ids])
        self._check_lengths([len(tokens) for tokens in ids])
        return ids

    def _make_prompts(self) -> None:
        """Where the workload asks for prompts of a length, put them in the place of what is written there."""
        work = self.plan.spec.workload
        if work.prompt_tokens:

            def count(text: str) -> int:
                return len(self.engine.prepare(text, False)[1])

            made = tuple(text_of(work.prompt_tokens, count, number) for number in range(len(work.prompts)))
            spec = self.plan.spec.replace(workload=dataclasses.replace(work, prompts=made))
            self.plan = dataclasses.replace(self.plan, spec=spec)

    def _check_made(self, token_counts: Sequence[int]) -> None:
        """Proof that prompts of a length have it; raises Problem("crash") where one has not."""
        asked = self.plan.spec.workload.prompt_tokens
        if asked:
            ok = set(token_counts) == {asked}
            proof = f"prompts of {asked:,} tokens were asked for, made of the product's own text, and have {sorted(set(token_counts))}"
            self.emit(Evidence(time.perf_counter_ns(), "prompt_tokens", ok, f"{proof}; without a chat template, as they are no messages"))
            if not ok:
                raise Problem("crash", f"{proof}.")

    def _check_lengths(self, token_counts: Sequence[int]) -> None:
        limit, new = self.engine.facts.get("context_length"), self.plan.spec.workload.max_new_tokens
        for number, count in enumerate(token_counts, 1):
            if count == 0:
                raise Problem("user", f"Prompt {number} has no tokens in this model's vocabulary: write some more text.")
            if limit is not None and count + new > limit:
                raise Problem(
                    "user",
                    f"Prompt {number} is too long: its {count:,} tokens and the {new:,} to generate are {count + new:,}, and the model's "
                    f"context holds {limit:,}. Shorten the prompt or generate fewer tokens.",
                )

    def _prove(self, phase: Literal["load", "run"]) -> None:
        """Evidence of the techniques of that phase; a proof that fails ends the run."""
        for technique in self.plan.techniques:
            finding = self.engine.evidence(technique, self.plan) if technique.phase == phase else None
            if finding is None:
                continue
            self.emit(Evidence(time.perf_counter_ns(), technique.name, finding.ok, finding.text))
            if not finding.ok:
                raise Problem("unsupported", f"{technique.title}: {finding.text}")
