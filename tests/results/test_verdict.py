"""Verdicts on runs with times as seen on an H200 and on two cores of a server."""

import dataclasses

import pytest
from whole_runs import LLAMA_8B, SMOLLM2_135M, cpu, document, run, verdict

from playground.core.events import BatchStart, Ceilings, Counts, Profile, Tick

FP16 = run("fp16", step_ms=10.7, precision="fp16", kernels=740, kernel_ms=1.0)
BF16 = run("bf16", step_ms=9.73, kernels=740, kernel_ms=1.0)


def test_int8_is_slower_because_its_launches_decide():
    found = verdict(run("int8", step_ms=31.9, precision="fp16", quantization="int8", kernels=1462, kernel_ms=3.2), FP16)
    assert found["bottleneck"] == "launch"
    assert found["sentence"] == (
        "int8 moves 39 % fewer bytes a step, but 1,462 kernels a step (the baseline has 740) keep the GPU busy for only 10 % of the 31.9 "
        "ms that it takes, so the launches decide and a step takes 31.9 ms instead of 10.7 ms."
    )


def test_steps_that_check_proposed_tokens_are_told_by_the_step_and_by_the_token():
    lookup = run("lookup", step_ms=20, a_step=4, kernels=800, kernel_ms=1.0, speculative="prompt_lookup")
    found = document(lookup, BF16)
    assert found["verdict"]["sentence"] == (
        "lookup makes 4 tokens of a row a step instead of 1, and 800 kernels a step keep the GPU busy for only 5.0 % of the 20 ms that it "
        "takes, so the launches decide and a step takes 20 ms instead of 9.73 ms, a token 5 ms instead of 9.73 ms."
    )
    assert found["metrics"]["kernels_per_token"]["value"] == 200
    assert found["metrics"]["itl_s"]["value"] == pytest.approx(0.005)
    assert all("checks several proposed tokens" in found["metrics"][name]["reason"] for name in ("mbu", "mfu"))
    assert (found["prediction"], found["prediction_reason"][:28]) == ({}, "a step checks several propos")


def test_what_else_the_host_does_is_told_from_launching_kernels():
    found = verdict(run("2:4", step_ms=180, precision="fp16", prune="two_four", kernels=1560, kernel_ms=15.7), FP16)
    assert found["bottleneck"] == "host"
    # 1,560 launches of 4.5 us, times 2.2 for the modules around them
    assert found["sentence"].endswith(
        "keep the GPU busy for only 8.7 % of the 180 ms that it takes, and launching them takes about 15.4 ms of it, so the host's other "
        "work decides and a step takes 180 ms instead of 10.7 ms."
    )
    bounds = {step: verdict(run("2:4", step_ms=step, kernels=1560, kernel_ms=1), FP16)["bottleneck"] for step in (61, 62.5)}
    assert bounds == {61: "launch", 62.5: "host"}  # 15.4 ms are more and less than a quarter of it


def test_a_cache_that_is_fetched_from_host_memory_is_not_taken_for_the_hosts_work_alone():
    found = verdict(run("offloaded", step_ms=100, kernels=696, kernel_ms=2.2, kv_cache="offloaded"), BF16)
    assert found["sentence"].endswith(
        "so fetching the KV cache from host memory, which was not timed, or the host's other work decides and a step takes 100 ms instead "
        "of 9.73 ms."
    )


def test_fewer_bytes_at_the_same_time_gain_nothing():
    found = verdict(run("nf4", step_ms=9.75, quantization="nf4", kernels=740, kernel_ms=0.9), BF16)
    assert found["bottleneck"] == "launch"
    assert found["sentence"].startswith("nf4 moves 56 % fewer bytes a step, but 740 kernels a step keep the GPU busy for only 9.2 %")
    assert found["sentence"].endswith("so the launches decide and nothing is gained.")


def test_the_baseline_alone_names_its_bottleneck_and_no_one_else():
    found = verdict(BF16)
    assert found["sentence"] == (
        "bf16: 740 kernels a step keep the GPU busy for only 10 % of the 9.73 ms that it takes, so the launches decide."
    )
    assert found["prefill"] == "launch"


def test_no_cache_costs_nothing_on_a_fast_gpu_at_short_lengths():
    found = verdict(run("KV cache off", step_ms=9.73, kv_cache="off", kernels=700, kernel_ms=1.2), BF16)
    assert found["bottleneck"] == "launch"
    # 54 tokens in the mean step: (54 x 973 M linear weights + 263 M of the head) / (973 M + 263 M)
    assert "computes 43 times the operations a step, but 700 kernels" in found["sentence"]
    assert found["sentence"].endswith("the extra work costs nothing.")


