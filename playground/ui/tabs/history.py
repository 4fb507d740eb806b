"""The tab "History": find earlier experiments, describe, pin, run again, export, import and delete them with undo; tick runs to explore."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from playground.core.places import ASSETS
from playground.core.problem import Problem
from playground.presets import is_sweep
from playground.results.compare import FEWEST, MOST
from playground.results.history import Filters
from playground.run.exchange import give_out, take_in
from playground.techniques import techniques
from playground.ui import strings
from playground.ui.compare import NAME as COMPARE
from playground.ui.compare import Opener
from playground.ui.events import FILES, changed, pressed
from playground.ui.handlers import App, delete, message_html, run_again
from playground.ui.history_list import list_html
from playground.ui.tabs import Tab
from playground.ui.tabs.explore import NAME as EXPLORE
from playground.ui.text import escape, note_html
from playground.ui.wiring import OWN_JOBS, recordings

NAME = "history"
ON_PAGE = 20
TICK = "Tick two to eight runs"
TO_FORM = """() => setTimeout(() => document.querySelector('#history-label input, #history-label textarea')?.focus(), 60)"""
# Else what is pressed before the answer is lost or, with always_last, comes with the data of the first one.
EACH = {**pressed(NAME), "trigger_mode": "multiple"}
FACETS = ("model", "technique", "device", "status", "kind")


@dataclass(frozen=True)
class Parts:
    """Every named component. `filters`: by the fields of results.history.Filters; `place`: (offset, total); `deleted`: the ids of the last
    deletion; `described`: the id in the form of label and note."""

    filters: dict[str, gr.components.Component]
    listing: gr.HTML
    said: gr.HTML
    undo: gr.Button
    file: gr.DownloadButton
    form: gr.Column
    label: gr.Textbox
    note: gr.Textbox
    save: gr.Button
    cancel: gr.Button
    earlier: gr.Button
    later: gr.Button
    range: gr.HTML
    upload: gr.UploadButton
    explore: gr.Button
    ticked: gr.State
    offset: gr.State
    deleted: gr.State
    described: gr.State

    def shown(self) -> list[gr.components.Component]:
        """What a look at the store changes, in the order of `look`."""
        return [self.listing, self.earlier, self.later, self.range, *(self.filters[name] for name in FACETS)]

    def sought(self) -> list[gr.components.Component]:
        """What `look` is told."""
        return [self.offset, *(self.filters[name] for name in Filters.__dataclass_fields__)]


def build(app: App, blocks: gr.Blocks, place: gr.Tab, opener: Opener) -> list[gr.components.Component]:
    """The tab's components, wired."""
    gr.HTML(f'<p class="about intro">{escape(strings.HISTORY_INTRO)}</p>', apply_default_css=False)
    parts = _parts()
    _wire_list(app, place, parts)
    _wire_deeds(app, parts, opener)
    _wire_import(parts, opener)
    _wire_form(app, parts)
    _wire_ticks(parts, opener)
    return []


def _parts() -> Parts:
    with gr.Row(elem_classes="filters"):
        filters: dict[str, gr.components.Component] = {
            "text": gr.Textbox("", label="Words", elem_id="history-text", placeholder="label, note, title, model", max_lines=1)
        }
        for name in FACETS:
            filters[name] = gr.Dropdown([(strings.ANY, "")], value="", label=name.capitalize(), elem_id=f"history-{name}", interactive=True)
        filters["since"] = gr.Textbox("", label="From", placeholder="2026-11-27", elem_id="history-since", max_lines=1)
        filters["until"] = gr.Textbox("", label="To", placeholder="2026-11-27", elem_id="history-until", max_lines=1)
    with gr.Column(visible=False, elem_id="history-form", elem_classes="setup") as form:
        label = gr.Textbox("", label="Label", max_lines=1, elem_id="history-label")
        note = gr.Textbox("", label="Note", lines=2, elem_id="history-note")
        with gr.Row(elem_classes="bar-row"):
            save = gr.Button("Save", size="sm", elem_id="history-save", scale=0, min_width=80)
            cancel = gr.Button("Cancel", size="sm", elem_id="history-cancel", scale=0, min_width=80)
    listing = gr.HTML(
        "", js_on_load=(ASSETS / "history.js").read_text(encoding="utf-8"), apply_default_css=False, elem_id="history-list",
    )  # fmt: skip
    with gr.Row(elem_classes="bar-row"):
        earlier = gr.Button("Newer", size="sm", elem_id="history-newer", scale=0)
        later = gr.Button("Older", size="sm", elem_id="history-older", scale=0)
        span = gr.HTML("", apply_default_css=False, elem_id="history-range")
        upload = gr.UploadButton("Import a file", size="sm", elem_id="history-import", file_types=[".gz"], scale=0)
    with gr.Row(elem_classes="bar-foot bar-row", equal_height=True):  # in reach from wherever in the list something was pressed
        explore = gr.Button(TICK, variant="primary", elem_id="history-explore", interactive=False, scale=0, min_width=210)
        said = gr.HTML("", apply_default_css=False, elem_id="history-said")
        undo = gr.Button("Undo delete", elem_id="history-undo", visible=False, scale=0, min_width=90)
        file = gr.DownloadButton("Download", elem_id="history-file", visible=False, scale=0, min_width=90)
    states = (gr.State(()), gr.State(0), gr.State(()), gr.State(""))
    return Parts(filters, listing, said, undo, file, form, label, note, save, cancel, earlier, later, span, upload, explore, *states)


