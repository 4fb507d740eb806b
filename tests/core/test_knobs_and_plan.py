"""Knobs parse what people write; plans refuse what cannot be, and variants inherit what still makes sense."""

from __future__ import annotations

from typing import Any

import pytest

from playground.core.knobs import Choice, Range, Toggle
from playground.core.machine import Gpu, Machine
from playground.core.plan import complete, option_reasons, plan_for, refusal, vary
from playground.core.problem import Problem
from playground.core.spec import RunSpec
from playground.core.technique import Technique
from playground.engines import engine_class, engines
from playground.techniques import techniques

CPU = Machine("h", "cpu", 2, 8, 4, packages={"torch": "2.13", "transformers": "5.23", "bitsandbytes": "0.50", "accelerate": "1.15"})


def test_a_choice_names_the_nearest_option() -> None:
    knob = Choice("precision", "Precision", ("fp32", "bf16"), "bf16", "help")
    assert knob.parse(" fp32 ") == "fp32"
    with pytest.raises(Problem, match="did you mean 'bf16'"):
        knob.parse("bf15")


@pytest.mark.parametrize(("text", "value"), [("on", True), ("False", False), (True, True), ("1", True), ("no", False)])
def test_a_toggle_takes_what_people_write(text: Any, value: bool) -> None:
    assert Toggle("t", "T", False, "help").parse(text) is value


def test_a_range_keeps_whole_numbers_whole_and_its_ends() -> None:
    knob = Range("batch_size", "Batch size", 1, 256, 1, 1, "help")
    assert knob.parse("256") == 256
    assert isinstance(knob.parse(4.0), int)
    for wrong in (0, 257, 1.5, "many", True, float("nan"), float("inf")):
        with pytest.raises(Problem):
            knob.parse(wrong)


def test_a_toggle_refuses_other_words() -> None:
    with pytest.raises(Problem, match="expected on or off"):
        Toggle("t", "T", False, "help").parse("maybe")


def test_an_unknown_knob_names_the_nearest_one() -> None:
    with pytest.raises(Problem, match="did you mean 'precision'"):
        complete(RunSpec(knobs={"precison": "fp32"}), techniques())


def test_completing_fills_defaults_and_types() -> None:
    knobs = complete(RunSpec(knobs={"batch_size": "8"}), techniques()).knobs
    assert knobs["batch_size"] == 8
    assert knobs["precision"] == "bf16"


def test_a_variant_drops_inherited_values_that_lost_their_effect() -> None:
    baseline = RunSpec(knobs={"quantization": "nf4", "double_quantization": True, "precision": "fp16"})
    varied = vary(baseline, {"quantization": "int8"}, techniques())
    assert "double_quantization" not in varied.knobs
    complete(varied, techniques())
    with pytest.raises(Problem):
        complete(vary(baseline, {"quantization": "int8", "double_quantization": True}, techniques()), techniques())


def test_a_variant_may_differ_in_model_and_engine_and_is_labelled_by_what_differs() -> None:
    varied = vary(RunSpec(), {"model": "shape:tiny", "batch_size": 4}, techniques())
    assert (varied.model, varied.label) == ("shape:tiny", "shape:tiny, Batch size 4")


def test_a_missing_package_is_named_with_the_cure() -> None:
    without = Machine("h", "cpu", 2, 8, 4, packages={"torch": "2.13", "transformers": "5.23"})
    spec = complete(RunSpec(knobs={"quantization": "nf4"}), techniques())
    assert "pip install bitsandbytes" in (refusal(spec, techniques(), engine_class("transformers"), without) or "")
    assert refusal(spec, techniques(), engine_class("transformers"), CPU) is None


def test_cuda_without_a_gpu_is_refused_with_the_reason() -> None:
    machine = Machine("h", "cpu", 2, 8, 4, no_cuda="torch 2.13.0+cpu is a CPU build", packages=CPU.packages)
    with pytest.raises(Problem, match="is a CPU build") as caught:
        plan_for(RunSpec(device="cuda"), techniques(), engine_class("transformers"), machine)
    assert caught.value.kind == "unsupported"


def test_an_engine_that_lacks_a_technique_says_which_one_has_it() -> None:
    for name, value, title in (("fusion", "compile", "Fusion"), ("weight_only", "int8", "Weight-only quantization")):
        spec = RunSpec(device="cpu", knobs={name: value})
        with pytest.raises(Problem) as caught:
            plan_for(spec, techniques(), engine_class("transformers"), CPU)
        assert caught.value.message == f"{title}: the engine transformers does not have it: choose the engine graph."
        assert "does not have it" not in str(refusal(complete(spec, techniques()), techniques(), engine_class("graph"), CPU))


@pytest.mark.parametrize("technique", techniques().values(), ids=lambda technique: technique.name)
def test_a_technique_has_methods_for_engines_that_exist(technique: Technique) -> None:
    named = {name.removeprefix("for_") for name in dir(technique) if name.startswith("for_")}
    assert named
    assert named <= {name for name, engine in engines().items() if not engine.any_technique}


def test_each_option_that_cannot_be_chosen_has_its_reason() -> None:
    engine, knobs = engine_class("transformers"), complete(RunSpec(), techniques()).knobs
    reasons = option_reasons("quantization", knobs, techniques(), engine, CPU)
    assert set(reasons) == {"int8"}, "with bf16 only int8 is excluded"
    old = Machine("h", "cpu", 2, 8, 4, "cuda", (Gpu("Old", "u", (5, 2), 1, 1, "1"),), packages=CPU.packages)
    assert "compute capability 6.0" in option_reasons("quantization", knobs, techniques(), engine, old)["nf4"]