def test_no_cache_is_ruinous_at_long_lengths_because_of_arithmetic():
    with_cache = run("dynamic", step_ms=22.0, ttft_ms=95, config=LLAMA_8B, prompt=4000, kernels=1330, kernel_ms=7.5)
    without = run("KV cache off", step_ms=118, ttft_ms=118, config=LLAMA_8B, prompt=4000, kv_cache="off", kernels=1300, kernel_ms=116)
    found = verdict(without, with_cache)
    assert (found["bottleneck"], found["prefill"]) == ("compute", "compute")
    # 2 x 6.98e9 weights x 4008 tokens and 4 x 4096 x 4008^2 x 32 of attention are 64 TFLOP, in 118 ms 69 % of 790 TFLOP/s
    assert "a step's 64.4 TFLOP in 118 ms are 69 % of the rate of a large matrix product" in found["sentence"]
    assert found["sentence"].endswith("so arithmetic decides and a step takes 118 ms instead of 22 ms.")


def test_32_rows_take_as_long_as_one_while_launches_decide():
    found = verdict(run("batch size 32", step_ms=9.75, batch_size=32, kernels=740, kernel_ms=1.5), BF16)
    assert found["bottleneck"] == "launch"
    assert found["sentence"] == (
        "batch size 32 makes 32 tokens a step instead of 1, but 740 kernels a step keep the GPU busy for only 15 % of the 9.75 ms that it "
        "takes, so the launches decide and the other rows cost no time."
    )


def test_32_rows_take_as_long_as_one_while_weights_are_read_once_for_all():
    one = run("graph", step_ms=6.3, config=LLAMA_8B, kernels=1330, kernel_ms=6.0)
    found = verdict(run("batch size 32", step_ms=6.35, config=LLAMA_8B, batch_size=32, kernels=1330, kernel_ms=6.1), one)
    assert found["bottleneck"] == "memory"
    assert "memory traffic decides and the other rows cost no time, since the weights are read once for all" in found["sentence"]


def test_a_prefill_is_compute_bound_while_decoding_is_memory_bound():
    found = verdict(run("graph", step_ms=6.3, ttft_ms=62, config=LLAMA_8B, prompt=2048, kernels=1330, kernel_ms=6.0))
    assert (found["bottleneck"], found["prefill"]) == ("memory", "compute")
    # 15.0 GB of weights without the embedding, and three times 2,055 tokens of 131 kB of cache, at 4.27 TB/s
    assert "a step's 15.8 GB in 6.30 ms are 59 % of the rate of a large copy" in found["sentence"]
    assert found["sentence"].endswith("so memory traffic decides; its prefill of 2,048 tokens is compute-bound.")


def test_fp16_and_bf16_on_a_cpu_differ_by_the_kernels_of_the_format():
    bf16 = run("bf16", step_ms=52, ttft_ms=300, config=SMOLLM2_135M, device="cpu", ceilings=cpu("bfloat16", 60e9))
    fast = run("fp16", step_ms=36, ttft_ms=200, config=SMOLLM2_135M, device="cpu", ceilings=cpu("float16", 90e9), precision="fp16")
    found = verdict(fast, bf16)
    assert found["bottleneck"] == "memory"
    assert found["sentence"] == (
        "fp16 moves the same 273 MB a step, yet a step takes 36 ms instead of 52 ms: this processor multiplies large matrices at 90 "
        "GFLOP/s in float16 and at 60 GFLOP/s in bfloat16, so its arithmetic in the number format makes the difference; its prefill of 46 "
        "tokens is compute-bound."
    )
    slow_format = (fast[0], [cpu("float16", 30e9) if isinstance(event, Ceilings) else event for event in fast[1]])
    assert "which does not explain it" in verdict(slow_format, bf16)["sentence"]


def test_fp16_on_a_cpu_says_which_rate_was_measured_where_one_is_missing():
    bf16 = run("bf16", step_ms=52, config=SMOLLM2_135M, device="cpu", ceilings=None)
    fp16 = run("fp16", step_ms=36, config=SMOLLM2_135M, device="cpu", ceilings=cpu("float16", 90e9), precision="fp16")
    assert "90 GFLOP/s in float16 here, and the baseline's number format was not measured" in verdict(fp16, bf16)["sentence"]


