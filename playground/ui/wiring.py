"""The tab "Compare" brought to life: changes of the form, presets, links, protocols, runs.

Example::

    steps = wire(Sheet(app, page), blocks)
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import gradio as gr

from playground import presets
from playground.core.problem import Problem
from playground.core.spec import RunSpec, Workload
from playground.ui import handlers, strings
from playground.ui.events import ESTIMATE, FORM, WATCH
from playground.ui.fields import Props, fill, form_of, merged, read, refresh, settled, updates
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

    def shown(self, values: tuple[Any, ...], now: Draft, filled: Props | None = None) -> list[Any]:
        """Updates of `targets` for the draft `now`, with `filled` besides."""
        given = self.given(values)
        return updates(self.outputs, merged(filled or {}, settled(now, given["place"], self.app.world, given["own"])[1]))

    def estimate_after(self, event: Any) -> None:
        """Renew estimate, link and command after an event."""

        def estimated(*values: Any) -> list[Any]:
            now = self.draft(values)
            return [handlers.estimate(self.app, now), handlers.known_models(self.app, now), share_html(now, self.app.world)]

        page = self.page
        event.then(estimated, self.sources, [page.form.setup.estimate, page.known, page.share], **ESTIMATE)


def wire(sheet: Sheet, blocks: gr.Blocks) -> dict[str, Mapping[str, Any]]:
    """Wire the whole tab; gives the steps that show a run: `restore`, its settings, and `watch`, itself."""
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

    edited = [component.input for key, component in sheet.inputs.items() if key != "count" and hasattr(component, "input")]
    sheet.estimate_after(gr.on(edited, refreshed, sheet.sources, sheet.targets, trigger_mode="always_last", **FORM))
    sheet.estimate_after(form.add.click(lambda *values: resized(1, *values), sheet.sources, sheet.targets, **FORM))
    sheet.estimate_after(form.remove.click(lambda *values: resized(-1, *values), sheet.sources, sheet.targets, **FORM))
    sheet.page.known.change(refreshed, sheet.sources, sheet.targets, **FORM)


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
        event = chosen.input(from_experiment, [chosen, *sheet.sources], [page.about, *sheet.targets], **FORM)
        event.then(lambda: None, None, other, **FORM)
        sheet.estimate_after(event)
    preset = page.form.setup.workload_preset
    sheet.estimate_after(preset.input(from_workload, [preset, *sheet.sources], sheet.targets, **FORM))


def _wire_protocol(sheet: Sheet) -> None:
    """Choosing a protocol fills its numbers in; measuring the machine again forgets what was measured."""

    def chosen(name: str) -> list[Any]:
        return updates(sheet.outputs, {field: {"value": value} for field, value in named_protocol(name).items()})

    def remeasured(*values: Any) -> list[str]:
        said = handlers.remeasure(sheet.app)
        return [said, handlers.estimate(sheet.app, sheet.draft(values))]

    setup = sheet.page.form.setup
    sheet.estimate_after(setup.protocol.input(chosen, setup.protocol, sheet.targets, **FORM))
    setup.remeasure.click(remeasured, sheet.sources, [sheet.page.bar.message, setup.estimate], **FORM)


def recordings() -> list[tuple[str, str]]:
    """(title, name) of the recordings that can be played; an import adds one."""
    return [(preset.title, preset.name) for preset in presets.recorded()]


def kept_note(app: App) -> dict[str, Any]:
    """What is said of a store that keeps nothing."""
    return {"value": note_html(app.store.warning or ""), "visible": bool(app.store.warning)}


def _wire_run(sheet: Sheet, blocks: gr.Blocks) -> dict[str, Mapping[str, Any]]:
    """Run, Stop and the watch that shows a run; gives the steps `restore` and `watch`."""
    app, page = sheet.app, sheet.page

    def submitted(mine: list[str] | None, *values: Any) -> list[Any]:
        try:
            job = handlers.submit(app, sheet.draft(values), mine or ())
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

    def restored(job_id: str, *values: Any) -> list[Any]:
        specs, given = handlers.specs_of_run(app, job_id) if job_id else [], sheet.given(values)
        now, props = form_of(specs, app.world) if specs else settled(read(given), given["place"], app.world, given["own"])
        return [handlers.estimate(app, now), share_html(now, app.world), *updates(sheet.outputs, props)]

    def left(request: gr.Request) -> None:
        app.left(str(request.session_hash))

    watch: dict[str, Any] = {"fn": watched, "inputs": [page.job, page.board.row], "outputs": page.board.outputs(), **WATCH}
    restore: dict[str, Any] = {"fn": restored, "inputs": [page.job, *sheet.sources], **FORM}
    restore["outputs"] = [page.form.setup.estimate, page.share, *sheet.targets]
    started = page.bar.run.click(submitted, [page.mine, *sheet.sources], [page.bar.message, page.job, page.mine], **FORM)
    started.then(None, js=TO_RESULTS, api_visibility="private")
    started.then(**watch).then(lambda: gr.update(**kept_note(app)), None, page.kept, **FORM)
    page.bar.stop.click(stopped, [page.job, page.mine], page.bar.message, **FORM)
    page.board.row.input(**watch)
    _wire_opening(sheet, blocks, restore, watch)
    blocks.unload(left)
    return {"restore": restore, "watch": watch}


def _wire_opening(sheet: Sheet, blocks: gr.Blocks, restore: Mapping[str, Any], watch: Mapping[str, Any]) -> None:
    """A page that opens shows what its link says, else the run that this browser watched last."""
    app, page = sheet.app, sheet.page

    def opened(job_id: str, request: gr.Request, *values: Any) -> list[Any]:
        now, remarks = draft_from(str(request.query_params or ""), app.world)
        if now == Draft() and not remarks:  # no link, or one to the form as it is at first
            return [gr.skip(), gr.skip(), *restore["fn"](job_id, *values)]
        props = merged(fill(now, app.world), refresh(now, app.world), {"own": {"value": ""}})
        said = "".join(note_html(remark) for remark in remarks)
        return [said, "", handlers.estimate(app, now), share_html(now, app.world), *updates(sheet.outputs, props)]

    outputs = [page.bar.message, page.job, *restore["outputs"]]
    blocks.load(opened, restore["inputs"], outputs, **FORM).then(**watch)
    blocks.load(lambda: [gr.update(**kept_note(app)), gr.update(choices=recordings())], None, [page.kept, page.recordings], **FORM)
