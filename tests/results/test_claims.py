"""Claims of texts: what a preset may say, in which runs it is judged, and what the numbers make of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from playground.core.problem import Problem
from playground.core.spec import RunSpec
from playground.engines import engines
from playground.engines.replay import specs_of
from playground.models.recording import find, read
from playground.presets import experiment, experiments, judged
from playground.results.claims import Claim, claims_from, judge
from playground.results.result import result
from playground.results.table import claims_text
from playground.techniques import techniques
from tests.results import whole_runs

OVERVIEW = "大模型推理效率与精度"
FASTER = {"sentence": "It is faster.", "source": "a text", "metric": "decode_tokens_per_s", "direction": "up"}
SPECS = (RunSpec(label="fp32", knobs={"precision": "fp32"}), RunSpec(label="bf16", knobs={"precision": "bf16"}))


def claim(**fields: Any) -> Claim:
    return claims_from([{**FASTER, **fields}], SPECS, techniques(), engines())[0]


def metric(value: float | None, half: float | None = None, **more: Any) -> dict[str, Any]:
    """A value of five repeats with an interval of `half` to either side; none where `half` is None."""
    ends = None if half is None or value is None else [value - half, value + half]
    kind = "measured" if value is not None else "not_available"
    return {"value": value, "n": 5 if ends else 1, "ci95": ends, "cv": 0.01 if ends else None, "kind": kind, "reason": None, **more}


def outcome(one: Claim, old: dict[str, Any], new: dict[str, Any], **more: Any) -> dict[str, Any]:
    """What is judged of fp32 and bf16 runs with these values of the claim's metric."""
    pair = [
        {"spec": spec.to_dict(), "label": spec.label, "metrics": {one.metric: value}} for spec, value in zip(SPECS, (old, new), strict=True)
    ]
    (found,) = judge([one], [pair[0], {**pair[1], **more}], techniques())
    return found


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (metric(10.0, 0.1), metric(12.0, 0.1), "supported"),
        (metric(10.0, 0.1), metric(9.0, 0.1), "contradicted"),
        (metric(10.0, 1.5), metric(12.0, 1.5), "not decided"),  # 8.5 to 11.5 and 10.5 to 13.5 overlap
        (metric(10.0), metric(12.0), "not decided"),  # measured once
        (metric(None, reason="no pass was completed"), metric(12.0, 0.1), "not decided"),
    ],
)
def test_a_direction_is_decided_where_the_intervals_separate(old: dict[str, Any], new: dict[str, Any], expected: str) -> None:
    assert outcome(claim(), old, new)["outcome"] == expected


@pytest.mark.parametrize(
    ("new", "half", "expected"),
    [
        (12.0, 0.1, "supported"),
        (13.0, 0.1, "supported"),  # 1.3 is within 10 % of 1.2, which ends at 1.32
        (13.5, 0.1, "contradicted"),
        (10.5, 0.1, "contradicted"),  # faster, but 1.08 is not reached
        (13.2, 0.2, "not decided"),  # 1.30 to 1.34 holds the end at 1.32
        (10.0, 0.1, "contradicted"),  # no difference shown, and certainly none of 8 %
        (12.0, 4.0, "not decided"),
    ],
)
def test_about_a_factor_is_within_ten_percent_of_it_with_the_whole_interval(new: float, half: float, expected: str) -> None:
    assert outcome(claim(factor=1.2), metric(10.0, 0.01), metric(new, half))["outcome"] == expected


@pytest.mark.parametrize(
    ("bound", "new", "expected"),
    [("at most", 50, "supported"), ("at most", 30, "supported"), ("at most", 60, "contradicted"), ("at most", 50.5, "supported"),
     ("at least", 50, "supported"), ("at least", 80, "supported"), ("at least", 30, "contradicted"), ("about", 46, "supported"),
     ("about", 30, "contradicted")],
)  # fmt: skip
def test_bytes_have_no_interval_and_are_decided_as_they_are(bound: str, new: float, expected: str) -> None:
    halves = claim(metric="weights_bytes", direction="down", factor=0.5, bound=bound)
    assert outcome(halves, metric(100), metric(new))["outcome"] == expected