def test_half_the_bytes_on_a_cpu_are_a_shorter_step_where_memory_decides():
    fp32 = run("fp32", step_ms=73, config=SMOLLM2_135M, device="cpu", ceilings=cpu("float32", 150e9), precision="fp32")
    bf16 = run("bf16", step_ms=42, config=SMOLLM2_135M, device="cpu", ceilings=cpu("bfloat16", 60e9))
    found = verdict(bf16, fp32)
    assert found["bottleneck"] == "memory"
    assert found["sentence"].startswith(
        "bf16 moves 50 % fewer bytes a step, and a step's 273 MB in 42 ms are 46 % of the rate of a large copy"
    )


def test_a_step_of_one_row_is_held_against_products_with_one_row_where_they_were_measured():
    slow, quick = (dataclasses.replace(cpu(dtype, 90e9), matvec_bytes_per_s=rate) for dtype, rate in (("bfloat16", 8e9), ("float16", 12e9)))
    bf16 = run("bf16", step_ms=42, config=SMOLLM2_135M, device="cpu", ceilings=slow)
    found = verdict(bf16)
    assert found["bottleneck"] == "memory"
    # 273 MB at 8 GB/s are 34 ms of 42
    assert "are 81 % of the rate of products with one row (8 GB/s here; a large copy reaches 14 GB/s)" in found["sentence"]
    fp16 = run("fp16", step_ms=30, config=SMOLLM2_135M, device="cpu", ceilings=quick, precision="fp16")
    assert (
        "products with one row read 12 GB/s of weights in float16 here and 8 GB/s in bfloat16, so kernels of the number format make"
        in verdict(fp16, bf16)["sentence"]
    )


def test_int8_on_a_cpu_is_bound_by_calling_its_operators():
    fp16 = run("fp16", step_ms=36, config=SMOLLM2_135M, device="cpu", ceilings=cpu("float16", 90e9), precision="fp16")
    int8 = run("int8", step_ms=118, config=SMOLLM2_135M, device="cpu", ceilings=cpu("float16", 90e9), precision="fp16", quantization="int8")
    found = verdict(int8, fp16)
    assert found["bottleneck"] == "launch"
    assert "calling about 4,611 operators takes an estimated 43 % of a step's 118 ms, so their overhead decides" in found["sentence"]


def test_what_no_ceiling_explains_is_unknown_and_says_how_much_each_does():
    slow = run("fp16", step_ms=400, config=SMOLLM2_135M, device="cpu", ceilings=cpu("float16", 90e9), precision="fp16")
    found = verdict(slow)
    assert found["bottleneck"] == "unknown"
    # 273 MB at 14 GB/s are 19.5 ms, 0.27 GFLOP at 90 GFLOP/s 3 ms, 1,251 operators at 3 x 3.7 us 13.9 ms
    assert "needs 4.9 % for its bytes, 0.76 % for its arithmetic, 3.5 % for calling its operators" in found["sentence"]


def test_added_operations_that_take_time_are_the_reason_below_every_ceiling():
    baseline = run("bf16", step_ms=58, config=SMOLLM2_135M, device="cpu", ceilings=cpu("bfloat16", 420e9), prompt=37)
    off = run("off", step_ms=155, config=SMOLLM2_135M, device="cpu", ceilings=cpu("bfloat16", 420e9), prompt=37, kv_cache="off")
    assert verdict(off)["bottleneck"] == "unknown"
    found = verdict(off, baseline)
    assert found["bottleneck"] == "compute"
    # 45 tokens: 2 x 106 M linear weights x 45, 2 x 28.3 M of the head, and 4 x 576 x 45^2 x 30 of attention
    assert found["sentence"].startswith("off computes 36 times the operations a step, and a step's 9.75 GFLOP in 155 ms are 15 % of")
    assert found["sentence"].endswith("so arithmetic decides and a step takes 155 ms instead of 58 ms.")


def test_noise_is_not_called_a_finding():
    calm = run("bf16", step_ms=9.73, kernels=740, kernel_ms=1.0)
    noisy = run("nf4", step_ms=12.4, quantization="nf4", kernels=740, kernel_ms=0.9, wobble=(0.7, 1.0, 1.3))
    assert verdict(noisy, calm)["sentence"].endswith("is no difference that this run can show.")


