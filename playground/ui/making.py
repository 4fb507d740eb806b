"""What the tab "Make" shows of a job that makes something, as a pure function of its events. Nothing here knows Gradio.

Example::

    view = MakingView()
    for event in events: view = fold(view, event)
    progress_html(view); loss_json(view)
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from playground.core import events as ev
from playground.core.making import Made, TrainStep
from playground.results.drawing import COLOURS
from playground.results.numbers import change, digits, shown
from playground.run.recipes import Recipe, Table
from playground.ui import strings
from playground.ui.columns import bar, duration
from playground.ui.results import waiting_words
from playground.ui.series import Series
from playground.ui.text import escape


@dataclass(frozen=True)
class MakingView:
    """`status` is the job's, "" before any; `step`: the last training step; `losses`: (step, loss) of all, at most 300 points."""

    status: str = ""
    ahead: int = 0
    phase: str = ""
    detail: str = ""
    progress: ev.Progress | None = None
    progress_began: ev.Progress | None = None
    step: TrainStep | None = None
    losses: Series = field(default_factory=Series)
    made: Made | None = None
    failure: ev.Failed | None = None

    @property
    def over(self) -> bool:
        """Whether nothing more will come."""
        return self.status not in ("", "waiting", "running")


def fold(view: MakingView, event: ev.Event) -> MakingView:
    """The view after one more event."""
    if isinstance(event, ev.Phase):
        return replace(view, phase=event.name, detail=event.detail, progress=None, progress_began=None)
    if isinstance(event, ev.Progress):
        same = view.progress is not None and view.progress.name == event.name
        return replace(view, progress=event, progress_began=view.progress_began if same else event)
    if isinstance(event, TrainStep):
        return replace(view, step=event, losses=view.losses.plus(float(event.step), event.loss))
    if isinstance(event, Made):
        return replace(view, made=event)
    return replace(view, failure=event) if isinstance(event, ev.Failed) else view


def progress_html(view: MakingView) -> str:
    """What is going on, how far it is and how long it will take; how it ended. "" before anything was begun."""
    if not view.status:
        return ""
    line, share = _line(view)
    words = f'<p class="phase" role="status">{escape(line)}</p><div class="bar" {share}></div>' if not view.over else ""
    return f'<div class="making v1">{words}{_ending(view)}</div>'


def _line(view: MakingView) -> tuple[str, str]:
    if view.status == "waiting":
        return waiting_words(view.ahead), ""
    if view.progress is not None:
        share, words = bar(view.progress, view.progress_began)
        return words, share
    step = view.step
    if view.phase == "train" and step is not None:
        left = f" · {duration(step.left_s)} left" if step.left_s else ""
        done = 100 * step.step / step.steps
        share = f'style="--done:{done:.1f}%" role="progressbar" aria-valuenow="{done:.0f}" aria-valuemin="0" aria-valuemax="100"'
        return f"Step {step.step:,} of {step.steps:,} · loss {digits(step.loss)} nats a token{left}", f'{share} aria-label="Training"'
    phase = strings.MAKING_PHASES.get(view.phase, view.phase.capitalize() or "Starting")
    return " · ".join(filter(None, (phase, view.detail))), 'data-busy="true"'


def _ending(view: MakingView) -> str:
    if view.failure is not None:
        detail = view.failure.detail.strip()
        log = f"<details><summary>Log</summary><pre>{escape(detail[-6000:])}</pre></details>" if detail else ""
        return f'<div class="failure" role="alert"><strong>{escape(view.failure.message)}</strong> Nothing was kept.{log}</div>'
    return f'<p class="quiet">{escape(strings.MAKING_ENDINGS[view.status])}</p>' if view.status in strings.MAKING_ENDINGS else ""


def loss_json(view: MakingView) -> str:
    """The loss of each step as one live chart, "" before there is one."""
    points = view.losses.points
    if not points:
        return ""
    figure = {
        "data": [
            {
                "type": "scatter",
                "mode": "lines" if len(points) > 1 else "markers",
                "x": [x for x, _ in points],
                "y": [None if y is None else float(f"{y:.4g}") for _, y in points],
                "meta": {"variant": 1},
                "line": {"width": 1.8, "color": COLOURS[1]},
                "marker": {"size": 5, "color": COLOURS[1]},
                "hovertemplate": "step %{x:.0f}: %{y:.4g} nats a token<extra></extra>",
            }
        ],
        "layout": {
            "margin": {"l": 8, "r": 12, "t": 6, "b": 40},
            "xaxis": {"title": {"text": "step", "standoff": 6}, "range": [0, view.step.steps if view.step else None], "zeroline": False},
            "yaxis": {"title": {"text": "loss (nats a token)", "standoff": 8}, "zeroline": False, "nticks": 5},
            "showlegend": False,
        },
    }
    return json.dumps({"groups": [{"title": "", "panels": [{"id": "loss", "title": "Loss", "figure": figure, "height": 240}]}]})


def made_html(facts: Mapping[str, Any], recipe: Recipe) -> str:
    """What was reached, in a table, and how it was made."""
    name = f"made:{facts['name']}"
    when = str(facts.get("machine", {}).get("started_at", ""))[:16].replace("T", " ")
    machine = facts.get("machine", {})
    made_on = " · ".join(
        str(part) for part in (when and f"{when} UTC", machine.get("gpu") or machine.get("cpu"), facts.get("dtype")) if part
    )
    took = f"{duration(float(facts['seconds']))} in all" if "seconds" in facts else ""
    source = " · ".join(
        filter(None, (f"{recipe.title} of {facts.get('model') or facts.get('base', {}).get('model', 'a model')}", took, made_on))
    )
    table = _table_html(recipe.table(facts), name)
    use = recipe.use.format(name=name)
    return (
        f'<section class="made"><h3>{escape(name)}</h3>{table}<p class="provenance">{escape(source)}. {escape(use)}</p>'
        f'<details class="configuration"><summary>How it was made</summary><pre>{escape(_facts_text(facts))}</pre></details></section>'
    )


def _table_html(table: Table, name: str) -> str:
    heads = "".join(f'<th scope="col">{escape(head)}</th>' for head in table.heads)
    rows = "".join(_row_html(title, unit, values) for title, unit, values in table.rows)
    return (
        f'<div class="table-scroll" tabindex="0" role="region" aria-label="What {escape(name)} reached"><table class="comparison">'
        f'<thead><tr><th scope="col"></th>{heads}</tr></thead><tbody>{rows}</tbody></table></div>'
    )


def _row_html(title: str, unit: str, values: tuple[float | None, ...]) -> str:
    first = {"value": values[0], "unit": unit} if values else {}
    cells = ""
    for index, value in enumerate(values):
        if value is None:
            cells += '<td class="none">–</td>'
            continue
        found = change({"value": value, "unit": unit}, first) if index and values[0] is not None else None
        cells += f"<td><b>{escape(shown(value, unit))}</b>{f'<small>{escape(found.text)}</small>' if found else ''}</td>"
    return f'<tr><th scope="row">{escape(title)}</th>{cells}</tr>'


def _facts_text(facts: Mapping[str, Any]) -> str:
    told = {name: value for name, value in facts.items() if name != "losses"}
    return json.dumps(told, indent=1, ensure_ascii=False)
