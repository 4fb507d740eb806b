"""The tab "Make": train an adapter, or whatever `run.recipes` offers, on a text; watch it; compare the result with what it came from.

The work is a job of the same queue as all runs: leaving or reloading the page does not stop it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from playground.core.knobs import Knob, Range
from playground.core.problem import Problem
from playground.models.catalogue import catalogue
from playground.models.made import forget, made_here
from playground.run.recipes import Recipe, recipes
from playground.ui import strings
from playground.ui.compare import Opener
from playground.ui.controls import device_control, knob_control, model_choices, model_control
from playground.ui.events import WATCH, changed, offered, pressed
from playground.ui.handlers import App, message_html
from playground.ui.make_handlers import Wanted, compared, facts_of, recipe_for, recipe_of, submit, watch
from playground.ui.making import MakingView, loss_json, made_html, progress_html
from playground.ui.tabs import Tab
from playground.ui.text import escape, note_html
from playground.ui.theme import chart

NAME = "make"
OURS, OWN = "a text of ours", "your text"


@dataclass(frozen=True)
class Fields:
    """What is asked for. `knobs`: by recipe and knob; `boxes`: the part of the form that belongs to each recipe."""

    recipe: gr.Radio
    name: gr.Textbox
    model: gr.Dropdown
    source: gr.Radio
    text: gr.Textbox
    device: gr.Radio
    boxes: Mapping[str, gr.Column]
    knobs: Mapping[tuple[str, str], gr.components.Component]

    def inputs(self) -> list[gr.components.Component]:
        """All of them."""
        return [self.recipe, self.name, self.model, self.source, self.text, self.device, *self.knobs.values()]

    def wanted(self, values: Sequence[Any]) -> Wanted:
        """What the values of `inputs` say."""
        recipe, name, model, source, text, device = values[:6]
        knobs = {knob: value for (owner, knob), value in zip(self.knobs, values[6:], strict=True) if owner == recipe}
        return Wanted(str(recipe), name or "", model or "", (text or "") if source == OWN else None, device, knobs)


@dataclass(frozen=True)
class Shown:
    """What a job looks like: progress, loss curve, what was reached, and the button that compares it."""

    progress: gr.HTML
    losses: gr.HTML
    reached: gr.HTML
    compare: gr.Button

    def outputs(self) -> list[gr.components.Component]:
        """All of them, in the order of `values_of`."""
        return [self.progress, self.losses, self.reached, self.compare]


@dataclass(frozen=True)
class Shelf:
    """What was made on this machine."""

    chosen: gr.Dropdown
    about: gr.HTML
    compare: gr.Button
    delete: gr.Button


def build(app: App, blocks: gr.Blocks, place: gr.Tab, opener: Opener) -> list[gr.components.Component]:
    """The tab's components, wired; gives the browser's memory of its job."""
    gr.HTML(f'<p class="about intro">{escape(strings.MAKE_INTRO)}</p>', apply_default_css=False)
    with gr.Row(elem_classes="shell", equal_height=False):
        with gr.Column(elem_classes="side", scale=0, min_width=320):
            fields = _fields(app)
        with gr.Column(elem_classes="main", scale=1, min_width=320):
            gr.HTML("<h2>Progress</h2>", apply_default_css=False)
            progress = gr.HTML(f'<p class="quiet">{escape(strings.MAKE_READY)}</p>', apply_default_css=False, elem_id="make-progress")
            losses = chart("make-losses", "Loss")
            reached = gr.HTML("", apply_default_css=False, elem_id="make-reached")
            compare = gr.Button("Compare it", elem_id="make-compare", size="sm", visible=False, scale=0)
            shown = Shown(progress, losses, reached, compare)
            shelf = _shelf()
    with gr.Column(elem_classes="bar-foot", elem_id="make-bar"):
        message = gr.HTML("", apply_default_css=False, elem_id="make-message")
        with gr.Row(elem_classes="bar-row", equal_height=True):
            make = gr.Button("Make", variant="primary", elem_id="make", scale=0, min_width=110)
            stop = gr.Button("Stop", elem_id="make-stop", scale=0, min_width=90)
    job = gr.BrowserState("", storage_key="inference-playground-making", secret="inference-playground", render=False)
    _wire_form(fields)
    models = [opener.page.form.setup.fields["model"], *(column.settings["model"] for column in opener.page.form.columns[1:]), fields.model]
    _wire_job(app, blocks, fields, shown, message, (make, stop), job, shelf, models)
    _wire_shelf(app, place, opener, shown, shelf, job)
    return [job]


def _fields(app: App) -> Fields:
    known = recipes()
    first = next(iter(known.values()))
    gr.HTML("<h2>What to make</h2>", apply_default_css=False)
    choices = [(recipe.title, recipe.name) for recipe in known.values()]
    recipe = gr.Radio(choices, value=first.name, label="What to make", elem_id="make-recipe", show_label=False, elem_classes="chips")
    name = gr.Textbox("", label="Name", info=strings.MAKE_NAME_INFO, elem_id="make-name", max_lines=1, placeholder="mine")
    model = model_control(catalogue(), "make-model")
    source = gr.Radio([OURS, OWN], value=OURS, label="Text to learn from", info=strings.MAKE_TEXT_INFO, elem_id="make-source")
    text = gr.Textbox("", label="Your text", lines=8, max_lines=16, visible=False, elem_id="make-text")
    boxes, knobs = {}, {}
    for one in known.values():
        with gr.Column(visible=one is first, elem_id=f"make-{one.name}") as boxes[one.name]:
            gr.HTML(f'<p class="quiet">{escape(one.about[:1].upper() + one.about[1:])}.</p>', apply_default_css=False)
            for knob in one.knobs:
                knobs[one.name, knob.name] = _control(knob, f"make-{one.name}-{knob.name}")
    with gr.Accordion("Device", open=False):
        device = device_control(app.world.machine, "make-device")
    return Fields(recipe, name, model, source, text, device, boxes, knobs)


def _control(knob: Knob, elem_id: str) -> gr.components.Component:
    """Numbers of a training span decades, so they are typed, not slid."""
    if isinstance(knob, Range):
        return gr.Number(knob.default, label=knob.label, info=knob.help, elem_id=elem_id, step=knob.step)
    return knob_control(knob, elem_id)


def _shelf() -> Shelf:
    gr.HTML("<h2>Made on this machine</h2>", apply_default_css=False)
    chosen = gr.Dropdown([], value=None, label="Made here", info=strings.MADE_INFO, elem_id="made", interactive=True)
    about = gr.HTML("", apply_default_css=False, elem_id="made-about")
    with gr.Row(elem_classes="bar-row"):
        compare = gr.Button("Compare it", elem_id="made-compare", size="sm", scale=0, visible=False)
        delete = gr.Button("Delete it", elem_id="made-delete", size="sm", scale=0, visible=False)
    return Shelf(chosen, about, compare, delete)


def _wire_form(fields: Fields) -> None:
    def chosen(recipe: str) -> list[Any]:
        return [gr.update(visible=name == recipe) for name in fields.boxes]

    fields.recipe.input(chosen, fields.recipe, list(fields.boxes.values()), **changed(NAME))
    fields.source.input(lambda source: gr.update(visible=source == OWN), fields.source, fields.text, **changed(NAME))


def _wire_job(
    app: App, blocks: gr.Blocks, fields: Fields, shown: Shown, message: gr.HTML, buttons: tuple[gr.Button, gr.Button], job: gr.BrowserState,
    shelf: Shelf, models: Sequence[gr.components.Component],
) -> None:  # fmt: skip
    """Make, Stop, the watch that shows the job, and finding it again after a reload; what was made can then be chosen in `models`."""

    def submitted(before: str, *values: Any) -> list[Any]:
        try:
            return ["", submit(app, fields.wanted(values), before).id]
        except Problem as problem:
            return [message_html(problem), gr.skip()]

    async def watched(job_id: str, request: gr.Request) -> AsyncIterator[list[Any]]:
        before: MakingView | None = None
        async for view in watch(app, job_id, f"{request.session_hash}/make"):
            yield values_of(view, before, recipe_of(app, job_id))
            before = view
        yield [gr.skip() for _ in shown.outputs()]

    def stopped(job_id: str) -> str:
        found = app.jobs.get(job_id) if job_id else None
        if found is None or found.done.is_set():
            return note_html(strings.NOTHING_RUNS)
        found.cancel()
        return ""

    make, stop = buttons
    steps: dict[str, Any] = {"fn": watched, "inputs": job, "outputs": shown.outputs(), **WATCH}
    started = make.click(submitted, [job, *fields.inputs()], [message, job], **pressed(NAME))

    def renewed(kept: str | None) -> list[Any]:
        choices = model_choices(catalogue())
        return [_listed(kept), *(gr.update(choices=choices) for _ in models)]

    started.then(**steps).then(renewed, shelf.chosen, [shelf.chosen, *models], **pressed(NAME))
    stop.click(stopped, job, message, **pressed(NAME))
    blocks.load(**steps)


def _wire_shelf(app: App, place: gr.Tab, opener: Opener, shown: Shown, shelf: Shelf, job: gr.BrowserState) -> None:
    def about(name: str | None) -> list[Any]:
        facts = made_here().get(name or "")
        recipe = recipe_for(facts) if facts else None
        html = made_html(facts, recipe) if facts and recipe else ""
        return [html, gr.update(visible=bool(html)), gr.update(visible=bool(facts))]

    def deleted(name: str | None) -> list[Any]:
        try:
            forget(name or "")
        except (Problem, OSError) as error:
            return [note_html(str(error)), gr.skip(), gr.skip(), gr.skip()]
        return [note_html(f"{name} is deleted."), gr.update(visible=False), gr.update(visible=False), _listed(name)]

    outputs = [shelf.about, shelf.compare, shelf.delete]
    place.select(_listed, shelf.chosen, shelf.chosen, **changed(NAME))
    shelf.chosen.input(about, shelf.chosen, outputs, **changed(NAME))
    shelf.delete.click(deleted, shelf.chosen, [*outputs, shelf.chosen], **pressed(NAME))
    opener.form(app, shelf.compare.click, lambda name: compared(made_here()[name]), [shelf.chosen])
    opener.form(app, shown.compare.click, lambda job_id: compared(facts_of(app, job_id)), [job])


def _listed(kept: str | None) -> Any:
    """What can be chosen; `kept`: what is, as long as it is there."""
    names = list(made_here())
    return offered(names, kept if kept in names else None, kept, info=strings.MADE_INFO if names else strings.NOTHING_MADE)


def values_of(view: MakingView, before: MakingView | None, recipe: Recipe | None) -> list[Any]:
    """What each component shows; the result when it is there."""
    progress = progress_html(view) if view.status else f'<p class="quiet">{escape(strings.MAKE_READY)}</p>'
    ended = before is None or view.over or view.made != before.made
    reached = made_html(view.made.facts, recipe) if view.made and recipe else ""
    button = gr.update(visible=view.made is not None) if ended else gr.skip()
    return [progress, loss_json(view), reached if ended else gr.skip(), button]


TAB = Tab(NAME, "Make", 10, build)
