"""Between the components of the form and plain data: which component holds which field of a `Draft`, reading it, filling it, refreshing it.

Keys name components: a draft's field ("prompts"), a baseline knob ("0.precision"), another column's setting ("2.differs", "2.engine"), and
what is shown only ("2.box", "2.summary", "protocol", "add", "remove"). Example::

    draft = read(dict(zip(form.inputs(), values)))
    updates(form.outputs(), refresh(draft, world))
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import gradio as gr

from playground.core.engine import Engine
from playground.core.machine import Machine
from playground.core.plan import Techniques, knob_index
from playground.core.spec import DEFAULT_MODEL
from playground.engines.replay import ReplayEngine
from playground.ui.availability import device_state, engine_state, full_knobs, knob_state
from playground.ui.controls import Setup, engine_choices, engine_info, knob_props
from playground.ui.form import LETTERS, Draft, changed_in_words, protocol_name, relevant
from playground.ui.text import escape
from playground.ui.variants import VariantColumn

Props = dict[str, dict[str, Any]]
SETUP_FIELDS = tuple(f.name for f in fields(Draft) if f.name not in ("knobs", "variants"))


@dataclass(frozen=True)
class World:
    """What can be chosen from on this machine."""

    techniques: Techniques
    engines: Mapping[str, type[Engine]]
    machine: Machine


@dataclass(frozen=True)
class Form:
    """Every component of the form."""

    setup: Setup
    columns: Sequence[VariantColumn]
    count: gr.State
    add: gr.Button
    remove: gr.Button

    def inputs(self) -> dict[str, gr.components.Component]:
        """What holds values, by key."""
        found: dict[str, gr.components.Component] = {**self.setup.fields, "count": self.count}
        for index, column in enumerate(self.columns):
            found |= {f"{index}.{name}": component for name, component in column.settings.items()}
            if column.differs is not None:
                found[f"{index}.differs"] = column.differs
        return found

    def outputs(self) -> dict[str, Any]:
        """What an update may change, by key."""
        shown: dict[str, Any] = {f"{i}.box": column.box for i, column in enumerate(self.columns) if i}
        shown |= {f"{i}.summary": column.summary for i, column in enumerate(self.columns) if i}
        return {**self.inputs(), **shown, "protocol": self.setup.protocol, "add": self.add, "remove": self.remove}


def read(values: Mapping[str, Any]) -> Draft:
    """The draft that the form's values mean."""
    variants = []
    for index in range(1, int(values["count"])):
        chosen = values.get(f"{index}.differs") or []
        variants.append({name: values[f"{index}.{name}"] for name in chosen})
    knobs = {key.removeprefix("0."): value for key, value in values.items() if key.startswith("0.")}
    given = {name: values[name] for name in SETUP_FIELDS}
    texts = {name: given[name] or "" for name in ("model", "prompts", "evaluation_text")}
    return Draft(**{**given, **texts}, knobs=knobs, variants=tuple(variants))


def fill(draft: Draft, techniques: Techniques) -> Props:
    """Values of every component, for a draft from a preset or from a run."""
    props: Props = {name: {"value": getattr(draft, name)} for name in SETUP_FIELDS}
    props["count"] = {"value": 1 + len(draft.variants)}
    knobs = full_knobs(draft.knobs, techniques)
    props |= {f"0.{name}": {"value": value} for name, value in knobs.items()}
    for index, changes in enumerate(draft.variants, 1):
        props[f"{index}.differs"] = {"value": list(changes)}
        inherited = {**knobs, "model": draft.model, "engine": draft.engine, "device": draft.device}
        props |= {f"{index}.{name}": {"value": changes.get(name, value)} for name, value in inherited.items()}
    return props


def refresh(draft: Draft, world: World) -> Props:
    """What a change makes of every control: live or not, with which options, and the reason beside it."""
    count = 1 + len(draft.variants)
    props: Props = {"add": {"visible": count < len(LETTERS)}, "remove": {"visible": count > 2, "value": f"Remove {LETTERS[count - 1]}"}}
    props["engine"] = _engine_props(draft.engine, world, draft.device)
    props["protocol"] = {"value": protocol_name(draft)}
    baseline = relevant(draft.knobs, world.techniques)
    engine = world.engines.get(draft.engine) or next(iter(world.engines.values()))
    for name, (_, knob) in knob_index(world.techniques).items():
        props[f"0.{name}"] = knob_props(knob, knob_state(name, baseline, world.techniques, engine, world.machine))
    for index in range(1, len(LETTERS)):
        props[f"{index}.box"] = {"visible": index < count}
        if index < count:
            props |= _variant_props(index, draft, baseline, world)
    return props


def _variant_props(index: int, draft: Draft, baseline: Mapping[str, Any], world: World) -> Props:
    changes = draft.variants[index - 1]
    index_of = knob_index(world.techniques)
    own = {**baseline, **{name: value for name, value in changes.items() if name in index_of}}
    engine_name = str(changes.get("engine", draft.engine))
    engine = world.engines.get(engine_name) or next(iter(world.engines.values()))
    props: Props = {}
    for name, (_, knob) in index_of.items():
        props[f"{index}.{name}"] = {"visible": name in changes}
        if name in changes:
            props[f"{index}.{name}"] |= knob_props(knob, knob_state(name, own, world.techniques, engine, world.machine))
    for name in ("model", "engine", "device"):
        props[f"{index}.{name}"] = {"visible": name in changes}
    if "engine" in changes:
        props[f"{index}.engine"] |= _engine_props(engine_name, world, str(changes.get("device", draft.device)))
    inherited = {**full_knobs(baseline, world.techniques), "model": draft.model, "engine": draft.engine, "device": draft.device}
    words = changed_in_words(changes, inherited, world.techniques)
    props[f"{index}.summary"] = {"value": f'<p class="quiet">{escape(words)}</p>'}
    return props


def _engine_props(chosen: str, world: World, device: str) -> dict[str, Any]:
    state = engine_state(world.engines, world.machine, device if device != "cuda" or not device_state(world.machine).options else "auto")
    return {"choices": engine_choices(world.engines, state), "info": engine_info(world.engines, chosen, state)}


def keeping_place(preset: Draft, current: Draft) -> Draft:
    """A preset's draft with the model, engine and device of the page, where the preset does not ask for others."""
    plain = Draft()
    changes: dict[str, Any] = {}
    if preset.model == DEFAULT_MODEL and preset.engine == plain.engine and current.engine != ReplayEngine.name:
        changes = {"model": current.model, "engine": current.engine}
    if preset.device == plain.device:
        changes["device"] = current.device
    return Draft(**{**{f.name: getattr(preset, f.name) for f in fields(Draft)}, **changes})


def merged(*many: Props) -> Props:
    """Props of several sources, by key."""
    result: Props = {}
    for props in many:
        for key, more in props.items():
            result[key] = {**result.get(key, {}), **more}
    return result


def updates(outputs: Mapping[str, Any], props: Props) -> list[Any]:
    """One update an output, in order; what is not named stays as it is."""
    found = []
    for key in outputs:
        if key not in props:
            found.append(gr.skip())
        elif key == "count":
            found.append(props[key]["value"])
        else:
            found.append(gr.update(**props[key]))
    return found