def test_a_baseline_that_may_as_well_be_0_has_no_ratio_to_contradict_a_claim_with() -> None:
    # 253 ± 320 may be 0, and so any ratio is possible
    found = outcome(claim(factor=1.2, bound="at least"), metric(253, 320), metric(303, 325))
    assert found["outcome"] == "not decided"
    assert "95 % interval" not in found["text"]


def test_bytes_that_stay_contradict_a_claim_that_they_fall() -> None:
    assert outcome(claim(metric="weights_bytes", direction="down"), metric(100), metric(100))["outcome"] == "contradicted"


def test_a_cache_that_is_gone_has_fallen_and_one_that_came_has_no_ratio() -> None:
    gone = outcome(claim(metric="kv_cache_bytes", direction="down"), metric(4_490_000), metric(0))
    assert gone["outcome"] == "supported"
    assert "measured × 0 (0 B against 4.49 MB)" in gone["text"]
    assert outcome(claim(metric="kv_cache_bytes", direction="up"), metric(0), metric(5))["outcome"] == "supported"
    came = outcome(claim(metric="kv_cache_bytes", direction="up", factor=2), metric(0), metric(5))
    assert (came["outcome"], "there is no ratio to 0" in came["text"]) == ("not decided", True)


@pytest.mark.parametrize(("new", "expected"), [(10.5, "supported"), (12.0, "contradicted"), (11.0, "not decided")])
def test_the_same_is_within_ten_percent_even_where_a_small_difference_shows(new: float, expected: str) -> None:
    assert outcome(claim(direction="same"), metric(10.0, 0.01), metric(new, 0.1))["outcome"] == expected


def test_the_text_has_figure_interval_and_what_was_claimed() -> None:
    text = outcome(claim(factor=1.2), metric(10.0, 0.0), metric(12.0, 0.5))["text"]
    assert text == (
        "Decode speed of one request claimed to rise, to about × 1.2; measured × 1.20 (12 tokens/s against 10 tokens/s, "
        "95 % interval 1.15 to 1.25)."
    )


def test_what_was_not_measured_is_not_decided_for_its_reason() -> None:
    found = outcome(claim(metric="ppl", direction="same"), metric(38.0), metric(None, reason="weights are random."))
    assert found["outcome"] == "not decided"
    assert found["text"].endswith("not available: weights are random.")


def test_a_contradicted_speed_is_explained_by_the_verdict_and_nothing_else_is() -> None:
    verdict = {"bottleneck": "launch", "sentence": "The launches decide."}
    slow = outcome(claim(why="It may be small."), metric(10.0, 0.1), metric(8.0, 0.1), verdict=verdict)
    assert slow["why"] == "It may be small. The launches decide."
    assert outcome(claim(why="It may be small."), metric(10.0, 0.1), metric(12.0, 0.1), verdict=verdict)["why"] == ""


def test_a_contradicted_size_is_explained_by_what_was_found_on_the_loaded_objects() -> None:
    halves = claim(metric="weights_bytes", direction="down", factor=0.5)
    verdict, proof = {"bottleneck": "launch", "sentence": "The launches decide."}, {"precision": "30 of 60 tensors are bf16"}
    assert outcome(halves, metric(100), metric(75), verdict=verdict, evidence=proof)["why"] == "Found: 30 of 60 tensors are bf16."


@pytest.mark.parametrize(
    ("change", "is_judged"),
    [
        ({}, True),
        ({"model": "shape:tiny"}, True),  # of both: what the variant changes is the same
        ({"knobs": {"precision": "fp32", "batch_size": 4}}, True),
        ({"knobs": {"precision": "fp16"}}, False),
    ],
)
def test_a_claim_is_judged_in_every_run_with_its_change(change: dict[str, Any], is_judged: bool) -> None:
    baseline = SPECS[0].replace(**change)
    variant = baseline.replace(knobs={**baseline.knobs, "precision": "bf16"})
    results = [{"spec": spec.to_dict(), "metrics": {}} for spec in (baseline, variant)]
    assert bool(judge([claim()], results, techniques())) is is_judged


def test_a_claim_on_its_data_is_judged_with_the_same_prompts_or_text_alone() -> None:
    def judged_with(one: Claim, prompts: tuple[str, ...] = SPECS[0].workload.prompts, text: str = "") -> bool:
        specs = [
            spec.replace(workload=replace(spec.workload, prompts=prompts), protocol=replace(spec.protocol, text=text)) for spec in SPECS
        ]
        return bool(judge([one], [{"spec": spec.to_dict(), "metrics": {}} for spec in specs], techniques()))

    assert judged_with(claim(on="prompts"))
    assert not judged_with(claim(on="prompts"), prompts=("another",))
    assert judged_with(claim(on="text"), prompts=("another",))
    assert not judged_with(claim(on="text"), text="pages of a logbook")
    assert judged_with(claim(), text="pages of a logbook")


