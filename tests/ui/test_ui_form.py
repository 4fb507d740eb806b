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
from playground.ui.availability import World, device_state, engine_state, knob_state
from playground.ui.fields import fill, read, refresh, settled
from playground.ui.form import Draft, column_names, draft_of, specs_of

PACKAGES = {"bitsandbytes": "0.50", "accelerate": "1.0", "torch": "2.13", "transformers": "5.23"}
MACHINE = Machine("host", "cpu", 2, 16 * 10**9, 8 * 10**9, no_cuda="no driver", packages=PACKAGES)
WORLD = World(techniques(), engines(), MACHINE)


class NoSettings(Engine):
    name = "bare"
    title = "Bare"
    about = "Supports no technique."


class Fixed(engines()["transformers"]):
    """Like transformers with another cache by default, and on a GPU with other attention; it cannot have a cache that grows."""

    name = "fixed"
    hooks = ("transformers",)

    @classmethod
    def defaults(cls, device: str) -> dict[str, str]:
        return {"kv_cache": "static", **({"attention": "eager"} if device == "cuda" else {})}


class Cache(type(techniques()["kv_cache"])):
    def refuses_fixed(self, knobs: Any, device: str) -> str | None:
        return "it cannot grow." if knobs["kv_cache"] == "dynamic" else None


TWO = World({**techniques(), "kv_cache": Cache()}, {"transformers": engines()["transformers"], "fixed": Fixed}, MACHINE)


def test_a_draft_becomes_specs_with_labels_of_what_differs() -> None:
    draft = Draft(knobs={"precision": "fp32"}, variants=({"precision": "bf16"}, {"kv_cache": "off"}))
    specs = specs_of(draft, WORLD)
    assert column_names(specs) == ["Baseline: fp32, KV cache dynamic", "B: bf16, KV cache dynamic", "C: fp32, KV cache off"]
    assert [(s.knobs["precision"], s.knobs["kv_cache"]) for s in specs] == [("fp32", "dynamic"), ("bf16", "dynamic"), ("fp32", "off")]


def test_played_recordings_have_the_names_they_were_recorded_with() -> None:
    preset = next(item for item in recorded() if item.name == "h200-llama-3.2-1b-kv-cache-host")
    specs = specs_of(draft_of(preset.specs, WORLD), WORLD)
    assert column_names(specs) == ["Baseline: bf16", "B: fp8", "C: in host memory"]
    again = draft_of((*preset.specs[:2], preset.specs[1]), WORLD)  # the same part twice: told by what differs
    assert column_names(specs_of(again, WORLD))[0] != "Baseline: bf16"


def test_two_equal_variants_are_allowed_and_named_so() -> None:
    assert column_names(specs_of(Draft(variants=({},)), WORLD)) == ["Baseline: same settings", "B: same settings"]


@pytest.mark.parametrize("preset", [*experiments(), *recorded()], ids=lambda preset: preset.name)
def test_every_experiment_survives_the_way_through_the_form(preset: Any) -> None:
    wanted = [complete(spec, techniques(), WORLD.defaults(spec)).replace(label="") for spec in preset.specs]
    draft = draft_of(preset.specs, WORLD)
    assert [spec.replace(label="") for spec in specs_of(draft, WORLD)] == wanted


