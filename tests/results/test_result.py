"""The result document: its schema, its endings, and what it compares."""

import dataclasses
import json

import pytest
from whole_runs import run

from playground.core.events import BatchEnd, BatchStart, Cancelled, Departure, Done, Evidence, Failed, Loaded, Output, Tick
from playground.core.spec import RunSpec
from playground.models.recording import FOLDER, find, read, recordings
from playground.results.result import result

MS = 1_000_000
SPEC = RunSpec(knobs={"precision": "bf16"}, label="bf16")
KEYS = {
    "spec", "label", "fingerprint", "status", "error", "provenance", "evidence", "metrics", "outputs", "requests", "quality_about",
    "verdict", "prediction", "prediction_reason", "roofline", "profile", "profile_reason", "departures", "expectations",
}  # fmt: skip


def events(token_ids=(1, 2, 3)):
    return [
        Loaded(0, 1.0, {"source": "a folder", "device": "cpu"}, {"host": "here", "started_at": "2025-01-01T00:00:00+00:00"}),
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
    made = {"host": "here", "started_at": "2025-01-01T00:00:00+00:00"}
    assert document["provenance"] == {**made, "device": "cpu", "model_source": "a folder"}
    assert document["evidence"] == {"precision": "all weights are bfloat16"}
    assert document["metrics"]["ttft_s"]["value"] == 0.010
    assert document["metrics"]["itl_s"]["value"] == 0.005
    assert document["outputs"] == [{"prompt": "Say hello", "text": "Hello!", "token_ids": [1, 2, 3]}]
    assert (document["verdict"]["bottleneck"], document["verdict"]["prefill"]) == ("unknown", "unknown")
    assert "the run took no profile of a step" in document["verdict"]["sentence"]
    assert (document["prediction"], document["roofline"], document["profile"]) == ({}, None, None)


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


def test_departures_are_in_the_document_with_both_probabilities_in_both_models():
    departure = Departure(0, 1, 7, 11, 12, " a", " the", 0.6, 0.3, 0.2)
    assert result(SPEC, [*events()[:-1], departure, Done(0)])["departures"] == [
        {
            "row": 1, "position": 7, "ours_text": " a", "theirs_text": " the",
            "p_ours": 0.6, "p_theirs": 0.3, "baseline_p_ours": 0.2, "baseline_p_theirs": None,
        }
    ]  # fmt: skip


@pytest.mark.parametrize("name", [name for name, path in recordings(FOLDER).items() if not read(path, events_too=False).sweep])
def test_a_recorded_experiment_has_documents_that_explain_as_far_as_it_goes(name):
    recording = read(find(name))
    baseline = (recording.specs[0], recording.events[0])
    for spec, seen in zip(recording.specs[1:], recording.events[1:], strict=True):
        document = json.loads(json.dumps(result(spec, seen, baseline), allow_nan=False))
        assert document["verdict"]["sentence"]
        if document["status"] == "failed":
            assert (document["error"]["kind"], document["prediction"]) == ("oom", {})
            continue
        outcomes = {entry["outcome"] for entry in document["expectations"]}
        elsewhere = any(getattr(spec, name) != getattr(recording.specs[0], name) for name in ("model", "device"))
        assert outcomes & {"as expected", "opposite", "no difference"} or elsewhere
        unforeseen = spec.knobs.get("speculative", "off") != "off" or spec.knobs.get("serving", "off") != "off"
        assert bool(document["prediction"]) != unforeseen
        assert document["prediction_reason"] or not unforeseen
        for memory in () if unforeseen else ("weights_bytes", "kv_cache_bytes"):
            assert abs(document["prediction"][memory]["error"]) < 0.05


def test_what_the_engine_changed_of_the_footprint_counts_wherever_the_run_is_read():
    spec, seen = run("bf16", step_ms=10)
    loaded = dataclasses.replace(seen[0], model={**seen[0].model, "footprint": {"kv_bits": 8.0, "a_field_of_another_version": 1}})
    # keys and values of 16 layers x 8 heads x 64 for 46 + 16 tokens, in 16 and in 8 bits
    for first, expected in ((seen[0], 62 * 2 * 16 * 8 * 64 * 2), (loaded, 62 * 2 * 16 * 8 * 64)):
        document = result(spec.replace(engine="replay"), [first, *seen[1:]])
        assert document["prediction"]["kv_cache_bytes"]["predicted"] == expected
