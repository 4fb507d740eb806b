"""The stable API names, with gradio_client against the running app."""

from __future__ import annotations

from typing import Any

import pytest
from driver import Server
from gradio_client import Client
from gradio_client.exceptions import AppError

pytestmark = pytest.mark.browser
SPEC = {"model": "script:step_ms=2", "engine": "fake", "workload": {"max_new_tokens": 6}, "protocol": {"repeats": 2}}


@pytest.fixture(scope="module")
def client(server: Server) -> Any:
    """A client of the app."""
    return Client(server.url, verbose=False)


def test_only_the_three_stable_names_are_public(client: Any) -> None:
    assert sorted(client.view_api(return_format="dict")["named_endpoints"]) == ["/estimate", "/history", "/run"]


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
