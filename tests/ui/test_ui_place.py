"""The engine that the form stands on: the machine's usual one while nobody has chosen another, and the sentence where that cannot be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from playground.core.machine import Gpu, Machine
from playground.core.plan import complete, refusal
from playground.core.problem import Problem
from playground.core.spec import RunSpec, Workload
from playground.engines import engines
from playground.models.catalogue import find
from playground.presets import experiments
from playground.results.store import Store
from playground.run.jobs import Jobs
from playground.techniques import techniques
from playground.ui.availability import World, knob_state
from playground.ui.fields import NOWHERE, fill, form_of, read, refresh, settled
from playground.ui.form import Draft, draft_of, specs_of
from playground.ui.handlers import App, check, known_models
from playground.ui.memory import Facts
from playground.ui.page import build_page
from playground.ui.place import keeping_place, standing

PACKAGES = dict.fromkeys(("bitsandbytes", "accelerate", "torch", "transformers", "triton"), "1")
ON_CPU = Machine("host", "cpu", 2, 16 * 10**9, 8 * 10**9, no_cuda="no driver", packages=PACKAGES)
ON_GPU = replace(ON_CPU, device="cuda", no_cuda="", gpus=(Gpu("H200", "u", (9, 0), 141 * 10**9, 140 * 10**9, "580"),))
CONFIGS = {"smollm2-135m-instruct": {"model_type": "llama"}, "gpt2": {"model_type": "gpt2"}}
CPU, GPU = (World(techniques(), engines(), machine, CONFIGS.get) for machine in (ON_CPU, ON_GPU))
START = Draft(engine="graph")
STAYS = ("graph", "auto")
NOT_GPT2 = "The engine graph runs the families llama, mistral, qwen2, qwen3, smollm3, not gpt2."
GRAPHS = {"kv_cache": "static", "attention": "split_kv", "fusion": "compile"}
PLAINS = {"kv_cache": "dynamic", "attention": "sdpa", "fusion": "off"}


def shown(draft: Draft) -> dict[str, Any]:
    return {name: draft.knobs[name] for name in GRAPHS}


def values_of(page: Any) -> dict[str, Any]:
    return {block.elem_id: block.value for block in page.blocks.values() if getattr(block, "elem_id", None) in ("engine", "knob-1-engine")}


@pytest.mark.parametrize(("machine", "engine"), [(ON_GPU, "graph"), (ON_CPU, "transformers")])
def test_the_page_opens_with_the_machines_usual_engine(machine: Machine, engine: str, tmp_path: Path) -> None:
    store = Store(tmp_path / "results.sqlite")
    assert values_of(build_page(Jobs(store), store, machine)) == {"engine": engine, "knob-1-engine": engine}
    store.close()


def test_the_first_look_gives_every_knob_the_usual_engines_default() -> None:
    found = standing(START, NOWHERE, "graph", GPU)
    assert (found.draft.engine, found.own, found.why, shown(found.draft)) == ("graph", "graph", "", GRAPHS)
    plain = standing(Draft(), NOWHERE, "transformers", CPU)
    assert (plain.draft.engine, plain.own, plain.why, shown(plain.draft)) == ("transformers", "transformers", "", PLAINS)


def test_a_model_that_the_usual_engine_cannot_run_falls_back_in_words_and_another_comes_back() -> None:
    fallen, props = settled(replace(START, model="gpt2", knobs=GRAPHS), STAYS, GPU, "graph")
    assert (fallen.engine, shown(fallen)) == ("transformers", PLAINS)
    assert (props["engine"]["value"], props["own"]["value"], props["place"]["value"]) == (
        "transformers",
        "transformers",
        ("transformers", "auto"),
    )
    assert f"Engine transformers, not graph: {NOT_GPT2}" in props["engine_note"]["value"]
    assert props["0.kv_cache"]["value"] == "dynamic"
    back, props = settled(replace(fallen, model="smollm2-135m-instruct"), ("transformers", "auto"), GPU, "transformers")
    assert (back.engine, shown(back), props["own"]["value"], props["engine_note"]["value"]) == ("graph", GRAPHS, "graph", "")


def test_an_engine_that_a_person_has_chosen_stays_and_shows_the_reason() -> None:
    chosen, props = settled(replace(START, model="gpt2", knobs=GRAPHS), ("transformers", "auto"), GPU, "transformers")
    assert (chosen.engine, props["own"]["value"], "value" in props["engine"]) == ("graph", "", False)
    assert (NOT_GPT2 in props["engine_note"]["value"], "not graph" in props["engine_note"]["value"]) == (True, False)
    assert ("graph ✕", "graph") in props["engine"]["choices"]
    assert NOT_GPT2 in props["engine"]["info"]
    later = settled(replace(chosen, model="smollm2-135m-instruct"), STAYS, GPU, "")[1]
    assert (later["own"]["value"], later["engine_note"]["value"]) == ("", "")
    plain = settled(Draft(), ("graph", "auto"), GPU, "graph")[0]
    assert plain.engine == "transformers", "whoever chooses transformers keeps it"


def test_a_column_that_brings_another_model_takes_the_engine_of_all_back_and_one_with_its_own_engine_does_not() -> None:
    inherits = replace(START, variants=({"model": "gpt2"},))
    found = standing(inherits, NOWHERE, "graph", GPU)
    assert (found.draft.engine, found.why) == ("transformers", f"Engine transformers, not graph: {NOT_GPT2}")
    named = standing(replace(START, variants=({"model": "gpt2", "engine": "transformers"},)), NOWHERE, "graph", GPU)
    assert (named.draft.engine, named.why) == ("graph", "")
    summary = refresh(inherits, GPU)["1.summary"]["value"]
    assert summary.startswith('<p class="quiet">Model gpt2 instead of smollm2-135m-instruct</p>')
    assert NOT_GPT2 in summary, "a column with graph says why it cannot run"
    explicit = refresh(replace(START, engine="transformers", variants=({"model": "gpt2", "engine": "graph"},)), GPU)
    assert NOT_GPT2 in explicit["1.summary"]["value"]
    assert ("graph ✕", "graph") in explicit["1.engine"]["choices"]


def test_settings_that_the_usual_engine_cannot_have_keep_transformers_and_what_is_wrong_anyway_changes_nothing() -> None:
    eager = Draft(model="gpt2", knobs={**PLAINS, "attention": "eager"})
    found = standing(replace(eager, model="smollm2-135m-instruct"), ("transformers", "auto"), "transformers", GPU)
    assert (found.draft.engine, "no eager attention" in found.why) == ("transformers", True)
    wrong = standing(replace(START, prompts="", knobs={"quantization": "int8", "int8_threshold": 0.0}), NOWHERE, "graph", GPU)
    assert (wrong.draft.engine, wrong.why) == ("graph", ""), "int8 needs fp16 with every engine, and a prompt is needed too"


def test_the_usual_engine_follows_the_device() -> None:
    onto_cpu = standing(replace(START, device="cpu", knobs=GRAPHS), STAYS, "graph", GPU)
    assert (onto_cpu.draft.engine, onto_cpu.own, onto_cpu.why, shown(onto_cpu.draft)) == ("transformers", "transformers", "", PLAINS)


def test_a_preset_keeps_the_model_and_engine_of_the_page_unless_it_names_others() -> None:
    current = Draft(model="shape:tiny", engine="fake", device="cpu")
    (kept,), remark, own = keeping_place([RunSpec(workload=Workload(max_new_tokens=7))], current, CPU)
    assert (kept.model, kept.engine, kept.device, kept.workload.max_new_tokens, remark, own) == ("shape:tiny", "fake", "cpu", 7, "", "")
    (other,), _, own = keeping_place([RunSpec(model="shape:qwen3-0.6b")], current, CPU)
    assert (other.model, other.engine, own) == ("shape:qwen3-0.6b", "transformers", "transformers")
    compared, _, own = keeping_place([RunSpec(), RunSpec(engine="graph")], Draft(engine="graph"), GPU, "graph")
    assert [(spec.engine, own) for spec in compared] == [("transformers", ""), ("graph", "")], "a preset that compares engines keeps them"
    (named,), _, own = keeping_place([RunSpec()], START, GPU, "graph", named=True)
    assert (named.engine, own) == ("transformers", "")


def test_a_preset_with_a_model_of_its_own_runs_on_the_usual_engine() -> None:
    recording = Draft(model="recording:x#0", engine="replay")
    for current in (START, recording):
        (spec,), remark, own = keeping_place([RunSpec(model="smollm2-360m-instruct")], current, GPU, "graph")
        assert (spec.model, spec.engine, remark, own) == ("smollm2-360m-instruct", "graph", "", "graph")
    (spec,), remark, own = keeping_place([RunSpec(model="gpt2")], START, GPU, "graph")
    assert (spec.engine, NOT_GPT2 in remark, own) == ("transformers", True, "")


@pytest.mark.parametrize("own", ["graph", ""])
def test_a_preset_that_the_engine_of_the_page_cannot_run_goes_back_to_its_own_and_says_so(own: str) -> None:
    current = replace(START, model="shape:tiny")
    kept, remark, after = keeping_place([RunSpec(knobs={"kv_cache": "off"}), RunSpec()], current, GPU, own)
    assert ([spec.engine for spec in kept], remark, after) == (["graph", "graph"], "", own)
    back, remark, after = keeping_place([RunSpec(knobs={"kv_cache": "off"}), RunSpec(knobs={"kv_cache": "dynamic"})], current, GPU, own)
    assert [(spec.model, spec.engine) for spec in back] == [("shape:tiny", "transformers")] * 2
    assert remark.startswith("The engine graph cannot run this experiment, so it is set to transformers. KV cache: a captured graph")
    draft, props = form_of(back, GPU, after)
    assert (props["own"]["value"], draft.knobs["kv_cache"]) == ("", "off")
    assert settled(draft, ("transformers", "auto"), GPU, after)[0] == draft, "no later change takes the preset's settings away"


@pytest.mark.parametrize("preset", experiments(), ids=lambda preset: preset.name)
def test_with_a_gpu_too_every_experiment_survives_the_way_through_the_form(preset: Any) -> None:
    wanted = [complete(spec, techniques(), GPU.defaults(spec)).replace(label="") for spec in preset.specs]
    draft = draft_of(preset.specs, GPU)
    assert [spec.replace(label="") for spec in specs_of(draft, GPU)] == wanted
    values = {key: prop["value"] for key, prop in fill(draft, GPU).items()}
    again = read({**values, **{f"{i}.differs": values.get(f"{i}.differs") for i in (1, 2, 3)}})
    assert again == draft


def test_a_run_of_a_model_that_its_engine_refuses_is_not_started() -> None:
    app = App(SimpleNamespace(), SimpleNamespace(), GPU)  # type: ignore[arg-type]
    check(app, [RunSpec(engine="graph", label="B")])
    check(app, [RunSpec(engine="graph", model="someone/unknown", label="B")])
    with pytest.raises(Problem, match=f"{NOT_GPT2} Choose the engine transformers.") as caught:
        check(app, [RunSpec(engine="graph", model="gpt2", label="B")])
    assert (caught.value.kind, caught.value.message[:3]) == ("unsupported", "Bas")


def test_models_of_the_form_whose_config_is_known_are_told_so_that_one_that_was_fetched_is_looked_at_again() -> None:
    app = App(SimpleNamespace(), SimpleNamespace(), GPU)  # type: ignore[arg-type]
    draft = Draft(variants=({"model": "someone/unknown"}, {"model": "gpt2"}, {"model": "gpt2", "engine": "graph"}))
    assert known_models(app, draft) == ["smollm2-135m-instruct", "gpt2"]


def test_facts_for_the_form_come_at_once_and_from_what_an_estimate_has_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, bool]] = []

    def peek(name: str, ask_hub: bool = True) -> Any:
        asked.append((name, ask_hub))
        return SimpleNamespace(config={"model_type": "gpt2"}) if ask_hub else None

    monkeypatch.setattr("playground.ui.memory.peek", peek)
    facts = Facts()
    assert facts.config("someone/model") is None
    facts.of("someone/model")
    assert facts.config("someone/model") == {"model_type": "gpt2"}
    assert asked == [("someone/model", False), ("someone/model", True)]


def test_shapes_and_the_default_model_are_known_without_asking_anyone() -> None:
    facts = Facts()
    for name in ("shape:llama-3.2-1b", "smollm2-135m-instruct", "shape:qwen3-0.6b"):
        assert facts.config(name) == find(name).config  # type: ignore[union-attr]


@pytest.mark.parametrize("threshold", [{}, {"int8_threshold": 6.0}])
def test_int8_can_be_chosen_in_the_engine_graph_on_a_gpu_and_comes_without_its_outlier_threshold(threshold: dict[str, float]) -> None:
    knobs = {"precision": "fp16", **GRAPHS}
    graph = engines()["graph"]
    assert "int8" not in knob_state("quantization", {**knobs, **threshold}, techniques(), graph, ON_GPU).options, (
        "a hidden value is in no way"
    )
    spec = specs_of(Draft(engine="graph", knobs={**knobs, "quantization": "int8"}), GPU)[0]
    assert spec.knobs["int8_threshold"] == 0
    assert refusal(spec, techniques(), graph, ON_GPU) is None
    asked = spec.replace(knobs={**spec.knobs, "int8_threshold": 6.0})
    assert "or int8_threshold 0" in str(refusal(asked, techniques(), graph, ON_GPU))
    old = complete(spec.replace(knobs={**knobs, "int8_threshold": 6.0}), techniques(), graph.defaults("cuda"))
    assert old.knobs["int8_threshold"] == 0, "without int8 a threshold of 6, as older specs name it, means nothing"
