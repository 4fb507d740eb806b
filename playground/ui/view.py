"""What the page shows of a running experiment, as a pure function of its events.

`fold(view, (variant index, event))` returns the next view and leaves the old one as it was; its cost does not grow with the number of
events. Nothing here knows HTML or Gradio. Example::

    view = start(["fp32", "bf16"])
    for item in events:
        view = fold(view, item)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from playground.core import events as ev
from playground.ui.series import Growing, Series, changed

Status = Literal["waiting", "running", "done", "failed", "cancelled", "interrupted"]
LATENCY, THROUGHPUT, MEMORY, LOAD = "latency_s", "tokens_per_s", "memory_bytes", "load"
MEMORY_GAUGES = ("process_bytes", "device_used_bytes", "rss_bytes")
LOAD_GAUGES = ("gpu_util", "cpu_percent")
GPU_GAUGES = ("process_bytes", "device_used_bytes", "gpu_util")


@dataclass(frozen=True, eq=False)
class Row:
    """The text of one request: one piece a token; `token_ids` when the final output is there. Equal is only itself, as of `Series`."""

    pieces: Growing[str] = field(default_factory=Growing)
    token_ids: tuple[int, ...] | None = None
    prompt: str = ""


@dataclass(frozen=True)
class VariantView:
    """One column. `began_ns`: first event; `generating_ns`: first batch; `last_ns`: last tick of the open batch, None outside one.

    `after_pause`: the next point of latency and throughput is the first of its batch.
    """

    name: str = ""
    status: Status = "waiting"
    phase: str = ""
    detail: str = ""
    progress: ev.Progress | None = None
    progress_began: ev.Progress | None = None
    began_ns: int | None = None
    generating_ns: int | None = None
    last_ns: int | None = None
    first_of_batch: bool = True
    after_pause: bool = False
    loaded: ev.Loaded | None = None
    prepared: ev.Prepared | None = None
    rows: Mapping[int, Row] = field(default_factory=dict)
    series: Mapping[str, Series] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
    evidence: tuple[ev.Evidence, ...] = ()
    warnings: tuple[str, ...] = ()
    memory: Mapping[str, float] = field(default_factory=dict)
    tokens: int = 0
    failure: ev.Failed | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return self.status not in ("waiting", "running")


@dataclass(frozen=True)
class View:
    """All columns of one experiment. `current`: whose event came last; in alternating rounds several variants are running."""

    variants: tuple[VariantView, ...] = ()
    current: int = 0


def start(names: Sequence[str]) -> View:
    """The view before the first event."""
    return View(tuple(VariantView(name) for name in names))


def fold(view: View, item: tuple[int, ev.Event]) -> View:
    """The view after one more event of one variant; events of an unknown variant are ignored."""
    index, event = item
    if not 0 <= index < len(view.variants):
        return view
    variant = _began(view.variants[index], event)
    step = _STEPS.get(type(event))
    variant = step(variant, event) if step else variant
    return View((*view.variants[:index], variant, *view.variants[index + 1 :]), index)


def _began(variant: VariantView, event: ev.Event) -> VariantView:
    if variant.began_ns is not None:
        return variant
    return changed(variant, status="running", began_ns=event.t_ns)


def _phase(variant: VariantView, event: ev.Phase) -> VariantView:
    return changed(variant, phase=event.name, detail=event.detail, progress=None, progress_began=None, last_ns=None)


def _progress(variant: VariantView, event: ev.Progress) -> VariantView:
    same = variant.progress is not None and variant.progress.name == event.name
    return changed(variant, progress=event, progress_began=variant.progress_began if same else event)


def _loaded(variant: VariantView, event: ev.Loaded) -> VariantView:
    return changed(variant, loaded=event, progress=None, progress_began=None)


def _prepared(variant: VariantView, event: ev.Prepared) -> VariantView:
    return changed(variant, prepared=event)


def _evidence(variant: VariantView, event: ev.Evidence) -> VariantView:
    others = tuple(found for found in variant.evidence if found.technique != event.technique)
    return changed(variant, evidence=(*others, event))


def _batch_start(variant: VariantView, event: ev.BatchStart) -> VariantView:
    generating = variant.generating_ns if variant.generating_ns is not None else event.t_ns
    return changed(variant, generating_ns=generating, last_ns=event.t_ns, first_of_batch=True, after_pause=True)


def _tick(variant: VariantView, event: ev.Tick) -> VariantView:
    """A tick is one point of latency and of throughput; the first of a batch is the prefill and belongs to neither."""
    produced = sum(map(len, event.tokens))
    tokens = variant.tokens + produced
    if variant.last_ns is None or variant.generating_ns is None:
        return changed(variant, tokens=tokens, last_ns=event.t_ns)
    gap = (event.t_ns - variant.last_ns) / 1e9
    if variant.first_of_batch or gap <= 0 or not produced:
        return changed(variant, tokens=tokens, last_ns=event.t_ns, first_of_batch=False)
    x = (event.t_ns - variant.generating_ns) / 1e9
    series = dict(variant.series)
    series[LATENCY] = series.get(LATENCY, Series()).plus(x, gap, after_pause=variant.after_pause)
    series[THROUGHPUT] = series.get(THROUGHPUT, Series()).plus(x, produced / gap, weight=gap, after_pause=variant.after_pause)
    return changed(variant, tokens=tokens, last_ns=event.t_ns, series=series, after_pause=False)


def _batch_end(variant: VariantView, event: ev.BatchEnd) -> VariantView:
    return changed(variant, last_ns=None)


def _text(variant: VariantView, event: ev.Text) -> VariantView:
    row = variant.rows.get(event.row, Row())
    if row.token_ids is not None:
        return variant
    return changed(variant, rows={**variant.rows, event.row: changed(row, pieces=row.pieces.plus(event.pieces))})


def _output(variant: VariantView, event: ev.Output) -> VariantView:
    row = Row(Growing[str]().plus(event.pieces), event.token_ids, event.prompt)
    return changed(variant, rows={**variant.rows, event.row: row})


def _gauge(variant: VariantView, event: ev.Gauge) -> VariantView:
    """One line of memory and one of load: from the best source seen so far, which a better one replaces."""
    x = (event.t_ns - (event.t_ns if variant.began_ns is None else variant.began_ns)) / 1e9
    series, sources = dict(variant.series), dict(variant.sources)
    on_cpu = variant.loaded is not None and variant.loaded.model.get("device") == "cpu"
    for line, ranked in ((MEMORY, MEMORY_GAUGES), (LOAD, LOAD_GAUGES)):
        names = tuple(name for name in ranked if not (on_cpu and name in GPU_GAUGES))
        known = names[: names.index(sources[line]) + 1] if sources.get(line) in names else names
        name = next((name for name in known if name in event.values), None)
        if name is not None:
            before = series[line] if sources.get(line) == name else Series()
            sources[line] = name
            scale = 0.01 if name == "cpu_percent" else 1.0
            series[line] = before.plus(x, event.values[name] * scale)
    return changed(variant, series=series, sources=sources)


def _memory(variant: VariantView, event: ev.Memory) -> VariantView:
    return changed(variant, memory={**variant.memory, **event.values})


def _warned(variant: VariantView, event: ev.Warned) -> VariantView:
    return variant if event.message in variant.warnings else changed(variant, warnings=(*variant.warnings, event.message))


def _done(variant: VariantView, event: ev.Done) -> VariantView:
    return changed(variant, status="done", progress=None, last_ns=None)


def _cancelled(variant: VariantView, event: ev.Cancelled) -> VariantView:
    return changed(variant, status="cancelled", progress=None, last_ns=None)


def _failed(variant: VariantView, event: ev.Failed) -> VariantView:
    return changed(variant, status="failed", progress=None, last_ns=None, failure=event)


_STEPS: dict[type, Callable[[VariantView, Any], VariantView]] = {
    ev.Phase: _phase, ev.Progress: _progress, ev.Loaded: _loaded, ev.Prepared: _prepared, ev.Evidence: _evidence,
    ev.BatchStart: _batch_start, ev.Tick: _tick, ev.BatchEnd: _batch_end, ev.Text: _text, ev.Output: _output, ev.Gauge: _gauge,
    ev.Memory: _memory, ev.Warned: _warned, ev.Done: _done, ev.Cancelled: _cancelled, ev.Failed: _failed,
}  # fmt: skip


def departure(baseline: Sequence[object], other: Sequence[object]) -> int | None:
    """Index of the first token in which `other` departs from the baseline, as far as both go; None where they agree."""
    return next((i for i, (a, b) in enumerate(zip(baseline, other, strict=False)) if a != b), None)


def row_departure(one: Row | None, two: Row | None) -> int | None:
    """`departure` of one request: by token ids when both final outputs are there, by pieces while they stream; None without one of them."""
    if one is None or two is None:
        return None
    if one.token_ids is not None and two.token_ids is not None:
        return departure(one.token_ids, two.token_ids)
    return departure(tuple(one.pieces), tuple(two.pieces))
