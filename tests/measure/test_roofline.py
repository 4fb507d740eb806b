"""Bytes and operations by hand on a small decoder, and times from ceilings in round numbers."""

from dataclasses import replace

import pytest

from playground.core.events import BatchEnd, BatchStart, Ceilings, Done, Loaded, Profile, Tick
from playground.core.plan import complete, footprint_of
from playground.core.problem import Problem
from playground.core.spec import Protocol, RunSpec, Workload
from playground.core.technique import Footprint
from playground.measure.metrics import derive
from playground.measure.roofline import Work, decode_work, middle, predict, predict_run, prefill_work
from playground.measure.trace import Trace
from playground.techniques import techniques

# Head size 2. Linear weights of a layer: q 8 x 8, k and v 8 x 4 each, o 8 x 8, three of the MLP 8 x 16 = 64 + 64 + 64 + 384 = 576, in two
# layers 1152. Embedding and head 32 x 8 = 256. Norms 2 x (8 + 8) + 8 = 40. Keys and values of a token: 2 x 2 layers x 2 heads x 2 = 16.
SMALL = {
    "model_type": "llama", "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 32, "tie_word_embeddings": True,
}  # fmt: skip
HALF = Footprint(weight_bits=16, kv_bits=16)
GPU = Ceilings(0, "a key", "cuda", "bfloat16", 1e12, 1e14, 1e-6, "2026-01-01T00:00:00+00:00")


def bits(**knobs):
    return footprint_of(complete(RunSpec(knobs=knobs), techniques()), techniques())


def test_a_decode_step_moves_weights_cache_and_logits_once():
    work = decode_work(SMALL, HALF, cached_tokens=10)
    weights = (1152 + 40 + 256) * 2  # the tied embedding is read once, as the head
    looked_up, logits = 8 * 2, 2 * 32 * 2  # one row of the embedding; logits written and read
    cache = (11 + 1) * 16 * 2  # keys and values of 11 tokens read, of one written
    assert work.bytes == weights + looked_up + logits + cache == 3424
    # products of 1152 + 256 weights, and scores and sums of 4 heads x 2 x 11 tokens in 2 layers
    assert work.operations == 2 * (1152 + 256) + 4 * 4 * 2 * 11 * 2 == 3520
    assert work.launches == 2 * 39 + 21


def test_an_untied_head_moves_no_more_than_a_tied_one():
    assert decode_work({**SMALL, "tie_word_embeddings": False}, HALF, 10) == decode_work(SMALL, HALF, 10)


def test_rows_share_the_weights_and_have_a_cache_each():
    one, four = decode_work(SMALL, HALF, 10), decode_work(SMALL, replace(HALF, rows=4), 10)
    assert four.bytes - one.bytes == 3 * (8 * 2 + 2 * 32 * 2 + 12 * 16 * 2)
    assert four.operations == 4 * one.operations
    assert four.launches == one.launches


def test_grouped_queries_move_half_the_cache_and_do_the_same_attention():
    grouped, full = (decode_work({**SMALL, "num_key_value_heads": heads}, HALF, 10) for heads in (2, 4))
    # k and v are 8 x 8 each instead of 8 x 4: 64 weights more in each of 2 layers; a token's keys and values are 32 numbers, not 16
    assert full.bytes - grouped.bytes == 2 * 64 * 2 + 12 * 16 * 2
    assert full.operations - grouped.operations == 2 * 2 * 64


def test_quantized_layers_move_their_scales_and_leave_embedding_head_and_norms_alone():
    linear = 1152
    rest = 3424 - linear * 2 + 2 * 10 * 16 * 2  # and the dynamic cache is copied: 10 tokens read and written
    assert decode_work(SMALL, bits(quantization="nf4"), 10).bytes == pytest.approx(rest + linear * (4 + 32 / 64) / 8)
    nested = decode_work(SMALL, bits(quantization="nf4", double_quantization=True), 10)
    assert nested.bytes == pytest.approx(rest + linear * (4 + 8 / 64 + 32 / (64 * 256)) / 8, rel=1e-4)
    int8 = decode_work(SMALL, bits(quantization="int8", precision="fp16"), 10)
    assert int8.bytes == pytest.approx(rest + linear * 8.02 / 8)


