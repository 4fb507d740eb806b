"""The columns in which variants are set up: the baseline with every knob, the others only with what differs.

In the baseline the knobs of common techniques stand open, those of all others are folded by group.

Example::

    columns = build_variants(techniques(), entries, engines(), machine)
    columns[1].settings["precision"]        # the control of variant B
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import gradio as gr

from playground.core.engine import Engine
from playground.core.knobs import Knob
from playground.core.machine import Machine
from playground.core.plan import Techniques, knob_index, ordered
from playground.models.catalogue import Entry
from playground.ui import strings
from playground.ui.controls import device_control, engine_control, knob_control, model_control
from playground.ui.form import LETTERS, setting_labels
from playground.ui.text import escape

START_COUNT = 2


@dataclass(frozen=True)
class VariantColumn:
    """One column. `differs` is None for the baseline, whose `settings` are the knobs alone; the others also have model, engine, device."""

    box: gr.Column
    summary: gr.HTML
    settings: dict[str, gr.components.Component]
    differs: gr.Dropdown | None = None


def build_variants(
    techniques: Techniques, entries: Sequence[Entry], engines: Mapping[str, type[Engine]], machine: Machine
) -> list[VariantColumn]:
    """All four columns in one row; those beyond the first two start hidden."""
    with gr.Row(elem_classes="setups", equal_height=False):
        columns = [_baseline(techniques)]
        columns += [_variant(index, techniques, entries, engines, machine) for index in range(1, len(LETTERS))]
    return columns


def _heading(index: int) -> str:
    return f'<h3 class="v{index}"><i class="swatch"></i>{LETTERS[index]}</h3>'


def _baseline(techniques: Techniques) -> VariantColumn:
    settings: dict[str, gr.components.Component] = {}
    index = knob_index(techniques)
    with gr.Column(elem_id="setup-0", elem_classes="setup", min_width=200) as box:
        gr.HTML(_heading(0), apply_default_css=False)
        summary = gr.HTML(f'<p class="quiet">{strings.BASELINE_INFO}</p>', apply_default_css=False, elem_id="summary-0")
        settings |= _controls([knob for technique, knob in index.values() if technique.common and not knob.advanced])
        for group in dict.fromkeys(technique.group for technique in ordered(techniques) if not technique.common):
            with gr.Accordion(group, open=False, elem_id=f"group-0-{group.lower()}"):
                settings |= _controls([knob for technique, knob in index.values() if technique.group == group and not technique.common])
        with gr.Accordion("Advanced", open=False, elem_id="advanced-0"):
            settings |= _controls([knob for technique, knob in index.values() if technique.common and knob.advanced])
    return VariantColumn(box, summary, {name: settings[name] for name in index})


def _controls(knobs: Sequence[Knob]) -> dict[str, gr.components.Component]:
    return {knob.name: knob_control(knob, f"knob-0-{knob.name}") for knob in knobs}


def _variant(
    index: int, techniques: Techniques, entries: Sequence[Entry], engines: Mapping[str, type[Engine]], machine: Machine
) -> VariantColumn:
    labels = setting_labels(techniques)
    with gr.Column(elem_id=f"setup-{index}", elem_classes="setup", min_width=200, visible=index < START_COUNT) as box:
        gr.HTML(_heading(index), apply_default_css=False)
        summary = gr.HTML(apply_default_css=False, elem_id=f"summary-{index}")
        differs = gr.Dropdown(
            [(label, name) for name, label in labels.items()], value=[], multiselect=True, label="Differs in", info=strings.DIFFERS_INFO,
            elem_id=f"differs-{index}",
            elem_classes="tags",
        )  # fmt: skip
        settings: dict[str, gr.components.Component] = {
            name: knob_control(knob, f"knob-{index}-{name}", visible=False) for name, (_, knob) in knob_index(techniques).items()
        }
        settings["model"] = model_control(entries, f"knob-{index}-model", visible=False)
        settings["engine"] = engine_control(engines, machine, f"knob-{index}-engine", visible=False)
        settings["device"] = device_control(machine, f"knob-{index}-device", visible=False)
    return VariantColumn(box, summary, settings, differs)


def explanations_html(techniques: Techniques) -> str:
    """What each technique does, when it helps and what it costs, in the techniques' own words."""
    cards = "".join(
        f"<section><h4>{escape(t.title)} <small>{escape(t.group)}</small></h4><dl>"
        f"<dt>What it does</dt><dd>{escape(t.explain.what)}</dd><dt>When it helps</dt><dd>{escape(t.explain.helps)}</dd>"
        f"<dt>What it costs</dt><dd>{escape(t.explain.costs)}</dd></dl></section>"
        for t in ordered(techniques)
    )
    return f'<div class="explanations">{cards}</div>'
