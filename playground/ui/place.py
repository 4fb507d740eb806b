"""The engine that the form stands on: the machine's usual one while nobody has chosen another, and in words where that cannot be.

`own` is the engine that the page chose by itself, "" once a person or a preset has chosen. Pure; no Gradio. Example::

    standing(Draft(engine="graph"), ("graph", "auto"), "graph", world).draft.engine     # "transformers" where graph cannot run the model
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from playground.core.plan import relevant, vary
from playground.core.problem import Problem
from playground.core.spec import DEFAULT_MODEL, RunSpec
from playground.core.usual import objection, told, usual_engine
from playground.engines.replay import ReplayEngine
from playground.ui.availability import World
from playground.ui.form import Draft, moved


@dataclass(frozen=True)
class Standing:
    """`draft` on its engine, with the defaults of that; `why`: the sentence where it is not the machine's usual one."""

    draft: Draft
    own: str = ""
    why: str = ""


def standing(draft: Draft, place: Sequence[str], own: str, world: World) -> Standing:
    """What a change of the form makes of its engine. A draft on the engine `own` gets the machine's usual one, or RunSpec's own where
    that cannot run one of the columns that name no engine; one that a person has chosen stays. `place` as in `form.moved`."""
    if draft.engine != own:
        return Standing(moved(draft, place, world))
    usual = usual_engine(world.engines, world.machine, draft.device)
    there = moved(replace(draft, engine=usual), place, world)
    why = (
        ""
        if usual == RunSpec.engine
        else objection(_unnamed(there, world), world.techniques, world.engines, world.machine, world.config_of)
    )
    if not why:
        return Standing(there, usual)
    return Standing(moved(replace(draft, engine=RunSpec.engine), place, world), RunSpec.engine, told(usual, why))


def _unnamed(draft: Draft, world: World) -> list[RunSpec]:
    """The columns that name no engine of their own, as far as they can be; what is wrong with a value is said elsewhere."""
    baseline = RunSpec(model=(draft.model or "").strip() or DEFAULT_MODEL, engine=draft.engine, device=draft.device)
    specs = [baseline.replace(knobs=relevant(draft.knobs, world.techniques, world.defaults(baseline)))]
    for changes in draft.variants:
        if "engine" not in changes:
            with suppress(Problem):
                specs.append(vary(specs[0], changes, world.techniques, world.defaults))
    return specs


def keeping_place(
    specs: Sequence[RunSpec], current: Draft, world: World, own: str = "", named: bool = False
) -> tuple[list[RunSpec], str, str]:
    """A preset's specs with the model, engine and device of the page, where the preset does not ask for others (`named`: its engines are
    meant as they are); where that engine cannot run them, so that they keep their own, a sentence that says so; and what `own` is then."""
    plain = RunSpec()
    if all(spec.device == plain.device for spec in specs):
        specs = [spec.replace(device=current.device) for spec in specs]
    if named or any(spec.engine != plain.engine for spec in specs):
        return list(specs), "", ""
    foreign = current.engine == ReplayEngine.name or any(spec.model != DEFAULT_MODEL for spec in specs)
    if not foreign:
        specs = [spec.replace(model=current.model) for spec in specs]
    by_page = foreign or current.engine == own
    engine = usual_engine(world.engines, world.machine, specs[0].device) if by_page else current.engine
    placed = [spec.replace(engine=engine) for spec in specs]
    why = "" if engine == plain.engine else objection(placed, world.techniques, world.engines, world.machine, world.config_of)
    if why:
        return list(specs), f"The engine {engine} cannot run this experiment, so it is set to {plain.engine}. {why}", ""
    return placed, "", engine if by_page else ""
