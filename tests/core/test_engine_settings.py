"""What an engine brings along: methods of another engine's, defaults of its own, values that it refuses, its footprint."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from playground.core.engine import Engine
from playground.core.knobs import Choice
from playground.core.machine import Gpu, Machine
from playground.core.plan import (
    Plan,
    chosen,
    complete,
    describe,
    engine_defaults,
    footprint_of,
    full_knobs,
    missing,
    option_reasons,
    plan_for,
    vary,
)
from playground.core.problem import Problem
from playground.core.spec import RunSpec
from playground.core.technique import Finding, Footprint, Knobs, Technique

CPU = Machine("h", "cpu", 2, 8, 4, no_cuda="no driver")
CUDA = replace(CPU, device="cuda", gpus=(Gpu("H200", "u", (9, 0), 1, 1, "1"),))


class Gear(Technique):
    name = "gear"
    title = "Gear"
    order = 1
    phase = "run"
    knobs = (Choice("gear", "Gear", ("low", "high", "turbo"), "low", "help"),)

    def for_plain(self, knobs: Knobs, setup: list[str]) -> None:
        setup.append(f"plain {knobs['gear']}")

    def evidence_for_plain(self, knobs: Knobs, engine: Any) -> Finding:
        return Finding(True, "plain")

    def evidence_for_fast(self, knobs: Knobs, engine: Any) -> Finding:
        return Finding(True, "fast")

    def refuses_plain(self, knobs: Knobs, device: str) -> str | None:
        return "turbo is for the engine fast." if knobs["gear"] == "turbo" else None

    def refuses_fast(self, knobs: Knobs, device: str) -> str | None:
        return f"it has no low gear on {device}." if knobs["gear"] == "low" else None

    def requires(self, knobs: Knobs, machine: Machine, device: str) -> str | None:
        return "turbo needs a GPU" if knobs["gear"] == "turbo" and device == "cpu" else None

    def footprint(self, knobs: Knobs, footprint: Footprint) -> Footprint:
        return replace(footprint, layer_kernels={"low": 30.0, "high": 20.0, "turbo": 10.0}[str(knobs["gear"])])


class Light(Technique):
    name = "light"
    title = "Light"
    order = 2
    phase = "load"
    knobs = (Choice("light", "Light", ("off", "high"), "off", "help"),)

    def for_fast(self, knobs: Knobs, setup: list[str]) -> None: ...

    def irrelevant(self, knobs: Knobs) -> dict[str, str]:
        return {"light": "it shines in low gear alone."} if knobs["gear"] != "low" else {}


class Plain(Engine):
    name = "plain"
    title = "Plain"


class Fast(Plain):
    name = "fast"
    title = "Fast"
    hooks = ("plain",)

    @classmethod
    def defaults(cls, device: str) -> dict[str, Any]:
        return {"gear": "turbo" if device == "cuda" else "high"}

    @classmethod
    def footprint(cls, knobs: Knobs, device: str, footprint: Footprint) -> Footprint:
        return replace(footprint, captured=device == "cuda", rows=2 if knobs["gear"] == "turbo" else 1)


KNOWN: dict[str, Technique] = {"gear": Gear(), "light": Light()}
ENGINES = {"plain": Plain, "fast": Fast}
ON_CPU = engine_defaults(ENGINES, CPU)


def test_an_engine_takes_anothers_methods_only_where_it_has_none_of_its_own() -> None:
    setup: list[str] = []
    Fast.method(KNOWN["gear"], "for")({"gear": "high"}, setup)
    assert setup == ["plain high"]
    plan = Plan(RunSpec(knobs={"gear": "high"}), "cpu", (KNOWN["gear"],))
    assert [engine().evidence(KNOWN["gear"], plan).text for engine in (Plain, Fast)] == ["plain", "fast"]
    assert (Fast.supports(KNOWN["gear"]), Fast.supports(KNOWN["light"]), Plain.supports(KNOWN["light"])) == (True, True, False)
    assert Plain.method(KNOWN["light"], "for") is None
    assert Plain().evidence(KNOWN["light"], plan) is None


def test_a_knob_that_a_spec_does_not_name_is_the_engines_default_on_that_device() -> None:
    def gear(machine: Machine, engine: type[Engine], **fields: Any) -> Any:
        return plan_for(RunSpec(engine=engine.name, **fields), KNOWN, engine, machine).spec.knobs["gear"]

    assert (gear(CPU, Plain), gear(CPU, Fast), gear(CUDA, Fast)) == ("low", "high", "turbo")
    assert gear(CUDA, Fast, device="cpu") == "high"
    assert gear(CUDA, Fast, knobs={"gear": "high"}) == "high"
    assert complete(RunSpec(), KNOWN).knobs == {"gear": "low", "light": "off"}


def test_defaults_of_an_unknown_engine_are_the_knobs_own() -> None:
    assert ON_CPU(RunSpec(engine="gone")) == {}
    assert ON_CPU(RunSpec(engine="fast")) == {"gear": "high"}


def test_what_is_left_at_its_default_is_not_chosen() -> None:
    knobs = {"gear": "high", "light": "high"}
    assert chosen(knobs, KNOWN, {"gear": "high"}) == {"light": "high"}
    assert chosen(knobs, KNOWN) == knobs
    assert full_knobs({"light": "high"}, KNOWN, {"gear": "turbo"}) == {"gear": "turbo", "light": "high"}


@pytest.mark.parametrize(
    ("baseline", "changes", "gear"),
    [
        (RunSpec(engine="plain", knobs={"gear": "low"}), {"engine": "fast"}, "high"),
        (RunSpec(engine="plain"), {"engine": "fast"}, "high"),
        (RunSpec(engine="plain", knobs={"gear": "turbo"}), {"engine": "fast"}, "turbo"),
        (RunSpec(engine="fast", knobs={"gear": "high"}), {"engine": "plain"}, "low"),
        (RunSpec(engine="fast", knobs={"gear": "low"}), {"engine": "plain"}, "low"),
        (RunSpec(engine="plain", knobs={"gear": "low"}), {"engine": "fast", "gear": "low"}, "low"),
        (RunSpec(engine="fast", knobs={"gear": "high"}), {"device": "cuda"}, "turbo"),
        (RunSpec(engine="fast", knobs={"gear": "high"}), {"engine": "fast", "model": "m"}, "high"),
    ],
)
def test_a_variant_with_another_engine_or_device_keeps_only_what_was_chosen(baseline: RunSpec, changes: Any, gear: str) -> None:
    varied = vary(baseline, changes, KNOWN, ON_CPU)
    assert complete(varied, KNOWN, ON_CPU(varied)).knobs["gear"] == gear


def test_a_value_that_loses_its_effect_under_the_new_engines_defaults_is_dropped() -> None:
    varied = vary(RunSpec(engine="plain", knobs={"light": "high"}), {"engine": "fast"}, KNOWN, ON_CPU)
    assert complete(varied, KNOWN, ON_CPU(varied)).knobs == {"gear": "high", "light": "off"}
    with pytest.raises(Problem, match="shines in low gear alone"):
        complete(RunSpec(engine="fast", knobs={"light": "high"}), KNOWN, {"gear": "high"})


def test_each_engine_refuses_its_own_values_with_its_own_reason() -> None:
    full = {"gear": "low", "light": "off"}
    assert option_reasons("gear", full, KNOWN, Plain, CPU) == {"turbo": "turbo is for the engine fast."}
    assert option_reasons("gear", full, KNOWN, Fast, CPU) == {"low": "it has no low gear on cpu.", "turbo": "turbo needs a GPU"}
    assert option_reasons("gear", full, KNOWN, Fast, CUDA) == {"low": "it has no low gear on cuda."}
    assert "turbo" in option_reasons("gear", full, KNOWN, Fast, CUDA, "cpu"), "the device of the spec counts, not the machine's best"
    with pytest.raises(Problem, match="Gear: it has no low gear on cpu") as caught:
        plan_for(RunSpec(engine="fast", knobs={"gear": "low"}), KNOWN, Fast, CPU)
    assert caught.value.kind == "unsupported"


def test_an_engine_without_a_technique_names_those_that_have_it() -> None:
    class Lamp(Light):
        def for_swift(self, knobs: Knobs, setup: list[str]) -> None: ...

    full = {"gear": "low", "light": "off"}
    assert missing(KNOWN["light"], full, Plain, CPU) is None
    assert missing(KNOWN["light"], {**full, "light": "high"}, Plain, CPU) == "the engine plain does not have it: choose the engine fast."
    assert option_reasons("light", full, {**KNOWN, "light": Lamp()}, Plain, CPU) == {
        "high": "the engine plain does not have it: choose the engine fast or swift."
    }


def test_an_engine_that_takes_every_technique_refuses_no_value() -> None:
    class Anything(Fast):
        any_technique = True

    assert missing(KNOWN["gear"], {"gear": "low"}, Anything, CPU) is None


def test_the_engine_has_the_last_word_on_the_footprint() -> None:
    spec = RunSpec(engine="fast")
    assert footprint_of(spec, KNOWN) == Footprint(layer_kernels=30.0)
    assert footprint_of(spec, KNOWN, Fast, "cpu") == Footprint(layer_kernels=20.0)
    assert footprint_of(spec, KNOWN, Fast, "cuda") == Footprint(layer_kernels=10.0, captured=True, rows=2)


def test_an_option_whose_name_another_knob_had_first_is_told_with_its_label() -> None:
    assert describe("gear", "high", KNOWN) == "high"
    assert describe("light", "high", KNOWN) == "Light high"
