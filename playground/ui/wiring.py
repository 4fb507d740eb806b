"""The tab "Compare" brought to life: changes of the form, presets, links, protocols, runs.

Example::

    show = wire(Sheet(app, page), blocks)
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import gradio as gr

from playground import presets
from playground.core.problem import Problem
from playground.core.spec import RunSpec, Workload
from playground.ui import handlers, strings
from playground.ui.events import ESTIMATE, WATCH, changed, edits, pressed
from playground.ui.fields import Props, fill, form_of, merged, overtaken, read, refresh, settled, updates
from playground.ui.form import LETTERS, Draft, draft_of, named_protocol
from playground.ui.handlers import App
from playground.ui.link import draft_from
from playground.ui.place import keeping_place
from playground.ui.results import Shown, board_values
from playground.ui.share import share_html
from playground.ui.text import escape, note_html

if TYPE_CHECKING:
    from playground.ui.compare import Page

OWN_JOBS = 5
QUEUE = "form"
TO_RESULTS = """() => setTimeout(() => {
    if (!document.querySelector('#message [role=alert]')) document.querySelector('#results').scrollIntoView({behavior: 'smooth'});
}, 60)"""


@dataclass(frozen=True)
class Sheet:
    """The form between components and plain data: what handlers get and give for it."""

    app: App
    page: Page

    @cached_property
    def inputs(self) -> dict[str, gr.components.Component]:
        """What holds values, by key."""
        return self.page.form.inputs()

    @cached_property
    def outputs(self) -> dict[str, Any]:
        """What an update may change, by key."""
        return self.page.form.outputs()

    @property
    def sources(self) -> list[gr.components.Component]:
        """Inputs of a handler that reads the form."""
        return list(self.inputs.values())

    @property
    def targets(self) -> list[Any]:
        """Outputs of a handler that changes the form."""
        return list(self.outputs.values())

    def given(self, values: tuple[Any, ...]) -> dict[str, Any]:
        """The values of `sources` by key."""
        return dict(zip(self.inputs, values, strict=True))

    def draft(self, values: tuple[Any, ...]) -> Draft:
        """What the values of `sources` mean."""
        return read(self.given(values))

    def to_run(self, values: tuple[Any, ...]) -> Draft:
        """The same for what is to be run. Raises Problem for values that were overtaken."""
        if overtaken(self.given(values)):
            raise Problem("user", strings.BEING_FILLED)
        return self.draft(values)

    def shown(self, values: tuple[Any, ...], now: Draft, filled: Props | None = None) -> list[Any]:
        """Updates of `targets` for the draft `now`, with `filled` besides; none for values that were overtaken."""
        given = self.given(values)
        if overtaken(given):
            return updates(self.outputs, {})
        return updates(self.outputs, merged(filled or {}, settled(now, given["place"], self.app.world, given["own"])[1]))

    def estimate_after(self, event: Any) -> None:
        """Renew estimate, link and command after an event."""

        def found(values: tuple[Any, ...]) -> list[Any]:
            if overtaken(self.given(values)):
                return [gr.skip() for _ in range(3)]
            now = self.draft(values)
            return [handlers.estimate(self.app, now), handlers.known_models(self.app, now), share_html(now, self.app.world)]

        async def estimated(request: gr.Request, *values: Any) -> list[Any]:
            newest = self.app.newest(f"{request.session_hash}/estimate")
            shown = await asyncio.to_thread(found, values)
            return shown if newest() else [gr.skip() for _ in shown]  # one that had to ask a hub is overtaken by the one after it

        page = self.page
        event.then(estimated, self.sources, [page.form.setup.estimate, page.known, page.share], **ESTIMATE)


def wire(sheet: Sheet, blocks: gr.Blocks) -> Callable[[Any], None]:
    """Wire the whole tab; gives what shows, after an event, the run of `page.job`: its settings, their estimate, and itself."""
    _wire_form(sheet)
    _wire_presets(sheet)
    _wire_protocol(sheet)
    return _wire_run(sheet, blocks)


def _wire_form(sheet: Sheet) -> None:
    """Each change refreshes the controls and the estimate."""
    form = sheet.page.form

    def refreshed(*values: Any) -> list[Any]:
        return sheet.shown(values, sheet.draft(values))

    def resized(change: int, *values: Any) -> list[Any]:
        given = sheet.given(values)
        count = max(2, min(len(LETTERS), int(given["count"]) + change))
        return sheet.shown(values, read({**given, "count": count}), {"count": {"value": count}})

    edited = edits(control for control in sheet.inputs.values() if not isinstance(control, gr.State))
    places: dict[str, Any] = {"inputs": sheet.sources, "outputs": sheet.targets, **changed(QUEUE)}
    sheet.estimate_after(gr.on([*edited, sheet.page.known.change], refreshed, **places))
    sheet.estimate_after(form.add.click(lambda *values: resized(1, *values), **places))
    sheet.estimate_after(form.remove.click(lambda *values: resized(-1, *values), **places))


def _wire_presets(sheet: Sheet) -> None:
    """Experiments, recordings and workloads fill the form in."""
    app, page = sheet.app, sheet.page

    def from_experiment(name: str, *values: Any) -> list[Any]:
        preset = next(preset for preset in presets.offered() if preset.name == name)
        specs, remark, own = keeping_place(preset.specs, sheet.draft(values), app.world, sheet.given(values)["own"], preset.names_engine)
        about = f'<p class="about"><b>What to look for.</b> {escape(" ".join(preset.about.split()))}</p>{note_html(remark)}'
        return [about, *updates(sheet.outputs, form_of(specs, app.world, own)[1])]

    def from_workload(name: str, *values: Any) -> list[Any]:
        preset = next(preset for preset in presets.workloads() if preset.name == name)
        given = draft_of([RunSpec(workload=preset.workload)], app.world)
        chosen = {f.name: getattr(given, f.name) for f in fields(Workload) if hasattr(given, f.name)}
        filled = {name: {"value": value} for name, value in chosen.items()}
        return sheet.shown(values, replace(sheet.draft(values), **chosen), filled)

    for chosen, other in ((page.experiments, page.recordings), (page.recordings, page.experiments)):
        event = chosen.input(from_experiment, [chosen, *sheet.sources], [page.about, *sheet.targets], **changed(QUEUE))
        event.then(lambda: None, None, other, **changed(QUEUE))
        sheet.estimate_after(event)
    preset = page.form.setup.workload_preset
    sheet.estimate_after(preset.input(from_workload, [preset, *sheet.sources], sheet.targets, **changed(QUEUE)))


def _wire_protocol(sheet: Sheet) -> None:
    """Choosing a protocol fills its numbers in; measuring the machine again forgets what was measured."""

    def chosen(name: str) -> list[Any]:
        return updates(sheet.outputs, {field: {"value": value} for field, value in named_protocol(name).items()})

    setup = sheet.page.form.setup
    sheet.estimate_after(setup.protocol.input(chosen, setup.protocol, sheet.targets, **changed(QUEUE)))
    sheet.estimate_after(setup.remeasure.click(lambda: handlers.remeasure(sheet.app), None, sheet.page.bar.message, **pressed(QUEUE)))


def recordings() -> list[tuple[str, str]]:
    """(title, name) of the recordings that can be played; an import adds one."""
    return [(preset.title, preset.name) for preset in presets.recorded()]


def kept_note(app: App) -> dict[str, Any]:
    """What is said of a store that keeps nothing."""
    return {"value": note_html(app.store.warning or ""), "visible": bool(app.store.warning)}


def _wire_run(sheet: Sheet, blocks: gr.Blocks) -> Callable[[Any], None]:
    """Run, Stop and the watch that shows a run; gives what shows, after an event, the run of `page.job`."""
    app, page = sheet.app, sheet.page

    def submitted(mine: list[str] | None, *values: Any) -> list[Any]:
        try:
            job = handlers.submit(app, sheet.to_run(values), mine or ())
        except Problem as problem:
            return [handlers.message_html(problem), gr.skip(), gr.skip()]
        return ["", job.id, [*(mine or ()), job.id][-OWN_JOBS:]]

    async def watched(job_id: str, row: int | None, request: gr.Request) -> AsyncIterator[list[Any]]:
        before: Shown | None = None
        if job_id:
            async for state in handlers.watch(app, job_id, row or 0, str(request.session_hash)):
                yield board_values(state, before)
                before = state
        yield [gr.skip() for _ in page.board.outputs()]

    def stopped(shown: str, mine: list[str] | None) -> str:
        found = handlers.stop(app, shown, mine or ())
        return note_html(strings.NOTHING_RUNS if found is None else "" if found == shown else strings.STOPPED_UNSEEN)

    def left(request: gr.Request) -> None:
        app.left(str(request.session_hash))

    watch: dict[str, Any] = {"fn": watched, "inputs": [page.job, page.board.row], "outputs": page.board.outputs(), **WATCH}
    started = page.bar.run.click(submitted, [page.mine, *sheet.sources], [page.bar.message, page.job, page.mine], **pressed(QUEUE))
    started.then(None, js=TO_RESULTS, api_visibility="private")
    started.then(**watch).then(lambda: gr.update(**kept_note(app)), None, page.kept, **changed(QUEUE))
    page.bar.stop.click(stopped, [page.job, page.mine], page.bar.message, **pressed(QUEUE))
    page.board.row.input(**watch)
    blocks.unload(left)
    return _wire_opening(sheet, blocks, watch)


def _wire_opening(sheet: Sheet, blocks: gr.Blocks, watch: Mapping[str, Any]) -> Callable[[Any], None]:
    """A page that opens shows what its link says, else the run that this browser watched last; gives what shows, after an event, the run of
    `page.job`."""
    app, page = sheet.app, sheet.page

    def restored(job_id: str, *values: Any) -> list[Any]:
        specs, given = handlers.specs_of_run(app, job_id) if job_id else [], sheet.given(values)
        return updates(sheet.outputs, form_of(specs, app.world)[1]) if specs else sheet.shown(values, read(given))

    def opened(job_id: str, request: gr.Request, *values: Any) -> list[Any]:
        now, remarks = draft_from(str(request.query_params or ""), app.world)
        if now == Draft() and not remarks:  # no link, or one to the form as it is at first
            return [gr.skip(), gr.skip(), *restored(job_id, *values)]
        props = merged(fill(now, app.world), refresh(now, app.world), {"own": {"value": ""}})
        return ["".join(note_html(remark) for remark in remarks), "", *updates(sheet.outputs, props)]

    asked = [page.job, *sheet.sources]

    def follow(filled: Any) -> None:
        sheet.estimate_after(filled)
        filled.then(**watch)

    def show(event: Any) -> None:
        follow(event.then(restored, asked, sheet.targets, **changed(QUEUE)))

    follow(blocks.load(opened, asked, [page.bar.message, page.job, *sheet.targets], **changed(QUEUE)))
    blocks.load(
        lambda: [gr.update(**kept_note(app)), gr.update(choices=recordings())], None, [page.kept, page.recordings], **pressed(QUEUE)
    )
    return show
