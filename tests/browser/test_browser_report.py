"""A report from the command line, opened from disk without a network: it draws, sorts, saves, and follows light, dark and narrow."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from driver import ROOT
from playwright.sync_api import Browser, Page, expect

from playground.models.recording import find, read
from playground.results.result import result

pytestmark = pytest.mark.browser
NAME = "h200-smollm2-135m-quantization"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of a recorded experiment, written by the command line from a file of results."""
    folder, recording = tmp_path_factory.mktemp("report"), read(find(NAME))
    baseline = (recording.specs[0], recording.events[0])
    runs = [result(s, e, baseline if i else None) for i, (s, e) in enumerate(zip(recording.specs, recording.events, strict=True))]
    (folder / "formats.json").write_text(json.dumps({"results": runs}), encoding="utf-8")
    words = ["report", "formats.json", "--out", "report.html", "--csv", "metrics.csv"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-m", "playground", *words], cwd=folder, env=environment, check=True, capture_output=True, timeout=120)
    return folder / "report.html"


@pytest.fixture
def opened(browser: Browser, report: Path) -> Iterator[Any]:
    """opened() shows the report without a network; an error of a script, or a request, fails the test."""
    pages: list[Page] = []
    wrong: list[str] = []

    def make() -> Page:
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        context.set_offline(True)
        page = context.new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        page.on("request", lambda request: wrong.append(request.url) if request.url.startswith("http") else None)
        page.goto(report.as_uri())
        expect(page.locator("#trade-offs .js-plotly-plot").first).to_be_visible()
        pages.append(page)
        return page

    yield make
    for page in pages:
        page.context.close()
    assert not wrong


def test_it_draws_sorts_and_saves_without_a_network(opened: Any, report: Path, tmp_path: Path) -> None:
    page = opened()
    drawn = page.evaluate("[...document.querySelectorAll('.js-plotly-plot')].map((plot) => plot.data.length)")
    assert len(drawn) > 10
    assert min(drawn) > 0
    page.locator("#charts").get_by_role("button", name="C: nf4").click()  # hides it in all charts
    assert page.evaluate("document.querySelector('#charts .js-plotly-plot').data.filter((trace) => trace.visible === false).length") == 2

    table = page.locator("#metrics table")
    heads = table.locator("thead th")
    titles = table.locator("tbody tr:visible th .formula")
    first = titles.first.inner_text()
    heads.filter(has_text="D: fp4").get_by_role("button").click()
    expect(titles.first).to_have_text("Load time")  # 13 times the baseline's: nothing is farther from it
    heads.filter(has_text="D: fp4").get_by_role("button").click()
    expect(titles.first).to_have_text(first)
    absent = table.get_by_text("not available: the run took no profile of a step").first
    expect(absent).to_be_hidden()
    page.get_by_role("checkbox").check()
    expect(absent).to_be_visible()
    row = table.locator("tbody tr").filter(has=page.get_by_text("Same top token", exact=True))
    row.hover()
    row.get_by_role("button").click()
    assert [head.split(":")[0] for head in heads.all_inner_texts()] == ["Metric", "B", "C", "D", "Baseline"]  # best first

    with page.expect_download() as downloading:
        page.get_by_role("button", name="Download CSV").click()
    downloading.value.save_as(tmp_path / "table.csv")
    assert (tmp_path / "table.csv").read_bytes() == report.with_name("metrics.csv").read_bytes()
    lines = list(csv.DictReader((tmp_path / "table.csv").open(encoding="utf-8")))
    assert {line["variant"] for line in lines} == {"Baseline: fp16", "B: int8", "C: nf4", "D: fp4"}

    page.locator("#trade-offs .panel").first.hover()
    with page.expect_download() as downloading:
        page.locator("#trade-offs .png").first.click()
    downloading.value.save_as(tmp_path / "chart.png")
    assert (tmp_path / "chart.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert downloading.value.suggested_filename.startswith("pareto-decode_tokens_per_s-top1_agreement")


def test_it_is_light_or_dark_as_the_reader_wishes_and_fits_a_phone(opened: Any) -> None:
    colour = "getComputedStyle(document.body).backgroundColor"
    ink = "document.querySelector('#trade-offs .js-plotly-plot').layout.hoverlabel.font.color"
    page = opened()
    light = page.evaluate(ink)
    assert page.evaluate(colour) == "rgb(246, 245, 242)"
    page.emulate_media(color_scheme="dark")
    until(page, f"{colour} === 'rgb(18, 18, 17)' && {ink} !== '{light}'")
    page.set_viewport_size({"width": 390, "height": 800})
    until(page, "document.documentElement.scrollWidth <= 390")


def until(page: Page, expression: str) -> None:
    """Playwright's own wait_for_function is code that the report's content security policy lets nobody run."""
    for _ in range(100):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(100)
    raise AssertionError(expression)
