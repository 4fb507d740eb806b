"""Every metric against values worked out by hand from scripted events."""

import dataclasses
import json

import pytest
from scripted_runs import CONFIG, MS, batch, run

from playground.core.events import BatchEnd, BatchStart, Cancelled, Compiled, Done, Gauge, Loaded, Memory, Output, Score, Tick
from playground.core.spec import Protocol, RunSpec, Workload
from playground.measure.metrics import METRICS, derive
from playground.measure.trace import Trace

SPEC = RunSpec()
TWO_REPEATS = run(batch("warmup", 0, 0, [90, 10]), batch("timed", 0, 200, [30, 10, 12, 14]), batch("timed", 1, 400, [34, 12, 14, 16]))
AT = 300_000_000  # nanoseconds: in the middle of the timed passes


def values(events, spec=SPEC, baseline=None):
    return derive(Trace.of(spec, events), baseline)


def missing(events, name, spec=SPEC, baseline=None):
    value = values(events, spec, baseline)[name]
    assert value.value is None
    assert value.kind == "not_available"
    return value.reason


def test_every_metric_has_a_title_a_unit_a_direction_and_a_formula():
    for name, metric in METRICS.items():
        assert metric.name == name
        assert metric.title
        assert metric.unit
        assert metric.formula
        assert metric.direction in ("lower", "higher", "none")


def test_latencies_of_two_repeats_by_hand():
    found = values(TWO_REPEATS)
    assert found["ttft_s"].value == pytest.approx(0.032)
    assert found["itl_s"].value == pytest.approx((0.012 + 0.014) / 2)
    assert found["e2e_s"].value == pytest.approx((0.066 + 0.076) / 2)
    assert found["ttft_s"].n == 2
    # deviations of 2 ms: standard deviation 2.828 ms, standard error 2 ms, t(1) = 12.706
    assert found["ttft_s"].ci95 == pytest.approx((0.032 - 0.002 * 12.706205, 0.032 + 0.002 * 12.706205))
    assert found["ttft_s"].cv == pytest.approx(0.0028284 / 0.032, rel=1e-4)
    assert found["ttft_s"].grade == "good"


def test_percentiles_pool_the_gaps_of_all_timed_passes_and_of_no_warm_up():
    found = values(TWO_REPEATS)
    # sorted gaps in ms: 10 12 12 14 14 16; p50 at place 2.5, p95 at 4.75, p99 at 4.95
    assert found["itl_p50_s"].value == pytest.approx(0.013)
    assert found["itl_p95_s"].value == pytest.approx(0.0155)
    assert found["itl_p99_s"].value == pytest.approx(0.0159)
    assert (found["itl_p99_s"].n, found["itl_p99_s"].ci95) == (6, None)


def test_rates_by_hand():
    found = values(TWO_REPEATS)
    assert found["prefill_tokens_per_s"].value == pytest.approx((10 / 0.030 + 10 / 0.034) / 2)
    assert found["decode_tokens_per_s"].value == pytest.approx((1 / 0.012 + 1 / 0.014) / 2)
    assert found["output_tokens_per_s"].value == pytest.approx((4 / 0.066 + 4 / 0.076) / 2)


def test_the_cold_first_call_and_the_load_stand_alone():
    found = values(TWO_REPEATS)
    assert found["cold_ttft_s"].value == pytest.approx(0.090)
    assert found["load_s"].value == 1.5
    assert found["load_s"].ci95 is None


def test_a_model_that_was_still_loaded_has_no_load_time_and_no_cold_call():
    events = [dataclasses.replace(event, reused=True) if isinstance(event, Loaded) else event for event in TWO_REPEATS]
    assert "still loaded" in missing(events, "load_s")
    assert "earlier run" in missing(events, "cold_ttft_s")


def test_compiling_has_a_time_of_its_own_unless_nothing_was_compiled():
    def events(*compiled):
        return [*TWO_REPEATS[:2], *compiled, *TWO_REPEATS[2:]]

    found = values(events(Compiled(0, 3.25)))
    assert (found["compile_s"].value, found["compile_s"].ci95) == (3.25, None)
    assert found["load_s"].value == 1.5, "it is no part of loading"
    assert found["cold_ttft_s"].value == pytest.approx(0.090), "nor of the first pass"
    assert "earlier run" in missing(events(Compiled(0, None)), "compile_s")
    assert "nothing is compiled" in missing(TWO_REPEATS, "compile_s")


def test_without_a_warm_up_there_is_no_cold_figure():
    events = run(batch("timed", 0, 0, [30, 10]))
    assert "no warm-up" in missing(events, "cold_ttft_s", RunSpec(protocol=Protocol(warmups=0)))