def test_a_packed_head_is_read_in_its_bits_and_a_tied_one_in_those_of_the_embedding():
    packed, untied = bits(weight_only="int8"), {**SMALL, "tie_word_embeddings": False}
    assert decode_work(SMALL, packed, 10).bytes - decode_work(untied, packed, 10).bytes == pytest.approx(256 * (16 - 8.02) / 8)


def test_4_bit_weights_of_many_rows_are_written_out_in_16_bits_and_read_again():
    few, many = (decode_work(SMALL, bits(quantization="nf4", batch_size=rows), 10) for rows in (7, 8))
    per_row = 8 * 2 + 2 * 32 * 2 + (12 + 20) * 16 * 2
    assert many.bytes - few.bytes == pytest.approx(per_row + 1152 * 2 * 2)
    assert many.launches - few.launches == 2 * 7  # one more for each of 7 linear layers, in 2 layers
    assert prefill_work(SMALL, bits(quantization="nf4"), 8).launches == many.launches


def test_int8_launches_more_kernels_and_those_without_outliers_fewer():
    plain = decode_work(SMALL, bits(precision="fp16"), 10).launches
    assert plain == 2 * 41 + 21
    assert decode_work(SMALL, bits(precision="fp16", quantization="int8", int8_threshold=0), 10).launches == plain + 2 * 7 * 2
    assert decode_work(SMALL, bits(precision="fp16", quantization="int8"), 10).launches > plain + 2 * 7 * 2


def test_without_a_cache_a_step_is_a_prefill_of_the_whole_text():
    off = bits(kv_cache="off")
    work = decode_work(SMALL, off, 10)
    assert work == prefill_work(SMALL, off, 11)
    assert work.bytes == (1152 + 40 + 256) * 2 + 11 * 8 * 2 + 2 * 32 * 2
    assert work.operations == 2 * (1152 * 11 + 256) + 4 * 4 * 2 * 11 * 11 * 2  # the head is for the last token alone


def test_a_static_cache_is_read_at_its_full_length_and_a_dynamic_one_is_copied():
    static = decode_work(SMALL, bits(kv_cache="static"), 10, allocated_tokens=100)
    assert static.bytes == 3424 + (100 - 11) * 16 * 2
    assert static.operations == 3520 + 4 * 4 * 2 * (100 - 11) * 2
    assert decode_work(SMALL, bits(kv_cache="dynamic"), 10, allocated_tokens=100).bytes == 3424 + 2 * 10 * 16 * 2


def test_a_prefill_computes_one_row_of_logits_and_writes_and_reads_the_cache():
    work = prefill_work(SMALL, HALF, 5)
    assert work.bytes == (1152 + 40 + 256) * 2 + 5 * 8 * 2 + 2 * 32 * 2 + 2 * 5 * 16 * 2
    assert work.operations == 2 * (1152 * 5 + 256) + 4 * 4 * 2 * 5 * 5 * 2


def test_stored_scores_are_written_and_read_in_both_formats():
    eager, sdpa = (prefill_work(SMALL, bits(attention=name), 5) for name in ("eager", "sdpa"))
    assert eager.bytes - sdpa.bytes == 2 * 4 * 5 * 5 * 2 * (2 + 4)
    assert eager.launches - sdpa.launches == 2 * 8


def test_experts_are_not_counted_and_say_so():
    with pytest.raises(Problem, match="experts"):
        decode_work({**SMALL, "model_type": "mixtral", "num_local_experts": 8}, HALF, 10)


@pytest.mark.parametrize(
    ("work", "bound", "seconds"),
    [(Work(4e9, 1e11, 100), "memory", 4e-3), (Work(1e9, 5e11, 100), "compute", 5e-3), (Work(1e9, 1e11, 3000), "launch", 6.6e-3)],
)
def test_the_slowest_resource_of_a_gpu_decides(work, bound, seconds):
    # 1 TB/s, 100 TFLOP/s, and 1 us a launch, of which an eager model needs 2.2 for each kernel
    times = predict(work, GPU)
    assert times.bound == bound
    assert times.seconds == pytest.approx(seconds)