def test_a_line_break_inside_a_prompt_survives_the_form() -> None:
    spec = RunSpec(workload=Workload(prompts=("one\ntwo", "three")))
    draft = draft_of([spec], WORLD)
    assert draft.prompts == "one⏎two\nthree"
    assert specs_of(draft, WORLD)[0].workload.prompts == ("one\ntwo", "three")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"prompts": " \n "}, "There is no prompt"),
        ({"max_new_tokens": 0}, "max_new_tokens must be a whole number"),
        ({"max_new_tokens": None}, "Output length must be a whole number, got nothing"),
        ({"seed": 1.5}, "Seed must be a whole number"),
        ({"temperature": 1, "top_k": 1.5}, "Top k must be a whole number, got 1.5"),
        ({"temperature": 1, "top_p": 0}, "top_p must be above 0"),
        ({"model": ""}, "Choose a model"),
        ({"variants": ({"quantization": "int8"},)}, "B: int8 and bf16 exclude each other"),
    ],
)
def test_what_cannot_be_is_refused_in_words_that_name_the_place(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(Problem) as caught:
        specs_of(Draft(**changes), WORLD)
    assert sentence in caught.value.message


def test_a_knob_of_the_baseline_that_has_no_effect_is_left_out_and_not_an_error() -> None:
    spec = specs_of(Draft(knobs={"int8_threshold": 3.0, "quantization": "none"}), WORLD)[0]
    assert spec.knobs["int8_threshold"] == 6.0


def test_top_k_and_top_p_survive_the_form_and_an_empty_field_leaves_nothing_out() -> None:
    spec = RunSpec(workload=Workload(temperature=0.8, top_k=40, top_p=0.9))
    assert specs_of(draft_of([spec], WORLD), WORLD)[0].workload == spec.workload
    assert specs_of(Draft(temperature=0.8, top_k=None, top_p=None), WORLD)[0].workload == Workload(temperature=0.8)


def test_at_temperature_0_top_k_and_top_p_are_left_out_and_their_controls_say_why() -> None:
    for temperature in (0, None):
        draft = Draft(temperature=temperature, top_k=40, top_p=0.9)
        assert specs_of(draft, WORLD)[0].workload == Workload()
        for name in ("top_k", "top_p"):
            shown = refresh(draft, WORLD)[name]
            assert shown["interactive"] is False
            assert "Not used here: at temperature 0 the most likely token is always taken" in shown["info"]
    live = refresh(Draft(temperature=0.1), WORLD)
    assert [(live[name]["interactive"], "Not used" in live[name]["info"]) for name in ("top_k", "top_p")] == [(True, False)] * 2


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
    assert (unsupported.enabled, "the engine bare does not have it: choose the engine" in unsupported.note()) == (False, True)


def test_a_knob_that_the_engine_has_not_can_still_be_set_back() -> None:
    state = knob_state("precision", {"precision": "fp32"}, techniques(), NoSettings, MACHINE)
    assert state.enabled
    assert state.note() == "✕ fp32, fp16: the engine bare does not have it: choose the engine transformers."
    assert knob_state("batch_size", {"batch_size": 4}, techniques(), NoSettings, MACHINE).enabled


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
    draft = draft_of(specs_of(Draft(knobs={"precision": "fp16"}, variants=({"quantization": "int8"}, {"engine": "fake"})), WORLD), WORLD)
    props = fill(draft, WORLD)
    values = {key: prop["value"] for key, prop in props.items()}
    values |= {f"3.{key.removeprefix('1.')}": value for key, value in list(values.items()) if key.startswith("1.")}
    assert read(values) == draft


def test_a_refresh_shows_only_what_differs_and_disables_with_reasons() -> None:
    props = refresh(Draft(variants=({"quantization": "nf4"},)), WORLD)
    assert [props[f"{i}.box"]["visible"] for i in (1, 2, 3)] == [True, False, False]
    assert (props["1.quantization"]["visible"], props["1.precision"]["visible"], props["1.engine"]["visible"]) == (True, False, False)
    assert props["0.double_quantization"]["interactive"] is False
    assert "it applies to nf4 and fp4" in props["0.double_quantization"]["info"]
    assert ("int8 ✕", "int8") in props["0.quantization"]["choices"]
    assert props["1.summary"]["value"] == '<p class="quiet">Quantization nf4 instead of none</p>'
    assert (props["add"]["visible"], props["remove"]["visible"]) == (True, False)


def test_a_variant_with_another_engine_takes_its_defaults_and_keeps_what_was_chosen() -> None:
    draft = Draft(
        knobs={"precision": "fp32", "kv_cache": "dynamic"}, variants=({"engine": "fixed"}, {"engine": "fixed", "kv_cache": "off"})
    )
    specs = specs_of(draft, TWO)
    assert [(spec.knobs["precision"], spec.knobs["kv_cache"]) for spec in specs] == [
        ("fp32", "dynamic"),
        ("fp32", "static"),
        ("fp32", "off"),
    ]
    assert column_names(specs) == ["Baseline: transformers", "B: fixed", "C: KV cache off, fixed"]
    assert draft_of(specs, TWO).variants == ({"engine": "fixed"}, {"engine": "fixed", "kv_cache": "off"})


def test_a_value_that_is_not_the_old_engines_default_is_kept_and_refused_with_the_engines_reason() -> None:
    props = refresh(Draft(engine="fixed", knobs={"kv_cache": "dynamic"}, variants=({"engine": "transformers"},)), TWO)
    assert props["0.kv_cache"]["choices"][:3] == [("off", "off"), ("dynamic ✕", "dynamic"), ("static", "static")]
    assert "✕ dynamic: it cannot grow." in props["0.kv_cache"]["info"]
    assert props["1.summary"]["value"] == '<p class="quiet">Engine transformers instead of fixed</p>'
    static, dynamic = specs_of(Draft(engine="fixed", variants=({"engine": "transformers"},)), TWO)
    assert (static.knobs["kv_cache"], dynamic.knobs["kv_cache"]) == ("static", "dynamic")


def test_what_follows_from_another_engine_is_said_and_stands_in_the_controls() -> None:
    props = refresh(Draft(variants=({"engine": "fixed"},)), TWO)
    assert props["1.summary"]["value"] == '<p class="quiet">Engine fixed instead of transformers; with it KV cache static</p>'
    assert props["1.kv_cache"] == {"visible": False, "value": "static"}
    assert fill(Draft(variants=({"engine": "fixed"},)), TWO)["1.kv_cache"] == {"value": "static"}
    both = refresh(Draft(variants=({"engine": "fixed", "kv_cache": "off"},)), TWO)
    expected = '<p class="quiet">Engine fixed instead of transformers; KV cache off instead of dynamic</p>'
    assert both["1.summary"]["value"] == expected


def test_choosing_the_baselines_engine_moves_the_knobs_that_nobody_changed() -> None:
    draft = Draft(engine="fixed", knobs={"precision": "fp32", "kv_cache": "dynamic", "attention": "sdpa"})
    _, props = settled(draft, ("transformers", "auto"), TWO)
    assert (props["0.kv_cache"]["value"], props["place"]["value"]) == ("static", ("fixed", "auto"))
    assert "value" not in props["0.precision"]
    _, again = settled(draft, ("fixed", "auto"), TWO)
    assert "value" not in again["0.kv_cache"], "only a change of place moves knobs"
    assert settled(Draft(engine="fixed", device="cuda", knobs=draft.knobs), ("fixed", "cpu"), TWO)[1]["0.attention"]["value"] == "eager"
    off = Draft(knobs={**draft.knobs, "kv_cache": "off"})
    assert "value" not in settled(off, ("fixed", "auto"), TWO)[1]["0.kv_cache"]
