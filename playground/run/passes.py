"""Passes over the workload, as events: batches of requests, one timed or silent pass over them, the outputs of the first.

What a run does between its stages; `run.execute` says in which order. Example::

    passes = Passes(plan, engine, events.append, lambda: False)
    steps = passes.one("timed", 0, passes.batches(token_ids), streams=False)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass

from playground.core.engine import Batch, Emit, Engine
from playground.core.events import BatchEnd, BatchStart, Event, Output, PassKind, Phase, Text, Tick
from playground.core.plan import Plan

STREAMED_ROWS = 8

Rows = tuple[int, ...]
Steps = list[tuple[Rows, list[Tick]]]


class Stopped(Exception):
    """A person pressed Stop."""


@dataclass
class Passes:
    """A run's plan and engine, where its events go, and whether it was stopped."""

    plan: Plan
    engine: Engine
    emit: Emit
    cancelled: Callable[[], bool]

    def check(self) -> None:
        """Raises Stopped where a person pressed Stop."""
        if self.cancelled():
            raise Stopped

    def emit_or_stop(self, event: Event) -> None:
        """Emit it, unless the run was stopped."""
        self.check()
        self.emit(event)

    def phase(self, name: str, detail: str = "") -> None:
        """A new stage begins."""
        self.emit_or_stop(Phase(time.perf_counter_ns(), name, detail))

    def settle(self) -> None:
        """Idle as long as the engine asks for."""
        end = time.monotonic() + self.engine.settle_s
        while (left := end - time.monotonic()) > 0:
            self.check()
            time.sleep(min(left, 0.05))

    def batches(self, prompts: Sequence[tuple[int, ...]]) -> list[tuple[Rows, Batch]]:
        """Requests are the prompts, repeated in order until there are enough for one batch; a batch has at most batch_size of them."""
        work = self.plan.spec.workload
        for technique in () if self.engine.any_technique else self.plan.techniques:
            if (own := technique.batches(self.plan.spec.knobs, work, prompts)) is not None:
                return own
        size = int(self.plan.spec.knobs.get("batch_size", 1))
        requests = range(max(len(prompts), size))
        batches = []
        for start in requests[::size]:
            rows = tuple(requests[start : start + size])
            ids = tuple(prompts[row % len(prompts)] for row in rows)
            sampling = (work.temperature, work.seed, work.top_k, work.top_p)
            batches.append((rows, Batch(ids, work.max_new_tokens, work.ignore_eos, *sampling)))
        return batches

    def one(self, kind: PassKind, index: int, batches: Sequence[tuple[Rows, Batch]], *, streams: bool) -> Steps:
        """One pass over the workload, as events; `streams`: with the text of the first rows."""
        done = []
        for rows, batch in batches:
            self.check()
            writers = [self.engine.pieces() for row in rows if row < STREAMED_ROWS] if streams else []
            done.append((rows, self._one_batch(kind, index, rows, batch, writers)))
        return done

    def _one_batch(self, kind: PassKind, index: int, rows: Rows, batch: Batch, writers: Sequence[Callable[[int], str]]) -> list[Tick]:
        emit, cancelled = self.emit, self.cancelled
        ticks: list[Tick] = []
        lengths = tuple(len(ids) for ids in batch.token_ids)
        emit(BatchStart(time.perf_counter_ns(), kind, index, rows, lengths, batch.arrivals_s))
        steps = self.engine.generate(batch)
        try:
            for tick in steps:
                emit(tick)
                ticks.append(tick)
                for row, tokens, write in zip(rows, tick.tokens, writers, strict=False):
                    if tokens:
                        emit(Text(tick.t_ns, row, tuple(write(token) for token in tokens)))
                if cancelled():
                    raise Stopped
        finally:
            if isinstance(steps, Generator):
                steps.close()
        emit(BatchEnd(time.perf_counter_ns()))
        return ticks

    def silent(self, batches: Sequence[tuple[Rows, Batch]]) -> int:
        """One pass over the workload without events; returns its output tokens."""
        count = 0
        for _, batch in batches:
            with closing(self.engine.generate(batch)) as steps:  # type: ignore[type-var]
                for tick in steps:
                    count += sum(len(row) for row in tick.tokens)
                    self.check()
        return count

    def outputs(self, first_pass: Steps) -> None:
        """Emit the outputs of one pass."""
        prompts = self.plan.spec.workload.prompts
        for rows, ticks in first_pass:
            for position, row in enumerate(rows):
                write = self.engine.pieces()
                ids = tuple(token for tick in ticks for token in tick.tokens[position])
                pieces = tuple(write(token) for token in ids)
                self.emit(Output(time.perf_counter_ns(), row, prompts[row % len(prompts)], ids, pieces))