def test_a_product_with_one_row_has_its_own_rate_where_it_was_measured():
    measured = replace(GPU, matvec_bytes_per_s=5e11)
    assert predict(Work(1e9, 1e9, 0), measured).memory_s == pytest.approx(2e-3)  # one operation a byte: one row
    assert predict(Work(1e9, 8e9, 0), measured).memory_s == pytest.approx(1e-3)  # eight: several rows, at the rate of a copy
    assert predict(Work(1e9, 1e9, 0), GPU).memory_s == pytest.approx(1e-3)
    assert predict(Work(1e9, 1e9, 0, captured=True), measured).memory_s == pytest.approx(1e-3)  # by kernels that may be better


def test_on_a_cpu_calling_operators_comes_on_top_of_their_work():
    assert predict(Work(4e9, 1e11, 1000), replace(GPU, device="cpu")).seconds == pytest.approx(4e-3 + 3e-3)


CAPTURED = replace(HALF, captured=True, kv_bucketed=True, kv_padded=True)


def test_in_a_graph_launches_cost_what_a_small_kernel_takes_there_on_top_of_the_work():
    ceilings = replace(GPU, graph_kernel_s=5e-7)
    busy = Work(4e9, 1e11, 100, captured=True)  # 4 ms of memory, 1 ms of arithmetic, 100 kernels of half a microsecond
    assert predict(busy, ceilings).seconds == pytest.approx(4e-3 + 5e-5)
    assert predict(busy, ceilings).bound == "memory"
    small = predict(Work(1e6, 1e6, 100, captured=True), ceilings)
    assert (small.bound, small.seconds) == ("launch", pytest.approx(1e-6 + 5e-5))
    assert predict(busy, GPU).seconds == pytest.approx(4e-3), "no figure of a kernel in a graph: none is added"
    assert predict(replace(busy, captured=False), ceilings).seconds == pytest.approx(4e-3), "the host launches while the GPU works"


def test_a_step_is_captured_and_a_prefill_or_a_step_without_a_cache_is_not():
    assert decode_work(SMALL, CAPTURED, 10).captured
    assert not decode_work(SMALL, HALF, 10).captured
    assert not prefill_work(SMALL, CAPTURED, 10).captured
    assert not decode_work(SMALL, replace(CAPTURED, kv_share=0.0), 10).captured
    assert decode_work(SMALL, CAPTURED, 10).times(3).captured


def test_a_captured_run_by_hand():
    ceilings = replace(GPU, copy_bytes_per_s=1e9, graph_kernel_s=1e-7)
    found = predict_run(SMALL, CAPTURED, ceilings, 100, 29)
    # 128 places are read in each step and one is written; of 29 tokens the middle step has 113.5 before it, which plays no part here
    moved = 3424 + (128 + 1 - 12) * 16 * 2
    assert found.step_s == pytest.approx(moved / 1e9 + 99 * 1e-7)
    assert found.decode_bound == "launch"
    assert found.ttft_s == pytest.approx(99 * 2.2e-6), "the prompt's pass is launched by the host"
    assert found.output_tokens_per_s == pytest.approx(29 / (found.ttft_s + 28 * found.step_s))
    assert found.kv_cache_bytes == 128 * 16 * 2
    split = predict_run(SMALL, replace(CAPTURED, kv_padded=False), ceilings, 100, 29)
    assert split.step_s == pytest.approx((3424 + (113.5 + 2 - 12) * 16 * 2) / 1e9 + 99 * 1e-7), "split_kv reads what is filled"
    assert split.kv_cache_bytes == found.kv_cache_bytes


def test_the_engine_graph_is_predicted_as_captured_on_a_gpu_alone():
    from playground.engines import engine_class

    graph, spec = engine_class("graph"), RunSpec(knobs={"precision": "bf16"})
    there, here = (footprint_of(spec, techniques(), graph, device) for device in ("cuda", "cpu"))
    assert (there.captured, there.kv_bucketed, there.kv_padded, there.kv_copied) == (True, True, False, False)
    assert (here.captured, here.kv_bucketed, here.kv_padded, here.kv_copied) == (False, True, True, False)
    off = footprint_of(RunSpec(knobs={"kv_cache": "off"}), techniques(), graph, "cuda")
    assert (off.captured, off.kv_bucketed) == (False, False)


