"""What a technique promised against what was measured: the outcomes, and the reason of a surprise."""

from whole_runs import document, run

from playground.core.events import Score


def outcomes(one, baseline):
    return {entry["metric"]: entry for entry in document(one, baseline)["expectations"]}


SIZES = {"weights_bytes": 2.47e9, "kv_cache_bytes": 5.7e6}
FP16 = run("fp16", step_ms=10.7, precision="fp16", kernels=740, kernel_ms=1.0, memory=SIZES)


def int8(step_ms=31.9, score=None):
    sizes = {**SIZES, "weights_bytes": 1.5e9}
    return run("int8", step_ms=step_ms, precision="fp16", quantization="int8", kernels=1462, kernel_ms=3.2, memory=sizes, score=score)


def test_the_baseline_has_no_expectations():
    assert document(FP16)["expectations"] == []


def test_fewer_bytes_are_as_expected_and_a_longer_step_is_the_opposite_with_its_reason():
    found = outcomes(int8(), FP16)
    assert found["weights_bytes"] == {
        "technique": "quantization", "metric": "weights_bytes", "expected": "down", "outcome": "as expected",
        "text": "Weights: expected to fall, and fell from 2.47 GB to 1.50 GB.",
    }  # fmt: skip
    slower = found["itl_s"]
    assert (slower["expected"], slower["outcome"]) == ("down", "opposite")
    assert slower["text"].startswith("Inter-token latency: expected to fall, but rose from 10.7 ms to 31.9 ms. int8 moves 39 % fewer bytes")
    assert "the launches decide" in slower["text"]


def test_intervals_that_overlap_are_no_difference():
    # three passes spread by half a percent: the mean's interval reaches 1.2 % to either side
    found = outcomes(int8(step_ms=10.75), FP16)["itl_s"]
    assert found["outcome"] == "no difference"
    assert "expected to fall, but there is no difference that this run can show (from 10.7 ms to 10.8 ms)" in found["text"]
    assert outcomes(int8(step_ms=10.2), FP16)["itl_s"]["outcome"] == "as expected"


def test_bytes_within_two_percent_are_the_same():
    found = outcomes(int8(), FP16)["kv_cache_bytes"]
    assert (found["expected"], found["outcome"]) == ("same", "as expected")
    assert found["text"] == "KV cache: expected to stay the same, and stayed at 5.70 MB."


def test_what_was_not_measured_says_why():
    found = outcomes(int8(), FP16)["kld_mean"]
    assert found["outcome"] == "not measured"
    assert "the run ended before output quality was measured" in found["text"]


def test_quality_is_held_against_the_noise_floor_of_the_baseline():
    scored = int8(score=Score(0, {"kld_mean": 0.04, "top1_agreement": 0.9}))
    assert outcomes(scored, FP16)["kld_mean"]["outcome"] == "as expected"
    assert outcomes(scored, FP16)["top1_agreement"]["text"] == "Same top token: expected to fall, and fell from 100 % to 90 %."
    with_floor = (FP16[0], [Score(0, {"kld_mean_floor": 0.04, "top1_agreement_floor": 0.9}), *FP16[1]])
    noise = outcomes(scored, with_floor)
    assert (noise["kld_mean"]["outcome"], noise["top1_agreement"]["outcome"]) == ("no difference", "no difference")


def test_two_changes_at_once_name_each_other_and_the_one_that_changes_nothing_is_silent():
    bf16 = run("bf16", step_ms=10.7, kernels=740, kernel_ms=1.0, memory=SIZES)
    entries = document(int8(), bf16)["expectations"]
    assert [entry["technique"] for entry in entries if entry["metric"] in ("weights_bytes", "itl_s")] == ["quantization", "quantization"]
    assert all(entry["text"].endswith("Also changed: Precision.") for entry in entries if entry["metric"] == "itl_s")


def test_more_rows_are_more_tokens_a_second_as_expected_and_no_longer_step():
    found = outcomes(run("batch size 32", step_ms=10.7, precision="fp16", batch_size=32, kernels=740, kernel_ms=1.5), FP16)
    assert found["output_tokens_per_s"]["outcome"] == "as expected"
    assert found["itl_s"]["outcome"] == "no difference"
    assert "the other rows cost no time" in found["itl_s"]["text"]


def test_a_quality_loss_below_the_noise_floor_is_no_difference_and_never_an_improvement():
    scored = int8(score=Score(0, {"kld_mean": 0.003, "top1_agreement": 0.99}))
    noisy = (FP16[0], [Score(0, {"kld_mean_floor": 0.005, "top1_agreement_floor": 0.97}), *FP16[1]])
    found = outcomes(scored, noisy)
    assert (found["kld_mean"]["outcome"], found["top1_agreement"]["outcome"]) == ("no difference", "no difference")
    assert "within the noise floor of 0.005" in found["kld_mean"]["text"]


def test_one_repeat_tells_no_difference_of_times():
    one, other = (run(name, step_ms=ms, precision="fp16", wobble=(1.0,), memory=SIZES) for name, ms in (("a", 10.7), ("b", 20.0)))
    changed = (one[0].replace(knobs={**one[0].knobs, "quantization": "int8"}), other[1])
    found = outcomes(changed, one)["itl_s"]
    assert found["outcome"] == "not measured"
    assert "one repeat cannot tell" in found["text"]


def test_wide_intervals_do_not_confirm_that_nothing_changed():
    fp16 = run("fp16", step_ms=10.7, precision="fp16", wobble=(0.7, 1.0, 1.3), memory=SIZES)
    bf16 = run("bf16", step_ms=14.0, wobble=(0.7, 1.0, 1.3), memory=SIZES)
    found = outcomes(bf16, fp16)["itl_s"]
    assert (found["expected"], found["outcome"]) == ("same", "no difference")
    assert "too wide to confirm" in found["text"]
