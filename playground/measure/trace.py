"""From raw events to what metrics read: passes, batches and rows with their stamps, and what else the run said.

Pure. Only complete passes count: a pass with a batch that has no BatchEnd, or that the run's end cut off between two batches, is left
out. Example::

    trace = Trace.of(spec, events)
    trace.timed[0].batches[0].ttft_s
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from playground.core.events import (
    ENDINGS,
    BatchEnd,
    BatchStart,
    Cancelled,
    Ceilings,
    Compiled,
    Counts,
    Departure,
    Done,
    Energy,
    Event,
    Evidence,
    Failed,
    Gauge,
    Loaded,
    Memory,
    Output,
    PassKind,
    Phase,
    Prepared,
    Profile,
    Score,
    Tick,
    Warned,
)
from playground.core.spec import RunSpec
from playground.core.technique import Footprint

_CLOSERS = (Phase, Memory, Score, Done)


@dataclass(frozen=True)
class Row:
    """One request in one batch. `stamps_ns[i]`: when `token_ids[i]` was on the host; tokens of one step share their stamp.
    `arrived_ns`: when its waiting began: at the batch's start, or where requests come over time when it came."""

    request: int
    prompt_tokens: int
    token_ids: tuple[int, ...]
    stamps_ns: tuple[int, ...]
    arrived_ns: int = 0

    @property
    def gaps_s(self) -> tuple[float, ...]:
        """Seconds between neighbouring tokens, one fewer than tokens."""
        return tuple((after - before) / 1e9 for before, after in zip(self.stamps_ns, self.stamps_ns[1:], strict=False))


@dataclass(frozen=True)
class TimedBatch:
    """One complete batch: `start_ns` is when its tokenised input was ready; `scheduled`: its requests come over time."""

    start_ns: int
    ticks_ns: tuple[int, ...]
    rows: tuple[Row, ...]
    scheduled: bool = False

    @property
    def ttft_s(self) -> float | None:
        """Input ready to first token, the same for each row; None where no token came."""
        return (self.ticks_ns[0] - self.start_ns) / 1e9 if self.ticks_ns else None

    def e2e_s(self, row: Row) -> float | None:
        """Request there to its last token; None where it has none."""
        return (row.stamps_ns[-1] - (row.arrived_ns or self.start_ns)) / 1e9 if row.stamps_ns else None

    def first_s(self, row: Row) -> float | None:
        """Request there to its first token: its own where requests come over time, else the batch's, which all rows wait for."""
        if not self.scheduled:
            return self.ttft_s
        return (row.stamps_ns[0] - row.arrived_ns) / 1e9 if row.stamps_ns else None


@dataclass(frozen=True)
class Pass:
    """One complete pass over the workload."""

    kind: PassKind
    index: int
    batches: tuple[TimedBatch, ...]

    @property
    def pairs(self) -> list[tuple[TimedBatch, Row]]:
        """Every row with its batch."""
        return [(batch, row) for batch in self.batches for row in batch.rows]


