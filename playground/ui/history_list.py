"""The list of earlier experiments as HTML: one article each, with its runs to choose from and what can be done with it. Pure.

assets/history.js turns clicks into events: `data-do` names what to do with `data-id`, a ticked `data-run` is a chosen run. Example::

    list_html(store.earlier.page(Filters(status="done")), words="")
"""

from __future__ import annotations

from playground.core.technique import Technique
from playground.measure.metrics import METRICS
from playground.results.listing import Figure, Line, Page, RunLine
from playground.results.numbers import shown
from playground.techniques import techniques
from playground.ui import strings
from playground.ui.text import escape

FIGURES = ("ttft_s", "itl_s", "output_tokens_per_s", "weights_bytes", "kld_mean")
ACTIONS = (("open", "Open"), ("again", "Run again"), ("pin", "Pin"), ("describe", "Describe"), ("export", "Export"), ("delete", "Delete"))


def list_html(page: Page, filtered: bool) -> str:
    """All lines of a page; in words where there are none. `filtered`: whether something was left out."""
    if not page["experiments"]:
        return f'<p class="quiet">{escape(strings.NOTHING_FOUND if filtered else strings.HISTORY_EMPTY)}</p>'
    known = techniques()
    return f'<div class="history" role="list">{"".join(line_html(line, known) for line in page["experiments"])}</div>'


def line_html(line: Line, known: dict[str, Technique]) -> str:
    """One experiment."""
    when = line["created_at"][:16].replace("T", " ")
    name = line["label"] or line["title"]
    under = line["title"] if line["label"] else ""
    used = ", ".join(known[technique].title for technique in line["techniques"] if technique in known)
    facts = " · ".join(escape(fact) for fact in (f"{when} UTC", ", ".join(line["devices"]), used) if fact)
    status = (
        ""
        if line["status"] == "done"
        else f'<span class="badge {escape(line["status"])}">{escape(strings.STATUS.get(line["status"], line["status"]))}</span>'
    )
    note = f'<p class="noted">{escape(line["note"])}</p>' if line["note"] else ""
    pinned = '<span class="pin" role="img" aria-label="Pinned" title="Pinned: stays on top">★</span>' if line["pinned"] else ""
    return (
        f'<article role="listitem" data-experiment="{escape(line["id"])}"><header>{pinned}'
        f'<button type="button" class="name" data-do="open" data-id="{escape(line["id"])}">{escape(name)}</button>{status}</header>'
        f'<p class="facts">{f"{escape(under)}<br>" if under else ""}{facts}</p>{note}{_runs(line)}{_actions(line)}</article>'
    )


def _runs(line: Line) -> str:
    heads = "".join(f'<th scope="col" title="{escape(METRICS[name].formula)}">{escape(METRICS[name].title)}</th>' for name in FIGURES)
    rows = "".join(_run(line["id"], run, index) for index, run in enumerate(line["runs"]))
    label = f"Runs of {line['label'] or line['title']}"
    return (
        f'<div class="table-scroll" tabindex="0" role="region" aria-label="{escape(label)}"><table class="comparison">'
        f'<thead><tr><th scope="col">Run</th>{heads}</tr></thead><tbody>{rows}</tbody></table></div>'
    )


def _run(experiment: str, run: RunLine, index: int) -> str:
    name = run["label"] or run["model"]
    cells = "".join(_cell(metric, run["metrics"].get(metric)) for metric in FIGURES)
    state = "" if run["status"] == "done" else f" <small>{escape(strings.STATUS.get(run['status'], run['status']))}</small>"
    tick = f'<input type="checkbox" data-run="{escape(experiment)}:{run["index"]}" aria-label="Choose {escape(name)}">'
    label = f'<label class="v{index % 8}">{tick}<i class="swatch"></i><span>{escape(name)}{state}</span></label>'
    return f'<tr><th scope="row">{label}</th>{cells}</tr>'


def _cell(name: str, figure: Figure | None) -> str:
    value = figure["value"] if figure and figure["kind"] != "not_available" else None
    return '<td class="none">–</td>' if value is None else f"<td>{escape(shown(value, METRICS[name].unit))}</td>"


def _actions(line: Line) -> str:
    words = {"pin": "Unpin"} if line["pinned"] else {}
    buttons = "".join(
        f'<button type="button" data-do="{do}" data-id="{escape(line["id"])}">{words.get(do, label)}</button>' for do, label in ACTIONS
    )
    name = escape(line["label"] or line["title"])
    return f'<p class="actions" role="group" aria-label="What to do with {name}">{buttons}</p>'
