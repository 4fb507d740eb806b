"""What clients and agents are told of the API: names, types and descriptions, from `get_api_info` as Gradio makes it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_ui_form import MACHINE

from playground.core.plan import knob_index
from playground.core.spec import Protocol, RunSpec, Workload
from playground.results.store import Store
from playground.run.jobs import Jobs
from playground.techniques import techniques
from playground.ui.page import build_page

Endpoints = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def blocks() -> Iterator[Any]:
    """The page on a store in memory."""
    store = Store(Path(":memory:"))
    store.create("Precision ladder", [RunSpec(model="shape:tiny", knobs={"precision": "fp32"})])
    store.create("Cache", [RunSpec(model="shape:tiny", knobs={"kv_cache": "off"})])
    yield build_page(Jobs(store), store, MACHINE)
    store.close()


@pytest.fixture(scope="module")
def endpoints(blocks: Any) -> Endpoints:
    """The public endpoints as clients see them."""
    found: Endpoints = blocks.get_api_info()["named_endpoints"]
    return found


def taken(endpoints: Endpoints, name: str) -> dict[str, Any]:
    """The schemas of an endpoint's parameters."""
    return {parameter["parameter_name"]: parameter["type"] for parameter in endpoints[name]["parameters"]}


@pytest.mark.parametrize(("endpoint", "parameter"), [("/run", "experiment"), ("/estimate", "spec")])
def test_a_spec_is_typed_down_to_every_knob_and_option(endpoints: Endpoints, endpoint: str, parameter: str) -> None:
    schema = taken(endpoints, endpoint)[parameter]
    assert "required" not in schema
    assert set(RunSpec().to_dict()) <= set(schema["properties"])
    assert set(schema["properties"]["workload"]["properties"]) == set(Workload.__dataclass_fields__)
    assert set(schema["properties"]["protocol"]["properties"]) == set(Protocol.__dataclass_fields__)
    knobs = schema["properties"]["knobs"]["properties"]
    assert set(knobs) == set(knob_index(techniques()))
    assert knobs["precision"] == {"enum": ["fp32", "fp16", "bf16"]}
    assert (knobs["batch_size"], knobs["int8_threshold"]) == ({"type": "integer"}, {"type": "number"})
    assert (knobs["double_quantization"], knobs["adapter"]) == ({"type": "boolean"}, {"type": "string"})
    assert "transformers" in schema["properties"]["engine"]["enum"]
    assert schema["properties"]["workload"]["properties"]["prompts"] == {"type": "array", "items": {"type": "string"}}


def test_a_sweep_is_typed_down_to_the_values_of_each_axis(endpoints: Endpoints) -> None:
    plan = taken(endpoints, "/sweep")["plan"]["properties"]
    axes = plan["axes"]["properties"]
    assert set(axes) == {*knob_index(techniques()), "prompt_tokens", "max_new_tokens", "model", "engine", "device"}
    assert axes["precision"] == {"type": "array", "items": {"enum": ["fp32", "fp16", "bf16"]}}
    whole = {"anyOf": [{"type": "array", "items": {"type": "integer"}}, {"type": "string"}]}  # a list, or a range such as 1:64:x2
    assert (axes["batch_size"], axes["prompt_tokens"]) == (whole, whole)
    assert {"batch-size", "kv-cache"} <= set(plan["preset"]["enum"])
    assert plan["baseline"] == taken(endpoints, "/estimate")["spec"]
    wait = next(parameter for parameter in endpoints["/sweep"]["parameters"] if parameter["parameter_name"] == "wait")
    assert (wait["type"], wait["parameter_default"]) == ({"type": "boolean"}, True)


def test_answers_are_typed_too(endpoints: Endpoints) -> None:
    assert endpoints["/run"]["returns"][0]["type"]["type"] == "object"
    sizes = endpoints["/estimate"]["returns"][0]["type"]["properties"]
    assert (sizes["total_bytes"], sizes["note"]) == ({"type": "integer"}, {"type": "string"})
    cell = endpoints["/sweep"]["returns"][0]["type"]["properties"]["cells"]["items"]["properties"]
    assert (cell["label"], cell["index"]) == ({"type": "string"}, {"type": "integer"})
    line = endpoints["/history"]["returns"][0]["type"]["items"]["properties"]
    assert line["techniques"] == {"type": "array", "items": {"type": "string"}}
    assert set(line["runs"]["items"]["properties"]["metrics"]["additionalProperties"]["properties"]) == {"value", "low", "high", "kind"}


def test_the_history_is_filtered_by_parameters_with_defaults(endpoints: Endpoints) -> None:
    parameters = endpoints["/history"]["parameters"]
    names = ["limit", "offset", "text", "model", "technique", "device", "status", "since", "until", "kind"]
    assert [parameter["parameter_name"] for parameter in parameters] == names
    assert [parameter["parameter_default"] for parameter in parameters] == [50, 0, *[""] * 8]
    assert "kv_cache" in taken(endpoints, "/history")["technique"]["enum"]


def test_every_tool_and_every_parameter_is_described(blocks: Any, endpoints: Endpoints) -> None:
    from gradio.utils import get_function_description

    assert set(endpoints) == {"/run", "/sweep", "/estimate", "/history"}
    for name, endpoint in endpoints.items():
        function = next(fn.fn for fn in blocks.fns.values() if fn.api_name == name.removeprefix("/"))
        description, parameters, returns = get_function_description(function)
        assert description == endpoint["description"]
        assert len(description) > 60
        assert "Args" not in description
        assert [parameter for parameter, text in parameters.items() if len(text) < 10] == []
        assert len(returns) == 1  # Gradio would join the lines of a longer one with commas
    assert "quantization (none): Bits of the linear weights (bitsandbytes)" in endpoints["/run"]["description"]
    assert "KNOBS" not in endpoints["/run"]["description"]


def test_the_history_answers_with_what_the_filters_leave(blocks: Any) -> None:
    function = next(fn.fn for fn in blocks.fns.values() if fn.api_name == "history")
    assert [line["title"] for line in function(technique="kv_cache")] == ["Cache"]
    assert [line["title"] for line in function(1, 1)] == ["Precision ladder"]
    with pytest.raises(Exception, match="since must be a day"):
        function(since="soon")
