"""The tab "Compare": set up variants, run them, read why they differ. Its sections put together and wired to the handlers.

Example::

    with gr.Blocks() as blocks: compare = build_compare(app, blocks)
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import gradio as gr

from playground import presets
from playground.core.problem import Problem
from playground.core.spec import RunSpec, Workload
from playground.core.usual import usual_engine
from playground.models.catalogue import catalogue
from playground.ui import handlers, strings
from playground.ui.controls import build_setup
from playground.ui.fields import NOWHERE, Form, Props, form_of, merged, read, settled, updates
from playground.ui.form import LETTERS, Draft, draft_of, named_protocol
from playground.ui.handlers import App
from playground.ui.place import keeping_place
from playground.ui.results import Board, Shown, board_values, build_board, status_html
from playground.ui.text import escape, note_html
from playground.ui.variants import START_COUNT, build_variants, explanations_html

NAME = "compare"
PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
FORM: dict[str, Any] = {**PRIVATE, "concurrency_id": "form", "concurrency_limit": 8}
OWN_JOBS = 5
TO_RESULTS = """() => setTimeout(() => {
    if (!document.querySelector('#message [role=alert]')) document.querySelector('#results').scrollIntoView({behavior: 'smooth'});
}, 60)"""


@dataclass(frozen=True)
class Bar:
    """The bar at the foot of the window: always reachable."""

    message: gr.HTML
    status: gr.HTML
    run: gr.Button
    stop: gr.Button


@dataclass(frozen=True)
class Page:
    """Every named component of the tab. `job`: id of the run that is shown; `mine`: ids of the jobs that this browser started last;
    `known`: those models of the form whose config is known: an estimate may fetch one, and then the form is checked again."""

    form: Form
    known: gr.State
    board: Board
    bar: Bar
    job: gr.BrowserState
    mine: gr.BrowserState
    experiments: gr.Radio
    recordings: gr.Dropdown
    about: gr.HTML
    kept: gr.HTML


@dataclass(frozen=True)
class Opener:
    """How tabs bring something to each other. `picked`: runs ("EXPERIMENT:INDEX") to be explored; `restore` and `watch`: the steps that
    show the run of `page.job`, its settings first."""

    page: Page
    tabs: gr.Tabs
    picked: gr.State
    restore: Mapping[str, Any]
    watch: Mapping[str, Any]

    def run(self, trigger: Callable[..., Any], run_of: Callable[..., str], inputs: Sequence[Any]) -> None:
        """On `trigger` (such as a button's click), show the run whose id `run_of` gives for the values of `inputs`."""
        chosen = trigger(run_of, list(inputs), self.page.job, **FORM).then(lambda: gr.Tabs(selected=NAME), None, self.tabs, **FORM)
        chosen.then(**self.restore).then(**self.watch)

    def form(self, app: App, trigger: Callable[..., Any], specs_of: Callable[..., Sequence[RunSpec]], inputs: Sequence[Any]) -> None:
        """On `trigger`, fill the form with the specs that `specs_of` gives for the values of `inputs`."""
        outputs = self.page.form.outputs()

        def filled(*values: Any) -> list[Any]:
            now, props = form_of(specs_of(*values), app.world)
            return [gr.Tabs(selected=NAME), handlers.estimate(app, now), *updates(outputs, props)]

        trigger(filled, list(inputs), [self.tabs, self.page.form.setup.estimate, *outputs.values()], **FORM)


def build_compare(app: App, blocks: gr.Blocks, tabs: gr.Tabs) -> Opener:
    """The tab's components and the bar at its foot, wired; gives what other tabs need to bring something here."""
    page = _layout(app)
    _wire_form(app, page)
    _wire_protocol(app, page)
    return Opener(page, tabs, gr.State(()), **_wire_run(app, page, blocks))


def _layout(app: App) -> Page:
    experiments, recordings, about = _presets()
    with gr.Row(elem_classes="shell", equal_height=False):
        with gr.Column(elem_classes="side", scale=0, min_width=320):
            setup = build_setup(catalogue(), app.world.engines, app.world.machine, presets.workloads())
        with gr.Column(elem_classes="main", scale=1, min_width=320):
            with gr.Row(elem_classes="section-head"):
                gr.HTML("<h2>Variants</h2>", apply_default_css=False)
                count, place = gr.State(START_COUNT), gr.State(NOWHERE)
                own = gr.State(usual_engine(app.world.engines, app.world.machine))
                remove = gr.Button("Remove B", size="sm", elem_id="remove-variant", visible=False, scale=0, min_width=100)
                add = gr.Button("Add a variant", size="sm", elem_id="add-variant", scale=0, min_width=120)
            columns = build_variants(app.world.techniques, catalogue(), app.world.engines, app.world.machine)
            with gr.Accordion("What these settings do, when they help and what they cost", open=False):
                gr.HTML(explanations_html(app.world.techniques), apply_default_css=False)
            status_place = gr.HTML(status_html(Shown()), render=False, apply_default_css=False, elem_id="status")
            board = build_board(status_place)
            kept = gr.HTML(**_kept(app), apply_default_css=False, elem_id="kept")
    bar = _bar(status_place)
    job = gr.BrowserState("", storage_key="inference-playground-run", secret="inference-playground")
    mine = gr.BrowserState([], storage_key="inference-playground-mine", secret="inference-playground")
    known = gr.State([])
    return Page(Form(setup, columns, count, place, own, add, remove), known, board, bar, job, mine, experiments, recordings, about, kept)


def _presets() -> tuple[gr.Radio, gr.Dropdown, gr.HTML]:
    with gr.Column(elem_classes="presets"):
        choices = [(preset.title, preset.name) for preset in presets.experiments()]
        experiments = gr.Radio(choices, value=None, label="Experiments", elem_id="experiments", elem_classes="chips")
        played = [(preset.title, preset.name) for preset in presets.recorded()]
        recordings = gr.Dropdown(
            played, value=None, label="Recorded on other machines", info=strings.RECORDINGS_INFO, elem_id="recordings", interactive=True
        )
        about = gr.HTML(f'<p class="about">{escape(strings.EXPERIMENT_HINT)}</p>', apply_default_css=False, elem_id="about")
    return experiments, recordings, about


def _bar(status: gr.HTML) -> Bar:
    with gr.Column(elem_classes="bar-foot", elem_id="run-bar"):
        message = gr.HTML("", apply_default_css=False, elem_id="message")
        with gr.Row(elem_classes="bar-row", equal_height=True):
            run = gr.Button("Run", variant="primary", elem_id="run", scale=0, min_width=110)
            stop = gr.Button("Stop", elem_id="stop", scale=0, min_width=90)
            status.render()
    return Bar(message, status, run, stop)


def _wire_form(app: App, page: Page) -> None:
    """Each change refreshes the controls and the estimate; presets fill the form in."""
    form, inputs, outputs = page.form, page.form.inputs(), page.form.outputs()
    keys, targets, sources = list(inputs), list(outputs.values()), list(inputs.values())

    def draft(values: tuple[Any, ...]) -> Draft:
        return read(dict(zip(keys, values, strict=True)))

    def shown(values: tuple[Any, ...], now: Draft, given: Props | None = None) -> list[Any]:
        place, own = (values[keys.index(name)] for name in ("place", "own"))
        return updates(outputs, merged(given or {}, settled(now, place, app.world, own)[1]))

    def refreshed(*values: Any) -> list[Any]:
        return shown(values, draft(values))

    def estimated(*values: Any) -> list[Any]:
        now = draft(values)
        return [handlers.estimate(app, now), handlers.known_models(app, now)]

    def resized(change: int, *values: Any) -> list[Any]:
        count = max(2, min(len(LETTERS), int(values[keys.index("count")]) + change))
        now = draft(tuple(count if key == "count" else value for key, value in zip(keys, values, strict=True)))
        return shown(values, now, {"count": {"value": count}})

    def from_experiment(name: str, *values: Any) -> list[Any]:
        preset = next(preset for preset in presets.offered() if preset.name == name)
        own = values[keys.index("own")]
        specs, remark, own = keeping_place(preset.specs, draft(values), app.world, own, preset.names_engine)
        about = f'<p class="about"><b>What to look for.</b> {escape(" ".join(preset.about.split()))}</p>{note_html(remark)}'
        return [about, *updates(outputs, form_of(specs, app.world, own)[1])]

    def from_workload(name: str, *values: Any) -> list[Any]:
        preset = next(preset for preset in presets.workloads() if preset.name == name)
        given = draft_of([RunSpec(workload=preset.workload)], app.world)
        chosen = {f.name: getattr(given, f.name) for f in fields(Workload)}
        filled = {name: {"value": value} for name, value in chosen.items()}
        return shown(values, replace(draft(values), **chosen), filled)

    def estimate_after(event: Any) -> None:
        shown_then = [form.setup.estimate, page.known]
        event.then(estimated, sources, shown_then, **PRIVATE, concurrency_id="estimate", concurrency_limit=4)

    edited = [component.input for key, component in inputs.items() if key != "count" and hasattr(component, "input")]
    estimate_after(gr.on(edited, refreshed, sources, targets, trigger_mode="always_last", **FORM))
    estimate_after(form.add.click(lambda *values: resized(1, *values), sources, targets, **FORM))
    estimate_after(form.remove.click(lambda *values: resized(-1, *values), sources, targets, **FORM))
    for chosen, other in ((page.experiments, page.recordings), (page.recordings, page.experiments)):
        event = chosen.input(from_experiment, [chosen, *sources], [page.about, *targets], **FORM)
        event.then(lambda: None, None, other, **FORM)
        estimate_after(event)
    page.known.change(refreshed, sources, targets, **FORM)
    preset = form.setup.workload_preset
    estimate_after(preset.input(from_workload, [preset, *sources], targets, **FORM))


def _wire_protocol(app: App, page: Page) -> None:
    """Choosing a protocol fills its numbers in; measuring the machine again forgets what was measured."""
    form, inputs, outputs = page.form, page.form.inputs(), page.form.outputs()
    keys, sources = list(inputs), list(inputs.values())

    def chosen(name: str) -> list[Any]:
        return updates(outputs, {field: {"value": value} for field, value in named_protocol(name).items()})

    def remeasured(*values: Any) -> list[str]:
        said = handlers.remeasure(app)
        return [said, handlers.estimate(app, read(dict(zip(keys, values, strict=True))))]

    setup = form.setup
    setup.protocol.input(chosen, setup.protocol, list(outputs.values()), **FORM)
    setup.remeasure.click(remeasured, sources, [page.bar.message, setup.estimate], **FORM)


def _kept(app: App) -> dict[str, Any]:
    return {"value": note_html(app.store.warning or ""), "visible": bool(app.store.warning)}


def _wire_run(app: App, page: Page, blocks: gr.Blocks) -> dict[str, Mapping[str, Any]]:
    """Run, Stop, the watch that shows a run, and finding it again after a reload; gives the steps `restore` and `watch`."""
    inputs, outputs = page.form.inputs(), page.form.outputs()
    keys, sources = list(inputs), list(inputs.values())

    def submitted(mine: list[str] | None, *values: Any) -> list[Any]:
        try:
            job = handlers.submit(app, read(dict(zip(keys, values, strict=True))), mine or ())
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
        specs, given = handlers.specs_of_run(app, job_id) if job_id else [], dict(zip(keys, values, strict=True))
        now, props = form_of(specs, app.world) if specs else settled(read(given), given["place"], app.world, given["own"])
        return [handlers.estimate(app, now), *updates(outputs, props)]

    def left(request: gr.Request) -> None:
        app.watchers.pop(str(request.session_hash), None)

    watch: dict[str, Any] = {"fn": watched, "inputs": [page.job, page.board.row], "outputs": page.board.outputs(), **PRIVATE}
    watch |= {"concurrency_id": "watch", "concurrency_limit": None}
    restore: dict[str, Any] = {
        "fn": restored,
        "inputs": [page.job, *sources],
        "outputs": [page.form.setup.estimate, *outputs.values()],
        **FORM,
    }
    started = page.bar.run.click(submitted, [page.mine, *sources], [page.bar.message, page.job, page.mine], **FORM)
    started.then(None, js=TO_RESULTS, api_visibility="private")
    started.then(**watch).then(lambda: gr.update(**_kept(app)), None, page.kept, **FORM)
    page.bar.stop.click(stopped, [page.job, page.mine], page.bar.message, **FORM)
    page.board.row.input(**watch)
    blocks.load(**restore).then(**watch)
    blocks.load(lambda: gr.update(**_kept(app)), None, page.kept, **FORM)
    blocks.unload(left)
    return {"restore": restore, "watch": watch}
