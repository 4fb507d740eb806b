"""The main job of the page in a real browser, with the scripted engine: real app, real worker process, no model."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from driver import (
    LONG_MS,
    choose_engine,
    choose_model,
    close_late,
    column,
    differ,
    open_tab,
    points,
    reply_late,
    run,
    set_number,
    status,
    wait_done,
    wait_points,
    wait_usable,
    write_prompts,
)
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.browser
Scripted = Callable[..., Page]


def test_two_variants_run_and_end_side_by_side_with_text_numbers_charts_and_a_table(scripted: Scripted) -> None:
    page = scripted("step_ms=15,weights_mb=270")
    differ(page, 1, "Precision", "fp32")
    set_number(page, "max-new-tokens", 24)
    run(page)
    expect(column(page, 0).locator(".said")).to_contain_text(re.compile(r"\w+ \w+ \w+"), timeout=30_000)
    wait_points(page, 5)
    wait_done(page)
    for index, name in enumerate(("Baseline: bf16", "B: fp32")):
        expect(column(page, index).get_by_role("heading")).to_have_text(name)
        itl = column(page, index).locator(".numbers > div").filter(has_text="Inter-token latency").locator("dd").first
        assert (
            14 <= float(re.fullmatch(r"([\d.]+) ms", itl.inner_text())[1]) < 1000
        )  # as long as the script says or longer, and in that unit
    assert column(page, 0).locator(".said").inner_text() == column(page, 1).locator(".said").inner_text()
    for panel in ("ttft_s", "itl_s", "memory", "output_tokens_per_s"):
        expect(page.locator(f'#final-charts [data-panel="{panel}"] .js-plotly-plot')).to_be_visible()
    expect(page.locator('#final-charts [data-panel="kld_mean"]')).to_contain_text("Not available: a script has no probabilities")
    row = page.locator("#comparison tr").filter(has=page.get_by_text("Weights", exact=True))
    expect(row).to_contain_text("270 MB")
    expect(row.locator("th")).to_have_attribute("title", re.compile("sum over the real tensors"))
    expect(page.locator(".provenance.machine")).to_contain_text("transformers")


def test_live_charts_grow_in_the_same_node_and_zoom_survives_an_update(scripted: Scripted) -> None:
    page = scripted("step_ms=25")
    set_number(page, "max-new-tokens", 120)
    set_number(page, "repeats", 1)
    run(page)
    before = wait_points(page, 5)
    page.evaluate("""() => {
        const plot = document.querySelector('#live-charts [data-panel="latency"] .plot');
        plot.marked = true;
        return Plotly.relayout(plot, {'xaxis.range[0]': 0.1, 'xaxis.range[1]': 0.4});
    }""")
    wait_points(page, before + 20)
    marked, low, high = page.evaluate("""() => {
        const plot = document.querySelector('#live-charts [data-panel="latency"] .plot');
        return [plot.marked === true, ...plot._fullLayout.xaxis.range];
    }""")
    assert (marked, low, high) == (True, 0.1, 0.4)
    page.locator("#stop").click()


def test_a_hidden_line_stays_hidden_while_the_run_goes_on(scripted: Scripted) -> None:
    page = scripted("step_ms=25")
    set_number(page, "max-new-tokens", 80)
    run(page)
    before = wait_points(page, 5)
    page.locator("#live-charts .legend-item").first.click()
    wait_points(page, before + 10)
    plot = """document.querySelector('#live-charts [data-panel="latency"] .plot')"""
    visible = page.evaluate(f"{plot}.data.map((line) => line.visible)")
    assert visible == [False, True]
    page.locator("#stop").click()


def test_stop_ends_a_run_at_once_and_the_next_run_works(scripted: Scripted) -> None:
    page = scripted("step_ms=100")
    set_number(page, "max-new-tokens", 500)
    run(page)
    wait_points(page, 3)
    page.get_by_role("button", name="Stop", exact=True).click()
    expect(status(page)).to_have_text("Stopped.", timeout=20_000)  # the runs that are left would take minutes
    expect(column(page, 0).locator(".badge")).to_have_text("stopped")
    choose_model(page, "script:step_ms=5")
    set_number(page, "max-new-tokens", 8)
    run(page)
    wait_done(page)


def test_a_reload_in_the_middle_finds_the_run_its_settings_and_its_results_again(scripted: Scripted) -> None:
    page = scripted("step_ms=40")
    differ(page, 1, "KV cache", "off")
    set_number(page, "max-new-tokens", 60)
    write_prompts(page, "One prompt to find again")
    run(page)
    wait_points(page, 5)
    page.reload()
    wait_usable(page)
    expect(column(page, 1).get_by_role("heading")).to_have_text("B: KV cache off", timeout=20_000)
    assert points(page) > 0 or wait_points(page, 0)
    expect(page.locator("#prompts textarea")).to_have_value("One prompt to find again")
    expect(page.locator("#model input")).to_have_value("script:step_ms=40")
    expect(page.locator("#summary-1")).to_contain_text("KV cache off instead of dynamic")
    wait_done(page)
    page.reload()
    expect(page.locator("#comparison")).to_contain_text("Inter-token latency", timeout=20_000)


def test_an_empty_prompt_is_refused_in_words_and_nothing_is_lost(scripted: Scripted) -> None:
    page = scripted()
    write_prompts(page, "   ")
    set_number(page, "max-new-tokens", 17)
    run(page)
    expect(page.locator("#message [role=alert]")).to_contain_text("There is no prompt. Write at least one line of text")
    expect(page.locator("#columns article")).to_have_count(0)
    expect(page.locator("#max-new-tokens input")).to_have_value("17")
    write_prompts(page, "Now there is one")
    set_number(page, "max-new-tokens", 4)
    run(page)
    expect(page.locator("#message [role=alert]")).to_have_count(0)
    wait_done(page)


def test_a_number_that_cannot_be_is_refused_in_words(scripted: Scripted) -> None:
    page = scripted()
    for field, value, possible, sentence in (
        ("max-new-tokens", 0, 8, "max_new_tokens must be a whole number from 1"),
        ("repeats", 0, 3, "repeats must be a whole number from 1"),
        ("max-new-tokens", -3, 8, "max_new_tokens must be a whole number from 1"),
        ("temperature", -1, 0, "temperature must be from 0"),
    ):
        set_number(page, field, value)
        run(page)
        expect(page.locator("#message [role=alert]")).to_contain_text(sentence)
        set_number(page, field, possible)


def test_top_k_and_top_p_come_alive_with_a_temperature_and_go_with_the_run(scripted: Scripted) -> None:
    page = scripted("step_ms=2")
    page.get_by_role("button", name="Sampling, end of text, chat template").click()
    expect(page.locator("#top-k input")).to_be_disabled()
    expect(page.locator("#top-k")).to_contain_text("Not used here: at temperature 0 the most likely token is always taken.")
    set_number(page, "temperature", 0.8)
    expect(page.locator("#top-k input")).to_be_enabled()
    set_number(page, "top-k", 40)
    set_number(page, "top-p", 2)
    run(page)
    expect(page.locator("#message [role=alert]")).to_contain_text("top_p must be above 0 and at most 1")
    set_number(page, "top-p", 0.9)
    set_number(page, "max-new-tokens", 4)
    run(page)
    wait_done(page)
    page.reload()
    wait_usable(page)
    page.get_by_role("button", name="Sampling, end of text, chat template").click()
    for field, value in (("temperature", "0.8"), ("top-k", "40"), ("top-p", "0.9")):
        expect(page.locator(f"#{field} input")).to_have_value(value)


def test_two_visitors_run_at_once_and_the_second_sees_its_place(scripted: Scripted) -> None:
    first, second = scripted("step_ms=40"), scripted("step_ms=5")
    for page in (first, second):
        set_number(page, "max-new-tokens", 100)
    run(first)
    wait_points(first, 3)
    run(second)
    expect(status(second)).to_have_text("Waiting: 1 run ahead of yours", timeout=10_000)
    first.get_by_role("button", name="Stop", exact=True).click()
    wait_done(second)


def test_a_second_run_is_refused_while_the_first_goes_on_and_stop_still_stops_that_one(scripted: Scripted) -> None:
    page = scripted("step_ms=100")
    set_number(page, "max-new-tokens", 500)
    run(page)
    wait_points(page, 3)
    run(page)
    expect(page.locator("#message [role=alert]")).to_contain_text("Your run is still going: stop it first, or wait.")
    expect(status(page)).to_contain_text("Running")
    page.reload()
    wait_usable(page)
    run(page)
    expect(page.locator("#message [role=alert]")).to_contain_text("Your run is still going")
    page.get_by_role("button", name="Stop", exact=True).click()
    expect(status(page)).to_have_text("Stopped.", timeout=10_000)
    expect(page.locator("#message")).not_to_contain_text("still going")


def test_stop_ends_the_own_run_while_an_earlier_one_is_shown(scripted: Scripted) -> None:
    page = scripted("step_ms=2,weights_mb=77")
    set_number(page, "max-new-tokens", 4)
    run(page)
    wait_done(page)
    choose_model(page, "script:step_ms=100")
    set_number(page, "max-new-tokens", 500)
    run(page)
    wait_points(page, 3)
    open_tab(page, "History")
    page.locator("#history-list article").filter(has_text="weights_mb=77").first.get_by_role("button", name="Open").click()
    expect(page.locator("#comparison")).to_contain_text("77 MB", timeout=20_000)
    stop = page.get_by_role("button", name="Stop", exact=True)
    stop.click()
    expect(page.locator("#message")).to_contain_text("Your run was stopped")
    expect(page.locator("#comparison")).to_contain_text("77 MB")
    choose_model(page, "script:step_ms=2,weights_mb=88")
    set_number(page, "max-new-tokens", 4)
    run(page)
    expect(page.locator("#comparison")).to_contain_text("88 MB", timeout=30_000)
    stop.click()
    expect(page.locator("#message")).to_contain_text("Nothing is running.")


def test_the_device_strip_is_kept_current_by_the_server(visit: Callable[..., Page]) -> None:
    page = visit()
    page.evaluate("document.querySelector('#device .strip').replaceChildren()")
    load = page.locator("#device li").filter(has=page.get_by_text("CPU", exact=True)).locator("b")
    expect(load).to_have_text(re.compile(r"^\d+ %$"), timeout=8_000)


def test_a_crash_is_shown_in_its_column_and_the_page_lives_on(scripted: Scripted) -> None:
    page = scripted("step_ms=5,fail=segfault")
    set_number(page, "max-new-tokens", 8)
    run(page)
    expect(status(page)).to_contain_text("Ended with a failure", timeout=30_000)
    expect(column(page, 0).locator(".failure")).not_to_be_empty()
    choose_model(page, "script:step_ms=5")
    run(page)
    wait_done(page)


def test_several_prompts_can_be_looked_at_one_by_one(scripted: Scripted) -> None:
    page = scripted("step_ms=5")
    write_prompts(page, "first prompt", "second prompt <b>bold</b>")
    set_number(page, "max-new-tokens", 6)
    run(page)
    wait_done(page)
    one = column(page, 0).locator(".said").inner_text()
    page.locator("#row input").click()
    page.get_by_role("option", name=re.compile("^2:")).click()
    expect(column(page, 0).locator(".said")).not_to_have_text(one)
    page.get_by_role("button", name=re.compile("^Exact input")).click()
    expect(page.locator("#prepared pre").nth(1)).to_have_text("second prompt <b>bold</b>")


def test_an_earlier_run_is_opened_from_the_history(scripted: Scripted) -> None:
    page = scripted("step_ms=5,weights_mb=123")
    set_number(page, "max-new-tokens", 6)
    run(page)
    wait_done(page)
    choose_model(page, "script:step_ms=5,weights_mb=456")
    run(page)
    expect(page.locator("#comparison")).to_contain_text("456 MB", timeout=30_000)
    open_tab(page, "History")
    page.locator("#history-list article").filter(has_text="weights_mb=123").first.get_by_role("button", name="Open").click()
    expect(page.locator("#comparison")).to_contain_text("123 MB", timeout=20_000)
    expect(page.locator("#model input")).to_have_value("script:step_ms=5,weights_mb=123")


def test_what_cannot_be_chosen_is_inert_and_says_why(scripted: Scripted) -> None:
    page = scripted()
    quantization = page.locator("#knob-0-quantization")
    expect(quantization).to_contain_text("int8 and bf16 exclude each other")
    expect(page.get_by_test_id("int8 ✕-radio-label").first).to_have_css("pointer-events", "none")
    page.locator("#knob-0-precision").get_by_text("fp16", exact=True).click()
    expect(quantization).not_to_contain_text("exclude each other")
    page.locator("#advanced-0").click()
    expect(page.locator("#knob-0-double_quantization")).to_contain_text("it applies to nf4 and fp4")
    expect(page.locator("#knob-0-double_quantization input")).to_be_disabled()


def test_a_phone_shows_everything_without_scrolling_sideways(scripted: Scripted) -> None:
    page = scripted("step_ms=5", width=400, height=800)
    set_number(page, "max-new-tokens", 6)
    run(page)
    wait_done(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    expect(page.get_by_role("button", name="Run", exact=True)).to_be_in_viewport()
    expect(page.get_by_role("button", name="Stop", exact=True)).to_be_in_viewport()


def test_the_page_asks_nothing_of_the_network(scripted: Scripted, visit: Callable[..., Page]) -> None:
    page = visit()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.reload()
    wait_usable(page)
    page.locator("#experiments").get_by_text("KV cache", exact=False).first.click()
    expect(page.locator("#about")).to_contain_text("What to look for")
    foreign = [url for url in asked if not url.startswith((page.url.split("?")[0], "data:", "blob:"))]
    assert asked
    assert foreign == []


def test_an_experiment_preset_fills_the_columns_in(visit: Callable[..., Page]) -> None:
    page = visit()
    page.locator("#experiments").get_by_text(re.compile("^Quantization: ")).click()
    expect(page.locator("#setup-3")).to_be_visible()
    expect(page.locator("#summary-2")).to_contain_text("Quantization nf4 instead of none")
    choose_engine(page, "Scripted")
    choose_model(page, "script:step_ms=2")
    set_number(page, "max-new-tokens", 4)
    run(page)
    wait_done(page)
    expect(page.locator("#columns article")).to_have_count(4)


def test_an_edit_while_a_preset_fills_the_form_in_does_not_mix_old_and_new(visit: Callable[..., Page]) -> None:
    page = visit()
    answered = reply_late(page, '{"data":["quantization"')
    page.locator("#experiments").get_by_text(re.compile("^Quantization: ")).click()
    set_number(page, "max-new-tokens", 9)
    run(page)
    answered()
    expect(page.locator("#message [role=alert]")).to_contain_text("Not started. The form was still being filled in: press it again.")
    for index, kind in ((1, "int8"), (2, "nf4"), (3, "fp4")):
        expect(page.locator(f"#summary-{index}")).to_contain_text(f"Quantization {kind} instead of none")


def test_no_answer_is_lost_where_the_server_closes_the_stream_of_answers_just_then(visit: Callable[..., Page]) -> None:
    page = visit()
    close_late(page)
    for tokens in (9, 10, 11):  # each asks twice: how the form changes, and what to expect of it
        set_number(page, "max-new-tokens", tokens)
        expect(page.locator("#share")).to_contain_text(f"max_new_tokens={tokens}", timeout=LONG_MS)
    assert page.evaluate("window.closings") > 0, "no stream was closed"