def test_a_run_is_a_prefill_and_one_step_less_than_its_tokens():
    found = predict_run(SMALL, replace(HALF, rows=2), GPU, 6, 11)
    # everything is launches here: 99 of them at 2.2 us
    assert (found.decode_bound, found.prefill_bound) == ("launch", "launch")
    assert found.step_s == found.ttft_s == pytest.approx(99 * 2.2e-6)
    assert found.output_tokens_per_s == pytest.approx(2 * 11 / (11 * 99 * 2.2e-6))
    assert found.weights_bytes == (1152 + 40 + 256) * 2
    assert found.kv_cache_bytes == 17 * 16 * 2 * 2


def test_the_mean_decode_step_has_half_of_the_output_before_it():
    # 3 steps make tokens 2 to 4 and have 6, 7 and 8 tokens cached
    assert middle(6, 4) == 7
    assert middle(6, 1) == 6


MS = 1_000_000
SPEC = RunSpec(knobs={"precision": "bf16"}, workload=Workload(max_new_tokens=4), protocol=Protocol(repeats=2))


def timed(config=SMALL, ceilings=GPU, profile=None):
    """Two passes of a prompt of 9 tokens: first token after 20 ms, then 3 steps of 5 and of 4 ms."""
    events = [Loaded(0, 1.0, {"config": config, "device": "cuda"})]
    for index, step in enumerate((5, 4)):
        start = index * 1000
        events.append(BatchStart(start * MS, "timed", index, (0,), (9,)))
        events += [Tick((start + 20 + step * count) * MS, ((count,),)) for count in range(4)]
        events.append(BatchEnd((start + 99) * MS))
    events += [event for event in (ceilings, profile) if event] + [Done(0)]
    return derive(Trace.of(SPEC, events, footprint_of(SPEC, techniques())), None)


def test_bandwidth_and_arithmetic_used_are_work_over_time_over_ceiling():
    values = timed(ceilings=replace(GPU, copy_bytes_per_s=1e7, matmul_flops=1e7))
    # steps have 9, 10 and 11 tokens before them, in the mean 10: 3424 bytes and the copied cache
    shares = [(3424 + 640) / 0.005 / 1e7, (3424 + 640) / 0.004 / 1e7]
    assert values["mbu"].value == pytest.approx(sum(shares) / 2)
    assert values["mbu"].n == 2
    assert values["mfu"].value == pytest.approx((3520 / 0.005 + 3520 / 0.004) / 2 / 1e7)
    prompt = 2 * (1152 * 9 + 256) + 4 * 4 * 2 * 9 * 9 * 2
    assert values["prefill_mfu"].value == pytest.approx(prompt / 0.020 / 1e7)


def test_the_gpu_is_busy_for_the_kernels_of_a_step_over_the_timed_step():
    values = timed(profile=Profile(0, "cuda", 0.002, 1462, {"attention": 0.001}, 1, 10))
    assert values["gpu_busy"].value == pytest.approx((2 / 5 + 2 / 4) / 2)
    assert values["kernels_per_token"].value == 1462


@pytest.mark.parametrize(
    ("changes", "metric", "reason"),
    [
        ({"ceilings": None}, "mbu", "ceilings were not measured"),
        ({"config": {}}, "mfu", "without the model's config"),
        ({}, "gpu_busy", "no profile"),
        ({"profile": Profile(0, reason="the profiler ran out of memory")}, "kernels_per_token", "ran out of memory"),
        ({"profile": Profile(0, "cpu", None, None, {"MLP": 0.01}, 1, 10)}, "gpu_busy", "no kernels to launch"),
    ],
)
def test_what_cannot_be_told_says_why(changes, metric, reason):
    value = timed(**changes)[metric]
    assert value.kind == "not_available"
    assert reason in value.reason