def test_busy_kernels_that_reach_no_ceiling_are_not_called_memory_bound():
    found = verdict(run("slow kernels", step_ms=30, kernels=740, kernel_ms=27))
    assert found["bottleneck"] == "unknown"
    assert "kernels run for 90 % of a step's 30 ms" in found["sentence"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"ceilings": None}, "no profile of a step and the device's ceilings were not measured"),
        ({"config": {}}, "without the model's config"),
        ({"device": "cpu", "ceilings": None}, "known: the device's ceilings were not measured"),
        ({"new": 1}, "no decode step was timed"),
    ],
)
def test_what_a_verdict_lacks_is_said(changes, reason):
    found = verdict(run("bf16", **{"step_ms": 9.73, **changes}))
    assert found["bottleneck"] == "unknown"
    assert reason in found["sentence"]


def test_without_ceilings_a_profile_still_shows_that_launches_decide():
    assert verdict(run("bf16", step_ms=9.73, ceilings=None, kernels=740, kernel_ms=1.0))["bottleneck"] == "launch"
    busy = verdict(run("bf16", step_ms=9.73, ceilings=None, kernels=740, kernel_ms=9.0))
    assert busy["bottleneck"] == "unknown"
    assert "cannot be told apart" in busy["sentence"]


def test_without_a_profile_the_ceilings_weigh_the_three():
    found = verdict(run("bf16", step_ms=9.73))
    assert found["bottleneck"] == "launch"
    # 16 layers x 41 kernels and 21 more, at 2.2 x 4.5 us: 6.7 ms
    assert "launching about 677 kernels takes an estimated 69 % of a step's 9.73 ms" in found["sentence"]


def test_a_document_has_the_prediction_with_its_error_the_roofline_and_the_profile():
    found = document(run("bf16", step_ms=10, ttft_ms=12, memory={"weights_bytes": 2_471_628_800.0, "kv_cache_bytes": 1_998_848.0}))
    assert found["prediction_reason"] == ""
    assert found["prediction"]["weights_bytes"] == {
        "predicted": 2_471_628_800, "measured": 2_471_628_800.0, "unit": "B", "error": 0.0,
    }  # fmt: skip
    # 62 tokens of 32 kB are estimated; the last one is never fed back, so 61 are kept
    assert found["prediction"]["kv_cache_bytes"]["error"] == pytest.approx(62 / 61 - 1)
    step = found["prediction"]["step_s"]
    assert (step["measured"], step["unit"]) == (pytest.approx(0.010), "s")
    assert step["predicted"] == pytest.approx(677 * 2.2 * 4.5e-6)
    assert step["error"] == pytest.approx(677 * 2.2 * 4.5e-6 / 0.010 - 1)
    point = found["roofline"]["decode"]
    assert point["intensity"] == pytest.approx(1, rel=0.02)  # each 16-bit weight is read once for two operations
    assert point["flops_per_s"] == pytest.approx(2 * 1_235_679_232 / 0.010, rel=0.01)
    assert found["roofline"]["ceilings"] == {
        "copy_bytes_per_s": 4.27e12, "matmul_flops": 7.9e14, "launch_s": 4.5e-6, "dtype": "bfloat16", "device": "cuda",
        "matvec_bytes_per_s": None, "graph_kernel_s": None,
    }  # fmt: skip
    assert found["profile"] is None
    profiled = document(BF16)["profile"]
    assert profiled == {"device": "cuda", "kernel_s": 0.001, "kernels": 740, "parts": {"MLP": 0.001}, "rows": 1, "cached_tokens": 54}


def test_memory_is_predicted_without_ceilings_and_nothing_without_a_config():
    found = document(run("bf16", step_ms=10, ceilings=None))
    assert set(found["prediction"]) == {"weights_bytes", "kv_cache_bytes"}
    assert "ceilings were not measured" in found["prediction_reason"]
    assert found["roofline"] is None
    unknown = document(run("script", step_ms=10, config={}))
    assert unknown["prediction"] == {}
    assert "config is not known" in unknown["prediction_reason"]


def test_a_profile_that_failed_is_no_profile():
    spec, events = run("bf16", step_ms=9.73, ceilings=None)
    found = document((spec, [*events[:-1], Profile(0, reason="the profiler ran out of memory"), events[-1]]))
    assert found["profile"] is None
    assert "ran out of memory" in found["verdict"]["sentence"]


