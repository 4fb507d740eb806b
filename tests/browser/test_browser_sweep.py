"""The tab "Sweep": memory that runs out, pause, reload and restart in the middle, and what stays usable while it goes on."""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from driver import (
    LONG_MS,
    Server,
    choose_engine,
    choose_model,
    close_without_errors,
    differ,
    open_page,
    open_tab,
    open_with,
    set_number,
    set_text,
    wait_usable,
)
from playwright.sync_api import Browser, Page, expect

from playground.results.store import Store

pytestmark = pytest.mark.browser
# The page slows its animation frames while a run uses the CPU, so the browser's own are kept from before its first script.
OWN_FRAMES = "window.ownFrame = window.requestAnimationFrame.bind(window)"
# window.painted: milliseconds from the next click to the first frame after `look` says something else.
TIME_A_CLICK = """(look) => {
    window.painted = null;
    const state = new Function(`return ${look}`);
    addEventListener("click", () => {
        const [began, before] = [performance.now(), state()];
        const drawn = () => state() === before ? window.ownFrame(drawn) : setTimeout(() => (window.painted = performance.now() - began));
        window.ownFrame(drawn);
    }, { capture: true, once: true });
}"""
TAB_SHOWN = "[...document.querySelectorAll('[role=tabpanel]')].find((panel) => panel.offsetParent)?.id"
PIN_PRESSED = "document.querySelector('#history-list [data-do=pin]').textContent"
STARS = "document.querySelectorAll('#history-list .pin').length"
FRAMES = """() => new Promise((counted) => {
    let frames = 0;
    const next = () => requestAnimationFrame(() => { frames += 1; next(); });
    next();
    setTimeout(() => counted(frames), 1000);
})"""


def start(page: Page, model: str, axis: str, values: str) -> None:
    """Begin a sweep of the scripted engine from the baseline in Compare."""
    if page.locator("#model input").input_value() != model:
        open_tab(page, "Compare")
        choose_engine(page, "Scripted")
        choose_model(page, model)
    open_tab(page, "Sweep")
    box = page.locator("#sweep-axis-1 input")
    if box.input_value() != axis:
        box.click()
        page.get_by_role("option", name=axis, exact=True).click()
    set_text(page, "sweep-values-1", values)
    page.get_by_role("button", name="Start", exact=True).click()


def phase(page: Page) -> object:
    """The line that says how far it is."""
    return page.locator("#sweep-progress [role=status]")


def pick(page: Page, words: str) -> None:
    """Show an earlier sweep."""
    page.locator("#sweeps input").click()
    page.get_by_role("option").filter(has_text=words).first.click()


def cells(page: Page) -> list[str]:
    """What became of each run."""
    return [str(cell.get_attribute("class")) for cell in page.locator("#sweep-progress .cells li").all()]


def test_what_runs_out_of_memory_is_a_result_and_the_larger_runs_of_its_line_are_skipped(visit: Callable[..., Page]) -> None:
    page = visit()
    choose_engine(page, "Scripted")
    choose_model(page, "script:step_ms=2,prefill_ms=2,oom_rows=4")
    set_number(page, "max-new-tokens", 4)
    differ(page, 1, "Precision", "fp32")
    open_tab(page, "Sweep")
    expect(page.locator("#sweep-progress")).to_contain_text("No sweep is shown")
    page.locator("#sweep-source").get_by_text("all variants in Compare").click()
    set_text(page, "sweep-values-1", "1, many")
    page.get_by_role("button", name="Start", exact=True).click()
    expect(page.locator("#sweep-message [role=alert]")).to_contain_text(re.compile("Not started.*many"))
    set_text(page, "sweep-values-1", "1:8:x2")
    page.get_by_role("button", name="Start", exact=True).click()
    expect(phase(page)).to_have_text("Done · 8 of 8 runs", timeout=LONG_MS)
    assert cells(page) == ["done", "done", "oom", "skipped"] * 2
    expect(page.locator("#sweep-message")).to_have_text("")
    strip = page.locator("#sweep-progress .cells")
    expect(strip).to_contain_text("bf16, Batch size 4 out of memory")
    expect(strip.locator("li").nth(3)).to_have_attribute(
        "title", "bf16, Batch size 8: skipped. bf16, Batch size 4 ran out of memory, and this takes more."
    )
    page.get_by_text("Why some runs have no numbers").click()
    expect(page.locator("#sweep-progress details li").first).to_contain_text(
        "bf16, Batch size 4; fp32, Batch size 4: Out of memory: the run asked for another 20.00 GiB"
    )
    drawn = page.locator('#sweep-charts [data-panel="output_tokens_per_s"] .js-plotly-plot')
    expect(drawn).to_be_visible()
    expect(drawn).to_contain_text("out of memory")
    page.get_by_role("button", name="Explore these runs").click()
    expect(page.locator("#explore-said h2")).to_have_text("4 runs of 4 experiments", timeout=LONG_MS)
    expect(page.locator("#explore-table thead").first).to_contain_text("fp32, Batch size 2")