def test_a_variant_that_changes_more_is_not_what_the_claim_is_about() -> None:
    more = SPECS[1].replace(knobs={"precision": "bf16", "kv_cache": "off"})
    assert judge([claim()], [{"spec": spec.to_dict(), "metrics": {}} for spec in (SPECS[0], more)], techniques()) == []


def test_more_rows_are_more_rows_unless_the_claim_names_a_factor() -> None:
    one, four, eight = (RunSpec(label=str(rows), knobs={"batch_size": rows}) for rows in (1, 4, 8))
    results = [{"spec": spec.to_dict(), "metrics": {}} for spec in (one, eight)]
    for fields, expected in (({}, 1), ({"factor": 4.0}, 0)):
        claims = claims_from([{**FASTER, **fields}], (one, four), techniques(), engines())
        assert len(judge(claims, results, techniques())) == expected
        assert judge(claims, results[::-1], techniques()) == []


def test_another_engine_brings_its_own_defaults_but_no_further_technique() -> None:
    one, graph = RunSpec(label="a"), RunSpec(label="b", engine="graph")
    claims = claims_from([FASTER], (one, graph), techniques(), engines())
    for knobs, expected in (({"kv_cache": "static", "attention": "split_kv", "fusion": "compile"}, 1), ({"weight_only": "int4"}, 0)):
        results = [{"spec": spec.to_dict(), "metrics": {}} for spec in (one, graph.replace(knobs=knobs))]
        assert len(judge(claims, results, techniques())) == expected


