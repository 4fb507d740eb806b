"""The stable API names against the running app: with gradio_client, and as an agent has them over MCP."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
import pytest
from driver import Server
from gradio_client import Client
from gradio_client.exceptions import AppError
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client

pytestmark = pytest.mark.browser
SPEC = {"model": "script:step_ms=2", "engine": "fake", "workload": {"max_new_tokens": 6}, "protocol": {"repeats": 2}}
QUICK = {"warmups": 0, "repeats": 1, "energy": False, "quality": False, "profile": False}


@pytest.fixture(scope="module")
def client(server: Server) -> Any:
    """A client of the app."""
    return Client(server.url, verbose=False)


def test_only_the_stable_names_are_public(client: Any) -> None:
    assert sorted(client.view_api(return_format="dict")["named_endpoints"]) == ["/estimate", "/history", "/run", "/sweep"]


def test_run_of_one_spec_gives_its_result_and_leaves_it_in_the_history(client: Any) -> None:
    result = client.predict(SPEC, api_name="/run")
    assert result["status"] == "done"
    assert result["metrics"]["output_tokens"]["value"] == 6
    assert client.predict(1, api_name="/history")[0]["runs"][0]["fingerprint"] == result["fingerprint"]


def test_run_of_several_variants_gives_all_results_against_the_first(client: Any) -> None:
    answer = client.predict({"variants": [SPEC, {**SPEC, "knobs": {"precision": "fp32"}}]}, api_name="/run")
    assert [result["status"] for result in answer["results"]] == ["done", "done"]
    assert answer["results"][1]["metrics"]["matching_tokens"]["value"] == 6


def test_an_unknown_knob_is_refused_with_the_nearest_name(client: Any) -> None:
    with pytest.raises(AppError, match="did you mean 'precision'"):
        client.predict({**SPEC, "knobs": {"precison": "fp32"}}, api_name="/run")


def test_estimate_gives_bytes_and_half_of_them_in_half_precision(client: Any) -> None:
    full = client.predict({"model": "shape:llama-3.2-1b", "knobs": {"precision": "fp32"}}, api_name="/estimate")
    half = client.predict({"model": "shape:llama-3.2-1b", "knobs": {"precision": "bf16"}}, api_name="/estimate")
    assert full["weights_bytes"] == 2 * half["weights_bytes"] == 4 * 1_235_814_400


def test_a_sweep_answers_once_it_is_over_and_a_run_without_memory_is_a_result(client: Any) -> None:
    script = "script:step_ms=1,prefill_ms=1"
    full = {"engine": "fake", "model": f"{script},fail=oom,at=5", "workload": {"max_new_tokens": 4}, "protocol": QUICK}
    plan = {"baseline": full, "variant": [{"model": script}], "axes": {"batch_size": "1:4:x2"}}  # the first run takes four steps
    answer = client.predict(plan, api_name="/sweep")
    assert (answer["status"], answer["title"], answer["finished"]) == ("done", f"Batch size · {full['model']}", 6)
    assert [(cell["point"], cell["status"]) for cell in answer["cells"]] == [
        ([1], "done"), ([2], "oom"), ([4], "skipped"), ([1], "done"), ([2], "done"), ([4], "done"),
    ]  # fmt: skip
    assert [result and result["spec"]["knobs"]["batch_size"] for result in answer["results"]] == [1, 2, None, 1, 2, 4]
    assert [fact["line"] for fact in answer["facts"]] == [1]


def test_a_sweep_that_is_not_waited_for_is_found_by_its_id(client: Any) -> None:
    plan = {"baseline": {**SPEC, "protocol": QUICK}, "axes": {"max_new_tokens": [40, 41, 42]}}
    begun = client.predict(plan, False, api_name="/sweep")
    assert (begun["status"] in ("waiting", "running"), begun["results"]) == (True, [None] * 3)
    end = time.monotonic() + 60
    while (now := client.predict({"id": begun["id"]}, api_name="/sweep"))["status"] != "done":
        assert time.monotonic() < end, now["status"]
        time.sleep(0.1)
    assert [result["metrics"]["output_tokens"]["value"] for result in now["results"]] == [40, 41, 42]


@pytest.mark.parametrize(
    ("plan", "sentence"),
    [
        ({"baseline": SPEC}, "A sweep varies one or two settings, not 0: name them as axes."),
        ({"baseline": SPEC, "axes": {"batch": [1, 2]}}, "There is no axis 'batch'; did you mean 'batch_size'?"),
        (
            ({"baseline": {}, "axes": {"weight_only": ["int8", "int4"]}}),
            "Weight-only quantization: the engine transformers does not",
        ),
        ({"id": "abc"}, "There is no stored sweep 'abc'."),
        ({"id": "abc", "axes": {}}, "id asks for a sweep that there is, so axes would have no effect."),
    ],
)
def test_a_sweep_that_cannot_be_is_refused_with_a_sentence(client: Any, plan: dict[str, Any], sentence: str) -> None:
    with pytest.raises(AppError) as caught:
        client.predict(plan, api_name="/sweep")
    assert sentence in str(caught.value)


def test_an_agent_finds_four_described_tools_and_gets_json(server: Server) -> None:
    async def asked() -> tuple[list[Any], list[Any]]:
        where = f"{server.url}gradio_api/mcp/"
        async with streamable_http_client(where) as (reading, writing, _), ClientSession(reading, writing) as session:
            await session.initialize()
            tools = (await session.list_tools()).tools
            sweep = {"baseline": {**SPEC, "protocol": QUICK}, "axes": {"batch_size": [1, 2]}}
            calls = [
                ("estimate", {"spec": {"model": "shape:llama-3.2-1b", "knobs": {"precision": "bf16"}}}),
                ("run", {"experiment": SPEC}),
                ("sweep", {"plan": sweep}),
                ("history", {"limit": 1}),
                ("run", {"experiment": {**SPEC, "knobs": {"precison": "fp32"}}}),
            ]
            return tools, [await session.call_tool(name, arguments) for name, arguments in calls]

    with ThreadPoolExecutor(1) as thread:  # Playwright may have a loop of its own in this one
        tools, answers = thread.submit(anyio.run, asked).result()
    assert sorted(tool.name for tool in tools) == ["estimate", "history", "run", "sweep"]
    schemas = {tool.name: tool.inputSchema for tool in tools}
    assert all("Returns: " in tool.description and tool.inputSchema["properties"] for tool in tools)
    assert "fp16" in schemas["run"]["properties"]["experiment"]["properties"]["knobs"]["properties"]["precision"]["enum"]
    assert (schemas["sweep"]["required"], schemas["sweep"]["properties"]["wait"]["type"]) == (["plan"], "boolean")
    *found, refused = answers
    sizes, result, sweep, history = (json.loads(answer.content[0].text) for answer in found)
    assert sizes["weights_bytes"] == 2 * 1_235_814_400
    assert (result["status"], result["error"], result["metrics"]["output_tokens"]["value"]) == ("done", None, 6)
    assert [cell["status"] for cell in sweep["cells"]] == ["done", "done"]
    assert history[0]["source"] == f"sweep {sweep['id']}"
    assert refused.isError
    assert "did you mean 'precision'" in refused.content[0].text