def test_the_rest_of_a_sweep_can_come_from_each_variant_that_compare_has(visit: Callable[..., Page]) -> None:
    page = visit()
    choose_engine(page, "Scripted")
    choose_model(page, "script:step_ms=2")
    page.locator("#add-variant").click()
    expect(page.locator("#setup-2")).to_be_visible()
    differ(page, 2, "Precision", "fp32")
    expect(page.locator("#differs-2 .remove-all")).to_be_hidden()  # the page would not hear of it
    open_tab(page, "Sweep")
    page.locator("#sweep-source").get_by_text("variant C in Compare").click()
    set_text(page, "sweep-values-1", "1, 2")
    page.get_by_role("button", name="Start", exact=True).click()
    expect(phase(page)).to_have_text("Done · 2 of 2 runs", timeout=LONG_MS)
    page.get_by_role("button", name="Explore these runs").click()
    expect(page.locator("#explore-table")).to_contain_text("fp32", timeout=LONG_MS)
    open_tab(page, "Compare")
    page.locator("#remove-variant").click()
    expect(page.locator("#setup-2")).to_be_hidden()
    open_tab(page, "Sweep")
    expect(page.locator("#sweep-source").get_by_text("variant C in Compare")).to_have_count(0)
    expect(page.locator("#sweep-source input:checked")).to_have_value("the baseline in Compare")


def test_pause_go_on_reload_and_another_sweep_in_the_middle(visit: Callable[..., Page]) -> None:
    page = visit()
    start(page, "script:step_ms=100,prefill_ms=1", "Output tokens", "60, 900")
    expect(phase(page)).to_contain_text("now 60 output tokens", timeout=LONG_MS)
    page.locator("#sweep-pause").click()
    expect(phase(page)).to_have_text(re.compile("^Pausing after this run"))
    expect(phase(page)).to_have_text("Paused · 1 of 2 runs", timeout=LONG_MS)
    page.get_by_text("Its numbers as a table").click()
    page.locator("#sweep-on").click()
    expect(phase(page)).to_contain_text("now 900 output tokens", timeout=LONG_MS)
    expect(page.locator("#sweep-progress details table")).to_be_visible()  # still open, though drawn anew
    page.reload()
    wait_usable(page)
    open_tab(page, "Sweep")
    expect(phase(page)).to_contain_text("now 900 output tokens", timeout=LONG_MS)
    start(page, "script:step_ms=1", "Output tokens", "4, 5")
    expect(phase(page)).to_have_text("Waiting · 1 before it · 0 of 2 runs", timeout=LONG_MS)
    pick(page, "step_ms=100")
    expect(phase(page)).to_contain_text("now 900 output tokens", timeout=LONG_MS)
    page.locator("#sweep-stop").click()
    expect(phase(page)).to_have_text("Stopped · 1 of 2 runs", timeout=LONG_MS)
    pick(page, "step_ms=1 ")
    expect(phase(page)).to_have_text("Done · 2 of 2 runs", timeout=LONG_MS)
    expect(page.locator("#sweep-on")).to_be_hidden()
    pick(page, "step_ms=100")
    expect(phase(page)).to_have_text("Stopped · 1 of 2 runs", timeout=LONG_MS)
    page.locator("#sweep-delete").click()
    expect(page.locator("#sweep-delete")).to_have_text("Delete it and its runs for good")
    page.locator("#sweep-delete").click()
    expect(page.locator("#sweep-message")).to_have_text("The sweep and its runs are deleted.")
    expect(page.locator("#sweep-progress")).to_contain_text("No sweep is shown")


