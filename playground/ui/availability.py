"""What can be chosen here: for every control whether it is live, which options are not, and the reason for each. Pure; no Gradio.

All reasons come from the techniques, the engines and the machine; this module only asks them. Example::

    knob_state("int8_threshold", {"quantization": "none"}, techniques(), engine, machine).reason   # "it applies to int8."
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from playground.core.engine import Engine
from playground.core.knobs import Choice, KnobValue, Toggle
from playground.core.machine import Machine
from playground.core.plan import Defaults, Techniques, engine_defaults, full_knobs, knob_index, lacks, missing, option_reasons, ordered
from playground.core.usual import ConfigOf

DEVICES = ("auto", "cpu", "cuda")


def _unknown(model: str) -> None:
    """Of no model anything is known."""


@dataclass(frozen=True)
class World:
    """What can be chosen from on this machine. `config_of`: a model's config by its name, None while it is not known; must answer at
    once."""

    techniques: Techniques
    engines: Mapping[str, type[Engine]]
    machine: Machine
    config_of: ConfigOf = _unknown

    @property
    def defaults(self) -> Defaults:
        """What each spec's engine gives the knobs that the spec does not name, here."""
        return engine_defaults(self.engines, self.machine)

    def refused(self, engine: str, model: str) -> str:
        """Why that engine cannot run that model, "" where it can or where it is not known."""
        known, config = self.engines.get(engine), self.config_of(model)
        return (known.refuses_model(config) or "") if known and config else ""


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
        why = lacks(technique, engine)
        if full[name] == knob.default:
            return ControlState(why)
        options = knob.options if isinstance(knob, Choice) else ()
        return ControlState(options={option: why for option in options if option != knob.default})
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


def engine_state(
    engines: Mapping[str, type[Engine]], machine: Machine, device: str, config: Mapping[str, Any] | None = None
) -> ControlState:
    """Engines that cannot run on this machine and device, or not the model of that config (None: not known)."""
    resolved = machine.resolve(device)
    reasons = {
        name: engine.refuses(machine, resolved) or (engine.refuses_model(config) if config else None) for name, engine in engines.items()
    }
    return ControlState(options={name: reason for name, reason in reasons.items() if reason})


def device_state(machine: Machine) -> ControlState:
    """CUDA without a CUDA device."""
    return ControlState(options={} if machine.gpus else {"cuda": machine.no_cuda or "no CUDA device was found."})
