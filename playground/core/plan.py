"""From a spec to a plan: check every name and value against the techniques, fill the defaults in, and refuse what cannot be.

`complete` is about the spec alone; `refusal` adds the machine and the engine; both speak in sentences for the page. Example::

    spec = complete(RunSpec(knobs={"quantization": "nf4"}), techniques())
    plan = Plan(spec, "cpu", tuple(...))
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from playground.core.knobs import Choice, Knob, KnobValue
from playground.core.machine import Machine
from playground.core.problem import Problem, did_you_mean
from playground.core.spec import RunSpec
from playground.core.technique import Footprint, Technique

if TYPE_CHECKING:
    from playground.core.engine import Engine

Techniques = Mapping[str, Technique]
SPEC_FIELDS = ("model", "engine", "device")


@dataclass(frozen=True)
class Plan:
    """A complete spec, the device that "auto" became, and the engine's techniques in the order in which they apply."""

    spec: RunSpec
    device: str
    techniques: tuple[Technique, ...]


def ordered(techniques: Techniques) -> list[Technique]:
    """Techniques in the order in which they apply and are shown."""
    return sorted(techniques.values(), key=lambda technique: (technique.order, technique.name))


def knob_index(techniques: Techniques) -> dict[str, tuple[Technique, Knob]]:
    """Every knob by name, with its technique, in order."""
    return {knob.name: (technique, knob) for technique in ordered(techniques) for knob in technique.knobs}


def parse_knobs(given: Mapping[str, Any], techniques: Techniques) -> dict[str, KnobValue]:
    """The given knobs with typed values; raises Problem("user") for an unknown name or an illegal value."""
    index = knob_index(techniques)
    for name in given:
        if name not in index:
            raise Problem("user", did_you_mean("There is no knob", str(name), index))
    return {name: index[name][1].parse(value) for name, value in given.items()}


def complete(spec: RunSpec, techniques: Techniques) -> RunSpec:
    """`spec` with every knob typed and present; raises Problem("user") for unknown names, illegal values, values without effect and
    values that exclude each other."""
    given = parse_knobs(spec.knobs, techniques)
    knobs = {name: given.get(name, knob.default) for name, (_, knob) in knob_index(techniques).items()}
    for technique in ordered(techniques):
        for name, why in technique.irrelevant(knobs).items():
            if knobs[name] != technique.defaults()[name]:
                raise Problem("user", f"{name}={knobs[name]} has no effect here: {why}")
        if reason := technique.conflicts(knobs):
            raise Problem("user", reason)
    return spec.replace(knobs=knobs)


def footprint_of(spec: RunSpec, techniques: Techniques) -> Footprint:
    """How a spec's knobs change memory and work; knobs that it does not name have their defaults."""
    knobs = {name: spec.knobs.get(name, knob.default) for name, (_, knob) in knob_index(techniques).items()}
    footprint = Footprint()
    for technique in ordered(techniques):
        footprint = technique.footprint(knobs, footprint)
    return footprint


def vary(baseline: RunSpec, changes: Mapping[str, Any], techniques: Techniques) -> RunSpec:
    """The baseline with `changes` (knobs, or model, engine, device); inherited values that no longer have an effect fall back to their
    defaults, values in `changes` never do."""
    fields = {name: str(value) for name, value in changes.items() if name in SPEC_FIELDS}
    own = parse_knobs({name: value for name, value in changes.items() if name not in SPEC_FIELDS}, techniques)
    knobs = {**parse_knobs(baseline.knobs, techniques), **own}
    full = {name: knobs.get(name, knob.default) for name, (_, knob) in knob_index(techniques).items()}
    for technique in techniques.values():
        for name in technique.irrelevant(full):
            if name not in own:
                knobs.pop(name, None)
    label = ", ".join([*fields.values(), *(describe(name, value, techniques) for name, value in own.items())])
    return baseline.replace(knobs=knobs, label=label or baseline.label, **fields)


def describe(name: str, value: KnobValue, techniques: Techniques) -> str:
    """A knob's value for people: "nf4", "KV cache off", "batch size 8"."""
    knob = knob_index(techniques)[name][1]
    if isinstance(knob, Choice) and value not in ("off", "none", "auto", "dynamic", "static"):
        return str(value)
    shown = {True: "on", False: "off"}.get(value, value) if isinstance(value, bool) else value
    return f"{knob.label} {shown}"


def refusal(spec: RunSpec, techniques: Techniques, engine: type[Engine], machine: Machine) -> str | None:
    """Why a complete spec cannot run on this machine with this engine, or None."""
    device = machine.resolve(spec.device)
    if device == "cuda" and machine.device != "cuda":
        return f"No CUDA device: {machine.no_cuda or 'none was found'}."
    if reason := engine.refuses(machine, device):
        return reason
    for technique in ordered(techniques):
        if reason := missing(technique, spec.knobs, engine, machine):
            return f"{technique.title}: {reason}"
    return None


def missing(technique: Technique, knobs: Mapping[str, KnobValue], engine: type[Engine], machine: Machine) -> str | None:
    """Why one technique's values cannot work with this engine on this machine, or None."""
    if not engine.supports(technique):
        return f"the engine {engine.name} does not support it." if technique.active(knobs) else None
    return None if engine.any_technique else technique.requires(knobs, machine)


def option_reasons(
    name: str, knobs: Mapping[str, KnobValue], techniques: Techniques, engine: type[Engine], machine: Machine
) -> dict[str, str]:
    """For a Choice knob: each option that cannot be chosen beside the other `knobs`, with the reason."""
    technique, knob = knob_index(techniques)[name]
    reasons = {}
    for option in knob.options if isinstance(knob, Choice) else ():
        tried = {**knobs, name: option}
        reason = missing(technique, tried, engine, machine)
        reason = reason or next((r for t in ordered(techniques) if (r := t.conflicts(tried))), None)
        if reason:
            reasons[option] = reason
    return reasons


def plan_for(spec: RunSpec, techniques: Techniques, engine: type[Engine], machine: Machine) -> Plan:
    """The plan of a spec on this machine; raises Problem("user") or Problem("unsupported") where there is none."""
    spec = complete(engine.adopt(spec), techniques)
    if reason := refusal(spec, techniques, engine, machine):
        raise Problem("unsupported", reason)
    supported = tuple(technique for technique in ordered(techniques) if engine.supports(technique))
    return Plan(spec, machine.resolve(spec.device), supported)


def load_key(spec: RunSpec, techniques: Techniques) -> str:
    """Equal for two complete specs that one loaded engine can serve: same model, engine, device and load-time knobs."""
    knobs = {name: spec.knobs[name] for name, (technique, _) in knob_index(techniques).items() if technique.phase == "load"}
    return json.dumps([spec.model, spec.engine, spec.device, knobs], sort_keys=True)
