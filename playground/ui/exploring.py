"""What the tab "Explore" does with chosen runs: put them side by side, draw trade-offs within limits, write reports. No components here.

Example::

    found = gather(app, ["k3x9abcd:0", "k3x9abcd:1"])
    trades_json(found, axes=None, limits={"ttft_s": 0.2})
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from playground.measure.metrics import METRICS
from playground.presets import judged
from playground.results.compare import Compared, picked, side_by_side
from playground.results.metrics_table import csv_text, json_text, metric_rows
from playground.results.numbers import Scale, digits, scale_for
from playground.results.pareto import USUAL_LIMITS, Axes, metric_of, tradeable, usual_axes
from playground.results.pareto_chart import pareto_charts
from playground.results.ranking import number
from playground.results.report import About
from playground.run.reporting import report_of
from playground.ui.handlers import App

LATENCIES = ("ttft_s", "itl_s", "itl_p95_s", "e2e_s", "j_per_token", "peak_allocated_bytes", "peak_rss_bytes", "weights_bytes")
QUALITIES = ("top1_agreement", "kld_mean", "kld_p99", "matching_tokens", "ppl", "question_accuracy")
STEPS = 200


@dataclass(frozen=True)
class Gathered:
    """Chosen runs side by side; `title`: what they are together."""

    compared: Compared = field(default_factory=lambda: Compared([], [], []))
    title: str = ""


def gather(app: App, picks: Sequence[str]) -> Gathered:
    """The runs "EXPERIMENT:INDEX" in the order in which they were chosen; raises Problem("user") for fewer than two or more than eight, and
    for one that is gone or has no result."""
    stored = {name: app.store.load(name) for name in dict.fromkeys(pick.rpartition(":")[0] for pick in picks)}
    runs = [picked(stored[pick.rpartition(":")[0]], int(pick.rpartition(":")[2])) for pick in picks]
    titles = list(dict.fromkeys(run.experiment for run in runs))
    return Gathered(side_by_side(runs), titles[0] if len(titles) == 1 else f"{len(runs)} runs of {len(titles)} experiments")


def measured(found: Gathered, names: Sequence[str], by: int = 1) -> list[str]:
    """Those of the metrics that at least so many of the runs have."""

    def having(name: str) -> int:
        return sum(number(metric_of(result, name)) is not None for result in found.compared.results)

    return [name for name in names if name in METRICS and having(name) >= by]


def axes_choices(found: Gathered) -> list[tuple[str, str]]:
    """(title, name) of the metrics that can be an axis."""
    return [(METRICS[name].title, name) for name in measured(found, tradeable())]


@dataclass(frozen=True)
class Span:
    """A limit's slider in a unit for people: its ends, which of them leaves everything in, and where it stands at first."""

    low: float
    high: float
    open_end: float
    value: float
    step: float
    scale: Scale
    label: str


def span_of(found: Gathered, name: str) -> Span | None:
    """The slider of a metric over the values of the runs, a little wider on both sides; None where no run has it."""
    values = [value for result in found.compared.results if (value := number(metric_of(result, name))) is not None]
    if not values:
        return None
    about = METRICS[name]
    scale = scale_for(max(abs(value) for value in values), about.unit)
    low, high = (0.9 * min(values) * scale.factor, 1.1 * max(values) * scale.factor)
    if scale.unit == "%":
        low, high = min(low, 90.0), 100.0
    step = 10.0 ** math.floor(math.log10((high - low) / STEPS or 1.0))
    first = math.floor(round(low / step, 6))  # 1.1 * 400 is a little more than 440 in binary
    last = max(math.ceil(round(high / step, 6)), first + 1)  # all runs may have nothing of it
    low, high = round(first * step, 12), round(last * step, 12)
    lower = about.direction == "lower"
    open_end = high if lower else low
    usual = USUAL_LIMITS.get(name, 0.0) * scale.factor
    value = usual if low < usual < high else open_end
    words = "at most" if lower else "at least"
    return Span(
        low, high, open_end, value, step, scale, f"{about.title} {words} ({scale.unit})" if scale.unit else f"{about.title} {words}"
    )


def limits_of(found: Gathered, wanted: Sequence[tuple[str, float | None]]) -> dict[str, float]:
    """Limits by metric in its own unit from sliders' values; one at its open end is none."""
    limits = {}
    for name, value in wanted:
        span = span_of(found, name) if name else None
        if span is not None and value is not None and abs(value - span.open_end) > span.step / 2:
            limits[name] = value / span.scale.factor
    return limits


def trades_json(found: Gathered, x: str, y: str, size: str, limits: Mapping[str, float]) -> str:
    """The chart's value."""
    if not found.compared.results:
        return ""
    return json.dumps(pareto_charts(found.compared.results, found.compared.names, limits, axes_of(found, x, y, size)))


def axes_of(found: Gathered, x: str, y: str, size: str) -> list[Axes] | None:
    """The pair of axes with what was chosen and else what is usual; None, which means all usual pairs, where nothing was."""
    usual = usual_axes(found.compared.results)
    if not (x or y or size) or not usual:
        return None
    return [Axes(x or usual[0].x, y or usual[0].y, size or usual[0].size)]


def write_files(found: Gathered, limits: Mapping[str, float], axes: Sequence[Axes] | None = None) -> dict[str, str]:
    """Paths of report, CSV and JSON of what is shown, in a fresh temporary folder."""
    results, names = found.compared.results, found.compared.names
    folder = Path(tempfile.mkdtemp(prefix="report-"))
    about = About(found.title, "", names, found.compared.warnings, judged(results), limits=limits, axes=axes)
    rows = metric_rows(results, names)
    texts = {"report.html": report_of(results, about), "metrics.csv": csv_text(rows), "metrics.json": json_text(rows)}
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8", errors="replace")  # a model may write half a pair of UTF-16
    return {name: str(folder / name) for name in texts}


def limit_info(span: Span) -> str:
    """What the open end means."""
    return f"{digits(span.open_end)} {span.scale.unit}".strip() + " leaves every run in."
