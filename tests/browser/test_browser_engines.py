"""Choosing an engine in a real browser: which settings follow it, which cannot be chosen with it, and why. Nothing is run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from driver import choose_engine, choose_model, run
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
    expect(page.locator("#knob-0-weight_only")).to_contain_text(
        "✕ int8, int4, fp8: the engine transformers does not have it: choose the engine graph."
    )
    assert chosen(page, 0, "weight_only") == "int8"


def test_a_variant_says_what_follows_from_its_engine(visit: Callable[..., Page]) -> None:
    page = visit()
    choose_engine(page, "transformers")
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


def test_a_model_that_the_chosen_engine_cannot_run_is_told_beside_it_and_not_started(visit: Callable[..., Page], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    page = visit()
    choose_engine(page, "transformers")
    choose_engine(page, "graph")
    expect(page.locator("#knob-0-kv_cache input[value=static]")).to_be_checked(timeout=20_000)
    choose_model(page, str(tmp_path))
    reason = "The engine graph runs the families llama, mistral, qwen2, qwen3, smollm3, not gpt2."
    expect(page.locator("#engine-note")).to_have_text(reason, timeout=20_000)
    expect(page.locator("#engine")).to_contain_text(f"✕ graph: {reason}")
    run(page)
    expect(page.locator("#message")).to_contain_text(f"{reason} Choose the engine transformers.")
    choose_engine(page, "transformers")
    expect(page.locator("#engine-note")).to_have_text("", timeout=20_000)
