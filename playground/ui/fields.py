"""Between the components of the form and plain data: which component holds which field of a `Draft`, reading it, filling it, refreshing it.

Keys name components: a draft's field ("prompts"), a baseline knob ("0.precision"), another column's setting ("2.differs", "2.engine"), and
what is shown only ("2.box", "2.summary", "protocol", "engine_note", "add", "remove"). "count", "place", "own" and "filled" are states: how
many columns there are, the engine and device to whose defaults the baseline's knobs were last set, the engine that the page chose by itself
("" where a person has chosen), and the mark of the last filling in. The page holds that mark as well, as "here". Example::

    values = dict(zip(form.inputs(), values))
    draft, props = settled(read(values), values["place"], world, values["own"])
    updates(form.outputs(), props)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from secrets import token_hex
from typing import Any

import gradio as gr

from playground.core.plan import SPEC_FIELDS, describe, full_knobs, knob_index, relevant
from playground.core.spec import GREEDY, NARROWING, RunSpec
from playground.ui import strings
from playground.ui.availability import ControlState, World, device_state, engine_state, knob_state
from playground.ui.controls import Setup, engine_choices, engine_info, knob_props
from playground.ui.form import LETTERS, Draft, changed_in_words, draft_of, is_greedy, moved, protocol_name
from playground.ui.place import standing
from playground.ui.text import escape, note_html
from playground.ui.variants import VariantColumn

Props = dict[str, dict[str, Any]]
SETUP_FIELDS = tuple(f.name for f in fields(Draft) if f.name not in ("knobs", "variants"))
STATES = ("count", "place", "own", "filled")
NOWHERE = ("", "auto")  # the place of new controls: no engine, so the knobs' own defaults


@dataclass(frozen=True)
class Form:
    """Every component of the form."""

    setup: Setup
    columns: Sequence[VariantColumn]
    count: gr.State
    place: gr.State
    own: gr.State
    filled: gr.State
    here: gr.Textbox
    add: gr.Button
    remove: gr.Button

    def inputs(self) -> dict[str, gr.components.Component]:
        """What holds values, by key."""
        found: dict[str, gr.components.Component] = {**self.setup.fields, "count": self.count, "place": self.place, "own": self.own}
        found |= {"filled": self.filled, "here": self.here}
        for index, column in enumerate(self.columns):
            found |= {f"{index}.{name}": component for name, component in column.settings.items()}
            if column.differs is not None:
                found[f"{index}.differs"] = column.differs
        return found

    def outputs(self) -> dict[str, Any]:
        """What an update may change, by key."""
        shown: dict[str, Any] = {f"{i}.box": column.box for i, column in enumerate(self.columns) if i}
        shown |= {f"{i}.summary": column.summary for i, column in enumerate(self.columns)}
        shown |= {"protocol": self.setup.protocol, "engine_note": self.setup.engine_note, "add": self.add, "remove": self.remove}
        return {**self.inputs(), **shown}


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


def overtaken(values: Mapping[str, Any]) -> bool:
    """Whether the page gave these values before it had those that the form was last filled in with: the states, which the server holds, are
    of the new ones then and all else is of the old ones."""
    return values["filled"] not in ("", values["here"])


def fill(draft: Draft, world: World) -> Props:
    """Values of every component, for a draft from a preset or from a run."""
    props: Props = {name: {"value": getattr(draft, name)} for name in SETUP_FIELDS}
    props["count"] = {"value": 1 + len(draft.variants)}
    props["filled"] = props["here"] = {"value": token_hex(4)}
    knobs = full_knobs(draft.knobs, world.techniques, world.defaults(RunSpec(engine=draft.engine, device=draft.device)))
    props |= {f"0.{name}": {"value": value} for name, value in knobs.items()}
    for index, changes in enumerate(draft.variants, 1):
        props[f"{index}.differs"] = {"value": list(changes)}
        props |= {f"{index}.{name}": {"value": value} for name, value in {**_inherited(draft, knobs, changes, world), **changes}.items()}
    return props


def form_of(specs: Sequence[RunSpec], world: World, own: str = "") -> tuple[Draft, Props]:
    """The form of a preset or of a run; `own`: the engine where the page, and neither of them, chose it."""
    now = draft_of(specs, world)
    return now, merged(fill(now, world), refresh(now, world), {"own": {"value": own}})


def _inherited(draft: Draft, baseline: Mapping[str, Any], changes: Mapping[str, Any], world: World) -> dict[str, Any]:
    """What a variant has before its own knobs: model, engine and device, and of the knobs of the `baseline` what these leave."""
    model, engine, device = (str(changes.get(name, getattr(draft, name))) for name in SPEC_FIELDS)
    there = moved(replace(draft, knobs=baseline, engine=engine, device=device), (draft.engine, draft.device), world)
    return {**there.knobs, "model": model, "engine": engine, "device": device}


def settled(draft: Draft, place: Sequence[str], world: World, own: str = "") -> tuple[Draft, Props]:
    """What a change of the form makes of it: an engine that nobody chose is the one that fits; where it is another engine or device than
    `place`, knobs at the old one's defaults take the new one's; then `refresh`. Gives the draft that this makes as well."""
    stand = standing(draft, place, own, world)
    now = stand.draft
    values: Props = {f"0.{name}": {"value": value} for name, value in now.knobs.items() if value != draft.knobs.get(name)}
    values["own"] = {"value": stand.own}
    if now.engine != draft.engine:
        values["engine"] = {"value": now.engine}
    if stand.why:
        values["engine_note"] = {"value": note_html(stand.why)}
    return now, merged(refresh(now, world), values)


def refresh(draft: Draft, world: World) -> Props:
    """What a change makes of every control: live or not, with which options, and the reason beside it."""
    count = 1 + len(draft.variants)
    props: Props = {"add": {"visible": count < len(LETTERS)}, "remove": {"visible": count > 2, "value": f"Remove {LETTERS[count - 1]}"}}
    props["engine"] = _engine_props(draft.engine, world, draft.device, draft.model)
    props["engine_note"] = {"value": note_html(world.refused(draft.engine, draft.model))}
    props["protocol"] = {"value": protocol_name(draft)}
    props["place"] = {"value": (draft.engine, draft.device)}
    props |= _narrowing_props(draft)
    defaults = world.defaults(RunSpec(engine=draft.engine, device=draft.device))
    baseline = full_knobs(relevant(draft.knobs, world.techniques, defaults), world.techniques, defaults)
    for name, (_, knob) in knob_index(world.techniques).items():
        props[f"0.{name}"] = knob_props(knob, _state(name, baseline, draft.engine, draft.device, world))
    props["0.summary"] = {"value": f'<p class="quiet">{escape(_folded_in_words(baseline, world, defaults))}</p>'}
    for index in range(1, len(LETTERS)):
        props[f"{index}.box"] = {"visible": index < count}
        if index < count:
            props |= _variant_props(index, draft, baseline, world)
    return props


def _folded_in_words(baseline: Mapping[str, Any], world: World, defaults: Mapping[str, Any]) -> str:
    """What the baseline is for, and which of its folded settings are not at their defaults."""
    usual = full_knobs({}, world.techniques, defaults)
    index = knob_index(world.techniques)
    changed = [name for name, value in baseline.items() if value != usual[name] and not index[name][0].common]
    words = ", ".join(describe(name, baseline[name], world.techniques) for name in changed)
    return f"{strings.BASELINE_INFO} {words[:1].upper()}{words[1:]}." if words else strings.BASELINE_INFO


def _narrowing_props(draft: Draft) -> Props:
    reason = ControlState(GREEDY).note() if is_greedy(draft) else ""
    help_of = {"top_k": strings.TOP_K_INFO, "top_p": strings.TOP_P_INFO}
    return {name: {"interactive": not reason, "info": f"{help_of[name]}\n**{reason}**" if reason else help_of[name]} for name in NARROWING}


def _variant_props(index: int, draft: Draft, baseline: Mapping[str, Any], world: World) -> Props:
    changes = draft.variants[index - 1]
    index_of = knob_index(world.techniques)
    inherited = _inherited(draft, baseline, changes, world)
    engine, device = inherited["engine"], inherited["device"]
    own = {name: changes.get(name, inherited[name]) for name in index_of}
    props: Props = {}
    for name, (_, knob) in index_of.items():
        props[f"{index}.{name}"] = {"visible": name in changes}
        if name in changes:
            props[f"{index}.{name}"] |= knob_props(knob, _state(name, own, engine, device, world))
        elif inherited[name] != baseline[name]:
            props[f"{index}.{name}"]["value"] = inherited[name]
    for name in SPEC_FIELDS:
        props[f"{index}.{name}"] = {"visible": name in changes}
    if "engine" in changes:
        props[f"{index}.engine"] |= _engine_props(engine, world, device, inherited["model"])
    before = {**baseline, "model": draft.model, "engine": draft.engine, "device": draft.device}
    follows = {name: own[name] for name in index_of if name not in changes and own[name] != baseline[name]}
    words = changed_in_words(changes, before, world.techniques, follows)
    refused = world.refused(engine, inherited["model"])
    props[f"{index}.summary"] = {"value": f'<p class="quiet">{escape(words)}</p>{note_html(refused)}'}
    return props


def _state(name: str, knobs: Mapping[str, Any], engine: str, device: str, world: World) -> ControlState:
    known = world.engines.get(engine) or next(iter(world.engines.values()))
    return knob_state(name, knobs, world.techniques, known, world.machine, device)


def _engine_props(chosen: str, world: World, device: str, model: str) -> dict[str, Any]:
    there = device if device != "cuda" or not device_state(world.machine).options else "auto"
    state = engine_state(world.engines, world.machine, there, world.config_of(model))
    return {"choices": engine_choices(world.engines, state), "info": engine_info(world.engines, chosen, state)}


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
        elif key in STATES:
            found.append(props[key]["value"])
        else:
            found.append(gr.update(**props[key]))
    return found
