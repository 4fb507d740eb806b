"""The left side of the page: model, memory estimate, workload, protocol; and one control for any knob.

Builders return named components. Controls take their label, help and options from the knob, never from a list here. Example::

    with gr.Blocks(): setup = build_setup(machine_engines, entries, presets)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from playground.core.engine import Engine
from playground.core.knobs import Choice, Knob, Text, Toggle
from playground.core.machine import Machine
from playground.core.spec import EVALUATIONS, PROTOCOLS
from playground.core.usual import usual_engine
from playground.models.catalogue import Entry
from playground.presets import WorkloadPreset
from playground.ui import strings
from playground.ui.availability import DEVICES, ControlState, device_state, engine_state
from playground.ui.form import CUSTOM, Draft, protocol_name

CROSS = " ✕"


@dataclass(frozen=True)
class Setup:
    """The components of the left side. `fields`: by the name of the draft's field; the others are no part of a draft."""

    fields: dict[str, gr.components.Component]
    engine_note: gr.HTML
    estimate: gr.HTML
    remeasure: gr.Button
    workload_preset: gr.Dropdown
    protocol: gr.Radio


def option_labels(options: Sequence[str], state: ControlState) -> list[tuple[str, str]]:
    """(label, value) of each option; what cannot be chosen ends with a cross, which the style sheet makes inert."""
    return [(option + CROSS if option in state.options else option, option) for option in options]


def knob_control(knob: Knob, elem_id: str, visible: bool = True) -> gr.components.Component:
    """Radio, checkbox, text or slider for one knob, with its help beneath the label."""
    common: dict[str, Any] = {"label": knob.label, "info": knob.help, "elem_id": elem_id, "visible": visible, "interactive": True}
    if isinstance(knob, Choice):
        return gr.Radio(choices=[(option, option) for option in knob.options], value=knob.default, **common)
    if isinstance(knob, Toggle):
        return gr.Checkbox(value=knob.default, **common)
    if isinstance(knob, Text):
        return gr.Textbox(value=knob.default, max_lines=1, **common)
    label = f"{knob.label} ({knob.unit})" if knob.unit else knob.label
    return gr.Slider(knob.minimum, knob.maximum, value=knob.default, step=knob.step, **{**common, "label": label})


def knob_props(knob: Knob, state: ControlState) -> dict[str, Any]:
    """What of a knob's control changes with its state: whether it is live, its options, and the reasons beneath the help."""
    note = state.note()
    props: dict[str, Any] = {"interactive": state.enabled, "info": f"{knob.help}\n**{note}**" if note else knob.help}
    if isinstance(knob, Choice):
        props["choices"] = option_labels(knob.options, state)
    return props


def model_choices(entries: Sequence[Entry]) -> list[tuple[str, str]]:
    """(title, name) of each model."""
    return [(entry.title, entry.name) for entry in entries]


def model_control(entries: Sequence[Entry], elem_id: str, visible: bool = True) -> gr.Dropdown:
    """Models of the catalogue; anything else can be typed."""
    return gr.Dropdown(
        model_choices(entries),
        value=Draft().model,
        label="Model",
        info=strings.MODEL_INFO,
        allow_custom_value=True,
        elem_id=elem_id,
        visible=visible,
    )


def engine_control(engines: Mapping[str, type[Engine]], machine: Machine, elem_id: str, visible: bool = True) -> gr.Radio:
    """Engines by title, the machine's usual one chosen; those that cannot run here are crossed out, with the reason."""
    state, usual = engine_state(engines, machine, "auto"), usual_engine(engines, machine)
    return gr.Radio(
        engine_choices(engines, state), value=usual, label="Engine", info=engine_info(engines, usual, state),
        elem_id=elem_id, visible=visible,
    )  # fmt: skip


def engine_choices(engines: Mapping[str, type[Engine]], state: ControlState) -> list[tuple[str, str]]:
    """(title, name) of each engine."""
    return [(engine.title + (CROSS if name in state.options else ""), name) for name, engine in engines.items()]


def engine_info(engines: Mapping[str, type[Engine]], chosen: str, state: ControlState) -> str:
    """What the chosen engine is, and which ones cannot run here."""
    about = engines[chosen].about if chosen in engines else ""
    return f"{about}\n**{state.note()}**" if state.note() else about


def device_control(machine: Machine, elem_id: str, visible: bool = True) -> gr.Radio:
    """auto, cpu or cuda."""
    state = device_state(machine)
    note = f"\n**{state.note()}**" if state.note() else ""
    info = f"auto is {machine.device} here.{note}"
    return gr.Radio(option_labels(DEVICES, state), value="auto", label="Device", info=info, elem_id=elem_id, visible=visible)


