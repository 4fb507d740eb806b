"""From a spec to a plan: check every name and value against the techniques, fill the defaults in, and refuse what cannot be.

`complete` is about the spec alone; `refusal` adds the machine and the engine; both speak in sentences for the page. Example::

    spec = complete(RunSpec(knobs={"quantization": "nf4"}), techniques())
    plan = Plan(spec, "cpu", tuple(...))
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from playground.core.knobs import Choice, Knob, KnobValue
from playground.core.machine import Machine
from playground.core.problem import Problem, did_you_mean
from playground.core.spec import RunSpec
from playground.core.technique import Footprint, Technique

if TYPE_CHECKING:
    from playground.core.engine import Engine

Techniques = Mapping[str, Technique]
Defaults = Callable[[RunSpec], Mapping[str, KnobValue]]  # of a spec: what its engine's `defaults` are
SPEC_FIELDS = ("model", "engine", "device")
PLACE = ("engine", "device")  # what an engine's defaults depend on
NONE: Mapping[str, KnobValue] = MappingProxyType({})


@dataclass(frozen=True)
class Plan:
    """A complete spec, the device that "auto" became, and the engine's techniques in the order in which they apply."""

    spec: RunSpec
    device: str
    techniques: tuple[Technique, ...]


def ordered(techniques: Techniques) -> list[Technique]:
    """Techniques in the order in which they apply and are shown."""
    return sorted(techniques.values(), key=lambda technique: technique.order)


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


def full_knobs(given: Mapping[str, Any], techniques: Techniques, defaults: Mapping[str, KnobValue] = NONE) -> dict[str, Any]:
    """`given`, with the default of every knob that it does not name: the engine's (`defaults`) where it has one, else the knob's own."""
    own = {name: knob.default for name, (_, knob) in knob_index(techniques).items()}
    return {name: given.get(name, defaults.get(name, default)) for name, default in own.items()}


def chosen(knobs: Mapping[str, Any], techniques: Techniques, defaults: Mapping[str, KnobValue] = NONE) -> dict[str, Any]:
    """Those of `knobs` that differ from their defaults: what stays when an engine with other defaults takes over."""
    usual = full_knobs({}, techniques, defaults)
    return {name: value for name, value in knobs.items() if value != usual.get(name)}


def idle_knobs(full: Mapping[str, Any], techniques: Techniques) -> set[str]:
    """Names of the knobs that have no effect beside the others; `full`: a value for every knob."""
    return {name for technique in techniques.values() for name in technique.irrelevant(full)}


def relevant(knobs: Mapping[str, Any], techniques: Techniques, defaults: Mapping[str, KnobValue] = NONE) -> dict[str, Any]:
    """`knobs` without those that have no effect beside the others."""
    idle = idle_knobs(full_knobs(knobs, techniques, defaults), techniques)
    return {name: value for name, value in knobs.items() if name not in idle}


def engine_defaults(engines: Mapping[str, type[Engine]], machine: Machine) -> Defaults:
    """What each spec's engine gives the knobs that the spec does not name, on this machine; nothing for an unknown engine."""

    def of(spec: RunSpec) -> Mapping[str, KnobValue]:
        engine = engines.get(spec.engine)
        return engine.defaults(machine.resolve(spec.device)) if engine else NONE

    return of


def complete(spec: RunSpec, techniques: Techniques, defaults: Mapping[str, KnobValue] = NONE) -> RunSpec:
    """`spec` with every knob typed and present; those that it does not name, or that have no effect and are at their own default, as in
    `full_knobs`. Raises Problem("user") for unknown names, illegal values, other values without effect and values that exclude each
    other."""
    knobs = full_knobs(parse_knobs(spec.knobs, techniques), techniques, defaults)
    usual = full_knobs({}, techniques, defaults)
    for technique in ordered(techniques):
        for name, why in technique.irrelevant(knobs).items():
            if knobs[name] not in (usual[name], technique.defaults()[name]):
                raise Problem("user", f"{name}={knobs[name]} has no effect here: {why}")
            knobs[name] = usual[name]
        if reason := technique.conflicts(knobs):
            raise Problem("user", reason)
    return spec.replace(knobs=knobs)


def footprint_of(spec: RunSpec, techniques: Techniques, engine: type[Engine] | None = None, device: str = "cpu") -> Footprint:
    """How a spec's knobs change memory and work with this engine (None: with one that changes neither) on that device (cpu or cuda);
    knobs that the spec does not name have their defaults."""
    knobs = full_knobs(spec.knobs, techniques, engine.defaults(device) if engine else NONE)
    footprint = Footprint()
    for technique in ordered(techniques):
        footprint = technique.footprint(knobs, footprint)
    return engine.footprint(knobs, device, footprint) if engine else footprint


