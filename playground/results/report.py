"""One experiment as one HTML file that needs nothing else: charts that still react, numbers, evidence, verdicts, provenance, the command.

Pure but for the product's own files, which it holds inside: style sheets, scripts and Plotly. All that comes from a run is escaped, and a
content security policy lets no script run but the report's own, nor anything be fetched. Example::

    Path("report.html").write_text(report_html(results, "Precision ladder", command=command(specs, techniques(), engines())))
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from playground import __version__
from playground.core.places import ASSETS
from playground.results.charts import charts
from playground.results.command import Command
from playground.results.drawing import plotly_path, variant_names
from playground.results.html.claims import claims_html
from playground.results.html.explained import expectations_html, predictions_html
from playground.results.html.outputs import outputs_html
from playground.results.html.provenance import configuration_html, provenance_html, quality_html
from playground.results.html.summary import cards_html, cover_html
from playground.results.html.text import escape
from playground.results.metrics_table import metrics_html
from playground.results.pareto import Axes, usual_limits
from playground.results.pareto_chart import pareto_charts

Result = Mapping[str, Any]


@dataclass(frozen=True)
class About:
    """What a report says besides the results. `names`: of the variants, by default from their labels; `warnings`: what makes the comparison
    doubtful; `claims`: what `results.claims.judge` found; `limits` and `axes`: of the trade-offs, by default the usual ones."""

    title: str
    text: str = ""
    names: Sequence[str] = ()
    warnings: Sequence[str] = ()
    claims: Sequence[Result] = ()
    command: Command | None = None
    limits: Mapping[str, float] | None = field(default=None)
    axes: Sequence[Axes] | None = None


def report_html(results: Sequence[Result], about: About) -> str:
    """The whole file; results with the baseline first."""
    names = list(about.names) or variant_names([str(result.get("label") or "") for result in results])
    limits = usual_limits(results) if about.limits is None else about.limits
    trades, drawn = pareto_charts(results, names, limits, about.axes) if len(results) > 1 else {"groups": []}, charts(results, names)
    finding = ""
    if trades["groups"]:
        finding, trades["groups"][0]["title"] = trades["groups"][0].pop("note"), ""  # they stand in the report's own text
    parts = [
        ("summary", "In short", (f'<p class="finding">{escape(finding)}</p>' if finding else "") + cards_html(results, names)),
        ("trade-offs", "Trade-offs", _charts("trades", trades)),
        ("charts", "Side by side", _charts("drawn", drawn)),
        ("expected", "Expected and claimed", claims_html(about.claims) + expectations_html(results, names)),
        ("metrics", "All metrics", metrics_html(results, names) + quality_html(results)),
        ("predicted", "Predicted and measured", predictions_html(results, names)),
        ("outputs", "What the models wrote", outputs_html(results, names)),
        ("provenance", "Where the numbers come from", provenance_html(results, names) + configuration_html(results, names)),
        ("command", "Run it again", _command(about.command)),
    ]
    shown = [(anchor, heading, body) for anchor, heading, body in parts if body]
    contents = "".join(f'<a href="#{anchor}">{heading}</a>' for anchor, heading, _ in shown)
    sections = "".join(f'<section id="{anchor}"><h2>{heading}</h2>{body}</section>' for anchor, heading, body in shown)
    cover = cover_html(results, about.title, about.text, about.warnings, contents)
    data = _data("trades", trades) + _data("drawn", drawn) + _data("results", list(results))
    return _document(about.title, f'<main class="report">{cover}{sections}{_foot()}</main>{data}')


def _charts(name: str, drawn: Mapping[str, Any]) -> str:
    """The place of charts that the script fills; the heading inside names it for readers of the screen."""
    if not drawn["groups"]:
        return ""
    return (
        f'<div class="chart-block" data-charts="{name}"><section class="chart-section" aria-label="Charts" hidden><h2>Charts</h2>'
        '<div class="charts"></div></section></div>'
    )


def _data(name: str, data: Any) -> str:
    """JSON for the script, which cannot end its element: no text in it has an angle bracket."""
    text = json.dumps(data, ensure_ascii=False).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return f'<script type="application/json" id="{name}">{text}</script>'


def _command(command: Command | None) -> str:
    if command is None:
        return ""
    files = "".join(
        f'<div class="tools"><span>It reads <b>{escape(name)}</b>, to be saved where it runs:</span>'
        f'<button type="button" data-save="file-{number}" data-name="{escape(name)}">Save {escape(name)}</button></div>'
        f'<details><summary>{escape(name)}</summary><pre id="file-{number}">{escape(text)}</pre></details>'
        for number, (name, text) in enumerate(command.files.items())
    )
    return (
        f'<div class="command"><pre id="line">{escape(command.line)}</pre><div class="tools">'
        f'<button type="button" data-take="line">Copy the command</button></div>{files}</div>'
    )


def _foot() -> str:
    save = 'data-save="results" data-name="results.json" data-type="application/json"'
    return (
        f'<footer class="foot command"><div class="tools"><button type="button" {save}>Save all results as JSON</button></div>'
        f"<p>Inference Playground {escape(__version__)}. This file needs no network: everything that it shows is in it.</p></footer>"
    )


def _document(title: str, body: str) -> str:
    texts = [plotly_path().read_text(encoding="utf-8"), _script()]
    sources = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in texts)
    policy = f"default-src 'none'; style-src 'unsafe-inline'; img-src data: blob:; script-src {sources}; base-uri 'none'"
    styles = "".join(f"<style>{_asset(name)}</style>" for name in ("style.css", "report.css"))
    scripts = "".join(f"<script>{text}</script>" for text in texts)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">'
        f"<title>{escape(title)}</title>{styles}</head><body>{body}{scripts}</body></html>\n"
    )


def _script() -> str:
    """The report's own script, with those of the page's charts and table as functions in it."""
    drawn = f"function drawCharts(element, props, watch) {{\n{_asset('live_charts.js')}\n}}"
    tables = f"function enlivenTables(element) {{\n{_asset('metrics_table.js')}\n}}"
    return f'"use strict";\n(() => {{\n{drawn}\n{tables}\n{_asset("report.js")}\n}})();'


def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")