def build_setup(
    entries: Sequence[Entry], engines: Mapping[str, type[Engine]], machine: Machine, workloads: Sequence[WorkloadPreset]
) -> Setup:
    """Model, estimate, workload and protocol, one below the other."""
    fields: dict[str, gr.components.Component] = {}
    gr.HTML("<h2>Model</h2>", apply_default_css=False)
    fields["model"] = model_control(entries, "model")
    engine_note = gr.HTML(elem_id="engine-note", apply_default_css=False)
    estimate = gr.HTML(elem_id="estimate", apply_default_css=False)
    remeasure = gr.Button("Measure this machine again", size="sm", elem_id="remeasure", elem_classes="link")
    with gr.Accordion("Engine and device", open=False, elem_id="engine-section"):
        fields["engine"] = engine_control(engines, machine, "engine")
        fields["device"] = device_control(machine, "device")
    gr.HTML("<h2>Workload</h2>", apply_default_css=False)
    preset = gr.Dropdown(
        [(preset.title, preset.name) for preset in workloads], value=None, label="Workload preset", elem_id="workload-preset",
        info="Fills in prompts and length.",
    )  # fmt: skip
    fields |= _workload_fields()
    gr.HTML("<h2>Protocol</h2>", apply_default_css=False)
    protocol = gr.Radio(
        [*PROTOCOLS, CUSTOM], value=protocol_name(Draft()), label="How carefully to measure", info=strings.PROTOCOL_INFO,
        elem_id="protocol",
    )  # fmt: skip
    fields |= _protocol_fields()
    return Setup(fields, engine_note, estimate, remeasure, preset, protocol)


def _workload_fields() -> dict[str, gr.components.Component]:
    draft = Draft()
    fields: dict[str, gr.components.Component] = {
        "prompts": gr.Textbox(draft.prompts, label="Prompts", info=strings.PROMPTS_INFO, lines=4, max_lines=12, elem_id="prompts")
    }
    with gr.Row(elem_classes="pair"):
        fields["max_new_tokens"] = gr.Number(draft.max_new_tokens, label="Output length (tokens)", elem_id="max-new-tokens", min_width=120)
        fields["temperature"] = gr.Number(draft.temperature, label="Temperature", elem_id="temperature", step=0.1, min_width=120)
    with gr.Accordion("Sampling, end of text, chat template, exact length", open=False, elem_id="sampling-section"):
        fields["prompt_tokens"] = gr.Number(
            draft.prompt_tokens, label="Prompt length (tokens)", info=strings.PROMPT_TOKENS_INFO, elem_id="prompt-tokens"
        )
        fields["top_k"] = gr.Number(draft.top_k, label="Top k", info=strings.TOP_K_INFO, elem_id="top-k", interactive=True)
        fields["top_p"] = gr.Number(draft.top_p, label="Top p", info=strings.TOP_P_INFO, elem_id="top-p", step=0.05, interactive=True)
        fields["seed"] = gr.Number(draft.seed, label="Seed", info="Used where the temperature is not 0.", elem_id="seed")
        fields["ignore_eos"] = gr.Checkbox(draft.ignore_eos, label="Ignore end of text", info=strings.IGNORE_EOS_INFO, elem_id="ignore-eos")
        fields["chat"] = gr.Checkbox(draft.chat, label="Chat template", info=strings.CHAT_INFO, elem_id="chat")
    return fields


def _protocol_fields() -> dict[str, gr.components.Component]:
    """Quality in sight, everything that a protocol's name stands for in a closed section."""
    draft = Draft()
    quality = gr.Checkbox(draft.quality, label="Score output quality", info=strings.QUALITY_INFO, elem_id="quality")
    fields: dict[str, gr.components.Component] = {"quality": quality}
    with gr.Accordion("Protocol details", open=False, elem_id="protocol-details"):
        with gr.Row(elem_classes="pair"):
            fields["warmups"] = gr.Number(draft.warmups, label="Warm-ups", info=strings.WARMUPS_INFO, elem_id="warmups", min_width=120)
            fields["repeats"] = gr.Number(draft.repeats, label="Repeats", info=strings.REPEATS_INFO, elem_id="repeats", min_width=120)
        fields["rounds"] = gr.Number(draft.rounds, label="Rounds", info=strings.ROUNDS_INFO, elem_id="rounds")
        fields["evaluation"] = gr.Radio(
            list(EVALUATIONS), value=draft.evaluation, label="Evaluation", info=strings.EVALUATION_INFO, elem_id="evaluation"
        )
        fields["energy"] = gr.Checkbox(draft.energy, label="Measure energy", info=strings.ENERGY_INFO, elem_id="energy")
        fields["profile"] = gr.Checkbox(draft.profile, label="Profile one step", info=strings.PROFILE_INFO, elem_id="profile")
        fields["price_per_hour"] = gr.Number(
            draft.price_per_hour, label="Price per hour ($)", info=strings.PRICE_INFO, elem_id="price-per-hour", step=0.01
        )
        with gr.Accordion("A text of your own", open=False, elem_id="evaluation-text-section"):
            fields["evaluation_text"] = gr.Textbox(
                draft.evaluation_text, label="Evaluation text", info=strings.EVALUATION_TEXT_INFO, lines=4, max_lines=12,
                elem_id="evaluation-text",
            )  # fmt: skip
    return fields