def test_rows_of_one_batch_share_the_first_token_and_count_once_each():
    events = run(batch("timed", 0, 0, [30, 10, 20], rows=(0, 1, 2), prompts=(4, 6, 11)))
    found = values(events)
    assert found["ttft_s"].value == pytest.approx(0.030)
    assert found["prompt_tokens"].value == pytest.approx(7)
    assert found["output_tokens"].value == 3
    assert found["prefill_tokens_per_s"].value == pytest.approx(21 / 0.030)
    assert found["decode_tokens_per_s"].value == pytest.approx(1 / 0.015)
    assert found["output_tokens_per_s"].value == pytest.approx(9 / 0.060)


def test_a_pass_of_unequal_batches_is_the_mean_over_its_requests():
    events = run(batch("timed", 0, 0, [30, 10], rows=(0, 1), prompts=(5, 5)) + batch("timed", 0, 100, [60, 40], rows=(2,), prompts=(8,)))
    found = values(events)
    assert found["ttft_s"].value == pytest.approx((0.030 + 0.030 + 0.060) / 3)
    assert found["itl_s"].value == pytest.approx((0.010 + 0.010 + 0.040) / 3)
    assert found["prefill_tokens_per_s"].value == pytest.approx(18 / 0.090)
    assert found["output_tokens_per_s"].value == pytest.approx(6 / 0.200)
    assert found["ttft_s"].n == 1


def test_one_output_token_has_a_first_token_but_no_gap():
    events = run(batch("timed", 0, 0, [30]))
    assert values(events)["ttft_s"].value == pytest.approx(0.030)
    for name in ("itl_s", "itl_p50_s", "decode_tokens_per_s"):
        assert "two output tokens" in missing(events, name)


def test_a_row_without_any_token_makes_latency_missing_and_not_zero():
    events = [BatchStart(0, "timed", 0, (0, 1), (3, 3)), Tick(9 * MS, ((5,), ())), BatchEnd(10 * MS), Done(0)]
    assert "no token" in missing(events, "e2e_s")


def test_a_cancelled_run_keeps_its_complete_passes():
    events = [*TWO_REPEATS[:-3], *batch("timed", 2, 600, [1, 1]), Cancelled(0)]
    assert values(events)["ttft_s"].n == 2


def test_a_run_without_events_has_a_reason_for_every_metric():
    for name, value in values([]).items():
        assert value.value is None, name
        assert value.reason, name


def test_memory_by_hand():
    found = values(TWO_REPEATS)
    assert found["weights_bytes"].value == 1000
    assert found["kv_cache_bytes"].value == 200
    assert found["peak_rss_bytes"].value == 7000
    assert found["rss_growth_bytes"].value == 2000
    assert found["rest_bytes"].value == 800
    assert "CUDA" in missing(TWO_REPEATS, "peak_allocated_bytes")
    assert "gauge" in missing(TWO_REPEATS, "process_bytes")


def test_what_of_the_cache_lies_in_host_memory_is_told_and_is_none_of_the_devices():
    timed = next(event for event in TWO_REPEATS if isinstance(event, Memory) and event.stage == "timed").values
    found = values([*TWO_REPEATS, Memory(0, "timed", {**timed, "kv_host_bytes": 150})])
    assert (found["kv_cache_bytes"].value, found["kv_host_bytes"].value) == (200, 150)
    assert found["rest_bytes"].value == 800 + 150
    assert "in host memory" in missing(TWO_REPEATS, "kv_host_bytes")


def test_the_kv_formula_counts_the_largest_batch_with_its_padding():
    # 2 x 3 layers x 2 heads x 2 numbers x 2 bytes = 48 bytes a token; 2 rows x (9 prompt + 3 - 1) = 22 tokens
    events = run(batch("timed", 0, 0, [30, 1, 1], rows=(0, 1), prompts=(5, 9)) + batch("timed", 0, 50, [30, 1, 1], rows=(2,), prompts=(9,)))
    value = values(events)["kv_cache_formula_bytes"]
    assert (value.value, value.kind) == (48 * 22, "estimated")


def test_a_variant_without_a_kv_cache_has_zero_bytes_measured_and_no_formula():
    events = [*TWO_REPEATS, Memory(0, "timed", {"kv_cache_bytes": 0.0})]
    assert values(events)["kv_cache_bytes"].value == 0
    assert "keeps no KV cache" in missing(events, "kv_cache_formula_bytes")


def test_on_cuda_the_rest_is_of_the_allocators_peak():
    events = [*TWO_REPEATS, Memory(0, "timed", {"peak_allocated_bytes": 1500.0, "peak_reserved_bytes": 1600.0})]
    assert values(events)["rest_bytes"].value == 300
    assert values(events)["peak_reserved_bytes"].value == 1600


