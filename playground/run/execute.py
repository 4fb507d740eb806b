"""One variant, from plan to ending, in this process: the measurement protocol of a run as a list of events.

load -> prepare -> evidence -> warm-up passes -> timed passes -> outputs -> quality. Timed passes do nothing but iterate and append; every
number is derived later from the events. It knows no process, no pipe and no metric. Example::

    execute(plan, engine, events.append, lambda: False, machine=probe(), loaded=False)
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from playground.core.engine import Batch, Emit, Engine
from playground.core.events import (
    ENDINGS,
    BatchEnd,
    BatchStart,
    Cancelled,
    Done,
    Event,
    Evidence,
    Loaded,
    Memory,
    Output,
    PassKind,
    Phase,
    Prepared,
    Score,
    Text,
    Tick,
)
from playground.core.machine import Machine
from playground.core.plan import Plan
from playground.core.problem import Problem
from playground.measure.machine import provenance
from playground.measure.quality import score_quality
from playground.run.failures import from_exception
from playground.run.resident import give_back, reset_peak, resident

STREAMED_ROWS = 8
QUALITY_METRICS = ("kld_mean", "kld_p99", "top1_agreement", "ppl")

Rows = tuple[int, ...]


class _Stopped(Exception):
    """A person pressed Stop."""


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
) -> None:
    """Run one variant and emit its events; the last one, always, is its only Done, Cancelled or Failed. Errors of the run raise nothing.

    loaded: `engine` is the one that an earlier run with the same load-time knobs left; reference: the baseline's log-probabilities, for
    the comparison of quality; save_reference: where to put this run's own.
    """
    run = _Run(plan, engine, emit, cancelled)
    try:
        recorded = engine.replay(plan)
        ending = run.play(recorded) if recorded is not None else run.measure(machine, loaded, reference, save_reference)
    except _Stopped:
        ending = Cancelled(time.perf_counter_ns())
    except Exception as error:
        ending = from_exception(error)
    emit(ending)


@dataclass
class _Run:
    plan: Plan
    engine: Engine
    emit: Emit
    cancelled: Callable[[], bool]

    def play(self, recorded: Iterable[Event]) -> Event:
        for event in recorded:
            if isinstance(event, ENDINGS):
                return event
            self._emit_or_stop(event)
        return Done(time.perf_counter_ns())

    def measure(self, machine: Machine, loaded: bool, reference: Path | None, save_reference: Path | None) -> Event:
        protocol = self.plan.spec.protocol
        self._load(machine, loaded)
        self.engine.setup(self.plan)
        batches = self._batches(self._prepare())
        self._phase("evidence", "load")
        self._prove("load")
        for index in range(protocol.warmups):
            self._phase("warmup", f"warm-up pass {index + 1} of {protocol.warmups}")
            self._pass("warmup", index, batches, streams=index == 0)
            if index == 0:
                self._prove("run")
        self.engine.reset_peaks()
        reset_peak()
        first: list[tuple[Rows, list[Tick]]] = []
        for index in range(protocol.repeats):
            self._phase("timed", f"timed pass {index + 1} of {protocol.repeats}")
            self._settle()
            steps = self._pass("timed", index, batches, streams=index == 0 and not protocol.warmups)
            if index == 0:
                first = steps
                if not protocol.warmups:
                    self._prove("run")
        self._memory("timed")
        self._outputs(first)
        if protocol.quality:
            self._quality(reference, save_reference)
        return Done(time.perf_counter_ns())

    def _emit_or_stop(self, event: Event) -> None:
        if self.cancelled():
            raise _Stopped
        self.emit(event)

    def _phase(self, name: str, detail: str = "") -> None:
        self._emit_or_stop(Phase(time.perf_counter_ns(), name, detail))

    def _settle(self) -> None:
        end = time.monotonic() + self.engine.settle_s
        while (left := end - time.monotonic()) > 0:
            if self.cancelled():
                raise _Stopped
            time.sleep(min(left, 0.05))

    def _memory(self, stage: str) -> None:
        self.emit(Memory(time.perf_counter_ns(), stage, {**self.engine.memory(), **resident()}))

    def _load(self, machine: Machine, loaded: bool) -> None:
        """Load, or tell again what was loaded; Memory of the stage "start" is from before the engine was loaded in both cases."""
        reset_peak()
        before = self.engine.facts.get("rss_before_load_bytes") or resident().get("rss_bytes")
        self.emit(Memory(time.perf_counter_ns(), "start", {} if before is None else {"rss_bytes": before}))
        self._phase("load", self.plan.spec.model)
        started = time.perf_counter()
        if not loaded:
            facts = self.engine.load(self.plan, self._emit_or_stop)
            self.engine.facts = json.loads(json.dumps({**facts, "device": self.plan.device, "rss_before_load_bytes": before}, default=str))
            give_back()  # what loading and quantising freed is not what the run needs
        seconds = float(self.engine.facts.get("load_s", time.perf_counter() - started))
        self.emit(Loaded(time.perf_counter_ns(), seconds, self.engine.facts, provenance(machine), reused=loaded))
        self._memory("load")

    def _prepare(self) -> list[tuple[int, ...]]:
        """Token ids of each prompt."""
        self._phase("prepare")
        work = self.plan.spec.workload
        prepared = [self.engine.prepare(prompt, work.chat) for prompt in work.prompts]
        ids = [tuple(tokens) for _, tokens in prepared]
        texts = tuple(text for text, _ in prepared)
        templated = work.chat and texts != work.prompts
        self.emit(Prepared(time.perf_counter_ns(), texts, tuple(len(tokens) for tokens in ids), templated))
        self._check_lengths([len(tokens) for tokens in ids])
        return ids

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

    def _batches(self, prompts: Sequence[tuple[int, ...]]) -> list[tuple[Rows, Batch]]:
        """Requests are the prompts, repeated in order until there are enough for one batch; a batch has at most batch_size of them."""
        work = self.plan.spec.workload
        size = int(self.plan.spec.knobs.get("batch_size", 1))
        requests = range(max(len(prompts), size))
        batches = []
        for start in requests[::size]:
            rows = tuple(requests[start : start + size])
            ids = tuple(prompts[row % len(prompts)] for row in rows)
            batches.append((rows, Batch(ids, work.max_new_tokens, work.ignore_eos, work.temperature, work.seed)))
        return batches

    def _prove(self, phase: Literal["load", "run"]) -> None:
        """Evidence of the techniques of that phase; a proof that fails ends the run."""
        for technique in self.plan.techniques:
            finding = self.engine.evidence(technique, self.plan) if technique.phase == phase else None
            if finding is None:
                continue
            self.emit(Evidence(time.perf_counter_ns(), technique.name, finding.ok, finding.text))
            if not finding.ok:
                raise Problem("unsupported", f"{technique.title}: {finding.text}")

    def _pass(self, kind: PassKind, index: int, batches: Sequence[tuple[Rows, Batch]], *, streams: bool) -> list[tuple[Rows, list[Tick]]]:
        done = []
        for rows, batch in batches:
            if self.cancelled():
                raise _Stopped
            writers = [self.engine.pieces() for row in rows if row < STREAMED_ROWS] if streams else []
            done.append((rows, self._one_batch(kind, index, rows, batch, writers)))
        return done

    def _one_batch(self, kind: PassKind, index: int, rows: Rows, batch: Batch, writers: Sequence[Callable[[int], str]]) -> list[Tick]:
        emit, cancelled = self.emit, self.cancelled
        ticks: list[Tick] = []
        lengths = tuple(len(ids) for ids in batch.token_ids)
        emit(BatchStart(time.perf_counter_ns(), kind, index, rows, lengths))
        steps = self.engine.generate(batch)
        try:
            for tick in steps:
                emit(tick)
                ticks.append(tick)
                for row, tokens, write in zip(rows, tick.tokens, writers, strict=False):
                    if tokens:
                        emit(Text(tick.t_ns, row, tuple(write(token) for token in tokens)))
                if cancelled():
                    raise _Stopped
        finally:
            if isinstance(steps, Generator):
                steps.close()
        emit(BatchEnd(time.perf_counter_ns()))
        return ticks

    def _outputs(self, first_pass: Sequence[tuple[Rows, list[Tick]]]) -> None:
        prompts = self.plan.spec.workload.prompts
        for rows, ticks in first_pass:
            for position, row in enumerate(rows):
                write = self.engine.pieces()
                ids = tuple(token for tick in ticks for token in tick.tokens[position])
                pieces = tuple(write(token) for token in ids)
                self.emit(Output(time.perf_counter_ns(), row, prompts[row % len(prompts)], ids, pieces))

    def _quality(self, reference: Path | None, save_reference: Path | None) -> None:
        """Scores, or why there are none: a model that cannot be scored, or only not in this memory, has still been measured."""
        self._phase("quality")
        if self.engine.facts.get("random_weights"):
            self._no_quality("random weights, so quality has no meaning")
            return
        try:
            values, missing, about = score_quality(self.engine, reference, save_reference, self.engine.facts.get("context_length"))
        except Exception as error:
            failed = from_exception(error)
            if failed.kind not in ("unsupported", "oom"):
                raise
            self._no_quality(failed.message)
        else:
            self.emit(Score(time.perf_counter_ns(), values, missing, about))

    def _no_quality(self, reason: str) -> None:
        self.emit(Score(time.perf_counter_ns(), {}, dict.fromkeys(QUALITY_METRICS, reason)))