def look(app: App, offset: int, *sought: Any) -> list[Any]:
    """What the list shows for these filters from `offset` on; a filter that cannot be is said in its place."""
    given = {name: value or "" for name, value in zip(Filters.__dataclass_fields__, sought, strict=True)}
    try:
        filters = Filters(**given)
        page = app.store.earlier.page(filters, ON_PAGE, offset)
    except Problem as problem:
        return [note_html(problem.message), *(gr.skip() for _ in range(3 + len(FACETS)))]
    end, total = min(offset + ON_PAGE, page["total"]), page["total"]
    if offset >= total > 0:  # the last one of this page was deleted
        return look(app, (total - 1) // ON_PAGE * ON_PAGE, *sought)
    titles = {name: technique.title for name, technique in techniques().items()}
    facets = [
        gr.update(choices=[(strings.ANY, ""), *((f"{titles.get(value, value) if name == 'technique' else value} ({count})", value)
                                                for value, count in page["facets"][name].items())])
        for name in FACETS
    ]  # fmt: skip
    words = f"{offset + 1 if total else 0} to {end} of {total:,}"
    return [
        list_html(page, filters != Filters()),
        gr.update(visible=offset > 0),
        gr.update(visible=end < total),
        f'<p class="quiet">{words}</p>' if total else "",
        *facets,
    ]


def _wire_list(app: App, place: gr.Tab, parts: Parts) -> None:
    def looked(*sought: Any) -> list[Any]:
        return look(app, *sought)

    def moved(by: int) -> Any:
        def to(offset: int, *sought: Any) -> list[Any]:
            there = max(0, offset + by)
            return [there, *look(app, there, *sought)]

        return to

    def first(*sought: Any) -> list[Any]:
        return [0, *look(app, 0, *sought)]

    place.select(looked, parts.sought(), parts.shown(), **changed(NAME))
    found = [parts.offset, *parts.shown()]
    events = [parts.filters[name].input for name in FACETS] + [parts.filters[name].submit for name in ("text", "since", "until")]
    gr.on(
        [*events, *(parts.filters[name].blur for name in ("text", "since", "until"))],
        lambda _, *sought: first(*sought),
        parts.sought(),
        found,
        **changed(NAME),
    )
    parts.later.click(moved(ON_PAGE), parts.sought(), found, **pressed(NAME))
    parts.earlier.click(moved(-ON_PAGE), parts.sought(), found, **pressed(NAME))


def _wire_deeds(app: App, parts: Parts, opener: Opener) -> None:
    """Buttons of the list: `submit` events show a run in the tab Compare, `click` events stay here."""

    def opened(mine: list[str] | None, event: gr.EventData) -> list[Any]:
        asked, started = event._data, list(mine or ())
        job = str(asked["id"])
        try:
            if asked["do"] == "again":
                job = run_again(app, job, started).id
                started = [*started, job][-OWN_JOBS:]
        except Problem as problem:
            return [message_html(problem), gr.skip(), gr.skip(), gr.skip()]
        return ["", job, started, gr.Tabs(selected=COMPARE)]

    def done(event: gr.EventData, *sought: Any) -> list[Any]:
        do, experiment = str(event._data["do"]), str(event._data["id"])
        hidden = gr.update(visible=False)
        usual: dict[str, Any] = {"said": "", "undo": gr.skip(), "deleted": gr.skip(), "file": hidden, "form": hidden}
        usual |= dict.fromkeys(("label", "note", "described"), gr.skip())
        try:
            changes = _deed(app, do, experiment)
        except Problem as problem:
            changes = {"said": note_html(problem.message)}
        return [*(usual | changes).values(), *look(app, *sought)]  # in one answer, so that what was pressed shows at once

    def restored(deleted: Sequence[str], *sought: Any) -> list[Any]:
        said = strings.RESTORED
        try:
            app.store.earlier.restore(list(deleted))
        except Problem as problem:
            said = problem.message
        return [note_html(said), gr.update(visible=False), *look(app, *sought)]

    outputs = [parts.said, opener.page.job, opener.page.mine, opener.tabs]
    opener.show(parts.listing.submit(opened, opener.page.mine, outputs, **pressed(NAME)))
    outputs = [parts.said, parts.undo, parts.deleted, parts.file, parts.form, parts.label, parts.note, parts.described, *parts.shown()]
    parts.listing.click(done, parts.sought(), outputs, **EACH).then(None, js=TO_FORM, api_visibility="private")
    parts.undo.click(restored, [parts.deleted, *parts.sought()], [parts.said, parts.undo, *parts.shown()], **pressed(NAME))


def _wire_import(parts: Parts, opener: Opener) -> None:
    """A file that is taken in is among the recordings at once."""

    def taken(path: str) -> list[Any]:
        try:
            name = take_in(Path(path))
            said = (strings.IMPORT_SWEEP if is_sweep(name) else strings.IMPORT_DONE).format(name)
            return [note_html(said), gr.update(choices=recordings())]
        except Problem as problem:
            return [note_html(problem.message), gr.skip()]

    parts.upload.upload(taken, parts.upload, [parts.said, opener.page.recordings], **FILES)


def _deed(app: App, do: str, experiment: str) -> dict[str, Any]:
    """Do one thing to an experiment; what of the components changes by it, by name. Raises Problem."""
    earlier, stored = app.store.earlier, app.store.load(experiment)
    title = stored.title or experiment
    if do == "pin":
        earlier.pin(experiment, not earlier.line(experiment)["pinned"])
    elif do == "delete":
        delete(app, [experiment])
        said = note_html(strings.DELETED.format(title))
        return {"said": said, "undo": gr.update(visible=True), "deleted": (experiment,)}
    elif do == "export":
        path = Path(tempfile.mkdtemp(prefix="export-")) / f"{experiment}.jsonl.gz"
        give_out(stored, path)
        return {"said": note_html(strings.EXPORTED.format(title)), "file": gr.update(value=str(path), visible=True)}
    elif do == "describe":
        line = earlier.line(experiment)
        named = {"label": gr.update(value=line["label"], info=f"Of “{title}”."), "note": line["note"]}
        return {"form": gr.update(visible=True), **named, "described": experiment}
    return {}


def _wire_form(app: App, parts: Parts) -> None:
    def saved(experiment: str, label: str, note: str, *sought: Any) -> list[Any]:
        try:
            app.store.earlier.describe(experiment, label=label or "", note=note or "")
        except Problem as problem:
            return [note_html(problem.message), gr.skip(), *(gr.skip() for _ in parts.shown())]
        return ["", gr.update(visible=False), *look(app, *sought)]

    asked = [parts.described, parts.label, parts.note, *parts.sought()]
    gr.on([parts.save.click, parts.label.submit], saved, asked, [parts.said, parts.form, *parts.shown()], **pressed(NAME))
    parts.cancel.click(lambda: gr.update(visible=False), None, parts.form, **pressed(NAME))


def _wire_ticks(parts: Parts, opener: Opener) -> None:
    def ticked(event: gr.EventData) -> list[Any]:
        runs = tuple(str(run) for run in event._data["runs"])
        enough = FEWEST <= len(runs) <= MOST
        words = f"Explore {len(runs)} runs" if enough else TICK if len(runs) < FEWEST else f"{len(runs)} runs: {MOST} at most"
        return [runs, gr.update(value=words, interactive=enough)]

    parts.listing.select(ticked, None, [parts.ticked, parts.explore], **EACH)
    parts.explore.click(lambda runs: [runs, gr.Tabs(selected=EXPLORE)], parts.ticked, [opener.picked, opener.tabs], **pressed(NAME))


TAB = Tab(NAME, "History", 40, build)
