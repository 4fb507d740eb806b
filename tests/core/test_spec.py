"""Specs: what is accepted, what is refused with which sentence, and what makes two runs the same."""

from __future__ import annotations

import hashlib
import json
import tomllib
from typing import Any

import pytest

from playground.core.problem import Problem
from playground.core.spec import PROTOCOLS, Protocol, RunSpec, Workload


def test_a_spec_survives_json() -> None:
    spec = RunSpec("m", knobs={"precision": "fp32"}, workload=Workload(("a", "b"), temperature=0.7), protocol=Protocol(0, 2, quality=False))
    assert RunSpec.from_dict(spec.to_dict()) == spec


def test_a_spec_reads_from_toml() -> None:
    text = 'model = "shape:tiny"\nknobs = { batch_size = 2 }\nworkload = { prompts = ["hi"], max_new_tokens = 3 }'
    spec = RunSpec.from_dict(tomllib.loads(text))
    assert (spec.model, spec.knobs, spec.workload.prompts, spec.workload.max_new_tokens) == ("shape:tiny", {"batch_size": 2}, ("hi",), 3)


def test_the_fingerprint_ignores_the_label_and_nothing_else() -> None:
    spec = RunSpec()
    assert spec.replace(label="x").fingerprint() == spec.fingerprint()
    for other in (
        spec.replace(model="m"),
        spec.replace(device="cpu"),
        spec.replace(workload=Workload(seed=1)),
        spec.replace(knobs={"a": 1}),
    ):
        assert other.fingerprint() != spec.fingerprint()


def test_a_draw_may_be_narrowed_and_survives_json_and_toml() -> None:
    text = 'model = "shape:tiny"\nworkload = { temperature = 0.8, top_k = 40, top_p = 0.9 }'
    spec = RunSpec.from_dict(tomllib.loads(text))
    assert spec.workload == Workload(temperature=0.8, top_k=40, top_p=0.9)
    assert RunSpec.from_dict(spec.to_dict()) == spec
    assert RunSpec.from_dict({"workload": {"temperature": 0.8, "top_p": 1}}).workload == Workload(temperature=0.8)


def test_top_k_and_top_p_make_another_measurement_and_their_defaults_the_one_of_before_there_were_such_settings() -> None:
    drawn = Workload(temperature=0.8)
    kinds = [drawn, Workload(temperature=0.8, top_k=40), Workload(temperature=0.8, top_p=0.9)]
    assert len({RunSpec(workload=work).fingerprint() for work in kinds}) == 3
    data = RunSpec(workload=drawn).to_dict()
    assert [data["workload"].pop(name) for name in ("top_k", "top_p", "prompt_tokens")] == [0, 1.0, 0]
    old = {**data, "protocol": {name: value for name, value in data["protocol"].items() if name != "price_per_hour"}}
    del old["label"]
    by_hand = hashlib.sha256(json.dumps(old, sort_keys=True).encode()).hexdigest()[:16]
    assert RunSpec.from_dict(data).fingerprint() == RunSpec(workload=drawn).fingerprint() == by_hand


def test_the_price_of_a_machine_does_not_make_another_measurement() -> None:
    assert RunSpec(protocol=Protocol(price_per_hour=2)).fingerprint() == RunSpec().fingerprint()
    assert RunSpec(protocol=Protocol(evaluation="full")).fingerprint() != RunSpec().fingerprint()


