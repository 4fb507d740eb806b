"""What stands on the page: escaping, deltas, charts, progress, the memory estimate."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from playground.core import events as ev
from playground.core.machine import Machine
from playground.core.plan import complete
from playground.core.spec import RunSpec, Workload
from playground.models.model import ModelFacts
from playground.results.charts import charts
from playground.results.metrics_table import metrics_html
from playground.results.numbers import change, digits, interval, shown
from playground.results.store import Store
from playground.run.jobs import Jobs
from playground.techniques import techniques
from playground.ui.columns import column_html, duration
from playground.ui.device import strip_html
from playground.ui.live import live_json
from playground.ui.memory import estimate_html
from playground.ui.page import build_page
from playground.ui.results import Shown, board_values, status_html, table_html
from playground.ui.strings import PHASES
from playground.ui.tables import prepared_html
from playground.ui.text import marked
from playground.ui.view import View, fold, start

EVIL = "<script>alert(1)</script>&\"'"
SAFE = "&lt;script&gt;alert(1)&lt;/script&gt;&amp;&quot;&#x27;"


def metric(value: float | None, unit: str, ci95: tuple[float, float] | None = None, reason: str | None = None) -> dict[str, Any]:
    kind = "measured" if value is not None else "not_available"
    return {"value": value, "unit": unit, "n": 3, "ci95": list(ci95) if ci95 else None, "kind": kind, "reason": reason}


def document(itl: tuple[float, float, float], **more: dict[str, Any]) -> dict[str, Any]:
    value, low, high = itl
    return {"status": "done", "metrics": {"itl_s": metric(value, "s", (low, high)), **more}}


def viewed(*items: tuple[int, ev.Event], names: tuple[str, ...] = ("Baseline", "B")) -> View:
    view = start(names)
    for item in items:
        view = fold(view, item)
    return view


def test_importing_the_page_imports_no_torch() -> None:
    code = "import sys, playground.ui.page; print([m for m in ('torch', 'transformers', 'bitsandbytes', 'plotly') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_model_output_names_evidence_failures_and_input_are_escaped() -> None:
    view = viewed(
        (0, ev.Prepared(1, (EVIL,), (9,), False)),
        (0, ev.Text(1, 0, (EVIL,))),
        (0, ev.Evidence(1, "precision", True, EVIL)),
        (0, ev.Warned(1, EVIL)),
        (0, ev.Phase(1, EVIL, EVIL)),
        (0, ev.Failed(2, "crash", EVIL, EVIL)),
        names=(EVIL,),
    )
    failed = {"status": "failed", "metrics": {"ttft_s": metric(None, "s", reason=EVIL)}}
    pages = [
        column_html(view, 0, 0, {**failed, "status": "done"}, None),
        prepared_html(view),
        metrics_html([failed], [EVIL]),
        status_html(Shown(view, (EVIL,), status="running")),
    ]
    for page in pages:
        assert "<script" not in page
    assert pages[0].count(SAFE) >= 6
    assert SAFE in pages[1]
    assert SAFE in pages[2]
    ran = document((0.02, 0.01, 0.03))
    figures = [panel["figure"] for group in charts([ran, failed], [EVIL, "B"])["groups"] for panel in group["panels"]]
    assert SAFE.replace("&quot;&#x27;", "")[:30] in json.dumps(figures)
    assert "<script" not in json.dumps(figures)


def test_the_departing_token_is_marked_with_both_tokens_in_its_tooltip() -> None:
    html = marked(("Paris", " <is>", " big"), 1, " was")
    assert html.startswith("Paris<mark ")
    assert "Token 2 is the first that departs from the baseline: &#x27; &lt;is&gt;&#x27; instead of &#x27; was&#x27;" in html
    assert html.endswith('> &lt;is&gt;</mark><span class="after"> big</span>')
    assert marked(("a", "b"), None) == "ab"


@pytest.mark.parametrize(
    ("number", "unit", "text"),
    [
        (0.01234, "s", "12.3 ms"), (1.5, "s", "1.50 s"), (0.000045, "s", "45 µs"), (2.7e8, "B", "270 MB"), (0.978, "share", "97.8 %"),
        (131.84, "tokens/s", "132 tokens/s"), (0.0, "B", "0 B"), (12345.0, "tokens", "12,345 tokens"),
    ],
)  # fmt: skip
def test_numbers_have_three_digits_and_a_unit_that_fits(number: float, unit: str, text: str) -> None:
    assert shown(number, unit) == text


def test_digits_of_small_numbers() -> None:
    assert [digits(n) for n in (0.00123, 0.0441, 3.14159, 64.0)] == ["0.00123", "0.0441", "3.14", "64"]


def test_a_change_is_claimed_only_when_the_intervals_separate() -> None:
    slow, fast = metric(0.020, "s", (0.019, 0.021)), metric(0.010, "s", (0.009, 0.011))
    near = metric(0.0205, "s", (0.0190, 0.0220))
    separate, overlapping = change(fast, slow), change(near, slow)
    assert separate is not None
    assert (separate.text, separate.shown) == ("−50 %", True)
    assert overlapping is not None
    assert (overlapping.text, overlapping.shown) == ("+2.5 %", False)
    assert change(metric(None, "s"), slow) is None
    points = change(metric(0.95, "share"), metric(1.0, "share"))
    assert points is not None
    assert (points.text, points.shown) == ("−5 points", None)
    tripled, same = change(metric(30, "B"), metric(10, "B")), change(metric(5, "B"), metric(5, "B"))
    assert tripled is not None
    assert same is not None
    assert (tripled.text, same.text) == ("× 3", "same")


def test_an_interval_has_the_unit_of_its_value() -> None:
    assert interval(metric(0.020, "s", (0.0195, 0.0205))) == "± 0.50 ms"
    assert interval(metric(0.020, "s")) == ""


def test_a_column_shows_deltas_to_the_baseline_and_says_when_there_is_no_difference() -> None:
    view = viewed((0, ev.Done(1)), (1, ev.Done(1)))
    base = document((0.020, 0.019, 0.021))
    html = column_html(view, 1, 0, document((0.010, 0.009, 0.011)), base)
    assert "10 ms" in html
    assert "± 1 ms" in html
    assert "−50 %" in html
    assert "within the noise" in column_html(view, 1, 0, document((0.0205, 0.0190, 0.0220)), base)
    assert "delta" not in column_html(view, 0, 0, base, None)


def test_the_table_says_no_difference_and_gives_formulas_and_reasons() -> None:
    base, other = document((0.020, 0.019, 0.021)), document((0.0205, 0.0190, 0.0220), kld_mean=metric(0.04, "nats"))
    base["metrics"]["kld_mean"] = metric(None, "nats", reason="this is the baseline")
    html = metrics_html([base, other], ["A", "B"]).split("<table")[1]
    assert "no difference that this run can show" in html
    assert "(last token - first token) / (output tokens - 1)" in html
    assert "this is the baseline" in html


def test_the_results_say_on_what_quality_was_measured_and_old_results_do_not() -> None:
    old = document((0.020, 0.019, 0.021))
    assert "Quality measured on" not in table_html([old], ["A"])
    scored = {**old, "quality_about": f"the first 512 tokens, window 512 {EVIL}"}
    html = table_html([scored, {**scored, "quality_about": ""}, scored], ["A", "B", "C"])
    assert html.count("Quality measured on: the first 512 tokens, window 512") == 1
    assert html.count("the first 512 tokens") == 1
    assert SAFE in html


def test_every_phase_of_a_run_is_told_in_words() -> None:
    for phase in ("round", "load", "ceilings", "prepare", "compile", "evidence", "warmup", "timed", "energy", "quality", "profile"):
        html = column_html(viewed((0, ev.Phase(1, phase))), 0, 0, None, None)
        assert f'<p class="phase">{PHASES[phase]}</p>' in html
    assert len(PHASES) == 11


def test_compile_time_stands_beside_the_load_time_and_the_cold_first_call() -> None:
    waits = {"cold_ttft_s": metric(0.31, "s"), "load_s": metric(1.25, "s")}
    fused = document((0.01, 0.01, 0.01), **waits, compile_s=metric(42.5, "s"))
    plain = document((0.02, 0.02, 0.02), **waits, compile_s=metric(None, "s", reason="this engine compiles nothing"))
    html = metrics_html([plain, fused], ["A", "B"]).split("<table")[1]
    rows = [row for row in html.split("<tr") if any(title in row for title in ("Time to first token, cold", "Load time", "Compile time"))]
    assert len(rows) == 3
    assert html.index("Time to first token, cold") < html.index("Load time") < html.index("Compile time")
    assert "42.5 s" in rows[2]
    assert "this engine compiles nothing" in rows[2]


def test_a_damaged_file_of_results_is_told_on_the_page(tmp_path: Path) -> None:
    path = tmp_path / "results.sqlite"
    path.write_bytes(b"this is no database " * 500)
    for expected in (True, False):
        store = Store(path)
        page = build_page(Jobs(store), store, Machine("h", "c", 1, 10**9, 10**9))
        kept = next(block for block in page.blocks.values() if getattr(block, "elem_id", None) == "kept")
        assert kept.visible is expected
        assert ("is damaged and was moved to" in kept.value) is expected
        store.close()


def test_final_charts_have_a_note_and_no_bar_for_what_is_not_available() -> None:
    base = document((0.020, 0.019, 0.021), ttft_s=metric(None, "s", reason="nothing was timed"))
    other = document((0.010, 0.009, 0.011), ttft_s=metric(0.05, "s"))
    drawn = {panel["id"]: panel for group in charts([base, other], ["A", "B"])["groups"] for panel in group["panels"]}
    ttft = drawn["ttft_s"]["figure"]
    assert [trace["y"] for trace in ttft["data"] if trace["type"] == "bar"] == [["B"]]
    assert "nothing was timed" in ttft["layout"]["annotations"][0]["hovertext"]
    bars = [trace for trace in drawn["itl_s"]["figure"]["data"] if trace["type"] == "bar"]
    assert [bar["x"][0] for bar in bars] == [20.0, 10.0]
    assert [round(bar["error_x"]["array"][0], 6) for bar in bars] == [1.0, 1.0]
    assert bars[0]["marker"]["color"] == "#8a8984"
    assert drawn["kld_mean"]["figure"] is None
    assert drawn["kld_mean"]["note"].startswith("Not available")


def test_final_charts_are_figures_that_plotly_accepts() -> None:
    import plotly.graph_objects as go

    memory = {name: metric(value, "B") for name, value in (("weights_bytes", 6e8), ("kv_cache_bytes", 1e8), ("rest_bytes", 5e7))}
    result = document((0.02, 0.01, 0.03), **memory, peak_allocated_bytes=metric(7.5e8, "B"))
    panels = [panel for group in charts([result, result], ["A", "B"])["groups"] for panel in group["panels"] if panel["figure"]]
    assert {panel["id"] for panel in panels} == {"itl_s", "memory"}
    for panel in panels:
        go.Figure(panel["figure"])
    stacked = next(panel for panel in panels if panel["id"] == "memory")["figure"]["data"]
    assert [trace["x"][0] for trace in stacked if trace["type"] == "bar"][:3] == [600.0, 100.0, 50.0]
    assert [trace["x"][0] for trace in stacked if trace.get("mode") == "markers"] == [750.0, 750.0]


def test_live_charts_have_one_line_a_variant_and_units_on_every_axis() -> None:
    ms = 1_000_000
    view = viewed((0, ev.BatchStart(0, "timed", 0, (0,), (1,))), *((0, ev.Tick(i * 20 * ms, ((1,),))) for i in range(1, 1000)))
    value = json.loads(live_json(view))
    panels = {panel["id"]: panel for panel in value["groups"][0]["panels"]}
    assert list(panels) == ["latency", "throughput", "memory", "load"]
    lines = panels["latency"]["figure"]["data"]
    assert [line["meta"]["variant"] for line in lines] == [0, 1]
    assert 0 < len(lines[0]["x"]) <= 300
    assert set(lines[0]["y"]) == {20.0}
    for panel in panels.values():
        assert panel["figure"]["layout"]["xaxis"]["title"]["text"]
        assert panel["figure"]["layout"]["yaxis"]["title"]["text"]


def test_a_download_shows_bytes_speed_and_time_left() -> None:
    second = 1_000_000_000
    view = viewed((0, ev.Progress(0, "Fetching", 0, 100e6)), (0, ev.Progress(4 * second, "Fetching", 40e6, 100e6)))
    html = column_html(view, 0, 0, None, None)
    assert "Fetching: 40 MB of 100 MB · 10 MB/s · 6 s left" in html
    assert 'aria-valuenow="40"' in html
    assert [duration(s) for s in (8.2, 125, 3780)] == ["8 s", "2 min 5 s", "1 h 3 min"]


def test_a_waiting_run_says_how_many_are_ahead() -> None:
    assert "Waiting: 1 run ahead of yours" in status_html(Shown(viewed(), status="waiting", ahead=1))
    assert "Waiting: 2 runs ahead of yours" in status_html(Shown(viewed(), status="waiting", ahead=2))


def test_a_board_sends_only_what_changed() -> None:
    before = Shown(viewed((0, ev.Phase(1, "load"))), ("Baseline", "B"), status="running")
    values = board_values(Shown(fold(before.view, (0, ev.Phase(2, "timed"))), before.names, status="running"), before)
    sent = [index for index, value in enumerate(values) if not isinstance(value, dict)]
    assert (len(values), sent) == (8, [0, 1, 3]), "status, columns and live charts, and nothing else"


def test_the_estimate_warns_when_it_does_not_fit_and_says_how_much_is_free() -> None:
    config = {
        "model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 1000, "max_position_embeddings": 128,
    }  # fmt: skip
    spec = complete(RunSpec(knobs={"precision": "fp32"}, workload=Workload(prompt_tokens=512, max_new_tokens=64)), techniques())

    def html(free: int, spec: RunSpec = spec) -> str:
        machine = Machine("h", "c", 1, 10**9, free)
        return estimate_html([spec], ["Baseline"], lambda name: ModelFacts(name, "shape", config), techniques(), machine)

    assert "will probably not fit" in html(1000)
    assert "1 kB of memory free" in html(1000)
    assert "will probably not fit" not in html(10**9)
    config["num_hidden_layers"] = 8
    assert "in host memory" not in html(10**9)
    # 2 x 8 layers x 2 heads x 16 numbers x 4 bytes a token, of which six layers lie in host memory
    tokens = 512 + 64
    away = html(10**9, complete(spec.replace(knobs={"precision": "fp32", "kv_cache": "offloaded"}), techniques()))
    assert f"KV cache {shown(2048 * tokens / 4, 'B')}" in away
    assert f"and {shown(2048 * tokens * 3 / 4, 'B')} of the KV cache in host memory" in away
    unknown = estimate_html([spec], ["Baseline"], lambda name: None, techniques(), Machine("h", "c", 1, 1, 1))
    assert "known once the model has been fetched" in unknown


def test_the_device_strip_leaves_out_what_cannot_be_read() -> None:
    machine = Machine("h", "Fast(R) CPU @ 3 GHz", 2, 16 * 10**9, 8 * 10**9, no_cuda="no driver")
    html = strip_html(machine, {"cpu_percent": 41.0})
    assert "Fast · 2 cores" in html
    assert "41 %" in html
    assert "RAM" not in html
    assert "No CUDA: no driver" in html
