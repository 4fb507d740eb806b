"""The tabs "History" and "Explore": find, describe, delete and bring back, run again, give out and take in, compare, and keep a report."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from driver import LONG_MS, Server, choose_engine, choose_model, differ, open_tab, reply_late, set_number, set_text, wait_done
from gradio_client import Client
from playwright.sync_api import Browser, Locator, Page, expect

pytestmark = pytest.mark.browser
Visit = Callable[..., Page]
MUTED = """document.querySelector('#explore-trades .js-plotly-plot').data
    .filter((trace) => trace.meta.variant !== undefined).map((trace) => trace.meta.muted)"""


@pytest.fixture(scope="module")
def ran(server: Server) -> Callable[..., None]:
    """ran("step_ms=2", 6) has experiments in the history: the named script with so many output tokens, in bf16 and in fp32."""
    client = Client(server.url, verbose=False)

    def run(script: str, tokens: int, *precisions: str) -> None:
        protocol = {"warmups": 0, "repeats": 2, "quality": False, "profile": False, "energy": False}
        spec: dict[str, Any] = {"model": f"script:{script}", "engine": "fake", "workload": {"max_new_tokens": tokens}, "protocol": protocol}
        client.predict({"variants": [{**spec, "knobs": {"precision": each}} for each in precisions or ("bf16",)]}, api_name="/run")

    return run


def article(page: Page, words: str) -> Locator:
    """The experiment in the list whose text has these words."""
    return page.locator("#history-list article").filter(has_text=words)


def found(page: Page, words: str, count: int) -> None:
    """Filter by words, and wait for so many experiments."""
    set_text(page, "history-text", words)
    expect(page.locator("#history-list article")).to_have_count(count, timeout=LONG_MS)


def choose(page: Page, elem_id: str, option: str) -> None:
    """Pick what begins with `option` in a filter."""
    page.locator(f"#{elem_id} input").click()
    page.get_by_role("option", name=re.compile(f"^{re.escape(option)}")).first.click()


def test_an_experiment_is_found_described_pinned_deleted_and_brought_back(visit: Visit, ran: Callable[..., None]) -> None:
    ran("step_ms=1,weights_mb=41", 4, "bf16", "fp32")
    ran("step_ms=1,weights_mb=42,fail=error", 4)
    page = visit()
    open_tab(page, "History")
    found(page, "weights_mb=4", 2)
    choose(page, "history-status", "failed")
    expect(page.locator("#history-list article")).to_have_count(1)
    expect(article(page, "weights_mb=42")).to_be_visible()
    choose(page, "history-status", "any")
    choose(page, "history-technique", "Precision")
    expect(article(page, "weights_mb=42")).to_have_count(0)
    choose(page, "history-technique", "any")
    set_text(page, "history-since", "yesterday")
    expect(page.locator("#history-list")).to_contain_text("since must be a day such as 2026-11-27, got 'yesterday'")
    set_text(page, "history-since", "2100-01-01")
    expect(page.locator("#history-list")).to_contain_text("No experiment fits these filters")
    set_text(page, "history-since", "")
    expect(page.locator("#history-list article")).to_have_count(2)

    describe = article(page, "weights_mb=41").get_by_role("button", name="Describe")
    describe.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#history-label").locator("input, textarea")).to_be_focused()
    expect(page.locator("#history-form")).to_contain_text("Of “bf16 vs fp32 · script:step_ms=1,weights_mb=41”.")
    page.keyboard.insert_text("Boats <b>& more</b>")
    page.locator("#history-note textarea").fill("Seen on a Monday")
    page.locator("#history-save").click()
    boats = article(page, "Boats <b>& more</b>")
    expect(boats).to_contain_text("Seen on a Monday")
    expect(boats).to_contain_text("bf16 vs fp32")
    expect(page.locator("#history-form")).to_be_hidden()
    found(page, "monday boats", 1)
    found(page, "weights_mb=4", 2)
    pin = boats.get_by_role("button", name="Pin", exact=True)
    pin.focus()
    page.keyboard.press("Space")
    expect(boats.get_by_role("button", name="Unpin")).to_be_focused()
    expect(page.locator("#history-list article").first).to_contain_text("Boats")

    boats.get_by_role("checkbox", name="Choose bf16").focus()
    page.keyboard.press("Space")
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    expect(page.get_by_role("button", name="Explore 2 runs")).to_be_enabled()
    boats.get_by_role("button", name="Delete").click()
    expect(page.locator("#history-said [role=status]")).to_contain_text("deleted. “Undo delete” brings it back")
    expect(page.locator("#history-list article")).to_have_count(1)
    expect(page.get_by_role("button", name="Tick two to eight runs")).to_be_disabled()
    page.get_by_role("button", name="Undo delete").click()
    expect(boats).to_contain_text("Seen on a Monday")
    expect(page.locator("#history-said")).to_contain_text("Brought back.")


def test_an_experiment_runs_again_and_goes_out_into_a_file_and_in_again(visit: Visit, ran: Callable[..., None], tmp_path: Path) -> None:
    ran("step_ms=1,weights_mb=51", 5)
    page = visit()
    open_tab(page, "History")
    found(page, "weights_mb=51", 1)
    page.get_by_role("button", name="Run again").click()
    wait_done(page)
    expect(page.locator("#comparison")).to_contain_text("51 MB")
    expect(page.locator("#max-new-tokens input")).to_have_value("5")
    open_tab(page, "History")
    found(page, "weights_mb=51", 2)
    page.get_by_role("button", name="Export").first.click()
    expect(page.locator("#history-said")).to_contain_text("is ready as a file")
    with page.expect_download() as downloading:
        page.locator("#history-file").click()
    path = tmp_path / downloading.value.suggested_filename
    downloading.value.save_as(path)
    assert path.name.endswith(".jsonl.gz")
    damaged = tmp_path / "damaged.jsonl.gz"
    damaged.write_bytes(path.read_bytes()[:100])
    page.locator("#history-import input[type=file], input[type=file]").last.set_input_files(damaged)
    expect(page.locator("#history-said")).to_contain_text("damaged", timeout=LONG_MS)
    page.locator("#history-import input[type=file], input[type=file]").last.set_input_files(path)
    expect(page.locator("#history-said")).to_contain_text("Imported as", timeout=LONG_MS)
    open_tab(page, "Compare")
    page.locator("#recordings input").click()
    page.get_by_role("option").filter(has_text="weights_mb=51").first.click()
    expect(page.locator("#model input")).to_have_value(f"recording:{path.name.removesuffix('.jsonl.gz').lower()}#0")
    page.get_by_role("button", name="Run", exact=True).click()
    wait_done(page)
    expect(page.locator("#comparison")).to_contain_text("51 MB")


def test_a_late_reply_to_the_opening_of_the_tab_does_not_stand_over_the_filter_typed_after_it(
    visit: Visit, ran: Callable[..., None]
) -> None:
    ran("step_ms=1,weights_mb=81", 3)
    ran("step_ms=1,weights_mb=82", 3)
    page = visit()
    answered = reply_late(page, '{"data":[null,"","","","","",""')  # the list from its start without a filter
    open_tab(page, "History")
    set_text(page, "history-text", "weights_mb=81")
    answered()
    expect(page.locator("#history-list article")).to_have_count(1)


def test_runs_of_two_experiments_are_compared_within_limits_and_kept_as_a_report(
    visit: Visit, browser: Browser, ran: Callable[..., None], tmp_path: Path
) -> None:
    ran("step_ms=12,prefill_ms=10,weights_mb=61", 6)  # the first token early, the others late
    ran("step_ms=2,prefill_ms=250,weights_mb=62", 9)
    page = visit()
    open_tab(page, "Explore")
    expect(page.locator("#explore-said")).to_contain_text("Tick two to eight runs in the tab History")
    open_tab(page, "History")
    for words in ("weights_mb=61", "weights_mb=62"):
        set_text(page, "history-text", words)
        expect(page.locator("#history-list article")).to_have_count(1)
        article(page, words).get_by_role("checkbox").check()
    page.get_by_role("button", name="Explore 2 runs").click()
    warnings = page.get_by_role("list", name="What makes this comparison doubtful")
    expect(warnings).to_contain_text("Number of new tokens differs: 6 (Baseline) and 9 (B).", timeout=LONG_MS)
    trades = page.get_by_role("region", name="Trade-offs")
    limit = page.locator("#explore-first-limit")
    slider = limit.locator("input[type=range]")
    slider.focus()
    page.keyboard.press("End")
    expect(trades).to_contain_text(re.compile("Without limits, B.* has the best decode speed"))
    assert page.evaluate(MUTED) == [False, False]
    page.keyboard.press("Home")
    expect(trades).to_contain_text("Grey ring: outside the limits")
    limit.locator("input[type=number]").fill("100")
    limit.locator("input[type=number]").blur()
    expect(trades).to_contain_text(re.compile("at most 100 ms.*Baseline.* is the only variant"))
    assert page.evaluate(MUTED) == [False, True]
    choose(page, "explore-x", "Weights")
    choose(page, "explore-y", "Inter-token latency")
    expect(page.locator('#explore-trades [data-panel^="pareto-weights_bytes-itl"]')).to_be_visible()

    page.get_by_role("button", name="Write a report").click()
    texts = {}
    for part in ("report", "csv", "json"):
        with page.expect_download() as downloading:
            page.locator(f"#explore-{part}").click()
        texts[part] = tmp_path / downloading.value.suggested_filename
        downloading.value.save_as(texts[part])
    assert "weights_mb=62" in texts["csv"].read_text(encoding="utf-8")
    assert json.loads(texts["json"].read_text(encoding="utf-8"))
    context = browser.new_context()
    context.set_offline(True)
    report = context.new_page()
    wrong: list[str] = []
    report.on("pageerror", lambda error: wrong.append(str(error)))
    report.on("request", lambda request: wrong.append(request.url) if request.url.startswith("http") else None)
    report.goto(texts["report"].as_uri())
    expect(report.locator("#trade-offs .js-plotly-plot").first).to_be_visible()
    expect(report.locator("body")).to_contain_text("Number of new tokens differs: 6 (Baseline) and 9 (B).")
    context.close()
    assert wrong == []


def test_a_link_opens_the_same_form_in_a_fresh_browser_and_says_what_it_does_not_know(visit: Visit, browser: Browser) -> None:
    page = visit()
    choose_engine(page, "Scripted")
    choose_model(page, "script:step_ms=3,weights_mb=71")
    differ(page, 1, "Precision", "fp32")
    set_number(page, "max-new-tokens", 7)
    link = page.locator("#share [data-query]")
    set_text(page, "prompts", "Grüße & more")  # as what is pasted: no key is pressed
    expect(link).to_contain_text("more", timeout=LONG_MS)
    expect(link).to_contain_text("max_new_tokens=7")
    expect(page.locator("#share")).to_contain_text("python -m playground run")
    fresh = visit()
    fresh.goto(f"{link.inner_text()}&colour=red")
    expect(fresh.locator("#message [role=status]")).to_contain_text(re.compile("Left out of this link: colour=red. .*no setting 'colour'"))
    expect(fresh.locator("#model input")).to_have_value("script:step_ms=3,weights_mb=71")
    expect(fresh.locator("#max-new-tokens input")).to_have_value("7")
    expect(fresh.locator("#prompts textarea")).to_have_value("Grüße & more")
    expect(fresh.locator("#summary-1")).to_contain_text("Precision fp32 instead of bf16")
    assert fresh.locator("#share [data-query]").inner_text() == link.inner_text()
    fresh.context.grant_permissions(["clipboard-read", "clipboard-write"])
    fresh.get_by_role("button", name="Copy the link").click()
    assert fresh.evaluate("navigator.clipboard.readText()") == link.inner_text()
    fresh.get_by_role("button", name="Run", exact=True).click()
    wait_done(fresh)
