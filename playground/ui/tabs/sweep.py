"""The tab "Sweep": one or two settings over a grid, in the background, with pause and stop, and charts made for the question."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import gradio as gr

from playground.core.places import ASSETS
from playground.core.problem import Problem
from playground.core.sweep import PROTOCOL, SweepSpec
from playground.presets import SweepPreset, sweeps
from playground.results.compare import FEWEST, MOST
from playground.run.recorded_sweep import RECORDED
from playground.ui import strings
from playground.ui.compare import Opener
from playground.ui.events import WATCH, changed, offered, pressed
from playground.ui.form import LETTERS, Draft, specs_of
from playground.ui.handlers import UPDATE_S, App, message_html
from playground.ui.place import keeping_place
from playground.ui.sweeping import axis_choices, charts_json, choices, picks, plan_of, sweep_html
from playground.ui.tabs import Tab
from playground.ui.tabs.explore import NAME as EXPLORE
from playground.ui.text import escape, note_html
from playground.ui.theme import chart
from playground.ui.variants import START_COUNT

NAME = "sweep"
BASELINE, ALL, PRESET = "the baseline in Compare", "all variants in Compare", "the question above"
NO_AXIS = "none"
GOING = ("waiting", "running", "pausing")


@dataclass(frozen=True)
class Parts:
    """Every named component; `asked`: preset, source, both axes with their values, quick."""

    asked: tuple[gr.components.Component, ...]
    about: gr.HTML
    axes: tuple[gr.Dropdown, gr.Dropdown]
    values: tuple[gr.Textbox, gr.Textbox]
    chosen: gr.Dropdown
    progress: gr.HTML
    charts: gr.HTML
    explore: gr.Button
    delete: gr.Button
    message: gr.HTML
    buttons: tuple[gr.Button, gr.Button, gr.Button, gr.Button]
    sweep: gr.BrowserState

    def shown(self) -> list[gr.components.Component]:
        """What `state_of` gives values for."""
        return [self.progress, self.charts, *self.buttons[1:], self.explore, self.delete]


def build(app: App, blocks: gr.Blocks, place: gr.Tab, opener: Opener) -> list[gr.components.Component]:
    """The tab's components, wired; gives the browser's memory of its sweep."""
    gr.HTML(f'<p class="about intro">{escape(strings.SWEEP_INTRO)}</p>', apply_default_css=False)
    parts = _parts(app)
    _wire_form(place, opener, parts)
    _wire_sweep(app, blocks, place, opener, parts)
    _wire_ends(app, opener, parts)
    return [parts.sweep]


def _parts(app: App) -> Parts:
    presets = [(preset.plan.title, preset.name) for preset in sweeps()]
    preset = gr.Radio(presets, value=None, label="Questions", elem_id="sweep-preset", elem_classes="chips")
    about = gr.HTML("", apply_default_css=False, elem_id="sweep-about")
    with gr.Row(elem_classes="shell", equal_height=False):
        with gr.Column(elem_classes="side", scale=0, min_width=320):
            gr.HTML("<h2>What varies</h2>", apply_default_css=False)
            axes, values = zip(*(_axis(app, number) for number in (1, 2)), strict=True)
            source = gr.Radio(
                sources(START_COUNT), value=BASELINE, label="All else from", info=strings.SWEEP_SOURCE_INFO, elem_id="sweep-source"
            )
            quick = gr.Checkbox(True, label="Speed and memory only", info=strings.SWEEP_QUICK_INFO, elem_id="sweep-quick")
        with gr.Column(elem_classes="main", scale=1, min_width=320):
            chosen = gr.Dropdown([], value=None, label="Sweeps: of this machine, and recorded", elem_id="sweeps", interactive=True)
            script = (ASSETS / "keep_open.js").read_text(encoding="utf-8")
            progress = gr.HTML(nothing()[0], js_on_load=script, apply_default_css=False, elem_id="sweep-progress")
            charts = chart("sweep-charts", "What the sweep shows")
            with gr.Row(elem_classes="bar-row"):
                explore = gr.Button("Explore these runs", elem_id="sweep-explore", size="sm", visible=False, scale=0)
                delete = gr.Button(strings.SWEEP_DELETE, elem_id="sweep-delete", size="sm", visible=False, scale=0)
    with gr.Column(elem_classes="bar-foot", elem_id="sweep-bar"):
        message = gr.HTML("", apply_default_css=False, elem_id="sweep-message")
        with gr.Row(elem_classes="bar-row", equal_height=True):
            start = gr.Button("Start", variant="primary", elem_id="sweep-start", scale=0, min_width=110)
            pause = gr.Button("Pause", elem_id="sweep-pause", scale=0, min_width=90, visible=False)
            stop = gr.Button("Stop", elem_id="sweep-stop", scale=0, min_width=90, visible=False)
            on = gr.Button("Go on", elem_id="sweep-on", scale=0, min_width=90, visible=False)
    memory = gr.BrowserState("", storage_key="inference-playground-sweep", secret="inference-playground", render=False)
    asked = (preset, source, axes[0], values[0], axes[1], values[1], quick)
    return Parts(asked, about, axes, values, chosen, progress, charts, explore, delete, message, (start, pause, stop, on), memory)


def _axis(app: App, number: int) -> tuple[gr.Dropdown, gr.Textbox]:
    known = axis_choices(app)
    choose, first = (known, "batch_size") if number == 1 else ([(NO_AXIS, ""), *known], "")
    label = "Along the chart" if number == 1 else "A line for each"
    axis = gr.Dropdown(choose, value=first, label=label, elem_id=f"sweep-axis-{number}", interactive=True)
    values = gr.Textbox(
        "1:8:x2" if number == 1 else "", label="Values", info=strings.SWEEP_VALUES_INFO, elem_id=f"sweep-values-{number}", max_lines=1
    )
    return axis, values


def sources(count: int, question: bool = False) -> list[str]:
    """Where all that does not vary can come from, of `count` variants in Compare."""
    return [*([PRESET] if question else []), BASELINE, *(f"variant {letter} in Compare" for letter in LETTERS[1:count]), ALL]


def _wire_form(place: gr.Tab, opener: Opener, parts: Parts) -> None:
    """A question fills the axes in; the variants to take the rest from are those that Compare has when the tab is opened."""
    preset, source = parts.asked[0], parts.asked[1]
    count = opener.page.form.count

    def filled(name: str, count: int) -> list[Any]:
        plan = _preset(name).plan
        about = f'<p class="about"><b>What to look for.</b> {escape(" ".join(plan.about.split()))}</p>'
        axes = [*plan.axes, None][:2]
        pairs = [part for axis in axes for part in (axis.name if axis else "", ", ".join(map(str, axis.values)) if axis else "")]
        return [about, gr.update(choices=sources(count, question=True), value=PRESET), *pairs]

    def renewed(name: str | None, source: str, count: int) -> Any:
        there = sources(count, question=bool(name))
        return offered(there, source if source in there else BASELINE, source)

    fields = [part for pair in zip(parts.axes, parts.values, strict=True) for part in pair]
    place.select(renewed, [preset, source, count], source, **changed(NAME))
    preset.input(filled, [preset, count], [parts.about, source, *fields], **changed(NAME))


def _wire_sweep(app: App, blocks: gr.Blocks, place: gr.Tab, opener: Opener, parts: Parts) -> None:
    """Start, pause, stop, go on, the watch, and finding a sweep again."""
    queue = app.sweeps

    def begun(*values: Any) -> list[Any]:
        asked, form = values[: len(parts.asked)], values[len(parts.asked) :]
        try:
            plan, why = wanted(app, asked, opener.sheet.to_run(form))
            return [note_html(why), queue.begin(plan)]
        except Problem as problem:
            return [message_html(problem), gr.skip()]

    def gone_on(sweep: str) -> str:
        try:
            queue.go_on(sweep)
        except Problem as problem:
            return message_html(problem)
        return ""

    def listed(sweep: str, shown: str | None) -> Any:
        known = choices(app)
        return offered(known, sweep if any(name == sweep for _, name in known) else None, shown)

    async def watched(sweep: str, request: gr.Request) -> AsyncIterator[list[Any]]:
        async for state in watch(app, sweep, f"{request.session_hash}/sweep"):
            yield state
        yield [gr.skip() for _ in parts.shown()]  # without a value all of them would be emptied

    start, pause, stop, on = parts.buttons
    steps: dict[str, Any] = {"fn": watched, "inputs": parts.sweep, "outputs": parts.shown(), **WATCH}
    relist: dict[str, Any] = {"fn": listed, "inputs": [parts.sweep, parts.chosen], "outputs": parts.chosen, **changed(NAME)}
    start.click(begun, [*parts.asked, *opener.sheet.sources], [parts.message, parts.sweep], **pressed(NAME)).then(**relist).then(**steps)
    on.click(gone_on, parts.sweep, parts.message, **pressed(NAME)).then(**steps)
    pause.click(lambda sweep: note_html("" if queue.pause(sweep) else strings.NOTHING_RUNS), parts.sweep, parts.message, **pressed(NAME))
    stop.click(lambda sweep: note_html("" if queue.stop(sweep) else strings.NOTHING_RUNS), parts.sweep, parts.message, **pressed(NAME))
    parts.chosen.input(lambda sweep: sweep or "", parts.chosen, parts.sweep, **changed(NAME)).then(**steps)
    # What came while the tab was not drawn yet, as after a reload, can be lost by its buttons: opening it shows the sweep again.
    place.select(**relist).then(**steps)
    blocks.load(**relist).then(**steps)


def _wire_ends(app: App, opener: Opener, parts: Parts) -> None:
    """Explore its runs; delete it."""

    def explored(sweep: str) -> list[Any]:
        try:
            found = picks(app.sweeps.look(sweep))
        except Problem as problem:
            return [note_html(problem.message), gr.skip(), gr.skip()]
        if not FEWEST <= len(found) <= MOST:
            return [note_html(strings.SWEEP_PICKS.format(len(found))), gr.skip(), gr.skip()]
        return ["", found, gr.Tabs(selected=EXPLORE)]

    def deleted(sweep: str, pressed: str) -> list[Any]:
        kept = [gr.skip() for _ in parts.shown()]
        if pressed != strings.SWEEP_DELETE_SURE:
            return ["", gr.skip(), *kept[:-1], gr.update(value=strings.SWEEP_DELETE_SURE), gr.skip()]
        try:
            app.sweeps.delete(sweep)
        except Problem as problem:
            return [note_html(problem.message), gr.skip(), *kept, gr.skip()]
        return [note_html("The sweep and its runs are deleted."), "", *nothing(), gr.update(choices=choices(app), value=None)]

    parts.explore.click(explored, parts.sweep, [parts.message, opener.picked, opener.tabs], **pressed(NAME))
    parts.delete.click(deleted, [parts.sweep, parts.delete], [parts.message, parts.sweep, *parts.shown(), parts.chosen], **pressed(NAME))


def _preset(name: str) -> SweepPreset:
    return next(preset for preset in sweeps() if preset.name == name)


def wanted(app: App, asked: Sequence[Any], draft: Draft) -> tuple[SweepSpec, str]:
    """The plan that the form means, and in a sentence why it is not on the page's engine, "" where it is; raises Problem where something is
    wrong with it."""
    name, source, first, first_values, second, second_values, quick = asked
    pairs = [(str(first or ""), str(first_values or "")), (str(second or ""), str(second_values or ""))]
    if source == PRESET and name:
        preset = _preset(str(name))
        specs, why, _ = keeping_place(preset.plan.specs, draft, app.world, "", preset.names_engine)
        plan = plan_of(app, specs, "", pairs)
        same = plan.axes == preset.plan.axes  # else it asks another question
        return (replace(plan, title=preset.plan.title) if same else plan), why
    specs, label = specs_of(draft, app.world), ""
    if source != ALL:
        there = sources(len(specs))
        if source not in there:
            raise Problem("user", f"Compare has no {str(source).removesuffix(' in Compare')} any more: choose another source.")
        spec = specs[there.index(source)]
        specs, label = [spec.replace(label="")], "" if source == BASELINE else f" · {spec.label}"
    if quick:
        specs = [spec.replace(protocol=PROTOCOL) for spec in specs]
    plan = plan_of(app, specs, "", pairs)
    return replace(plan, title=plan.title + label), ""


async def watch(app: App, sweep: str, page: str) -> AsyncIterator[list[Any]]:
    """Values of the components that show a sweep: at once, then while it goes on and something changes. Ends as well when the page is
    left, or when the same page starts another watch."""
    before: Any = None
    charted: Any = None
    newest = app.newest(page)
    while sweep and newest():
        try:
            stored = await asyncio.to_thread(app.sweeps.look, sweep)
        except Problem:
            yield nothing()
            return
        status = app.sweeps.status(stored)
        key = (status, stored.left_s, app.sweeps.ahead(sweep), tuple((cell.status, cell.experiment) for cell in stored.cells))
        if key != before:
            drawn = tuple(cell.status for cell in stored.cells if cell.result)
            chart_value = await asyncio.to_thread(charts_json, app, stored) if drawn != charted else gr.skip()
            if not newest():  # another sweep is shown meanwhile
                return
            yield _values(
                sweep_html(stored, status, key[2], app.sweeps.fault(sweep)), chart_value, status, bool(stored.missing), len(picks(stored))
            )
            before, charted = key, drawn
        if status not in GOING:
            return
        await asyncio.sleep(UPDATE_S * 2)


def _values(html: str, charts: Any, status: str, missing: bool, done: int) -> list[Any]:
    going, own = status in GOING, status != RECORDED
    visible = (status in ("waiting", "running"), going, own and not going and missing, done >= FEWEST)
    delete = gr.update(visible=own and not going, value=strings.SWEEP_DELETE)
    return [html, charts, *(gr.update(visible=each) for each in visible), delete]


def nothing() -> list[Any]:
    """What is shown where there is no sweep."""
    return [f'<p class="quiet">{escape(strings.SWEEP_EMPTY)}</p>', "", *(gr.update(visible=False) for _ in range(5))]


TAB = Tab(NAME, "Sweep", 15, build)
