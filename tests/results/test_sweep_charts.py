"""What a sweep's curves say and how they are drawn, from result documents that were made by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest

from playground.core.spec import Protocol, RunSpec, Workload
from playground.core.sweep import Axis, SweepSpec, cells
from playground.results.sweep_charts import sweep_charts
from playground.results.sweep_facts import facts
from playground.results.sweep_table import sweep_table
from playground.results.sweeps import StoredCell, StoredSweep
from playground.techniques import techniques

UNITS = {"itl_s": "s", "ttft_s": "s", "e2e_s": "s", "kv_cache_bytes": "B", "j_per_token": "J", "bits_per_weight": "bits"}


def document(**values: float) -> dict[str, Any]:
    """A result with these metrics, each with an interval of 10 % on either side, and a roofline of half its best."""
    metrics = {
        name: {"value": value, "unit": UNITS.get(name, ""), "n": 3, "ci95": [value * 0.9, value * 1.1], "cv": 0.04, "kind": "measured"}
        for name, value in values.items()
    }
    half = {"intensity": 1.0, "flops_per_s": 0.5e12}
    return {
        "status": "done",
        "error": None,
        "metrics": metrics,
        "prediction": {"step_s": {"predicted": 2 * values["itl_s"]}} if "itl_s" in values else {},
        "roofline": {"decode": half, "prefill": half, "ceilings": {"matmul_flops": 1e13, "copy_bytes_per_s": 1e12}},
    }


def swept(
    documents: dict[tuple[int, Any], Any], *specs: RunSpec, axis: str, values: tuple[Any, ...]
) -> tuple[SweepSpec, tuple[StoredCell, ...]]:
    """A sweep of which these cells, by line and value, have results, or a status and a reason."""
    plan = SweepSpec(specs or (RunSpec("shape:tiny"),), (Axis(axis, values),)).checked(techniques())
    made = []
    for cell in cells(plan, techniques()):
        found = documents.get((cell.line, cell.point[0]))
        state = (
            {"status": found[0], "reason": found[1]} if isinstance(found, tuple) else {"status": "done", "result": found} if found else {}
        )
        made.append(StoredCell(cell, **state))
    return plan, tuple(made)


def panels(plan: SweepSpec, stored: tuple[StoredCell, ...], **more: Any) -> dict[str, dict[str, Any]]:
    return {panel["id"]: panel for group in sweep_charts(plan, stored, **more)["groups"] for panel in group["panels"]}


def traces(panel: dict[str, Any], mode: str) -> list[dict[str, Any]]:
    return [trace for trace in panel["figure"]["data"] if trace["mode"] == mode]


BATCHES = {
    (0, 1): document(itl_s=0.010, output_tokens_per_s=100, ttft_s=0.02, output_tokens=8),
    (0, 4): document(itl_s=0.010, output_tokens_per_s=400, ttft_s=0.04, output_tokens=8),
    (0, 16): document(itl_s=0.012, output_tokens_per_s=1300, ttft_s=0.10, output_tokens=8),
    (0, 64): ("oom", "Out of memory: the run asked for more."),
    (0, 256): ("skipped", "Batch size 64 ran out of memory, and this takes more."),
}


def test_batching_is_free_up_to_where_a_step_takes_a_tenth_more() -> None:
    plan, stored = swept(BATCHES, axis="batch_size", values=(1, 4, 16, 64, 256))
    (fact,) = facts(plan, stored)
    assert fact.values["free_until"] == pytest.approx(8)  # half way from 4 to 16 on a scale of doublings
    assert fact.sentence == (
        "A step takes more than 1.1 times that of batch size 1 from about 8 rows on; at 16 it takes 1.20 times as long."
    )
    panel = panels(plan, stored)["itl_s"]
    assert "from about 8 rows on" in panel["note"]
    assert [trace["x"] for trace in traces(panel, "lines") if trace["line"].get("dash") == "dash"] == [[fact.values["free_until"]] * 2]


def test_points_have_intervals_the_prediction_is_a_line_and_the_ceiling_a_band() -> None:
    plan, stored = swept(BATCHES, axis="batch_size", values=(1, 4, 16, 64, 256))
    panel = panels(plan, stored, foreseen={3: {"step_s": 0.05}})["itl_s"]
    (measured,) = traces(panel, "lines+markers")
    assert (measured["x"], measured["y"]) == ([1, 4, 16], pytest.approx([10, 10, 12]))
    assert measured["error_y"]["array"] == pytest.approx([1, 1, 1.2])
    dotted = next(trace for trace in traces(panel, "lines") if trace["line"].get("dash") == "dot")
    assert (dotted["x"], dotted["y"]) == ([1, 4, 16, 64], pytest.approx([20, 20, 24, 50])), "also where nothing was measured"
    edge, far = [trace for trace in traces(panel, "lines") if trace["meta"].get("ceiling")]
    assert edge["y"] == pytest.approx([5, 5, 6]), "half of the copy's rate is reached, so the best is half the time"
    assert far["fill"] == "tonexty"
    assert max(far["y"]) < min(edge["y"]), "a latency is shaded below what can be"
    above = [trace for trace in traces(panels(plan, stored)["output_tokens_per_s"], "lines") if trace["meta"].get("ceiling")]
    assert above[0]["y"][0] == pytest.approx(200)
    assert min(above[1]["y"]) > max(above[0]["y"])


def test_a_doubling_axis_is_logarithmic_and_names_what_has_no_numbers_and_why() -> None:
    plan, stored = swept(BATCHES, axis="batch_size", values=(1, 4, 16, 64, 256))
    drawn = panels(plan, stored)
    layout = drawn["itl_s"]["figure"]["layout"]
    assert (layout["xaxis"]["type"], layout["xaxis"]["tickvals"]) == ("log", [1, 4, 16, 64, 256])
    assert [(round(10 ** mark["x"]), mark["text"]) for mark in layout["annotations"]] == [(64, "✕ out of memory"), (256, "✕ skipped")]
    assert "Out of memory: the run asked for more." in layout["annotations"][0]["hovertext"]
    assert drawn["j_per_token"]["figure"] is None
    plan, stored = swept({(0, n): document(itl_s=0.01) for n in (10, 20, 30)}, axis="batch_size", values=(10, 20, 30))
    assert "type" not in panels(plan, stored)["itl_s"]["figure"]["layout"]["xaxis"]


def test_the_square_of_attention_shows_on_a_long_axis() -> None:
    lengths = tuple(128 * 2**step for step in range(7))  # to 8,192 tokens
    times = {n: 0.010 + 1e-5 * n + 5e-9 * n * n for n in lengths}
    plan, stored = swept(
        {(0, n): document(ttft_s=times[n], prompt_tokens=n, output_tokens=8) for n in lengths}, axis="prompt_tokens", values=lengths
    )
    (fact,) = facts(plan, stored)
    assert fact.values["square_share"] == pytest.approx(5e-9 * 8192**2 / times[8192], rel=1e-3)
    assert fact.values["last_exponent"] == pytest.approx(math.log2(times[8192] / times[4096]))
    assert fact.values["exponent"] < fact.values["last_exponent"]
    assert f"({fact.values['last_exponent']:.1f} between the two longest)" in fact.sentence
    assert "8,192 tokens" in panels(plan, stored)["ttft_s"]["note"]


def test_a_line_pays_from_the_length_at_which_its_first_token_comes_sooner_for_good() -> None:
    specs = [RunSpec("shape:tiny", label=name, knobs={"attention": name}) for name in ("eager", "sdpa", "sdpa_math", "sdpa_flash")]
    lengths = (64, 128, 256, 512)
    seconds = ((1, 2, 4, 9), (0.9, 1.5, 3, 5), (1.1, 2.5, 3, 9), (0.7, 1.4, 2.8, 5))  # the intervals reach 10 % to either side
    found = {(line, n): document(ttft_s=own) for line, times in enumerate(seconds) for n, own in zip(lengths, times, strict=True)}
    plan, stored = swept(found, *specs, axis="prompt_tokens", values=lengths)
    told = {fact.line: fact for fact in facts(plan, stored) if "ratio" in fact.values}
    assert set(told) == {1, 2, 3}
    # at 64 the intervals, 0.9 + 10 % and 1 - 10 %, overlap
    assert told[1].sentence == "sdpa: the first token comes sooner than with eager from 128 tokens on, × 0.556 at 512."
    assert told[1].values["pays_from"] == 128
    assert told[2].sentence == "sdpa_math: at the longest prompt of both no sooner first token than with eager is shown, × 1 at 512."
    panel = panels(plan, stored)["ttft_s"]
    assert [trace["x"][0] for trace in panel["figure"]["data"] if trace.get("name") == "sooner than eager from here on"] == [128, 64]
    assert "note" not in panel, "seven sentences are listed above the charts"
    assert told[3].sentence == "sdpa_flash: the first token comes sooner than with eager at each length, from 64 tokens, × 0.556 at 512."


def test_lengths_at_which_the_first_token_takes_as_long_as_any_other_count_for_no_kernel() -> None:
    specs = [RunSpec("shape:tiny", label=name, knobs={"attention": name}) for name in ("eager", "sdpa")]
    lengths = (64, 128, 256, 512)
    seconds, steps = ((0.9, 1.2, 4, 9), (0.4, 0.5, 2, 5)), (0.8, 0.4)  # eager's first two take up to 1.5 of its steps, sdpa's as well
    found = {
        (line, n): document(ttft_s=own, itl_s=steps[line])
        for line, times in enumerate(seconds)
        for n, own in zip(lengths, times, strict=True)
    }
    found[0, 512]["metrics"]["ttft_s"]["grade"] = "unstable"
    own, _, sooner = facts(*swept(found, *specs, axis="prompt_tokens", values=lengths))
    assert own.values["flat_until"] == 128
    assert "up to 128 tokens the first takes at most 1.5 times as long as a later one: the prompt decides little." in own.sentence
    careful = "Careful: the repeats of 1 of 8 points vary by more than 20 %."  # eager's, which sdpa is held against
    since = "from 256 tokens on, × 0.556 at 512; not compared up to 128"
    assert sooner.sentence == f"sdpa: the first token comes sooner than with eager {since}. {careful}"


def test_without_a_kv_cache_each_token_costs_as_much_as_the_prompt_and_every_length_is_compared() -> None:
    specs = [RunSpec("shape:tiny", label=name, knobs={"kv_cache": name}) for name in ("off", "dynamic")]
    times = {(0, 64): 1, (0, 128): 2, (0, 256): 4, (1, 64): 0.5, (1, 128): 1, (1, 256): 2}
    found = {at: document(ttft_s=own, itl_s=own if at[0] == 0 else 0.4) for at, own in times.items()}
    own, _, sooner = facts(*swept(found, *specs, axis="prompt_tokens", values=(64, 128, 256)))
    assert "flat_until" not in own.values
    assert sooner.values["pays_from"] == 64


def test_memory_is_drawn_against_the_tokens_that_a_row_had_in_the_end() -> None:
    found = {(0, n): document(kv_cache_bytes=1e6 * (n + 7), prompt_tokens=n, output_tokens=8) for n in (100, 200)}
    plan, stored = swept(found, axis="prompt_tokens", values=(100, 200))
    (measured,) = traces(panels(plan, stored)["kv_cache_bytes"], "lines+markers")
    assert measured["x"] == [108, 208]


def test_slowdown_is_the_latency_without_a_cache_over_that_of_the_line_with_all_else_alike() -> None:
    base = RunSpec("shape:tiny", workload=Workload(("p",)))
    specs = [
        base.replace(label=name, knobs=knobs) for name, knobs in (("fp32", {"precision": "fp32"}), ("on", {}), ("off", {"kv_cache": "off"}))
    ]
    found = {(1, 8): document(e2e_s=1.0), (1, 64): document(e2e_s=4.0), (2, 8): document(e2e_s=1.5), (2, 64): document(e2e_s=20.0)}
    plan, stored = swept(found, *specs, axis="max_new_tokens", values=(8, 64))
    panel = panels(plan, stored)["slowdown"]
    (measured,) = traces(panel, "lines+markers")
    assert (measured["x"], measured["y"], measured["meta"]) == ([8, 64], pytest.approx([1.5, 5.0]), {"variant": 2})
    assert measured["error_y"]["array"][1] > 0
    assert panel["note"] == "off: without a KV cache a request takes 1.50 times as long at 8 tokens of output and 5 times at 64."


def test_quality_is_drawn_against_bits_a_weight_with_its_noise_floor() -> None:
    spec = RunSpec("shape:tiny", protocol=Protocol(quality=True))
    found = {
        (0, "none"): document(bits_per_weight=16.0, ppl=38.0, kld_mean_floor=0.001),
        (0, "int8"): document(bits_per_weight=9.5, kld_mean=0.02, ppl=38.4),
        (0, "nf4"): document(bits_per_weight=6.9, kld_mean=0.23, ppl=43.0),
    }
    plan, stored = swept(found, spec, axis="quantization", values=("none", "int8", "nf4"))
    panel = panels(plan, stored)["kld_mean"]
    (measured,) = traces(panel, "markers+text")
    assert (measured["x"], measured["y"], measured["text"]) == ([9.5, 6.9], [0.02, 0.23], ["  int8", "  nf4"])
    assert panel["figure"]["data"][-1]["y"] == [0.001, 0.001]
    assert panels(plan, stored)["ppl"]["figure"]["data"][0]["x"] == [16.0, 9.5, 6.9]


def test_the_table_has_a_line_a_run_and_says_why_one_has_no_numbers() -> None:
    plan, stored = swept(BATCHES, axis="batch_size", values=(1, 4, 16, 64, 256))
    lines = sweep_table(StoredSweep("s", "t", "", "done", plan, stored)).splitlines()
    assert lines[0].split("  ")[-1] == "Time to first token"
    assert lines[1].startswith("Batch size 1    done     10 ms ± 1 ms")
    assert lines[4].split() == ["Batch", "size", "64", "oom", "-", "-", "-"]
    assert lines[-1] == "Batch size 64: Out of memory: the run asked for more."
