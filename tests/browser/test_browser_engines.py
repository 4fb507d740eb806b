"""Choosing an engine in a real browser: which settings follow it, which cannot be chosen with it, and why. Nothing is run."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from driver import choose_engine
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.browser


def chosen(page: Page, column: int, knob: str) -> str | None:
    return page.locator(f"#knob-{column}-{knob} input:checked").get_attribute("value")


def test_settings_nobody_changed_follow_the_engine_and_others_stay_with_the_reason(visit: Callable[..., Page]) -> None:
    page = visit()
    cache = page.locator("#knob-0-kv_cache")
    choose_engine(page, "graph")
    expect(cache.locator("input[value=static]")).to_be_checked(timeout=20_000)
    expect(cache).to_contain_text("✕ dynamic: a captured graph reads its cache at a fixed address")
    expect(page.locator("#knob-0-attention")).to_contain_text("✕ eager: the engine graph has no eager attention")
    page.locator("#knob-0-weight_only").get_by_text("int8", exact=True).click()
    expect(page.locator("#knob-0-quantization")).to_contain_text("Weight-only int8 and quantization nf4 exclude each other")
    choose_engine(page, "transformers")
    expect(cache.locator("input[value=dynamic]")).to_be_checked(timeout=20_000)
    expect(page.locator("#knob-0-weight_only")).to_contain_text("✕ int8, int4, fp8: the engine transformers has no such setting")
    assert chosen(page, 0, "weight_only") == "int8"


def test_a_variant_says_what_follows_from_its_engine(visit: Callable[..., Page]) -> None:
    page = visit()
    box = page.locator("#differs-1 input")
    box.click()
    page.get_by_role("option", name="Engine", exact=True).click()
    box.press("Escape")
    page.locator("#knob-1-engine").get_by_text("graph", exact=True).click()
    expect(page.locator("#summary-1")).to_contain_text("Engine graph instead of transformers; with it KV cache static", timeout=20_000)
    assert chosen(page, 0, "kv_cache") == "dynamic"
    box.click()
    page.get_by_role("option", name="KV cache", exact=True).click()
    box.press("Escape")
    expect(page.locator("#knob-1-kv_cache input[value=static]")).to_be_checked(timeout=20_000)


def test_an_experiment_that_the_pages_engine_cannot_run_goes_back_to_its_own_in_words(visit: Callable[..., Page]) -> None:
    page = visit()
    choose_engine(page, "graph")
    expect(page.locator("#knob-0-kv_cache input[value=static]")).to_be_checked(timeout=20_000)
    page.locator("#experiments").get_by_text("KV cache: dynamic, static, off", exact=True).click()
    expect(page.locator("#about")).to_contain_text("The engine graph cannot run this experiment, so it is set to transformers.")
    expect(page.locator("#engine input[value=transformers]")).to_be_checked()
    expect(page.locator("#knob-0-kv_cache input[value=dynamic]")).to_be_checked()
