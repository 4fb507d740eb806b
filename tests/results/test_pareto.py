"""Trade-offs: the front, what may be called dominated, limits and the best variant within them, and what the chart draws of it."""

import json
import math

import pytest

from playground.core.problem import Problem
from playground.measure.agreement import IS_BASELINE
from playground.models.recording import find, read
from playground.results.pareto import Axes, trade, usual_axes, usual_limits
from playground.results.pareto_chart import pareto_charts
from playground.results.ranking import best, compare
from playground.results.result import result

NAMES = ("A", "B", "C", "D", "E", "F", "G", "H")
AXES = Axes("decode_tokens_per_s", "kld_mean")
UNITS = {"decode_tokens_per_s": "tokens/s", "ttft_s": "s", "kld_mean": "nats", "top1_agreement": "share", "peak_allocated_bytes": "B"}


def metric(name, value, half=None):
    ends = None if half is None else [value - half, value + half]
    return {"value": value, "unit": UNITS[name], "n": 5, "ci95": ends, "cv": None, "kind": "measured", "reason": None, "grade": ""}


def document(speed, kld=None, **more):
    """A run; speed: (value, half of its interval)."""
    metrics = {"decode_tokens_per_s": metric("decode_tokens_per_s", *speed)}
    if kld is not None:
        metrics["kld_mean"] = metric("kld_mean", kld)
    return {"status": "done", "metrics": metrics | {name: metric(name, *value) for name, value in more.items()}}


def states(found):
    return [(point.name, point.state, point.by) for point in found.points]


def test_what_is_shown_to_be_worse_is_dominated_and_what_overlaps_is_left_open():
    runs = [document((100, 2), 0.10), document((80, 2), 0.20), document((99, 2), 0.20), document((120, 2), 0.50), document((60, 2), 0.01)]
    found = trade(runs, NAMES[:5], AXES)
    assert states(found) == [
        ("A", "front", ()),
        ("B", "dominated", (0, 2)),  # C is equal in KL divergence and faster
        ("C", "open", (0,)),  # slower by the means, but 97 to 101 overlaps 98 to 102
        ("D", "front", ()),
        ("E", "front", ()),
    ]
    assert found.front == (4, 0, 3)


def test_ties_are_on_the_front_together_and_one_run_is_alone_there():
    twins = trade([document((100, 2), 0.1), document((100, 2), 0.1)], NAMES[:2], AXES)
    assert states(twins) == [("A", "front", ()), ("B", "front", ())]
    alone = trade([document((100, 2), 0.1)], NAMES[:1], AXES)
    assert alone.front == (0,)
    drawn = pareto_charts([document((100, 2), 0.1), document((100, 2), 0.1)], NAMES[:2], axes=[AXES])
    line = drawn["groups"][0]["panels"][0]["figure"]["data"][0]
    assert line["x"] == [100]  # equal points are one point of the line


def test_runs_without_one_of_the_metrics_are_listed_with_their_reason():
    missing = {"value": None, "unit": "nats", "kind": "not_available", "reason": "no score"}
    unknown, odd, failed = document((90, 1)), document((math.nan, 1), 0.2), {"status": "failed", "error": {"message": "It broke."}}
    unknown["metrics"]["kld_mean"] = missing
    found = trade([document((100, 2), 0.1), unknown, odd, failed], NAMES[:4], AXES)
    assert [point.name for point in found.points] == ["A"]
    assert [name for name, _ in found.absent] == ["B", "C", "D"]
    assert found.absent[0][1] == "KL divergence, mean: no score"
    assert "It broke." in found.absent[2][1]
    panel = pareto_charts([document((100, 2), 0.1), unknown], NAMES[:2], axes=[AXES])["groups"][0]["panels"][0]
    assert "Not drawn: B (KL divergence, mean: no score)." in panel["note"]


