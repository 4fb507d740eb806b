"""A report: one file with everything in it, which lets nothing of a run become markup."""

import json
import re

import pytest

from playground.models.recording import find, read
from playground.results.command import Command
from playground.results.pareto import Axes
from playground.results.report import About, report_html
from playground.results.result import result

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&"


@pytest.fixture(scope="module")
def runs():
    recording = read(find("h200-smollm2-135m-quantization"))
    baseline = (recording.specs[0], recording.events[0])
    return [result(s, e, baseline if i else None) for i, (s, e) in enumerate(zip(recording.specs, recording.events, strict=True))]


def without_plotly(html):
    """Everything but the largest script."""
    scripts = re.findall(r"<script>.*?</script>", html, re.DOTALL)
    return html.replace(max(scripts, key=len), "")


def test_it_holds_numbers_with_intervals_evidence_verdicts_provenance_and_the_command(runs):
    html = report_html(runs, About("Formats", "What to look for.", command=Command("python -m playground run x", {"x.toml": "<a>"})))
    own = without_plotly(html)
    for words in (
        "53.8 tokens/s", "± 3.4 tokens/s", "210 of 210 Linear layers are Linear8bitLt", "no profile of a step", "NVIDIA H200",
        "python -m playground run x", "&lt;a&gt;", "transformers 5.17.0", "One fateful day",
        "Baseline: fp16 is the only variant. Its decode speed of one request: 53.8 tokens/s",
    ):  # fmt: skip
        assert words in own, words
    assert html.count("plotly.js v") == 1
    assert not re.search(r"""(src|href)=["'](?!#)|@import|url\(""", own)  # nothing is fetched
    data = json.loads(re.search(r'<script type="application/json" id="drawn">(.*?)</script>', own).group(1))
    assert [group["title"] for group in data["groups"]][:2] == ["Latency", "Memory"]
    assert json.loads(re.search(r'id="results">(.*?)</script>', own).group(1)) == json.loads(json.dumps(runs))


def test_its_trade_offs_have_the_axes_that_were_chosen(runs):
    html = without_plotly(report_html(runs, About("Formats", axes=[Axes("weights_bytes", "itl_s", "")])))
    assert "pareto-weights_bytes-itl_s" in html
    assert "pareto-weights_bytes-itl_s" not in without_plotly(report_html(runs, About("Formats")))


def test_nothing_of_a_run_becomes_markup(runs):
    bad = json.loads(json.dumps(runs[:2]))
    for run in bad:
        run["label"] = run["verdict"]["sentence"] = run["quality_about"] = EVIL
        run["status"], run["error"] = "failed", {"kind": "crash", "message": EVIL, "detail": EVIL}
        run["evidence"] = {EVIL: EVIL}
        run["provenance"] |= {"host": EVIL, "gpu": EVIL, "model_source": EVIL}
        run["outputs"] = [{"prompt": EVIL, "text": EVIL, "token_ids": []}]
        run["metrics"]["ttft_s"] = {**run["metrics"]["ttft_s"], "value": None, "kind": "not_available", "reason": EVIL}
    html = report_html(bad, About(EVIL, EVIL, warnings=[EVIL], command=Command(EVIL, {EVIL: EVIL})))
    own = without_plotly(html)
    assert own.count("<script") == own.count("</script>") == 4  # three of data and the report's own
    assert "<img" not in own
    assert EVIL not in own
    assert 'onerror=alert(2)>"' not in own


def test_one_run_and_a_failed_one_have_a_report_too(runs):
    alone = without_plotly(report_html(runs[:1], About("Alone")))
    assert "53.8 tokens/s" in alone
    assert "Trade-offs</a>" not in alone
    failed = {**runs[1], "status": "failed", "metrics": {}, "outputs": [], "error": {"kind": "oom", "message": "Too large.", "detail": ""}}
    assert "Too large." in report_html([runs[0], failed], About("Failed"))
