"""The types of what the API takes, made from the registries: one schema for clients and agents, without a second list of names. No Gradio.

Gradio turns these types into JSON schemas. All fields may be left out. Example::

    experiment_type(world).__annotations__["engine"]      # Literal["fake", "graph", ...]
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypedDict, get_type_hints

from playground.core.knobs import Choice, Knob, Range, Toggle
from playground.core.plan import Techniques, knob_index
from playground.core.spec import Protocol, RunSpec, Workload
from playground.core.sweep import WORK_AXES
from playground.presets import sweepable
from playground.ui.availability import DEVICES, World


def spec_type(world: World) -> Any:
    """One variant: the fields of a RunSpec, with every knob, engine and device by name."""
    return _table("Spec", _spec_fields(world))


def experiment_type(world: World) -> Any:
    """One variant, or several in either of the two forms that experiment files have."""
    several = {"baseline": dict[str, Any], "variant": list[dict[str, Any]], "variants": list[dict[str, Any]]}
    return _table("Experiment", {**_spec_fields(world), **several})


def sweep_type(world: World) -> Any:
    """A sweep's plan, typed down to the values of each axis; or the id of one that there is."""
    knobs = {name: _type_of(knob) for name, (_, knob) in knob_index(world.techniques).items()}
    kinds = {**knobs, **dict.fromkeys(WORK_AXES, int), "model": str, "engine": one_of(*world.engines), "device": one_of(*DEVICES)}
    axes = {name: list[kind] | str if kind is int else list[kind] for name, kind in kinds.items()}  # type: ignore[valid-type]
    variants = {"baseline": spec_type(world), "variant": list[dict[str, Any]], "variants": list[dict[str, Any]]}
    return _table("Sweep", {"preset": one_of(*sweepable()), "title": str, **variants, "axes": _table("Axes", axes), "id": str})


def technique_type(techniques: Techniques) -> Any:
    """A technique's name, or "" for any."""
    return one_of("", *techniques)


def one_of(*names: str) -> Any:
    """One of these names."""
    return Literal[names]


def knobs_in_words(techniques: Techniques) -> str:
    """Every knob with its default and what it is, as one text: "precision (bf16): Number format of the weights; ..."."""
    return "; ".join(f"{name} ({_plain(knob.default)}): {knob.help.rstrip('.')}" for name, (_, knob) in knob_index(techniques).items())


def _spec_fields(world: World) -> dict[str, Any]:
    named = {
        "engine": one_of(*world.engines),
        "device": one_of(*DEVICES),
        "knobs": _table("Knobs", {name: _type_of(knob) for name, (_, knob) in knob_index(world.techniques).items()}),
        "workload": _table("Work", get_type_hints(Workload)),
        "protocol": _table("Measuring", get_type_hints(Protocol)),
    }
    return {**get_type_hints(RunSpec), **named}


def _table(name: str, fields: Mapping[str, Any]) -> Any:
    return TypedDict(name, dict(fields), total=False)  # type: ignore[operator]


def _type_of(knob: Knob) -> Any:
    if isinstance(knob, Choice):
        return one_of(*knob.options)
    if isinstance(knob, Range):
        return int if isinstance(knob.step, int) else float
    return bool if isinstance(knob, Toggle) else str


def _plain(value: object) -> str:
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value) or "none"
