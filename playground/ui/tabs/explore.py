"""The tab "Explore": two to eight runs side by side, their trade-offs within limits, all their numbers, and a report to keep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from playground.core.places import ASSETS
from playground.core.problem import Problem
from playground.presets import judged
from playground.results.html.claims import claims_html
from playground.results.html.outputs import outputs_html
from playground.results.html.summary import cards_html
from playground.ui import strings
from playground.ui.compare import Opener
from playground.ui.events import FILES, changed, pressed
from playground.ui.exploring import (
    LATENCIES,
    QUALITIES,
    Gathered,
    axes_choices,
    axes_of,
    gather,
    limit_info,
    limits_of,
    measured,
    span_of,
    trades_json,
    write_files,
)
from playground.ui.handlers import App
from playground.ui.results import final_json, table_html
from playground.ui.tabs import Tab
from playground.ui.text import escape, note_html
from playground.ui.theme import chart

NAME = "explore"
USUAL = "as usual"
NO_LIMIT = "none"


@dataclass(frozen=True)
class Limit:
    """One limit: which metric, and the slider for it."""

    metric: gr.Dropdown
    slider: gr.Slider


@dataclass(frozen=True)
class Parts:
    """Every named component; `found`: the runs that are shown."""

    found: gr.State
    said: gr.HTML
    tools: gr.Column
    axes: tuple[gr.Dropdown, gr.Dropdown, gr.Dropdown]
    limits: tuple[Limit, Limit]
    trades: gr.HTML
    table: gr.HTML
    charts: gr.HTML
    write: gr.Button
    files: tuple[gr.DownloadButton, gr.DownloadButton, gr.DownloadButton]

    def chosen(self) -> list[gr.components.Component]:
        """Axes, then metric and slider of each limit."""
        return [*self.axes, *(part for limit in self.limits for part in (limit.metric, limit.slider))]


def build(app: App, blocks: gr.Blocks, place: gr.Tab, opener: Opener) -> list[gr.components.Component]:
    """The tab's components, wired; shows what `opener.picked` names."""
    gr.HTML(f'<p class="about intro">{escape(strings.EXPLORE_INTRO)}</p>', apply_default_css=False)
    parts = _parts()
    _wire(app, parts, opener)
    return []


def _parts() -> Parts:
    found = gr.State(Gathered())
    said = gr.HTML(f'<p class="quiet">{escape(strings.EXPLORE_EMPTY)}</p>', apply_default_css=False, elem_id="explore-said")
    with gr.Column(visible=False) as tools:
        with gr.Row(elem_classes="filters"):
            limits = tuple(_limit(name, label) for name, label in (("first", "A limit"), ("second", "Another limit")))
        with gr.Row(elem_classes="filters"):
            axes = tuple(
                gr.Dropdown([(USUAL, "")], value="", label=label, elem_id=f"explore-{name}", interactive=True)
                for name, label in (("x", "Across"), ("y", "Up"), ("size", "Area of a point"))
            )
    trades = chart("explore-trades", "Trade-offs")
    charts = chart("explore-charts", "Side by side")
    table = gr.HTML(
        "", js_on_load=(ASSETS / "metrics_table.js").read_text(encoding="utf-8"), apply_default_css=False, elem_id="explore-table"
    )
    with gr.Row(elem_classes="bar-row"):
        write = gr.Button("Write a report", elem_id="explore-write", size="sm", scale=0, visible=False)
        files = tuple(
            gr.DownloadButton(label, size="sm", elem_id=f"explore-{label.split()[-1].lower()}", visible=False, scale=0)
            for label in ("Download the report", "Metrics as CSV", "Metrics as JSON")
        )
    return Parts(found, said, tools, axes, limits, trades, table, charts, write, files)  # type: ignore[arg-type]


def _limit(name: str, label: str) -> Limit:
    with gr.Column(min_width=200, elem_classes="limit"):
        metric = gr.Dropdown([(NO_LIMIT, "")], value="", label=label, elem_id=f"explore-{name}-metric", interactive=True)
        slider = gr.Slider(0, 1, value=1, label="at most", elem_id=f"explore-{name}-limit", visible=False, buttons=[])
    return Limit(metric, slider)