def test_limits_decide_what_passes_and_the_best_of_these_is_named_with_its_doubts():
    runs = [
        document((100, 2), ttft_s=(0.15, 0.01), top1_agreement=(0.99,)),
        document((150, 2), ttft_s=(0.19, 0.02), top1_agreement=(0.96,)),  # its interval reaches 210 ms
        document((300, 2), ttft_s=(0.10, 0.01), top1_agreement=(0.90,)),
        document((149, 2), ttft_s=(0.12, 0.01), top1_agreement=(0.97,)),
        document((400, 2), ttft_s=(0.25, 0.01), top1_agreement=(0.99,)),
    ]
    axes = Axes("decode_tokens_per_s", "top1_agreement")
    found = trade(runs, NAMES[:5], axes, {"ttft_s": 0.2, "top1_agreement": 0.95})
    assert [point.passes for point in found.points] == [True, True, False, True, False]
    assert found.best == 1
    assert found.sentence == (
        "Within the limits (Time to first token at most 200 ms, Same top token at least 95 %), B has the best decode speed of one request: "
        "150 tokens/s ± 2 tokens/s. These runs cannot tell it apart from D. "
        "The interval of its time to first token reaches beyond the limit."
    )
    nothing = trade(runs, NAMES[:5], axes, {"ttft_s": 0.05})
    assert nothing.best is None
    assert "there is no variant. A: Time to first token is 150 ms; B" in nothing.sentence
    traces = pareto_charts(runs, NAMES[:5], {"ttft_s": 0.2}, [axes])["groups"][0]["panels"][0]["figure"]["data"][1:]
    assert [trace["meta"]["muted"] for trace in traces] == [False, False, False, False, True]
    assert traces[2]["text"] == ["★ C"]
    for wrong in ("gpu_busy", "kld_mean_floor", "ttft"):
        with pytest.raises(Problem, match="no metric with a better direction"):
            trade(runs, NAMES[:5], axes, {wrong: 1.0})


def test_a_baseline_is_no_distance_from_itself_and_differences_below_the_noise_floor_show_nothing():
    base = document((100, 2))
    base["metrics"] |= {
        "kld_mean": {"value": None, "unit": "nats", "kind": "not_available", "reason": IS_BASELINE.reason},
        "kld_mean_floor": metric("kld_mean", 0.002),
    }
    found = trade([base, document((80, 2), 0.0015), document((80, 2), 0.3)], NAMES[:3], AXES)
    assert [(point.state, point.y["value"]) for point in found.points] == [("front", 0.0), ("open", 0.0015), ("dominated", 0.3)]


def test_the_usual_axes_and_limits_are_those_that_a_recording_can_fill():
    for name, expected in (
        ("h200-smollm2-135m-quantization", [("decode_tokens_per_s", "top1_agreement"), ("peak_allocated_bytes", "top1_agreement")]),
        ("h200-llama-3.1-8b-graph-weights", [("decode_tokens_per_s", "peak_allocated_bytes")]),
    ):
        recording = read(find(name))
        baseline = (recording.specs[0], recording.events[0])
        runs = [result(s, e, baseline if i else None) for i, (s, e) in enumerate(zip(recording.specs, recording.events, strict=True))]
        axes = usual_axes(runs)
        assert [(each.x, each.y) for each in axes] == expected
        assert set(usual_limits(runs)) == {"ttft_s"} | ({"top1_agreement"} if len(expected) == 2 else set())
        drawn = pareto_charts(runs, [spec.label for spec in recording.specs], usual_limits(runs))
        json.dumps(drawn, allow_nan=False)
        found = [point.state for point in trade(runs, [spec.label for spec in recording.specs], axes[-1]).points]
        # fp4 needs as many bytes as nf4 and is farther from fp16; of the shape's formats int4 is fastest and smallest
        assert found == (["front"] * 3 + ["dominated"] if len(expected) == 2 else ["dominated"] * 3 + ["front"])


def test_ranks_need_separate_intervals_and_times_that_were_measured_once_have_none():
    fast, near, slow = (metric("ttft_s", value, 0.01) for value in (0.10, 0.115, 0.2))
    assert [compare("ttft_s", fast, other) for other in (slow, near, fast)] == ["better", "open", "open"]
    assert compare("ttft_s", metric("ttft_s", 0.1), metric("ttft_s", 0.9)) == "open"
    sizes = [metric("peak_allocated_bytes", value) for value in (100, 101, 50)]
    assert [compare("peak_allocated_bytes", sizes[0], other) for other in sizes] == ["equal", "open", "worse"]
    rss = [compare("peak_rss_bytes", {"value": 100}, {"value": value}) for value in (105, 120)]
    assert rss == ["open", "better"]  # equal runs differ by some percent
    assert compare("matching_tokens", {"value": 1}, {"value": 0}) == "open"
    assert best("ttft_s", [near, fast, slow]) is None
    assert best("ttft_s", [slow, fast]) == 1
    assert best("peak_allocated_bytes", sizes) == 2
    assert best("peak_allocated_bytes", sizes[:1]) is None