def test_the_ladder_of_a_cuda_run_splits_into_parts_that_add_up():
    memory = Memory(0, "timed", {"peak_allocated_bytes": 1500.0, "peak_reserved_bytes": 1600.0})
    found = values([Gauge(AT, "parent", {"process_bytes": 2000.0}), *TWO_REPEATS, memory])
    parts = ("weights_bytes", "kv_cache_bytes", "activations_bytes", "slack_bytes", "context_bytes")
    assert [found[name].value for name in parts] == [1000, 200, 300, 100, 400]
    assert sum(found[name].value for name in parts) == found["process_bytes"].value


def test_on_a_cpu_the_parts_of_a_gpus_memory_are_not_available():
    for name in ("activations_bytes", "slack_bytes", "context_bytes"):
        assert "CUDA" in missing(TWO_REPEATS, name)


def test_samples_from_before_and_after_the_timed_passes_do_not_count():
    inside, after = Gauge(AT, "parent", {"device_used_bytes": 5.0}), Gauge(10**12, "parent", {"device_used_bytes": 9.0})
    assert values([inside, after, *TWO_REPEATS])["device_used_bytes"].value == 5


def test_samples_between_two_timed_passes_do_not_count_either():
    between = Gauge(390_000_000, "parent", {"device_used_bytes": 9.0})  # passes run from 200 to 266 ms, plus 300, and from 900 ms
    apart = run(batch("timed", 0, 0, [10, 10]), batch("timed", 1, 900, [10, 10]))
    assert values([Gauge(5_000_000, "parent", {"device_used_bytes": 5.0}), between, *apart])["device_used_bytes"].value == 5


def test_a_peak_below_weights_and_cache_is_refused():
    events = [*TWO_REPEATS, Memory(0, "timed", {"peak_allocated_bytes": 900.0})]
    assert "below" in missing(events, "rest_bytes")


def test_gauges_give_the_largest_sample_and_the_order_of_observers_is_checked():
    gauges = [
        Gauge(AT, "parent", {"process_bytes": 2000.0, "device_used_bytes": 2500.0}),
        Gauge(AT + 1, "parent", {"process_bytes": 1900.0}),
    ]
    found = values([*gauges, *TWO_REPEATS])
    assert (found["process_bytes"].value, found["device_used_bytes"].value) == (2000, 2500)
    reserved = Memory(0, "timed", {"peak_reserved_bytes": 2001.0})
    assert "less for this process" in missing([*gauges, *TWO_REPEATS, reserved], "process_bytes")
    other = Gauge(AT, "parent", {"process_bytes": 3000.0, "device_used_bytes": 2900.0})
    assert "not the same device" in missing([other, *TWO_REPEATS], "device_used_bytes")


def test_growth_is_unknown_where_the_model_was_loaded_before_the_first_reading():
    events = [dataclasses.replace(event, reused=True) if isinstance(event, Loaded) else event for event in TWO_REPEATS]
    assert values(events)["rss_growth_bytes"].value == 2000
    late = [*events, Memory(0, "start", {"rss_bytes": 6500.0})]
    assert "loaded already" in missing(late, "rss_growth_bytes")


def test_the_baseline_and_a_single_run_compare_with_nothing():
    trace = Trace.of(SPEC, TWO_REPEATS)
    for baseline in (None, trace):
        for name in ("kld_mean", "kld_p99", "top1_agreement", "matching_tokens"):
            assert "this is the baseline" in derive(trace, baseline)[name].reason


def test_scores_come_from_the_worker_and_their_reasons_too():
    baseline = Trace.of(SPEC, TWO_REPEATS)
    scored = [*TWO_REPEATS, Score(0, {"kld_mean": 0.01, "top1_agreement": 0.97, "ppl": 12.5}, {"kld_p99": "other tokens"})]
    found = values(scored, baseline=baseline)
    assert (found["kld_mean"].value, found["top1_agreement"].value, found["ppl"].value) == (0.01, 0.97, 12.5)
    assert missing(scored, "kld_p99", baseline=baseline) == "other tokens"
    assert "before output quality" in missing(TWO_REPEATS, "ppl", baseline=baseline)
    assert "set not to" in missing(TWO_REPEATS, "ppl", RunSpec(protocol=Protocol(quality=False)), baseline)


FLOORS = {"kld_mean_floor": 1e-5, "kld_p99_floor": 1e-4, "top1_agreement_floor": 0.998, "matching_tokens_floor": 41.0, "ppl_floor": 0.02}


