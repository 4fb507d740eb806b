"""Hub models, with the real client against a hub on this machine."""

from __future__ import annotations

import json
import time

import pytest
from whole_files import safetensors_bytes

from playground.core.problem import Problem
from playground.models.hub import Unreachable
from playground.models.resolve import peek, resolve

CONFIG = json.dumps({"model_type": "llama", "num_hidden_layers": 3, "max_position_embeddings": 64}).encode()


def refuse(event):
    raise AssertionError(f"nothing is fetched, yet there was {event}")


def test_a_hub_model_is_fetched_with_its_bytes_counted_and_never_asked_for_again(hub):
    weights = safetensors_bytes(300_000)
    files = {"config.json": CONFIG, "model.safetensors": weights, "pytorch_model.bin": b"pickle", "original/params.json": b"{}"}
    hub.add("someone/model", files)
    events = []
    model = resolve("someone/model", events.append)
    assert (model.kind, model.source, model.config["num_hidden_layers"]) == ("hub", "someone/model @ 0123456", 3)
    assert sorted(path.name for path in model.folder.iterdir()) == ["config.json", "model.safetensors"]
    assert (events[-1].done, events[-1].total, events[-1].unit) == (len(CONFIG) + len(weights), len(CONFIG) + len(weights), "B")
    assert not any("pytorch_model.bin" in path for path in hub.asked)
    hub.asked.clear()
    assert resolve("someone/model", refuse) == model
    assert hub.asked == []


def test_bytes_grow_while_a_file_arrives(hub, monkeypatch):
    import fake_hub

    def slowly(request, status, headers, data, body):
        request.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            request.send_header(name, value)
        request.end_headers()
        for start in range(0, len(data) if body else 0, 1 << 24):
            request.wfile.write(data[start : start + (1 << 24)])
            time.sleep(0.3)

    monkeypatch.setattr(fake_hub.FakeHub, "send", staticmethod(slowly))
    hub.add("someone/big", {"config.json": CONFIG, "model.safetensors": safetensors_bytes(1 << 24)})
    events = []
    resolve("someone/big", events.append)
    assert len({event.done for event in events if event.unit == "B" and 0 < event.done < event.total}) >= 2


def test_an_unknown_id_a_gated_model_and_a_silent_hub_are_three_sentences(hub, monkeypatch):
    from huggingface_hub import constants

    hub.add("someone/gated", {"config.json": CONFIG, "model.safetensors": safetensors_bytes()}, gated=True)
    with pytest.raises(Problem, match="The hub has no model 'someone/nothing'") as unknown:
        resolve("someone/nothing", lambda event: None)
    with pytest.raises(Problem, match=r"someone/gated is gated: accept its licence on http.*/someone/gated") as gated:
        resolve("someone/gated", lambda event: None)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    start = time.monotonic()
    with pytest.raises(Unreachable, match=r"does not answer.*smollm2-135m-instruct.*shape:") as silent:
        resolve("someone/else", lambda event: None)
    assert time.monotonic() - start < 6
    assert {problem.value.kind for problem in (unknown, gated, silent)} == {"model"}


def test_offline_mode_is_named_as_the_reason(home):
    with pytest.raises(Unreachable, match="HF_HUB_OFFLINE is set"):
        resolve("someone/model", lambda event: None)


def test_a_hub_model_with_pickles_only_is_refused_before_anything_is_fetched(hub):
    hub.add("someone/old", {"config.json": CONFIG, "pytorch_model.bin": b"pickle"})
    with pytest.raises(Problem, match=r"only as a pickle \(pytorch_model.bin\).*run any code"):
        resolve("someone/old", lambda event: None)
    assert not any("/resolve/" in path for path in hub.asked)


def test_a_hub_model_with_gguf_files_says_what_to_do(hub):
    hub.add("someone/quants", {"model-Q4_K_M.gguf": b"GGUF"})
    with pytest.raises(Problem, match=r"model-Q4_K_M.gguf, and give its path"):
        resolve("someone/quants", lambda event: None)


def test_a_truncated_file_from_the_hub_is_found_before_it_is_loaded(hub):
    hub.add("someone/cut", {"config.json": CONFIG, "model.safetensors": safetensors_bytes()[:-1]})
    with pytest.raises(Problem, match=r"model.safetensors is cut short"):
        resolve("someone/cut", lambda event: None)


def test_peek_fetches_the_small_config_and_no_weights(hub):
    hub.add("someone/model", {"config.json": CONFIG, "model.safetensors": safetensors_bytes()})
    facts = peek("someone/model")
    assert (facts.kind, facts.context_length) == ("hub", 64)
    assert not any("safetensors" in path for path in hub.asked)
    assert peek("someone/nothing") is None


def test_the_default_model_comes_from_the_hub_where_one_answers(hub):
    hub.add("HuggingFaceTB/SmolLM2-135M-Instruct", {"config.json": CONFIG, "model.safetensors": safetensors_bytes()})
    model = resolve("smollm2-135m-instruct", lambda event: None)
    assert (model.kind, model.source) == ("default", "HuggingFaceTB/SmolLM2-135M-Instruct @ 0123456")
    assert resolve("smollm2-135m-instruct", refuse) == model
