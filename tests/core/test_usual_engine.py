"""The engine for what names none: which one, and why another takes its place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from playground.core.engine import Engine
from playground.core.knobs import Choice
from playground.core.machine import Gpu, Machine
from playground.core.problem import Problem
from playground.core.spec import RunSpec
from playground.core.technique import Technique
from playground.core.usual import objection, told, usual_engine
from playground.engines import engines

CPU = Machine("h", "cpu", 2, 8, 4, no_cuda="no driver")
CUDA = replace(CPU, device="cuda", gpus=(Gpu("H200", "u", (9, 0), 1, 1, "1"),))
SIZES = {"llama": {"model_type": "llama"}, "gpt": {"model_type": "gpt2"}}


class Gear(Technique):
    name = "gear"
    title = "Gear"
    order = 1
    phase = "run"
    knobs = (Choice("gear", "Gear", ("low", "high"), "low", "help"),)

    def for_transformers(self, knobs: Any, setup: Any) -> None: ...

    def for_fast(self, knobs: Any, setup: Any) -> None: ...

    def refuses_fast(self, knobs: Any, device: str) -> str | None:
        return "it has one gear: choose low." if knobs["gear"] == "high" else None


class Plain(Engine):
    name = "transformers"


class Fast(Engine):
    name = "fast"
    usual_on = ("cuda",)

    @classmethod
    def refuses_model(cls, config: Mapping[str, Any]) -> str | None:
        return "It runs llamas alone." if config["model_type"] != "llama" else None


KNOWN = {"gear": Gear()}
TWO = {"fast": Fast, "transformers": Plain}


def why(*specs: RunSpec, machine: Machine = CUDA) -> str:
    return objection([spec.replace(engine="fast") for spec in specs], KNOWN, TWO, machine, SIZES.get)


def test_an_engine_is_usual_on_its_device_where_that_is_there() -> None:
    assert [usual_engine(TWO, CUDA, device) for device in ("auto", "cuda", "cpu")] == ["fast", "fast", "transformers"]
    assert [usual_engine(TWO, CPU, device) for device in ("auto", "cuda", "cpu")] == ["transformers"] * 3
    assert usual_engine({"transformers": Plain}, CUDA) == "transformers"


def test_settings_and_models_that_it_cannot_run_are_an_objection() -> None:
    assert why(RunSpec(model="llama"), RunSpec(model="llama", knobs={"gear": "low"})) == ""
    assert why(RunSpec(model="llama"), RunSpec(model="llama", knobs={"gear": "high"})) == "Gear: it has one gear: choose low."
    assert why(RunSpec(model="llama"), RunSpec(model="gpt")) == "It runs llamas alone."
    assert told("fast", why(RunSpec(model="gpt"))) == "Engine transformers, not fast: It runs llamas alone."


def test_a_model_of_which_nothing_is_known_is_no_objection() -> None:
    assert why(RunSpec(model="someone/else")) == ""


def test_what_no_engine_could_run_is_no_objection_to_one() -> None:
    assert why(RunSpec(model="llama", knobs={"gear": "sideways"})) == ""
    assert why(RunSpec(model="gpt", knobs={"gear": "sideways"})) == "It runs llamas alone."


def test_an_engine_admits_a_model_or_says_what_to_do() -> None:
    Fast.admit(SIZES["llama"])
    Plain.admit({})
    with pytest.raises(Problem, match=r"It runs llamas alone\. Choose the engine transformers\.") as caught:
        Fast.admit(SIZES["gpt"])
    assert caught.value.kind == "unsupported"


def test_with_a_gpu_graph_is_usual_and_says_of_every_model_whether_it_runs_it() -> None:
    assert (usual_engine(engines(), CUDA), usual_engine(engines(), CPU)) == ("graph", "transformers")
    refuses = engines()["graph"].refuses_model
    assert refuses({"model_type": "llama"}) is None
    assert refuses({"model_type": "qwen2", "use_sliding_window": False, "sliding_window": 4096}) is None
    assert refuses({"model_type": "gpt2"}) == "The engine graph runs the families llama, mistral, qwen2, qwen3, smollm3, not gpt2."
    assert "sliding window" in str(refuses({"model_type": "mistral"}))
    assert [engine.refuses_model({"model_type": "gpt2"}) for name, engine in engines().items() if name != "graph"] == [None] * 3


def test_a_spec_that_names_no_engine_still_means_transformers() -> None:
    assert RunSpec.from_dict({}).engine == RunSpec.engine == "transformers"
