"""Which engine runs what names none: the one that is made for the device, where settings and models allow it, else RunSpec's own.

Pure: what is known of a model comes from a function that is given. Example::

    engine = usual_engine(engines(), machine)                                        # "graph" with a GPU
    why = objection([spec.replace(engine=engine)], techniques(), engines(), machine, config_of)
    told(engine, why)                                                                # "Engine transformers, not graph: ..."
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from playground.core.machine import Machine
from playground.core.plan import Techniques, plan_for
from playground.core.problem import Problem
from playground.core.spec import RunSpec

if TYPE_CHECKING:
    from playground.core.engine import Engine

ConfigOf = Callable[[str], Mapping[str, Any] | None]  # of a model's name: its Hugging Face config, None while that is not known


def usual_engine(engines: Mapping[str, type[Engine]], machine: Machine, device: str = "auto") -> str:
    """The engine for what names none on this device, before anything is known of its settings and its model."""
    resolved = machine.resolve(device)
    if resolved not in (machine.device, "cpu"):
        return RunSpec.engine
    return next((name for name, engine in engines.items() if resolved in engine.usual_on), RunSpec.engine)


def objection(
    specs: Sequence[RunSpec], techniques: Techniques, engines: Mapping[str, type[Engine]], machine: Machine, config_of: ConfigOf
) -> str:
    """Why the first of these specs that its engine cannot run cannot be run here; "" where all can, as far as is known before loading.
    What is wrong with a spec whatever the engine (Problem "user") is no objection to the engine."""
    for spec in specs:
        engine = engines[spec.engine]
        try:
            plan_for(spec, techniques, engine, machine)
        except Problem as problem:
            if problem.kind == "unsupported":
                return problem.message
        config = config_of(spec.model)
        if config and (reason := engine.refuses_model(config)):
            return reason
    return ""


def told(engine: str, why: str) -> str:
    """One line that says that RunSpec's own engine takes the place of the usual one, and why."""
    return f"Engine {RunSpec.engine}, not {engine}: {why}"
