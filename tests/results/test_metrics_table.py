"""The table of all metrics as data, CSV, JSON and HTML."""

import csv
import io
import json

from playground.measure.metrics import METRICS
from playground.results.metrics_table import csv_text, json_text, metric_rows, metrics_html

EVIL = '=cmd|"<script>alert(1)</script>'


def metric(value, unit, ends=None, reason=None):
    kind = "measured" if value is not None else "not_available"
    return {"value": value, "unit": unit, "n": 5, "ci95": ends, "cv": 0.01 if ends else None, "kind": kind, "reason": reason, "grade": ""}


def document(itl, weights, **more):
    return {"metrics": {"itl_s": metric(itl[1], "s", [itl[0], itl[2]]), "weights_bytes": metric(weights, "B"), **more}}


RUNS = [
    document((0.019, 0.020, 0.021), 200, kld_mean=metric(None, "nats", reason=EVIL)),
    document((0.009, 0.010, 0.011), 100, kld_mean=metric(0.02, "nats")),
    document((0.0095, 0.0105, 0.0115), 100.5, kld_mean=metric(0.5, "nats")),
]
NAMES = ["A", EVIL, "C"]


def test_rows_hold_every_metric_and_mark_the_best_only_where_the_runs_show_one():
    rows = {row["metric"]: row for row in metric_rows(RUNS, NAMES)}
    assert set(rows) == {name for name in METRICS if not name.endswith("_floor")}
    assert rows["itl_s"]["best"] is None  # the intervals of B and C overlap
    assert rows["weights_bytes"]["best"] is None  # half a percent apart
    assert rows["kld_mean"]["best"] == 1
    assert rows["itl_s"]["values"][1] == {
        "variant": EVIL, "value": 0.010, "ci95": [0.009, 0.011], "n": 5, "cv": 0.01, "kind": "measured", "reason": None,
    }  # fmt: skip
    assert rows["ttft_s"]["values"][0]["reason"] == "not measured"
    assert metric_rows(RUNS[:2], NAMES[:2])[1]["best"] == 1


def test_csv_has_a_line_a_metric_and_variant_and_runs_no_formula():
    lines = list(csv.DictReader(io.StringIO(csv_text(metric_rows(RUNS, NAMES)))))
    found = {(line["metric"], line["variant"]): line for line in lines}
    kld = found["kld_mean", "'" + EVIL]
    assert (kld["value"], kld["unit"], kld["best"], kld["ci95_low"]) == ("0.02", "nats", "yes", "")
    assert found["itl_s", "C"]["ci95_high"] == "0.0115"
    assert found["kld_mean", "A"]["reason"] == "'" + EVIL
    assert json.loads(json_text(metric_rows(RUNS, NAMES))) == metric_rows(RUNS, NAMES)


def test_the_html_marks_the_best_escapes_and_carries_what_sorting_needs():
    html = metrics_html(RUNS, NAMES)
    assert "<script" not in html
    html = html.split("<table")[1]
    row = next(part for part in html.split("<tr") if "KL divergence, mean" in part)
    assert row.count("★") == 1
    assert row.index("0.0200 nats") < row.index("★") < row.index("0.500 nats")
    assert 'data-direction="lower"' in row
    weights = next(part for part in html.split("<tr") if ">Weights<" in part)
    assert weights.count('data-apart="0.693147"') == 1  # ln 2: half as many bytes
    assert metrics_html([], []) == ""
