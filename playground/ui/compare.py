"""The tab "Compare": set up variants, run them, read why they differ. Its sections put together and wired to the handlers.

Example::

    with gr.Blocks() as blocks: compare = build_compare(app, blocks)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from playground import presets
from playground.core.places import ASSETS
from playground.core.spec import RunSpec
from playground.core.usual import usual_engine
from playground.models.catalogue import catalogue
from playground.ui import strings
from playground.ui.controls import build_setup
from playground.ui.events import pressed
from playground.ui.fields import NOWHERE, Form, form_of, updates
from playground.ui.form import Draft
from playground.ui.handlers import App, known_models
from playground.ui.results import Board, Shown, build_board, status_html
from playground.ui.text import escape
from playground.ui.variants import START_COUNT, build_variants, explanations_html
from playground.ui.wiring import QUEUE, Sheet, kept_note, recordings, wire

NAME = "compare"


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
    share: gr.HTML


@dataclass(frozen=True)
class Opener:
    """How tabs bring something to each other. `picked`: runs ("EXPERIMENT:INDEX") to be explored; `show`: what shows, after an event, the
    run of `page.job`."""

    page: Page
    tabs: gr.Tabs
    sheet: Sheet
    picked: gr.State
    show: Callable[[Any], None]

    def form(self, app: App, trigger: Callable[..., Any], specs_of: Callable[..., Sequence[RunSpec]], inputs: Sequence[Any]) -> None:
        """On `trigger`, fill the form with the specs that `specs_of` gives for the values of `inputs`."""
        outputs = self.page.form.outputs()

        def filled(*values: Any) -> list[Any]:
            return [gr.Tabs(selected=NAME), *updates(outputs, form_of(specs_of(*values), app.world)[1])]

        self.sheet.estimate_after(trigger(filled, list(inputs), [self.tabs, *outputs.values()], **pressed(QUEUE)))


def build_compare(app: App, blocks: gr.Blocks, tabs: gr.Tabs) -> Opener:
    """The tab's components and the bar at its foot, wired; gives what other tabs need to bring something here."""
    page = _layout(app)
    sheet = Sheet(app, page)
    return Opener(page, tabs, sheet, gr.State(()), wire(sheet, blocks))


def _layout(app: App) -> Page:
    experiments, played, about = _presets()
    with gr.Row(elem_classes="shell", equal_height=False):
        with gr.Column(elem_classes="side", scale=0, min_width=320):
            setup = build_setup(catalogue(), app.world.engines, app.world.machine, presets.workloads())
        with gr.Column(elem_classes="main", scale=1, min_width=320):
            with gr.Row(elem_classes="section-head"):
                gr.HTML("<h2>Variants</h2>", apply_default_css=False)
                count, place = gr.State(START_COUNT), gr.State(NOWHERE)
                own = gr.State(usual_engine(app.world.engines, app.world.machine))
                filled, here = gr.State(""), gr.Textbox("", visible=False)
                remove = gr.Button("Remove B", size="sm", elem_id="remove-variant", visible=False, scale=0, min_width=100)
                add = gr.Button("Add a variant", size="sm", elem_id="add-variant", scale=0, min_width=120)
            columns = build_variants(app.world.techniques, catalogue(), app.world.engines, app.world.machine)
            script = (ASSETS / "share.js").read_text(encoding="utf-8")
            share = gr.HTML("", js_on_load=script, apply_default_css=False, elem_id="share")
            with gr.Accordion("What these settings do, when they help and what they cost", open=False):
                gr.HTML(explanations_html(app.world.techniques), apply_default_css=False)
            status_place = gr.HTML(status_html(Shown()), render=False, apply_default_css=False, elem_id="status")
            board = build_board(status_place)
            kept = gr.HTML(**kept_note(app), apply_default_css=False, elem_id="kept")
    bar = _bar(status_place)
    job = gr.BrowserState("", storage_key="inference-playground-run", secret="inference-playground")
    mine = gr.BrowserState([], storage_key="inference-playground-mine", secret="inference-playground")
    known = gr.State(known_models(app, Draft()))
    form = Form(setup, columns, count, place, own, filled, here, add, remove)
    return Page(form, known, board, bar, job, mine, experiments, played, about, kept, share)


def _presets() -> tuple[gr.Radio, gr.Dropdown, gr.HTML]:
    with gr.Column(elem_classes="presets"):
        choices = [(preset.title, preset.name) for preset in presets.experiments()]
        experiments = gr.Radio(choices, value=None, label="Experiments", elem_id="experiments", elem_classes="chips")
        played = gr.Dropdown(
            recordings(),
            value=None,
            label="Recorded on other machines",
            info=strings.RECORDINGS_INFO,
            elem_id="recordings",
            interactive=True,
        )
        about = gr.HTML(f'<p class="about">{escape(strings.EXPERIMENT_HINT)}</p>', apply_default_css=False, elem_id="about")
    return experiments, played, about


def _bar(status: gr.HTML) -> Bar:
    with gr.Column(elem_classes="bar-foot", elem_id="run-bar"):
        message = gr.HTML("", apply_default_css=False, elem_id="message")
        with gr.Row(elem_classes="bar-row", equal_height=True):
            run = gr.Button("Run", variant="primary", elem_id="run", scale=0, min_width=110)
            stop = gr.Button("Stop", elem_id="stop", scale=0, min_width=90)
            status.render()
    return Bar(message, status, run, stop)