def test_the_named_protocols_are_what_the_page_promises() -> None:
    assert {name: (p.warmups, p.repeats, p.rounds) for name, p in PROTOCOLS.items()} == {
        "quick": (1, 3, 1),
        "standard": (2, 5, 1),
        "careful": (3, 10, 2),
    }


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ({"workload": {"prompts": ["ok", "  "]}}, "Prompt 2 is empty"),
        ({"workload": {"prompts": []}}, "at least one prompt"),
        ({"workload": {"prompts": 5}}, "prompts must be a text or a list of texts, got 5"),
        ({"workload": {"prompts": None}}, "prompts must be a text or a list of texts, got None"),
        ({"workload": {"prompts": {"a": 1}}}, "prompts must be a text or a list of texts"),
        ({"workload": {"prompts": b"ab"}}, "prompts must be a text or a list of texts"),
        ({"workload": {"prompts": ["ok", 5]}}, "Prompt 2 must be a text, got 5"),
        ({"workload": {"prompts": ["ab\udcff"]}}, r"Prompt 1 is not valid Unicode: U\+DCFF at character 3"),
        ({"label": "\ud800"}, r"label is not valid Unicode: U\+D800 at character 1"),
        ({"workload": {"temperature": 10**400}}, "temperature must be from 0"),
        ({"workload": {"max_new_tokens": 0}}, "max_new_tokens must be a whole number from 1"),
        ({"workload": {"max_new_tokens": -5}}, "max_new_tokens must be a whole number from 1"),
        ({"workload": {"max_new_tokens": True}}, "max_new_tokens must be a whole number"),
        ({"workload": {"temperature": -1}}, "temperature must be from 0"),
        ({"workload": {"temperature": float("nan")}}, "temperature must be from 0"),
        ({"workload": {"seed": -1}}, "seed must be a whole number"),
        ({"workload": {"temperature": 1, "top_k": -1}}, "top_k must be a whole number from 0"),
        ({"workload": {"temperature": 1, "top_k": 1.5}}, "top_k must be a whole number from 0"),
        ({"workload": {"temperature": 1, "top_k": True}}, "top_k must be a whole number from 0"),
        ({"workload": {"temperature": 1, "top_k": 10**400}}, "top_k must be a whole number from 0"),
        ({"workload": {"temperature": 1, "top_p": 0}}, "top_p must be above 0 and at most 1"),
        ({"workload": {"temperature": 1, "top_p": 1.01}}, "top_p must be above 0 and at most 1"),
        ({"workload": {"temperature": 1, "top_p": float("nan")}}, "top_p must be above 0 and at most 1"),
        ({"workload": {"temperature": 1, "top_p": "0.9"}}, "top_p must be a number, got '0.9'"),
        ({"workload": {"temperature": 1, "top_p": True}}, "top_p must be a number, got True"),
        ({"workload": {"top_k": 40}}, "top_k=40 has no effect here: at temperature 0 the most likely token is always taken"),
        ({"workload": {"top_p": 0.9}}, "top_p=0.9 has no effect here: .* Set a temperature above 0"),
        ({"workload": {"ignore_eos": "yes"}}, "ignore_eos must be true or false"),
        ({"workload": {"max_tokens": 5}}, "did you mean 'max_new_tokens'"),
        ({"protocol": {"repeats": 0}}, "repeats must be a whole number from 1"),
        ({"protocol": {"repeats": 2, "rounds": 3}}, "rounds must be a whole number from 1 to 2"),
        ({"protocol": {"evaluation": "ful"}}, "no evaluation 'ful'; did you mean 'full'"),
        ({"protocol": {"energy": 1}}, "energy must be true or false"),
        ({"protocol": {"price_per_hour": -1}}, "price_per_hour must be a number of at least 0"),
        ({"protocol": {"price_per_hour": float("inf")}}, "price_per_hour must be a number of at least 0"),
        ({"protocol": {"text": 5}}, "The evaluation text must be a text"),
        ({"device": "gpu"}, "no device 'gpu'"),
        ({"model": " "}, "Choose a model"),
        ({"modle": "x"}, "did you mean 'model'"),
        ({"knobs": ["precision"]}, "knobs must be a table"),
    ],
)
def test_bad_input_is_refused_with_a_sentence(data: dict[str, Any], sentence: str) -> None:
    with pytest.raises(Problem, match=sentence) as caught:
        RunSpec.from_dict(data)
    assert caught.value.kind == "user"