def _wire(app: App, parts: Parts, opener: Opener) -> None:
    shown = [parts.found, parts.said, parts.tools, *parts.chosen(), parts.trades, parts.table, parts.charts, parts.write, *parts.files]

    def explored(picks: Sequence[str], request: gr.Request) -> list[Any]:
        if not picks:
            return [gr.skip() for _ in shown]
        app.newest(f"{request.session_hash}/files")  # a report that is being written is of other runs
        try:
            found = gather(app, picks)
        except Problem as problem:
            return [gr.skip(), note_html(problem.message), *(gr.skip() for _ in shown[2:])]
        return _everything(found)

    def drawn(found: Gathered, *chosen: Any) -> str:
        return _trades(found, chosen)

    def slid(found: Gathered, metric: str) -> Any:
        return _slider(found, metric)

    def written(request: gr.Request, found: Gathered, *chosen: Any) -> list[Any]:
        newest = app.newest(f"{request.session_hash}/files")
        paths = write_files(found, _limits(found, chosen), axes_of(found, *(str(name or "") for name in chosen[:3])))
        return [gr.update(value=path, visible=True) if newest() else gr.skip() for path in paths.values()]

    def all_of(job: str) -> list[Any]:
        return [tuple(f"{job}:{run.index}" for run in app.store.load(job).runs if run.result), gr.Tabs(selected=NAME)]

    opener.page.board.explore.click(all_of, opener.page.job, [opener.picked, opener.tabs], **pressed(NAME))
    opener.picked.change(explored, opener.picked, shown, **changed(NAME))
    redraw: dict[str, Any] = {"fn": drawn, "inputs": [parts.found, *parts.chosen()], "outputs": parts.trades, **changed(NAME)}
    for limit in parts.limits:
        limit.metric.input(slid, [parts.found, limit.metric], limit.slider, **changed(NAME)).then(**redraw)
    gr.on([control.input for control in (*parts.axes, *(limit.slider for limit in parts.limits))], **redraw)
    parts.write.click(written, [parts.found, *parts.chosen()], list(parts.files), **FILES)


def _everything(found: Gathered) -> list[Any]:
    """What each component shows of freshly gathered runs."""
    compared = found.compared
    warnings = "".join(f"<li>{escape(words)}</li>" for words in compared.warnings)
    said = f"<h2>{escape(found.title)}</h2>" + (
        f'<ul class="warnings" aria-label="What makes this comparison doubtful">{warnings}</ul>' if warnings else ""
    )
    axes = [(USUAL, ""), *axes_choices(found)]
    chosen: list[Any] = ["", "", ""]
    updates = [gr.update(choices=axes, value="") for _ in range(3)]
    for names in (LATENCIES, QUALITIES):
        there = measured(found, names, by=2)  # a limit on what one run alone has would leave that one
        first = there[0] if there else ""
        titles = [choice for choice in axes_choices(found) if choice[1] in there]
        slider = _slider(found, first)
        updates += [gr.update(choices=[(NO_LIMIT, ""), *titles], value=first), slider]
        chosen += [first, slider.get("value")]
    claims = claims_html(judged(compared.results))
    outputs = outputs_html(compared.results, compared.names)
    said_of_each = f"<h3>Verdicts and evidence</h3>{cards_html(compared.results, compared.names)}"
    said_of_each += f"<h3>What the models wrote</h3>{outputs}" if outputs else ""
    table = claims + table_html(compared.results, compared.names) + said_of_each
    hidden = [gr.update(visible=False) for _ in range(3)]
    return [
        found, said, gr.update(visible=True), *updates, _trades(found, chosen), table, final_json(compared.results, compared.names),
        gr.update(visible=True), *hidden,
    ]  # fmt: skip


def _limits(found: Gathered, chosen: Sequence[Any]) -> dict[str, float]:
    return limits_of(found, [(chosen[3] or "", chosen[4]), (chosen[5] or "", chosen[6])])


def _trades(found: Gathered, chosen: Sequence[Any]) -> str:
    x, y, size = (str(name or "") for name in chosen[:3])
    return trades_json(found, x, y, size, _limits(found, chosen))


def _slider(found: Gathered, metric: str) -> Any:
    span = span_of(found, metric) if metric else None
    if span is None:
        return gr.update(visible=False)
    return gr.update(
        minimum=span.low, maximum=span.high, step=span.step, value=span.value, label=span.label, info=limit_info(span), visible=True
    )


TAB = Tab(NAME, "Explore", 20, build)
