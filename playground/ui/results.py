"""The lower half of the page: the run as it goes and its results. `Board` holds the components; `board_values` is what they show.

Example::

    with gr.Blocks(): board = build_board()
    # in a handler: return board_values(state)
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from playground.core.places import ASSETS
from playground.results.charts import charts
from playground.results.html.claims import claims_html
from playground.results.html.explained import expectations_html, predictions_html
from playground.results.html.provenance import configuration_html, provenance_html, quality_html
from playground.results.metrics_table import metrics_html
from playground.ui import strings
from playground.ui.columns import column_html
from playground.ui.live import live_json
from playground.ui.tables import prepared_html
from playground.ui.text import escape
from playground.ui.theme import chart
from playground.ui.view import View

Result = Mapping[str, Any]


@dataclass(frozen=True)
class Board:
    """Components of the results, in the order of `board_values`."""

    status: gr.HTML
    columns: gr.HTML
    row: gr.Dropdown
    live: gr.HTML
    final: gr.HTML
    table: gr.HTML
    prepared: gr.HTML
    explore: gr.Button

    def outputs(self) -> list[gr.components.Component]:
        """All of them."""
        return [self.status, self.columns, self.row, self.live, self.final, self.table, self.prepared, self.explore]


@dataclass(frozen=True)
class Shown:
    """Everything that the board shows. `status` is the job's: "", waiting, running, done, failed, cancelled, interrupted; `claims`: what
    was judged of a run that is over."""

    view: View = field(default_factory=View)
    names: Sequence[str] = ()
    results: Sequence[Result] = field(default_factory=list)
    status: str = ""
    ahead: int = 0
    row: int = 0
    claims: Sequence[Result] = ()

    @property
    def over(self) -> bool:
        """Whether nothing more will come."""
        return self.status not in ("", "waiting", "running")


def build_board(status: gr.HTML) -> Board:
    """Columns, live charts, final charts, table and exact input, one below the other; `status` stands elsewhere on the page."""
    with gr.Column(elem_id="results", elem_classes="board"):
        gr.HTML("<h2>Results</h2>", apply_default_css=False)
        row = gr.Dropdown(
            [],
            value=None,
            label="Prompt shown",
            elem_id="row",
            visible=False,
            interactive=True,
            info=strings.ROW_INFO,
        )
        columns = gr.HTML(_empty_columns(), apply_default_css=False, elem_id="columns")
        live = chart("live-charts", "While it runs")
        final = chart("final-charts", "Side by side")
        sorting = (ASSETS / "metrics_table.js").read_text(encoding="utf-8")
        table = gr.HTML("", js_on_load=sorting, apply_default_css=False, elem_id="comparison")
        with gr.Accordion("Exact input: the text that the model sees", open=False, elem_id="prepared-section"):
            prepared = gr.HTML(prepared_html(View()), apply_default_css=False, elem_id="prepared")
        explore = gr.Button("Explore these: trade-offs, limits, a report", elem_id="explore-these", size="sm", visible=False, scale=0)
    return Board(status, columns, row, live, final, table, prepared, explore)


def board_values(now: Shown, before: Shown | None = None) -> list[Any]:
    """What each component of the board shows; parts that have not changed since `before` are skipped."""
    results_changed = before is None or len(now.results) != len(before.results) or now.over != before.over
    rows_changed = before is None or _row_choices(now) != _row_choices(before)
    finished = now.results if now.over or len(now.results) > 1 else []
    return [
        status_html(now),
        columns_html(now),
        _row_update(now) if rows_changed else gr.skip(),
        live_json(now.view) if now.view.variants else "",
        final_json(finished, now.names) if results_changed else gr.skip(),
        table_html(finished, now.names) if results_changed else gr.skip(),
        prepared_html(now.view) if results_changed or _prepared(now) != _prepared(before) else gr.skip(),
        gr.update(visible=now.over and len(now.results) > 1) if before is None or now.over != before.over else gr.skip(),
    ]


def _empty_columns() -> str:
    return f'<p class="quiet">{strings.LIVE_EMPTY}</p>'


def _prepared(state: Shown | None) -> list[object]:
    return [variant.prepared for variant in state.view.variants] if state else []


def columns_html(now: Shown) -> str:
    """All columns side by side, and below them what their verdicts say to the claims of others."""
    if not now.view.variants:
        return _empty_columns()
    waiting = waiting_words(now.ahead) if now.status == "waiting" else ""
    by_index = dict(enumerate(now.results))
    cells = (
        column_html(now.view, i, now.row, by_index.get(i), by_index.get(0) if i else None, waiting) for i in range(len(now.view.variants))
    )
    return f'<div class="columns n{len(now.view.variants)}">{"".join(cells)}</div>{claims_html(now.claims)}'


def waiting_words(ahead: int) -> str:
    """ "Waiting: 1 run ahead of yours"."""
    return f"Waiting: {ahead} run{'s' if ahead != 1 else ''} ahead of yours" if ahead else "Waiting for a moment"


def status_html(now: Shown) -> str:
    """One line beside Run and Stop."""
    running = [i for i, variant in enumerate(now.view.variants) if variant.status == "running"]
    index = now.view.current if now.view.current in running else next(iter(running), 0)
    current = now.view.variants[index] if running else None
    if now.status == "waiting":
        words = waiting_words(now.ahead)
    elif now.status == "running":
        phase = strings.PHASES.get(current.phase, current.phase) if current else ""
        words = f"Running {current.name}" + (f" · {phase}" if phase else "") if current else "Starting"
    else:
        words = strings.ENDINGS.get(now.status, strings.READY)
    return f'<p class="status {escape(now.status or "idle")} v{index}" role="status"><i class="dot"></i>{escape(words)}</p>'


def final_json(results: Sequence[Result], names: Sequence[str]) -> str:
    """Final charts, or nothing while there are none."""
    return json.dumps(charts(results, names[: len(results)])) if results else ""


def table_html(results: Sequence[Result], names: Sequence[str]) -> str:
    """What was expected, the table of all metrics, what was predicted, on what quality was measured, and provenance."""
    if not results:
        return ""
    names = names[: len(results)]
    parts = (
        expectations_html(results, names),
        metrics_html(results, names),
        quality_html(results),
        predictions_html(results, names),
        provenance_html(results, names),
        configuration_html(results, names),
    )
    return "".join(parts)


def _row_choices(now: Shown) -> list[tuple[str, int]]:
    found: dict[int, str] = {}
    for variant in now.view.variants:
        for index, row in variant.rows.items():
            found[index] = row.prompt or found.get(index, "")
        if variant.prepared:
            for index in found:
                text = variant.prepared.texts[index] if index < len(variant.prepared.texts) else ""
                found[index] = found[index] or text
    return [(f"{index + 1}: {' '.join(text.split())[:70]}", index) for index, text in sorted(found.items())]


def _row_update(now: Shown) -> Any:
    choices = _row_choices(now)
    chosen = now.row if any(index == now.row for _, index in choices) else next((index for _, index in choices), None)
    return gr.update(choices=choices, value=chosen, visible=len(choices) > 1)