def pairs_in(text: str) -> list[str]:
    """The pairs of KNOB=VALUE[,KNOB=VALUE ...]; a comma that no pair follows belongs to the value, as in adapter=made:one,made:two."""
    return re.split(r",(?=[^,=]*=)", text)


def vary(baseline: RunSpec, changes: Mapping[str, Any], techniques: Techniques, defaults: Defaults = lambda spec: NONE) -> RunSpec:
    """The baseline with `changes` (knobs, or model, engine, device). Inherited values fall back to defaults where they no longer have an
    effect, and to those of the new engine or device where the baseline has them at its own; values in `changes` never do."""
    fields = {name: str(value) for name, value in changes.items() if name in SPEC_FIELDS}
    own = parse_knobs({name: value for name, value in changes.items() if name not in SPEC_FIELDS}, techniques)
    inherited = parse_knobs(baseline.knobs, techniques)
    varied = baseline.replace(**fields)
    if any(getattr(varied, name) != getattr(baseline, name) for name in PLACE):
        inherited = chosen(inherited, techniques, defaults(baseline))
    knobs = {**inherited, **own}
    full = full_knobs(knobs, techniques, defaults(varied))
    for technique in techniques.values():
        for name in technique.irrelevant(full):
            if name not in own:
                knobs.pop(name, None)
    label = ", ".join([*fields.values(), *(describe(name, value, techniques) for name, value in own.items())])
    return varied.replace(knobs=knobs, label=label or baseline.label)


def describe(name: str, value: KnobValue, techniques: Techniques) -> str:
    """A knob's value for people: "nf4", "KV cache off", "batch size 8". The name of an option alone where no knob before has one of that
    name."""
    index = knob_index(techniques)
    knob = index[name][1]
    first = next((other for other, (_, one) in index.items() if isinstance(one, Choice) and value in one.options), None)
    if first == name and value not in ("off", "none", "auto", "dynamic", "static"):
        return str(value)
    if value == "":
        return f"no {knob.label}"
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
        if reason := missing(technique, spec.knobs, engine, machine, device):
            return f"{technique.title}: {reason}"
    return None


def missing(
    technique: Technique, knobs: Mapping[str, KnobValue], engine: type[Engine], machine: Machine, device: str = "auto"
) -> str | None:
    """Why one technique's values cannot work with this engine on this machine's device, or None."""
    if not engine.supports(technique):
        return lacks(technique, engine) if technique.active(knobs) else None
    if engine.any_technique:
        return None
    device = machine.resolve(device)
    refuses = engine.method(technique, "refuses")
    return (refuses(knobs, device) if refuses else None) or technique.requires(knobs, machine, device)


def lacks(technique: Technique, engine: type[Engine]) -> str:
    """What to say of an engine without methods of the technique: which engines it has them for, as their names tell (`Technique.hook`)."""
    others = [name.removeprefix("for_") for name in dir(technique) if name.startswith("for_")]
    return f"the engine {engine.name} does not have it: choose the engine {' or '.join(others)}."


def option_reasons(
    name: str, knobs: Mapping[str, KnobValue], techniques: Techniques, engine: type[Engine], machine: Machine, device: str = "auto"
) -> dict[str, str]:
    """For a Choice knob: each option that cannot be chosen beside the other `knobs`, with the reason. Knobs that have no effect now are
    tried at their defaults, since nobody can change them before the option is chosen."""
    technique, knob = knob_index(techniques)[name]
    usual = full_knobs({}, techniques, engine.defaults(machine.resolve(device)))
    idle = {other: usual[other] for other in idle_knobs(knobs, techniques)}
    reasons = {}
    for option in knob.options if isinstance(knob, Choice) else ():
        tried = {**knobs, **idle, name: option}
        reason = missing(technique, tried, engine, machine, device)
        reason = reason or next((r for t in ordered(techniques) if (r := t.conflicts(tried))), None)
        if reason:
            reasons[option] = reason
    return reasons


def plan_for(spec: RunSpec, techniques: Techniques, engine: type[Engine], machine: Machine) -> Plan:
    """The plan of a spec on this machine; raises Problem("user") or Problem("unsupported") where there is none."""
    spec = engine.adopt(spec)
    spec = complete(spec, techniques, engine.defaults(machine.resolve(spec.device)))
    if reason := refusal(spec, techniques, engine, machine):
        raise Problem("unsupported", reason)
    supported = tuple(technique for technique in ordered(techniques) if engine.supports(technique))
    return Plan(spec, machine.resolve(spec.device), supported)


def load_key(spec: RunSpec, techniques: Techniques) -> str:
    """Equal for two complete specs that one loaded engine can serve: same model, engine, device and load-time knobs."""
    knobs = {name: spec.knobs[name] for name, (technique, _) in knob_index(techniques).items() if technique.phase == "load"}
    return json.dumps([spec.model, spec.engine, spec.device, knobs], sort_keys=True)