@dataclass(frozen=True)
class Trace:
    """A run as metrics see it. `footprint`: of its knobs, None where it was not given; `memory`: values by stage; `ending` is None for a
    run that was cut off."""

    spec: RunSpec
    footprint: Footprint | None = None
    warmups: tuple[Pass, ...] = ()
    timed: tuple[Pass, ...] = ()
    loaded: Loaded | None = None
    compiled: Compiled | None = None
    prepared: Prepared | None = None
    evidence: Mapping[str, Evidence] = field(default_factory=dict)
    outputs: tuple[Output, ...] = ()
    memory: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    score: Score | None = None
    departures: tuple[Departure, ...] = ()
    energy: Energy | None = None
    ceilings: Ceilings | None = None
    profile: Profile | None = None
    gauges: tuple[Gauge, ...] = ()
    ending: Done | Cancelled | Failed | None = None
    warnings: tuple[str, ...] = ()
    counts: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, spec: RunSpec, events: Sequence[Event], footprint: Footprint | None = None) -> Trace:
        """The trace of a run's events, in the order in which they came; `footprint` is what metrics of efficiency need besides."""
        passes = _passes(events)
        outputs = {event.row: event for event in reversed(events) if isinstance(event, Output)}  # of several rounds the first
        memory: dict[str, dict[str, float]] = {}
        for event in events:
            if isinstance(event, Memory):
                memory.setdefault(event.stage, {}).update(event.values)
        return cls(
            spec=spec,
            footprint=footprint,
            warmups=tuple(item for item in passes if item.kind == "warmup"),
            timed=tuple(item for item in passes if item.kind == "timed"),
            loaded=next((event for event in events if isinstance(event, Loaded)), None),
            compiled=next((event for event in events if isinstance(event, Compiled)), None),
            prepared=_last(events, Prepared),
            evidence={event.technique: event for event in events if isinstance(event, Evidence)},
            outputs=tuple(outputs[row] for row in sorted(outputs)),
            memory=memory,
            score=_last(events, Score),
            departures=tuple(event for event in events if isinstance(event, Departure)),
            energy=_last(events, Energy),
            ceilings=_last(events, Ceilings),
            profile=_last(events, Profile),
            gauges=tuple(event for event in events if isinstance(event, Gauge)),
            ending=next((event for event in reversed(events) if isinstance(event, ENDINGS)), None),
            warnings=tuple(event.message for event in events if isinstance(event, Warned)),
            counts={name: value for event in events if isinstance(event, Counts) for name, value in event.values.items()},
        )

    @property
    def model(self) -> Mapping[str, Any]:
        """Facts of the loaded model, empty before it was loaded."""
        return self.loaded.model if self.loaded else {}

    def remembered(self, name: str) -> float | None:
        """A memory value by name: after the timed passes if it was taken there, else after loading."""
        for stage in ("timed", "load"):
            if name in self.memory.get(stage, {}):
                return self.memory[stage][name]
        return None


def _last(events: Sequence[Event], kind: type) -> Any:
    return next((event for event in reversed(events) if isinstance(event, kind)), None)


def _passes(events: Sequence[Event]) -> list[Pass]:
    """Complete passes. A pass is closed by a later stage of the run or by the next pass, not by the run being cut off."""
    passes: list[Pass] = []
    key: tuple[PassKind, int] | None = None
    batches: list[TimedBatch | None] = []

    def close() -> None:
        nonlocal key
        if key is not None and all(batch is not None for batch in batches):
            passes.append(Pass(key[0], key[1], tuple(batch for batch in batches if batch is not None)))
        key = None
        batches.clear()

    started: BatchStart | None = None
    ticks: list[Tick] = []
    for event in events:
        if isinstance(event, BatchStart):
            if key != (event.kind, event.index):
                close()
            key, started, ticks = (event.kind, event.index), event, []
            batches.append(None)
        elif isinstance(event, Tick):
            ticks.append(event)
        elif isinstance(event, BatchEnd) and started is not None:
            batches[-1] = _batch(started, ticks)
            started = None
        elif isinstance(event, _CLOSERS):
            close()
            started = None
    return passes


def _batch(start: BatchStart, ticks: Sequence[Tick]) -> TimedBatch:
    rows = []
    for position, (request, prompt_tokens) in enumerate(zip(start.rows, start.prompt_tokens, strict=True)):
        stamped = [(token, tick.t_ns) for tick in ticks for token in tick.tokens[position]]
        arrived = start.t_ns + round(start.arrivals_s[position] * 1e9) if start.arrivals_s else start.t_ns
        rows.append(Row(request, prompt_tokens, tuple(token for token, _ in stamped), tuple(stamp for _, stamp in stamped), arrived))
    return TimedBatch(start.t_ns, tuple(tick.t_ns for tick in ticks), tuple(rows), bool(start.arrivals_s))
