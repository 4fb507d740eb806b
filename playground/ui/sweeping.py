"""What the tab "Sweep" plans and shows. No components here; what goes on is in `run.sweep_queue`.

Example::

    sweep = app.sweeps.begin(plan_of(app, specs, "Batch size", [("batch_size", "1:8:x2")]))
    sweep_html(app.sweeps.look(sweep), "running"); charts_json(app, app.sweeps.look(sweep))
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

from playground.core.plan import SPEC_FIELDS, knob_index
from playground.core.problem import Problem
from playground.core.spec import RunSpec
from playground.core.sweep import GROWING, WORK_AXES, SweepSpec, axes_from, axis_title, cells
from playground.presets import growths, recorded_sweeps
from playground.results.growth import judge_growth
from playground.results.html.claims import claims_html
from playground.results.numbers import duration
from playground.results.sweep_charts import sweep_charts
from playground.results.sweep_facts import facts
from playground.results.sweep_table import sweep_rows
from playground.results.sweeps import StoredCell, StoredSweep, Sweeps
from playground.run.forecast import foreseen
from playground.run.recorded_sweep import PREFIX, RECORDED
from playground.run.sweep import require_runnable
from playground.ui import strings
from playground.ui.handlers import App
from playground.ui.text import escape


def plan_of(app: App, specs: Sequence[RunSpec], title: str, pairs: Sequence[tuple[str, str]]) -> SweepSpec:
    """A checked plan: these variants, and axes from (name, values as text), where an empty name is no axis; without a title it gets one.
    Raises Problem where nothing of it can run here."""
    named = [(name, values) for name, values in pairs if name]
    for name, values in named:
        if not values.strip():
            label = axis_title(name, app.world.techniques)
            raise Problem("user", f"{label} has no values: give some, such as 1, 2, 4 or 1:64:x2.")
    axes = axes_from([{"name": name, "values": values} for name, values in named])
    return checked(app, SweepSpec(tuple(specs), axes, title))


def checked(app: App, plan: SweepSpec) -> SweepSpec:
    """The same with typed values, and a title; raises Problem where it is no sweep, or nothing of it can run here."""
    plan = plan.checked(app.world.techniques)
    varied = " and ".join(axis_title(axis.name, app.world.techniques) for axis in plan.axes)
    plan = replace(plan, title=plan.title or f"{varied} · {plan.specs[0].model}")
    require_runnable([cell.spec for cell in cells(plan, app.world.techniques, app.world.defaults)], app.world.machine)
    return plan


def choices(app: App) -> list[tuple[str, str]]:
    """(line, id) of the sweeps of this machine, the newest first, then of the recorded ones."""
    found = Sweeps(app.store).history()
    own = [
        (f"{item['created_at'][:16].replace('T', ' ')} UTC · {item['title'] or 'Sweep'} · {item['cells']} runs", item["id"])
        for item in found
    ]
    return own + [(f"Recorded: {item.title} · {item.machine}, {item.date}", PREFIX + item.name) for item in recorded_sweeps()]


def axis_choices(app: App) -> list[tuple[str, str]]:
    """(label, name) of everything that can be an axis, what grows first."""
    names = dict.fromkeys([*GROWING, *knob_index(app.world.techniques), *WORK_AXES, *SPEC_FIELDS])
    return [(axis_title(name, app.world.techniques), name) for name in names]


def sweep_html(stored: StoredSweep, status: str, ahead: int = 0, fault: str = "") -> str:
    """How far it is, what is left, its runs as a strip, and what the curves say; `fault`: what ended it."""
    total, finished = len(stored.cells), len(stored.cells) - len(stored.missing)
    goes_on = status in ("running", "pausing")
    now = next((cell.cell.label for cell in stored.cells if cell.status == "running"), "") if goes_on else ""
    words = [
        strings.SWEEP_STATUS.get(status, status),
        f"{ahead} before it" if ahead else "",
        f"{finished} of {total} runs",
        (f"about {duration(stored.left_s)} left" if stored.left_s else "time left: known after the first run") if goes_on else "",
        f"now {now}" if now else "",
    ]
    share = f"{100 * finished / total:.0f}"
    bar = (
        f'<div class="bar" style="--done:{share}%" role="progressbar" aria-valuenow="{share}" aria-valuemin="0" aria-valuemax="100"'
        ' aria-label="Runs"></div>'
    )
    strip = "".join(_cell_html(cell) for cell in stored.cells)
    found = "".join(f"<li>{escape(fact.sentence)}</li>" for fact in facts(stored.plan, stored.cells))
    says = f'<ul class="facts" aria-label="What the curves say">{found}</ul>' if found else ""
    claims = "" if stored.missing else claims_html(judge_growth(growths(), stored.plan, stored.cells))
    ended = f'<p class="problem" role="alert">{escape(fault)}</p>' if fault else ""
    numbers = f"<details><summary>Its numbers as a table</summary>{table_html(stored)}</details>" if finished else ""
    return (
        f'<section class="sweep v1"><h2>{escape(stored.title or "Sweep")}</h2>'
        f'<p class="phase" role="status">{escape(" · ".join(filter(None, words)))}</p>{bar}{ended}'
        f'<ul class="cells" aria-label="Runs of this sweep">{strip}</ul>{_reasons_html(stored.cells)}{says}{claims}{numbers}</section>'
    )


def table_html(stored: StoredSweep) -> str:
    """What is charted, a row a run."""
    head, *rows = sweep_rows(stored)
    heads = "".join(f'<th scope="col">{escape(title)}</th>' for title in head)
    body = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in row[1:])}</tr>' for row in rows
    )
    label = f'tabindex="0" role="region" aria-label="Numbers of {escape(stored.title or "the sweep")}"'
    return f'<div class="table-scroll" {label}><table class="comparison"><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell_html(cell: StoredCell) -> str:
    state = strings.STATUS.get(cell.status, cell.status)
    said = f"{cell.cell.label}: {state}" + (f". {cell.reason}" if cell.reason else "")
    label = f"<span>{escape(cell.cell.label)}</span> <small>{escape(state)}</small>"
    return f'<li class="{escape(cell.status)}" title="{escape(said)}">{label}</li>'


def _reasons_html(cells: Sequence[StoredCell]) -> str:
    """Why runs have no numbers, for those who see no tooltip; "" where all have."""
    by: dict[str, list[str]] = {}
    for cell in cells:
        if cell.reason:
            by.setdefault(cell.reason, []).append(cell.cell.label)
    if not by:
        return ""
    items = "".join(f"<li>{escape('; '.join(labels))}: {escape(reason)}</li>" for reason, labels in by.items())
    return f"<details><summary>Why some runs have no numbers</summary><ul>{items}</ul></details>"


def charts_json(app: App, stored: StoredSweep) -> str:
    """The charts' value; "" before the first run has ended. Of this machine's, runs that are missing have their predictions."""
    if not any(cell.result for cell in stored.cells):
        return ""
    missing = {cell.cell.index: cell.cell.spec for cell in stored.cells if not cell.result and stored.status != RECORDED}
    machine, known = app.world.machine, app.world.techniques
    predicted = foreseen(missing, known, machine, app.store.ceilings()) if missing else {}
    return json.dumps({"id": stored.id, **sweep_charts(stored.plan, stored.cells, predicted)})


def picks(stored: StoredSweep) -> tuple[str, ...]:
    """The runs of a sweep as the tab Explore names them."""
    return tuple(f"{cell.experiment}:0" for cell in stored.cells if cell.experiment and cell.status == "done")
