"""Final charts of the numbers that explain: memory ladder, energy, efficiency, noise floors, profile and roofline."""

from __future__ import annotations

from typing import Any

import pytest

from playground.results.charts import charts
from playground.results.profile_chart import IDLE, profile
from playground.results.roofline_chart import roofline

NAMES = ["Baseline: bf16", "B: int8"]


def metric(value: float | None, unit: str, **more: Any) -> dict[str, Any]:
    kind = "measured" if value is not None else "not_available"
    return {"value": value, "unit": unit, "n": 5, "ci95": None, "kind": kind, "reason": None, **more}


def document(**metrics: dict[str, Any]) -> dict[str, Any]:
    return {"status": "done", "metrics": metrics}


def drawn(*results: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Panels by id, after Plotly has accepted every figure."""
    import plotly.graph_objects as go

    panels = [panel for group in charts(results, NAMES[: len(results)])["groups"] for panel in group["panels"]]
    for panel in panels:
        if panel["figure"]:
            go.Figure(panel["figure"])
    return {panel["id"]: panel for panel in panels}


def group(title: str, *results: dict[str, Any]) -> dict[str, Any]:
    return next(group for group in charts(results, NAMES[: len(results)])["groups"] if group["title"] == title)


def bars(panel: dict[str, Any]) -> list[dict[str, Any]]:
    return [trace for trace in panel["figure"]["data"] if trace["type"] == "bar"]


LADDER = {
    "weights_bytes": 6e9, "kv_cache_bytes": 1e9, "activations_bytes": 5e8, "slack_bytes": 2.5e8, "context_bytes": 7.5e8,
    "peak_allocated_bytes": 7.5e9, "rest_bytes": 5e8,
}  # fmt: skip


def test_memory_on_a_gpu_is_the_whole_ladder_with_the_peak_below_its_top() -> None:
    gpu = document(**{name: metric(size, "B") for name, size in LADDER.items()})
    panel = drawn(gpu)["memory"]
    assert [bar["x"][0] for bar in bars(panel)] == [6.0, 1.0, 0.5, 0.25, 0.75]
    mark, words = (trace for trace in panel["figure"]["data"] if trace["type"] == "scatter")
    assert (round(mark["x"][0], 6), round(words["x"][0], 6)) == (7.5, 8.5)
    assert words["text"] == ["  7.50 GB of 8.50 GB"]
    names = [entry["name"] for entry in panel["key"]]
    assert names == ["weights", "KV cache", "activations and workspace", "held by the allocator", "context of the driver"]
    assert "peak of live tensors" in panel["note"]


def test_what_of_the_cache_lies_in_host_memory_is_no_part_of_the_gpus() -> None:
    away = document(**{name: metric(size, "B") for name, size in {**LADDER, "kv_host_bytes": 9e8, "peak_allocated_bytes": 6.6e9}.items()})
    assert [round(bar["x"][0], 6) for bar in bars(drawn(away)["memory"])] == [6.0, 0.1, 0.5, 0.25, 0.75]


def test_memory_without_the_ladder_is_weights_cache_and_the_rest() -> None:
    sizes = {"weights_bytes": 5e8, "kv_cache_bytes": 1e8, "rest_bytes": 2e8, "rss_growth_bytes": 8e8}
    panel = drawn(document(**{name: metric(size, "B") for name, size in sizes.items()}), document())["memory"]
    assert [bar["x"][0] for bar in bars(panel)] == [500.0, 100.0, 200.0]
    assert [entry["name"] for entry in panel["key"]] == ["weights", "KV cache", "activations and the rest"]
    assert "it was not measured in this run" in panel["figure"]["layout"]["annotations"][0]["hovertext"]
    assert "live tensors" not in panel["note"]


def test_energy_that_nobody_measured_is_one_line_with_the_reason_and_no_panel() -> None:
    none = {name: metric(None, unit, reason="a CPU has no counter") for name, unit in (("j_per_token", "J/token"), ("avg_power_w", "W"))}
    assert group("Energy", document(**none), document(**none)) == {
        "title": "Energy",
        "panels": [],
        "note": "Not available: a CPU has no counter",
    }
    one = group("Energy", document(**none), document(j_per_token=metric(0.31, "J/token")))
    assert [panel["id"] for panel in one["panels"]] == ["j_per_token"]
    assert "note" not in one


def test_efficiency_shows_what_was_measured() -> None:
    busy = document(gpu_busy=metric(0.1, "share"), kernels_per_token=metric(1462, "kernels"), mbu=metric(0.05, "share"))
    assert [panel["id"] for panel in group("Efficiency", busy)["panels"]] == ["gpu_busy", "kernels_per_token", "mbu"]
    assert bars(drawn(busy)["gpu_busy"])[0]["x"] == [10.0]


def test_a_cost_has_its_sign_on_the_axis_and_an_accuracy_its_uneven_interval() -> None:
    cost = drawn(document(cost_per_million=metric(0.42, "$")))["cost_per_million"]
    assert cost["figure"]["layout"]["xaxis"]["title"]["text"] == "$"
    accuracy = drawn(document(question_accuracy=metric(0.9, "share", ci95=[0.82, 0.95], n=104)))["question_accuracy"]
    spread = bars(accuracy)[0]["error_x"]
    assert [round(spread[side][0], 6) for side in ("array", "arrayminus")] == [5.0, 8.0]
    assert "82 to 95" in bars(accuracy)[0]["hovertemplate"]


def test_noise_floors_are_drawn_and_named() -> None:
    base = document(
        kld_mean=metric(None, "nats", reason="this is the baseline"), kld_mean_floor=metric(0.002, "nats"),
        top1_agreement=metric(None, "share", reason="this is the baseline"), top1_agreement_floor=metric(0.99, "share"),
        matching_tokens=metric(None, "tokens", reason="this is the baseline"), matching_tokens_floor=metric(40, "tokens"),
        ppl=metric(12.0, "ppl"), ppl_floor=metric(0.5, "ppl"),
    )  # fmt: skip
    other = document(
        kld_mean=metric(0.01, "nats"), top1_agreement=metric(0.95, "share"), matching_tokens=metric(20, "tokens"), ppl=metric(13.0, "ppl")
    )
    panels = drawn(base, other)

    def lines(name: str) -> list[float]:
        return [round(shape["x0"], 6) for shape in panels[name]["figure"]["layout"]["shapes"] if shape["type"] == "line"]

    assert lines("kld_mean") == [0.002]
    assert lines("top1_agreement") == [99.0]
    assert lines("matching_tokens") == [40.0]
    assert lines("ppl") == [11.5, 12.5]
    box = next(shape for shape in panels["top1_agreement"]["figure"]["layout"]["shapes"] if shape["type"] == "rect")
    assert (box["x0"], box["x1"]) == (99.0, 100.0)
    assert panels["kld_mean"]["note"].startswith("Dashed: noise floor 0.00200 nats, the baseline against itself")
    assert "noise floor ± 0.500 ppl" in panels["ppl"]["note"]
    assert panels["kld_mean"]["figure"]["layout"]["annotations"][0]["text"] == "noise floor 0.00200 nats"
    without = drawn(document(ppl=metric(12.0, "ppl")), other)
    assert "shapes" not in without["ppl"]["figure"]["layout"]
    assert "note" not in without["ppl"]


def profiled(kernel_s: float | None, parts: dict[str, float], itl_s: float) -> dict[str, Any]:
    device = "cpu" if kernel_s is None else "cuda"
    found = {"device": device, "kernel_s": kernel_s, "kernels": 7, "parts": parts, "rows": 1, "cached_tokens": 64}
    return {**document(itl_s=metric(itl_s, "s")), "profile": found}


def test_the_profile_stacks_the_parts_of_a_step_and_what_is_left_of_it() -> None:
    busy = profiled(0.006, {"attention": 0.002, "MLP": 0.004, "norms": 0.0}, 0.060)
    panel = drawn(busy, document())["profile"]
    assert [(round(bar["x"][0], 6), bar["meta"]["variant"]) for bar in bars(panel)] == [(2.0, 0), (4.0, 0), (54.0, 0)]
    assert [entry["name"] for entry in panel["key"]] == ["attention", "MLP", IDLE]
    assert panel["figure"]["layout"]["annotations"][0]["text"] == "not profiled"
    cpu = profile([profiled(None, {"attention": 0.02, "MLP": 0.03}, 0.05)], ["A"])
    assert cpu is not None
    assert [bar["x"][0] for bar in bars(cpu)] == [20.0, 30.0]
    assert profile([document(), {**document(), "profile": None}], NAMES) is None
    alone = profile([{**document(), "profile": None, "profile_reason": "compiled code"}], ["A"])
    assert alone is not None
    assert (bars(alone), alone["figure"]["layout"]["annotations"][0]["text"]) == ([], "compiled code")


CEILINGS = {"copy_bytes_per_s": 4e12, "matmul_flops": 8e14, "launch_s": 4e-6, "dtype": "bfloat16", "device": "cuda"}


def roofed(decode: float, prefill: float | None, **ceilings: Any) -> dict[str, Any]:
    points = {"decode": {"intensity": 1.0, "flops_per_s": decode}}
    if prefill:
        points["prefill"] = {"intensity": 300.0, "flops_per_s": prefill}
    verdict = {"bottleneck": "launch", "sentence": "the launches <decide>", "prefill": "compute"}
    return {**document(), "verdict": verdict, "roofline": {**points, "ceilings": {**CEILINGS, **ceilings}}}


def test_the_roofline_has_a_slope_a_flat_and_a_point_for_each_phase() -> None:
    panel = drawn(roofed(2e12, 4e14), roofed(1e12, None))["roofline"]
    data = panel["figure"]["data"]
    (line,) = [trace for trace in data if trace["mode"] == "lines"]
    left, ridge, right = line["x"]
    assert ridge == 200.0
    assert line["y"] == [left * 4e12, 8e14, 8e14]
    assert right > 300
    points = [trace for trace in data if trace["mode"] == "markers"]
    assert [(p["x"][0], p["y"][0], p["meta"]["variant"], p["marker"]["symbol"]) for p in points] == [
        (1.0, 2e12, 0, "circle"), (300.0, 4e14, 0, "diamond-open"), (1.0, 1e12, 1, "circle"),
    ]  # fmt: skip
    assert "the launches &lt;decide&gt;" in points[0]["hovertemplate"]
    assert panel["figure"]["layout"]["xaxis"]["type"] == panel["figure"]["layout"]["yaxis"]["type"] == "log"
    (words,) = [trace["text"] for trace in data if trace["mode"] == "text"]
    assert words == ["4 TB/s ", "bfloat16 800 TFLOP/s"]


def test_each_number_format_has_its_own_ceiling_and_without_any_there_is_no_roofline() -> None:
    two = roofline([roofed(2e12, None), roofed(1e12, None, dtype="float32", matmul_flops=4e14)], NAMES)
    assert two is not None
    assert len([trace for trace in two["figure"]["data"] if trace["mode"] == "lines"]) == 2
    assert roofline([document(), {**document(), "roofline": None}], NAMES) is None
    flawed = {**roofed(2e12, None), "roofline": {"decode": {"intensity": 0, "flops_per_s": 0}, "prefill": None, "ceilings": CEILINGS}}
    assert roofline([flawed], ["A"]) is None


@pytest.mark.parametrize("old", [{"status": "done", "metrics": {}}, {"status": "interrupted", "metrics": {}, "verdict": {}}])
def test_results_of_an_older_version_give_charts_without_what_they_lack(old: dict[str, Any]) -> None:
    panels = drawn(old, old)
    assert "profile" not in panels
    assert "roofline" not in panels
    assert panels["itl_s"]["figure"] is None