def test_a_restart_of_the_server_in_the_middle_costs_the_run_that_was_cut_off_and_no_other(browser: Browser, tmp_path: Path) -> None:
    server = Server(tmp_path)
    page = open_page(browser, server.url)
    try:
        start(page, "script:step_ms=60,prefill_ms=1", "Output tokens", "4, 30")
        expect(phase(page)).to_contain_text("1 of 2 runs", timeout=LONG_MS)
        server.kill()
        page.goto("about:blank")  # else Gradio's own reload, as soon as the server answers again, can cut ours off
        server = Server(tmp_path, server.port)
        page.goto(server.url)
        wait_usable(page)
        open_tab(page, "Sweep")
        expect(phase(page)).to_have_text("Interrupted when the server ended: press Go on · 1 of 2 runs", timeout=LONG_MS)
        page.locator("#sweep-on").click()
        expect(phase(page)).to_have_text("Done · 2 of 2 runs", timeout=LONG_MS)
        assert cells(page) == ["done"] * 2
    finally:
        close_without_errors([page])
        server.stop()
    store = Store(tmp_path / "results.sqlite")
    titles = Counter(item["title"].split(": ")[-1] for item in store.history())
    store.close()
    assert titles == {"4 output tokens": 1, "30 output tokens": 1}, "nothing was run twice"


def timed(page: Page, selector: str, look: str) -> float:
    """Milliseconds from a click to the frame that shows what it did."""
    page.evaluate(TIME_A_CLICK, look)
    page.locator(selector).first.click()
    page.wait_for_function("window.painted !== null", timeout=LONG_MS)
    return float(page.evaluate("window.painted"))


def test_the_page_can_be_used_while_a_sweep_goes_on(visit: Callable[..., Page], capsys: pytest.CaptureFixture[str]) -> None:
    page = visit()
    open_with(page, OWN_FRAMES)
    start(page, "script:step_ms=20,prefill_ms=1,weights_mb=5", "Output tokens", "400, 401")
    expect(phase(page)).to_contain_text("Running", timeout=LONG_MS)
    names = ("history", "explore", "compare", "sweep") * 3
    shown = [timed(page, f"#tab-{name}-button", TAB_SHOWN) for name in names]
    open_tab(page, "History")
    expect(page.locator("#history-list [data-do=pin]").first).to_be_visible(timeout=LONG_MS)
    pressed = [timed(page, "#history-list [data-do=pin]", PIN_PRESSED) for _ in range(4)]
    answered = [timed(page, "#history-list [data-do=pin]", STARS) for _ in range(4)]
    other = visit()
    other.locator("#knob-0-precision").get_by_text("fp32", exact=True).click()
    expect(other.locator("#estimate")).to_contain_text("MB", timeout=LONG_MS)
    page.wait_for_timeout(1500)  # nobody touches it
    assert page.evaluate(FRAMES) <= 4, "frames cost the run that is measured its CPU"
    open_tab(page, "Sweep")
    expect(phase(page)).to_contain_text("Running")
    page.locator("#sweep-stop").click()
    expect(phase(page)).to_contain_text("Stopped", timeout=LONG_MS)
    with capsys.disabled():
        for what, times in (("a tab", shown), ("a button", pressed), ("what the server answers to it", answered)):
            print(f"\nFrom click to paint while a sweep runs, {what}: median {statistics.median(times):.0f} ms, most {max(times):.0f} ms")
