"""What can be chosen here: for every control whether it is live, which options are not, and the reason for each. Pure; no Gradio.

All reasons come from the techniques, the engines and the machine; this module only asks them. Example::

    knob_state("int8_threshold", {"quantization": "none"}, techniques(), engine, machine).reason   # "it applies to int8."
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from playground.core.engine import Engine
from playground.core.knobs import Choice, KnobValue, Toggle
from playground.core.machine import Machine
from playground.core.plan import Defaults, Techniques, engine_defaults, full_knobs, knob_index, missing, option_reasons, ordered

DEVICES = ("auto", "cpu", "cuda")


@dataclass(frozen=True)
class World:
    """What can be chosen from on this machine."""

    techniques: Techniques
    engines: Mapping[str, type[Engine]]
    machine: Machine

    @property
    def defaults(self) -> Defaults:
        """What each spec's engine gives the knobs that the spec does not name, here."""
        return engine_defaults(self.engines, self.machine)


@dataclass(frozen=True)
class ControlState:
    """`reason` says why the whole control is disabled (empty: it is live); `options`: single options that cannot be chosen, with why."""

    reason: str = ""
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def enabled(self) -> bool:
        """Whether a person can use the control."""
        return not self.reason

    def note(self) -> str:
        """The reasons as one text, options with the same reason together; empty where everything can be chosen."""
        if self.reason:
            return f"Not used here: {self.reason}"
        grouped: dict[str, list[str]] = {}
        for option, reason in self.options.items():
            grouped.setdefault(reason, []).append(option)
        return " ".join(f"✕ {', '.join(options)}: {reason}" for reason, options in grouped.items())


def knob_state(
    name: str, knobs: Mapping[str, KnobValue], techniques: Techniques, engine: type[Engine], machine: Machine, device: str = "auto"
) -> ControlState:
    """The state of one knob beside the other `knobs`. One that the engine has not is disabled once it is at its default."""
    technique, knob = knob_index(techniques)[name]
    full = full_knobs(knobs, techniques, engine.defaults(machine.resolve(device)))
    if not engine.supports(technique):
        reason = f"the engine {engine.name} has no such setting."
        if full[name] == knob.default:
            return ControlState(reason)
        options = knob.options if isinstance(knob, Choice) else ()
        return ControlState(options={option: reason for option in options if option != knob.default})
    if reason := technique.irrelevant(full).get(name):
        return ControlState(reason)
    if isinstance(knob, Choice):
        return ControlState(options=option_reasons(name, full, techniques, engine, machine, device))
    if isinstance(knob, Toggle):
        flipped = {**full, name: not full[name]}
        reason = missing(technique, flipped, engine, machine, device)
        reason = reason or next((r for t in ordered(techniques) if (r := t.conflicts(flipped))), None)
        return ControlState(reason or "")
    return ControlState()


def engine_state(engines: Mapping[str, type[Engine]], machine: Machine, device: str) -> ControlState:
    """Engines that cannot run on this machine and device."""
    resolved = machine.resolve(device)
    reasons = {name: reason for name, engine in engines.items() if (reason := engine.refuses(machine, resolved))}
    return ControlState(options=reasons)


def device_state(machine: Machine) -> ControlState:
    """CUDA without a CUDA device."""
    return ControlState(options={} if machine.gpus else {"cuda": machine.no_cuda or "no CUDA device was found."})
