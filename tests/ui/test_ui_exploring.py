"""The tab "Explore" without a browser: limits from sliders, whose open end is none, trade-offs within them, and picks that are gone."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from playground.core.problem import Problem
from playground.core.spec import Protocol, RunSpec, Workload
from playground.results.compare import Compared
from playground.ui import exploring
from playground.ui.exploring import Gathered
from playground.ui.handlers import App

QUICK = Protocol(warmups=0, repeats=1, energy=False, quality=False, profile=False)


def figure(value: float | None, unit: str) -> dict[str, Any]:
    kind = "not_available" if value is None else "measured"
    return {"value": value, "unit": unit, "n": 3, "ci95": None, "kind": kind, "reason": "not measured" if value is None else None}


def gathered(*runs: dict[str, tuple[float | None, str]]) -> Gathered:
    """Runs with these metrics, called A, B, C."""
    results: list[dict[str, Any]] = [
        {"status": "done", "metrics": {name: figure(*given) for name, given in run.items()}, "departures": [], "expectations": []}
        for run in runs
    ]
    return Gathered(Compared(results, ["A", "B", "C"][: len(runs)], []), "Some runs")


def three() -> Gathered:
    """The faster, the more memory: 10, 20 and 40 tokens/s with 100, 200 and 400 MB, and the first token after 50, 100 and 400 ms."""
    return gathered(
        *(
            {"decode_tokens_per_s": (speed, "tokens/s"), "weights_bytes": (size, "B"), "ttft_s": (first, "s")}
            for speed, size, first in ((10, 1e8, 0.05), (20, 2e8, 0.1), (40, 4e8, 0.4))
        )
    )


def test_a_slider_reaches_over_all_runs_in_a_unit_for_people_and_begins_at_the_usual_limit() -> None:
    span = exploring.span_of(three(), "ttft_s")
    assert span is not None
    assert (span.low, span.high, span.open_end) == pytest.approx((45, 440, 440))
    assert (span.value, span.label) == (200.0, "Time to first token at most (ms)")
    assert exploring.limit_info(span) == "440 ms leaves every run in."
    share = exploring.span_of(gathered({"top1_agreement": (0.97, "share")}, {"top1_agreement": (0.5, "share")}), "top1_agreement")
    assert share is not None
    assert (share.low, share.high, share.open_end) == pytest.approx((45, 100, 45)), "more of it is better, so the lower end is open"
    assert (share.value, share.label) == (95.0, "Same top token at least (%)")


def test_equal_values_have_a_slider_too_and_what_no_run_has_has_none() -> None:
    span = exploring.span_of(gathered({"weights_bytes": (5e8, "B")}, {"weights_bytes": (5e8, "B")}), "weights_bytes")
    assert span is not None
    assert span.low < 500 < span.high
    nothing = exploring.span_of(gathered({"kld_mean": (0.0, "nats")}, {"kld_mean": (0.0, "nats")}), "kld_mean")
    assert nothing is not None
    assert nothing.low == 0 < nothing.high == nothing.value
    assert exploring.span_of(gathered({"weights_bytes": (None, "B")}), "weights_bytes") is None


def test_what_one_run_alone_has_is_told_from_what_can_be_limited() -> None:
    found = gathered({"ttft_s": (0.1, "s"), "ppl": (9.0, "")}, {"ttft_s": (0.2, "s"), "ppl": (None, "")})
    names = ("ppl", "ttft_s", "nothing_like_it")
    assert exploring.measured(found, names) == ["ppl", "ttft_s"]
    assert exploring.measured(found, names, by=2) == ["ttft_s"]


def test_limits_come_back_in_the_metrics_own_unit_and_an_open_end_is_none() -> None:
    found = three()
    assert exploring.limits_of(found, [("ttft_s", 200.0), ("weights_bytes", 250.0)]) == pytest.approx(
        {"ttft_s": 0.2, "weights_bytes": 2.5e8}
    )
    assert exploring.limits_of(found, [("ttft_s", 440.0), ("", 3.0)]) == {}
    assert exploring.limits_of(found, [("ttft_s", None), ("kld_mean", 0.1)]) == {}


def test_a_limit_sets_aside_what_it_leaves_out_and_another_run_is_the_best() -> None:
    def drawn(limits: dict[str, float]) -> tuple[str, list[bool]]:
        group = json.loads(exploring.trades_json(three(), "", "", "", limits))["groups"][0]
        points = [trace for trace in group["panels"][0]["figure"]["data"] if "variant" in trace["meta"]]
        return group["note"], [trace["meta"]["muted"] for trace in points]

    best, muted = drawn({})
    assert best.startswith("Without limits, C has the best decode speed")
    assert muted == [False, False, False]
    best, muted = drawn({"ttft_s": 0.2})
    assert "B has the best decode speed" in best
    assert muted == [False, False, True]
    chosen = json.loads(exploring.trades_json(three(), "weights_bytes", "ttft_s", "", {}))
    assert [panel["id"] for panel in chosen["groups"][0]["panels"]] == ["pareto-weights_bytes-ttft_s"]
    assert exploring.trades_json(Gathered(), "", "", "", {}) == ""


def test_one_chosen_axis_stands_beside_the_usual_others_and_goes_into_the_report() -> None:
    def panels(*axes: str) -> list[str]:
        return [panel["id"] for panel in json.loads(exploring.trades_json(three(), *axes, {}))["groups"][0]["panels"]]

    assert panels("", "", "") == ["pareto-decode_tokens_per_s-weights_bytes"]
    assert panels("ttft_s", "", "") == ["pareto-ttft_s-weights_bytes"]
    assert panels("", "ttft_s", "") == ["pareto-decode_tokens_per_s-ttft_s"]
    by_first_token = exploring.axes_of(three(), "", "", "ttft_s")
    assert by_first_token is not None
    assert [(axes.x, axes.y, axes.size) for axes in by_first_token] == [("decode_tokens_per_s", "weights_bytes", "ttft_s")]


def test_runs_of_two_experiments_are_gathered_in_the_order_of_the_picks_with_what_differs(app: App) -> None:
    specs = [
        RunSpec("script:step_ms=1", "fake", workload=Workload(("a",), tokens), protocol=QUICK, label=f"{tokens} tokens")
        for tokens in (3, 4)
    ]
    jobs = [app.jobs.submit(f"Of {spec.label}", [spec]) for spec in specs]
    assert all(job.done.wait(30) for job in jobs)
    found = exploring.gather(app, [f"{jobs[1].id}:0", f"{jobs[0].id}:0"])
    assert (found.title, found.compared.names) == ("2 runs of 2 experiments", ["Baseline: 4 tokens", "B: 3 tokens"])
    assert "Number of new tokens differs: 4 (Baseline) and 3 (B)." in found.compared.warnings
    paths = exploring.write_files(found, {})
    assert "Number of new tokens differs" in Path(paths["report.html"]).read_text(encoding="utf-8")
    rows = list(csv.DictReader(Path(paths["metrics.csv"]).read_text(encoding="utf-8").splitlines()))
    assert {row["variant"] for row in rows} == set(found.compared.names)
    assert json.loads(Path(paths["metrics.json"]).read_text(encoding="utf-8"))


def test_picks_that_are_gone_have_no_result_or_are_too_few_are_refused_in_a_sentence(app: App) -> None:
    waiting = app.store.create("My title", [RunSpec("script:", "fake", label="mine")])
    with pytest.raises(Problem, match="Run 1 of “My title” has no result"):
        exploring.gather(app, [f"{waiting}:0", f"{waiting}:0"])
    with pytest.raises(Problem, match="no stored experiment 'nothere1'"):
        exploring.gather(app, ["nothere1:0", f"{waiting}:0"])
    with pytest.raises(Problem, match="Choose 2 to 8 runs to compare; 0 are chosen"):
        exploring.gather(app, [])
