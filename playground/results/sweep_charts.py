"""Charts of a sweep, made for the question that its first axis asks, as the panels that assets/live_charts.js draws.

Points are measured, with their 95 % intervals; a dotted line is what the roofline predicts; the shaded band is beyond what the device's
copy and matrix product allow. Runs without numbers are marked on the axis with their reason. Axes are logarithmic where values double.
Example::

    sweep_charts(plan, stored.cells)["groups"][0]["panels"][0]["title"]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from playground.core.sweep import SweepSpec, axis_title, line_names
from playground.measure.metrics import METRICS
from playground.measure.values import Metric
from playground.results.drawing import panel
from playground.results.numbers import value_of
from playground.results.sweep_drawing import CONTEXT, Axes, band, figure, guide, marks, numbers
from playground.results.sweep_facts import FREE, Fact, facts
from playground.results.sweep_lines import Foreseen, Line, X, context, lines_of, metric_as_x, on_axis, slowdowns
from playground.results.sweeps import StoredCell
from playground.techniques import techniques

CHARTS: Mapping[str, tuple[str, ...]] = {
    "batch_size": ("itl_s", "output_tokens_per_s", "ttft_s", "j_per_token", "kv_cache_bytes"),
    "prompt_tokens": ("ttft_s", "itl_s", "kv_cache_bytes"),
    "max_new_tokens": ("e2e_s", "itl_s", "kv_cache_bytes"),
}
OTHERS = ("itl_s", "ttft_s", "output_tokens_per_s", "weights_bytes")
QUALITY = ("kld_mean", "top1_agreement", "ppl")
BITS = "bits_per_weight"
SLOWDOWN = Metric(
    "slowdown", "Slowdown without KV cache", "times", "lower", "request latency without a KV cache / with one", lambda *_: 0.0
)
HEIGHT = 280
MOST_SAID = 3  # sentences below a chart
KEY = "Points: measured, with 95 % intervals. Dotted: predicted by the roofline. Shaded: beyond the device's copy and matrix product."


def charted(plan: SweepSpec) -> tuple[str, ...]:
    """The metrics that the charts of this sweep are about."""
    names = CHARTS.get(plan.axes[0].name, OTHERS)
    scored = any(spec.protocol.quality for spec in plan.specs)
    return (*names, *((BITS, *QUALITY) if scored else ()))


def sweep_charts(plan: SweepSpec, cells: Sequence[StoredCell], foreseen: Foreseen | None = None) -> dict[str, Any]:
    """Legend and groups of panels. foreseen: what is predicted of runs that have no result (see `run.forecast`)."""
    known = techniques()
    title = axis_title(plan.axes[0].name, known)
    along = Axes(title, plan.axes[0].values)
    found = facts(plan, cells)
    speed = [_panel(name, plan, cells, along, found, foreseen or {}) for name in CHARTS.get(plan.axes[0].name, OTHERS)]
    if slow := slowdowns(plan, cells):
        speed.insert(0, _drawn(SLOWDOWN, slow, cells, along, found))
    quality = [_quality(name, plan, cells, along) for name in QUALITY] if any(spec.protocol.quality for spec in plan.specs) else []
    groups = [{"title": f"Against {title[0].lower()}{title[1:]}", "note": KEY, "panels": sorted(speed, key=_empty)}]
    if quality:
        groups.append({"title": "Output quality against the baseline, the first run of each model", **_those_with_values(quality)})
    return {"legend": [{"name": name, "variant": number} for number, name in enumerate(line_names(plan, known))], "groups": groups}


def _empty(made: Mapping[str, Any]) -> bool:
    return made["figure"] is None


def _those_with_values(panels: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The panels that show something; where none does, the reason of the first in their place."""
    have = [made for made in panels if not _empty(made)]
    return {"panels": have} if have else {"panels": [], "note": panels[0]["note"]}


def _panel(
    name: str, plan: SweepSpec, cells: Sequence[StoredCell], along: Axes, found: Sequence[Fact], foreseen: Foreseen
) -> dict[str, Any]:
    """One metric along the axis; the KV cache against the context where that is what the axis changes."""
    x: X = on_axis
    if name == "kv_cache_bytes" and plan.axes[0].name in ("prompt_tokens", "max_new_tokens"):
        x, along = context, numbers(CONTEXT, [at for held in cells if (at := context(held)) is not None]) or along
    return _drawn(METRICS[name], lines_of(plan, cells, name, x, foreseen), cells if x is on_axis else (), along, found)


def _quality(name: str, plan: SweepSpec, cells: Sequence[StoredCell], along: Axes) -> dict[str, Any]:
    """Against bits a weight where the runs differ in them, else along the axis; with the noise floor of the first run."""
    bits = [at for held in cells if (at := value_of(held.result or {}, BITS)) is not None]
    differ = bool(bits) and max(bits) > 1.02 * min(bits)
    placed = numbers(f"{METRICS[BITS].title} of memory, on the whole", bits) if differ else None
    lines = lines_of(plan, cells, name, metric_as_x(BITS) if placed else on_axis)
    floors = [value_of(held.result or {}, f"{name}_floor") for held in cells] if name == "kld_mean" else []
    floor = next((value for value in floors if value), None)
    made = _drawn(METRICS[name], lines, () if placed else cells, placed or along, (), floor=floor, joined=placed is None)
    if floor and made["figure"]:
        made["note"] = "Dashed: noise floor, the baseline against itself at another batch shape."
    return made


def _drawn(
    metric: Metric, lines: Sequence[Line], cells: Sequence[StoredCell], along: Axes, found: Sequence[Fact],
    floor: float | None = None, joined: bool = True,
) -> dict[str, Any]:  # fmt: skip
    """The panel of one metric, or its reason for having no points."""
    if not any(line.measured or any(point.predicted for point in line.points) for line in lines):
        return panel(
            metric.name, metric.title, None, 0, note=_nothing(metric.name, cells or [point.cell for line in lines for point in line.points])
        )
    own = [fact for fact in found if fact.chart == metric.name]
    drawn = figure(metric, lines, along, joined, floor)
    drawn["data"] = [*band(metric, lines, along), *drawn["data"]]
    for fact in own:
        if "free_until" in fact.values:
            drawn["data"].append(guide(fact.values["free_until"], fact.line, drawn, f"{FREE} times the step of the smallest batch"))
        if "pays_from" in fact.values:
            drawn["data"].append(guide(fact.values["pays_from"], fact.line, drawn, f"sooner than {lines[0].name} from here on"))
    if floor:
        drawn["data"].append(guide(floor, None, drawn, "noise floor", across=True))
    drawn["layout"]["annotations"] = marks(cells, along)
    sentence = " ".join(fact.sentence for fact in own) if len(own) <= MOST_SAID else ""  # the page lists them all above the charts
    return panel(metric.name, metric.title, drawn, 0, **{"height": HEIGHT, **({"note": sentence} if sentence else {})})


def _nothing(name: str, cells: Sequence[StoredCell]) -> str:
    metrics = [(held.result or {}).get("metrics", {}).get(name) or {} for held in cells if held.result]
    reasons = dict.fromkeys(str(found["reason"]) for found in metrics if found.get("reason"))
    return f"Not available: {'; '.join(reasons)}" if reasons else "No run has measured this yet."