def test_without_a_cache_the_profiled_step_is_held_against_the_steps_beside_it():
    spec, events = run("off", step_ms=1, kernels=600, kernel_ms=9.0, prompt=46, new=41, kv_cache="off")
    # Steps that grow: the first 2 ms, each next one 1 ms longer; the one that was profiled, with 50 tokens before it, is the fifth: 6 ms.
    grown, ticks = [], 0
    for event in events:
        if isinstance(event, BatchStart):
            at, ticks = event.t_ns, 0
        if isinstance(event, Tick):
            at += (1 + ticks) * 1_000_000
            event, ticks = dataclasses.replace(event, t_ns=at), ticks + 1
        if isinstance(event, Profile):
            event = dataclasses.replace(event, cached_tokens=50, kernel_s=0.0054)
        grown.append(event)
    busy = document((spec, grown))["metrics"]["gpu_busy"]["value"]
    assert busy == pytest.approx(0.9)  # against the mean step of 21.5 ms it would be a quarter
    assert document((spec, grown))["verdict"]["bottleneck"] != "launch"


def test_launches_are_not_blamed_while_kernels_run_most_of_the_time():
    found = verdict(run("slow kernels", step_ms=40, kernels=700, kernel_ms=26))
    assert found["bottleneck"] == "unknown"
    assert "kernels run for 65 % of a step" in found["sentence"]


def fetching(one, moved, rate):
    """A run that fetches so many bytes of offloaded weights in each pass, over a link of so many a second."""
    spec, events = one
    return spec, [*events[:-1], Counts(0, {"offloaded_bytes": moved, "link_bytes_per_s": rate}), events[-1]]


def test_offloaded_weights_are_named_where_fetching_them_takes_the_time():
    """As on an H200, 1B shape, half of the layers in host memory: 973 MB at 8.52 GB/s are 114 ms, in which no kernel runs."""
    one = run("in host memory", step_ms=154, ttft_ms=152, kernels=680, kernel_ms=1.9, offload="cpu", offload_share=0.5)
    found = verdict(fetching(one, 973e6, 8.52e9), BF16)
    assert (found["bottleneck"], found["prefill"]) == ("communication", "communication")
    assert found["sentence"] == (
        "in host memory moves 39 % more bytes a step, and fetching 973 MB of offloaded weights takes an estimated 74 % of a step's 154 ms, "
        "so their transfer decides and a step takes 154 ms instead of 9.73 ms."
    )


def test_a_fast_link_leaves_the_launches_to_decide():
    one = run("in host memory", step_ms=20, kernels=680, kernel_ms=1.9, offload="cpu", offload_share=0.5)
    found = verdict(fetching(one, 973e6, 400e9), BF16)  # 2.4 ms of 20
    assert found["bottleneck"] == "launch"


def test_the_prediction_counts_the_wait_for_offloaded_weights():
    one = run("in host memory", step_ms=154, ttft_ms=152, kernels=680, kernel_ms=1.9, offload="cpu", offload_share=0.5)
    without = document(one)["prediction"]
    found = document(fetching(one, 973e6, 8.52e9))["prediction"]
    for name in ("step_s", "ttft_s"):
        assert found[name]["predicted"] - without[name]["predicted"] == pytest.approx(0.1142, rel=1e-3)


def test_a_link_that_was_slower_when_it_was_measured_gives_no_share_over_one():
    one = run("in host memory", step_ms=100, kernels=680, kernel_ms=1.9, offload="cpu", offload_share=0.5)
    found = verdict(fetching(one, 973e6, 8.52e9), BF16)
    assert found["bottleneck"] == "communication"
    assert (
        "fetching 973 MB of offloaded weights at the rate measured when they were loaded would take all of a step's 100 ms"
        in found["sentence"]
    )


def test_a_transfer_that_takes_less_than_the_launches_is_not_what_decides():
    one = run("in host memory", step_ms=60, kernels=1330, kernel_ms=12, config=LLAMA_8B, offload="cpu", offload_share=0.1)
    assert verdict(fetching(one, 1.68e9, 80e9))["bottleneck"] != "communication"  # 21 ms of 60; 27 ms of launches


def test_another_number_format_does_not_hide_the_transfer_on_a_cpu():
    plain = run("fp32", step_ms=60, config=SMOLLM2_135M, ceilings=cpu("float32", 2e11), device="cpu", precision="fp32")
    one = run(
        "bf16 on disk", step_ms=140, config=SMOLLM2_135M, ceilings=cpu("bfloat16", 4e11), device="cpu", precision="bf16", offload="disk",
        offload_share=1.0,
    )  # fmt: skip
    found = verdict(fetching(one, 212e6, 2e9), plain)  # 106 ms
    assert found["bottleneck"] == "communication"
    assert "fetching 212 MB of offloaded weights takes an estimated 76 % of a step's 140 ms" in found["sentence"]
