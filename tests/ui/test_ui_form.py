"""The form: from settings to specs and back, what can be chosen and why not."""

from __future__ import annotations

from typing import Any

import pytest

from playground.core.engine import Engine
from playground.core.machine import Gpu, Machine
from playground.core.plan import complete
from playground.core.problem import Problem
from playground.core.spec import RunSpec, Workload
from playground.engines import engines
from playground.presets import experiments, recorded
from playground.techniques import techniques
from playground.ui.availability import device_state, engine_state, knob_state
from playground.ui.fields import World, fill, keeping_place, read, refresh
from playground.ui.form import Draft, column_names, draft_of, specs_of

PACKAGES = {"bitsandbytes": "0.50", "accelerate": "1.0", "torch": "2.13", "transformers": "5.23"}
MACHINE = Machine("host", "cpu", 2, 16 * 10**9, 8 * 10**9, no_cuda="no driver", packages=PACKAGES)


class NoSettings(Engine):
    name = "bare"
    title = "Bare"
    about = "Supports no technique."


def test_a_draft_becomes_specs_with_labels_of_what_differs() -> None:
    draft = Draft(knobs={"precision": "fp32"}, variants=({"precision": "bf16"}, {"kv_cache": "off"}))
    specs = specs_of(draft, techniques())
    assert column_names(specs) == ["Baseline: fp32, KV cache dynamic", "B: bf16, KV cache dynamic", "C: fp32, KV cache off"]
    assert [(s.knobs["precision"], s.knobs["kv_cache"]) for s in specs] == [("fp32", "dynamic"), ("bf16", "dynamic"), ("fp32", "off")]


def test_two_equal_variants_are_allowed_and_named_so() -> None:
    assert column_names(specs_of(Draft(variants=({},)), techniques())) == ["Baseline: same settings", "B: same settings"]


@pytest.mark.parametrize("preset", [*experiments(), *recorded()], ids=lambda preset: preset.name)
def test_every_experiment_survives_the_way_through_the_form(preset: Any) -> None:
    known = techniques()
    wanted = [complete(spec, known).replace(label="") for spec in preset.specs]
    draft = draft_of(preset.specs, known)
    assert [spec.replace(label="") for spec in specs_of(draft, known)] == wanted


def test_a_line_break_inside_a_prompt_survives_the_form() -> None:
    spec = RunSpec(workload=Workload(prompts=("one\ntwo", "three")))
    draft = draft_of([spec], techniques())
    assert draft.prompts == "one⏎two\nthree"
    assert specs_of(draft, techniques())[0].workload.prompts == ("one\ntwo", "three")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"prompts": " \n "}, "There is no prompt"),
        ({"max_new_tokens": 0}, "max_new_tokens must be a whole number"),
        ({"max_new_tokens": None}, "Output length must be a whole number, got nothing"),
        ({"seed": 1.5}, "Seed must be a whole number"),
        ({"model": ""}, "Choose a model"),
        ({"variants": ({"quantization": "int8"},)}, "B: int8 and bf16 exclude each other"),
    ],
)
def test_what_cannot_be_is_refused_in_words_that_name_the_place(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(Problem) as caught:
        specs_of(Draft(**changes), techniques())
    assert sentence in caught.value.message


def test_a_knob_of_the_baseline_that_has_no_effect_is_left_out_and_not_an_error() -> None:
    spec = specs_of(Draft(knobs={"int8_threshold": 3.0, "quantization": "none"}), techniques())[0]
    assert spec.knobs["int8_threshold"] == 6.0


def test_options_that_cannot_be_chosen_carry_the_techniques_own_reason() -> None:
    state = knob_state("quantization", {"precision": "bf16"}, techniques(), engines()["transformers"], MACHINE)
    assert state.enabled
    assert set(state.options) == {"int8"}
    assert "Set precision to fp16" in state.note()
    bare = Machine("host", "cpu", 2, 1, 1, packages={})
    missing = knob_state("quantization", {}, techniques(), engines()["transformers"], bare)
    assert "pip install bitsandbytes" in missing.options["nf4"]
    assert missing.note().count("pip install bitsandbytes") == 1


def test_a_knob_without_effect_and_a_knob_without_support_are_disabled_with_the_reason() -> None:
    idle = knob_state("int8_threshold", {"quantization": "nf4"}, techniques(), engines()["transformers"], MACHINE)
    assert (idle.enabled, idle.note()) == (False, "Not used here: it applies to int8.")
    assert knob_state("int8_threshold", {"quantization": "int8", "precision": "fp16"}, techniques(), engines()["fake"], MACHINE).enabled
    unsupported = knob_state("precision", {}, techniques(), NoSettings, MACHINE)
    assert (unsupported.enabled, "the engine bare has no such setting" in unsupported.note()) == (False, True)


def test_cuda_and_engines_that_cannot_run_here_say_why() -> None:
    assert device_state(MACHINE).options == {"cuda": "no driver"}
    gpu = Gpu("H200", "GPU-1", (9, 0), 10, 10, "580")
    assert device_state(Machine("h", "c", 1, 1, 1, "cuda", (gpu,))).options == {}

    class Refusing(NoSettings):
        @classmethod
        def refuses(cls, machine: Machine, device: str) -> str | None:
            return f"not on {device}"

    assert engine_state({"bare": NoSettings, "no": Refusing}, MACHINE, "auto").options == {"no": "not on cpu"}


def test_filling_the_form_and_reading_it_gives_the_same_draft() -> None:
    known = techniques()
    draft = draft_of(specs_of(Draft(knobs={"precision": "fp16"}, variants=({"quantization": "int8"}, {"engine": "fake"})), known), known)
    props = fill(draft, known)
    values = {key: prop["value"] for key, prop in props.items()}
    values |= {f"3.{key.removeprefix('1.')}": value for key, value in list(values.items()) if key.startswith("1.")}
    assert read(values) == draft


def test_a_refresh_shows_only_what_differs_and_disables_with_reasons() -> None:
    world = World(techniques(), engines(), MACHINE)
    props = refresh(Draft(variants=({"quantization": "nf4"},)), world)
    assert [props[f"{i}.box"]["visible"] for i in (1, 2, 3)] == [True, False, False]
    assert (props["1.quantization"]["visible"], props["1.precision"]["visible"], props["1.engine"]["visible"]) == (True, False, False)
    assert props["0.double_quantization"]["interactive"] is False
    assert "it applies to nf4 and fp4" in props["0.double_quantization"]["info"]
    assert ("int8 ✕", "int8") in props["0.quantization"]["choices"]
    assert props["1.summary"]["value"] == '<p class="quiet">Quantization nf4 instead of none</p>'
    assert (props["add"]["visible"], props["remove"]["visible"]) == (True, False)


def test_a_preset_keeps_the_model_and_engine_of_the_page_unless_it_names_others() -> None:
    current = Draft(model="shape:tiny", engine="fake", device="cpu")
    kept = keeping_place(Draft(max_new_tokens=7), current)
    assert (kept.model, kept.engine, kept.device, kept.max_new_tokens) == ("shape:tiny", "fake", "cpu", 7)
    assert keeping_place(Draft(model="shape:qwen3-0.6b"), current).model == "shape:qwen3-0.6b"
