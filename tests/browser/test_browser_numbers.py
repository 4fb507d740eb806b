"""Protocols, verdicts, profile, predictions and the difference view in a real browser, with the scripted engine."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from driver import choose_model, choose_protocol, column, differ, open_protocol, run, set_number, wait_done
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.browser
Scripted = Callable[..., Page]


def chosen(page: Page, elem_id: str) -> str:
    return str(page.locator(f"#{elem_id} input:checked").input_value())


def test_choosing_a_protocol_fills_its_numbers_and_changing_one_makes_it_custom(visit: Callable[..., Page]) -> None:
    page = visit()
    assert chosen(page, "protocol") == "quick"
    expect(page.locator("#quality")).to_be_visible()
    expect(page.locator("#repeats")).not_to_be_visible()
    choose_protocol(page, "careful")
    open_protocol(page)
    for elem_id, value in (("warmups", "3"), ("repeats", "10"), ("rounds", "2")):
        expect(page.locator(f"#{elem_id} input")).to_have_value(value)
    expect(page.locator("#evaluation input:checked")).to_have_value("full")
    set_number(page, "repeats", 7)
    expect(page.locator("#protocol input:checked")).to_have_value("custom")
    set_number(page, "repeats", 10)
    expect(page.locator("#protocol input:checked")).to_have_value("careful")
    choose_protocol(page, "quick")
    expect(page.locator("#repeats input")).to_have_value("3")
    for elem_id in ("energy", "profile", "price-per-hour"):
        expect(page.locator(f"#{elem_id} input")).to_be_visible()


def test_a_run_ends_with_a_verdict_the_profile_the_configuration_and_a_difference(scripted: Scripted) -> None:
    page = scripted("step_ms=10,kernels=1400,kernel_ms=1")
    differ(page, 1, "Precision", "fp32")
    set_number(page, "max-new-tokens", 12)
    run(page)
    wait_done(page)
    for index in (0, 1):
        expect(column(page, index).locator(".verdict .bound")).to_have_text(re.compile("bound|bottleneck not known"))
    profile = page.locator('#final-charts [data-panel="profile"]')
    expect(profile.locator(".js-plotly-plot")).to_be_visible()
    expect(profile.locator(".key")).to_contain_text("attention")
    expect(page.locator("#final-charts")).to_contain_text("Energy")
    row = page.locator("#comparison table").first.locator("tr").filter(has=page.get_by_text("Inter-token latency", exact=True))
    expect(row.locator(".spread").first).to_have_attribute("title", re.compile(r"over 3 passes, which vary by [\d.]+ %"))
    page.get_by_text("Effective configuration").click()
    changed = page.locator("#comparison .configuration tr.differs")
    expect(changed.filter(has=page.get_by_text("precision", exact=True))).to_contain_text("fp32")


def test_measuring_the_machine_again_is_confirmed(scripted: Scripted) -> None:
    page = scripted()
    page.locator("#remeasure").click()
    expect(page.locator("#message [role=status]")).to_contain_text("the next run measures them again")


def test_two_rounds_alternate_and_their_repeats_count_together(scripted: Scripted) -> None:
    page = scripted("step_ms=4")
    for elem_id, value in (("max-new-tokens", 6), ("repeats", 4), ("rounds", 2)):
        set_number(page, elem_id, value)
    run(page)
    wait_done(page)
    choose_model(page, "script:step_ms=3")
    spread = page.locator("#comparison table").first.locator(".spread").first
    expect(spread).to_have_attribute("title", re.compile("over 4 passes"))
