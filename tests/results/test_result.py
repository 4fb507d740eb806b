"""The result document: its schema, its endings, and what it compares."""

import json

from playground.core.events import BatchEnd, BatchStart, Cancelled, Done, Evidence, Failed, Loaded, Output, Tick
from playground.core.spec import RunSpec
from playground.results.result import result

MS = 1_000_000
SPEC = RunSpec(knobs={"precision": "bf16"}, label="bf16")
KEYS = {"spec", "label", "fingerprint", "status", "error", "provenance", "evidence", "metrics", "outputs", "quality_about", "verdict"}


def events(token_ids=(1, 2, 3)):
    return [
        Loaded(0, 1.0, {"source": "a folder"}, {"host": "here", "started_at": "2025-01-01T00:00:00+00:00"}),
        Evidence(0, "precision", True, "all weights are bfloat16"),
        BatchStart(0, "timed", 0, (0,), (4,)),
        *(Tick((10 + 5 * step) * MS, ((token,),)) for step, token in enumerate(token_ids)),
        BatchEnd(99 * MS),
        Output(0, 0, "Say hello", token_ids, ("Hel", "lo", "!")),
        Done(0),
    ]


def test_a_complete_run_follows_the_schema_and_is_plain_json():
    document = json.loads(json.dumps(result(SPEC, events()), allow_nan=False))
    assert set(document) == KEYS
    assert RunSpec.from_dict(document["spec"]) == SPEC
    assert document["label"] == "bf16"
    assert document["fingerprint"] == SPEC.fingerprint()
    assert (document["status"], document["error"]) == ("done", None)
    assert document["provenance"] == {"host": "here", "started_at": "2025-01-01T00:00:00+00:00", "model_source": "a folder"}
    assert document["evidence"] == {"precision": "all weights are bfloat16"}
    assert document["metrics"]["ttft_s"]["value"] == 0.010
    assert document["metrics"]["itl_s"]["value"] == 0.005
    assert document["outputs"] == [{"prompt": "Say hello", "text": "Hello!", "token_ids": [1, 2, 3]}]
    assert document["verdict"] == {"bottleneck": "unknown", "sentence": "This run took no profile, so its bottleneck is not known."}


def test_a_failed_run_says_why_and_keeps_what_it_measured():
    document = result(SPEC, [*events()[:-1], Failed(0, "oom", "The GPU is full.", "traceback")])
    assert document["status"] == "failed"
    assert document["error"] == {"kind": "oom", "message": "The GPU is full.", "detail": "traceback"}
    assert document["metrics"]["ppl"]["kind"] == "not_available"


def test_a_run_that_was_stopped_is_cancelled():
    assert result(SPEC, [Cancelled(0)])["status"] == "cancelled"


def test_a_run_whose_events_stop_without_an_ending_is_interrupted():
    document = result(SPEC, events()[:-1])
    assert document["status"] == "interrupted"
    assert document["error"]["kind"] == "crash"
    assert document["outputs"][0]["text"] == "Hello!"
    assert result(SPEC, [])["provenance"] == {}


def test_matching_tokens_is_against_the_given_baseline():
    compared = result(SPEC, events((1, 2, 9)), baseline=(RunSpec(), events()))
    assert compared["metrics"]["matching_tokens"]["value"] == 2
    assert "this is the baseline" in result(SPEC, events())["metrics"]["matching_tokens"]["reason"]