def test_the_noise_floor_is_the_baselines_and_the_variants_say_where_it_is():
    scored = [*TWO_REPEATS, Score(0, FLOORS)]
    assert {name: values(scored)[name].value for name in FLOORS} == FLOORS
    variant = [*TWO_REPEATS, Score(0, {}, dict.fromkeys(FLOORS, "another reason"))]
    for name in FLOORS:
        assert "measured on the baseline" in missing(variant, name, baseline=Trace.of(SPEC, scored))


def test_a_noise_floor_that_the_run_could_not_measure_has_its_reason():
    assert missing([*TWO_REPEATS, Score(0, {}, {"ppl_floor": "no memory"})], "ppl_floor") == "no memory"
    assert "no such figure" in missing([*TWO_REPEATS, Score(0, {"ppl": 12.0})], "kld_mean_floor")
    assert "before output quality" in missing(TWO_REPEATS, "ppl_floor")
    drawn = RunSpec(workload=Workload(temperature=0.7))
    assert "temperature" in missing([*TWO_REPEATS, Score(0, FLOORS)], "matching_tokens_floor", drawn)


def test_answers_are_a_share_with_wilsons_interval():
    value = values([*TWO_REPEATS, Score(0, {"questions_right": 73.0, "questions": 120.0})])["question_accuracy"]
    assert (value.value, value.n, value.cv, value.grade) == (73 / 120, 120, None, "")
    assert value.ci95 == pytest.approx((0.518938, 0.691008), abs=1e-6)  # scipy's
    assert value.to_dict()["ci95"] == pytest.approx([0.518938, 0.691008], abs=1e-6)
    assert missing([*TWO_REPEATS, Score(0, {}, {"question_accuracy": "short"})], "question_accuracy") == "short"


def test_perplexity_of_both_languages_needs_no_baseline():
    found = values([*TWO_REPEATS, Score(0, {"ppl": 20.5, "ppl_chinese": 95.0})])
    assert (found["ppl"].value, found["ppl_chinese"].value) == (20.5, 95.0)


def test_random_weights_have_no_quality():
    events = [*run(batch("timed", 0, 0, [1, 1]), random_weights=True), Score(0, {"ppl": 50000.0, "kld_mean": 0.0})]
    baseline = Trace.of(SPEC, TWO_REPEATS)
    for name in ("kld_mean", "matching_tokens", "ppl"):
        assert "random" in missing(events, name, baseline=baseline)


def outputs(*pairs):
    return [Output(0, row, prompt, ids, ("x",) * len(ids)) for row, (prompt, ids) in enumerate(pairs)]


def test_matching_tokens_is_the_mean_common_beginning_by_prompt():
    baseline = Trace.of(SPEC, [*outputs(("one", (1, 2, 3, 4)), ("two", (5, 6, 7)))])
    variant = outputs(("two", (5, 6, 7)), ("one", (1, 2, 9, 4)), ("two", (5, 6, 7)))
    assert values(variant, baseline=baseline)["matching_tokens"].value == pytest.approx((3 + 2) / 2)
    other = outputs(("three", (1, 2)))
    assert "same prompt" in missing(other, "matching_tokens", baseline=baseline)


def test_matching_tokens_needs_greedy_decoding_and_one_vocabulary():
    baseline = Trace.of(SPEC, TWO_REPEATS)
    drawn = RunSpec(workload=Workload(temperature=0.7))
    assert "temperature" in missing(TWO_REPEATS, "matching_tokens", drawn, baseline)
    other = run(batch("timed", 0, 0, [1, 1]), config={**CONFIG, "vocab_size": 33})
    assert "vocabulary" in missing(other, "matching_tokens", baseline=baseline)
    assert values(TWO_REPEATS, baseline=Trace.of(SPEC, list(TWO_REPEATS)))["matching_tokens"].value == 4


def test_a_replayed_run_is_called_recorded():
    found = values(TWO_REPEATS, RunSpec(engine="replay"))
    assert found["itl_s"].kind == "recorded"
    assert found["kv_cache_formula_bytes"].kind == "estimated"
    assert found["peak_allocated_bytes"].kind == "not_available"


def test_a_number_that_is_not_finite_is_missing():
    baseline = Trace.of(SPEC, TWO_REPEATS)
    assert "finite" in missing([*TWO_REPEATS, Score(0, {"ppl": float("nan")})], "ppl", baseline=baseline)


def test_values_become_plain_json():
    data = json.loads(json.dumps({name: value.to_dict() for name, value in values(TWO_REPEATS).items()}, allow_nan=False))
    assert set(data["itl_s"]) == {"value", "unit", "n", "ci95", "cv", "kind", "reason", "grade"}
    assert isinstance(data["itl_s"]["ci95"], list)