def test_a_claim_without_a_variant_is_about_each_and_one_with_a_number_or_a_label_about_that() -> None:
    three = (*SPECS, RunSpec(label="fp16", knobs={"precision": "fp16"}))

    def about(**fields: Any) -> list[Any]:
        return [one.change[0][2] for one in claims_from([{**FASTER, **fields}], three, techniques(), engines())]

    assert about() == ["bf16", "fp16"]
    assert about(variant=2) == about(variant="fp16") == ["fp16"]


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"metric": "itl"}, "a claim: there is no metric 'itl'; did you mean 'itl_s'"),
        ({"variant": "bf61"}, "a claim: there is no variant 'bf61'; did you mean 'bf16'"),
        ({"variant": 0}, "a claim: the variant must be a label or a number from 1 to 1, got 0"),
        ({"variant": 2}, "a claim: the variant must be a label or a number from 1 to 1, got 2"),
        ({"direction": "upp"}, "a claim: there is no direction 'upp'; did you mean 'up'"),
        ({"bound": "atmost", "factor": 2}, "a claim: there is no bound 'atmost'; did you mean 'at most'"),
        ({"bound": "at most"}, "the bound of a claim needs a factor"),
        ({"factor": 0}, "the factor of a claim must be a number above 0, got 0"),
        ({"factor": "2"}, "the factor of a claim must be a number above 0, got '2'"),
        ({"factor": 0.5}, "a claim: direction up and about × 0.5 exclude each other"),
        ({"source": " "}, "a claim needs a text as its source"),
        ({"claimed": 2}, "a claim has no setting 'claimed'"),
    ],
)
def test_a_claim_that_cannot_be_names_its_file_and_what_is_wrong(fields: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    table = "\n".join(f"{name} = {value!r}" for name, value in {**FASTER, **fields}.items())
    path.write_text(f"[baseline]\nknobs = {{ precision = 'fp32' }}\n[[variant]]\nprecision = 'bf16'\n[[claim]]\n{table}\n")
    with pytest.raises(Problem) as caught:
        experiment(path)
    assert caught.value.kind == "user"
    assert caught.value.message.startswith(f"mine.toml: {sentence}")


def test_claims_that_are_no_list_and_claims_about_nothing_are_refused() -> None:
    with pytest.raises(Problem, match=r"write \[\[claim\]\] above each"):
        claims_from(FASTER, SPECS, techniques(), engines())
    with pytest.raises(Problem, match="the variant 'same', which changes nothing"):
        claims_from([{**FASTER, "variant": 1}], (SPECS[0], SPECS[0].replace(label="same")), techniques(), engines())


# What the overview says, and a preset and metric by which each is judged.
SAID = [
    ("half precision is about 20 % faster", "precision-ladder", "decode_tokens_per_s"),
    ("half precision halves memory", "precision-ladder", "weights_bytes"),
    ("int8 and 4 bits halve memory or better", "quantization", "weights_bytes"),
    ("at an acceptable loss of quality", "quantization", "ppl"),
    ("a KV cache trades memory", "kv-cache", "kv_cache_bytes"),
    ("for speed", "kv-cache", "e2e_s"),
    ("storing attention's square costs time", "attention", "ttft_s"),
    ("caching avoids repeated work", "prefix-cache", "ttft_s"),
    ("adapters adapt a model, and combine with quantization", "adapters", "ppl"),
    ("pruning shrinks the model", "pruning", "weights_bytes"),
    ("and its computation", "pruning", "itl_s"),
    ("distillation shrinks the model", "distillation", "weights_bytes"),
    ("and its computation", "distillation", "itl_s"),
    ("quantization shrinks the computation", "quantization", "itl_s"),
    ("batching raises throughput", "batch-size", "output_tokens_per_s"),
    ("fused graphs raise throughput", "launch-bound", "output_tokens_per_s"),
    ("and so does a compiled one", "compiled-graph", "decode_tokens_per_s"),
    ("the gain depends on the data", "speculative-new-text", "output_tokens_per_s"),
]


@pytest.mark.parametrize(("said", "preset", "name"), SAID, ids=[f"{preset}-{name}" for _, preset, name in SAID])
def test_presets_carry_the_claims_of_the_overview_with_their_source(said: str, preset: str, name: str) -> None:
    claims = next(found.claims for found in experiments() if found.name == preset)
    assert any(OVERVIEW in one.source and one.metric == name for one in claims), said


def test_the_claimed_gain_in_speed_of_half_precision_is_a_factor() -> None:
    claims = next(found.claims for found in experiments() if found.name == "precision-ladder")
    speeds = [one for one in claims if one.factor == 1.2]
    assert [one.change for one in speeds] == [(("precision", "fp32", "fp16"),), (("precision", "fp32", "bf16"),)]


def test_a_recording_is_judged_by_what_was_recorded() -> None:
    recording = read(find("h200-llama-3.2-1b-launch-bound"))
    specs = specs_of(recording)
    baseline = (specs[0], recording.events[0])
    results = [result(spec, events, baseline if n else None) for n, (spec, events) in enumerate(zip(specs, recording.events, strict=True))]
    found = {(item["variant"], item["metric"]): item for item in judged(results)}
    graph = found["graph, bf16", "output_tokens_per_s"]  # another engine, though both are replayed
    assert (graph["outcome"], "× 7.04" in graph["text"]) == ("supported", True)
    nf4 = found["transformers, nf4", "itl_s"]
    assert nf4["outcome"] == "contradicted"
    assert "the launches decide" in nf4["why"]


def test_a_recording_that_has_gone_is_still_shown() -> None:
    spec = RunSpec("recording:gone#0", "replay", label="a")
    assert judged([{"spec": spec.to_dict(), "metrics": {}}, {"spec": spec.to_dict(), "metrics": {}}]) == []


def test_a_run_of_events_is_judged_from_its_result() -> None:
    slow = whole_runs.run("fp32", step_ms=20, precision="fp32", memory={"weights_bytes": 4e9})
    fast = whole_runs.run("bf16", step_ms=10, precision="bf16", memory={"weights_bytes": 2e9})
    results = [whole_runs.document(slow), whole_runs.document(fast, slow)]
    found = {item["metric"]: item for item in judged(results)}
    assert found["weights_bytes"]["outcome"] == "supported"
    assert found["decode_tokens_per_s"]["outcome"] == "contradicted"  # twice as fast is not about 20 % faster
    text = claims_text(list(found.values()))
    assert f"Claimed: Half precision is about 20 % faster. (《{OVERVIEW}》" in text
    assert "  bf16: contradicted. Decode speed of one request claimed to rise, to about × 1.2; measured × 2" in text
    assert claims_text([]) == ""
